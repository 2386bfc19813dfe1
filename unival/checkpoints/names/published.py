"""Checkpoint keys of published UnIVAL (and OFA) checkpoints, renamed to ours and back."""

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from unival.checkpoints.backbones import MEDIA_PREFIX, networks
from unival.checkpoints.conversion import Conversion, KeyReport
from unival.checkpoints.published_options import model_options, published_media, task_options
from unival.checkpoints.shapes import media_in, media_of_weights
from unival.checkpoints.summary import same_values
from unival.errors import UserError

__all__ = ["from_published", "is_published", "model_options", "rename_published", "task_options", "to_published"]

# What --qk-norm of the published code adds to every attention: a norm of the inputs, and one that is never applied.
INPUT_NORM = (".q_norm.", ".input_norm.")  # published, ours
UNUSED_NORM = ".k_norm."

# Tied to encoder.embed_tokens.weight; some checkpoints hold only one of the three.
TOKENS = "encoder.embed_tokens.weight"
TIED = ("decoder.embed_tokens.weight", "decoder.output_projection.weight")

STFT = "encoder.embed_audios.spectrogram_extractor.stft."
MEL = "encoder.embed_audios.logmel_extractor.melW"
CLASSIFIER_REASON = "a classifier that the model does not use"
FOURIER_REASON = "Fourier kernels, which follow from the window size"
# Published keys without information, as (pattern, reason)
DROPPED: tuple[tuple[str, str], ...] = (
    (r"(encoder|decoder)\.version", "fairseq's version number"),
    (r"(encoder|decoder)\.(token|image)_rp_bucket", "position buckets, rebuilt from their formulas"),
    (r"decoder\.image_position_idx", "position buckets, rebuilt from their formulas"),
    (r"encoder\.embed_(images|videos|audios)\..*num_batches_tracked", "counters that nothing reads"),
    (r"encoder\.embed_images\.fc\.(weight|bias)", CLASSIFIER_REASON),
    (r"encoder\.embed_audios\.(fc1|fc_audioset)\.(weight|bias)", CLASSIFIER_REASON),  # of CNN6
    (r"(encoder|decoder)\.layers\.\d+\.\w+\.k_norm\.(weight|bias)", "a norm that the published code never applies"),
    (re.escape(STFT) + r"conv_(real|imag)\.weight", FOURIER_REASON),
)
TIED_REASON = "the same as encoder.embed_tokens.weight"
CLASSES = 1000  # classes of the unused image classifier
AUDIO_CLASSES = 527  # classes of the unused audio classifier of the published CNN6
KERNEL_TOLERANCE = 1e-3  # for Fourier kernels, which are between -1 and 1; half precision rounds by up to 2.5e-4


def prefixes() -> dict[str, str]:
    """Prefixes of keys of media: published -> ours."""
    found: dict[str, str] = {}
    for name in published_media():
        network, ours = networks()[name], f"{MEDIA_PREFIX}{name}."
        found |= {f"encoder.embed_{name}s.{old}": f"{ours}backbone.{new}" for old, new in network.renamed.items()}
        found |= {
            f"encoder.embed_{name}s.": f"{ours}backbone.",
            f"encoder.{name}_proj.": f"{ours}proj.",
            f"encoder.layernorm_{name}_embedding.": f"{ours}norm.",
            f"encoder.embed_{name}_positions.": f"{ours}positions.",
        }
    return found


def is_published(state_dict: Mapping[str, Any]) -> bool:
    """Whether a state dict has the published keys (of UnIVAL or OFA)."""
    marks = ("encoder.embed_images.", "encoder.embed_image_positions.", "encoder.version", "decoder.output_projection.")
    return any(key.startswith(marks) for key in state_dict) and any(".layers." in key for key in state_dict)


def rename_published(state_dict: dict[str, Tensor]) -> None:
    """Rename published keys to ours, in place; unknown keys stay, and the loader reports them."""
    _fill_tokens(state_dict)
    for key in list(state_dict):
        new = our_name(key)
        if new is None:
            del state_dict[key]
        elif new != key:
            state_dict[new] = state_dict.pop(key)
    for key in unused_norms(state_dict):
        del state_dict[key]


def our_name(key: str) -> str | None:
    """Our key for a published one; None for keys without information."""
    if key == TIED[1] or drop_reason(key):
        return None
    for old, new in prefixes().items():
        if key.startswith(old):
            return new + key[len(old) :]
    return key.replace(*INPUT_NORM)


def unused_norms(keys: Collection[str]) -> list[str]:
    """Keys (ours) of norms for media that the model lacks; published options choose norms independently of the media."""
    media = media_in(keys)
    return [key for key in keys if (found := re.fullmatch(r"encoder\.media\.(\w+)\.norm\.\w+", key)) and found[1] not in media]


def drop_reason(key: str) -> str | None:
    """The reason why a published key is not needed; None if it is needed."""
    return next((reason for pattern, reason in DROPPED if re.fullmatch(pattern, key)), None)


