"""Accuracy of short answers: labels of entailment, answers to open-ended questions about images and videos."""

from collections.abc import Sequence

from unival.answers import weights_of
from unival.metrics.vqa import AnswerMetric

# The words that published models are trained to say for the labels of SNLI-VE; a table may have either.
LABELS = {"entailment": "yes", "neutral": "maybe", "contradiction": "no"}
OUTER = ",.!?*#:;~"  # marks that published recipes remove from the front of questions; here a final one goes as well


def clean(answer: str) -> str:
    """An answer in lower case, with a space for ``-`` and ``/``, without outer punctuation and repeated spaces; a label as it is said."""
    text = " ".join(answer.lower().replace("-", " ").replace("/", " ").split()).strip(OUTER).strip()
    return LABELS.get(text, text)


class Accuracy(AnswerMetric):
    """1 if the text is one of the answers, else 0; both are compared as :func:`clean` makes them."""

    name = "accuracy"
    keys = ("accuracy",)

    def form(self, text: str) -> str:
        """See :func:`clean`."""
        return clean(text)

    def score(self, hypothesis: str, references: Sequence[str]) -> float:
        """1.0 or 0.0; an answer with weight 0 is none."""
        said = clean(hypothesis)
        return float(any(clean(answer) == said for answer, weight in weights_of(references).items() if weight > 0))
