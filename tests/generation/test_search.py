"""The generator on a toy model: against a plain search by hand, and by invariance."""

import argparse
import itertools
import math
from typing import Any

import pytest
import torch
from fairseq.sequence_generator import SequenceGenerator
from torch import Tensor

from tests.generation.toy import BOS, EOS, PAD, PLACES, SYMBOLS, UNK, make_dictionary, make_model, make_sample
from unival.errors import UserError
from unival.generation import Trie, UnivalGenerator, build_generator

SOURCES = [[BOS, 5, 6, 7, EOS], [BOS, 8, EOS], [BOS, 11, 12, EOS]]
PROMPTS = [[9, 10, 4], [6], [7, 15]]
ENDED = [[9, 10, EOS], [EOS], [7, 15]]  # eos in a prompt, as sources have it
ANSWERS = [[5], [5, 7], [8, 9, 10], [12], [12, 13], [14, 4], [19, 5, 5]]
OPTIONS = {"beam": 4, "max_len_b": 8}


def generator_of(seeds: tuple[int, ...] = (0,), dtype: torch.dtype = torch.float64, **options: Any) -> UnivalGenerator:
    own = {key: options.pop(key) for key in ("trie", "constraint_range", "zero_shot") if key in options}
    models = [make_model(seed, dtype=dtype) for seed in seeds]
    return build_generator(models, make_dictionary(), {**OPTIONS, **options}, **own)


def generate(generator: UnivalGenerator, sample: dict[str, Any], **more: Any) -> list[list[tuple[list[int], float]]]:
    rows = generator.generate(list(generator.model.models), sample, **more)
    return [[(h["tokens"].tolist(), float(h["score"])) for h in row] for row in rows]


def same(one: list, other: list) -> None:
    assert [[tokens for tokens, _ in row] for row in one] == [[tokens for tokens, _ in row] for row in other]
    scores = [[score for _, score in row] for row in one], [[score for _, score in row] for row in other]
    for a, b in zip(*scores, strict=True):
        assert a == pytest.approx(b, abs=1e-9)


def next_log_probs(source: list[int], tokens: list[int], seed: int = 0) -> Tensor:
    """V log-probabilities after bos + tokens, by the model alone."""
    model = make_model(seed)
    (group,) = make_sample([source])["net_input"]["groups"]
    return model(**group, prev_output_tokens=torch.tensor([[BOS, *tokens]]))[0][0, -1].log_softmax(-1)


def closed_set_scores(source: list[int], prompt: list[int], renormalise: bool = True) -> dict[tuple[int, ...], float]:
    """Every answer's score by definition: the prompt's raw log-probabilities, then those among what may follow."""
    trie = Trie(ANSWERS, BOS, EOS)
    scores = {}
    for answer in ANSWERS:
        total = sum(float(next_log_probs(source, prompt[:i])[token]) for i, token in enumerate(prompt))
        for i, token in enumerate([*answer, EOS]):
            log_probs = next_log_probs(source, prompt + answer[:i])
            if renormalise:
                log_probs = log_probs - log_probs[trie.next([BOS, *answer[:i]])].logsumexp(0)
            total += float(log_probs[token])
        scores[(*prompt, *answer, EOS)] = total
    return scores


VARIANTS: list[dict[str, Any]] = [
    {},
    {"beam": 1},
    {"lenpen": 0.6, "temperature": 1.7, "min_len": 3},
    {"unnormalized": True, "no_repeat_ngram_size": 2},
    {"constraint_range": (6, 12), "min_len": 4, "max_len_b": 4},
    {"trie": Trie(ANSWERS, BOS, EOS)},
    {"trie": Trie(ANSWERS, BOS, EOS), "zero_shot": True, "unnormalized": True, "beam": 3},
    {"seeds": (0, 1, 2)},
]


