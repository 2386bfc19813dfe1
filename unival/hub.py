"""The Python API: load a checkpoint, and run instructions on rows.

model = unival.hub.from_checkpoint("checkpoints/checkpoint_best.pt")
model.caption(["a.jpg", "b.jpg"])
model.run("[IMAGE:image] what does the image describe? -> [TEXT:caption]", [{"image": "a.jpg"}])
"""

import contextlib
import numbers
import os
import pathlib
import pickle
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import unival.tasks  # noqa: F401  first, since it imports fairseq quietly; registers the tasks that checkpoints name

# isort: split
import numpy as np
import torch
from fairseq import utils
from fairseq.tasks import TASK_REGISTRY
from omegaconf import OmegaConf
from PIL import Image

from unival.backbones.prepared import prepare
from unival.checkpoints.adapters import MARK, stack
from unival.checkpoints.files import ema_weights, read
from unival.checkpoints.files import weights as model_weights
from unival.checkpoints.summary import non_finite
from unival.data.reading import RowsOrErrors, in_order, read_ahead
from unival.data.rows import RowTable, cell_of
from unival.data.stream import Stream
from unival.data.table import row_errors
from unival.errors import UserError
from unival.generation.options import drop_device_options, fitting_defaults
from unival.generation.outputs import Output
from unival.instructions import Instruction, Slot, parse
from unival.modalities import MODALITIES
from unival.modalities.base import Modality
from unival.models.fitting import fit_to_checkpoint
from unival.models.inference import TYPES, check_type
from unival.tasks.base import UnivalTask
from unival.tasks.inputs import media_of_instructions
from unival.tasks.presets import CAPTION
from unival.tasks.resume import Settings, load_vocabulary, our_task_options, saved_in, task_name

PROCESS = os.getpid()  # the process that imported this module; one with another id was forked from it
SHOWN = 3  # keys in a message


