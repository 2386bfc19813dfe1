"""A model's own answers as the targets of a batch: sampled from it, or the most likely ones."""

from typing import Any

import torch

from unival.data.collate import padded
from unival.generation.options import fitting_defaults
from unival.tasks.base import UnivalTask
from unival.tasks.rollouts import AGAINST_POLICY, GREEDY, as_generated, decoder_row, prompt_of


class OwnAnswers:
    """Puts a model's answers in the place of a batch's targets.

    Candidate answers and ranges of tokens limit what is generated, and the loss of it.

    Args:
        task: the task.
        model: the model.
        sampled: sample from the model's distribution; else the most likely token follows.
        longest: most tokens of an answer; None: as in evaluation.
    """

    def __init__(self, task: UnivalTask, model: Any, sampled: bool, longest: int | None = None):
        self.task, self.model = task, model
        is_limited = task.trie is not None or task.target_of(task.instructions).length is not None
        kept = {name: value for name, value in task.preset.generation.items() if name not in AGAINST_POLICY}
        options = {**fitting_defaults(kept, is_limited, has_candidates=False), **GREEDY, "sampling": sampled}
        self.generator = task.generator_for([model], options, task.trie)
        self.generator.longest = longest
        self.sampled = sampled

    def __call__(self, sample: dict[str, Any], seed: int = 0) -> dict[str, Any]:
        """A batch with the model's answers, and with the constraints that they were generated under.

        Args:
            sample: a batch; its targets are not used.
            seed: what is sampled follows from it alone.
        """
        vocabulary = self.task.vocabulary
        if self.sampled:
            device = next(self.model.parameters()).device
            self.generator.search.random = torch.Generator(device).manual_seed(seed)
        with torch.no_grad():
            beams = self.generator.generate([self.model], sample, prefix_tokens=sample.get("prefix_tokens"), bos_token=vocabulary.bos)
        rows = [
            decoder_row(beam[0]["tokens"], prompt_of(sample, row, vocabulary.pad), vocabulary) for row, beam in enumerate(beams)
        ]
        groups, start = [], 0
        for group in sample["net_input"]["groups"]:
            stop = start + len(group["prev_output_tokens"])
            groups.append({**group, "prev_output_tokens": padded([inputs for inputs, _ in rows[start:stop]], vocabulary.pad)})
            start = stop
        kept = {name: value for name, value in sample.items() if name not in ("conf", "loss_spans", "outside")}  # of its own targets
        target = padded([target for _, target in rows], vocabulary.pad)
        return as_generated(self.task, {**kept, "net_input": {"groups": groups}, "target": target})