@pytest.mark.parametrize("prompts", [None, PROMPTS, ENDED], ids=["free", "prompted", "ended"])
@pytest.mark.parametrize("options", VARIANTS, ids=lambda o: ",".join(o) or "plain")
def test_batch_equals_single_rows_whatever_the_mates_and_the_padding(options: dict, prompts: list | None) -> None:
    options = {**options, "min_len": options.get("min_len", 1)}
    if prompts and "max_len_b" in options:
        options["max_len_b"] += 4
    generator = generator_of(**options)
    together = generate(generator, make_sample(SOURCES, prefixes=prompts))
    for order in itertools.permutations(range(3), 2):
        chosen = None if prompts is None else [prompts[i] for i in order]
        pair = generate(generator, make_sample([SOURCES[i] for i in order], width=9, prefixes=chosen))
        same(pair, [together[i] for i in order])
    for i in range(3):
        alone = None if prompts is None else prompts[i : i + 1]
        same(generate(generator, make_sample(SOURCES[i : i + 1], prefixes=alone)), together[i : i + 1])


def test_without_extras_it_is_fairseqs_search() -> None:
    """Token for token the stock generator, which normalises in float32."""
    ours = generator_of(dtype=torch.float32, lenpen=0.8)
    stock = SequenceGenerator(
        [make_model(dtype=torch.float32)],
        make_dictionary(),
        beam_size=4,
        max_len_b=8,
        len_penalty=0.8,
        no_repeat_ngram_size=3,
    )
    sample = make_sample(SOURCES)
    expected = stock.generate([], {**sample, "net_input": sample["net_input"]["groups"][0]}, bos_token=BOS)
    for row, stock_row in zip(generate(ours, sample), expected, strict=True):
        assert [tokens for tokens, _ in row] == [h["tokens"].tolist() for h in stock_row]
        assert [score for _, score in row] == pytest.approx([float(h["score"]) for h in stock_row], abs=1e-5)


def test_greedy_is_the_argmax_rollout() -> None:
    for (best, *_), source in zip(generate(generator_of(beam=1), make_sample(SOURCES)), SOURCES, strict=True):
        tokens, total = [], 0.0
        while not tokens or tokens[-1] != EOS:
            log_probs = next_log_probs(source, tokens)
            log_probs[PAD] = -math.inf
            if not tokens:
                log_probs[EOS] = -math.inf  # min_len 1
            token = EOS if len(tokens) == 8 else int(log_probs.argmax())
            total += float(log_probs[token])
            tokens.append(token)
        assert best == (tokens, pytest.approx(total / len(tokens), abs=1e-9))


def test_wide_beam_is_exhaustive_search() -> None:
    """Every text of at most two tokens fits in the beam: the best hypotheses are those of the enumeration."""
    row = generate(generator_of(beam=19, max_len_b=2, unnormalized=True), make_sample(SOURCES[:1]))[0]
    candidates = {}
    first = next_log_probs(SOURCES[0], [])
    for a in (i for i in range(SYMBOLS) if i not in (PAD, EOS)):
        second = next_log_probs(SOURCES[0], [a])
        candidates[a, EOS] = float(first[a] + second[EOS])
        for b in (i for i in range(SYMBOLS) if i not in (PAD, EOS)):
            candidates[a, b, EOS] = float(first[a] + second[b] + next_log_probs(SOURCES[0], [a, b])[EOS])
    assert tuple(row[0][0]) == max(candidates, key=lambda tokens: candidates[tokens])
    for tokens, score in row:
        assert score == pytest.approx(candidates[tuple(tokens)], abs=1e-9)


@pytest.mark.parametrize("prompts", [None, PROMPTS, ENDED], ids=["free", "prompted", "ended"])
@pytest.mark.parametrize("zero_shot", [False, True])
def test_closed_set_gives_every_answer_its_score(zero_shot: bool, prompts: list | None) -> None:
    generator = generator_of(trie=Trie(ANSWERS, BOS, EOS), beam=9, max_len_b=10, unnormalized=True, zero_shot=zero_shot)
    rows = generate(generator, make_sample(SOURCES, prefixes=prompts))
    for i, row in enumerate(rows):
        expected = closed_set_scores(SOURCES[i], prompts[i] if prompts else [], renormalise=not zero_shot)
        assert {tuple(tokens): pytest.approx(score, abs=1e-9) for tokens, score in row} == expected
        assert [score for _, score in row] == sorted((score for _, score in row), reverse=True)