class Unival:
    """A loaded model with its task and vocabulary; see :func:`from_checkpoint`.

    It can be copied, pickled and passed to other processes: ``multiprocessing.Pool().map(model.caption, batches)``.
    """

    int8 = False  # True: linear layers are quantised

    def __init__(self, task: UnivalTask, model: Any, device: str | torch.device, dtype: str = "fp32"):
        self.task = task
        self.model = model.eval()
        self.to(device, TYPES[dtype])
        self.int8 = dtype == "int8"

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the model."""
        return next(self.model.parameters()).dtype

    def to(self, *where: str | torch.device | torch.dtype) -> "Unival":
        """Move the model to a device, convert it to a floating-point type, or both; inputs are converted, too.

        Returns:
            The model itself.

        Raises:
            UserError: the device does not exist, or the type is not supported.
        """
        for place in where:
            if isinstance(place, torch.dtype):
                if not place.is_floating_point:
                    raise UserError(f"{place} is not a type to compute in: choose torch.float32, torch.bfloat16 or torch.float16")
                self.model.to(place)
                self.int8 = False
            else:
                check_type("int8" if self.int8 else "fp32", usable_device(place))
                self.model.to(place)
        return self

    def half(self) -> "Unival":
        """``to(torch.float16)``."""
        return self.to(torch.float16)

    def __getstate__(self) -> dict[str, Any]:
        # As bytes: multiprocessing would send every tensor through its own file descriptor, and their number is limited.
        return {"pickled": pickle.dumps((self.task, self.model, self.int8))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        compute_alone_after_fork()
        self.task, self.model, self.int8 = pickle.loads(state["pickled"])

    def run(
        self,
        instruction: str,
        rows: Iterable[Mapping[str, Any]] | Mapping[str, Any],
        batch_size: int = 16,
        closed_set: Iterable[str] | None = None,
        **generation: Any,
    ) -> list[Output]:
        """Run an instruction on rows.

        Args:
            instruction: e.g. ``"[IMAGE:image] what does the image describe? -> [TEXT:caption]"``.
            rows: one dict or several, with the source's columns; media are paths, bytes, open files, PIL images, or images as
                arrays or tensors of uint8, uint16 or floats from 0 to 1 (``h x w x 3``; tensors also ``3 x h x w``).  PIL images are
                rotated by their EXIF only as opened from a file, not after ``rotate`` or ``convert``.  Boxes may be arrays, too.
            batch_size: rows at a time.
            closed_set: candidate answers of a slot such as ``[TEXT:answer,closed_set]``; default: those of training.
            generation: fairseq's generation options (``beam``, ``nbest``, ``max_len_b``, ``lenpen``, …) and those of
                :class:`unival.generation.answer_options.AnswerOptions` (``inference="candidates"``, ``reject_below``, …), which precede
                the task's defaults.

        Returns:
            One :class:`Output` per row, in order.

        Raises:
            UserError: an instruction, a row or an option cannot be used.
        """
        outputs = []
        for answer in self.answers(instruction, rows, batch_size, closed_set, **generation):
            if isinstance(answer, UserError):
                raise answer
            outputs.append(answer)
        return outputs

    def answers(
        self,
        instruction: str,
        rows: Iterable[Mapping[str, Any]] | Mapping[str, Any],
        batch_size: int = 16,
        closed_set: Iterable[str] | None = None,
        **generation: Any,
    ) -> Iterator[Output | UserError]:
        """Run an instruction as :meth:`run` does, batch by batch; a row that cannot be read gives its error instead of an output."""
        size = _batch_size(batch_size)
        instructions = _parsed(instruction)
        self._check_media(instructions)
        dataset = self._dataset(instructions, _table(rows))
        answers = self.task.answers if closed_set is None else _closed_set(closed_set)
        trie = self.task.build_trie(instructions, answers)
        if closed_set is not None and trie is None:
            raise UserError("closed_set is given, but no slot of the instruction has one: write [TEXT:answer,closed_set]")
        is_limited = trie is not None or self.task.target_of(instructions).length is not None
        defaults = fitting_defaults(vars(self.task.generation_options()), is_limited, has_candidates=trie is not None)
        options = Namespace(**{**drop_device_options(defaults), **generation})
        generator = self.task.generator_for([self.model], options, trie, instructions=instructions)
        nbest = generation.get("nbest", 1)
        return self._answers(dataset, size, generator, int(nbest))

    def _answers(self, dataset: Stream, batch_size: int, generator: Any, nbest: int) -> Iterator[Output | UserError]:
        compute_alone_after_fork()
        prepare(self.model, self.int8)
        with contextlib.closing(read_ahead(RowsOrErrors(dataset), in_order(len(dataset), batch_size))) as reader:
            for read in reader:
                sample = dataset.collater([item for item in read if not isinstance(item, UserError)])
                outputs = self._outputs(generator, sample, nbest) if sample["nsentences"] else []
                by_row = dict(zip(sample["id"].tolist(), outputs, strict=True))  # a batch has its own order
                for item in read:
                    yield item if isinstance(item, UserError) else by_row[item[0].row]

    def _outputs(self, generator: Any, sample: dict[str, Any], nbest: int) -> list[Output]:
        if self.device.type == "cuda":
            if os.getpid() != PROCESS:
                raise UserError('a forked process cannot use a GPU: start it by multiprocessing.get_context("spawn")')
            sample = utils.move_to_cuda(sample, self.device)
        return self.task.outputs(generator, [self.model], sample, nbest)

    def _check_media(self, instructions: Sequence[Instruction]) -> None:
        absent = media_of_instructions(instructions) - set(self.model.encoder.media)
        if absent:
            has = ", ".join(self.model.encoder.media) or "only text"
            raise UserError(f"this model takes no {', '.join(sorted(absent))}: it has {has}")

    def _dataset(self, instructions: Sequence[Instruction], table: RowTable) -> Stream:
        first = instructions[0]  # rows need only the columns of the source, not those that are predicted
        source = replace(first, target=()).resolve(table.columns).source
        table = _cells(table, (*source, *first.target))
        return self.task.build_dataset(table, with_target=False, instructions=instructions)

    def caption(self, media: Any, **generation: Any) -> list[str]:
        """Describe images, videos or audio, given as in :meth:`run`: one, or several in a list.

        The instruction is the model's own if it needs one medium alone, else that of image captions.

        Returns:
            One caption per item.

        Raises:
            UserError: an item or an option cannot be used.
        """
        if media is None or isinstance(media, Mapping | bool | numbers.Number):
            raise UserError(f"expected paths, bytes or images, got {type(media).__name__}; rows of several columns go to run()")
        if isinstance(media, str | bytes | os.PathLike | Image.Image | np.ndarray | torch.Tensor) or hasattr(media, "read"):
            media = [media]
        nbest = generation.get("nbest", 1)
        if isinstance(nbest, numbers.Integral) and int(nbest) > 1:
            raise UserError(f"nbest={nbest}: caption() gives one caption each; use run(), whose outputs hold the alternatives")
        instruction, column = self.media_instruction()
        outputs = self.run(instruction, [{column: item} for item in media], **generation)
        return [output.text for output in outputs]

    def media_instruction(self) -> tuple[str, str]:
        """The instruction for media alone, and the name of its column: the first of the model's alternatives that needs one medium only.

        Raises:
            UserError: every alternative needs more.
        """
        own = self.task.instruction_text
        alternatives = [part.text for part in parse(own, MODALITIES)] if own else []
        takes_images = media_of_instructions(parse(CAPTION, MODALITIES)) <= set(self.model.encoder.media)
        for text in [*alternatives, *([CAPTION] if takes_images else [])]:
            column = lone_medium(text)
            if column is not None:
                return text, column
        raise UserError(f"the model's instruction {own!r} needs more than one medium: use run() with rows")


def from_checkpoint(
    path: str | pathlib.Path,
    vocab_dir: str | pathlib.Path | None = None,
    device: str | torch.device = "cpu",
    weights: str = "model",
    adapter: str | pathlib.Path | None = None,
    dtype: str = "fp32",
) -> Unival:
    """Load a model with its task and the vocabulary that it was trained with.

    Args:
        path: a checkpoint of ``fairseq-train --user-dir unival``, a published one of UnIVAL, or one that ``unival convert``
            wrote (``.pt`` or ``.safetensors``).
        vocab_dir: folder with the vocabulary; default: the vocabulary in the checkpoint (published ones have none).
        device: ``cpu``, ``cuda``, ….
        weights: ``model``, or ``ema``: the moving average of the weights, which training with ``--store-ema`` keeps.
        adapter: an adapter of ``unival adapter extract``, whose base ``path`` is; task and options are those of the adapter.
        dtype: ``fp32``, ``bf16``, ``fp16``, or ``int8``: linear layers are quantised, on CPUs.  Weights are converted once.

    Raises:
        UserError: the file does not exist, is not such a checkpoint, or has no vocabulary and none is given; it has no moving
            average and that is asked for; its weights are infinite or NaN; or it has more than tensors and plain values (no code in
            it was run).
    """
    for name, given in (("path", path), ("vocab_dir", vocab_dir), ("adapter", adapter)):
        if not isinstance(given, str | os.PathLike) and not (name != "path" and given is None):
            raise UserError(f"{name} is {given!r}: expected the path of a {'folder' if name == 'vocab_dir' else 'file'}")
    if weights not in ("model", "ema"):
        raise UserError(f"weights {weights!r}: must be 'model' or 'ema'")
    check_type(dtype, usable_device(device))
    container = read(path)
    if adapter is not None:
        container = stack(container, read(adapter), str(path), str(adapter))
    elif MARK in container:
        raise UserError(f"{path}: is an adapter; give the checkpoint of its base, and this as adapter (--adapter)")
    return from_container(container, path, vocab_dir, device, weights, dtype)


def from_container(
    container: Mapping[str, Any],
    path: str | pathlib.Path,
    vocab_dir: str | pathlib.Path | None = None,
    device: str | torch.device = "cpu",
    weights: str = "model",
    dtype: str = "fp32",
) -> Unival:
    """Load a model from a checkpoint that was read already, or is not a file yet; ``path`` names it in messages.

    Raises:
        UserError: as :func:`from_checkpoint`.
    """
    task = task_of(container, path, vocab_dir)
    cfg = OmegaConf.create(container["cfg"], flags={"allow_objects": True})  # published model options are a Namespace
    model = task.build_model(cfg.model, from_checkpoint=True)
    state = ema_weights(container, path) if weights == "ema" else model_weights(container, path)
    damaged = non_finite(state)
    if damaged:
        keys = ", ".join(f"{key} ({count} of {state[key].numel()})" for key, count in list(damaged.items())[:SHOWN])
        more = f" and {len(damaged) - SHOWN} more" if len(damaged) > SHOWN else ""
        raise UserError(f"{path}: has weights with values that are infinite or not a number: {keys}{more}")
    model.load_state_dict(fit_to_checkpoint(model, state))
    return Unival(task, model, device, dtype)


def task_of(container: Mapping[str, Any], path: str | pathlib.Path, vocab_dir: str | pathlib.Path | None = None) -> UnivalTask:
    """Build the task of a checkpoint, with the vocabulary and settings that it was trained with.

    Raises:
        UserError: it is not such a checkpoint, or has no vocabulary and none is given.
    """
    saved = saved_in(container)
    task_class = TASK_REGISTRY[task_name(path, saved)]
    vocabulary = load_vocabulary(None if vocab_dir is None else pathlib.Path(vocab_dir), Settings(), saved.settings)
    if vocabulary is None:
        raise UserError(f"{path}: has no vocabulary; give vocab_dir (--vocab-dir), a folder with encoder.json, vocab.bpe and dict.txt")
    cfg = OmegaConf.create(container["cfg"], flags={"allow_objects": True})
    return task_class(drop_device_options(our_task_options(cfg.task)), vocabulary, given=Settings(), trained=saved.settings)


def usable_device(device: Any) -> torch.device:
    """Check a device, given by name or number.

    Raises:
        UserError: the device does not exist here.
    """
    try:
        torch.empty(0, device=device).cpu()
        return torch.device(device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise UserError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error


def compute_alone_after_fork() -> None:
    """Use one thread in a forked process: it lacks the threads of its parent, for which torch would wait."""
    if os.getpid() != PROCESS and torch.get_num_threads() > 1:
        torch.set_num_threads(1)


def lone_medium(instruction: str) -> str | None:
    """The column of an instruction's medium; None unless this is all that the instruction needs."""
    slots = [slot for slot in parse(instruction, MODALITIES)[0].source if not slot.is_plain] if instruction else []
    return slots[0].column if len(slots) == 1 and MODALITIES[slots[0].modality].media else None


