"""Candidate answers scored over their prefix tree: against the model's forward pass on each, an exhaustive search, by invariance."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import golden, tiny
from tests.generation.test_search import generate, same
from unival.errors import UserError
from unival.generation import Trie, build_generator
from unival.generation.candidates import PrefixTree
from unival.models.unival import UnivalModel

BOS, PAD, EOS = 0, 1, 2
PROMPTS: list[list[int]] = [[20, 31, 7, 44], [33, 8]]
Scores = dict[tuple[int, ...], float]


def random_answers(number: int, seed: int = 0, symbols: int = 12, longest: int = 5) -> list[list[int]]:
    """Answers of few tokens, so that many begin alike and some go on where others end."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (number,), generator=generator).tolist()
    return [(4 + torch.randint(symbols, (length,), generator=generator)).tolist() for length in lengths]


ANSWERS = random_answers(60)
TRIE = Trie(ANSWERS, BOS, EOS)


def sample_of(
    dtype: torch.dtype, prompts: list[list[int]] | None = None, more_padding: int = 0, kind: str = "text"
) -> dict[str, Any]:
    """Two questions of different lengths, with ``kind`` "image" about two images."""
    case = golden.case(kind)
    source = torch.tensor(golden.numbers("beams")["vqa_src"])
    case["src_tokens"] = torch.cat([source, torch.full((2, more_padding), PAD)], 1)
    group = golden.golden_group(case, dtype)
    sample: dict[str, Any] = {"net_input": {"groups": [{**group, "src_lengths": group["src_tokens"].ne(PAD).sum(1)}]}}
    if prompts is not None:
        width = max(map(len, prompts))
        sample["prefix_tokens"] = torch.tensor([row + [PAD] * (width - len(row)) for row in prompts])
    return sample


def row_of(sample: dict[str, Any], i: int) -> dict[str, Any]:
    """One row of a batch, alone."""
    (group,) = sample["net_input"]["groups"]
    alone = {"net_input": {"groups": [{key: group[key][i : i + 1] for key in ("src_tokens", "src_lengths")}]}}
    return alone | ({"prefix_tokens": sample["prefix_tokens"][i : i + 1]} if "prefix_tokens" in sample else {})


def candidates(models: list[UnivalModel], sample: dict[str, Any], **options: Any) -> list[Scores]:
    """Scores of every answer, by row."""
    options = {"inference": "candidates", "nbest": 1000, **options}
    rows = build_generator(models, models[0].decoder.dictionary, options, TRIE).generate(models, sample)
    prompts = [[token for token in row if token != PAD] for row in sample["prefix_tokens"].tolist()] if "prefix_tokens" in sample else None
    found = []
    for i, row in enumerate(rows):
        assert [float(h["score"]) for h in row] == sorted((float(h["score"]) for h in row), reverse=True)
        prompt = prompts[i] if prompts else []
        own: Scores = {}
        for hypothesis in row:
            tokens = hypothesis["tokens"].tolist()
            assert tokens[: len(prompt)] == prompt and tokens[-1] == EOS
            assert not hypothesis["positional_scores"][: len(prompt)].any()
            assert float(hypothesis["positional_scores"].sum()) == pytest.approx(float(hypothesis["score"]), abs=1e-4)
            own[tuple(tokens[len(prompt) : -1])] = float(hypothesis["score"])
        assert own.keys() == set(map(tuple, ANSWERS)) and len(row) == TRIE.size
        found.append(own)
    return found


@torch.no_grad()
def whole(model: UnivalModel, sample: dict[str, Any], zero_shot: bool = False, temperature: float = 1.0) -> list[Scores]:
    """By definition: every answer behind its prompt through the decoder, log-probabilities among what may follow, summed."""
    (group,) = sample["net_input"]["groups"]
    encoded = model.encoder(group["src_tokens"], group["src_lengths"], group.get("media"))
    answers, longest = sorted(set(map(tuple, ANSWERS))), max(map(len, ANSWERS))
    found = []
    for i in range(len(group["src_tokens"])):
        prompt = [token for token in sample["prefix_tokens"][i].tolist() if token != PAD] if "prefix_tokens" in sample else []
        own: Scores = dict.fromkeys(answers, 0.0)
        previous = torch.tensor([[BOS, *prompt, *answer] + [PAD] * (longest - len(answer)) for answer in answers])
        logits = model.decoder(previous, encoded.select(torch.full((len(answers),), i)))[0] / temperature
        for number, answer in enumerate(answers):
            for step, token in enumerate([*answer, EOS]):
                scores: Tensor = logits[number, len(prompt) + step]
                allowed = slice(None) if zero_shot else TRIE.next([BOS, *answer[:step]])
                own[answer] += float(scores[token] - scores[allowed].logsumexp(0))
        found.append(own)
    return found


