"""The model against values measured on the original implementation."""

import pytest
import torch

from tests import golden

TOLERANCE = {torch.float32: 5e-5, torch.float64: 1e-9}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", golden.CASES)
def test_golden_case(name, dtype):
    case = golden.case(name)
    if name == "image_interpolated":
        options = {"interpolate_position": True, "orig_patch_image_size": case["orig_patch_image_size"]}
        model = golden.build_golden_model(dtype, **options)
    else:
        model = golden.golden_model(dtype, case.get("medium", "image"))
    groups = golden.golden_groups(case, dtype)
    tolerance = {"rtol": 0, "atol": TOLERANCE[dtype]}
    with torch.no_grad():
        torch.testing.assert_close(model(groups)[0].double(), case["logits"], **tolerance)
    if name == "image_masked":  # rows with an image and without: two groups here, one padded batch there
        assert [len(group["src_tokens"]) for group in groups] == [1, 1]
        return
    (net,) = groups
    with torch.no_grad():
        out = model.encoder(net["src_tokens"], None, net.get("media"), net.get("code_masks"), return_all_hiddens=True)
        logits, extra = model.decoder(net["prev_output_tokens"], out, return_all_hiddens=True)
    torch.testing.assert_close(logits.double(), case["logits"], **tolerance)
    torch.testing.assert_close(out.hidden.transpose(0, 1).double(), case["encoder_out"], **tolerance)
    assert torch.equal(out.padding, case["encoder_padding_mask"])
    positions = out.positions.expand(len(case["position_embeddings"]), -1, -1)
    torch.testing.assert_close(positions.double(), case["position_embeddings"], **tolerance)
    if dtype == torch.float64:  # states were stored in float32, the first row of every layer
        for ours, theirs in ((out.states, case["encoder_states"]), (extra["inner_states"], case["decoder_states"])):
            assert len(ours) == len(theirs)
            for a, b in zip(ours, theirs, strict=True):
                torch.testing.assert_close(a[0], b.double(), rtol=1e-6, atol=1e-5)