def test_closed_set_smaller_than_the_beam_ends_early() -> None:
    """Seven answers, nine beams: no step is spent on finding an eighth."""
    generator = generator_of(trie=Trie(ANSWERS, BOS, EOS), beam=9, max_len_b=10)
    steps = []
    decoder = generator.model.models[0].decoder
    decoder.register_forward_pre_hook(lambda module, args: steps.append(args[0].size(1)))
    assert [len(row) for row in generate(generator, make_sample(SOURCES))] == [7, 7, 7]
    assert steps == [1, 2, 3, 4], "the longest answer has three tokens and eos"


@pytest.mark.parametrize("beam", [1, 2, 3, 5])
@pytest.mark.parametrize("sampling", [False, True])
def test_closed_set_is_never_left(beam: int, sampling: bool) -> None:
    generator = generator_of(trie=Trie(ANSWERS, BOS, EOS), beam=beam, max_len_b=6, sampling=sampling)
    torch.manual_seed(0)
    rows = generate(generator, make_sample(SOURCES, prefixes=PROMPTS))
    for row, prompt in zip(rows, PROMPTS, strict=True):
        assert len(row) == beam
        for tokens, score in row:
            assert tokens[: len(prompt)] == prompt
            assert tokens[len(prompt) : -1] in ANSWERS and tokens[-1] == EOS
            assert math.isfinite(score)


@pytest.mark.parametrize("prompts", [PROMPTS, ENDED], ids=["prompted", "ended"])
def test_prompts_are_forced_and_scored_raw(prompts: list) -> None:
    """However unlikely: the best hypothesis starts with its prompt, whose raw log-probabilities count."""
    generator = generator_of(unnormalized=True)
    rows = generator.generate([], make_sample(SOURCES, prefixes=prompts))
    for row, prompt, source in zip(rows, prompts, SOURCES, strict=True):
        raw = [float(next_log_probs(source, prompt[:i])[token]) for i, token in enumerate(prompt)]
        assert len(row) == 4
        for hypothesis in row:
            assert hypothesis["tokens"][: len(prompt)].tolist() == prompt
            assert hypothesis["positional_scores"][: len(prompt)].tolist() == pytest.approx(raw, abs=1e-9)
            assert float(hypothesis["score"]) == pytest.approx(float(hypothesis["positional_scores"].sum()), abs=1e-9)


def test_given_prompts_win_over_the_batchs() -> None:
    generator = generator_of()
    sample = make_sample(SOURCES, prefixes=PROMPTS)
    rows = generate(generator, sample, prefix_tokens=torch.tensor([[18], [18], [18]]))
    assert all(tokens[0] == 18 for row in rows for tokens, _ in row)
    plain = generate(generator, make_sample(SOURCES))
    same(generate(generator, make_sample(SOURCES), bos_token=BOS), plain)


