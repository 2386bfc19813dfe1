"""Every option of fairseq's generator: it works, on several batches and in any order of rows, or it is refused."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from fairseq.dataclass.configs import GenerationConfig

from tests.generation.test_search import ANSWERS, generate, generator_of, next_log_probs, same
from tests.generation.toy import BOS, EOS, PAD, make_sample
from unival.errors import UserError
from unival.generation import Trie
from unival.generation.options import MIN_TEMPERATURE, REFUSED

SOURCES = [[BOS, 5, 6, 7, EOS], [BOS, 8, EOS], [BOS, 11, 12, EOS], [BOS, 9, 9, 17, 4, EOS], [BOS, 13, EOS]]
PROMPTS = [[9, 10], [6], [7, 15], [4], [18, 5]]
# field -> options that use it; all others are refused
WORKS: dict[str, dict[str, Any]] = {
    "beam": {"beam": 3},
    "nbest": {"nbest": 2},
    "max_len_a": {"max_len_a": 0.7, "max_len_b": 3},
    "max_len_b": {"max_len_b": 4},
    "min_len": {"seeds": (6,), "min_len": 7},
    "match_source_len": {"match_source_len": True},
    "unnormalized": {"unnormalized": True},
    "lenpen": {"lenpen": 2.5},
    "unkpen": {"unkpen": -9.0},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 1},
    "sampling": {"sampling": True},
    "sampling_topk": {"sampling": True, "sampling_topk": 3},
    "sampling_topp": {"sampling": True, "sampling_topp": 0.6},
    "temperature": {"temperature": 0.05},
    "diverse_beam_groups": {"diverse_beam_groups": 2},
    "diverse_beam_strength": {"diverse_beam_groups": 2, "diverse_beam_strength": 3.0},
    "diversity_rate": {"diversity_rate": 0.7},
    "no_seed_provided": {"no_seed_provided": True},
}
ELSEWHERE = ("nbest", "no_seed_provided")  # what fairseq-generate and the Python API do with them
FIELDS = [field for field in dataclasses.fields(GenerationConfig) if field.name != "_name"]


def batch(rows: list[int], prompts: bool) -> dict[str, Any]:
    """Rows of SOURCES with numbers as in the middle of a large table."""
    sample = make_sample([SOURCES[i] for i in rows], prefixes=[PROMPTS[i] for i in rows] if prompts else None)
    return {**sample, "id": torch.tensor([1000 + i for i in rows])}


def in_batches(generator: Any, batches: list[list[int]], prompts: bool = False) -> list:
    """Hypotheses of every row of SOURCES, in their order."""
    found = {}
    for rows in batches:
        found.update(zip(rows, generate(generator, batch(rows, prompts)), strict=True))
    return [found[i] for i in range(len(SOURCES))]


@pytest.mark.parametrize("prompts", [False, True], ids=["free", "prompted"])
@pytest.mark.parametrize("field", list(WORKS))
def test_rows_do_not_depend_on_batches_or_their_order(field: str, prompts: bool) -> None:
    options = WORKS[field]
    generator = generator_of(**options)
    torch.manual_seed(0)
    first = in_batches(generator, [[0, 1, 2], [3, 4]], prompts)
    assert all(math.isfinite(score) for row in first for _, score in row) and all(first)
    if options.get("sampling"):
        return
    for batches in ([[2, 1, 0], [4, 3]], [[4, 3, 2, 1, 0]], [[3], [0, 4], [1], [2]]):
        same(in_batches(generator, batches, prompts), first)
    if field not in ELSEWHERE:  # an option that changes nothing would pass all that
        default = generator_of(**{name: value for name, value in options.items() if name != field})
        assert in_batches(default, [[0, 1, 2], [3, 4]], prompts) != first


def test_every_field_is_used_or_refused() -> None:
    assert {field.name for field in FIELDS} == set(WORKS) | set(REFUSED)
    assert not set(WORKS) & set(REFUSED)


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_has_no_meaning_here_is_refused(name: str) -> None:
    default = getattr(GenerationConfig(), name)
    given = {bool: True, int: 7, float: 0.75}.get(type(default), "hard")
    with pytest.raises(UserError, match=f"^--{name.replace('_', '-')} cannot be used: "):
        generator_of(**{name: given})
    generator_of(**{name: default})


WRONG = {int: ["2", 2.5, None, True], float: ["2", None, True, math.nan], bool: ["yes", 1, None]}


@pytest.mark.parametrize("field", [f for f in FIELDS if f.type in WRONG], ids=lambda field: field.name)
def test_values_of_another_type_are_named(field: Any) -> None:
    for value in WRONG[field.type]:
        with pytest.raises(UserError, match=f"generation option {field.name} is {value!r}: expected "):
            generator_of(**{field.name: value})


def test_numpys_numbers_are_numbers() -> None:
    generator = generator_of(beam=np.int64(3), lenpen=np.float32(0.5), temperature=1)
    assert (generator.beam_size, generator.len_penalty) == (3, 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 1e-9}, "--temperature 1e-09: must be at least 0.0001"),
        ({"nbest": 0}, "--nbest 0"),
        ({"min_len": -1}, "--min-len -1"),
        ({"sampling": True, "sampling_topp": 1.5}, "--sampling-topp 1.5"),
        ({"diversity_rate": -0.5}, "--diversity-rate -0.5"),
        ({"diversity_rate": 0.5, "beam": 11}, "--diversity-rate ranks 22 tokens"),
        ({"diverse_beam_strength": 0.9}, "--diverse-beam-strength 0.9 needs"),
        ({"diverse_beam_groups": 2, "diversity_rate": 0.0}, "exclude each other"),
    ],
    ids=str,
)
def test_values_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        generator_of(**options)


@pytest.mark.parametrize("choice", [{}, {"sampling_topk": 3}, {"sampling_topp": 0.9}], ids=str)
@pytest.mark.parametrize("temperature", [MIN_TEMPERATURE, 0.01, 0.1, 1.0, 50.0])
def test_sampling_works_at_every_temperature(choice: dict[str, Any], temperature: float) -> None:
    """Also where the likeliest symbol is forbidden; cold enough it takes the likeliest of the others, as greedy search does."""
    seed = 1
    likeliest = [int(next_log_probs(source, [], seed).argmax()) for source in SOURCES]
    assert {PAD, EOS} & set(likeliest), "no first token is forbidden by --min-len: this tests nothing"
    options = {"seeds": (seed,), "sampling": True, "temperature": temperature, "beam": 1, **choice}
    for dtype in (torch.float32, torch.float64):
        rows = in_batches(generator_of(dtype=dtype, **options), [[0, 1, 2], [3, 4]])
        if temperature == MIN_TEMPERATURE:
            greedy = in_batches(generator_of((seed,), dtype, beam=1, temperature=temperature), [[0, 1, 2, 3, 4]])
            assert [row[0][0] for row in rows] == [row[0][0] for row in greedy]
        closed = in_batches(generator_of(dtype=dtype, trie=Trie(ANSWERS, BOS, EOS), **options), [[0, 1, 2, 3, 4]])
        assert all(row[0][0][:-1] in ANSWERS for row in closed)


def test_the_nucleus_is_the_smallest_set_that_exceeds_p() -> None:
    """One step, by hand: of 0.5, 0.3, 0.15, 0.05 the set for 0.6 is the first two; the score is that of all."""
    from unival.generation.sampling import Sampling

    probabilities = torch.tensor([0.05, 0.5, 0.15, 0.3])
    strategy = Sampling(generator_of().tgt_dict, sampling_topp=0.6)
    torch.manual_seed(0)
    scores, tokens, beams = strategy.step(0, probabilities.log().expand(1, 400, 4), None)
    assert set(tokens.flatten().tolist()) == {1, 3} and beams[0].tolist() == list(range(400))
    assert float((tokens == 1).double().mean()) == pytest.approx(0.5 / 0.8, abs=0.08)
    torch.testing.assert_close(scores, probabilities[tokens].log())


def test_a_trial_cuts_answers_but_leaves_prompts_and_closed_sets_alone() -> None:
    """Of long prompts and answers nothing is refused for the sake of a short trial."""
    generator = generator_of()
    generator.longest = 2
    for prompts in (PROMPTS, [[]] * len(SOURCES)):
        rows = in_batches(generator, [[0, 1, 2], [3, 4]], prompts is PROMPTS)
        assert all(len(tokens) <= len(prompt) + 3 for row, prompt in zip(rows, prompts, strict=True) for tokens, _ in row)
    closed = generator_of(trie=Trie(ANSWERS, BOS, EOS), beam=9, max_len_b=10)
    closed.longest = 1
    assert {tuple(tokens[:-1]) for tokens, _ in in_batches(closed, [[0, 1, 2], [3, 4]])[0]} == set(map(tuple, ANSWERS))