def _batch_size(size: Any) -> int:
    if isinstance(size, bool) or not isinstance(size, numbers.Integral) or size < 1:
        raise UserError(f"batch size {size!r}: must be a whole number, at least 1")
    return int(size)


def _parsed(instruction: Any) -> tuple[Instruction, ...]:
    if not isinstance(instruction, str):
        raise UserError(f"instruction {instruction!r}: expected a text such as {CAPTION!r}")
    return parse(instruction, MODALITIES)


def _table(rows: Any) -> RowTable:
    """Make a table of rows, whose values stay as they are given."""
    if isinstance(rows, Mapping):
        rows = [rows]
    if isinstance(rows, str | bytes) or not isinstance(rows, Iterable):
        raise UserError(f'rows: expected one dict such as {{"image": "a.jpg"}} or several, got {type(rows).__name__}')
    return RowTable(rows)


def _cells(table: RowTable, slots: Sequence[Slot]) -> RowTable:
    """Convert the values of a table to cells, each for the slots that have its column; columns without a slot stay as they are."""
    backwards = [slot for slot in reversed(slots) if not slot.is_plain]
    modalities = {slot.column: MODALITIES[slot.modality] for slot in backwards}  # of several slots of a column, the first one's
    names = [name for name in table.columns if name in modalities]
    cells = [
        {**table[i], **{name: _cell(table, i, name, modalities[name]) for name in names if name in table[i]}} for i in range(len(table))
    ]
    return RowTable(cells)


def _cell(table: RowTable, row: int, column: str, modality: Modality) -> Any:
    try:
        with row_errors(table, row, column):
            return cell_of(table[row][column], modality)
    except UserError as error:
        if error.__cause__ is not None:
            raise
        raise UserError(f"{table.where(row, column)}: {error}") from error


def _closed_set(answers: Any) -> list[str]:
    if isinstance(answers, str | bytes) or not isinstance(answers, Iterable):
        raise UserError(f"closed_set {answers!r}: expected a list of answers such as ['yes', 'no']")
    if not (listed := list(answers)):
        raise UserError("closed_set is empty: give at least one answer")
    return listed