def close(found: list[Scores], expected: list[Scores], tolerance: float) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == {answer: pytest.approx(score, abs=tolerance) for answer, score in theirs.items()}


@pytest.fixture(scope="module")
def model() -> UnivalModel:
    return golden.golden_model(torch.float64)


def test_answers_about_images(model: UnivalModel) -> None:
    sample = sample_of(torch.float64, PROMPTS, kind="image")
    close(candidates([model], sample), whole(model, sample), 1e-9)


@pytest.mark.parametrize("prompts", [None, PROMPTS], ids=["free", "prompted"])
@pytest.mark.parametrize("options", [{}, {"zero_shot": True}, {"temperature": 1.7}], ids=str)
def test_every_answer_scores_as_when_it_is_computed_whole(model: UnivalModel, prompts: Any, options: dict[str, Any]) -> None:
    sample = sample_of(torch.float64, prompts)
    expected = whole(model, sample, **options)
    for size in (1, 15, 4096):  # whatever is computed at a time
        found = candidates([model], sample, candidates_batch=size, **options)
        close(found, expected, 1e-9)
    if not options.get("zero_shot"):  # the answers share all of the probability
        assert all(math.fsum(map(math.exp, row.values())) == pytest.approx(1.0) for row in found)
    close(candidates([model], sample_of(torch.float64, prompts, more_padding=3), **options), expected, 1e-9)
    close([candidates([model], row_of(sample, i), **options)[0] for i in range(2)], expected, 1e-9)


def test_single_and_half_precision(model: UnivalModel) -> None:
    exact = candidates([model], sample_of(torch.float64, PROMPTS))
    single = golden.golden_model(torch.float32)
    sample = sample_of(torch.float32, PROMPTS)
    found = candidates([single], sample)
    close(found, whole(single, sample), 1e-5)
    close(found, exact, 1e-4)
    half = copy.deepcopy(single).to(torch.bfloat16)  # the tests share that one
    rows = candidates([half], sample_of(torch.bfloat16, PROMPTS))
    for ours, theirs in zip(rows, exact, strict=True):
        errors = torch.tensor([ours[answer] - theirs[answer] for answer in theirs])
        assert errors.abs().mean() < 0.3 and ours != theirs  # of sums around -20


@pytest.mark.parametrize("zero_shot", [False, True])
def test_an_ensemble_finds_what_an_exhaustive_search_finds(tmp_path: Any, zero_shot: bool) -> None:
    """Also where positions are entangled and heads normalised, in a batch of two groups; search scores the prompts, too."""
    vocab = tiny.vocabulary(tmp_path)
    models = [
        tiny.model(vocab, modalities="", **changes).double()
        for changes in ({"seed": 1}, {"seed": 2, "entangle_target_positions": True, "qk_norm": True})
    ]
    sources = [[BOS, 20, 21, 22, EOS], [BOS, 23, EOS, PAD, PAD]], [[BOS, 24, 25, EOS]]
    groups = [{"src_tokens": torch.tensor(rows), "src_lengths": torch.tensor(rows).ne(PAD).sum(1)} for rows in sources]
    sample = {"net_input": {"groups": groups}, "prefix_tokens": torch.tensor([[9, 10, 11], [12, PAD, PAD], [PAD] * 3])}
    options = {"beam": 70, "unnormalized": True, "max_len_b": 12}
    searched = build_generator(models, vocab.dictionary, options, TRIE, zero_shot=zero_shot).generate(models, sample)
    scored = build_generator(
        models, vocab.dictionary, {"inference": "candidates", "nbest": 70, "zero_shot": zero_shot}, TRIE
    ).generate(models, sample)
    for ours, theirs, prompt in zip(scored, searched, (3, 1, 0), strict=True):
        assert [h["tokens"].tolist() for h in ours] == [h["tokens"].tolist() for h in theirs] and len(ours) == TRIE.size
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one["positional_scores"][prompt:], other["positional_scores"][prompt:], rtol=0, atol=1e-9)


