"""The Python API: load a checkpoint, run instructions on rows.

model = unival.hub.from_checkpoint("checkpoints/checkpoint_best.pt")
model.caption(["a.jpg", "b.jpg"])
model.run("[IMAGE:image] what does the image describe? -> [TEXT:caption]", [{"image": "a.jpg"}])
"""

import io
import pathlib
import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import unival.tasks  # noqa: F401  first, since it imports fairseq quietly; registers the tasks that checkpoints name

# isort: split
import torch
from fairseq import utils
from fairseq.tasks import TASK_REGISTRY
from omegaconf import OmegaConf
from PIL import Image

from unival.checkpoints.files import read, weights
from unival.data.rows import RowTable
from unival.errors import UserError
from unival.instructions import parse
from unival.tasks.base import UnivalTask
from unival.tasks.caption import CAPTION
from unival.tasks.inputs import media_of
from unival.tasks.restore import our_task_options
from unival.vocab import Vocabulary


@dataclass(frozen=True)
class Output:
    """What the model says about one row: the best hypothesis as text, and its score (log-probability, length-normalised)."""

    text: str
    score: float


class Unival:
    """A loaded model with its vocabulary; see :func:`from_checkpoint`."""

    def __init__(self, task: UnivalTask, model: Any, device: str):
        self.task = task
        self.model = model.to(device).eval()
        self.device = torch.device(device)

    def run(
        self,
        instruction: str,
        rows: Sequence[Mapping[str, Any]] | Mapping[str, Any],
        batch_size: int = 16,
        closed_set: Sequence[str] | None = None,
        **generation: Any,
    ) -> list[Output]:
        """Run an instruction on rows.

        Args:
            instruction: e.g. ``"[IMAGE:image] what does the image describe? -> [TEXT:caption]"``.
            rows: one dict or several, with the source's columns; media are paths, bytes or PIL images.
            batch_size: rows at a time.
            closed_set: the answers that a slot such as ``[TEXT:answer,closed_set]`` may have; by default those of training.
            generation: fairseq's generation options (``beam``, ``max_len_b``, ``lenpen``, …) over the task's defaults.

        Returns:
            One :class:`Output` per row, in order.

        Raises:
            UserError: an instruction, a row or an option cannot be used.
        """
        if batch_size < 1:
            raise UserError(f"batch size {batch_size}: must be at least 1")
        rows = [rows] if isinstance(rows, Mapping) else list(rows)
        table = RowTable([{key: _plain(value) for key, value in row.items()} for row in rows])
        instructions = parse(instruction)
        absent = media_of(instructions) - set(self.model.encoder.media)
        if absent:
            has = ", ".join(self.model.encoder.media) or "only text"
            raise UserError(f"this model takes no {', '.join(sorted(absent))}: it has {has}")
        predicted = {slot.column for i in instructions for slot in i.target if slot.column not in table.columns}
        table.columns += tuple(name for name in predicted if name is not None)  # the answer's column need not exist
        dataset = self.task.build_dataset(table, with_target=False, instructions=instructions)
        options = Namespace(**{**vars(self.task.generation_options()), **generation})
        trie = self.task.build_trie(instructions, self.task.answers if closed_set is None else closed_set)
        generator = self.task.generator_for([self.model], options, trie)
        outputs: list[Output] = []
        for start in range(0, len(dataset), batch_size):
            sample = dataset.collater([dataset[i] for i in range(start, min(start + batch_size, len(dataset)))])
            sample = utils.move_to_cuda(sample, self.device) if self.device.type == "cuda" else sample
            for beams in self.task.inference_step(generator, [self.model], sample):
                text = self.task.vocabulary.decode(beams[0]["tokens"].tolist()).strip()
                outputs.append(Output(text, float(beams[0]["score"])))
        return outputs

    def caption(self, media: Sequence[Any] | Any, **generation: Any) -> list[str]:
        """Describe images, videos or sounds (paths, bytes or PIL images): one caption each.

        The instruction is the one that the model was trained with where it has one medium, else that of image captions.
        """
        media = [media] if isinstance(media, str | bytes | pathlib.Path | Image.Image) else list(media)
        instruction, column = self.media_instruction()
        outputs = self.run(instruction, [{column: item} for item in media], **generation)
        return [output.text for output in outputs]

    def media_instruction(self) -> tuple[str, str]:
        """The instruction to use for media alone, and the name of its column: of the model's own alternatives the first that fits.

        Raises:
            UserError: none of them needs nothing but one medium.
        """
        own = self.task.instruction_text
        alternatives = [part.text for part in parse(own)] if own else []
        for text in [*alternatives, *([CAPTION] if "image" in self.model.encoder.media else [])]:
            column = lone_medium(text)
            if column is not None:
                return text, column
        raise UserError(f"the model's instruction {own!r} needs more than one medium: use run() with rows")


