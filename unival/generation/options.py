"""Generation options: fairseq's own, completed with their defaults and checked against each other."""

from __future__ import annotations

import argparse
import math
import numbers
import typing
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Optional

from fairseq.data import Dictionary
from fairseq.dataclass.configs import GenerationConfig

from unival.errors import UserError, counted, flag, unknown
from unival.generation.answer_options import INFERENCE, OF_DEVICE, AnswerOptions
from unival.generation.trie import Trie
from unival.vocab import FIRST_TOKEN

_TWO_PASSES = "is for models that decode in two passes"
_REFINEMENT = "is for models that refine their output iteratively"
_NO_EFFECT = "has no effect in this version of fairseq"
_ATTENTION = "the decoder keeps no attention weights"
_NO_LM = "there is no language model with this vocabulary to fuse with"
_DROPOUT = "dropout is always off in generation"
MIN_TEMPERATURE = 1e-4  # log-probabilities divided by it still fit float32

# Options of fairseq's GenerationConfig that have no meaning for these models: refused, never ignored.
REFUSED: dict[str, str] = {
    "score_reference": "it scores given targets and generates nothing",
    "print_alignment": _ATTENTION,
    "replace_unk": _ATTENTION,
    "print_step": _REFINEMENT,
    "prefix_size": "give the prefix as a part of the target instead: '… -> [TEXT:prefix,no_loss] [TEXT:answer]'",
    "constraints": "a batch has no texts that an answer must contain; candidate answers (--closed-set) limit what is generated",
    "lm_path": _NO_LM,
    "lm_weight": _NO_LM,
    "retain_dropout": _DROPOUT,
    "retain_dropout_modules": _DROPOUT,
    "no_early_stop": _NO_EFFECT,
    "no_beamable_mm": _NO_EFFECT,
    "sacrebleu": "`unival score` scores what was generated",
    "eos_token": "sentences end with the dictionary's </s>",
    "decoding_format": _REFINEMENT,
    **dict.fromkeys(("beam_mt", "max_len_a_mt", "max_len_b_mt", "lenpen_mt"), _TWO_PASSES),
    **dict.fromkeys(("iter_decode_eos_penalty", "iter_decode_max_iter", "iter_decode_force_max_iter"), _REFINEMENT),
    **dict.fromkeys(("iter_decode_with_beam", "iter_decode_with_external_reranker", "retain_iter_history"), _REFINEMENT),
}
# Defaults of a task that could make a candidate answer, or an answer of fixed length, impossible: they are dropped where there is one.
AGAINST_LIMITS = ("no_repeat_ngram_size", "min_len", "max_len_a", "max_len_b", "match_source_len")
OF_CANDIDATES = ("inference", "zero_shot", "candidates_batch")  # options that need candidate answers


def as_dict(args: Any) -> dict[str, Any]:
    """Options by name, of a mapping, a namespace or a dataclass."""
    return dict(args) if isinstance(args, Mapping) else dict(vars(args))


def answer_options(cfg: Any) -> dict[str, Any]:
    """The options of :class:`AnswerOptions` in a task's that are not as by default; checkpoints of earlier versions have none."""
    defaults = {name: value for name, value in vars(AnswerOptions()).items() if not name.startswith("_")}
    return {name: cfg[name] for name, value in defaults.items() if name in cfg and cfg[name] != value}


def drop_device_options(cfg: Any) -> Any:
    """Of a checkpoint's options, set those that depend on the device it was trained on to their defaults; returns the options."""
    for name in OF_DEVICE:
        if name in cfg:
            cfg[name] = getattr(AnswerOptions(), name)
    return cfg


def generation_options(args: Any) -> argparse.Namespace:
    """All options of fairseq's GenerationConfig and of ``AnswerOptions``: those in ``args`` with the value there, others with theirs.

    Raises:
        UserError: an unknown option, or a value of the wrong type.
    """
    defaults = {**vars(GenerationConfig()), **vars(AnswerOptions())}
    given = as_dict(args)
    types = {**typing.get_type_hints(GenerationConfig), **typing.get_type_hints(AnswerOptions)}
    for name, value in given.items():
        if name not in defaults and not name.startswith("_"):
            known = sorted(set(defaults) - {"_name", *REFUSED})
            raise UserError(unknown("generation option", name, known))
        if name in types and not name.startswith("_"):
            given[name] = _typed(name, value, types[name])
    return argparse.Namespace(**{**defaults, **given})


