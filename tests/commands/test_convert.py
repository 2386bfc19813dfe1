"""`unival convert` from file to file: what comes out is used by fairseq's commands and the Python API like any other checkpoint."""

import argparse
import json
from dataclasses import asdict

import pytest
import torch
from fairseq import checkpoint_utils
from omegaconf import OmegaConf

from tests import golden, runs, tiny
from unival.checkpoints import files, published_options
from unival.checkpoints.names import published
from unival.cli import main
from unival.commands import convert
from unival.commands.convert.source import task_defaults
from unival.commands.convert.target import own_cfg
from unival.errors import UserError
from unival.hub import from_checkpoint
from unival.models.config import UnivalConfig
from unival.models.unival import UnivalModel
from unival.tasks.config import UnivalTaskConfig
from unival.vocab import Vocabulary

FORGOTTEN = ["encoder.embed_images.fc.weight", "encoder.embed_images.fc.bias"]  # the unused classifier


def run(*arguments):
    """The command's report as ``--report`` writes it."""
    parser = argparse.ArgumentParser()
    convert.add_arguments(parser)
    args = parser.parse_args([str(argument) for argument in arguments])
    assert convert.run(args) == 0
    return json.loads(open(args.report).read()) if args.report else None


def refused(*arguments):
    with pytest.raises(UserError) as error:
        run(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, rows in (("train.jsonl", 4), ("valid.jsonl", 3)):
        tiny.write_table(folder, rows=rows, name=name)
    tiny.vocabulary(folder / "vocab", num_codes=0, num_bins=0)
    return folder


@pytest.fixture(scope="module")
def own(data):
    """A checkpoint of ours, as training writes it, with a vocabulary, EMA weights and a closed set."""
    vocabulary = Vocabulary.load(data / "vocab", 0, 0)
    model = tiny.model(vocabulary, modalities="image")
    task = {**task_defaults(), "_name": "unival_caption", "num_codes": 0, "num_bins": 0, "patch_image_size": 32}
    path = data / "own.pt"
    state = model.state_dict()
    container = {
        "args": None,
        "cfg": own_cfg({**OmegaConf.to_container(model.cfg), "_name": "unival"}, task),
        "model": state,
        "criterion": None,
        "optimizer_history": [{"criterion_name": "x", "optimizer_name": "y", "lr_scheduler_state": {}, "num_updates": 9}],
        "task_state": {"vocabulary": vocabulary.fingerprint, "vocabulary_files": vocabulary.files(), "closed_set": ["red"]},
        "extra_state": {"train_iterator": {"epoch": 4}, "ema": {key: value + 1 for key, value in state.items()}},
        "last_optimizer_state": None,
    }
    files.write(path, container)
    return path


@pytest.fixture(scope="module")
def published_file(tmp_path_factory):
    """The tiny reference model, images only, in the published container."""
    state = {key: value for key, value in golden.golden_state("image").items() if "video" not in key and "audio" not in key}
    model_options = argparse.Namespace(**golden.numbers("model")["options"])
    model_options.video_encoder_name = model_options.audio_encoder_name = None
    path = tmp_path_factory.mktemp("published") / "published.pt"
    cfg = {"model": model_options, "task": {"_name": "caption", "code_dict_size": 32, "num_bins": 20, "patch_image_size": 480}}
    extra = {"ema": {key: value * 2 for key, value in state.items()}}
    torch.save({"args": None, "cfg": cfg, "model": state, "optimizer_history": [{}], "extra_state": extra}, path)
    return path


def weights_of(path):
    return files.weights(files.read(path))


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert [key for key in a if not torch.equal(a[key], b[key])] == []


def logits(container):
    """Logits of the golden case with images."""
    cfg = OmegaConf.create({key: value for key, value in container["cfg"]["model"].items() if key != "_name"})
    task = argparse.Namespace(source_dictionary=golden.golden_dictionary())
    model = UnivalModel.build_model(OmegaConf.merge(UnivalConfig, cfg), task).eval()
    model.load_state_dict(dict(container["model"]))
    case = golden.case("image")
    with torch.no_grad():
        return model(golden.golden_groups(case))[0], case


def test_published_weights_give_the_published_logits(published_file, tmp_path):
    report = run(published_file, tmp_path / "ours.pt", "--report", tmp_path / "r.json")
    assert not report["missing"] and not report["unexpected"]
    container = files.read(tmp_path / "ours.pt")
    assert container["cfg"]["task"]["_name"] == "unival_caption" and container["cfg"]["task"]["patch_image_size"] == 480
    found, case = logits(container)
    torch.testing.assert_close(found.double(), case["logits"], atol=5e-5, rtol=0)
    run(tmp_path / "ours.pt", tmp_path / "back.pt", "--to", "published")
    back, state = weights_of(tmp_path / "back.pt"), weights_of(published_file)
    assert [key for key, value in state.items() if not torch.equal(back[key], value)] == FORGOTTEN
    options = files.read(tmp_path / "back.pt")["cfg"]["model"]
    same = published_options.model_options(files.read(published_file)["cfg"]["model"])
    assert UnivalConfig(**published_options.model_options(options)) == UnivalConfig(**same)


def test_ema_weights_of_a_published_file(published_file, tmp_path):
    run(published_file, tmp_path / "ema.pt", "--ema", "--half")
    expected = weights_of(published_file)["encoder.pos_ln.weight"] * 2
    found = weights_of(tmp_path / "ema.pt")["encoder.pos_ln.weight"]
    assert found.dtype == torch.float16 and torch.equal(found, expected.half())


def test_own_checkpoints_to_safetensors_and_back(own, tmp_path):
    run(own, tmp_path / "own.safetensors")
    run(tmp_path / "own.safetensors", tmp_path / "back.pt")
    assert_same(weights_of(tmp_path / "back.pt"), weights_of(own))
    before, after = files.read(own), files.read(tmp_path / "back.pt")
    assert after["task_state"].items() >= before["task_state"].items()
    assert after["cfg"]["model"] == before["cfg"]["model"] and after["cfg"]["task"] == before["cfg"]["task"]


def test_what_comes_out_is_used_like_any_checkpoint(own, data, tmp_path):
    """By the Python API, fairseq-generate, --restore-file and --finetune-from-model."""
    run(own, tmp_path / "c.pt")
    image = str(next((data / "images").iterdir()))
    assert from_checkpoint(tmp_path / "c.pt").caption([image]) == from_checkpoint(own).caption([image])
    assert runs.generate(data, tmp_path / "c.pt", tmp_path / "out").read_text().count("\nD-") == 3
    for flag in ("--restore-file", "--finetune-from-model"):
        out = tmp_path / flag
        flags = ("--batch-size", "4", "--max-update", "1", "--disable-validation", "--lr", "1e-12", "--code-image-size", "32")
        assert runs.train(data, out, *flags, "--image-backbone-stages", "4", flag, str(tmp_path / "c.pt")) == 0
        trained = weights_of(out / "checkpoint_last.pt")
        torch.testing.assert_close(trained["decoder.layers.0.fc1.weight"], weights_of(own)["decoder.layers.0.fc1.weight"])


def test_precision(own, tmp_path):
    run(own, tmp_path / "half.pt", "--half")
    half = weights_of(tmp_path / "half.pt")
    assert {value.dtype for value in half.values()} == {torch.float16}
    assert half["encoder.embed_tokens.weight"].data_ptr() == half["decoder.embed_tokens.weight"].data_ptr()
    run(tmp_path / "half.pt", tmp_path / "float.pt", "--float")
    assert_same(weights_of(tmp_path / "float.pt"), {key: value.half().float() for key, value in weights_of(own).items()})


def test_vocabulary_is_put_in(own, data, tmp_path, capsys):
    bare = files.read(own)
    files.write(tmp_path / "bare.pt", {**bare, "task_state": {}})
    with pytest.raises(UserError, match="has no vocabulary; give vocab_dir \\(--vocab-dir\\)"):
        from_checkpoint(tmp_path / "bare.pt")
    for given, told in (("bare.pt", True), (own, False)):
        capsys.readouterr()
        run(tmp_path / given, tmp_path / "b.pt", "--force")
        assert ("OUT has no vocabulary: give --vocab-dir" in capsys.readouterr().out) == told
    run(tmp_path / "bare.pt", tmp_path / "c.pt", "--vocab-dir", data / "vocab")
    assert from_checkpoint(tmp_path / "c.pt").task.vocabulary.fingerprint == bare["task_state"]["vocabulary"]
    message = refused(tmp_path / "bare.pt", tmp_path / "d.pt", "--vocab-dir", data / "vocab", "--num-bins", 5)
    assert "tokens, the checkpoint" in message


def test_ema_of_ours(own, tmp_path):
    run(own, tmp_path / "ema.pt", "--ema")
    assert_same(weights_of(tmp_path / "ema.pt"), {key: value + 1 for key, value in weights_of(own).items()})
    assert "no EMA weights" in refused(tmp_path / "ema.pt", tmp_path / "again.pt", "--ema")


def test_nothing_is_overwritten_or_lost(own, tmp_path, capsys):
    (tmp_path / "c.pt").write_text("precious")
    assert "--force overwrites it" in refused(own, tmp_path / "c.pt")
    run(own, tmp_path / "c.pt", "--force")
    assert "is the input itself" in refused(own, own, "--force")
    container = files.read(own)
    state = dict(container["model"])
    state["encoder.extra"] = state.pop("encoder.pos_ln.bias")
    files.write(tmp_path / "odd.pt", {**container, "model": state})
    message = refused(tmp_path / "odd.pt", tmp_path / "d.pt")
    assert "missing encoder.pos_ln.bias; unknown encoder.extra" in message and "(2 keys)" in message
    state["encoder.pos_ln.bias"] = state["encoder.extra"]
    files.write(tmp_path / "odd.pt", {**container, "model": state})
    assert "unknown encoder.extra (--drop-unexpected" in refused(tmp_path / "odd.pt", tmp_path / "d.pt")
    report = run(tmp_path / "odd.pt", tmp_path / "d.pt", "--drop-unexpected", "--report", tmp_path / "new" / "r.json")
    assert list(report["unexpected"]) == ["encoder.extra"]
    assert_same(weights_of(tmp_path / "d.pt"), weights_of(own))
    assert not list(tmp_path.glob(".*"))


def test_media_are_left_out(data, tmp_path):
    vocabulary = Vocabulary.load(data / "vocab", 0, 0)
    model = tiny.model(vocabulary, modalities="image,video,audio")
    files.write(tmp_path / "all.safetensors", {"model": model.state_dict()})  # says nothing of its options
    report = run(tmp_path / "all.safetensors", tmp_path / "c.pt", "--without", "video,audio", "--report", tmp_path / "r.json")
    options = files.read(tmp_path / "c.pt")["cfg"]["model"]
    assert options["modalities"] == "image" and options["image_backbone"] == "resnet10" and options["encoder_layers"] == 2
    assert any("the file has no options" in note for note in report["notes"])
    assert set(report["dropped"].values()) == {"--without video,audio"}


def bart_container(width, ffn, rows, hugging_face):
    """BART with the names of either library, as wide as ``unival_tiny``."""
    from tests.checkpoints.names import test_bart

    before = test_bart.WIDTH, test_bart.FFN
    try:
        test_bart.WIDTH, test_bart.FFN = width, ffn
        state = test_bart.bart_state(rows, 1026)
    finally:
        test_bart.WIDTH, test_bart.FFN = before
    if not hugging_face:
        return {"model": state, "args": argparse.Namespace(arch="bart_base")}
    kept = {f"model.{key}": value for key, value in state.items() if "version" not in key and "output_proj" not in key}
    return {**kept, "model.shared.weight": state["encoder.embed_tokens.weight"]}


@pytest.mark.parametrize("source", ["bart", "hf-bart"])
def test_bart_as_a_start(data, tmp_path, source):
    vocabulary = Vocabulary.load(data / "vocab", 0, 0)
    files.write(tmp_path / "bart.pt", bart_container(128, 512, len(vocabulary) + 3, source == "hf-bart"))
    flags = ("--from", source, "--vocab-dir", data / "vocab", "--num-codes", 4, "--num-bins", 2)
    assert "give BART's as --source-vocab" in refused(tmp_path / "bart.pt", tmp_path / "c.pt", *flags)
    flags = (*flags, "--source-vocab", data / "vocab", "--report", tmp_path / "r.json")
    report = run(tmp_path / "bart.pt", tmp_path / "c.pt", *flags)
    assert any("--arch unival_tiny" in note for note in report["notes"])
    given, found = bart_container(128, 512, len(vocabulary) + 3, False)["model"], weights_of(tmp_path / "c.pt")
    tokens, mask = found["encoder.embed_tokens.weight"], vocabulary.mask
    assert torch.equal(tokens[:mask], given["encoder.embed_tokens.weight"][:mask])
    assert torch.equal(tokens[mask], given["encoder.embed_tokens.weight"][-1])
    assert tokens[mask + 1 :].std() < 0.1  # codes and bins are new: N(0, 0.08) in this architecture
    assert torch.equal(found["encoder.embed_positions.weight"][:1024], given["encoder.embed_positions.weight"][2:])
    run(tmp_path / "bart.pt", tmp_path / "again.pt", *flags)
    assert_same(weights_of(tmp_path / "again.pt"), found)  # what is new comes from a seed
    model = from_checkpoint(tmp_path / "c.pt")
    assert len(model.caption([str(next((data / "images").iterdir()))], beam=1, max_len_b=3)) == 1


def test_wrong_sources_are_named(own, tmp_path):
    for source in ("bart", "hf-bart", "ofa", "hf-ofa"):
        message = refused(own, tmp_path / "c.pt", "--from", source)
        assert "looks like unival, not " in message and message.endswith(": give --from unival")
    for source, name in (("bart", "BART (fairseq)"), ("hf-bart", "BART (Hugging Face)")):
        files.write(tmp_path / "bart.pt", bart_container(8, 8, 9, source == "hf-bart"))
        message = refused(tmp_path / "bart.pt", tmp_path / "c.pt")
        assert f"bart.pt: looks like {name}, not unival: give --from {source}" in message and "--drop-unexpected" not in message
    shapes = {"conv1.weight": (64, 3, 7, 7), "bn1.weight": (64,), "layer1.0.conv1.weight": (64, 64, 3, 3)}
    shapes["layer1.0.conv2.weight"] = (64, 64, 3, 3)
    files.write(tmp_path / "resnet.pt", {key: torch.zeros(shape) for key, shape in shapes.items()})
    assert "give it to training as --image-backbone-weights" in refused(tmp_path / "resnet.pt", tmp_path / "c.pt")
    assert not (tmp_path / "c.pt").exists()


def test_options_that_would_do_nothing_are_refused(own, data, tmp_path):
    given = {"--arch": "unival_base", "--modalities": "image", "--source-vocab": data, "--seed": 1, "--audio-backbone-weights": own}
    for name, value in given.items():
        assert f"{name} is for --from bart and --from hf-bart only" in refused(own, tmp_path / "c.pt", name, value)
    for name in ("--num-codes", "--num-bins"):
        assert f"{name} 7: the vocabulary kept in {own} has 0" in refused(own, tmp_path / "c.pt", name, 7, "--force")
        run(own, tmp_path / "c.pt", name, 0, "--force")
    (tmp_path / "file").touch()
    for report in (tmp_path, tmp_path / "file" / "r.json", own, tmp_path / "d.pt"):
        assert f"--report {report}" in refused(own, tmp_path / "d.pt", "--report", report)
    assert not (tmp_path / "d.pt").exists() and own.stat().st_size > 1000


def test_values_that_half_precision_cannot_hold(own, tmp_path):
    container = files.read(own)
    state = {key: value.clone() for key, value in container["model"].items()}
    state["encoder.pos_ln.bias"][0] = float("nan")
    state["encoder.pos_ln.bias"][1] = 7e4
    files.write(tmp_path / "big.pt", {**container, "model": state})
    message = refused(tmp_path / "big.pt", tmp_path / "c.pt", "--half")
    assert "big.pt: 1 key with values beyond float16's largest" in message and "encoder.pos_ln.bias (up to 70000)" in message
    report = run(tmp_path / "big.pt", tmp_path / "c.pt", "--report", tmp_path / "r.json")
    assert any("infinite or not a number already in IN: values of 1 key" in note for note in report["notes"])


def test_shards_are_joined(own, tmp_path):
    state = weights_of(own)
    half = len(state) // 2
    for i, keys in enumerate((list(state)[:half], list(state)[half:])):
        files.write(tmp_path / f"{i}.safetensors", {key: state[key] for key in keys})
    run(tmp_path / "0.safetensors", tmp_path / "1.safetensors", tmp_path / "c.pt")
    assert_same(weights_of(tmp_path / "c.pt"), state)
    assert "is in an earlier input, too" in refused(tmp_path / "0.safetensors", tmp_path / "0.safetensors", tmp_path / "d.pt")


def test_the_command_line(own, tmp_path, capsys):
    assert main(["convert", str(own), str(tmp_path / "c.pt"), "--verbose"]) == 0
    out = capsys.readouterr().out
    assert "keys kept under their names" in out and "         encoder.pos_ln.bias" in out
    assert main(["convert", str(own), str(tmp_path / "c.pt")]) == 1
    assert "--force overwrites it" in capsys.readouterr().err


def test_options_of_ours_survive_the_published_format(tmp_path, data):
    """resnet50: the smallest CNN that the published code has."""
    vocabulary = Vocabulary.load(data / "vocab", 0, 0)
    model = tiny.model(vocabulary, image_backbone="resnet50", image_backbone_stages=3, modalities="image", scale_resids=True)
    task = {**asdict(UnivalTaskConfig(data="")), "num_codes": 0, "num_bins": 0, "patch_image_size": 64, "_name": "unival_caption"}
    plain = {key: value for key, value in task.items() if key not in ("seed", "cpu", "bf16", "fp16")}
    cfg = own_cfg({**OmegaConf.to_container(model.cfg), "_name": "unival"}, plain)
    state = {"instruction": "[VIDEO:clip] what? -> [TEXT:answer]"}  # which training had taken over
    files.write(tmp_path / "a.pt", {"cfg": cfg, "model": model.state_dict(), "task_state": state})
    run(tmp_path / "a.pt", tmp_path / "b.pt", "--to", "published")
    assert files.read(tmp_path / "b.pt")["cfg"]["task"]["_name"] == "video_caption"
    assert published.is_published(weights_of(tmp_path / "b.pt"))
    run(tmp_path / "b.pt", tmp_path / "c.pt")
    assert_same(weights_of(tmp_path / "c.pt"), model.state_dict())
    after = files.read(tmp_path / "c.pt")["cfg"]
    changed = {key for key, value in cfg["model"].items() if after["model"][key] != value}  # unused here, of training, or the task's
    assert changed <= {"audio_sample_rate", "imagenet_mean_and_std", "init_std", "video_backbone", "audio_backbone"}
    assert (after["task"]["patch_image_size"], after["task"]["frame_fit"]) == (64, "published")
    from unival.tasks import user_dir  # noqa: F401  allows a Namespace, as --user-dir does

    loaded = checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "b.pt"))
    assert loaded["cfg"].model.scale_resids


def test_a_flipped_byte_is_noticed(own, tmp_path, capsys):
    data = bytearray(own.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "flipped.pt").write_bytes(data)
    assert "flipped.pt: damaged: " in refused(tmp_path / "flipped.pt", tmp_path / "c.pt")
    for words in (["flipped.pt"], ["--diff", "flipped.pt", str(own)]):
        assert main(["inspect", *(word.replace("flipped.pt", str(tmp_path / "flipped.pt")) for word in words)]) in (1, 2)
        assert "flipped.pt: damaged: " in capsys.readouterr().err


def test_older_checkpoints_go_on_reading_images_as_they_did(own, tmp_path):
    """Converted, they still say so where nothing said it before."""
    before = files.read(own)
    task = {name: value for name, value in before["cfg"]["task"].items() if name != "image_fit"}
    files.write(tmp_path / "old.pt", {**before, "cfg": {**before["cfg"], "task": task}})
    run(tmp_path / "old.pt", tmp_path / "new.pt")
    assert from_checkpoint(tmp_path / "new.pt").task.media == from_checkpoint(tmp_path / "old.pt").task.media
    assert files.read(tmp_path / "new.pt")["cfg"]["task"]["image_fit"] == "published"
