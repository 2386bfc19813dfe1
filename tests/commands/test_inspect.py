"""`unival inspect`: what it says of checkpoints of every kind, and how it tells two apart."""

import argparse
import json
import math

import pytest
import torch
from safetensors.torch import save_file

from tests import golden
from tests.checkpoints.samples import own_container
from unival.checkpoints import files, summary
from unival.checkpoints.architecture import identify
from unival.checkpoints.names.published import TIED, to_published
from unival.checkpoints.published_options import VIDEO_CAPTION
from unival.checkpoints.summary import count_parts, difference, non_finite, tied_keys
from unival.commands import inspect as command
from unival.errors import UserError
from unival.tasks.presets import CAPTION


@pytest.fixture(scope="module")
def container(tmp_path_factory):
    return own_container(tmp_path_factory.mktemp("vocab"))


@pytest.fixture
def mine(container, tmp_path):
    """The sample with tensors and dicts of its own, to be changed."""
    torch.save(container, tmp_path / "copy.pt")
    return torch.load(tmp_path / "copy.pt", weights_only=True)


def saved(path, value, **options):
    torch.save(value, path, **options)
    return path


def inspect(capsys, *arguments):
    """Exit code and output of a run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--traceback", action="store_true")
    command.add_arguments(parser)
    code = command.run(parser.parse_args(list(map(str, arguments))))
    out = capsys.readouterr().out
    assert all(len(line) <= 120 for line in out.splitlines()) or "--json" in arguments
    return code, out


def inspect_json(capsys, *arguments):
    code, out = inspect(capsys, *arguments, "--json")
    return code, json.loads(out)


# One checkpoint -----------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_ours(capsys, container, tmp_path):
    path = saved(tmp_path / "checkpoint_best.pt", container)
    code, found = inspect_json(capsys, path)
    state = container["model"]
    trained = {key for key in state if not key.endswith(("running_mean", "running_var", "decoder.embed_tokens.weight"))}
    assert code == 0 and found["bytes"] == path.stat().st_size and found["precision"] == {"float32": sum(v.numel() for v in state.values())}
    assert found["total"]["parameters"] == sum(state[key].numel() for key in trained)
    assert found["total"]["buffers"] == sum(v.numel() for k, v in state.items() if "running_" in k)
    assert sum(group["parameters"] for group in found["groups"].values()) == found["total"]["parameters"]
    assert found["architecture"] == {"kind": "unival", "is": "unival", "name": "unival_tiny"} and found["media"] == {"image": "resnet10"}
    assert found["sizes"]["encoder_layers"] == 2 and found["sizes"]["decoder_heads"] == 2 and found["sizes"]["width"] == 32
    assert found["fit"] == {"missing": [], "unexpected": [], "reshaped": {}} and found["non_finite"] == {}
    assert found["vocabulary"]["codes"] == 4 and found["vocabulary"]["bins"] == 3 and len(found["vocabulary"]["kept"]) == 3
    about = found["training"]
    assert (about["updates"], about["epoch"], about["batch"], about["best"], about["score"]) == (12, 3, 2, 0.75, 0.5)
    assert about["metric"] == "cider" and not about["optimizer_state"] and not about["ema"]


def test_the_text_is_an_aligned_table(capsys, container, tmp_path):
    code, out = inspect(capsys, saved(tmp_path / "a.pt", container))
    lines = out.splitlines()
    table = lines[lines.index("") + 1 :]
    assert code == 0 and len({len(line) for line in table}) == 1
    assert table[0].split() == ["part", "parameters", "share", "in", "buffers", "keys"]
    out = " ".join(out.split())
    assert "exactly those of the model that its options build" in out and "12 updates, epoch 3 after 2 batches" in out
    assert "best 0.75 (cider)" in out and "no optimizer state, no EMA weights" in out and "all finite" in out
    assert "kept in the checkpoint" in out and "decoder.embed_tokens.weight (counted once)" in out


OWN = "[IMAGE:photo] how many? -> [TEXT:number]"
CAPTIONED = ["cider", "bleu", "rouge_l"]
TASKS = [
    ({"_name": "unival_caption", "instruction": None, "eval_metrics": None, "eval_args": '{"beam": 2}'}, CAPTION, CAPTIONED, 2),
    ({"_name": "unival", "instruction": OWN, "eval_metrics": "exact_match", "eval_args": "{}"}, OWN, ["exact_match"], None),
    ({"_name": "video_caption", "code_dict_size": 8192, "num_bins": 1000}, VIDEO_CAPTION, CAPTIONED, 5),
    ({"_name": "refcoco", "code_dict_size": 8192, "num_bins": 1000}, None, [], None),
    ({"_name": ["odd"], "eval_args": 3}, None, [], None),
]


@pytest.mark.parametrize("options, instruction, metrics, beam", TASKS, ids=lambda value: str(value)[:20])
def test_what_it_was_trained_to_do(capsys, mine, tmp_path, options, instruction, metrics, beam):
    mine["cfg"]["task"] = options
    path = saved(tmp_path / "a.pt", mine)
    _, found = inspect_json(capsys, path)
    assert (found["task"]["instruction"], found["task"]["metrics"]) == (instruction, metrics)
    assert found["task"]["generation"].get("beam") == beam
    _, out = inspect(capsys, path)
    lines = " ".join(out.split())
    assert f"instruction {instruction or 'not known: give --instruction'}" in lines
    assert all(f"{name} {value}" in lines for name, value in found["task"]["generation"].items())


def test_what_is_wrong_is_named(capsys, mine, tmp_path):
    del mine["model"]["encoder.pos_ln.bias"]
    mine["model"]["encoder.extra"] = torch.zeros(2)
    mine["model"]["decoder.pos_ln.weight"] = torch.zeros(7)
    mine["model"]["encoder.pos_ln.weight"][:3] = torch.tensor([math.nan, math.inf, -math.inf])
    path = saved(tmp_path / "a.pt", mine)
    _, found = inspect_json(capsys, path)
    reshaped = {"decoder.pos_ln.weight": [[7], [32]]}
    assert found["fit"] == {"missing": ["encoder.pos_ln.bias"], "unexpected": ["encoder.extra"], "reshaped": reshaped}
    assert found["non_finite"] == {"encoder.pos_ln.weight": 3}
    _, out = inspect(capsys, path)
    assert "1 missing: encoder.pos_ln.bias" in out and "decoder.pos_ln.weight 7, not 32" in out
    assert "3 are NaN or infinite: encoder.pos_ln.weight (3)" in out


def test_a_vocabulary_of_another_size_shows(capsys, mine, tmp_path):
    mine["task_state"]["num_codes"] = 6
    _, found = inspect_json(capsys, saved(tmp_path / "a.pt", mine))
    assert set(found["fit"]["reshaped"]) == {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}


def test_options_that_build_no_model(capsys, mine, tmp_path):
    mine["cfg"]["model"]["encoder_attention_heads"] = 5
    _, out = inspect(capsys, saved(tmp_path / "a.pt", mine))
    assert "its options build no model: --encoder-attention-heads 5 does not divide" in out


def test_odd_containers_are_still_described(capsys, mine, tmp_path):
    """A file may hold anything where training keeps its state."""
    mine.update(optimizer_history=7, extra_state=[1], task_state={"closed_set": 2}, cfg={"model": {}, "checkpoint": 3})
    code, found = inspect_json(capsys, saved(tmp_path / "a.pt", mine))
    assert code == 0 and found["training"] == {} and found["fit"] is None


def test_formats(capsys, container, tmp_path):
    state = {key: value for key, value in container["model"].items() if key != "decoder.embed_tokens.weight"}
    save_file(state, str(tmp_path / "model.safetensors"))
    legacy = saved(tmp_path / "legacy.pt", container, _use_new_zipfile_serialization=False)
    folder = tmp_path / "sharded"
    folder.mkdir()
    shards = [dict(list(state.items())[:50]), dict(list(state.items())[50:])]
    for i, shard in enumerate(shards):
        saved(folder / f"pytorch_model-{i}.bin", shard)
    places = {key: f"pytorch_model-{i}.bin" for i, shard in enumerate(shards) for key in shard}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    total = inspect_json(capsys, saved(tmp_path / "zip.pt", container))[1]["total"]["parameters"]
    for path, name in ((tmp_path / "model.safetensors", "safetensors"), (legacy, "torch (before 1.6)"), (folder, "torch, 2 shards")):
        _, found = inspect_json(capsys, path)
        assert found["format"] == name and found["total"]["parameters"] == total and found["architecture"]["kind"] == "unival"


def test_keys_are_listed_by_pattern(capsys, container, tmp_path):
    path = saved(tmp_path / "a.pt", container)
    _, out = inspect(capsys, path, "--keys", "*coder.embed_tokens.weight")
    rows = [line.split() for line in out.splitlines()]
    shape = "x".join(map(str, container["model"]["encoder.embed_tokens.weight"].shape))
    assert rows[1] == ["encoder.embed_tokens.weight", shape, "float32"]
    assert rows[2] == ["decoder.embed_tokens.weight", shape, "float32", "=", "encoder.embed_tokens.weight"]
    _, found = inspect_json(capsys, path, "--keys")
    assert [entry["key"] for entry in found["keys"]] == list(container["model"])
    with pytest.raises(UserError, match="nothing.*': no key is like that"):
        inspect(capsys, path, "--keys", "nothing.*")
    with pytest.raises(UserError, match="one checkpoint, or two"):
        inspect(capsys)


def test_a_files_own_text_cannot_steer_the_terminal(capsys, mine, tmp_path):
    mine["model"]["encoder.\x1b[2J\n.weight"] = torch.full((1,), math.nan)
    mine["cfg"]["model"]["_name"] = "\x1b]0;title\x07"
    path = saved(tmp_path / "a.pt", mine)
    other = saved(tmp_path / "b.pt", {**mine, "model": {"a": torch.zeros(1)}})
    for arguments in ([path], [path, "--keys"], ["--diff", path, other], ["--diff", other, path, "--keys"]):
        assert "\x1b" not in inspect(capsys, *arguments)[1]


# Models of others ---------------------------------------------------------------------------------------------------------------


def zeros(shapes):
    """Tensors of these shapes that take no memory."""
    return {key: torch.zeros(1).expand(shape) if shape else torch.zeros(()) for key, shape in shapes.items()}


@pytest.fixture(scope="module")
def published_base():
    state = zeros(golden.numbers("model")["base"])
    state.update(dict.fromkeys(TIED, state["encoder.embed_tokens.weight"]))
    return {"cfg": golden.published_cfg(), "model": state}


def test_parameters_of_the_published_base_model(published_base):
    expected = golden.numbers("model")
    counts = count_parts(published_base["model"])
    assert {part: count.parameters for part, count in counts.items() if count.parameters} == expected["base_parameters"]
    assert {part: count.buffers for part, count in counts.items() if count.buffers} == expected["base_buffers"]


def test_every_key_of_the_published_base_model_fits(published_base):
    architecture = identify(published_base, published_base["model"])
    assert (architecture.kind, architecture.name) == ("published", "unival_base")
    assert architecture.media == {"image": "resnet101", "video": "resnext3d101", "audio": "cnn14"}
    found = command.fit(published_base, published_base["model"], architecture)
    assert found == {"missing": [], "unexpected": [], "reshaped": {}}


LAYERS = {f"{side}.layers.0.self_attn.k_proj.weight": (8, 8) for side in ("encoder", "decoder")}
TOKENS = {"encoder.embed_tokens.weight": (20, 8), "decoder.embed_tokens.weight": (20, 8)}
BART = {**LAYERS, **TOKENS, "encoder.layernorm_embedding.weight": (8,), "decoder.layers.0.encoder_attn.k_proj.weight": (8, 8)}
OFA = {**LAYERS, **TOKENS, "encoder.version": (1,), "encoder.pos_q_linear.weight": (8, 8)}
OFA["encoder.embed_images.layer3.0.conv1.weight"] = (1,)


@pytest.mark.parametrize(
    "kind, shapes",
    [
        ("bart", BART),
        ("hf-bart", {f"model.{key}": shape for key, shape in {**BART, "shared.weight": (20, 8)}.items()}),
        ("ofa", OFA),
        ("published", {**OFA, "encoder.embed_images.layer4.0.conv1.weight": (1,)}),
        ("published", {**OFA, "encoder.embed_videos.layer1.0.conv1.weight": (1,)}),
        ("hf-ofa", {**OFA, "decoder.layers.0.cross_attn_mid_layer_norm.weight": (8,)}),
        ("unival", {**LAYERS, **TOKENS, "encoder.pos_q_linear.weight": (8, 8)}),
        ("unival", {**OFA, "encoder.media.audio.backbone.bn0.weight": (1,)}),
        ("other", {"linear.weight": (3, 3)}),
        ("other", {key: shape for key, shape in LAYERS.items() if key.startswith("encoder")}),
    ],
)
def test_models_are_recognised_by_their_keys(kind, shapes):
    state = zeros(shapes)
    found = identify({"model": state}, state)
    assert found.kind == kind
    if kind != "other":
        assert found.sizes["symbols"] == 20 and found.sizes["width"] == 8 and found.sizes["encoder_layers"] == 1


def test_a_backbone_file(capsys, container, tmp_path):
    prefix = "encoder.media.image.backbone."
    state = {key.removeprefix(prefix): value for key, value in container["model"].items() if key.startswith(prefix)}
    code, out = inspect(capsys, saved(tmp_path / "resnet.pth", state))
    assert code == 0 and "a backbone's weights (resnet10)" in out and "layer4" in out and "nothing is kept of it" in out


# Numbers ------------------------------------------------------------------------------------------------------------------------


def test_differences_by_hand():
    found = difference(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.0]))
    assert (found.values, found.changed, found.largest) == (2, 1, 4.0)
    assert found.relative == pytest.approx(4 / 5) and found.cosine == pytest.approx(9 / (5 * 3))
    both = found + difference(torch.tensor([0.0, 12.0]), torch.tensor([0.0, 12.0]))
    assert (both.values, both.changed) == (4, 1) and both.relative == pytest.approx(4 / 13)
    zero = difference(torch.zeros(2), torch.ones(2))
    assert zero.relative == math.inf and math.isnan(zero.cosine)
    assert difference(torch.zeros(2), torch.zeros(2)).cosine == 1.0
    nan = torch.tensor([math.nan, 1.0, math.inf])
    assert difference(nan, nan.clone()).changed == 0
    lost = difference(torch.tensor([0.0, 1.0, 2.0]), nan)
    assert (lost.changed, lost.largest) == (2, math.inf) and lost.relative == 0.0
    assert difference(torch.tensor([1, 2]), torch.tensor([1, 4])).largest == 2.0


def test_chunks_change_nothing(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(50, 21, generator=generator), torch.randn(50, 21, generator=generator)
    b[3], a[7, 2] = a[3], math.nan
    whole = difference(a, b), non_finite({"a": a})
    monkeypatch.setattr(summary, "CHUNK", 64)
    parts = difference(a, b)
    assert (parts.values, parts.changed, parts.largest, non_finite({"a": a})) == (1050, whole[0].changed, whole[0].largest, whole[1])
    assert parts.squares == pytest.approx(whole[0].squares)


def test_copies_of_the_token_embeddings_count_once():
    tokens = torch.arange(6.0).reshape(3, 2)
    state = {"encoder.embed_tokens.weight": tokens, "decoder.embed_tokens.weight": tokens.clone(), "a": torch.ones(2), "b": torch.ones(2)}
    assert tied_keys(state) == {"decoder.embed_tokens.weight": "encoder.embed_tokens.weight"}
    state["decoder.embed_tokens.weight"][0] = 9
    assert tied_keys(state) == {}


# Two checkpoints ----------------------------------------------------------------------------------------------------------------


def test_equal_checkpoints(capsys, container, tmp_path):
    first, copy = saved(tmp_path / "a.pt", container), tmp_path / "b.pt"
    copy.write_bytes(first.read_bytes())
    assert inspect(capsys, "--diff", first, copy)[0] == 0
    assert "the files are identical" in inspect(capsys, "--diff", first, copy)[1]
    repacked = saved(tmp_path / "c.pt", container, _use_new_zipfile_serialization=False)
    code, out = inspect(capsys, "--diff", first, repacked)
    assert code == 0 and "are equal" in out and "packed differently" in out


def test_every_kind_of_difference(capsys, container, mine, tmp_path):
    first = saved(tmp_path / "a.pt", container)
    del mine["model"]["encoder.pos_ln.bias"]
    mine["model"]["encoder.extra"] = torch.zeros(2)
    mine["model"]["decoder.pos_ln.weight"] = torch.zeros(7)
    mine["model"]["decoder.pos_ln.bias"] = mine["model"]["decoder.pos_ln.bias"].half()
    mine["model"]["encoder.layers.0.fc1.bias"] += 0.5
    mine["cfg"]["optimization"]["lr"] = [0.002]
    mine["cfg"]["model"]["new_option"] = 1
    mine["extra_state"]["best"] = 0.8
    second = saved(tmp_path / "b.pt", mine)
    code, found = inspect_json(capsys, "--diff", first, second)
    assert code == 1 and not found["equal"] and not found["identical"]
    assert found["only"] == [["encoder.pos_ln.bias"], ["encoder.extra"]]
    assert found["reshaped"] == {"decoder.pos_ln.weight": [[32], [7]]}
    assert found["retyped"] == {"decoder.pos_ln.bias": ["float32", "float16"]}
    assert found["options"] == {"optimization.lr": ["[0.001]", "[0.002]"], "model.new_option": ["(absent)", "1"]}
    assert found["state"] == {"extra_state.best": ["0.75", "0.8"]}
    changed = {key: entry for key, entry in found["keys"].items() if entry["changed"]}
    assert set(changed) == {"encoder.layers.0.fc1.bias"} and changed["encoder.layers.0.fc1.bias"]["largest"] == pytest.approx(0.5)
    assert [part for part, entry in found["parts"].items() if entry["changed"]] == ["encoder.layers"]
    code, out = inspect(capsys, "--diff", first, second)
    assert code == 1 and "optimization.lr: [0.001] -> [0.002]" in out and "extra_state.best: 0.75 -> 0.8" in out
    assert "only in a     encoder.pos_ln.bias" in out and "decoder.pos_ln.weight: 32 -> 7" in out


def test_weights_alone_may_be_compared(capsys, container, mine, tmp_path):
    mine["cfg"]["optimization"]["lr"] = [0.002]
    first, second = saved(tmp_path / "a.pt", container), saved(tmp_path / "b.pt", mine)
    assert inspect(capsys, "--diff", first, second)[0] == 1
    assert inspect(capsys, "--diff", first, second, "--weights")[0] == 0


def test_published_names_are_translated(capsys, container, tmp_path):
    version = {f"{side}.version": torch.tensor([3.0]) for side in ("encoder", "decoder")}
    published = {**container, "model": to_published(container["model"], version).state}
    first, second = saved(tmp_path / "a.pt", container), saved(tmp_path / "b.pt", published)
    code, out = inspect(capsys, "--diff", first, second, "--weights")
    assert code == 0 and "keys of b were translated" in out


def test_errors_of_a_comparison_have_their_own_code(capsys, container, tmp_path):
    first = saved(tmp_path / "a.pt", container)
    assert inspect(capsys, "--diff", first, tmp_path / "nowhere.pt")[0] == 2
    loop: list = [1]
    loop.append(loop)
    assert inspect(capsys, "--diff", first, saved(tmp_path / "b.pt", {**container, "extra_state": {"loop": loop}}))[0] == 2
    with pytest.raises(UserError, match="no such checkpoint"):
        inspect(capsys, tmp_path / "nowhere.pt")
    assert files.read(first)["extra_state"]["best"] == 0.75


FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_values_that_are_no_numbers_are_counted(dtype):
    """Also where finite values have an infinite sum, or infinite ones a sum that is none."""
    highest = 3e38 if dtype == torch.complex64 else torch.finfo(dtype).max
    finite = torch.full((4, 100), highest, dtype=torch.float64).to(dtype)
    bad = torch.zeros(4, 100)
    bad[0, 0], bad[1, 1], bad[2, 2] = float("inf"), -float("inf"), float("nan")
    state = {"finite": finite, "bad": bad, "zero": torch.zeros(3), "none": torch.zeros(0)}
    assert non_finite({key: value.to(dtype) for key, value in state.items()}) == {"bad": 3}
