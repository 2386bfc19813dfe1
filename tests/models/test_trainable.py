"""Groups of parameters for ``--trainable`` and ``--freeze``: what they contain, and that the rest of a model keeps its bits in training."""

import pytest
import torch

from tests import runs, tiny
from unival.errors import UserError
from unival.models.build import build_model
from unival.models.trainable import choose_trainable, disjoint_groups, groups, said_of_trained

PROJECTION = 1_573_632  # parameters of one at base size: 2048 x 768 and 768
POSITIONS = 1_355_520  # of the position table of one modality: 1765 x 768


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return tiny.vocabulary(tmp_path_factory.mktemp("vocab"))


def trained(model):
    return {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}


def base(**options):
    """The base model, without values, of all media unless said otherwise."""
    model = build_model({"modalities": "image,video,audio", **options}, 59457, device="meta")
    choose_trainable(model)
    return model


def test_linear_projections_only():
    model = base(trainable="projections")
    found = trained(model)
    assert set(found) == {f"encoder.media.{name}.proj.{part}" for name in ("image", "video", "audio") for part in ("weight", "bias")}
    assert sum(found.values()) == 3 * PROJECTION
    parts = ", ".join(f"{name}_proj 1,573,632" for name in ("audio", "image", "video"))
    assert f"training 4,720,896 of 326,846,664 parameters ({parts}); 322,125,768 are frozen" == said_of_trained(model)
    found = trained(base(trainable="projections", modalities="image"))  # not those of other media, as the original does
    assert sum(found.values()) == PROJECTION and all(name.startswith("encoder.media.image.proj.") for name in found)


def test_the_published_flags_leave_projections_and_positions_of_media():
    """5,858,304 for images in the original, which has the video's parts in them too; here those of images alone."""
    options = {"freeze": "encoder,decoder", "freeze_token_embeddings": True}
    found = trained(base(modalities="image,video", freeze_image_backbone=True, freeze_video_backbone=True, **options))
    assert sum(found.values()) == 2 * (PROJECTION + POSITIONS) == 5_858_304
    found = trained(base(modalities="image", freeze_image_backbone=True, **options))
    assert sum(found.values()) == PROJECTION + POSITIONS


def test_groups_have_what_their_names_say(vocab):
    model = tiny.model(vocab, modalities="image,audio", modality_layernorm=True, scale_resids=True, qk_norm=True)
    names = {name for name, _ in model.named_parameters()}
    apart = disjoint_groups(model)
    assert sum(map(len, apart.values())) == len(names) and set().union(*apart.values()) == names
    media = [f"{name}_{part}" for name in ("audio", "image") for part in ("cnn", "proj", "norm", "positions")]
    assert list(apart) == ["embeddings", "encoder", "decoder", *media]
    found = groups(model)
    inside = {"self_attention", "cross_attention", "feed_forward"}
    layers = {name for name in names if ".layers." in name}
    assert set().union(*(found[group] for group in inside)) - layers == {
        f"decoder.cross_pos_{side}_linear.{part}" for side in "qk" for part in ("weight", "bias")
    }
    assert sum(len(found[group] & layers) for group in inside) == len(layers)
    assert found["norms"] >= {"encoder.layer_norm.weight", "encoder.media.audio.norm.bias", "encoder.media.image.backbone.bn1.weight"}
    assert found["norms"] >= {"decoder.layers.1.self_attn.q_norm.weight"} and "encoder.layers.0.fc1.bias" not in found["norms"]
    assert found["biases"] == {name for name in names if name.endswith("bias")}
    assert found["image"] == {name for name in names if name.startswith("encoder.media.image.")}
    tables = {name for name in names if "positions" in name or "rel_pos_table" in name or "pos_ln" in name or "_linear" in name}
    assert found["positions"] == tables


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trainable": "projection"}, "unknown --trainable 'projection', did you mean 'projections'. This model has .*image_cnn"),
        ({"freeze": "encoder,video_cnn"}, "unknown --freeze 'video_cnn', did you mean 'image_cnn'. This model has"),
        ({"trainable": " , "}, "--trainable ' , ' names no group; choose from"),
        ({"trainable": "decoder,image_cnn", "freeze_image_backbone": True}, "--trainable image_cnn: another option freezes all of it"),
        ({"freeze": "encoder,decoder,image,embeddings"}, "nothing is left to train"),
    ],
)
def test_what_cannot_be_chosen(vocab, options, message):
    with pytest.raises(UserError, match=message):
        choose_trainable(tiny.model(vocab, **options))


