"""Batches of media: the values are those of ``torch.stack``, in the order in memory that the items have."""

import pytest
import torch

from unival.data.collate import collate_media, stacked


@pytest.mark.parametrize(
    "items",
    [
        [torch.rand(3, 4, 5) for _ in range(2)],
        [torch.rand(4, 5, 3).permute(2, 0, 1) for _ in range(3)],  # images, their channels last in memory
        [torch.rand(2, 4, 5, 3).permute(3, 0, 1, 2) for _ in range(2)],  # videos
        [torch.rand(4, 5, 3).permute(2, 0, 1), torch.rand(3, 4, 5), torch.rand(1, 4, 5).expand(3, -1, -1)],
        [torch.rand(1, 4, 5).expand(3, -1, -1), torch.rand(4, 5, 3).permute(2, 0, 1)],  # grey first
        [torch.rand(7)],
        [torch.tensor(1.0), torch.tensor(2.0)],
    ],
)
def test_stacked_values_are_those_of_torch(items):
    assert torch.equal(stacked(items), torch.stack(items))


def test_channels_stay_last_in_memory():
    images = [("image", torch.zeros(4, 5, 3, dtype=torch.uint8).permute(2, 0, 1)) for _ in range(2)]
    videos = [("video", torch.zeros(2, 4, 5, 3, dtype=torch.uint8).permute(3, 0, 1, 2)) for _ in range(2)]
    assert collate_media(images)["values"].is_contiguous(memory_format=torch.channels_last)
    assert collate_media(videos)["values"].is_contiguous(memory_format=torch.channels_last_3d)
    assert stacked([torch.zeros(3, 4), torch.zeros(3, 4)]).is_contiguous()
