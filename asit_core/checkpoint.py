"""Our checkpoint: one safetensors file whose metadata is JSON, replaced whole or not at all.

No pickle: opening a file from a stranger runs none of their code.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FORMAT_VERSION = 1


class Checkpoint(NamedTuple):
    """Named tensors, and whatever JSON describes them."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `path` atomically: a reader sees the old file or the new one, whole.

    Raises:
        OSError: If it cannot be written; what was there before is still there.
    """
    header = json.dumps({**checkpoint.meta, "version": FORMAT_VERSION})
    tensors = _apart(checkpoint.tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, metadata={"asit": header})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except SafetensorError as error:
        raise OSError(f"{path}: must be writable, but: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path, *, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ValueError: If the file is not one of ours, is damaged, or is of a newer version.
    """
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            meta = _read_header(path, file.metadata())
            return Checkpoint({name: file.get_tensor(name) for name in file.keys()}, meta)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: must be a readable checkpoint, but: {error}") from error


def load_meta(path: Path) -> dict[str, Any]:
    """Read what describes a checkpoint, without its tensors.

    Raises:
        ValueError: As `load_checkpoint`.
    """
    try:
        with safe_open(path, "pt") as file:
            return _read_header(path, file.metadata())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: must be a readable checkpoint, but: {error}") from error


def is_checkpoint(path: Path) -> bool:
    """Says whether a file calls itself ours; no other safetensors file and no other file does."""
    try:
        with safe_open(path, "pt") as file:
            return "asit" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def flatten_optimizer(
    optimizer: torch.optim.Optimizer, prefix: str = "optimizer"
) -> dict[str, Tensor]:
    """The optimizer's per-parameter state as named tensors; its settings come from the config."""
    return {
        f"{prefix}.{index}.{name}": torch.as_tensor(value)
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], prefix: str = "optimizer"
) -> None:
    """Undo `flatten_optimizer`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(f"{prefix}."):
            index, name = key.removeprefix(f"{prefix}.").split(".", 1)
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, each with memory of its own: safetensors refuses tied ones."""
    apart: dict[str, Tensor] = {}
    seen: set[tuple[torch.device, int]] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().contiguous()
        memory = (value.device, value.untyped_storage().data_ptr())
        apart[name] = value.clone() if memory in seen else value
        seen.add(memory)
    return apart


def _read_header(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    if "asit" not in (metadata or {}):
        raise ValueError(f"{path}: must be an asit checkpoint, but has no asit metadata")
    try:
        meta = json.loads((metadata or {})["asit"])
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: asit metadata must be JSON, but: {error}") from error
    if not isinstance(meta, dict):
        raise ValueError(
            f"{path}: asit metadata must be a JSON object, but is a {type(meta).__name__}"
        )
    version = meta.pop("version", None)
    if type(version) is not int:
        raise ValueError(f"{path}: version must be a whole number, but got {version!r}")
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path}: version must be at most {FORMAT_VERSION}, but got {version}; upgrade asit"
        )
    return meta
