"""The options of positions and embeddings, each against its definition."""

from dataclasses import fields

import pytest
import torch
from torch.nn import functional as F

from tests import tiny
from unival.errors import UserError, flag
from unival.models.bias import code_positions
from unival.models.config import UnivalConfig
from unival.models.encoder import UnivalEncoder
from unival.models.fitting import fit_to_checkpoint


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return tiny.vocabulary(tmp_path_factory.mktemp("vocab"))


def source(vocab):
    return torch.tensor([[vocab.bos, 10, 11, 12, vocab.eos]])


def item(name, seed=0):
    shape = {"image": (1, 3, 64, 64), "video": (1, 3, 4, 64, 64), "audio": (1, 48000)}[name]
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return {"modality": name, "values": values.double(), "rows": torch.tensor([0])}


def embedded(model, vocab, name):
    """The media segment, its raw tokens and the position embeddings of these."""
    encoder: UnivalEncoder = model.encoder
    with torch.no_grad():
        segment = encoder.embed_media(item(name))
        part = encoder.media[name]
        features = part.backbone(item(name)["values"])
        raw = part.proj(features.flatten(2).transpose(1, 2))
        positions = part.positions(part.layout(tuple(features.shape[2:]), part.bucket_size))
    return segment, raw, positions


@pytest.mark.parametrize("name", [f.name for f in fields(UnivalConfig) if type(f.default) is int or "drop" in f.name])
def test_counts_and_probabilities_are_checked(vocab, name):
    value = UnivalConfig.__dataclass_fields__[name].default
    wrong = 1.0 if "drop" in name else min(1, value) - 1
    with pytest.raises(UserError, match=rf"^{flag(name)} {wrong:g}: must be at least (0 and below 1|{min(1, value):g})$"):
        tiny.model(vocab, **{name: wrong})


NAMES = ["image", "video", "audio"]


@pytest.mark.parametrize(("name", "row"), zip(NAMES, (1, 2, 3), strict=True))
def test_type_embeddings_per_modality(vocab, name, row):
    model = tiny.model(vocab, modalities="image,video,audio", add_mm_type_embedding=True).double()
    encoder = model.encoder
    assert encoder.type_embedding.weight.shape == (4, 32)
    segment, raw, _ = embedded(model, vocab, name)
    expected = encoder.patch_layernorm_embedding(raw + encoder.type_embedding.weight[row])
    torch.testing.assert_close(segment.tokens, expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_norm_per_modality(vocab, name):
    model = tiny.model(vocab, modalities="image,video,audio", modality_layernorm=True).double()
    encoder = model.encoder
    norm = encoder.media[name].norm
    torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
    segment, raw, _ = embedded(model, vocab, name)
    normed = F.layer_norm(raw, (32,), norm.weight, norm.bias)
    expected = encoder.patch_layernorm_embedding(normed + encoder.type_embedding.weight[1])
    torch.testing.assert_close(segment.tokens, expected)
    assert {id(encoder.media[other].norm) for other in NAMES}.__len__() == 3


@pytest.mark.parametrize("name", NAMES)
def test_entangled_positions_are_added_to_the_source(vocab, name):
    model = tiny.model(vocab, modalities="image,video,audio", entangle_position_embedding=True).double()
    encoder = model.encoder
    segment, raw, positions = embedded(model, vocab, name)
    expected = encoder.patch_layernorm_embedding(raw + encoder.type_embedding.weight[1] + positions)
    torch.testing.assert_close(segment.tokens, expected)
    with torch.no_grad():
        text = encoder.embed_text(source(vocab))
        tokens = encoder.embed_tokens(source(vocab)) + encoder.type_embedding.weight[0]
        expected = encoder.layernorm_embedding(tokens + encoder.embed_positions.weight[:5])
    torch.testing.assert_close(text.tokens, expected)


def test_entangled_positions_follow_sampled_patches(vocab):
    model = tiny.model(vocab, entangle_position_embedding=True).double()
    encoder = model.encoder
    order = torch.tensor([[3, 0]])
    with torch.no_grad():
        whole = encoder.embed_media(item("image"))
        some = encoder.embed_media({**item("image"), "order": order})
    torch.testing.assert_close(some.tokens, whole.tokens[:, order[0]])
    torch.testing.assert_close(some.positions, whole.positions[order[0]][None])


@pytest.mark.parametrize("codes", [None, [True], [True, False]], ids=["text", "codes", "mixed"])
def test_entangled_positions_are_added_to_the_target(vocab, codes):
    """Their place is before the norm of the embeddings; token by token equals the whole."""
    plain = tiny.model(vocab).double()
    model = tiny.model(vocab, entangle_target_positions=True).double()
    rows = 1 if codes is None else len(codes)
    masks = None if codes is None else torch.tensor(codes)
    src = source(vocab).expand(rows, -1)
    prev = torch.tensor([[vocab.bos, 9, 8, 7, 6, 5]]).expand(rows, -1)
    with torch.no_grad():
        out = model.encoder(src, None, None, masks)
        whole, extra = model.decoder(prev, out, return_all_hiddens=True)
        assert (whole - plain.decoder(prev, out)[0]).abs().max() > 1e-3
        decoder = model.decoder
        for row in range(rows):
            code = bool(codes and codes[row])
            table = decoder.embed_image_positions if code else decoder.embed_positions
            norm = decoder.code_layernorm_embedding if code else decoder.layernorm_embedding
            positions = table(code_positions(6, model.cfg.code_image_size) if code else torch.arange(6))
            expected = norm(decoder.embed_tokens(prev[row]) + positions)
            torch.testing.assert_close(extra["inner_states"][0][row], expected)
        state: dict = {}
        steps = [decoder(prev[:, :t], out, incremental_state=state)[0] for t in range(1, 7)]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=0, atol=1e-12)