@pytest.mark.parametrize("prompts", [None, [[4, 5], [6]]], ids=["free", "prompted"])
def test_range_is_kept_and_renormalised(prompts: list | None) -> None:
    """Inside the range or eos; scores are normalised over the range and the special symbols; prompts are free."""
    generator = generator_of(constraint_range=(8, 13), min_len=6, max_len_b=6, unnormalized=True)
    rows = generator.generate([], make_sample(SOURCES[:2], prefixes=prompts))
    inside = [0, 1, 2, 3, *range(8, 13)]
    for row, source, prompt in zip(rows, SOURCES, prompts or [[], []], strict=False):
        for hypothesis in row:
            tokens = hypothesis["tokens"].tolist()
            assert len(tokens) == 7 and tokens[-1] == EOS
            assert tokens[: len(prompt)] == prompt
            assert all(8 <= token < 13 for token in tokens[len(prompt) : -1])
            for t, token in enumerate(tokens):
                log_probs = next_log_probs(source, tokens[:t])
                if t >= len(prompt):
                    log_probs = log_probs - log_probs[inside].logsumexp(0)
                assert float(hypothesis["positional_scores"][t]) == pytest.approx(float(log_probs[token]), abs=1e-9)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_n_gram_is_repeated(size: int) -> None:
    """And nothing else is forbidden: greedy search takes the best token that repeats none. A prompt may repeat."""
    repeats = []
    for model_seed in range(6):
        plain = generator_of((model_seed,), beam=1, max_len_b=10, min_len=10)
        generator = generator_of((model_seed,), beam=1, max_len_b=10, min_len=10, no_repeat_ngram_size=size)
        for (tokens, _), source in zip(
            (row[0] for row in generate(generator, make_sample(SOURCES))), SOURCES, strict=True
        ):
            for t, token in enumerate(tokens[:-1]):
                past = [BOS, *tokens[:t]]
                seen = {tuple(past[i : i + size]) for i in range(len(past) - size + 1)}
                log_probs = next_log_probs(source, tokens[:t], model_seed)
                log_probs[[PAD, EOS]] = -math.inf
                context = tuple(past[len(past) - size + 1 :]) if size > 1 else ()
                for symbol in range(SYMBOLS):
                    if (*context, symbol) in seen:
                        log_probs[symbol] = -math.inf
                assert token == int(log_probs.argmax())
        repeats += [len(set(row[0][0])) < len(row[0][0]) for row in generate(plain, make_sample(SOURCES))]
    assert any(repeats), "the toy model must repeat itself or this tests nothing"
    prompt = [[4, 5, 4, 5, 4, 5]]
    rows = generate(generator_of(max_len_b=10, no_repeat_ngram_size=size), make_sample(SOURCES[:1], prefixes=prompt))
    assert all(tokens[:6] == prompt[0] and math.isfinite(score) for tokens, score in rows[0])


def test_ensemble_averages_probabilities() -> None:
    row = generate(generator_of(seeds=(0, 1), beam=2, unnormalized=True), make_sample(SOURCES[:1]))[0]
    for tokens, score in row:
        total = 0.0
        for t, token in enumerate(tokens):
            total += math.log(
                sum(float(next_log_probs(SOURCES[0], tokens[:t], seed)[token].exp()) for seed in (0, 1)) / 2
            )
        assert score == pytest.approx(total, abs=1e-9)


def test_scores_keep_double_precision() -> None:
    hypothesis = generator_of().generate([], make_sample(SOURCES))[0][0]
    assert hypothesis["score"].dtype == hypothesis["positional_scores"].dtype == torch.float64


@pytest.mark.parametrize("options", [{"sampling_topk": 5}, {"sampling_topp": 0.8}, {}], ids=str)
def test_sampling_is_repeatable_and_scored_by_the_whole_distribution(options: dict[str, Any]) -> None:
    generator = generator_of(sampling=True, temperature=2.0, unnormalized=True, **options)
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(generate(generator, make_sample(SOURCES)))
    same(draws[0], draws[1])
    assert draws[0] != draws[2]
    model, (group,) = make_model(), make_sample(SOURCES[:1])["net_input"]["groups"]
    for tokens, score in draws[0][0]:
        fed = torch.tensor([[BOS, *tokens[:-1]]])
        log_probs = (model(**group, prev_output_tokens=fed)[0][0] / 2.0).log_softmax(-1)
        assert score == pytest.approx(float(log_probs.gather(1, torch.tensor(tokens)[:, None]).sum()), abs=1e-9)
        if "sampling_topk" in options:
            rank = (log_probs > log_probs.gather(1, torch.tensor(tokens)[:, None])).sum(1)
            assert rank[:-1].max() < 5 + 2  # pad and, at first, eos are out before the choice


def test_length_is_limited_by_the_models_positions() -> None:
    rows = generate(generator_of(max_len_b=500), make_sample(SOURCES))
    assert max(len(tokens) for row in rows for tokens, _ in row) <= PLACES


def test_min_len_holds_beside_a_longer_prompt() -> None:
    """fairseq forgets it for rows whose prompt is over while another row's goes on."""
    generator = generator_of(min_len=3, max_len_b=8)
    rows = generate(generator, make_sample(SOURCES, prefixes=[[9, 10, 4, 5, 6], [6], [7]]))
    assert min(len(tokens) for row in rows for tokens, _ in row) >= 4


