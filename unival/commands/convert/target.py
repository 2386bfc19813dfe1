"""The output of ``unival convert`` besides weights: options in our configuration or the published one, and the task's state."""

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from omegaconf import OmegaConf

from unival.checkpoints import published_options
from unival.checkpoints.published_container import published_cfg
from unival.commands.convert.source import Source, task_defaults
from unival.criterions.label_smoothed import LabelSmoothedConfig
from unival.errors import UserError, counted, flag
from unival.modalities import MODALITIES
from unival.modalities.composed import MediaOptions, options_in
from unival.modalities.options import declared
from unival.models.config import UnivalConfig
from unival.tasks.presets import CAPTION
from unival.vocab import Vocabulary


def own_cfg(model: Mapping[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    """The ``cfg`` of a checkpoint that ``fairseq-train --user-dir unival`` would have written with these options."""
    from fairseq.dataclass.configs import FairseqConfig

    criterion = {**asdict(LabelSmoothedConfig()), "_name": "unival_label_smoothed"}
    cfg = OmegaConf.structured(FairseqConfig())
    plain = {"model": dict(model), "task": dict(task), "criterion": criterion}
    container = OmegaConf.to_container(cfg, enum_to_str=True)
    assert isinstance(container, dict)
    resolved = OmegaConf.to_container(OmegaConf.create({**container, **plain}), resolve=True)
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def published_cfg_of(source: Source) -> dict[str, Any]:
    """A published container's own ``cfg`` without the media that were left out, or one made from our options."""
    media = source.model["modalities"].split(",")
    if source.cfg is not None and isinstance(source.cfg.get("model"), argparse.Namespace):
        model = argparse.Namespace(**vars(source.cfg["model"]))
        for name, theirs in published_options.published_media().items():
            if name not in media and theirs.default is None:
                setattr(model, theirs.encoder, None)
                setattr(model, f"layernorm_{name}_embedding", False)
        return {**source.cfg, "model": model}
    namespace = published_options.published_model(source.model)
    taken_over = source.task_state.get("media", {})  # from the checkpoint that training started from
    media = {**vars(MediaOptions()), **options_in(source.task), **taken_over}
    task = published_options.published_task({**source.task, **media})
    _note_what_is_lost(source, media, namespace, task)
    return published_cfg(own_cfg(source.model, source.task), namespace, task)


def _note_what_is_lost(source: Source, media: Mapping[str, Any], model: argparse.Namespace, task: Mapping[str, Any]) -> None:
    """Note the options that the published format cannot represent: read back, they have their defaults."""
    back = {**asdict(UnivalConfig()), **published_options.model_options(model)}
    back.update({**task_defaults(), **published_options.task_options(task)})
    given = {**source.model, **{name: source.task.get(name) for name in ("instruction", *vars(MediaOptions()))}}
    kinds = [kind for kind in MODALITIES.values() if kind.media and kind.key not in source.model["modalities"].split(",")]
    absent = {option.name for kind in kinds for option in declared(kind.options)}
    keys = tuple(kind.key for kind in kinds)
    if back["instruction"] is None and task["_name"] == "caption":
        back["instruction"] = CAPTION
    told = {name: value for name, value in given.items() if not (name in absent or name.startswith(keys))}
    lost = {name: value for name, value in told.items() if value is not None and media.get(name, value) != back.get(name)}
    if lost:
        shown = ", ".join(f"{flag(name)} {value}" for name, value in lost.items() if name != "_name")
        source.conversion.report.note(f"the published format has no place for {shown}")


def task_state(args: argparse.Namespace, source: Source, symbols: int) -> dict[str, Any]:
    """The task's state: the vocabulary of ``--vocab-dir``, else that of IN."""
    for key in ("num_codes", "num_bins"):
        given, known = getattr(args, key), source.task_state.get(key, source.task[key])
        if given is None:
            continue
        if source.task_state.get("vocabulary_files") and given != known:
            raise UserError(f"{flag(key)} {given}: the vocabulary kept in {args.inputs[0]} has {known}; leave it out")
        source.task[key] = given
    codes, bins = source.task["num_codes"], source.task["num_bins"]
    if args.vocab_dir is None:
        return source.task_state
    vocabulary = Vocabulary.load(args.vocab_dir, codes, bins)
    if len(vocabulary) != symbols:
        raise UserError(
            f"--vocab-dir {args.vocab_dir} with {codes} codes and {bins} bins has {counted(len(vocabulary), 'token')}, the checkpoint"
            f" {symbols}"
        )
    kept = source.task_state.get("vocabulary")
    if kept not in (None, vocabulary.fingerprint):
        raise UserError(f"--vocab-dir {args.vocab_dir} is another vocabulary than the one in {args.inputs[0]}; leave it out")
    own = {"num_codes": codes, "num_bins": bins, "vocabulary": vocabulary.fingerprint}
    return {**source.task_state, **own, "vocabulary_files": vocabulary.files()}
