"""Loss and gradients through the tiny reference model against the original's."""

import argparse
from typing import Any

import pytest
import torch

from tests import golden
from unival.checkpoints.names.published import rename_published
from unival.criterions.encouraging import EncouragingConfig, EncouragingCriterion
from unival.criterions.label_smoothed import LabelSmoothedConfig, LabelSmoothedCriterion
from unival.models.unival import UnivalModel

SMOOTH = {"label_smoothing": 0.1, "sentence_avg": False}
DROP = {"drop_worst_ratio": 0.2, "drop_worst_after": 10}
CASES: dict[str, dict[str, Any]] = {
    "ls_text": {},
    "ls_image": {},
    "ls_video": {},
    "ls_audio": {},
    "ls_image_conf": {},
    "ls_image_dropworst": DROP,
    "ls_image_rdrop": {"use_rdrop": True},
    "ls_code_range": {"constraint_range": "105,137"},
    "ls_vqa_constrained": {},
    "el_image": {},
    "el_image_logend1": {"log_end": 1.0},
    "el_image_dropworst": DROP,
    "el_image_dropbest_is_noop": {},  # it has no effect there, so ours is compared without it
    "el_vqa_constrained": {},
}
# stored in float64: equal to rounding; float32 gradients differ from float64 by up to 8.5e-4 in the original itself
DOUBLE = {"ls_image_f64": {}, "el_image_f64": {}}


def criterion_of(name: str, options: dict[str, Any], model: UnivalModel, updates: int) -> LabelSmoothedCriterion:
    task = argparse.Namespace(target_dictionary=model.decoder.dictionary)
    if name.startswith("ls"):
        criterion = LabelSmoothedCriterion(task, LabelSmoothedConfig(**SMOOTH, **options))
    else:
        criterion = EncouragingCriterion(task, EncouragingConfig(**SMOOTH, **options))
    criterion.set_num_updates(updates)
    return criterion


def sample_of(name: str, dtype: torch.dtype) -> dict[str, Any]:
    inputs = {key.removeprefix("inputs/"): value for key, value in golden.tensors("losses").items() if key.startswith("inputs/")}
    kind = next((kind for kind in ("video", "audio") if kind in name), "image")
    case = golden.case("text" if "text" in name or "code" in name else kind)
    case.update(src_tokens=inputs["src_tokens"], prev_output_tokens=inputs["prev_output_tokens"])
    sample: dict[str, Any] = {"target": inputs["target"]}
    if "vqa" in name:
        case.update(src_tokens=inputs["vqa_src"], prev_output_tokens=inputs["vqa_prev"])
        sample = {"target": inputs["vqa_target"], "constraint_masks": inputs["vqa_constraint_masks"]}
    if "vqa" in name or "conf" in name:
        sample["conf"] = inputs["conf"]
    if "code" in name:
        prev = inputs["code_prev"]
        case.update(prev_output_tokens=prev, code_masks=torch.ones(2, dtype=torch.bool))
        sample["target"] = torch.cat([prev[:, 1:], torch.full((2, 1), 2)], dim=1)
    sample["net_input"] = {"groups": golden.golden_groups(case, dtype)}
    return sample


def published_gradients(model: UnivalModel, names: list[str]) -> dict[str, torch.Tensor]:
    """Our gradients under the published names."""
    own = dict(model.named_parameters())
    found = {}
    for name in names:
        renamed = {name: torch.zeros(0)}
        rename_published(renamed)
        parameter = own[next(iter(renamed))]
        # what a batch does not touch has no gradient here, one of zeros there
        found[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return found


def check(model: UnivalModel, name: str, options: dict[str, Any], loss_rel: float, grad_rel: float) -> None:
    expected = golden.loss_case(name)
    dtype = model.decoder.embed_tokens.weight.dtype
    criterion = criterion_of(name, options, model, expected["update_num"])
    model.zero_grad()
    loss, size, log = criterion(model, sample_of(name, dtype))
    (loss / size).backward()
    assert size == expected["sample_size"]
    assert float(loss.detach()) == pytest.approx(expected["loss"], rel=loss_rel)
    assert float(log["nll_loss"]) == pytest.approx(expected["nll_loss"], rel=loss_rel)
    check_gradients(model, expected, grad_rel)


def check_gradients(model: UnivalModel, expected: dict[str, Any], grad_rel: float) -> None:
    gradients = published_gradients(model, list(expected["grad_norms"]))
    for key, norm in expected["grad_norms"].items():
        assert float(gradients[key].norm()) == pytest.approx(norm, rel=grad_rel, abs=1e-6), key
    for key, values in expected["grads"].items():
        scale = grad_rel * max(expected["grad_norms"][key], 1e-3)
        torch.testing.assert_close(
            gradients[key].to(values.dtype), values, rtol=0, atol=scale, msg=lambda m, k=key: f"{k}: {m}"
        )
    total = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert float(total) == pytest.approx(expected["grad_norm_total"], rel=grad_rel)


@pytest.mark.parametrize("name", CASES)
def test_original_in_float32(name: str) -> None:
    kind = next((kind for kind in ("video", "audio") if kind in name), "image")
    check(golden.golden_model(modalities=kind), name, CASES[name], loss_rel=1e-5, grad_rel=2e-3)


@pytest.mark.parametrize("name", DOUBLE)
def test_original_in_float64(name: str) -> None:
    check(golden.golden_model(torch.float64), name, DOUBLE[name], loss_rel=1e-11, grad_rel=1e-6)


def test_two_batches_of_different_media_in_one_step() -> None:
    """A pre-training step: the losses per token of an image batch and a video batch are added."""
    model = golden.build_golden_model(modalities="image,video")
    expected = golden.loss_case("ls_list_image_video")
    model.zero_grad()
    total, nll = 0.0, 0.0
    for name in ("ls_image", "ls_video"):
        loss, size, log = criterion_of(name, {}, model, 0)(model, sample_of(name, torch.float32))
        (loss / size).backward()
        total, nll = total + float(loss.detach()) / size, nll + float(log["nll_loss"]) / size
    assert total == pytest.approx(expected["loss"], rel=1e-5)
    assert nll == pytest.approx(expected["nll_loss"], rel=1e-5)
    check_gradients(model, expected, grad_rel=2e-3)


def test_original_with_batch_statistics() -> None:
    """Batch norm in training mode: loss, gradients and the running statistics afterwards."""
    model = golden.build_golden_model()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train()
    check(model, "ls_image_bn_train", {}, loss_rel=1e-4, grad_rel=5e-3)
    state = model.state_dict()
    for key, values in golden.loss_case("ls_image_bn_train")["running_after"].items():
        renamed = {key: torch.zeros(0)}
        rename_published(renamed)
        torch.testing.assert_close(state[next(iter(renamed))][: len(values)], values, rtol=1e-4, atol=1e-6)


def test_every_case_is_compared() -> None:
    names = set(golden.numbers("losses")["cases"])
    left = {"ls_list_image_video", "ls_image_bn_train"}  # tests of their own above
    assert names - left == {*CASES, *DOUBLE}