def from_checkpoint(
    path: str | pathlib.Path, vocab_dir: str | pathlib.Path | None = None, device: str = "cpu"
) -> Unival:
    """Load a model with the task and the vocabulary that it was trained with.

    Args:
        path: a checkpoint of ``fairseq-train --user-dir unival``, a published one of UnIVAL, or one that ``unival convert``
            wrote (``.pt`` or ``.safetensors``).
        vocab_dir: folder with the vocabulary; by default the one kept in the checkpoint (published ones have none).
        device: ``cpu``, ``cuda``, ….

    Raises:
        UserError: the file is not there, is not such a checkpoint, or has no vocabulary and none is given; or it holds more
            than tensors and plain values (nothing in it was run).
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
    container = read(path)
    saved, cfg, task_class = from_container(path, container)
    task_state = container.get("task_state") or {}
    task = task_class(cfg, _vocabulary(path, task_state, cfg, vocab_dir))
    task.load_state_dict(task_state)
    model = task.build_model(saved.model, from_checkpoint=True)
    model.load_state_dict(weights(container, path))
    return Unival(task, model, device)


def from_container(path: str | pathlib.Path, container: Mapping[str, Any]) -> tuple[Any, Any, type[UnivalTask]]:
    """The options in a checkpoint, those of its task in our terms, and the class of its task.

    Raises:
        UserError: it holds no options, or is not of one of our tasks.
    """
    saved = container.get("cfg") or {}
    if not saved.get("model") or not saved.get("task"):
        raise UserError(
            f"{path}: holds no model and task options; expected a checkpoint of fairseq-train --user-dir unival, a published one"
            " of UnIVAL, or one that `unival convert` wrote"
        )
    saved = OmegaConf.create(saved, flags={"allow_objects": True})  # published model options are a Namespace
    cfg = our_task_options(saved.task)
    task_class = TASK_REGISTRY.get(cfg._name)
    if task_class is None or not issubclass(task_class, UnivalTask):
        known = ", ".join(name for name, cls in TASK_REGISTRY.items() if issubclass(cls, UnivalTask))
        raise UserError(f"{path}: is of task {cfg._name!r}; expected one of {known}")
    return saved, cfg, task_class


def lone_medium(instruction: str) -> str | None:
    """The column of an instruction's medium, if that is all that it needs."""
    slots = [slot for slot in parse(instruction)[0].source if not slot.is_plain] if instruction else []
    return slots[0].column if len(slots) == 1 and slots[0].modality != "TEXT" else None


def _vocabulary(path: Any, task_state: Mapping[str, Any], cfg: Any, vocab_dir: Any) -> Vocabulary:
    if vocab_dir is not None:
        return Vocabulary.load(vocab_dir, cfg.num_codes, cfg.num_bins)
    files = task_state.get("vocabulary_files")
    if files is None:
        raise UserError(
            f"{path}: holds no vocabulary; give vocab_dir, a folder with encoder.json, vocab.bpe and dict.txt"
        )
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (pathlib.Path(folder) / pathlib.Path(name).name).write_text(text, encoding="utf-8")
        return Vocabulary.load(folder, cfg.num_codes, cfg.num_bins)


def _plain(value: Any) -> Any:
    """PIL images as PNG bytes, paths as text; the rest as it is."""
    if isinstance(value, Image.Image):
        buffer = io.BytesIO()
        value.convert("RGB").save(buffer, format="PNG")
        return buffer.getvalue()
    return str(value) if isinstance(value, pathlib.Path) else value
