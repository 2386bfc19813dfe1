"""Reading and writing checkpoint files: no code in a file is run, and weights are mapped, not copied.

A container is the whole content of a file: a dict with the weights under ``model`` (fairseq) or ``state_dict`` (many vision models), or
only weights.  ``read`` returns the container, ``weights`` and ``ema_weights`` find the tensors in it, ``write`` writes one.
"""

import contextlib
import json
import os
import pathlib
import pickle
import re
import struct
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from unival.checkpoints.checks import check_container, check_tensor
from unival.checkpoints.inert import STAND_INS
from unival.checkpoints.namespace import Namespace
from unival.errors import UserError, counted

# The classes and functions that a pickle may name in addition to those that torch allows: options, and numbers of numpy.
SAFE_GLOBALS: list[Any] = [Namespace, *STAND_INS]

WEIGHT_KEYS = ("model", "state_dict", "model_state_dict", "module")
HF_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
HF_FILES = ("model.safetensors", "pytorch_model.bin")
ZIP = b"PK\x03\x04"
METADATA = "unival"  # key in a safetensors file's metadata: all that is not a tensor, as JSON


def read(path: str | pathlib.Path) -> dict[str, Any]:
    """Read the container of a checkpoint file, on the CPU.

    Takes torch files (zip and legacy), ``.safetensors``, and folders or indices of sharded Hugging Face models.  Tensors of zip and
    safetensors files are mapped from the file: they take memory only where they are read.

    Raises:
        UserError: the file does not exist, is damaged, or has more than tensors and plain values (no code in it was run).
    """
    path = pathlib.Path(path)
    if path.is_dir():
        path = _file_in_folder(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    with path.open("rb") as file:
        head = file.read(16)
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        container = _read_safetensors(path)
    else:
        _check_head(path, head)
        container = _read_torch(path, is_zip=head.startswith(ZIP))
    with _naming(path):
        check_container(container)
    return container


def check_sums(path: str | pathlib.Path) -> None:
    """Verify the checksums of zip files, which mapped reading does not; other formats have none.

    Takes what :func:`read` takes and reads every byte: less than a second per GB that is in memory already.

    Raises:
        UserError: a record is damaged, or is compressed (torch never compresses, and would map it wrongly).
    """
    for file in _parts(pathlib.Path(path)):
        with file.open("rb") as opened:
            if opened.read(4) != ZIP:
                continue
        try:
            with zipfile.ZipFile(file) as archive:
                records = archive.infolist()
                packed = next((record.filename for record in records if record.compress_type != zipfile.ZIP_STORED), None)
                if packed is not None:
                    raise UserError(f"{file}: record {packed} is compressed; torch's files are not")
                # zeros: written with torch.serialization.set_crc32_options(False)
                damaged = archive.testzip() if any(record.CRC for record in records) else None
        except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, EOFError, struct.error) as error:
            raise UserError(f"{file}: damaged: {_first_line(error)}") from error
        if damaged is not None:
            raise UserError(f"{file}: damaged: record {damaged} does not match its checksum; fetch or copy the file again")


def weights(container: Mapping[str, Any], path: str | pathlib.Path | None = None) -> dict[str, Tensor]:
    """Find the state dict in a container: under ``model``, ``state_dict``, …, or the container itself.

    Args:
        container: result of :func:`read`.
        path: path of the file, for error messages.

    Raises:
        UserError: there are no tensors where weights are expected, or they are sparse, quantised or without values.
    """
    with _naming(path):
        for key in WEIGHT_KEYS:
            if isinstance(container.get(key), Mapping):
                return _tensors(container[key], key)
        return _tensors(container, None)


