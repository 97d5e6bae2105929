"""A run's folder: whose it is, and files that are there whole or not at all."""

import json
import shutil
from pathlib import Path
from typing import Any

from asit_platform.whole_files import write_whole

IDENTITY_FILE = "identity.json"


def claim_folder(folder: Path, fingerprint: str) -> None:
    """Make a folder this run's own, so that it never resumes another one's checkpoint.

    Args:
        folder: Kept if it already belongs to the run, else emptied.
        fingerprint: What can change the run's numbers, hashed.
    """
    identity = folder / IDENTITY_FILE
    if read_json(identity).get("fingerprint") != fingerprint and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(identity, {"fingerprint": fingerprint})


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's content; empty if it is missing or cut short."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file; a kill leaves the old one or the new one, never half of it."""
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False))
