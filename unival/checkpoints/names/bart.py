"""Start training from BART: which of its weights are used, and as what.

BART normalises after each block, adds its positions to the tokens and has neither our norms inside the blocks nor position biases, so
that training is needed.  Used are token embeddings, positions, attention and feed-forward weights, and norms of the same names.
"""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from unival.checkpoints.conversion import Conversion, KeyReport
from unival.checkpoints.names.published import TOKENS
from unival.checkpoints.summary import same_values
from unival.errors import UserError, counted

OFFSET = 2  # BART has position p in row p + 2 (row 1 is padding), our models in row p
POSITIONS_DETAIL = "row p is BART's row p + 2; the last two rows are new (BART has positions up to 1023)"
TOKEN_COPIES = ("decoder.embed_tokens.weight", "decoder.output_projection.weight")
DROPPED: tuple[tuple[str, str], ...] = (
    (r"(encoder|decoder)\.version", "fairseq's version number"),
    (r"classification_heads\..*", "a classifier for a task of BART's"),
    (r"(encoder|decoder)\.embed_positions\._float_tensor", "a marker of fairseq's"),
)
# These keys are the same as BART's.
TAKEN = re.compile(
    r"(encoder|decoder)\.(layernorm_embedding\.(weight|bias)|layers\.\d+\."
    r"((self_attn|encoder_attn)\.[kvq]_proj|(self_attn|encoder_attn)\.out_proj|fc[12]"
    r"|self_attn_layer_norm|encoder_attn_layer_norm|final_layer_norm)\.(weight|bias))"
)
NORMS_NOTE = (
    "norms go by their names: BART's self_attn_layer_norm and final_layer_norm, which follow a block there, precede one here"
)


def is_bart(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has fairseq's BART keys and none that only OFA or we have."""
    return "encoder.layernorm_embedding.weight" in state and not any("c_attn" in key for key in state)


def from_bart(
    state: Mapping[str, Tensor],
    fresh: Mapping[str, Tensor],
    rows: Sequence[tuple[int, int]],
    shown: Mapping[str, str] | None = None,
    drop_unexpected: bool = False,
) -> Conversion:
    """Convert fairseq's BART weights to a whole model of ours.

    Args:
        state: BART's state dict.
        fresh: state dict of our model, freshly initialised, for what BART lacks.
        rows: pairs (our token id, BART's row) of the tokens that both have.
        shown: key -> key in the file, where that differs, for messages.
        drop_unexpected: leave out keys that are not BART's instead of raising an error.

    Raises:
        UserError: sizes differ, keys are unknown, or copies of the token embeddings differ.
    """
    report = KeyReport()
    result = dict(fresh)
    shown = shown or {}
    taken: set[str] = set()
    unknown = [key for key in state if not _is_known(key)]
    if unknown and not drop_unexpected:
        raise UserError(
            f"{counted(len(unknown), 'key')} not of BART: {', '.join(shown.get(key, key) for key in unknown[:8])}"
            f"{' …' if len(unknown) > 8 else ''} (--drop-unexpected leaves them out)"
        )
    _check_sizes(state, fresh)
    other = next((key for key in TOKEN_COPIES if key in state and not same_values(state[key], state[TOKENS])), None)
    if other is not None:
        raise UserError(f"{shown.get(other, other)} and {shown.get(TOKENS, TOKENS)} differ; in this model they are one")
    for key, value in state.items():
        name = shown.get(key, key)
        reason = next((text for pattern, text in DROPPED if re.fullmatch(pattern, key)), None)
        if key in unknown:
            report.add("unexpected", name)
        elif reason or key in TOKEN_COPIES:
            report.add("dropped", name, reason or f"the same as {TOKENS}")
        elif key == TOKENS:
            result.update(dict.fromkeys((TOKENS, TOKEN_COPIES[0]), _token_rows(value, fresh[TOKENS], rows)))
            report.add("reshaped", name, f"{counted(len(rows), 'row')} taken, {len(fresh[TOKENS]) - len(rows)} rows new")
            taken.update((TOKENS, TOKEN_COPIES[0]))
        elif key.endswith(".embed_positions.weight"):
            result[key] = _positions(value, fresh[key])
            report.add("reshaped", name, POSITIONS_DETAIL)
            taken.add(key)
        else:
            result[key] = value.to(fresh[key].dtype)
            report.add("kept" if name == key else "renamed", name, "" if name == key else key)
            taken.add(key)
    for key in fresh:
        if key not in taken:
            report.add("missing", key, "initialised, since BART has nothing like it")
    report.note(NORMS_NOTE)
    return Conversion(result, report)


def token_rows(ours: Sequence[str], theirs: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs (our token id, their row) of equal tokens."""
    row_of = {symbol: row for row, symbol in enumerate(theirs)}
    return [(i, row_of[symbol]) for i, symbol in enumerate(ours) if symbol in row_of]


def published_rows(count: int, mask: int) -> list[tuple[int, int]]:
    """Pairs for a vocabulary in BART's order, with ``<mask>`` at id ``mask``, and a BART of ``count`` rows, the last one ``<mask>``.

    Raises:
        UserError: BART has fewer tokens.
    """
    if count - 1 < mask:
        raise UserError(
            f"the checkpoint has {counted(count, 'token row')}, fewer than the {mask + 1} of the vocabulary up to <mask>: give its"
            " vocabulary with --source-vocab"
        )
    return [*((i, i) for i in range(mask)), (mask, count - 1)]


def _is_known(key: str) -> bool:
    positions = ("encoder.embed_positions.weight", "decoder.embed_positions.weight")
    if key == TOKENS or key in TOKEN_COPIES or key in positions:
        return True
    return bool(TAKEN.fullmatch(key)) or any(re.fullmatch(pattern, key) for pattern, _ in DROPPED)


def _check_sizes(state: Mapping[str, Tensor], fresh: Mapping[str, Tensor]) -> None:
    needed = [key for key in fresh if TAKEN.fullmatch(key)]
    needed += [TOKENS, "encoder.embed_positions.weight", "decoder.embed_positions.weight"]
    absent = [key for key in needed if key not in state]
    beyond = [key for key in state if TAKEN.fullmatch(key) and key not in fresh]
    if absent or beyond:
        what = f"lacks {absent[0]}" if absent else f"has {beyond[0]}, which the model has not"
        raise UserError(f"the checkpoint {what} ({counted(len(absent) + len(beyond), 'key')}): --arch must have its number of layers")
    for key in needed:
        ours, theirs = fresh[key].shape, state[key].shape
        same = ours[1:] == theirs[1:] if key == TOKENS or "positions" in key else ours == theirs
        if not same:
            raise UserError(f"{key} is {tuple(theirs)}, the model's is {tuple(ours)}: choose --arch as wide as the checkpoint")


def _token_rows(source: Tensor, fresh: Tensor, rows: Sequence[tuple[int, int]]) -> Tensor:
    last = max((row for _, row in rows), default=-1)
    if last >= len(source):
        raise UserError(f"the checkpoint has {counted(len(source), 'token row')}; its vocabulary has at least {last + 1} tokens")
    table = fresh.clone()
    ours, theirs = torch.tensor(rows, dtype=torch.long).reshape(-1, 2).unbind(1)
    table[ours] = source[theirs].to(table.dtype)
    return table


def _positions(source: Tensor, fresh: Tensor) -> Tensor:
    table = fresh.clone()
    count = min(len(source) - OFFSET, len(table))
    table[:count] = source[OFFSET : OFFSET + count].to(table.dtype)
    return table
