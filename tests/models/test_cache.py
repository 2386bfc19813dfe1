"""What is computed once: buckets per length and grid, positions and room for keys and values per search; and no bias per row."""

import pytest
import torch

from tests import tiny
from unival.generation.search import build_generator
from unival.modalities.base import image_layout, positions_on
from unival.models import cache
from unival.models.bias import join_buckets, kept_image_buckets, kept_token_buckets
from unival.models.cache import DecoderState
from unival.models.decoder import STATE


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return tiny.vocabulary(tmp_path_factory.mktemp("vocab"))


@pytest.fixture(scope="module")
def model(vocab):
    return tiny.model(vocab, modalities="").double()


def tokens(vocab, rows, length, seed=0):
    found = torch.randint(4, len(vocab), (rows, length), generator=torch.Generator().manual_seed(seed))
    found[:, 0] = vocab.bos
    return found


def test_buckets_of_a_grid_are_found_again_and_joined():
    device = torch.device("cpu")
    ids = positions_on(image_layout, (2, 2), 42, device)
    assert positions_on(image_layout, (2, 2), 42, device) is ids and positions_on(image_layout, (2, 3), 42, device) is not ids
    with torch.inference_mode():  # what is kept serves training as well
        image = kept_image_buckets(ids, 42)
        text = kept_token_buckets(3, 4, device)
    assert kept_image_buckets(ids, 42) is image and kept_token_buckets(3, 4, device) is text
    assert not image.is_inference() and not text.is_inference()
    joined = join_buckets(7, 6892, (image, text), (False, True))
    assert torch.equal(joined[:4, :4], image + 7) and torch.equal(joined[4:, 4:], text)
    assert set(joined[:4, 4:].flatten().tolist()) == set(joined[4:, :4].flatten().tolist()) == {7 + 6892}
    sampled = join_buckets(7, 6892, (torch.stack([image, image.flip(0)]), text), (False, True))
    assert torch.equal(sampled[0], joined) and torch.equal(sampled[1, :4, :4], image.flip(0) + 7)


def test_padding_gives_the_bias_no_batch_axis(vocab, model, monkeypatch):
    """Nor does the target's; the padding comes as a mask of its own."""
    seen = []
    for layer in [*model.encoder.layers, *model.decoder.layers]:
        forward = layer.self_attn.forward

        def note(x, k, v, bias, padding=None, forward=forward):
            seen.append((bias.dim(), padding is None))
            return forward(x, k, v, bias, padding)

        monkeypatch.setattr(layer.self_attn, "forward", note)
    src, prev = tokens(vocab, 2, 6), tokens(vocab, 2, 5, seed=1)
    model.forward_group(src, None, prev)
    src[1, 4:], prev[0, 3:] = vocab.pad, vocab.pad
    model.forward_group(src, None, prev)
    assert seen == [(3, True)] * 4 + [(3, False)] * 4


def test_room_is_made_once_and_grows_where_nobody_said_how_much(vocab, model, monkeypatch):
    monkeypatch.setattr(cache, "SMALLEST", 3)
    src, prev = tokens(vocab, 2, 6), tokens(vocab, 2, 12, seed=1)
    with torch.no_grad():
        whole = model.forward_group(src, None, prev)[0]
        out = model.encoder(src)
        for reserved, rooms in ((None, {3, 6, 12}), (12, {12})):
            state, found = {}, set()
            if reserved:
                model.decoder.reserve(state, reserved)
            for t in range(1, 13):
                newest = model.decoder(prev[:, :t], out, incremental_state=state)[0]
                torch.testing.assert_close(newest[:, 0], whole[:, t - 1], rtol=0, atol=1e-12)
                found.add((state[STATE].past.data_ptr(), state[STATE].past.size(4)))
            assert len(found) == len(rooms) and {room for _, room in found} == rooms
        with pytest.raises(AssertionError, match="12 target tokens were decoded before"):
            model.decoder(prev, out, incremental_state=state)
    with pytest.raises(AssertionError, match="no_grad"):
        model.decoder(prev[:, :1], out, incremental_state={})


def test_reordering_copies_rows_within_the_room():
    state = DecoderState(layers=2)
    state.make_room(4, 4)
    k = torch.randn(3, 1, 2, 5)
    for layer in range(2):
        state.extend(layer)(k, k + 1)
    state.filled = 2
    room = state.past.data_ptr()
    for order in ([0, 2, 2], [1, 0], [1, 1, 0]):  # the third has more rows than are left, not more than there is room for
        before = state.past.clone()
        state.reorder(torch.tensor(order))
        assert state.past.data_ptr() == room
        assert torch.equal(state.past[:, :, : len(order), :, :2], before[:, :, order, :, :2])
    state.reorder(torch.tensor([0, 1, 2, 0]))
    assert state.past.size(2) == 4 and torch.equal(state.past[:, :, 3, :, :2], state.past[:, :, 0, :, :2])


def test_a_search_reserves_its_room_and_projects_its_range(vocab, model, monkeypatch):
    """Rows in their prompt need all scores; after it only the range's and the special tokens' are computed."""
    sizes, rooms = [], set()
    project, forward = model.decoder.output_layer, model.decoder.forward

    def note(features, stretch=None):
        logits = project(features, stretch)
        sizes.append(logits.size(-1))
        return logits

    def watch(*args, incremental_state, **kwargs):
        result = forward(*args, incremental_state=incremental_state, **kwargs)
        rooms.add((incremental_state[STATE].past.data_ptr(), incremental_state[STATE].past.size(4)))
        return result

    src = tokens(vocab, 2, 6)
    group = {"src_tokens": src, "src_lengths": torch.tensor([6, 6])}
    sample = {"net_input": {"groups": [group]}, "prefix_tokens": torch.tensor([[60], [61]])}
    found = []
    for spied in (True, False):
        generator = build_generator([model], vocab.dictionary, {"beam": 3, "max_len_b": 6, "min_len": 6}, constraint_range=(40, 50))
        if spied:
            monkeypatch.setattr(model.decoder, "output_layer", note)
            monkeypatch.setattr(model.decoder, "forward", watch)
        else:  # the scores of all tokens, masked
            monkeypatch.undo()
            generator.model.said = ()
        found.append([[(h["tokens"].tolist(), float(h["score"])) for h in row] for row in generator.generate([model], sample)])
    assert sizes == [len(vocab), *[4, 10] * 6]
    assert len(rooms) == 1 and {room for _, room in rooms} == {7}
    for ours, plain in zip(found[0], found[1], strict=True):
        assert [h[0] for h in ours] == [h[0] for h in plain]
        assert [h[1] for h in ours] == pytest.approx([h[1] for h in plain], abs=1e-12)
        assert all(40 <= token < 50 for h in ours for token in h[0][1:-1])


def test_media_tables_are_not_used_by_text(vocab):
    """Absent gradients, rather than zeros: weight decay does not move what a step does not use."""
    model = tiny.model(vocab)
    words = tokens(vocab, 1, 4)
    model(groups=[{"src_tokens": words, "src_lengths": None, "prev_output_tokens": words}])[0].sum().backward()
    tables = [*model.encoder.image_rel_pos_table_list, *model.decoder.image_rel_pos_table_list]
    assert all(table.weight.grad is None for table in tables)
    assert all(table.weight.grad is not None for table in model.encoder.token_rel_pos_table_list)
