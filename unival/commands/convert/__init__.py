"""`unival convert`: checkpoints of others into ours, and ours into the published format or safetensors.

Every key of the input is accounted for: the summary counts what was renamed, reshaped, dropped and made, ``--verbose`` and ``--report``
name each one.  The result is compared key by key with the model that its configuration builds before anything is written.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from unival.checkpoints import files, published_options
from unival.checkpoints.conversion import Conversion, KeyReport
from unival.checkpoints.names import bart, hf_bart, hf_ofa, ofa, published
from unival.checkpoints.precision import cast
from unival.checkpoints.published_container import published_cfg
from unival.checkpoints.shapes import options_from_weights
from unival.checkpoints.summary import non_finite
from unival.commands.convert.arguments import BART_DEFAULTS, MEDIA, OWN_BACKBONE_FILES, check_arguments, check_kind
from unival.criterions.label_smoothed import LabelSmoothedConfig
from unival.errors import UserError
from unival.modalities.base import MediaOptions
from unival.models.config import UnivalConfig, saved_config
from unival.models.published_buffers import published_buffers, published_kernels
from unival.models.unival import SIZES, UnivalModel
from unival.tasks.config import UnivalTaskConfig
from unival.tasks.inputs import given_media_options
from unival.tasks.presets import CAPTION
from unival.tasks.restore import trained_media
from unival.vocab import NUM_BINS, NUM_CODES, Vocabulary

SOURCES = ("unival", "ofa", "bart", "hf-bart", "hf-ofa")
FP16, FP32 = torch.float16, torch.float32
VIDEO_OPTIONS = ("patch_frame_size", "num_frames", "sample_type", "frame_fit", "use_dataaug")
VOCABULARY_SIZES = {"num_codes": NUM_CODES, "num_bins": NUM_BINS}  # of the published vocabulary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("inputs", nargs="+", metavar="IN", help="the checkpoint; several files are the shards of one")
    add("output", metavar="OUT", help="file to write; the suffix .safetensors chooses that format")
    add("--from", dest="source", default="unival", choices=SOURCES, help="what IN is (default: %(default)s, published or ours)")
    add("--to", default="unival", choices=("unival", "published"), help="key names of OUT (default: %(default)s)")
    add("--ema", action="store_true", help="take the moving average of the weights that IN keeps")
    dtype = parser.add_mutually_exclusive_group()
    dtype.add_argument("--half", action="store_true", help="write float16")
    dtype.add_argument("--float", action="store_true", help="write float32")
    add("--without", default="", metavar="MEDIA", help="leave media out, e.g. audio,video")
    add("--drop-unexpected", action="store_true", help="leave keys out that are unknown here instead of refusing them")
    add("--vocab-dir", metavar="DIR", help="put this vocabulary into OUT, so that it can be used without DIR")
    add("--num-codes", type=int, help="image codes in the vocabulary (default: those of IN, for BART 8192)")
    add("--num-bins", type=int, help="location bins in the vocabulary (default: those of IN, for BART 1000)")
    add("--arch", choices=sorted(SIZES), help="BART only: the model that OUT is (default: by BART's width)")
    add("--modalities", metavar="MEDIA", help=f"BART only: media that OUT takes (default: {BART_DEFAULTS['modalities']})")
    add("--source-vocab", metavar="DIR", help="BART only: its vocabulary, if --vocab-dir is another than the published one")
    add("--seed", type=int, help=f"BART only: of what is initialised (default: {BART_DEFAULTS['seed']})")
    for name in MEDIA:
        add(f"--{name}-backbone-weights", metavar="FILE", help=f"BART only: file with weights of the {name} CNN to start from")
    add("--report", metavar="FILE", help="write what became of every key as JSON")
    add("--verbose", action="store_true", help="print what became of every key")
    add("--force", action="store_true", help="overwrite OUT")


@dataclass
class Source:
    """What was read: weights in our layout with their report, and options of ours."""

    conversion: Conversion
    model: dict[str, Any]
    task: dict[str, Any]
    task_state: dict[str, Any]
    cfg: Mapping[str, Any] | None = None  # the container's, when it is a published one


def run(args: argparse.Namespace) -> int:
    """Convert and write; returns the exit code."""
    output = pathlib.Path(args.output)
    if output.exists() and not args.force:
        raise UserError(f"{output} exists; --force overwrites it")
    if any(output.resolve() == pathlib.Path(name).resolve() for name in args.inputs):
        raise UserError(f"{output} is the input itself; give another file")
    check_arguments(args)
    container, state = _read(args)
    check_kind(args, container, state)
    source = _from_bart(args, container, state) if "bart" in args.source else _from_unival(args, container, state)
    source.task.update(source.task_state.get("media", {}))  # as training took them over from the checkpoint it started from
    source.task["instruction"] = source.task_state.get("instruction") or source.task["instruction"]
    report = source.conversion.report
    _note_what_stays(args, container, report)
    checked = _checked(args, source)
    if broken := non_finite(checked):
        report.note(f"{len(broken)} keys hold values that are infinite or not a number in IN already, the first is {next(iter(broken))}")
    try:
        weights = cast(checked, FP16 if args.half else FP32 if args.float else None)
    except UserError as error:
        raise UserError(f"{args.inputs[0]}: {error}") from error
    source.task_state = _task_state(args, source, len(weights[published.TOKENS]))
    if args.to == "published":
        back = published.to_published(weights, published_buffers(source.model))
        weights = cast(back.state, FP16 if args.half else None)
        report.then(back.report)
        cfg = _published_cfg(source)
        if source.task_state:
            report.note("the published format keeps no vocabulary: it has to come from --vocab-dir where OUT is used")
    else:
        cfg = own_cfg(source.model, source.task)
    files.write(output, _container(args, cfg, weights, {} if args.to == "published" else source.task_state))
    _tell(args, report)
    return 0


def _note_what_stays(args: argparse.Namespace, container: Mapping[str, Any], report: KeyReport) -> None:
    """Say what the input holds besides weights and options that the output will not."""
    extra = container.get("extra_state")
    if isinstance(extra, Mapping) and extra.get("ema") and not args.ema:
        report.note("left out: the moving average of the weights (--ema takes it instead of the weights)")
    if container.get("last_optimizer_state") is not None:
        report.note("left out: the optimizer's state and the history of the training")


# --- reading ----------------------------------------------------------------------------------------------------------------------


def _read(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The first input's container, and the weights of all."""
    containers = [files.read(name) for name in args.inputs]
    for name in args.inputs:
        files.check_sums(name)
    state: dict[str, Tensor] = {}
    for name, container in zip(args.inputs, containers, strict=True):
        part = files.ema_weights(container, name) if args.ema else files.weights(container, name)
        twice = next((key for key in part if key in state), None)
        if twice is not None:
            raise UserError(f"{name}: {twice} is in an earlier input, too; several inputs are the shards of one checkpoint")
        state.update(part)
    return containers[0], state