def moved_in_a_step(vocab, **options):
    """Keys of the image CNN's state that a step with weight decay moves."""
    model = tiny.model(vocab, **options)
    choose_trainable(model)
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5)
    item = {"modality": "image", "values": torch.randn(2, 3, 64, 64), "rows": torch.tensor([0, 1])}
    tokens = torch.tensor([[vocab.bos, 9, 8, vocab.eos]] * 2)
    model.forward_group(tokens, None, tokens, media=[item])[0].square().mean().backward()
    optimizer.step()
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    prefix = "encoder.media.image.backbone."
    moved = {key for key, value in model.state_dict().items() if not value.equal(before[key])}
    return {key.removeprefix(prefix) for key in moved if key.startswith(prefix)}


def test_batch_norms_move_only_where_their_scales_are_trained(vocab):
    assert moved_in_a_step(vocab, freeze="image_cnn") == set() == moved_in_a_step(vocab, trainable="decoder,projections")
    statistics = {"bn1.running_mean", "bn1.running_var"}
    assert moved_in_a_step(vocab, freeze="decoder") >= {*statistics, "conv1.weight", "bn1.weight"}
    moved = moved_in_a_step(vocab, freeze="norms")
    assert "conv1.weight" in moved and not moved & {*statistics, "bn1.weight", "bn1.bias"}
    moved = moved_in_a_step(vocab, trainable="biases")
    assert "bn1.bias" in moved and not moved & {*statistics, "bn1.weight", "conv1.weight"}
    assert moved_in_a_step(vocab, trainable="norms") >= {*statistics, "bn1.weight", "bn1.bias"}


def test_a_run_trains_what_was_chosen(tmp_path, capsys):
    """From a checkpoint, with weight decay: all other keys keep their bits; the optimizer knows the projection alone."""
    data = tiny.write_data(tmp_path / "data", 4, 2)
    flags = ["--batch-size", "4", "--disable-validation", "--weight-decay", "0.5"]
    assert runs.train(data, tmp_path / "base", *flags, "--max-update", "1") == 0
    start = tmp_path / "base" / "checkpoint_last.pt"
    chosen = ["--trainable", "projections", "--max-update", "2"]
    assert runs.train(data, tmp_path / "new", *flags, *chosen, "--finetune-from-model", str(start)) == 0
    assert "parameters (image_proj 8,224); " in (tmp_path / "new" / "train.log").read_text()
    before, after = (torch.load(path, weights_only=True) for path in (start, tmp_path / "new" / "checkpoint_last.pt"))
    moved = {key for key, value in after["model"].items() if not value.equal(before["model"][key])}
    assert moved == {"encoder.media.image.proj.weight", "encoder.media.image.proj.bias"}
    assert len(after["last_optimizer_state"]["param_groups"][0]["params"]) == len(after["last_optimizer_state"]["state"]) == 2
    assert f"starting from {start}\n" in capsys.readouterr().out, "fairseq's count begins anew: no updates are said"
    message = f"{tmp_path / 'new' / 'checkpoint_last.pt'}: its optimizer trained other parameters than this run does"
    for more, advice in (((), "--reset-optimizer"), (("--finetune-from-model", str(start)), "another --save-dir")):
        assert runs.train(data, tmp_path / "new", *flags, "--trainable", "decoder", "--max-update", "3", *more) == 1
        error = capsys.readouterr().err
        assert message in error and error.endswith(f"or {advice}\n")
    assert runs.train(data, tmp_path / "scratch", *flags, "--trainable", "decoder", "--max-update", "1", "--no-save") == 0
    assert "warning: no checkpoint to start from" in capsys.readouterr().out
