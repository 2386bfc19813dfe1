"""Makes the files of this folder from the complete reference values: ``python -m tests.golden.extract REFERENCE``.

REFERENCE is the folder with ``golden/`` and ``base_state_dict_shapes.json``, which does not belong to the repository. Where it is there,
a test makes the files again and compares.
"""

import json
import pathlib
import sys
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

FOLDER = pathlib.Path(__file__).resolve().parent
PROVENANCE = "Measured on the original implementation (mshukor/UnIVAL, commit 01220da, Apache-2.0) with the tensors of recipe.py"
CASES = ("text", "image", "image_masked", "image_sampled4", "image_interpolated", "video", "audio", "code_all", "code_mixed")
INPUTS = ("src_tokens", "prev_output_tokens", "code_masks")
CHANNELS = slice(None, None, 32)  # of CNN features
GRADIENTS = (  # kept value by value; of all others the norms are kept
    "encoder.layernorm_embedding.weight",
    "encoder.image_proj.bias",
    "encoder.video_proj.bias",
    "encoder.audio_proj.bias",
    "encoder.layers.0.self_attn.c_attn",
    "encoder.layers.1.fc2.bias",
    "decoder.self_pos_q_linear.bias",
    "decoder.layers.0.encoder_attn.q_proj.bias",
    "decoder.layers.1.ffn_layernorm.weight",
)


def case_tensors(case: dict[str, Any]) -> dict[str, Tensor]:
    """Of one case: inputs that no formula gives, float64 results, and the first row's state after every layer."""
    measured, net = case["f64"], case["net"]
    found = {key: case[key] for key in INPUTS if key in case}
    if "patch_masks" in net:
        found["patch_masks"] = net["patch_masks"]
    if "patch_orders" in case:
        found["patch_orders"] = torch.tensor(case["patch_orders"])
    found |= {key: measured[key] for key in ("logits", "encoder_out", "encoder_padding_mask")}
    positions = measured["position_embeddings"]
    found["position_embeddings"] = positions[:1] if bool((positions == positions[:1]).all()) else positions
    for side in ("encoder", "decoder"):
        found[f"{side}_states"] = torch.stack([state[:, 0] for state in measured[f"{side}_states"]])  # layers + 1 x T x C
    return found


def case_notes(name: str, case: dict[str, Any]) -> dict[str, str]:
    """What belongs to a case beside tensors."""
    notes = {"provenance": f"{PROVENANCE}; float64, states stored in float32"}
    for medium, key in (("video", "patch_videos"), ("audio", "patch_audios"), ("image", "patch_images")):
        if key in case["net"]:  # batches of videos and sounds carry blank images
            shape = case["net"][key].shape
            notes |= {"medium": medium, "shape": json.dumps([shape[0], *shape[2:]] if medium != "audio" else list(shape))}
            break
    if "orig_patch_image_size" in case:
        notes["orig_patch_image_size"] = str(case["orig_patch_image_size"])
    return notes