def _from_unival(args: argparse.Namespace, container: Mapping[str, Any], state: Mapping[str, Tensor]) -> Source:
    """UnIVAL's, OFA's and our own checkpoints."""
    is_own = False
    if args.source == "hf-ofa":
        if not hf_ofa.is_hf_ofa(state):
            raise UserError(f"{args.inputs[0]}: has not the key names of Hugging Face's OFA (decoder.layers.0.cross_attn.…)")
        conversion = hf_ofa.from_hf_ofa(state)
    elif args.source == "ofa":
        conversion = ofa.from_ofa(state)
    elif published.is_published(state):
        real = f"{published.STFT}conv_real.weight"
        conversion = published.from_published(state, published_kernels(state[real].size(-1)) if real in state else None)
    else:
        is_own = True
        conversion = Conversion(dict(state), KeyReport([("kept", key, "") for key in state]))
    without = tuple(name.strip() for name in args.without.split(",") if name.strip())
    if without:
        conversion = published.without_media(conversion, without)
    cfg = container.get("cfg") or {}
    given_model, given_task = cfg.get("model") or container.get("args"), cfg.get("task") or container.get("args")
    model, task = asdict(UnivalConfig()), {**_task_defaults(), "_name": "unival"}
    if given_model is not None:
        model.update(_known(given_model, model) if is_own else published_options.model_options(given_model))
    else:
        conversion.report.note("the file says nothing of its options: sizes are read off the weights, the rest are defaults")
    if given_task is not None:
        saved = _known(given_task, task) if is_own else published_options.task_options(given_task)
        task.update({"image_fit": trained_media(saved).image_fit, **saved})  # a checkpoint from before it read images as published
    model.update(options_from_weights(conversion.state), **dict.fromkeys(OWN_BACKBONE_FILES))
    model.update(new_modalities="", inflate_video_backbone=False, _name="unival")
    task_state = dict(container.get("task_state") or {}) if is_own else {}
    task.update({key: task_state[key] for key in VOCABULARY_SIZES if key in task_state})
    return Source(conversion, model, task, task_state, None if is_own or not cfg else cfg)


