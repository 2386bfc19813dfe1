"""The model against values measured on the original implementation."""

import pytest
import torch

from tests import golden

CASES = [
    "text",
    "image",
    "image_no_types",
    "image_masked",
    "image_sampled4",
    "image_interpolated",
    "video",
    "audio",
    "code_all",
    "code_mixed",
]
TOLERANCE = {torch.float32: 5e-5, torch.float64: 1e-9}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_golden_case(shared, name, dtype):
    case = golden.load(shared, "cases")[name]
    changes = {"modalities": name} if name in ("video", "audio") else {}
    if name == "image_interpolated":
        changes = {"interpolate_position": True, "orig_patch_image_size": case["orig_patch_image_size"]}
    model = golden.build_golden_model(shared, dtype, **changes)
    net = golden.golden_net(case, dtype)
    expected = case["f32" if dtype == torch.float32 else "f64"]
    with torch.no_grad():
        out = model.encoder(net["src_tokens"], None, net.get("media"), net.get("code_masks"), return_all_hiddens=True)
        logits, extra = model.decoder(net["prev_output_tokens"], out, return_all_hiddens=True)
    tolerance = {"rtol": 0, "atol": TOLERANCE[dtype]}
    torch.testing.assert_close(logits, expected["logits"], **tolerance)
    torch.testing.assert_close(out.hidden.transpose(0, 1), expected["encoder_out"], **tolerance)
    assert torch.equal(out.padding, expected["encoder_padding_mask"])
    positions = out.positions.expand(logits.size(0), -1, -1)
    torch.testing.assert_close(positions, expected["position_embeddings"], **tolerance)
    if dtype == torch.float64:  # states were stored in float32
        for ours, theirs in (
            (out.states, expected["encoder_states"]),
            (extra["inner_states"], expected["decoder_states"]),
        ):
            assert len(ours) == len(theirs)
            for a, b in zip(ours, theirs, strict=True):
                torch.testing.assert_close(a.transpose(0, 1), b.double(), rtol=1e-6, atol=1e-5)
