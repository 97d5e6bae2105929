"""What lies in `--out` already, and may it be built in?

A folder is ours if it is new or holds nothing but what a build writes; another dataset, or files
of someone else, are never overwritten.
"""

import json
import re
from dataclasses import asdict
from pathlib import Path

from asit_core.spectrogram import LogMelConfig
from asit_platform.data.dataset import (
    DATASET_FILE,
    MANIFEST_FILE,
    SHARD_FOLDER,
    SKIPPED_FILE,
    DatasetInfo,
)
from asit_platform.errors import PlatformError

AUDIO_FOLDER = "audio"
SYNTHETIC_PREFIX = "synthetic-"
_OURS = re.compile(
    rf"{AUDIO_FOLDER}(/{SYNTHETIC_PREFIX}.*\.wav)?"
    rf"|{SHARD_FOLDER}(/fold\d+-\d+\.parquet)?"
    rf"|({re.escape(DATASET_FILE)}|{re.escape(MANIFEST_FILE)}|{re.escape(SKIPPED_FILE)})"
    # What a killed build left of `write_whole`.
    rf"|({SHARD_FOLDER}/)?\.[^/]*\.\d+\.tmp"
)


def finished_build(
    out: Path, *, origin: object, front_end: LogMelConfig, keep_silent: bool
) -> DatasetInfo | None:
    """Look for a finished build of the same thing, without reading a sound.

    Returns:
        What lies there if it came from the same origin; None if the folder is free to be built in.

    Raises:
        PlatformError: If it holds another dataset or files that are not ours.
    """
    try:
        if out.exists() and not out.is_dir():
            raise PlatformError(f"{out}: --out must be a folder, but it is a file")
        if not (out / DATASET_FILE).is_file():
            _check_ours(out)
            return None
    except OSError as error:
        raise PlatformError(
            f"{out}: --out must be readable, but {error}; choose another or correct its permissions"
        ) from error
    info = DatasetInfo.read(out)
    found = (info.origin, info.front_end)
    wanted = ({**to_json(origin), "keep_silent": keep_silent}, to_json(asdict(front_end)))
    if found != wanted:
        raise other_dataset(out, info, _differences(found, wanted))
    return info


def clear(out: Path) -> None:
    """Make the folder, and take away what an unfinished build left, `dataset.json` first.

    Raises:
        PlatformError: If the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / DATASET_FILE).unlink(missing_ok=True)
        for path in (out / SHARD_FOLDER).glob("*"):
            if _is_ours(path, out):
                path.unlink()
    except OSError as error:
        raise not_writable(out, error) from error


def not_writable(out: Path, error: OSError) -> PlatformError:
    """The error to raise where a file cannot be written."""
    return PlatformError(
        f"{out}: --out must be writable, but {error}; choose another or free space"
    )


def other_dataset(out: Path, info: DatasetInfo, difference: str) -> PlatformError:
    """The error to raise where another dataset lies in the way."""
    return PlatformError(
        f"{out}: --out must be free or hold the same dataset, but it holds another "
        f"({info.name}: {difference}); choose another --out or delete the folder"
    )


def _differences(found: tuple[object, object], wanted: tuple[object, object]) -> str:
    words = []
    for old, new in zip(found, wanted, strict=True):
        assert isinstance(old, dict)
        assert isinstance(new, dict)
        words += [
            f"{key} {old.get(key)}, wanted {new.get(key)}"
            for key in sorted({*old, *new})
            if old.get(key) != new.get(key)
        ]
    return "; ".join(words)


def _check_ours(out: Path) -> None:
    if not out.is_dir():
        return
    inside = [path for path in out.glob("*/*") if path.parent.name in (AUDIO_FOLDER, SHARD_FOLDER)]
    foreign = sorted(
        str(path.relative_to(out)) for path in (*out.iterdir(), *inside) if not _is_ours(path, out)
    )
    if foreign:
        raise PlatformError(
            f"{out}: --out must be a new or empty folder, but it holds {foreign[0]!r}"
            f"{' and more' if len(foreign) > 1 else ''}; choose another"
        )


def _is_ours(path: Path, out: Path) -> bool:
    return _OURS.fullmatch(path.relative_to(out).as_posix()) is not None


def to_json(value: object) -> dict[str, object]:
    """As it will be read again: tuples become lists."""
    return json.loads(json.dumps(value))