def test_source_and_common_prefixes_are_computed_once(model: UnivalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and values of the source once per layer; as many tokens in the decoder as the tree has nodes, not as the answers have."""
    seen: dict[str, list[tuple[int, int]]] = {"memory": [], "queries": []}
    layer = model.decoder.layers[0]
    project, forward = layer.encoder_attn.project_memory, layer.encoder_attn.forward
    monkeypatch.setattr(layer.encoder_attn, "project_memory", lambda x: seen["memory"].append(x.shape[:2]) or project(x))
    monkeypatch.setattr(layer.encoder_attn, "forward", lambda x, *more: seen["queries"].append(x.shape[:2]) or forward(x, *more))
    candidates([model], sample_of(torch.float64), candidates_batch=20)
    assert len(seen["memory"]) == 1 and seen["memory"][0][0] == 2
    prefixes = {tuple(answer[:i]) for answer in ANSWERS for i in range(len(answer) + 1)}
    assert sum(nodes for _, nodes in seen["queries"]) == len(prefixes) and {rows for rows, _ in seen["queries"]} == {2}
    assert max(nodes for _, nodes in seen["queries"]) == 10


@pytest.mark.parametrize("seed", range(4))
def test_the_tree_is_that_of_the_answers(seed: int) -> None:
    answers = random_answers(40, seed, symbols=4)
    tree = PrefixTree(Trie(answers, BOS, EOS))
    prefixes = sorted({tuple(answer[:i]) for answer in answers for i in range(len(answer) + 1)})  # preorder
    assert tree.size == len(prefixes) and tree.deepest == max(map(len, answers))
    labels = tree.labels.tolist()
    for number, answer in enumerate(sorted(set(map(tuple, answers)))):
        assert [labels[edge] for edge in tree.path(number)] == [*answer, EOS]
    for most in (1, 3, 1000):
        reached = 0
        path: list[tuple[int, ...]] = []
        for nodes, block in tree.blocks(most):
            own = prefixes[nodes]
            known = path + own
            assert nodes.start == reached + 1 and len(own) <= most and [p[-1] for p in own] == block.tokens.tolist()
            assert block.depths.tolist() == list(map(len, known))
            for prefix, row in zip(own, block.visible.tolist(), strict=True):
                assert [p for p, seen in zip(known, row, strict=True) if seen] == [prefix[:i] for i in range(1, len(prefix) + 1)]
            path = [known[i] for i in block.kept.tolist()]
            reached = nodes.stop - 1
        assert reached == tree.size - 1 and path == []


def test_the_best_is_first_and_as_many_as_asked_for(model: UnivalModel) -> None:
    sample = sample_of(torch.float64)
    expected = whole(model, sample)
    generator = build_generator([model], model.decoder.dictionary, {"inference": "candidates", "nbest": 3, "beam": 1}, TRIE)
    rows = generate(generator, sample)
    for row, scores in zip(rows, expected, strict=True):
        best = sorted(scores, key=lambda answer: -scores[answer])[:3]
        assert [tokens[:-1] for tokens, _ in row] == [list(answer) for answer in best]
    same(generate(generator, sample), rows)  # again, with what the first time left behind


@pytest.mark.parametrize(
    ("options", "trie", "message"),
    [
        ({}, None, "--inference candidates: there are no candidate answers"),
        ({"sampling": True}, TRIE, "--sampling is a way to search, and --inference candidates does not"),
        ({"diverse_beam_groups": 5}, TRIE, "--diverse-beam-groups is a way to search"),
        ({"lenpen": 0.5}, TRIE, "--lenpen 0.5: --inference candidates compares answers by the sum"),
        ({"candidates_batch": 0}, TRIE, "--candidates-batch 0: must be at least 1"),
        ({"inference": "allcand"}, TRIE, "generation option inference is 'allcand': choose from beam, candidates"),
        ({"inference": "beam", "zero_shot": True}, None, "zero-shot masking needs candidate answers"),
        ({"reject_below": "low"}, TRIE, "generation option reject_below is 'low': expected a number"),
    ],
    ids=["no candidates", "sampling", "diverse beams", "lenpen", "batch", "inference", "zero-shot", "reject"],
)
def test_options_that_cannot_be_are_named(model: UnivalModel, options: dict[str, Any], trie: Trie | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_generator([model], model.decoder.dictionary, {"inference": "candidates", **options}, trie)


def test_no_room_for_the_answers_is_an_error(tmp_path: Any) -> None:
    vocab = tiny.vocabulary(tmp_path)
    model = tiny.model(vocab, modalities="", max_target_positions=8)
    sample = {"net_input": {"groups": [{"src_tokens": torch.tensor([[BOS, 9, EOS]]), "src_lengths": torch.tensor([3])}]}}
    generator = build_generator([model], vocab.dictionary, {"inference": "candidates"}, TRIE)
    assert len(generator.generate([model], {**sample, "prefix_tokens": torch.tensor([[9, 9]])})) == 1  # 2 and 5 tokens after bos
    with pytest.raises(UserError, match="longest prompt has 3 tokens, the longest candidate answer 5: .* the 7 positions"):
        generator.generate([model], {**sample, "prefix_tokens": torch.tensor([[9, 9, 9]])})
