"""Read the input of ``unival convert``: weights under our keys, and our options that fit them."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor

from unival.checkpoints import files, published_options
from unival.checkpoints.backbones import networks
from unival.checkpoints.conversion import Conversion, KeyReport
from unival.checkpoints.convert import is_own, join_shards, to_ours
from unival.checkpoints.names import bart, hf_bart, published
from unival.checkpoints.shapes import options_from_weights
from unival.errors import UserError, counted
from unival.modalities.composed import options_in
from unival.models.build import build_model
from unival.models.config import UnivalConfig
from unival.models.published_buffers import published_kernels
from unival.models.unival import SIZES
from unival.tasks.config import UnivalTaskConfig
from unival.vocab import NUM_BINS, NUM_CODES, Vocabulary

OWN_BACKBONE_FILES = {name: network.weights for name, network in networks().items()}
VOCABULARY_SIZES = {"num_codes": NUM_CODES, "num_bins": NUM_BINS}  # of the published vocabulary


@dataclass
class Source:
    """The input: weights in our layout with their report, and our options."""

    conversion: Conversion
    model: dict[str, Any]
    task: dict[str, Any]
    task_state: dict[str, Any]
    cfg: Mapping[str, Any] | None = None  # that of the container, if it is a published one


def read_inputs(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the container of the first input, and the weights of all inputs."""
    containers = [files.read(name) for name in args.inputs]
    for name in args.inputs:
        files.check_sums(name)
    find = files.ema_weights if args.ema else files.weights
    weights = (find(container, name) for name, container in zip(args.inputs, containers, strict=True))
    return containers[0], join_shards(zip(args.inputs, weights, strict=True))


def source_from_unival(args: argparse.Namespace, container: Mapping[str, Any], state: Mapping[str, Tensor]) -> Source:
    """Convert a checkpoint of UnIVAL, of OFA or of ours."""
    own = is_own(args.source, state)
    real = f"{published.STFT}conv_real.weight"
    conversion = to_ours(args.source, state, args.inputs[0], published_kernels(state[real].size(-1)) if real in state else None)
    without = tuple(name.strip() for name in args.without.split(",") if name.strip())
    if without:
        conversion = published.without_media(conversion, without)
    cfg = container.get("cfg") or {}
    given_model, given_task = cfg.get("model") or container.get("args"), cfg.get("task") or container.get("args")
    model, task = asdict(UnivalConfig()), {**task_defaults(), "_name": "unival"}
    if given_model is not None:
        model.update(_known(given_model, model) if own else published_options.model_options(given_model))
    else:
        conversion.report.note("the file has no options: sizes follow from the weights, other options have their defaults")
    if given_task is not None:
        saved = _known(given_task, task) if own else published_options.task_options(given_task)
        task.update({**options_in(saved), **saved})  # a checkpoint from before it read images as published
    model.update(options_from_weights(conversion.state), **dict.fromkeys(OWN_BACKBONE_FILES.values()))
    model.update(new_modalities="", inflate_video_backbone=False, _name="unival")
    task_state = dict(container.get("task_state") or {}) if own else {}
    task.update({key: task_state[key] for key in VOCABULARY_SIZES if key in task_state})
    return Source(conversion, model, task, task_state, None if own or not cfg else cfg)


