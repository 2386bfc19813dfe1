"""Which parameters are trained: named groups of a model's parameters, for ``--trainable`` and ``--freeze``.

Frozen parameters have no gradient and are unknown to the optimizer, so that weight decay does not move them.  A backbone without trained
parameters is in eval mode during training (no batch-norm statistics, dropout or SpecAugment) and runs without gradients; a batch norm whose
scales are frozen keeps its statistics.  Dropout and stochastic depth of frozen transformer layers stay as configured.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from unival.checkpoints.adapters import method_of
from unival.errors import UserError, counted, flag, unknown
from unival.modalities import media_of
from unival.modalities.base import MediaEmbedding
from unival.text import split_names

NORMS = (nn.LayerNorm, nn.GroupNorm, _BatchNorm)
# Groups by the names of their parameters; those of media come from the descriptors of the modalities, see :func:`groups`
SIDES = {
    "embeddings": r"(en|de)coder\.embed_tokens\..*",
    "encoder": r"encoder\.(?!embed_tokens\.|media\.).*",
    "decoder": r"decoder\.(?!embed_tokens\.).*",
}
ACROSS = {
    "positions": r"(en|de)coder\.(media\.\w+\.positions|embed_(image_)?positions|(image_)?pos_ln"
    r"|((self|cross)_)?pos_[qk]_linear|(token|image)_rel_pos_table_list)\..*",
    "self_attention": r"(en|de)coder\.layers\.\d+\.(self_attn|attn_ln).*",
    "cross_attention": r"decoder\.(layers\.\d+\.(encoder_attn|cross_attn_ln)|cross_pos_[qk]_linear).*",
    "feed_forward": r"(en|de)coder\.layers\.\d+\.(?!((self|encoder|cross)_)?attn).*",
    "projections": r"encoder\.media\.\w+\.proj\..*",
    "biases": r".*bias",
}
MEDIA = r"encoder\.media\.{}\.{}.*"


def groups(model: nn.Module) -> dict[str, set[str]]:
    """The groups that ``--trainable`` and ``--freeze`` know, of those parts that a model has.

    Args:
        model: a :class:`unival.models.unival.UnivalModel`.

    Returns:
        Name of the group -> names of its parameters.  Groups may overlap.
    """
    return {**disjoint_groups(model), **_across(model)}


def disjoint_groups(model: nn.Module) -> dict[str, set[str]]:
    """The groups that do not overlap, and have all parameters together: the parts of ``--peft``, both stacks, token embeddings, and the
    parts of every modality."""
    patterns = dict(SIDES)
    for name in model.get_submodule("encoder.media")._modules:
        patterns |= {f"{name}_{part}": MEDIA.format(name, re.escape(f"{path}.")) for part, path in media_of(name).parts.items()}
        patterns[name] = MEDIA.format(name, "")
    found: dict[str, set[str]] = {group: set() for group in ("peft", *patterns)}
    for parameter, _ in model.named_parameters():
        having = [group for group, pattern in patterns.items() if re.fullmatch(pattern, parameter)]
        for group in ["peft"] if method_of(parameter) else having[:1]:
            found[group].add(parameter)
    return _without_empty(found)


def _across(model: nn.Module) -> dict[str, set[str]]:
    names = [name for name, _ in model.named_parameters() if not method_of(name)]
    found = {group: {name for name in names if re.fullmatch(pattern, name)} for group, pattern in ACROSS.items()}
    found["norms"] = {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, NORMS)
        for name, _ in module.named_parameters(recurse=False)
    }
    whole = {name: {p for p in names if re.fullmatch(MEDIA.format(name, ""), p)} for name in model.get_submodule("encoder.media")._modules}
    return _without_empty({**found, **whole})


def _without_empty(found: Mapping[str, set[str]]) -> dict[str, set[str]]:
    return {group: names for group, names in found.items() if names}


def chooses(cfg: Any) -> bool:
    """Whether the options of a model say what is trained."""
    return any(option is not None for option in (cfg.trainable, cfg.freeze, cfg.peft))


def choose_trainable(model: Any) -> None:
    """Freeze what the options of a model do not train.

    Args:
        model: a :class:`unival.models.unival.UnivalModel`; parameters that other options froze stay frozen.

    Raises:
        UserError: a group is unknown, all of a group that ``--trainable`` names is frozen, or nothing is left to train.
    """
    cfg = model.cfg
    if not chooses(cfg):
        return
    known = groups(model)
    wanted, frozen = _chosen("trainable", cfg.trainable, known), _chosen("freeze", cfg.freeze, known)
    if cfg.peft is not None:
        wanted |= known.get("peft", set()) | (known["biases"] if "bitfit" in split_names(cfg.peft) else set())
    trains_all = cfg.trainable is None and cfg.peft is None
    for name, parameter in model.named_parameters():
        if name in frozen or not (trains_all or name in wanted):
            parameter.requires_grad_(False)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for group in split_names(cfg.trainable or ""):
        if not known[group] & trained:
            raise UserError(f"--trainable {group}: another option freezes all of it (--freeze and its like)")
    if not trained:
        raise UserError(f"--freeze {cfg.freeze}: nothing is left to train")
    for media in model.encoder.media.values():
        assert isinstance(media, MediaEmbedding)
        media.keep_untrained()


def trained_keys(model: Any) -> set[str]:
    """The keys of a model's state that training changes: trained parameters, and the statistics of batch norms."""
    keys = {key for key, value in model.state_dict(keep_vars=True).items() if value.requires_grad}
    for name, media in model.encoder.media.items():
        norms = [(path, module) for path, module in media.named_modules() if isinstance(module, _BatchNorm)]
        moving = [(path, module) for path, module in norms if not media.keeps(module)]
        keys |= {f"encoder.media.{name}.{path}.{buffer}" for path, module in moving for buffer, _ in module.named_buffers()}
    return keys


def _chosen(option: str, value: str | None, known: Mapping[str, set[str]]) -> set[str]:
    chosen: set[str] = set()
    if value is not None and not split_names(value):
        raise UserError(f"{flag(option)} {value!r} names no group; choose from {', '.join(known)}")
    for group in split_names(value or ""):
        if group not in known:
            raise UserError(unknown(flag(option), group, known, "this model has"))
        chosen |= known[group]
    return chosen


def said_of_trained(model: nn.Module) -> str:
    """How many parameters are trained, as a line to log: of all, and by disjoint group."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    by_group = {group: sum(sizes[name] for name in names & trained) for group, names in disjoint_groups(model).items()}
    parts = ", ".join(f"{group} {count:,}" for group, count in by_group.items() if count)
    count, total = sum(sizes[name] for name in trained), sum(sizes.values())
    return f"training {count:,} of {counted(total, 'parameter')} ({parts}); {total - count:,} are frozen"
