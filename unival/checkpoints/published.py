"""Key names of the published UnIVAL checkpoints and ours, both ways."""

from torch import Tensor

# published prefix -> ours
PREFIXES: dict[str, str] = {
    "encoder.embed_images.": "encoder.media.image.backbone.",
    "encoder.image_proj.": "encoder.media.image.proj.",
    "encoder.embed_image_positions.": "encoder.media.image.positions.",
}

# Published keys that carry nothing: counters, position buckets (rebuilt from their formulas), an unused classifier.
DROPPED_SUFFIXES = (".version", "token_rp_bucket", "image_rp_bucket", "image_position_idx", "num_batches_tracked")
DROPPED_PREFIXES = ("encoder.embed_images.fc.",)

# Tied to encoder.embed_tokens.weight; some checkpoints hold only one of the three.
TIED = ("decoder.embed_tokens.weight", "decoder.output_projection.weight")


def is_published(state_dict: dict[str, Tensor]) -> bool:
    """Whether a state dict has the published key names."""
    return any(
        key.startswith(("encoder.embed_images.", "encoder.version", "decoder.output_projection.")) for key in state_dict
    )


def rename_published(state_dict: dict[str, Tensor]) -> None:
    """Rename published keys to ours, in place; keys that neither table knows stay and are reported by the loader."""
    for key in list(state_dict):
        if key.endswith(DROPPED_SUFFIXES) or key.startswith(DROPPED_PREFIXES) or key == TIED[1]:
            del state_dict[key]
            continue
        for old, new in PREFIXES.items():
            if key.startswith(old):
                state_dict[new + key[len(old) :]] = state_dict.pop(key)
