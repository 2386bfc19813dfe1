"""Norms that flags of the published code add, against hooks on a model without them: where its own names say they are, in float64."""

import argparse
from dataclasses import asdict

import pytest
import torch
from omegaconf import OmegaConf
from torch.nn import functional as F

from tests import tiny
from unival.checkpoints import files
from unival.checkpoints.names import published
from unival.checkpoints.published_options import model_options, published_model
from unival.checkpoints.shapes import options_from_weights
from unival.cli import main
from unival.errors import UserError
from unival.hub import from_checkpoint
from unival.models.config import UnivalConfig
from unival.models.published_buffers import published_buffers

MEDIA = ("image", "video", "audio")
OPTIONS = {"modalities": "image,video,audio", "image_backbone": "resnet50", "image_backbone_stages": 3, "video_backbone": "resnext3d50"}


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return tiny.vocabulary(tmp_path_factory.mktemp("vocab"))


@pytest.fixture(scope="module")
def plain(vocab):
    """The model without any of the norms."""
    return tiny.model(vocab, **OPTIONS).double()


@pytest.fixture(scope="module")
def without(vocab, plain):
    """What that model says."""
    return outputs(plain, vocab)


def flags_of(plain, normed, qk_norm):
    """The published options of the plain model, with flags added as the original's parser adds them."""
    given = published_model({**asdict(UnivalConfig()), **OmegaConf.to_container(plain.cfg)})
    for name in MEDIA:
        delattr(given, f"layernorm_{name}_embedding")
    del given.qk_norm
    vars(given).update({f"layernorm_{name}_embedding": True for name in normed})
    vars(given).update({"qk_norm": True} if qk_norm else {})
    return given


def weights_of(plain, normed, qk_norm):
    """The plain model's weights by their published names, and the norms with theirs."""
    state = dict(published.to_published(plain.state_dict(), {}).state)
    names = [f"encoder.layernorm_{name}_embedding" for name in normed]
    if qk_norm:
        owners = {key.rsplit(".", 2)[0] for key in state if key.endswith("attn.q_proj.weight")}
        names += [f"{owner}.{norm}" for owner in sorted(owners) for norm in ("q_norm", "k_norm")]
    generator = torch.Generator().manual_seed(0)
    for name in names:
        for part, mean in (("weight", 1.0), ("bias", 0.0)):
            state[f"{name}.{part}"] = mean + 0.5 * torch.randn(32, generator=generator, dtype=torch.float64)
    return state


def hooked(plain, state, normed, qk_norm):
    """Hooks that make of the plain model what the flags mean; returns what takes them off."""
    hooks = []

    def norm(x, name):
        return F.layer_norm(x, (32,), state[f"{name}.weight"], state[f"{name}.bias"])

    for name in normed:
        proj = plain.encoder.media[name].proj
        hooks.append(proj.register_forward_hook(lambda _, __, y, n=name: norm(y, f"encoder.layernorm_{n}_embedding")))
    for name, module in plain.named_modules():
        if qk_norm and name.endswith(("q_proj", "k_proj", "v_proj")):
            owner = name.rsplit(".", 1)[0]
            hooks.append(module.register_forward_pre_hook(lambda _, x, n=owner: (norm(x[0], f"{n}.q_norm"),)))
    return lambda: [hook.remove() for hook in hooks]


def batch(vocab):
    generator = torch.Generator().manual_seed(1)
    shapes = {"image": (2, 3, 32, 32), "video": (2, 3, 4, 32, 32), "audio": (2, 9000)}
    media = [
        {"modality": name, "values": torch.randn(shape, generator=generator).double(), "rows": torch.arange(2)}
        for name, shape in shapes.items()
    ]
    src = torch.tensor([[vocab.bos, 9, 8, vocab.eos], [vocab.bos, 7, vocab.eos, vocab.pad]])
    return src, torch.tensor([[vocab.bos, 7, 6, 5], [vocab.bos, 11, 12, 13]]), media


def outputs(model, vocab):
    """Logits of the whole target, and token by token for two beams of each sentence."""
    src, prev, media = batch(vocab)
    with torch.no_grad():
        whole = model.forward_group(src, None, prev, media=media)[0]
        out = model.encoder.reorder_encoder_out(model.encoder(src, None, media), torch.tensor([0, 0, 1, 1]))
        beams, state = prev.repeat_interleave(2, dim=0), {}
        steps = [model.decoder(beams[:, :t], out, incremental_state=state)[0] for t in range(1, 5)]
    return whole, torch.cat(steps, dim=1)


CASES = [(("image",), False), (("video",), False), (("audio",), False), (MEDIA, False), ((), True), (("video", "audio"), True)]


