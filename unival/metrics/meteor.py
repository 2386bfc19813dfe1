"""METEOR 1.5 (Denkowski and Lavie, 2014), computed by its Java program, which pycocoevalcap ships.

The program's command SCORE aligns a row, and EVAL computes scores from sums of alignment statistics, so METEOR can be summed over
rows and workers like the other metrics. The program starts with the first row and ends when the metric is deleted.
"""

import subprocess
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from typing import IO

from unival.errors import UserError
from unival.metrics.base import NO_OPTIONS, Metric, MetricOptions
from unival.metrics.java import UTF8, java_command, java_program, last_line
from unival.metrics.tokenize import Tokenizer, tokenize

JAR = "meteor/meteor-1.5.jar"
# Layout of the answer to SCORE: lengths (hypothesis, reference), function words (hypothesis, reference), the matches of each of four
# stages (content words of hypothesis and reference, function words of both), chunks, matched words.
NUM_STATISTICS = 23
LENGTHS = slice(0, 2)
MATCHES = (slice(4, 20, 2), slice(5, 20, 2))
CHUNKS = 20
MEMORY = "-Xmx2G"


class Meteor(Metric):
    """METEOR for English with its default weights, on normalised tokens, as coco-caption runs it."""

    name = "meteor"
    keys = ("meteor",)

    def __init__(self, tokenizer: Tokenizer = tokenize, options: MetricOptions = NO_OPTIONS) -> None:
        super().__init__(tokenizer, options)
        self._jar = java_program("METEOR", JAR)
        self._java = java_command("METEOR")
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[str] | None = None

    def update(self, hypothesis: str, references: Sequence[str]) -> dict[str, float]:
        """The program's statistics of the best alignment with a reference.

        A hypothesis that matches a whole reference in one chunk is not fragmented: like the program, do not count that chunk.
        """
        texts = [" ".join(words).replace("|||", "") for words in (*self.tokenized(references), self.tokenizer(hypothesis))]
        answer = self._ask(" ||| ".join(["SCORE", *texts])).split()
        assert len(answer) == NUM_STATISTICS, f"METEOR: expected {NUM_STATISTICS} numbers, got {len(answer)}: {answer}"
        numbers = [float(number) for number in answer]
        if numbers[CHUNKS] == 1 and numbers[LENGTHS] == [sum(numbers[matches]) for matches in MATCHES]:
            numbers[CHUNKS] = 0.0
        return {f"meteor_{i}": number for i, number in enumerate(numbers)}

    def compute(self, statistics: Mapping[str, float]) -> dict[str, float]:
        """METEOR, between 0 and 1."""
        numbers = " ".join(str(float(statistics[f"meteor_{i}"])) for i in range(NUM_STATISTICS))
        self._ask(f"EVAL ||| {numbers}")  # answers one line per row, here one
        return {"meteor": float(self._read())}  # then a line for the corpus

    def _ask(self, line: str) -> str:
        if self._process is None:
            self._process = self._start()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise UserError(self._why_it_ended()) from None
        return self._read()

    def _read(self) -> str:
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise UserError(self._why_it_ended())
        return line

    def _start(self) -> "subprocess.Popen[str]":
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  lives as long as the process
        process = subprocess.Popen(
            [self._java, MEMORY, UTF8, "-jar", self._jar.name, "-", "-", "-stdio", "-l", "en", "-norm"],
            cwd=self._jar.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
        )
        weakref.finalize(self, process.kill)
        return process

    def _why_it_ended(self) -> str:
        assert self._process is not None and self._errors is not None
        code = self._process.wait()
        self._errors.seek(0)
        said = last_line(self._errors.read())
        return f"METEOR's Java program failed with exit code {code}: {said} (it needs 2 GB of memory)"
