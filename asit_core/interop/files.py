"""Reads other programs' files without running anything in them."""

import argparse
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

_FORBIDDEN = re.compile(r"GLOBAL ([\w.]+)")


def read_foreign(path: Path) -> Any:
    """Content of a `.pth`, `.pt`, `.bin` or `.safetensors` file, on the CPU.

    Of pickled classes only tensors, plain containers and `argparse.Namespace` are made: a file from
    a stranger runs none of their code.

    Raises:
        ValueError: If the file is missing, damaged, or holds objects of another class.
    """
    if not path.is_file():
        raise ValueError(f"{path}: must be a file, but is {'a folder' if path.is_dir() else 'not'}")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{path}: must be a readable safetensors file, but: {error}"
            ) from error
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = _FORBIDDEN.search(str(error))
        if found is None:
            raise ValueError(f"{path}: must be a checkpoint of PyTorch, but is not") from error
        raise ValueError(
            f"{path}: must hold tensors and plain values only, but holds a {found[1]}, which is "
            "not loaded from a file; save it again without"
        ) from error
    except Exception as error:  # bytes that are no pickle stop the unpickler in any way they like
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: must be a checkpoint of PyTorch, but: {reason}") from error


def tensors_of(content: Any) -> dict[str, Tensor]:
    """The state dict of a file: itself, or what it calls `model` or `state_dict`; may be empty."""
    for name in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict):
        return {}
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