def test_positions_of_a_video_are_interpolated_in_every_frame(vocab):
    """A grid larger than the original one: every frame has the image's interpolated positions."""
    options = {"interpolate_position": True, "orig_patch_image_size": 16, "modalities": "image,video"}
    encoder = tiny.model(vocab, **options).double().encoder
    image, video = encoder.media["image"], encoder.media["video"]
    video.positions.weight.data.copy_(image.positions.weight.data)
    with torch.no_grad():
        frame = encoder.media_positions(image, image.layout((3, 2), 42))
        frames = encoder.media_positions(video, video.layout((2, 3, 2), 42))
    assert frame.shape == (6, 32)
    assert (frame - image.positions(image.layout((3, 2), 42))).abs().max() > 1e-3
    torch.testing.assert_close(frames, frame.repeat(2, 1))


def test_attention_scale_factor_and_norms_of_queries_and_keys(vocab):
    """One head, by hand: softmax(norm(q) norm(k) / sqrt(s d) + bias) v, with norms of their own."""
    from unival.models.attention import MultiheadAttention

    torch.manual_seed(0)
    attention = MultiheadAttention(8, 2, scale_factor=3.0, qk_norm=True).double()
    for norm in (attention.q_norm, attention.k_norm):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    x = torch.randn(1, 5, 8).double()
    bias = torch.randn(1, 2, 5, 5).double()
    with torch.no_grad():
        ours = attention(x, *attention.project_memory(x), bias)
        heads = []
        for h in range(2):
            part = slice(4 * h, 4 * h + 4)
            q = F.layer_norm(attention.q_proj(x)[..., part], (4,), attention.q_norm.weight, attention.q_norm.bias)
            k = F.layer_norm(attention.k_proj(x)[..., part], (4,), attention.k_norm.weight, attention.k_norm.bias)
            weights = (q @ k.transpose(1, 2) / (3.0 * 4) ** 0.5 + bias[:, h]).softmax(-1)
            heads.append(weights @ attention.v_proj(x)[..., part] * attention.c_attn[h])
        expected = attention.out_proj(torch.cat(heads, dim=-1))
    torch.testing.assert_close(ours, expected)


