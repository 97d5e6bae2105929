"""Fixtures of the model library's tests."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from torch import Tensor

_BESIDE_THE_CHECKOUT = Path(__file__).parents[3] / "shared" / "golden"


@pytest.fixture(scope="session")
def golden() -> Callable[[str], tuple[dict[str, Tensor], dict[str, Any]]]:
    """Reads a reference file by name: its tensors and its metadata; skips where it is missing."""
    folder = Path(os.environ.get("ASIT_GOLDEN") or _BESIDE_THE_CHECKOUT)

    def read(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        path = folder / f"{name}.safetensors"
        if not path.is_file():
            pytest.skip(f"no reference vectors at {path}; set ASIT_GOLDEN to their folder")
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}
            meta = json.loads((file.metadata() or {}).get("meta", "{}"))
        return tensors, meta

    return read