@pytest.mark.parametrize("normed, qk_norm", CASES)
def test_flags_of_the_published_code(vocab, plain, without, normed, qk_norm):
    state = weights_of(plain, normed, qk_norm)
    options = model_options(flags_of(plain, normed, qk_norm))
    assert options["attention_input_norm"] is qk_norm and "qk_norm" not in options
    conversion = published.from_published(state)
    found = options_from_weights(conversion.state)
    assert {key: options[key] for key in found if key in options} == {key: found[key] for key in found if key in options}  # they agree
    model = tiny.model(vocab, **{key: value for key, value in options.items() if key in UnivalConfig.__dataclass_fields__}).double()
    model.load_state_dict(dict(state))  # under the published names
    unhook = hooked(plain, state, normed, qk_norm)
    expected = outputs(plain, vocab)
    unhook()
    for found, wanted, before in zip(outputs(model, vocab), expected, without, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
        assert (wanted - before).abs().max() > 1e-2
    back = published.to_published(model.state_dict(), {}).state  # the way back changes no bit of what is applied
    assert {key for key in state if not torch.equal(back[key], state[key])} == {key for key in state if ".k_norm." in key}
    again = published_model({**asdict(UnivalConfig()), **OmegaConf.to_container(model.cfg)})
    given = vars(flags_of(plain, normed, qk_norm))
    assert {key: value for key, value in vars(again).items() if bool(value) != bool(given.get(key))} == {}


def test_files_with_flags_by_every_way(vocab, tmp_path, capsys):
    """The Python API reads the published file itself; converted, and written back, it says the same."""
    plain, normed = tiny.model(vocab, **{**OPTIONS, "modalities": "image,audio"}), ("audio",)
    state = {key: value.float() for key, value in weights_of(plain, normed, True).items()}
    task = {"_name": "caption", "code_dict_size": 16, "num_bins": 10, "patch_image_size": 32, "max_tgt_length": 30, "max_src_length": 30}
    container = {"args": None, "cfg": {"model": flags_of(plain, normed, True), "task": task}, "model": state}
    files.write(tmp_path / "a.pt", {**container, "optimizer_history": [{"num_updates": 1}], "extra_state": {}, "task_state": {}})
    folder = tmp_path / "vocab"
    folder.mkdir()
    for name, text in vocab.files().items():
        (folder / name).write_text(text, encoding="utf-8")
    main(["convert", str(tmp_path / "a.pt"), str(tmp_path / "b.pt")])
    main(["convert", "--to", "published", str(tmp_path / "b.pt"), str(tmp_path / "c.pt")])
    main(["inspect", "--json", str(tmp_path / "c.pt")])
    assert '"missing": [],\n    "unexpected": [],\n    "reshaped": {}' in capsys.readouterr().out
    for name in ("a", "b", "c"):
        model = from_checkpoint(tmp_path / f"{name}.pt", folder).model
        assert (model.cfg.modality_layernorm_media, model.cfg.attention_input_norm) == ("audio", True)
        assert torch.equal(model.encoder.media["audio"].norm.bias, state["encoder.layernorm_audio_embedding.bias"])
        assert torch.equal(model.decoder.layers[1].encoder_attn.input_norm.weight, state["decoder.layers.1.encoder_attn.q_norm.weight"])
    options = files.read(tmp_path / "c.pt")["cfg"]["model"]
    assert (options.layernorm_image_embedding, options.layernorm_video_embedding, options.qk_norm) == (False, False, True)


def test_norms_of_media_that_a_file_lacks_are_dropped(vocab):
    """The original has the flags apart from the media."""
    image = tiny.model(vocab, modalities="image", modality_layernorm=True)
    state = dict(published.to_published(image.state_dict(), {}).state)
    state["encoder.layernorm_audio_embedding.weight"] = torch.ones(32)
    conversion = published.from_published(state)
    assert conversion.state.keys() == image.state_dict().keys()
    assert conversion.report.keys("dropped") and "audio" not in options_from_weights(conversion.state)["modalities"]
    published.rename_published(state)
    assert state.keys() == image.state_dict().keys()
    given = {"encoder_embed_dim": 32, "layernorm_audio_embedding": True, "layernorm_image_embedding": True}
    options = model_options(argparse.Namespace(**given))
    assert (options["modalities"], options["modality_layernorm"], options["modality_layernorm_media"]) == ("image", True, None)


def test_our_norm_of_heads_is_no_published_one(vocab):
    model = tiny.model(vocab, modalities="image", qk_norm=True)
    with pytest.raises(UserError, match="q_norm.* is of --qk-norm, which the published code computes otherwise"):
        published.to_published(model.state_dict(), published_buffers(asdict(UnivalConfig())))