def test_residual_scales_act_on_the_feed_forward_only(vocab):
    model = tiny.model(vocab, scale_resids=True).double()
    layer = model.encoder.layers[0]
    torch.nn.init.normal_(layer.w_resid, generator=torch.Generator().manual_seed(0))
    x, bias = torch.randn(1, 4, 32).double(), torch.zeros(1, 2, 4, 4).double()
    with torch.no_grad():
        y = layer.self_attn_layer_norm(x)
        middle = x + layer.attn_ln(layer.self_attn(y, *layer.self_attn.project_memory(y), bias))
        attributes = model.encoder.attributes([model.encoder.embed_text(torch.tensor([[0, 5, 6, 2]]))])
        expected = middle * layer.w_resid + layer.feed_forward(middle, attributes)[0]
        torch.testing.assert_close(layer(x, attributes, bias), (expected, None))


def test_three_stages_have_a_stride_of_16(vocab):
    model = tiny.model(vocab, image_backbone_stages=3).double()
    with torch.no_grad():
        segment = model.encoder.embed_media(item("image"))
    assert segment.tokens.shape == (1, 16, 32)  # 64 / 16 squared


def test_media_that_the_model_lacks_are_refused(vocab):
    model = tiny.model(vocab, modalities="image").double()
    with pytest.raises(UserError, match="takes no video: it has image"):
        model.encoder(source(vocab), None, [item("video")])
    with pytest.raises(UserError, match="'smell' is not a modality with media"):
        tiny.model(vocab, modalities="image,smell")


def test_parts_of_a_checkpoint_that_the_model_does_not_take(vocab, caplog):
    caplog.set_level("INFO")
    full = tiny.model(vocab, modalities="image,video,audio", seed=1)
    image = tiny.model(vocab, modalities="image", seed=2)
    with pytest.raises(UserError, match=r"unexpected encoder.media.audio.*takes no audio, video: unival.models.fitting"):
        image.load_state_dict(full.state_dict())
    image.load_state_dict(fit_to_checkpoint(image, full.state_dict()))
    assert "left out of the checkpoint: audio" in caplog.text and "left out of the checkpoint: video" in caplog.text
    for key, value in image.state_dict().items():
        assert torch.equal(value, full.state_dict()[key]), key


def test_parts_that_a_checkpoint_lacks_must_be_asked_for(vocab, caplog):
    caplog.set_level("INFO")
    image = tiny.model(vocab, modalities="image", seed=1)
    with pytest.raises(UserError, match="has no video: give --new-modalities video"):
        tiny.model(vocab, modalities="image,video").load_state_dict(image.state_dict())
    both = tiny.model(vocab, modalities="image,video", new_modalities="video", seed=2)
    before = both.encoder.media["video"].proj.weight.clone()
    both.load_state_dict(fit_to_checkpoint(both, image.state_dict()))
    assert torch.equal(both.encoder.media["video"].proj.weight, before)
    assert torch.equal(both.encoder.pos_ln.weight, image.encoder.pos_ln.weight)
    assert "new in this model: video" in caplog.text
    with pytest.raises(UserError, match="--new-modalities audio: the model takes image, video"):
        model = tiny.model(vocab, modalities="image,video", new_modalities="audio")
        fit_to_checkpoint(model, image.state_dict())


@pytest.mark.parametrize("imagenet", [None, True])
def test_pixels_may_come_as_bytes(vocab, imagenet):
    """They are normalised by the model, in float32, whatever its own precision; floats are taken as they are."""
    model = tiny.model(vocab, modalities="image,video", imagenet_mean_and_std=imagenet)
    mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) if imagenet else ([0.5] * 3, [0.5] * 3)
    pixels = torch.randint(256, (2, 3, 4, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(numbers).view(3, 1, 1, 1) for numbers in (mean, std))
    floats = (pixels.float() / 255 - mean) / std
    for name, values, normalised in (("video", pixels, floats), ("image", pixels[:, :, 0], floats[:, :, 0])):
        embedding = model.encoder.media[name]
        assert torch.equal(embedding(values).tokens, embedding(normalised).tokens)
    model.to(torch.bfloat16)
    embedding = model.encoder.media["image"]
    assert torch.equal(embedding(pixels[:, :, 0]).tokens, embedding(floats[:, :, 0].to(torch.bfloat16)).tokens)