def _typed(name: str, value: Any, declared: Any) -> Any:
    """A value converted to its option's type; numpy's numbers are accepted, and an int where a float is expected."""
    is_bool = isinstance(value, bool)
    if declared == Optional[float]:
        return None if value is None else _typed(name, value, float)
    if declared is INFERENCE:
        value = value.value if isinstance(value, Enum) else value
        if value not in (choices := [choice.value for choice in INFERENCE]):
            raise UserError(f"generation option {name} is {value!r}: choose from {', '.join(choices)}")
        return value
    if declared is int and not is_bool and isinstance(value, numbers.Integral):
        return int(value)
    if declared is float and not is_bool and isinstance(value, numbers.Real) and math.isfinite(value):
        return float(value)
    if declared in (int, float) or (declared is bool and not is_bool):
        wanted = {int: "a whole number", float: "a number", bool: "True or False"}[declared]
        raise UserError(f"generation option {name} is {value!r}: expected {wanted}")
    return value.value if isinstance(value, Enum) else value


def fitting_defaults(defaults: Mapping[str, Any], is_limited: bool, has_candidates: bool = True) -> dict[str, Any]:
    """A task's default generation options that fit its targets.

    Args:
        defaults: the options.
        is_limited: answers are limited, to candidates or to a fixed length: without those in ``AGAINST_LIMITS``.
        has_candidates: there are candidate answers; if not, without those in ``OF_CANDIDATES``.
    """
    unfit = (*(AGAINST_LIMITS if is_limited else ()), *(() if has_candidates else OF_CANDIDATES))
    return {name: value for name, value in defaults.items() if name not in unfit}


def check_generation_options(
    options: argparse.Namespace,
    dictionary: Dictionary,
    trie: Trie | None,
    constraint_range: tuple[int, int] | None,
    length: int | None = None,
) -> None:
    """Refuse values out of range and options that contradict each other.

    Raises:
        UserError: the first problem; the message names the options.
    """
    checks = [*_refused(options), *_limits(options, len(dictionary)), *_contradictions(options)]
    if trie is not None:
        checks += _closed_set_contradictions(options, constraint_range)
    if length is not None:
        checks += _fixed_length_contradictions(options, length)
    if options.inference == "candidates":
        checks += _search_only(options, trie)
    checks.append((options.zero_shot and trie is None, "--zero-shot: zero-shot masking needs candidate answers"))
    if constraint_range is not None:
        start, end = constraint_range
        message = f"constraint range {start},{end}: needs {FIRST_TOKEN} <= start < end <= {len(dictionary)}"
        checks.append((not FIRST_TOKEN <= start < end <= len(dictionary), message))
    for is_wrong, message in checks:
        if is_wrong:
            raise UserError(message)


def _refused(o: argparse.Namespace) -> Iterator[tuple[bool, str]]:
    """Options that only other models have a use for: whether each was set, and the message."""
    defaults = vars(GenerationConfig())
    for name, reason in REFUSED.items():
        yield getattr(o, name) != defaults[name], f"{flag(name)} cannot be used: {reason}"


def _limits(o: argparse.Namespace, vocabulary: int) ->  Iterator[tuple[bool, str]]:
    """Values out of range; ``vocabulary`` is the number of tokens."""
    yield o.beam < 1 or o.beam >= vocabulary, f"--beam {o.beam}: must be 1 to {vocabulary - 1}"
    yield o.nbest < 1, f"--nbest {o.nbest}: must be at least 1"
    yield o.inference == "beam" and o.nbest > o.beam, f"--nbest {o.nbest} is more than --beam {o.beam}"
    yield o.candidates_batch < 1, f"--candidates-batch {o.candidates_batch}: must be at least 1"
    yield o.temperature <= 0, f"--temperature {o.temperature}: must be above 0"
    yield o.temperature < MIN_TEMPERATURE, f"--temperature {o.temperature}: must be at least {MIN_TEMPERATURE}; --beam 1 is greedy"
    yield (
        o.max_len_a < 0 or o.max_len_b < 0,
        f"--max-len-a {o.max_len_a} and --max-len-b {o.max_len_b} must not be negative",
    )
    yield (
        o.max_len_a == 0 and not o.match_source_len and o.min_len > o.max_len_b,
        f"--min-len {o.min_len} is longer than --max-len-b {o.max_len_b}",
    )
    yield o.min_len < 0, f"--min-len {o.min_len} must not be negative"
    yield o.no_repeat_ngram_size < 0, f"--no-repeat-ngram-size {o.no_repeat_ngram_size} must not be negative"
    yield o.sampling_topp > 1, f"--sampling-topp {o.sampling_topp}: must be at most 1, it is a probability"
    yield o.sampling_topk > vocabulary, f"--sampling-topk {o.sampling_topk}: the vocabulary has {counted(vocabulary, 'token')}"
    yield (
        o.diverse_beam_groups > 0 and o.beam % max(o.diverse_beam_groups, 1) != 0,
        f"--diverse-beam-groups {o.diverse_beam_groups} does not divide --beam {o.beam}",
    )
    yield -1 < o.diversity_rate < 0, f"--diversity-rate {o.diversity_rate} must not be negative (-1: off)"
    yield (
        o.diversity_rate >= 0 and 2 * o.beam > vocabulary,
        f"--diversity-rate ranks {2 * o.beam} tokens for --beam {o.beam}: the vocabulary has {vocabulary}",
    )