def ema_weights(container: Mapping[str, Any], path: str | pathlib.Path | None = None) -> dict[str, Tensor]:
    """Find the moving average of the weights that training with ``--store-ema`` keeps, in float32 if that was stored.

    Raises:
        UserError: the checkpoint has no moving average.
    """
    with _naming(path):
        extra = container.get("extra_state") or {}
        if not isinstance(extra, Mapping) or not isinstance(extra.get("ema"), Mapping) or not extra["ema"]:
            raise UserError(
                "the checkpoint has no EMA weights (it was trained without --store-ema);"
                " leave out --ema, or --weights ema, to use its weights"
            )
        ema = _tensors(extra["ema"], "extra_state.ema")
        exact = extra.get("ema_fp32_params")
        return {**ema, **{k: v for k, v in _tensors(exact, "extra_state.ema_fp32_params").items() if k in ema}} if exact else ema


def write(path: str | pathlib.Path, container: Mapping[str, Any]) -> None:
    """Write a container as a torch file, or as safetensors if the suffix is ``.safetensors``; the file is replaced atomically.

    In a safetensors file, weights under ``model`` become the tensors and the rest JSON; it cannot have optimizer states.

    Raises:
        UserError: the file cannot be written, or the container has values that JSON cannot represent.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            temporary.touch()
            mode = temporary.stat().st_mode  # the safetensors library makes files that only the owner can read
            _write_safetensors(path, temporary, container)
            temporary.chmod(mode)
        else:
            torch.save(_compacted(dict(container)), temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _naming(path: str | pathlib.Path | None) -> Iterator[None]:
    """Prefix errors raised inside with the file's name, if it is known."""
    try:
        yield
    except UserError as error:
        if path is None:
            raise
        raise UserError(f"{path}: {error}") from error


@contextlib.contextmanager
def allowed_globals() -> Iterator[None]:
    """Allow :data:`SAFE_GLOBALS` in torch's restricted unpickler; afterwards exactly what was allowed before is."""
    added = [item for item in SAFE_GLOBALS if item not in torch.serialization.get_safe_globals()]
    with torch.serialization.safe_globals(added):
        yield


# --- torch files ----------------------------------------------------------------------------------------------------------------


def _check_head(path: pathlib.Path, head: bytes) -> None:
    """Refuse common files that are not checkpoints, with a message about each."""
    if not head:
        raise UserError(f"{path}: the file is empty")
    if head.startswith(b"version https://"):
        raise UserError(f"{path}: is a Git LFS pointer, not the checkpoint itself: run `git lfs pull` where it came from")
    if head.lstrip()[:1] == b"<":
        raise UserError(f"{path}: is a web page, not a checkpoint: the download went wrong")