def _known(given: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What our own checkpoint says of the fields there are."""
    found = vars(given) if isinstance(given, argparse.Namespace) else dict(given)
    return {key: value for key, value in found.items() if key in fields}


def _task_defaults() -> dict[str, Any]:
    defaults = OmegaConf.to_container(OmegaConf.structured(UnivalTaskConfig()), enum_to_str=True)
    assert isinstance(defaults, dict)
    return {str(key): value for key, value in {**defaults, **VOCABULARY_SIZES, "data": "", "_name": "unival"}.items()}


def _from_bart(args: argparse.Namespace, container: Mapping[str, Any], state: dict[str, Tensor]) -> Source:
    """BART's, in fairseq's or Hugging Face's names: a fresh model, with what BART has put in."""
    report = KeyReport()
    shown: dict[str, str] = {}
    if args.source == "hf-bart":
        if not hf_bart.is_hf_bart(state):
            raise UserError(f"{args.inputs[0]}: has not the key names of Hugging Face's BART (model.shared.weight, …)")
        state, shown = hf_bart.to_fairseq(state, report)
    elif not bart.is_bart(state):
        hint = " (it is Hugging Face's: --from hf-bart)" if hf_bart.is_hf_bart(state) else ""
        raise UserError(f"{args.inputs[0]}: has not the key names of fairseq's BART{hint}")
    if bart.TOKENS not in state:
        raise UserError(f"{args.inputs[0]}: has no {bart.TOKENS}")
    if args.without:
        raise UserError("--without is for checkpoints that have media; with BART, --modalities says what OUT takes")
    count, width = state[bart.TOKENS].shape
    arch = args.arch or next((name for name, s in SIZES.items() if {**asdict(UnivalConfig()), **s}["encoder_embed_dim"] == width), None)
    if arch is None:
        raise UserError(f"{args.inputs[0]}: is {width} wide; no --arch is ({', '.join(SIZES)})")
    task = _task_defaults()
    task.update({key: value for key in ("num_codes", "num_bins") if (value := getattr(args, key)) is not None})
    model = {**asdict(UnivalConfig()), **SIZES[arch], "modalities": args.modalities, "_name": "unival"}
    symbols, rows = _bart_vocabulary(args, count, task)
    built = build(model | {key: getattr(args, key) for key in OWN_BACKBONE_FILES}, symbols, args.seed)
    conversion = bart.from_bart(state, built.state_dict(), rows, shown, args.drop_unexpected)
    conversion.report.entries += report.entries
    conversion.report.note(f"--arch {arch}, {symbols} symbols of which {len(rows)} are BART's")
    return Source(conversion, model, task, {})


def _bart_vocabulary(args: argparse.Namespace, count: int, task: Mapping[str, Any]) -> tuple[int, list[tuple[int, int]]]:
    """Number of symbols of the model to be, and which of BART's ``count`` token rows are theirs."""
    mask = 50264  # in the published vocabulary
    if args.vocab_dir is None:
        if args.source_vocab is not None:
            raise UserError("--source-vocab is for another vocabulary than the published one: give that as --vocab-dir")
        return mask + 1 + task["num_codes"] + task["num_bins"], bart.published_rows(count, mask)
    ours = Vocabulary.load(args.vocab_dir, task["num_codes"], task["num_bins"])
    if args.source_vocab is not None:
        theirs = Vocabulary.load(args.source_vocab, 0, 0)
        if len(theirs) > count:
            raise UserError(f"--source-vocab {args.source_vocab} has {len(theirs)} symbols, the checkpoint {count} token rows")
        names = _token_names(theirs)
        names[-1:] = [f"a row without token {i}" for i in range(count - len(theirs))] + ["<mask>"]
        return len(ours), bart.token_rows(_token_names(ours), names)
    if ours.mask != mask:
        raise UserError(
            f"--vocab-dir {args.vocab_dir} has {ours.mask} tokens before <mask>, BART's vocabulary {mask}: give BART's as --source-vocab"
        )
    return len(ours), bart.published_rows(count, mask)


def _token_names(vocabulary: Vocabulary) -> list[str]:
    """What each id stands for, as the same words in any vocabulary: tokens by their text, the rest by its symbol."""
    encoder = json.loads(vocabulary.files()["encoder.json"])
    token_of = {str(number): token for token, number in encoder.items()}
    return [f"token {token_of[symbol]}" if symbol in token_of else symbol for symbol in vocabulary.dictionary.symbols]


# --- the model ----------------------------------------------------------------------------------------------------------------------


def build(options: Mapping[str, Any], symbols: int, seed: int, device: str = "cpu") -> UnivalModel:
    """The model of a whole ``UnivalConfig``, initialised from ``seed``, over a vocabulary of ``symbols``."""
    from fairseq.data import Dictionary

    dictionary = Dictionary()
    for i in range(len(dictionary), symbols):
        dictionary.add_symbol(f"symbol {i}")
    cfg = saved_config(options)
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        model = UnivalModel.build_model(cfg, SimpleNamespace(source_dictionary=dictionary))
    if device != "meta":
        model.load_backbones()
    return model


def _checked(args: argparse.Namespace, source: Source) -> dict[str, Tensor]:
    """The weights, which fit the model of their configuration exactly.

    Raises:
        UserError: keys are missing, unknown or of another shape; the first eight are named.
    """
    state = source.conversion.state
    shapes = {k: tuple(v.shape) for k, v in build(source.model, len(state[published.TOKENS]), 0, "meta").state_dict().items()}
    unknown = [key for key in state if key not in shapes]
    problems = [f"missing {key}" for key in shapes if key not in state]
    problems += [f"unknown {key}" for key in unknown if not args.drop_unexpected]
    problems += [f"{k} is {tuple(v.shape)}, not {shapes[k]}" for k, v in state.items() if shapes.get(k, v.shape) != tuple(v.shape)]
    if problems:
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        only_unknown = len(problems) == len(unknown) and not args.drop_unexpected
        hint = " (--drop-unexpected leaves unknown keys out)" if only_unknown else ""
        raise UserError(
            f"{args.inputs[0]}: does not fit the model of its options ({len(problems)} keys): {'; '.join(problems[:8])}{more}{hint}"
        )
    report = source.conversion.report
    report.entries = [("unexpected", k, d) if (d or k) in unknown and e in ("kept", "renamed") else (e, k, d) for e, k, d in report.entries]
    return {key: state[key] for key in shapes}


# --- writing ------------------------------------------------------------------------------------------------------------------------


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


def _published_cfg(source: Source) -> dict[str, Any]:
    """A published container's own ``cfg`` without the media that were left out, or one made from our options."""
    media = source.model["modalities"].split(",")
    if source.cfg is not None and isinstance(source.cfg.get("model"), argparse.Namespace):
        model = argparse.Namespace(**vars(source.cfg["model"]))
        for name in ("video", "audio"):
            if name not in media:
                setattr(model, f"{name}_encoder_name", None)
                setattr(model, f"layernorm_{name}_embedding", False)
        return {**source.cfg, "model": model}
    namespace = published_options.published_model(source.model, source.model["image_backbone_stages"] == 4)
    media = vars(given_media_options(source.task, MediaOptions()))
    task = published_options.published_task({**source.task, **media})
    _note_what_is_lost(source, namespace, task)
    return published_cfg(own_cfg(source.model, source.task), namespace, task)


def _note_what_is_lost(source: Source, model: argparse.Namespace, task: Mapping[str, Any]) -> None:
    """Say which options the published format has no place for: they come back from it as defaults."""
    back = {**asdict(UnivalConfig()), **published_options.model_options(model)}
    back.update({**_task_defaults(), **published_options.task_options(task)})
    given = {**source.model, **{name: source.task.get(name) for name in ("instruction", *vars(MediaOptions()))}}
    absent = tuple(name for name in MEDIA if name not in source.model["modalities"].split(","))
    absent += VIDEO_OPTIONS if "video" in absent else ()
    if back["instruction"] is None and task["_name"] == "caption":
        back["instruction"] = CAPTION
    lost = {name: value for name, value in given.items() if value is not None and value != back.get(name) and not name.startswith(absent)}
    if lost:
        shown = ", ".join(f"--{name.replace('_', '-')} {value}" for name, value in lost.items() if name != "_name")
        source.conversion.report.note(f"the published format has no place for {shown}")


def _task_state(args: argparse.Namespace, source: Source, symbols: int) -> dict[str, Any]:
    """What the task keeps: the vocabulary of --vocab-dir, else that of IN."""
    for key in ("num_codes", "num_bins"):
        given, known = getattr(args, key), source.task_state.get(key, source.task[key])
        if given is None:
            continue
        if source.task_state.get("vocabulary_files") and given != known:
            raise UserError(f"--{key.replace('_', '-')} {given}: the vocabulary kept in {args.inputs[0]} has {known}; leave it out")
        source.task[key] = given
    codes, bins = source.task["num_codes"], source.task["num_bins"]
    if args.vocab_dir is None:
        return source.task_state
    vocabulary = Vocabulary.load(args.vocab_dir, codes, bins)
    if len(vocabulary) != symbols:
        raise UserError(
            f"--vocab-dir {args.vocab_dir} with {codes} codes and {bins} bins has {len(vocabulary)} symbols, the checkpoint {symbols}"
        )
    kept = source.task_state.get("vocabulary")
    if kept not in (None, vocabulary.fingerprint):
        raise UserError(f"--vocab-dir {args.vocab_dir} is another vocabulary than the one in {args.inputs[0]}; leave it out")
    own = {"num_codes": codes, "num_bins": bins, "vocabulary": vocabulary.fingerprint}
    return {**source.task_state, **own, "vocabulary_files": vocabulary.files()}


def _container(args: argparse.Namespace, cfg: Mapping[str, Any], state: Mapping[str, Tensor], task_state: Any) -> dict[str, Any]:
    """What fairseq reads: a checkpoint before its first update, without optimizer."""
    iterator = {"version": 2, "epoch": 1, "iterations_in_epoch": 0, "shuffle": True}
    more: dict[str, Any] = {"metrics": {"default": [], "train": []}, "val_loss": None} if args.to == "published" else {}
    history = {"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {"best": None}, "num_updates": 0}
    made_from = {"format": args.source, "files": [pathlib.Path(name).name for name in args.inputs], "ema": args.ema}
    return {
        "args": None,
        "cfg": cfg,
        "model": dict(state),
        "criterion": None,
        "optimizer_history": [history],
        "task_state": task_state,
        "extra_state": {"train_iterator": iterator, "previous_training_time": 0.0, "converted_from": made_from, **more},
        "last_optimizer_state": None,
    }


def _tell(args: argparse.Namespace, report: KeyReport) -> None:
    if args.report:
        text = json.dumps({"inputs": args.inputs, "output": args.output, **report.as_dict()}, indent=1)
        pathlib.Path(args.report).write_text(text, encoding="utf-8")
    sys.stdout.write(f"{args.output}: {args.to}, from {args.source} {', '.join(args.inputs)}\n{report.text(args.verbose)}\n")
