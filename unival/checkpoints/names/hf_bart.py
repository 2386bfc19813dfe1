"""Checkpoint keys of BART in Hugging Face's library (``facebook/bart-base``, ``bart-large``): with or without the prefix ``model.``."""

from collections.abc import Mapping

from torch import Tensor

from unival.checkpoints.conversion import KeyReport
from unival.checkpoints.names.published import TOKENS
from unival.checkpoints.summary import same_values
from unival.errors import UserError

COPIES = ("shared.weight", TOKENS, "decoder.embed_tokens.weight", "lm_head.weight")  # tied: one of them is enough
BIAS = "final_logits_bias"


def is_hf_bart(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has these keys."""
    bare = {key.removeprefix("model.") for key in state}
    return "shared.weight" in bare or ("encoder.layernorm_embedding.weight" in bare and "lm_head.weight" in bare)


def to_fairseq(state: Mapping[str, Tensor], report: KeyReport) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Rename Hugging Face's BART to fairseq's keys; also returns key -> key in the file.

    Keys that fairseq's BART lacks are recorded in ``report``.

    Raises:
        UserError: token embeddings are missing, their copies differ, or there is a bias of the output, which our models lack.
    """
    result: dict[str, Tensor] = {}
    shown: dict[str, str] = {}
    for key, value in state.items():
        bare = key.removeprefix("model.")
        if bare == BIAS:
            if bool(value.count_nonzero()):
                raise UserError(f"{key} is not zero: our models have no bias on the output")
            report.add("dropped", key, "a bias on the output, all zeros")
        elif bare in COPIES and TOKENS in result:
            if not same_values(value, result[TOKENS]):
                raise UserError(f"{key} and {shown[TOKENS]} differ; in this model they are one")
            report.add("dropped", key, f"the same as {shown[TOKENS]}")
        else:
            name = TOKENS if bare in COPIES else bare
            result[name] = value
            shown[name] = key
    if TOKENS not in result:
        raise UserError(f"the checkpoint has no token embeddings ({', '.join(COPIES)}): it is not a BART model")
    return result, shown