def _known(given: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The options in our own checkpoint that still exist."""
    found = vars(given) if isinstance(given, argparse.Namespace) else dict(given)
    return {key: value for key, value in found.items() if key in fields}


def task_defaults() -> dict[str, Any]:
    defaults = OmegaConf.to_container(OmegaConf.structured(UnivalTaskConfig()), enum_to_str=True)
    assert isinstance(defaults, dict)
    return {str(key): value for key, value in {**defaults, **VOCABULARY_SIZES, "data": "", "_name": "unival"}.items()}


def source_from_bart(args: argparse.Namespace, container: Mapping[str, Any], state: dict[str, Tensor]) -> Source:
    """Convert a BART checkpoint with fairseq's or Hugging Face's keys: a freshly initialised model, with BART's weights put in."""
    report = KeyReport()
    shown: dict[str, str] = {}
    if args.source == "hf-bart":
        if not hf_bart.is_hf_bart(state):
            raise UserError(
                f"{args.inputs[0]}: does not look like a checkpoint of Hugging Face's BART; expected keys such as model.shared.weight"
            )
        state, shown = hf_bart.to_fairseq(state, report)
    elif not bart.is_bart(state):
        hint = " (it is Hugging Face's: --from hf-bart)" if hf_bart.is_hf_bart(state) else ""
        raise UserError(f"{args.inputs[0]}: does not look like a checkpoint of fairseq's BART; expected keys such as {bart.TOKENS}{hint}")
    if bart.TOKENS not in state:
        raise UserError(f"{args.inputs[0]}: has no {bart.TOKENS}")
    if args.without:
        raise UserError("--without is for checkpoints that have media; with BART, --modalities says what OUT takes")
    count, width = state[bart.TOKENS].shape
    arch = args.arch or next((name for name, s in SIZES.items() if {**asdict(UnivalConfig()), **s}["encoder_embed_dim"] == width), None)
    if arch is None:
        raise UserError(f"{args.inputs[0]}: is {width} wide; no --arch is ({', '.join(SIZES)})")
    task = task_defaults()
    task.update({key: value for key in ("num_codes", "num_bins") if (value := getattr(args, key)) is not None})
    model = {**asdict(UnivalConfig()), **SIZES[arch], "modalities": args.modalities, "_name": "unival"}
    symbols, rows = _bart_vocabulary(args, count, task)
    built = build_model(model | {key: getattr(args, key) for key in OWN_BACKBONE_FILES.values()}, symbols, args.seed)
    conversion = bart.from_bart(state, built.state_dict(), rows, shown, args.drop_unexpected)
    conversion.report.entries += report.entries
    conversion.report.note(f"--arch {arch}, {symbols} symbols of which {len(rows)} are BART's")
    return Source(conversion, model, task, {})


def _bart_vocabulary(args: argparse.Namespace, count: int, task: Mapping[str, Any]) -> tuple[int, list[tuple[int, int]]]:
    """Vocabulary size of the new model, and pairs (our token id, row of BART's ``count`` rows)."""
    mask = 50264  # in the published vocabulary
    if args.vocab_dir is None:
        if args.source_vocab is not None:
            raise UserError("--source-vocab is for another vocabulary than the published one: give that as --vocab-dir")
        return mask + 1 + task["num_codes"] + task["num_bins"], bart.published_rows(count, mask)
    ours = Vocabulary.load(args.vocab_dir, task["num_codes"], task["num_bins"])
    if args.source_vocab is not None:
        theirs = Vocabulary.load(args.source_vocab, 0, 0)
        if len(theirs) > count:
            raise UserError(f"--source-vocab {args.source_vocab} has {counted(len(theirs), 'token')}, the checkpoint {count} token rows")
        names = _token_names(theirs)
        names[-1:] = [f"a row without token {i}" for i in range(count - len(theirs))] + ["<mask>"]
        return len(ours), bart.token_rows(_token_names(ours), names)
    if ours.mask != mask:
        raise UserError(
            f"--vocab-dir {args.vocab_dir} has {ours.mask} tokens before <mask>, BART's vocabulary {mask}: give BART's as --source-vocab"
        )
    return len(ours), bart.published_rows(count, mask)


def _token_names(vocabulary: Vocabulary) -> list[str]:
    """A name for every id that is the same in any vocabulary: the text of BPE tokens, the entry of other ones."""
    encoder = json.loads(vocabulary.files()["encoder.json"])
    token_of = {str(number): token for token, number in encoder.items()}
    return [f"token {token_of[symbol]}" if symbol in token_of else symbol for symbol in vocabulary.dictionary.symbols]
