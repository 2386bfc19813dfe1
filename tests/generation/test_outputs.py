"""Outputs from hypotheses."""

import torch

from unival.generation.outputs import Output, make_output


def test_hypotheses_become_an_output_and_its_alternatives():
    """Without the end of sentence; what a closed set has no answer for is left out; all that decoding says is kept."""
    beams = [
        {"tokens": torch.tensor([7, 8, 2]), "score": torch.tensor(-0.5)},
        {"tokens": torch.tensor([9, 2]), "score": torch.tensor(-1.5)},
        {"tokens": torch.tensor([2]), "score": torch.tensor(-float("inf"))},
    ]
    found = make_output(beams, lambda ids: {"text": str(ids), "box": (1.0, 2.0, 3.0, float(ids[0]))}, eos=2)
    other = Output("[9, 2]", -1.5, (9,), box=(1.0, 2.0, 3.0, 9.0))
    assert found == Output("[7, 8, 2]", -0.5, (7, 8), (other,), (1.0, 2.0, 3.0, 7.0))
    assert make_output(beams[:1], lambda ids: {"text": "", "codes": (3,)}, eos=2) == Output("", -0.5, (7, 8), codes=(3,))