def _strategies(o: argparse.Namespace) -> list[str]:
    """The search strategies that are switched on."""
    switches = {
        "--sampling": o.sampling,
        "--diverse-beam-groups": o.diverse_beam_groups > 0,
        "--diversity-rate": o.diversity_rate >= 0,
        "--match-source-len": o.match_source_len,
    }
    return [name for name, is_on in switches.items() if is_on]


def _contradictions(o: argparse.Namespace) -> Iterator[tuple[bool, str]]:
    """Options that exclude each other, or have no effect together."""
    chosen = _strategies(o)
    yield len(chosen) > 1, f"{' and '.join(chosen)} exclude each other"
    yield o.sampling_topk > 0 and not o.sampling, f"--sampling-topk {o.sampling_topk} needs --sampling"
    yield o.sampling_topp > 0 and not o.sampling, f"--sampling-topp {o.sampling_topp} needs --sampling"
    yield o.sampling_topk > 0 and o.sampling_topp > 0, "--sampling-topk and --sampling-topp exclude each other"
    yield o.unnormalized and o.lenpen != 1, f"--lenpen {o.lenpen} has no effect with --unnormalized"
    default_strength = GenerationConfig().diverse_beam_strength
    yield (
        o.diverse_beam_strength != default_strength and o.diverse_beam_groups <= 0,
        f"--diverse-beam-strength {o.diverse_beam_strength} needs --diverse-beam-groups",
    )


def _search_only(o: argparse.Namespace, trie: Trie | None) -> Iterator[tuple[bool, str]]:
    """What has no meaning where every candidate answer is scored."""
    yield trie is None, "--inference candidates: there are no candidate answers; give the slot closed_set, and --closed-set FILE"
    for name in _strategies(o):
        yield True, f"{name} is a way to search, and --inference candidates does not search"
    yield o.cuda_graphs, "--cuda-graphs is for the steps of a search, and --inference candidates does not search"
    yield o.lenpen != 1, f"--lenpen {o.lenpen}: --inference candidates compares answers by the sum of their log-probabilities"
    yield o.unkpen != 0, f"--unkpen {o.unkpen}: --inference candidates takes the model's own probabilities"


def _closed_set_contradictions(
    o: argparse.Namespace, constraint_range: tuple[int, int] | None
) -> Iterator[tuple[bool, str]]:
    """Options that could make a candidate answer impossible."""
    yield constraint_range is not None, "candidate answers and a constraint range exclude each other"
    yield (
        o.no_repeat_ngram_size > 0,
        f"--no-repeat-ngram-size {o.no_repeat_ngram_size} could forbid candidate answers",
    )
    yield o.min_len > 1, f"--min-len {o.min_len} could forbid candidate answers"
    yield o.match_source_len, "--match-source-len could forbid candidate answers"


def _fixed_length_contradictions(o: argparse.Namespace, length: int) -> Iterator[tuple[bool, str]]:
    """Options that would make an answer of the fixed length impossible."""
    answers = f"answers have exactly {counted(length, 'token')} here"
    defaults = GenerationConfig()
    yield o.no_repeat_ngram_size > 0, f"--no-repeat-ngram-size {o.no_repeat_ngram_size}: {answers}, which may repeat"
    yield o.min_len > length, f"--min-len {o.min_len}: {answers}"
    is_short = o.max_len_a == 0 and o.max_len_b != defaults.max_len_b and o.max_len_b < length
    yield is_short, f"--max-len-b {o.max_len_b}: {answers}"
    yield o.match_source_len, f"--match-source-len: {answers}"
