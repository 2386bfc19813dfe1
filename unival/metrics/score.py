"""Score generated texts: read the output of ``fairseq-generate`` and compute metrics over a corpus."""

import logging
import pathlib
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from unival.answers import plain_answer
from unival.errors import UserError, counted
from unival.metrics import check_references, make_metrics
from unival.metrics.base import NO_OPTIONS, Metric, MetricOptions
from unival.metrics.intervals import RESAMPLES, SEED, Difference, Interval, differences, intervals
from unival.metrics.tokenize import make_tokenizer
from unival.text import BOM, HEAD, decode, lone_returns, not_empty, refuse_wide, why_not_text

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)

_LINE = re.compile(r"D-([0-9]{1,18})\t([^\t]+)\t(.*)", re.DOTALL)
_SHOWN = 60  # characters of a line that messages quote


@dataclass
class Scores:
    """Scores of a corpus.

    Attributes:
        total: name -> score of the corpus.
        rows: key -> name -> score of the row.
        statistics: the metrics, fitted, each with the statistics of the rows in their order (see :mod:`unival.metrics.intervals`).
    """

    total: dict[str, float] = field(default_factory=dict)
    rows: dict[Hashable, dict[str, float]] = field(default_factory=dict)
    statistics: list[tuple[Metric, list[dict[str, float]]]] = field(default_factory=list)

    def intervals(self, resamples: int = RESAMPLES, seed: int = SEED) -> dict[str, Interval]:
        """The 95% bootstrap interval of every score."""
        found: dict[str, Interval] = {}
        for metric, rows in self.statistics:
            found.update(intervals(metric, rows, resamples, seed))
        return found

    def differences(self, other: "Scores", resamples: int = RESAMPLES, seed: int = SEED) -> dict[str, Difference]:
        """How every score of another output of the same rows differs from this one's."""
        found: dict[str, Difference] = {}
        assert list(self.rows) == list(other.rows), "differences are of the same rows"
        for (metric, rows), (_, others) in zip(self.statistics, other.statistics, strict=True):
            found.update(differences(metric, rows, others, resamples, seed))
        return found


def evaluate(
    hypotheses: Mapping[Key, str],
    references: Mapping[Key, Sequence[str]],
    metrics: Sequence[str],
    tokenizer: str = "python",
) -> dict[str, float]:
    """Scores of a corpus. See ``evaluate_rows``, which also returns the scores of its rows."""
    return evaluate_rows(hypotheses, references, metrics, tokenizer).total


def evaluate_rows(
    hypotheses: Mapping[Key, str],
    references: Mapping[Key, Sequence[str]],
    metrics: Sequence[str],
    tokenizer: str = "python",
    fit_on: Mapping[Key, Sequence[str]] | None = None,
    whose: str = "",
    options: MetricOptions = NO_OPTIONS,
    where: Callable[[Key], str] | None = None,
) -> Scores:
    """Scores of a corpus and of its rows.

    Args:
        hypotheses: key (row number, image id, ...) -> text.
        references: the same keys -> at least one text; blank texts are ignored if there are others.
        metrics: keys of ``METRICS``.
        tokenizer: a key of ``TOKENIZERS``.
        fit_on: references of the corpus from which CIDEr computes document frequencies; default: ``references``.
        whose: prefix of messages about rows, such as the table.
        options: settings of the metrics.
        where: names the place of a row in messages (default: the prefix and its key).

    Raises:
        UserError: nothing to score, unknown metric or tokenizer, a key that only one side has, or a key without references (or
            without words in them, for metrics that compare words).
    """
    _check_keys(hypotheses, references)
    keys = list(hypotheses)
    corpus = references if fit_on is None else fit_on
    words = make_tokenizer(tokenizer, [*hypotheses.values(), *(text for texts in corpus.values() for text in texts)])
    scorers = make_metrics(metrics, words, options).values()
    check_references(corpus, scorers, whose, where)
    pairs = [(hypotheses[key], references[key]) for key in keys]
    scores = Scores(rows={key: {} for key in keys})
    for metric in scorers:
        metric.fit(corpus.values())
        statistics = metric.update_all(pairs)
        for key, row in zip(keys, statistics, strict=True):
            scores.rows[key].update(metric.compute(row))
        scores.total.update(metric.compute(sum_statistics(statistics)))
        scores.statistics.append((metric, statistics))
    warn_of_nothing_in_common(scorers, scores.total, pairs)
    return scores


