"""Generation options: fairseq's own, completed with their defaults and checked against each other."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from fairseq.data import Dictionary
from fairseq.dataclass.configs import GenerationConfig

from unival.errors import UserError
from unival.generation.trie import Trie

FIRST_SYMBOL = 4  # <s>, <pad>, </s> and <unk> come before it


def generation_options(args: Any) -> argparse.Namespace:
    """All options of fairseq's GenerationConfig, those in `args` with their value there.

    Raises:
        UserError: `args` has an option that GenerationConfig has not.
    """
    defaults = vars(GenerationConfig())
    given = dict(args) if isinstance(args, Mapping) else dict(vars(args))
    for name in given:
        if name not in defaults and not name.startswith("_"):
            raise UserError(
                f"unknown generation option {name!r}: choose from {', '.join(sorted(set(defaults) - {'_name'}))}"
            )
    return argparse.Namespace(**{**defaults, **given})


def check_options(
    options: argparse.Namespace,
    dictionary: Dictionary,
    trie: Trie | None,
    constraint_range: tuple[int, int] | None,
    zero_shot: bool,
) -> None:
    """Refuse values out of range and options that contradict each other, naming them.

    Raises:
        UserError: the first of them.
    """
    checks = [*_limits(options, len(dictionary)), *_contradictions(options)]
    if trie is not None:
        checks += _closed_set_contradictions(options, constraint_range)
    checks.append((zero_shot and trie is None, "zero-shot masking needs a closed set of answers"))
    if constraint_range is not None:
        start, end = constraint_range
        message = f"constraint range {start},{end}: needs {FIRST_SYMBOL} <= start < end <= {len(dictionary)}"
        checks.append((not FIRST_SYMBOL <= start < end <= len(dictionary), message))
    for is_wrong, message in checks:
        if is_wrong:
            raise UserError(message)


def _limits(o: argparse.Namespace, symbols: int) -> Iterator[tuple[bool, str]]:
    """Values out of range."""
    yield o.beam < 1 or o.beam >= symbols, f"--beam {o.beam}: needs 1 to {symbols - 1}"
    yield o.nbest > o.beam, f"--nbest {o.nbest} is more than --beam {o.beam}"
    yield o.temperature <= 0, f"--temperature {o.temperature}: must be above 0"
    yield (
        o.max_len_a < 0 or o.max_len_b < 0,
        f"--max-len-a {o.max_len_a} and --max-len-b {o.max_len_b} must not be negative",
    )
    yield (
        o.max_len_a == 0 and not o.match_source_len and o.min_len > o.max_len_b,
        f"--min-len {o.min_len} is longer than --max-len-b {o.max_len_b}",
    )
    yield o.sampling_topk > symbols, f"--sampling-topk {o.sampling_topk}: there are {symbols} symbols"
    yield (
        o.diverse_beam_groups > 0 and o.beam % max(o.diverse_beam_groups, 1) != 0,
        f"--diverse-beam-groups {o.diverse_beam_groups} does not divide --beam {o.beam}",
    )


def _strategies(o: argparse.Namespace) -> list[str]:
    """The ways to search that are switched on."""
    switches = {
        "--sampling": o.sampling,
        "--diverse-beam-groups": o.diverse_beam_groups > 0,
        "--diversity-rate": o.diversity_rate > 0,
        "--match-source-len": o.match_source_len,
        "--constraints": o.constraints is not None,
    }
    return [name for name, is_on in switches.items() if is_on]


def _contradictions(o: argparse.Namespace) -> Iterator[tuple[bool, str]]:
    """Options without effect beside others, or against them."""
    chosen = _strategies(o)
    yield len(chosen) > 1, f"{' and '.join(chosen)} exclude each other"
    yield o.sampling_topk > 0 and not o.sampling, f"--sampling-topk {o.sampling_topk} needs --sampling"
    yield o.sampling_topp > 0 and not o.sampling, f"--sampling-topp {o.sampling_topp} needs --sampling"
    yield o.sampling_topk > 0 and o.sampling_topp > 0, "--sampling-topk and --sampling-topp exclude each other"
    yield o.unnormalized and o.lenpen != 1, f"--lenpen {o.lenpen} has no effect with --unnormalized"
    yield o.score_reference, "--score-reference scores given targets: it does not generate"
    yield o.print_alignment is not None, "--print-alignment: the decoder keeps no attention weights"


def _closed_set_contradictions(
    o: argparse.Namespace, constraint_range: tuple[int, int] | None
) -> Iterator[tuple[bool, str]]:
    """What could keep an answer of the closed set from being said."""
    yield constraint_range is not None, "a closed set of answers and a constraint range exclude each other"
    yield (
        o.no_repeat_ngram_size > 0,
        f"--no-repeat-ngram-size {o.no_repeat_ngram_size} could forbid answers of the closed set",
    )
    yield o.min_len > 1, f"--min-len {o.min_len} could forbid answers of the closed set"
    yield (
        o.match_source_len or o.constraints is not None,
        f"{' and '.join(_strategies(o))} could forbid answers of the closed set",
    )
