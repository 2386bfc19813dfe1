"""SPICE (Anderson et al., 2016), computed by its Java program, which pycocoevalcap ships without the CoreNLP models it needs."""

import json
import math
import pathlib
import subprocess
import tempfile
from collections.abc import Sequence

from unival.errors import UserError
from unival.metrics.base import NO_OPTIONS, MeanMetric, MetricOptions
from unival.metrics.java import UTF8, java_command, java_program, last_line
from unival.metrics.tokenize import Tokenizer, tokenize

JAR = "spice/spice-1.0.jar"
MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")  # expected in lib/ beside JAR
MEMORY = "-Xmx8G"


class Spice(MeanMetric):
    """F-score of scene-graph tuples, averaged over rows."""

    name = "spice"
    keys = ("spice",)

    def __init__(self, tokenizer: Tokenizer = tokenize, options: MetricOptions = NO_OPTIONS) -> None:
        super().__init__(tokenizer, options)
        self._jar = java_program("SPICE", JAR)
        self._java = java_command("SPICE")
        missing = [name for name in MODELS if not (self._jar.parent / "lib" / name).is_file()]
        if missing:
            raise UserError(
                f"SPICE needs {' and '.join(missing)} in {self._jar.parent / 'lib'}: take them from Stanford CoreNLP "
                "3.6.0 (stanford-corenlp-full-2015-12-09.zip; `python -m pycocoevalcap.spice.get_stanford_models` "
                "downloads it), or leave spice out"
            )

    def score(self, hypothesis: str, references: Sequence[str]) -> float:
        """F-score of one row. Every call starts the program; use ``update_all`` for many rows."""
        return self._scores([(hypothesis, references)])[0]

    def update_all(self, rows: Sequence[tuple[str, Sequence[str]]]) -> list[dict[str, float]]:
        """Statistics of all rows, from one run of the program."""
        return [self.statistics(score) for score in self._scores(rows)]

    def _scores(self, rows: Sequence[tuple[str, Sequence[str]]]) -> list[float]:
        with tempfile.TemporaryDirectory() as folder:
            questions, answers = pathlib.Path(folder, "in.json"), pathlib.Path(folder, "out.json")
            questions.write_text(json.dumps(self._questions(rows)), encoding="utf-8")
            command = [self._java, MEMORY, UTF8, "-jar", self._jar.name, str(questions)]
            command += ["-out", str(answers), "-subset", "-silent"]
            done = subprocess.run(command, cwd=self._jar.parent, capture_output=True, encoding="utf-8", check=False)
            if done.returncode or not answers.is_file():
                raise UserError(
                    f"SPICE's Java program failed with exit code {done.returncode}: {last_line(done.stderr)} "
                    "(it was written for Java 8)"
                )
            return read_scores(answers.read_text(encoding="utf-8"), len(rows))

    def _questions(self, rows: Sequence[tuple[str, Sequence[str]]]) -> list[dict[str, object]]:
        return [
            {
                "image_id": i,
                "test": " ".join(self.tokenizer(hypothesis)),
                "refs": [" ".join(words) for words in self.tokenized(references)],
            }
            for i, (hypothesis, references) in enumerate(rows)
        ]


def read_scores(text: str, count: int) -> list[float]:
    """F-scores of rows 0 to ``count - 1``, parsed from the program's JSON output."""
    scores = {answer["image_id"]: float(answer["scores"]["All"]["f"]) for answer in json.loads(text)}
    assert sorted(scores) == list(range(count)), f"SPICE: expected scores of {count} rows, got {len(scores)}"
    assert all(math.isfinite(score) for score in scores.values()), "SPICE: expected finite scores"
    return [scores[i] for i in range(count)]