def test_special_symbols_stay_out_of_a_range() -> None:
    rows = generate(generator_of(constraint_range=(8, 9), min_len=2, max_len_b=3, beam=2), make_sample(SOURCES))
    said = {token for row in rows for tokens, score in row if math.isfinite(score) for token in tokens}
    assert said == {8, EOS} and UNK not in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam": 0}, "--beam 0: must be 1 to 19"),
        ({"beam": 20}, "--beam 20"),
        ({"temperature": 0.0}, "--temperature 0.0"),
        ({"min_len": 9}, "--min-len 9 is longer than --max-len-b 8"),
        ({"max_len_b": -1}, "--max-len-b -1"),
        ({"nbest": 5}, "--nbest 5 is more than --beam 4"),
        ({"sampling_topk": 3}, "--sampling-topk 3 needs --sampling"),
        ({"sampling_topp": 0.5}, "--sampling-topp 0.5 needs --sampling"),
        ({"sampling": True, "sampling_topk": 21}, "--sampling-topk 21"),
        ({"sampling": True, "sampling_topk": 3, "sampling_topp": 0.5}, "--sampling-topk and --sampling-topp"),
        ({"sampling": True, "diversity_rate": 0.5}, "--sampling and --diversity-rate exclude"),
        ({"diverse_beam_groups": 3}, "--diverse-beam-groups 3 does not divide --beam 4"),
        ({"unnormalized": True, "lenpen": 0.5}, "--lenpen 0.5 has no effect with --unnormalized"),
        ({"score_reference": True}, "--score-reference"),
        ({"print_alignment": "hard"}, "--print-alignment"),
        ({"stop_on_max_len": True}, "unknown generation option 'stop_on_max_len'"),
        ({"zero_shot": True}, "zero-shot"),
        ({"constraint_range": (3, 9)}, "constraint range 3,9"),
        ({"constraint_range": (8, 21)}, "<= 20"),
        ({"trie": Trie(ANSWERS, BOS, EOS), "constraint_range": (8, 9)}, "exclude each other"),
        ({"trie": Trie(ANSWERS, BOS, EOS), "no_repeat_ngram_size": 3}, "--no-repeat-ngram-size 3"),
        ({"trie": Trie(ANSWERS, BOS, EOS), "min_len": 2}, "--min-len 2 could forbid"),
        ({"trie": Trie(ANSWERS, BOS, EOS), "match_source_len": True}, "--match-source-len could forbid"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_options_that_make_no_sense_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        generator_of(**options)


def test_no_room_for_prompt_or_answers_is_an_error() -> None:
    with pytest.raises(UserError, match="allows 3 tokens, but the longest prompt has 3: needs at least 4"):
        generate(generator_of(max_len_b=3), make_sample(SOURCES, prefixes=PROMPTS))
    trie = Trie(ANSWERS, BOS, EOS)
    with pytest.raises(UserError, match="longest candidate answer has 3: needs at least 6"):
        generate(generator_of(max_len_b=5, trie=trie), make_sample(SOURCES, prefixes=PROMPTS))
    assert len(generate(generator_of(max_len_b=6, trie=trie), make_sample(SOURCES, prefixes=PROMPTS))) == 3


def test_options_are_read_from_namespaces_and_fairseqs_config() -> None:
    from fairseq.dataclass.configs import GenerationConfig
    from omegaconf import OmegaConf

    models, dictionary = [make_model()], make_dictionary()
    config = OmegaConf.structured(GenerationConfig(beam=3, max_len_b=7, unnormalized=True))
    for args in (
        config,
        argparse.Namespace(beam=3, max_len_b=7, unnormalized=True),
        {"beam": 3, "max_len_b": 7, "unnormalized": True},
    ):
        generator = build_generator(models, dictionary, args)
        assert (generator.beam_size, generator.max_len_b, generator.normalize_scores) == (3, 7, False)
    assert build_generator(models, dictionary, {}).beam_size == GenerationConfig().beam
