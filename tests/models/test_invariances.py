"""What must not change the result: padding, batch mates, other groups, shared media, tokens one by one, beams, recomputation."""

import pytest
import torch

from tests import tiny


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return tiny.vocabulary(tmp_path_factory.mktemp("vocab"))


@pytest.fixture(scope="module")
def model(vocab):
    return tiny.model(vocab).double()


def text(vocab, *lengths, seed=0):
    """Rows of random ids with bos and eos, padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.full((len(lengths), max(lengths)), vocab.pad)
    for row, length in zip(rows, lengths, strict=True):
        row[:length] = torch.randint(4, len(vocab), (length,), generator=generator)
        row[0] = vocab.bos
    return rows


def images(count, seed=0, size=64):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed)).double()


def image_item(values, rows):
    return {"modality": "image", "values": values, "rows": torch.tensor(rows)}


def logits(model, src, prev, media=None, **kwargs):
    with torch.no_grad():
        return model.forward_group(src, None, prev, media=media, **kwargs)[0]


def group(src, prev, media=None):
    return {"src_tokens": src, "src_lengths": None, "prev_output_tokens": prev, **({"media": media} if media else {})}


def test_padding_of_source_and_target_changes_nothing(vocab, model):
    src, prev, values = text(vocab, 7), text(vocab, 5, seed=1), images(1)
    plain = logits(model, src, prev, [image_item(values, [0])])
    longer = (
        torch.nn.functional.pad(src, (0, 3), value=vocab.pad),
        torch.nn.functional.pad(prev, (0, 2), value=vocab.pad),
    )
    padded = logits(model, *longer, [image_item(values, [0])])
    torch.testing.assert_close(padded[:, :5], plain, rtol=0, atol=1e-12)


def test_rows_that_share_an_image_are_as_with_one_each(vocab, model):
    """Also where patches are chosen: an item is embedded once, in the same patches for all its rows."""
    src, prev, values = text(vocab, 7, 4, 6), text(vocab, 5, 3, 4, seed=1), images(2)
    seen = []
    hook = model.encoder.media["image"].register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    for order in (None, torch.tensor([[0, 3], [2, 1]])):
        rows = torch.tensor([1, 0, 1])
        own = image_item(values[rows], [0, 1, 2]), image_item(values, [1, 0, 1])
        if order is not None:
            own[0]["order"], own[1]["order"] = order[rows], order
        each, shared = (logits(model, src, prev, [item]) for item in own)
        torch.testing.assert_close(shared, each, rtol=0, atol=1e-12)
    hook.remove()
    assert seen == [3, 2] * 2


def test_the_image_matters_and_the_order_of_rows_does_not(vocab, model):
    src, prev, values = text(vocab, 5, 5), text(vocab, 4, 4, seed=1), images(2)
    straight = logits(model, src, prev, [image_item(values, [0, 1])])
    swapped = logits(model, src, prev, [image_item(values, [1, 0])])
    assert (straight - swapped).abs().max() > 1e-3
    flipped = logits(model, src.flip(0), prev.flip(0), [image_item(values, [1, 0])])
    torch.testing.assert_close(flipped.flip(0), straight, rtol=0, atol=1e-12)


@pytest.mark.parametrize("codes", [None, [True, True], [True, False]], ids=["text", "codes", "mixed"])
def test_token_by_token_equals_the_whole(vocab, model, codes):
    src, prev, values = text(vocab, 6, 4), text(vocab, 12, 12, seed=1), images(2)
    code_masks = None if codes is None else torch.tensor(codes)
    media = [image_item(values, [0, 1])]
    whole = logits(model, src, prev, media, code_masks=code_masks)
    state: dict = {}
    with torch.no_grad():
        out = model.encoder(src, None, media, code_masks)
        steps = [model.decoder(prev[:, :t], out, incremental_state=state)[0] for t in range(1, 13)]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=0, atol=1e-12)


def test_a_prefix_may_be_taken_in_one_step(vocab, model):
    src, prev = text(vocab, 6), text(vocab, 7, seed=1)
    whole = logits(model, src, prev)
    state: dict = {}
    with torch.no_grad():
        out = model.encoder(src)
        first = model.decoder(prev[:, :5], out, incremental_state=state)[0]
        rest = [model.decoder(prev[:, :t], out, incremental_state=state)[0] for t in (6, 7)]
    torch.testing.assert_close(torch.cat([first, *rest], dim=1), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampled", [False, True], ids=["all patches", "sampled patches"])
def test_beams_share_their_source(vocab, model, sampled):
    """Three beams per sentence, reordered within and then one sentence finished: as if the source had been repeated."""
    src, prev = text(vocab, 6, 4), text(vocab, 5, 5, 5, 5, 5, 5, seed=1)
    item = image_item(images(2), [0, 1])
    if sampled:
        item["order"] = torch.tensor([[0, 3], [2, 1]])
    state: dict = {}
    with torch.no_grad():
        out = model.encoder(src, None, [item])
        beams = out.reorder(torch.arange(2).repeat_interleave(3))
        assert beams.hidden.size(0) == 2
        for t in (1, 2):
            shared = model.decoder(prev[:, :t], beams, incremental_state=state)[0]
        repeated = model.decoder(prev[:, :2], out.select(torch.arange(2).repeat_interleave(3)))[0][:, 1:]
        torch.testing.assert_close(shared, repeated, rtol=0, atol=1e-12)
        order = torch.tensor([4, 3, 3])  # only the second sentence goes on
        model.decoder.reorder_incremental_state_scripting(state, order)
        rest = beams.reorder(order)
        assert rest.hidden.size(0) == 1
        after = model.decoder(prev[order, :3], rest, incremental_state=state)[0]
        expected = model.decoder(prev[order, :3], out.select(torch.tensor([1, 1, 1])))[0][:, 2:]
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-12)


def test_recomputed_activations_give_the_same_gradients(vocab):
    src, prev, values = text(vocab, 6, 4), text(vocab, 5, 4, seed=1), images(2).float()
    gradients = []
    for recompute in (False, True):
        model = tiny.model(vocab, checkpoint_activations=recompute)
        model.forward_group(src, None, prev, media=[image_item(values, [0, 1])])[0].square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-7)


def test_half_precision_stays_finite_and_close(vocab):
    src, prev, values = text(vocab, 6, 4), text(vocab, 5, 4, seed=1), images(2).float()
    model = tiny.model(vocab)
    full = logits(model, src, prev, [image_item(values, [0, 1])])
    half = logits(model.bfloat16(), src, prev, [image_item(values.bfloat16(), [0, 1])])
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).abs().mean() < 0.1 * full.abs().mean()


def test_sampled_patches_differ_in_training_only(vocab):
    model = tiny.model(vocab, sample_patch_num=2)
    src, prev, media = text(vocab, 6), text(vocab, 5, seed=1), [image_item(images(1, size=96).float(), [0])]
    assert torch.equal(logits(model, src, prev, media), logits(model, src, prev, media))
    model.encoder.media.eval()
    model.encoder.training = True  # sampling alone, without batch norm's own randomness
    torch.manual_seed(0)
    lengths = {model.encoder(src, None, media).hidden.size(1)}
    assert lengths == {2 + 6}


def media_item(name, rows, seed=0):
    shape = {"image": (3, 64, 64), "video": (3, 4, 64, 96), "audio": (40000,)}[name]
    values = torch.randn((len(rows), *shape), generator=torch.Generator().manual_seed(seed))
    return {"modality": name, "values": values, "rows": torch.tensor(rows)}


def test_groups_of_all_media_equal_their_rows_alone(vocab):
    """Any mix of media, also several per row, in one forward: every row is as it would be alone, its gradient too."""
    model = tiny.model(vocab, modalities="image,video,audio").double()
    kinds = [("image", "audio"), ("video", "video"), (), ("image", "image")]  # each of one row or two
    lengths = [(7,), (3, 6), (5, 4), (2,)]
    groups, alone = [], []
    for seed, (names, own) in enumerate(zip(kinds, lengths, strict=True)):
        src, prev = text(vocab, *own, seed=seed), text(vocab, *own, seed=10 + seed)
        media = [media_item(name, list(range(len(own))), seed=seed + 20 * k) for k, name in enumerate(names)]
        media = [{**item, "values": item["values"].double()} for item in media]
        groups.append(group(src, prev, media))
        for row, length in enumerate(own):
            one = [{**item, "values": item["values"][row : row + 1], "rows": torch.tensor([0])} for item in media]
            alone.append(model([group(src[row : row + 1, :length], prev[row : row + 1, :length], one)])[0][0])
    batch = model(groups)[0]
    flat = [length for own in lengths for length in own]
    assert batch.shape[:2] == (6, 7) and not batch[-1, 2:].any(), "0 behind the targets of shorter groups"
    for ours, theirs, length in zip(batch, alone, flat, strict=True):
        torch.testing.assert_close(ours[:length], theirs, rtol=0, atol=1e-11)
    parameters = [p for p in model.parameters() if p.requires_grad]
    together = torch.autograd.grad(sum(row[:n].square().sum() for row, n in zip(batch, flat, strict=True)), parameters, allow_unused=True)
    apart = torch.autograd.grad(sum(one.square().sum() for one in alone), parameters, allow_unused=True)
    for ours, theirs in zip(together, apart, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9 * float(theirs.abs().max() + 1))
    with torch.no_grad():  # the order of groups does not matter
        again = model(groups[::-1])[0]
    torch.testing.assert_close(again[[5, 3, 4, 1, 2, 0]], batch, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["image", "video", "audio"])
def test_a_frozen_backbone_is_frozen_whole(vocab, name):
    """Weights and batch-norm statistics do not move, and in training it gives what it gives in evaluation: no dropout, no masks."""
    model = tiny.model(vocab, modalities="image,video,audio", **{f"freeze_{name}_backbone": True}).train()
    before = {key: value.clone() for key, value in model.encoder.media[name].backbone.state_dict().items()}
    item = media_item(name, [0, 1])
    part = model.encoder.media[name]
    with torch.no_grad():
        first, second = part(item["values"]).tokens, part(item["values"]).tokens
        evaluated = part.eval()(item["values"]).tokens
    assert torch.equal(first, second) and torch.equal(first, evaluated)
    model.train()
    src, prev = text(vocab, 6, 6), text(vocab, 5, 5, seed=1)
    model.forward_group(src, None, prev, media=[item])[0].square().mean().backward()
    assert part.proj.weight.grad is not None and part.proj.weight.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in part.backbone.parameters())
    for key, value in part.backbone.state_dict().items():
        assert torch.equal(value, before[key]), key
    others = [other for other in ("image", "video", "audio") if other != name]
    assert all(p.requires_grad for other in others for p in model.encoder.media[other].backbone.parameters())


def test_an_unfrozen_audio_backbone_masks_and_drops_in_training(vocab):
    """The counterpart: without freezing, two passes in training differ."""
    part = tiny.model(vocab, modalities="audio").train().encoder.media["audio"]
    values = media_item("audio", [0, 1])["values"]
    with torch.no_grad():
        assert not torch.equal(part(values).tokens, part(values).tokens)


@pytest.mark.parametrize("option", ["freeze_image_backbone", "freeze_batchnorm"])
def test_frozen_parts_do_not_move(vocab, option):
    model = tiny.model(vocab, **{option: True}).train()
    before = {name: value.clone() for name, value in model.encoder.media["image"].backbone.state_dict().items()}
    src, prev = text(vocab, 6), text(vocab, 5, seed=1)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.forward_group(src, None, prev, media=[image_item(images(1).float(), [0])])[0].square().mean().backward()
    optimizer.step()
    after = model.encoder.media["image"].backbone.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    norms = {name for name in before if "bn" in name or "downsample.1" in name}
    assert not moved if option == "freeze_image_backbone" else (moved and not moved & norms)