def losses(measured: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Losses and gradients: numbers, and some gradients in full."""
    cases = {name: values for name, values in measured.items() if "grad_norms" in values}
    parameters = list(dict.fromkeys(key for case in cases.values() for key in case["grad_norms"]))
    numbers: dict[str, Any] = {"provenance": PROVENANCE, "parameters": parameters, "cases": {}}
    tensors: dict[str, Tensor] = {}
    for name, case in cases.items():
        scalars = ("loss", "nll_loss", "sample_size", "update_num", "grad_norm_total")
        numbers["cases"][name] = {key: case[key] for key in scalars if key in case}
        numbers["cases"][name]["grad_norms"] = [case["grad_norms"].get(key) for key in parameters]
        tensors |= {f"{name}/{key}": case["small_grads"][key] for key in GRADIENTS if key in case["small_grads"]}
        tensors |= {f"{name}/after/{key}": value[:64] for key, value in case.get("running_after", {}).items()}
    logits = measured["criterion_on_logits"]
    numbers["on_logits"] = {name: out for name, out in logits["out"].items() if "reward" not in out}
    tensors |= {f"on_logits/{key}": value for key, value in logits.items() if isinstance(value, Tensor)}
    numbers["inputs"] = {"answers": measured["_inputs"]["answers"]}
    tensors |= {f"inputs/{key}": value for key, value in measured["_inputs"].items() if isinstance(value, Tensor)}
    return numbers, tensors


def beams(measured: dict[str, Any]) -> dict[str, Any]:
    """Every hypothesis of every search in float64; the scores of its tokens were stored in float32."""
    runs = {}
    for name, run in measured["runs"].items():
        assert run["same_tokens_f32_f64"]
        prefix = run["prefix_tokens"]
        runs[name] = {
            **{"gen_args": run["gen_args"], "trie": run["trie"], "prefix_tokens": prefix if prefix is None else prefix.tolist()},
            "rows": [
                [
                    {
                        "tokens": hypothesis["tokens"].tolist(),
                        "score": float(hypothesis["score"]),
                        "positional_scores": [float(f"{score:.9g}") for score in hypothesis["positional_scores"].tolist()],
                    }
                    for hypothesis in row
                ]
                for row in run["f64"]
            ],
        }
    return {"provenance": PROVENANCE, "answers": measured["answers"], "vqa_src": measured["vqa_src"].tolist(), "runs": runs}


def buckets(measured: dict[str, Any]) -> dict[str, Any]:
    """Buckets of relative positions: small tables, and SHA-256 of the full ones (int64, little-endian)."""
    return {
        "provenance": PROVENANCE,
        "token": {name: measured["token"][name].tolist() for name in ("4,24", "8,40")},
        "image": {name: measured["image"][name].tolist() for name in ("2", "3")},
        "token_256_row0": measured["token_256_row0"].tolist(),
        "decoder_image_position_idx_code32": measured["decoder_image_position_idx_code32"].tolist(),
        "full_sha256": measured["full_sha256"],
    }


def cnn(measured: dict[str, Any], cases: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The CNNs stage by stage: mean, standard deviation and 64 values each; every 32nd channel of the features; mel filters."""
    numbers: dict[str, Any] = {"provenance": PROVENANCE}
    tensors = {"melW": measured["melW"][:, ::4].contiguous(), "logmel_hop200": measured["logmel_hop200"][..., ::8].contiguous()}
    for medium in ("images", "videos", "audios"):
        numbers[medium] = {}
        for stage, values in measured[medium].items():
            numbers[medium][stage] = {key: values[key] for key in ("shape", "mean", "std")}
            tensors[f"{medium}/{stage}"] = values["slice"]
        features = cases[medium.removesuffix("s")]["f64"]["features"][medium]
        tensors[f"features/{medium}"] = features[:, CHANNELS].contiguous()
    return numbers, tensors


def model(reference: pathlib.Path) -> dict[str, Any]:
    """The tiny model's symbols and its published keys with their shapes, without the CNNs'; the base model's keys with all."""
    tiny = load(reference, "tiny_state")
    base = json.loads((reference / "base_state_dict_shapes.json").read_text())
    counts = json.loads((reference / "base_param_counts.json").read_text())
    assert all(list(shape) == base[key]["shape"] for key, shape in tiny["cnn_keys"].items())  # its CNNs have their real depth
    return {
        "provenance": PROVENANCE,
        "dictionary": tiny["dictionary"],
        "options": tiny["args"],
        "tiny": {key: list(value.shape) for key, value in tiny["state_dict"].items()},
        "buffers": tiny["buffer_sha256"],
        "cnn": list(tiny["cnn_keys"]),
        "base": {key: info["shape"] for key, info in base.items()},
        "base_parameters": counts["params"],
        "base_buffers": counts["buffers_numel"],
    }


ROWS = ("vqa_gen/none", "vqa_gen/src", "vqa_gen/prev_output", "vqa_gen/add_object_no_trie", "video_vqa_gen/prev_output", "refcoco")
ROWS += ("snli_ve/add_caption=False", "snli_ve/add_caption=True")


def rows(measured: dict[str, Any]) -> dict[str, Any]:
    """Rows of questions, boxes and entailment with their token ids, and a batch of the questions; without what is the same in all."""
    same = ("patch_type", "patch_mask", "w_resize_ratio", "h_resize_ratio")
    made = {}
    for name in ROWS:
        samples = [{key: value for key, value in sample.items() if key not in same} for sample in measured[name]["samples"]]
        made[name] = {"rows": measured[name]["rows"], "options": measured[name]["options"], "samples": samples}
    return {"provenance": PROVENANCE.partition(" with ")[0], **made, "vqa_collate": measured["vqa_collate"]}


def unify(measured: dict[str, Any]) -> dict[str, Any]:
    """Rows of pretraining and the pairs of examples that the original drew of them; without images, which no value depends on."""
    made: dict[str, Any] = {"provenance": PROVENANCE.partition(" with ")[0]}
    pairs = {name: [measured[name]["samples"]] for name in ("unify/video_qa", "unify/audio_caption")}
    pairs["unify"] = [sample["pair"] for sample in measured["unify"]["samples"]]
    keys = ("source", "target", "prev_output_tokens", "conf")
    for name, found in pairs.items():
        rows = {row[0]: row[2:] for row in measured[name]["rows"]}  # by id: caption, question, answers or box, objects, data set, kind
        examples = [[{"id": each["id"], **{key: each[key] for key in keys}} for each in pair] for pair in found]
        made[name] = {"rows": rows, "pairs": examples}
    return made


def load(reference: pathlib.Path, name: str) -> Any:
    """A complete file, e.g. ``cases``."""
    return torch.load(reference / "golden" / f"{name}.pt", weights_only=True)


def write(reference: pathlib.Path, folder: pathlib.Path) -> None:
    """Make every file of this folder."""
    (folder / "cases").mkdir(parents=True, exist_ok=True)
    cases = load(reference, "cases")
    for name in CASES:
        save_file(case_tensors(cases[name]), folder / "cases" / f"{name}.safetensors", case_notes(name, cases[name]))
    for name, (numbers, tensors) in {
        "losses": losses(load(reference, "losses")),
        "cnn": cnn(load(reference, "cnn"), cases),
    }.items():
        write_json(folder / f"{name}.json", numbers)
        save_file({key: value.clone() for key, value in tensors.items()}, folder / f"{name}.safetensors", {"provenance": PROVENANCE})
    write_json(folder / "beams.json", beams(load(reference, "beam")))
    write_json(folder / "buckets.json", buckets(load(reference, "buckets")))
    write_json(folder / "model.json", model(reference))
    data = json.loads((reference / "golden" / "data.json").read_text(encoding="utf-8"))
    write_json(folder / "rows.json", rows(data))
    write_json(folder / "unify.json", unify(data))
    cfg = json.loads((reference / "published_cfg.json").read_text())
    write_json(folder / "published_cfg.json", {"provenance": "The configuration in the published base checkpoint", **cfg})


def write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
    """One line per entry of the first level, and of the second where that is a dictionary of more than a few."""
    lines = []
    for key, entry in value.items():
        if isinstance(entry, dict):
            inner = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in entry.items())
            lines.append(f" {json.dumps(key)}: {{\n{inner}\n }}")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(entry, separators=(',', ':'))}")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]), FOLDER)
