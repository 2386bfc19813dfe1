"""BART's weights, in fairseq's and Hugging Face's names, as a start of our models; checked against values put in by hand."""

import pytest
import torch
from torch import nn

from unival.checkpoints.conversion import KeyReport
from unival.checkpoints.names import bart, hf_bart
from unival.errors import UserError

WIDTH, FFN, LAYERS = 4, 8, 2


def bart_state(rows=10, positions=12):
    """A state dict with fairseq's BART names, all values different."""
    torch.manual_seed(0)
    state = {"encoder.version": torch.tensor([3.0]), "decoder.version": torch.tensor([3.0])}
    tokens = torch.randn(rows, WIDTH)
    for side in ("encoder", "decoder"):
        state[f"{side}.embed_tokens.weight"] = tokens
        state[f"{side}.embed_positions.weight"] = torch.randn(positions, WIDTH)
        state[f"{side}.layernorm_embedding.weight"] = torch.randn(WIDTH)
        state[f"{side}.layernorm_embedding.bias"] = torch.randn(WIDTH)
        blocks = ["self_attn"] if side == "encoder" else ["self_attn", "encoder_attn"]
        for i in range(LAYERS):
            sizes = {f"{b}.{p}_proj": (WIDTH, WIDTH) for b in blocks for p in "kvq"}
            sizes.update({f"{b}.out_proj": (WIDTH, WIDTH) for b in blocks}, fc1=(FFN, WIDTH), fc2=(WIDTH, FFN))
            sizes.update({f"{b}_layer_norm": (WIDTH,) for b in [*blocks, "final"]})
            for name, size in sizes.items():
                state[f"{side}.layers.{i}.{name}.weight"] = torch.randn(size)
                state[f"{side}.layers.{i}.{name}.bias"] = torch.randn(size[0])
    state["decoder.output_projection.weight"] = tokens
    return state


def our_state(rows=13, positions=12):
    """What our model would have: BART's names and some more."""
    with torch.random.fork_rng():
        own = {key: torch.zeros_like(value) - 1 for key, value in bart_state(rows, positions).items() if bart._is_known(key)}
    own = {key: value for key, value in own.items() if "version" not in key and "output_projection" not in key}
    own["encoder.layers.0.self_attn.c_attn"] = torch.ones(2)
    own["encoder.pos_q_linear.weight"] = nn.Linear(WIDTH, WIDTH).weight.data
    return own


def test_what_is_taken():
    state, fresh = bart_state(), our_state()
    conversion = bart.from_bart(state, fresh, [(0, 0), (2, 5), (12, 9)])
    result, report = conversion.state, conversion.report
    assert result.keys() == fresh.keys()
    tokens = result["encoder.embed_tokens.weight"]
    assert torch.equal(tokens[[0, 2, 12]], state["encoder.embed_tokens.weight"][[0, 5, 9]])
    assert bool((tokens[[1, *range(3, 12)]] == -1).all())  # the rest is as initialised
    assert result["decoder.embed_tokens.weight"] is tokens
    positions = result["decoder.embed_positions.weight"]
    assert torch.equal(positions[:10], state["decoder.embed_positions.weight"][2:])  # position p is BART's row p + 2
    assert bool((positions[10:] == -1).all())
    for name in ("encoder.layers.1.fc2.bias", "decoder.layers.0.encoder_attn.q_proj.weight", "decoder.layers.1.final_layer_norm.bias"):
        assert torch.equal(result[name], state[name])
    assert report.keys("missing") == ["encoder.layers.0.self_attn.c_attn", "encoder.pos_q_linear.weight"]
    counts = {kind: len(report.keys(kind)) for kind in ("kept", "reshaped", "dropped")}
    assert counts["reshaped"] == 3 and sum(counts.values()) == len(state)


def test_half_precision_becomes_the_models():
    half = {key: value.half() for key, value in bart_state().items()}
    assert {value.dtype for value in bart.from_bart(half, our_state(), [(1, 1)]).state.values()} == {torch.float32}


def test_other_sizes_are_named():
    state = bart_state()
    with pytest.raises(UserError, match="has encoder.layers.1.* --arch must have its number of layers"):
        bart.from_bart(state, {key: value for key, value in our_state().items() if ".layers.1." not in key}, [])
    with pytest.raises(UserError, match=r"encoder.layers.0.fc1.weight is \(8, 4\), the model's is \(3, 4\)"):
        bart.from_bart(state, {**our_state(), "encoder.layers.0.fc1.weight": torch.zeros(3, 4)}, [])


def test_unknown_keys_are_refused_or_reported():
    state = {**bart_state(), "encoder.adapter.weight": torch.zeros(1), "classification_heads.mnli.dense.weight": torch.zeros(1)}
    with pytest.raises(UserError, match="1 key not of BART: encoder.adapter.weight"):
        bart.from_bart(state, our_state(), [])
    report = bart.from_bart(state, our_state(), [], drop_unexpected=True).report
    assert report.keys("unexpected") == ["encoder.adapter.weight"]
    assert "classification_heads.mnli.dense.weight" in report.keys("dropped")


def test_tokens_are_matched():
    assert bart.token_rows(["<s>", "a", "b", "<code_0>"], ["<s>", "b", "c", "a"]) == [(0, 0), (1, 3), (2, 1)]
    assert bart.published_rows(8, 5) == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 7)]  # <mask> is BART's last row
    with pytest.raises(UserError, match="has 5 token rows, fewer than the 6"):
        bart.published_rows(5, 5)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_hugging_face_names(prefix):
    state = bart_state()
    theirs = {f"{prefix}{key}": value for key, value in state.items() if not key.endswith((".version", "output_projection.weight"))}
    theirs[f"{prefix}shared.weight"] = state["encoder.embed_tokens.weight"]
    theirs["lm_head.weight"] = state["encoder.embed_tokens.weight"]
    theirs["final_logits_bias"] = torch.zeros(1, 10)
    assert hf_bart.is_hf_bart(theirs) and not hf_bart.is_hf_bart(state) and bart.is_bart(state)
    report = KeyReport()
    ours, shown = hf_bart.to_fairseq(theirs, report)
    expected = bart.from_bart(state, our_state(), [(1, 1)]).state
    conversion = bart.from_bart(ours, our_state(), [(1, 1)], shown)
    assert all(torch.equal(conversion.state[key], value) for key, value in expected.items() if "pos_q" not in key)
    seen = [key for kind in ("kept", "renamed", "reshaped", "dropped") for key in (*report.keys(kind), *conversion.report.keys(kind))]
    assert sorted(seen) == sorted(theirs)
    with pytest.raises(UserError, match="final_logits_bias is not zero"):
        hf_bart.to_fairseq({**theirs, "final_logits_bias": torch.ones(1, 10)}, KeyReport())


def test_copies_of_the_embeddings_must_be_the_same():
    state = bart_state()
    for key in bart.TOKEN_COPIES:
        with pytest.raises(UserError, match=f"{key} and encoder.embed_tokens.weight differ"):
            bart.from_bart({**state, key: state[bart.TOKENS] + 1}, our_state(), [])
    equal = {**state, bart.TOKEN_COPIES[0]: state[bart.TOKENS].clone()}
    assert bart.TOKEN_COPIES[0] in bart.from_bart(equal, our_state(), []).report.keys("dropped")
    theirs = {"model.shared.weight": state[bart.TOKENS], "lm_head.weight": state[bart.TOKENS][:-1]}
    with pytest.raises(UserError, match="lm_head.weight and model.shared.weight differ"):
        hf_bart.to_fairseq(theirs, KeyReport())