def from_published(state: Mapping[str, Tensor], fourier: Mapping[str, Tensor] | None = None) -> Conversion:
    """Convert published weights to our keys; the tensors are not copied.

    Args:
        state: the published state dict.
        fourier: Fourier kernels to compare those of the file with (see :func:`to_published`).
    """
    report = KeyReport()
    result: dict[str, Tensor] = {}
    whole, strange = dict(state), []
    for key in _fill_tokens(whole):
        report.add("missing", key, "tied token embeddings, from the copy that is there")
    names = {key: our_name(key) for key in whole}
    unused = set(unused_norms([new for new in names.values() if new is not None]))
    for key, value in whole.items():
        new = names[key]
        if new is None:
            report.add("dropped", key, drop_reason(key) or TIED_REASON)
            if fourier is not None and key in fourier and not _equal(value, fourier[key], KERNEL_TOLERANCE):
                strange.append(key)
        elif new in unused:
            report.add("dropped", key, "the norm of a modality that the checkpoint lacks")
        else:
            result[new] = value
            if key in state:
                report.add("kept" if new == key else "renamed", key, "" if new == key else new)
    if strange:
        report.note(f"not what the formula gives: {', '.join(strange)}; spectrograms are computed by the formula")
    return Conversion(result, report)


def to_published(state: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> Conversion:
    """Convert our weights to published keys, and add what only the published model has.

    Args:
        state: our state dict, with tied embeddings.
        buffers: published key -> buffer that follows from a formula: position buckets, ``image_position_idx``, ``version`` and
            the Fourier kernels of spectrograms.
    """
    report = KeyReport()
    result: dict[str, Tensor] = {}
    back = {new: old for old, new in prefixes().items()}
    for key, value in state.items():
        if key.startswith("encoder.media."):
            prefix = max((new for new in back if key.startswith(new)), key=len, default=None)
            if prefix is None:
                raise UserError(f"{key} has no place in the published format")
            name = back[prefix] + key[len(prefix) :]
        elif INPUT_NORM[0] in key or UNUSED_NORM in key:
            raise UserError(f"{key} is of --qk-norm, which the published code computes otherwise: it has only --attention-input-norm")
        else:
            name = key.replace(*INPUT_NORM[::-1])
        result[name] = value
        report.add("kept" if name == key else "renamed", key, "" if name == key else name)
    for key in TIED:
        if key not in result:
            report.add("missing", key, TIED_REASON)
        result[key] = result[TOKENS]
    for key in [key for key in result if INPUT_NORM[0] in key]:
        value = torch.ones_like(result[key]) if key.endswith("weight") else torch.zeros_like(result[key])
        result[key.replace(INPUT_NORM[0], UNUSED_NORM)] = value
        report.add("missing", key.replace(INPUT_NORM[0], UNUSED_NORM), "a norm that the published code never applies")
    made = {key: value for key, value in buffers.items() if not key.startswith(STFT) or MEL in result}
    for key in [key for key in result if key.endswith(".running_var")]:
        made[key.removesuffix("running_var") + "num_batches_tracked"] = torch.tensor(0)
    for key, value in made.items():
        result[key] = value
        report.add("missing", key, drop_reason(key) or "from its formula")
    for key, value in _classifiers(result).items():
        result[key] = value
        report.add("missing", key, f"zeros: {CLASSIFIER_REASON}")
    return Conversion(result, report)


def _classifiers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Zeros for the unused classifiers of the published networks: of a whole ResNet, and of CNN6."""
    layers: dict[str, tuple[int, int]] = {}
    if any(key.startswith("encoder.embed_images.layer4.") for key in state):
        layers["encoder.embed_images.fc"] = (CLASSES, state["encoder.image_proj.weight"].size(1))
    if "encoder.embed_audios.conv_block1.conv1.weight" in state and "encoder.embed_audios.conv_block1.conv2.weight" not in state:
        width = state["encoder.audio_proj.weight"].size(1)
        layers.update({"encoder.embed_audios.fc1": (width, width), "encoder.embed_audios.fc_audioset": (AUDIO_CLASSES, width)})
    dtype = state[TOKENS].dtype
    found: dict[str, Tensor] = {}
    for name, shape in layers.items():
        found.update({f"{name}.weight": torch.zeros(shape, dtype=dtype), f"{name}.bias": torch.zeros(shape[0], dtype=dtype)})
    return found


def without_media(conversion: Conversion, names: tuple[str, ...]) -> Conversion:
    """Leave media out of a conversion to our layout, and record it in the report.

    Raises:
        UserError: the checkpoint lacks one of them.
    """
    found = media_of_weights(conversion.state)
    for name in names:
        if name not in found:
            raise UserError(f"--without {name}: the checkpoint has {', '.join(sorted(found)) or 'no media'}")
    gone = tuple(f"encoder.media.{name}." for name in names)
    report = KeyReport(notes=list(conversion.report.notes))
    for kind, key, detail in conversion.report.entries:
        left_out = kind in ("kept", "renamed") and (detail or key).startswith(gone)
        report.add("dropped" if left_out else kind, key, f"--without {','.join(names)}" if left_out else detail)
    return Conversion({k: v for k, v in conversion.state.items() if not k.startswith(gone)}, report)


def _fill_tokens(state: dict[str, Tensor]) -> list[str]:
    """Add the missing ones of our two keys of the tied token embeddings; returns the added keys.

    Raises:
        UserError: the copies differ.
    """
    copies = [state[name] for name in (TOKENS, *TIED) if name in state]
    for copy in copies[1:]:
        same = copy.data_ptr() == copies[0].data_ptr() or copy.is_meta or same_values(copy, copies[0])
        if not same:
            raise UserError(f"{TOKENS}, {TIED[0]} and {TIED[1]} differ; in this model they are one")
    added = [name for name in (TOKENS, TIED[0]) if name not in state and copies]
    state.update(dict.fromkeys(added, copies[0]) if added else {})
    return added


def _equal(given: Tensor, expected: Tensor, tolerance: float) -> bool:
    return given.shape == expected.shape and bool((given.float() - expected).abs().max() <= tolerance)