def _read_torch(path: pathlib.Path, is_zip: bool) -> dict[str, Any]:
    try:
        with allowed_globals():
            container = torch.load(str(path), map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: refused, nothing in it was run: {_what_was_refused(str(error))}") from error
    except UserError as error:
        raise UserError(f"{path}: refused, nothing in it was run: {error}") from error
    except (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError, struct.error) as error:
        raise UserError(f"{path}: damaged, or not a checkpoint: {_first_line(error)}") from error
    if not isinstance(container, dict):
        raise UserError(f"{path}: holds a {type(container).__name__}, expected a dict of weights or a checkpoint")
    return container


def _what_was_refused(message: str) -> str:
    named = re.search(r"GLOBAL (\S+)", message) or re.search(r"<class '([^']+)'>|<(?:built-in )?function (\S+?)>", message)
    if named is None:
        return "it is not a pickle of tensors and plain values"
    name = next(group for group in named.groups() if group)
    return f"it names {name if '.' in name else f'builtins.{name}'}; only tensors, plain values and argparse.Namespace are read"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _tensors(found: Any, name: str | None) -> dict[str, Tensor]:
    if not isinstance(found, Mapping):
        raise UserError(f"{name} is a {type(found).__name__}, expected a dict of weights")
    state = {key: value for key, value in found.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not state or len(state) < len(found) - 8:  # a few other entries are allowed, such as torch's _metadata or counters
        where = f"under {name!r}" if name else f"in it (keys: {', '.join(map(str, list(found)[:6])) or 'none'})"
        raise UserError(f"the checkpoint has no weights {where}")
    for key, value in state.items():
        check_tensor(key, value)
    return state


def _compacted(value: Any) -> Any:
    """Copy nested dicts so that no tensor keeps a storage much larger than itself; tied tensors stay tied."""
    if isinstance(value, dict):
        return {key: _compacted(item) for key, item in value.items()}
    if isinstance(value, Tensor) and value.untyped_storage().nbytes() > 2 * max(value.nbytes, 512):
        return value.clone()
    return value


# --- safetensors ----------------------------------------------------------------------------------------------------------------


def _read_safetensors(path: pathlib.Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a dict
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: damaged, or not a safetensors file: {_first_line(error)}") from error
    if METADATA not in metadata:
        return state
    try:
        rest = json.loads(metadata[METADATA], object_hook=_revive)
        tied = rest.pop("tied")
        state.update({name: state[kept] for name, kept in tied.items()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: its metadata {METADATA!r} is damaged: {_first_line(error)}") from error
    return {**rest, "model": state}


def _write_safetensors(path: pathlib.Path, temporary: pathlib.Path, container: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    state = weights(container)
    rest = {key: value for key, value in container.items() if key not in WEIGHT_KEYS} if state is not container else {}
    if any(key in state for key in rest):  # the container has only weights
        rest = {}
    kept, tied = _untie(state)
    try:
        text = json.dumps({**rest, "tied": tied}, default=_plain)
    except TypeError as error:
        raise UserError(f"{path}: {error}; write a .pt file instead") from error
    save_file(kept, str(temporary), metadata={METADATA: text})


def _untie(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Separate tied tensors: returns tensors that share no memory, and key -> key of the same tensor for those left out."""
    kept: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    storages: set[int] = set()
    for name, value in state.items():
        view = (value.data_ptr(), value.shape, value.stride(), value.dtype)
        if value.numel() and view in first:
            tied[name] = first[view]
            continue
        first[view] = name
        storage = value.untyped_storage().data_ptr()
        shared = storage in storages or not value.is_contiguous()
        kept[name] = value.clone(memory_format=torch.contiguous_format) if shared else value
        storages.add(storage)
    return kept, tied


def _plain(value: Any) -> Any:
    if isinstance(value, Namespace):
        return {"__Namespace__": vars(value)}
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.item()
    raise TypeError(f"a {type(value).__name__} cannot be kept in a safetensors file")


def _revive(value: dict[str, Any]) -> Any:
    return Namespace(**value["__Namespace__"]) if set(value) == {"__Namespace__"} else value


# --- Hugging Face folders -------------------------------------------------------------------------------------------------------


def _file_in_folder(folder: pathlib.Path) -> pathlib.Path:
    names = (*HF_INDICES[:1], HF_FILES[0], *HF_INDICES[1:], HF_FILES[1])
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise UserError(f"{folder}: is a folder without {', '.join(names[:-1])} or {names[-1]}; give a file")
    return found


def _parts(path: pathlib.Path) -> list[pathlib.Path]:
    """The files that are read for a path: itself, or the shards of an index."""
    path = _file_in_folder(path) if path.is_dir() else path
    if not path.name.endswith(".index.json"):
        return [path]
    return [path.parent / name for name in _shard_places(path)[1]]


def _shard_places(index: pathlib.Path) -> tuple[dict[str, str], list[str]]:
    """Read an index of shards: key -> file, and the names of the files."""
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(name) for name in places.values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index}: expected JSON with a weight_map from keys to files: {_first_line(error)}") from error
    outside = next((name for name in names if pathlib.PurePath(name).name != name), None)
    if outside is not None:
        raise UserError(f"{index}: shard {outside!r} is not a file in the folder of the index")
    return places, names


def _read_shards(index: pathlib.Path) -> dict[str, Any]:
    places, names = _shard_places(index)
    state: dict[str, Any] = {}
    for name in names:
        state.update(weights(read(index.parent / name), index.parent / name))
    absent = [key for key in places if key not in state]
    if absent:
        raise UserError(f"{index}: no shard has {counted(len(absent), 'key')} of the index, the first is {absent[0]}")
    return state