def warn_of_nothing_in_common(metrics: Iterable[Metric], total: Mapping[str, float], pairs: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Warn where a score is 0 since no text is a reference of any row, as where the labels of a table are not what a model says."""
    for metric in metrics:
        if metric.form("") is None or total[metric.name] > 0:
            continue
        said = {metric.form(text): text for text, _ in pairs}
        known = {metric.form(plain_answer(text)): plain_answer(text) for _, references in pairs for text in references}
        if not said.keys() & known.keys():
            some, others = (", ".join(repr(text[:_SHOWN]) for text in list(texts.values())[:3]) for texts in (said, known))
            logger.warning("%s is 0: no generated text (%s) is a reference of any row (%s)", metric.name, some, others)


def sum_statistics(statistics: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Sum by name."""
    total: dict[str, float] = {}
    for row in statistics:
        for name, value in row.items():
            total[name] = total.get(name, 0.0) + value
    return total


def read_generated(path: str | pathlib.Path) -> dict[int, tuple[str, float]]:
    """Read the ``D-`` lines of ``fairseq-generate``'s output.

    With ``--nbest`` a row has several consecutive lines, best first; the first one is used.

    Returns:
        Row number -> (text, score) of the best hypothesis.

    Raises:
        UserError: no such file, no ``D-`` line, a malformed line, or lines of one row that are not consecutive.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise UserError(
            f"{file}: no such file; expected the output of fairseq-generate (generate-SUBSET.txt in its --results-path)"
        )
    generated: dict[int, tuple[str, float]] = {}
    last = None
    with file.open("rb") as lines:
        refuse_wide(lines.read(HEAD), file)
        lines.seek(0)
        for number, raw in enumerate(lines, start=1):
            line = raw.removeprefix(BOM).rstrip(b"\r\n")
            where = f"{file}, line {number}"
            if re.search(rb"\r[A-Z]-[0-9]+\t", line):
                raise UserError(f"{where}: {lone_returns(file)}")
            if not line.startswith(b"D-"):
                continue
            row, score, text = _parse_line(decode(line, where, file), where)
            if row in generated and row != last:
                raise UserError(
                    f"{file}, line {number}: row {row} occurs again; does the file hold the output of two runs?"
                )
            generated.setdefault(row, (text, score))
            last = row
    if not generated:
        raise UserError(
            f"{file}: no line starts with 'D-'; expected the output of fairseq-generate: D-<row>\\t<score>\\t<text>"
        )
    return generated


def read_outputs(paths: Sequence[str | pathlib.Path]) -> dict[int, str]:
    """The best texts of one evaluation, whose rows several files may share: those of processes or of shards.

    Args:
        paths: files of ``fairseq-generate``'s output, or folders, of which ``generate-*.txt`` in them and in folders within are read.

    Returns:
        Row number -> text, in order.

    Raises:
        UserError: a folder has no such file, or a row is in two files; or as :func:`read_generated`.
    """
    texts: dict[int, str] = {}
    owners: dict[int, pathlib.Path] = {}
    for file in (file for path in paths for file in _files(pathlib.Path(path))):
        generated = read_generated(file)
        repeated = next((row for row in generated if row in owners), None)
        if repeated is not None:
            raise UserError(f"row {repeated} is in {owners[repeated]} and in {file}: expected files that share the rows of one evaluation")
        owners.update(dict.fromkeys(generated, file))
        texts.update((row, text) for row, (text, _) in generated.items())
    return dict(sorted(texts.items()))


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.rglob("generate-*.txt"))
    if not found:
        raise UserError(f"{path}: no generate-*.txt in this folder; expected the output of fairseq-generate")
    return found


def _parse_line(line: str, where: str) -> tuple[int, float, str]:
    match = _LINE.fullmatch(line)
    if match is None:
        number = "" if line.count("\t") < 2 else "; <row> must be a row number of the table, in digits 0 to 9"
        raise UserError(f"{where}: expected D-<row>\\t<score>\\t<text>, got {line[:_SHOWN]!r}{number}")
    reason = why_not_text(match[3])
    if reason is not None:
        raise UserError(f"{where}: {reason}")
    try:
        return int(match[1]), float(match[2]), match[3]
    except ValueError:
        raise UserError(f"{where}: the score {match[2][:_SHOWN]!r} is not a number") from None


def _check_keys(hypotheses: Mapping[Key, str], references: Mapping[Key, Sequence[str]]) -> None:
    if not hypotheses:
        raise UserError("there is nothing to score: no hypotheses")
    for one, other, missing in ((hypotheses, references, "references"), (references, hypotheses, "hypothesis")):
        lone = [key for key in one if key not in other]
        if lone:
            raise UserError(f"{counted(len(lone), 'row')} without {missing}: {list_some(lone)}")
    empty = [key for key, texts in references.items() if isinstance(texts, str) or not not_empty(texts)]
    if empty:
        raise UserError(f"{counted(len(empty), 'row')} without a list of references: {list_some(empty)} (blank texts are ignored)")


def list_some(values: Sequence[object], count: int = 5) -> str:
    """The first few values of a list, for a message: "3, 4, 7, ..."."""
    return ", ".join(str(value) for value in values[:count]) + (", ..." if len(values) > count else "")
