"""Data sets as they lie on disk, turned into a list of clips.

A reader says who, where, which label and which fold; it opens no sound file. Every reader returns
a `Listing`, and everything after it is the same for all of them.
"""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from asit_platform.errors import PlatformError

ESC50_CSV = Path("meta") / "esc50.csv"
_ESC50_COLUMNS = ("filename", "fold", "target", "category")
_OTHER_EXTENSIONS = (".wav", ".ogg", ".flac", ".mp3")


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """One labelled sound file. `source` names the recording it was cut from."""

    clip_id: str
    path: Path
    label: int
    label_name: str
    fold: int
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """A data set before any sound was read.

    Attributes:
        name: What tables and reports call it.
        synthetic: True for sounds that the program made itself.
        origin: JSON-able; two builds into one folder must agree on it.
        label_names: Name of label 0, 1, ...
        clips: In the order of their clip ids.
    """

    name: str
    synthetic: bool
    origin: Mapping[str, Any]
    label_names: tuple[str, ...]
    clips: tuple[Clip, ...]


def read_esc50(root: str | Path, *, subset: Literal["all", "esc10"] = "all") -> Listing:
    """List ESC-50, or its ESC-10 subset, by `meta/esc50.csv`.

    Args:
        root: Folder that holds `audio/` and `meta/esc50.csv`.
        subset: `esc10` keeps the rows whose column `esc10` is true.

    Returns:
        Labels are renumbered 0, 1, ... in the order of `target`.

    Raises:
        PlatformError: If the folder or the csv is missing, a needed column is missing, a value is
            malformed, a clip is listed twice, or a label has one clip only.
    """
    root = Path(root)
    csv_path = root / ESC50_CSV
    rows = _read_rows(root, csv_path, subset=subset)
    names = _label_names(csv_path, rows)
    numbers = {target: number for number, target in enumerate(sorted(names))}
    clips = [
        Clip(
            clip_id=Path(row["filename"]).stem,
            path=_find_audio(root / "audio" / row["filename"]),
            label=numbers[int(row["target"])],
            label_name=row["category"],
            fold=int(row["fold"]),
            # without the column, every clip counts as a recording of its own
            source=row.get("src_file") or Path(row["filename"]).stem,
        )
        for row in rows
    ]
    label_names = tuple(names[target] for target in sorted(names))
    check_clip_ids(csv_path, clips)
    check_labels(csv_path, [clip.label for clip in clips], label_names)
    only_esc10 = subset == "esc10" or all(row.get("esc10", "").lower() == "true" for row in rows)
    return Listing(
        name="ESC-10 subset of ESC-50" if only_esc10 else "ESC-50",
        synthetic=False,
        origin={"kind": "esc50", "subset": subset},
        label_names=label_names,
        clips=tuple(sorted(clips, key=lambda clip: clip.clip_id)),
    )


def check_clip_ids(where: Path, clips: Sequence[Clip]) -> None:
    """Raise PlatformError if two clips share an id: every draw is keyed by it."""
    clip_id, times = Counter(clip.clip_id for clip in clips).most_common(1)[0]
    if times > 1:
        raise PlatformError(
            f"{where}: each clip must be listed once, but {clip_id!r} is listed {times} times; "
            "remove the others"
        )


def check_labels(where: Path, labels: Sequence[int], label_names: Sequence[str]) -> None:
    """Raise PlatformError if a label has fewer than two clips: none is left to be measured on."""
    counts = Counter(labels)
    poor = [
        f"{name} ({counts[label]})" for label, name in enumerate(label_names) if counts[label] < 2
    ]
    if poor:
        raise PlatformError(
            f"{where}: each label must have at least 2 usable clips, but got {', '.join(poor)}; "
            "add clips or remove the label"
        )


def _read_rows(root: Path, csv_path: Path, *, subset: str) -> list[dict[str, str]]:
    if not root.is_dir():
        raise PlatformError(
            f"{root}: dataset folder must exist, but it does not; pass the folder that holds "
            f"audio/ and {ESC50_CSV} as --root"
        )
    if not csv_path.is_file():
        raise PlatformError(
            f"{csv_path}: must exist, but it does not; pass the folder that holds audio/ and "
            f"{ESC50_CSV} as --root"
        )
    try:
        with csv_path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            found = reader.fieldnames or []
            rows = list(reader)
    except OSError as error:
        raise PlatformError(
            f"{csv_path}: must be readable, but {error}; correct its permissions"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise PlatformError(f"{csv_path}: must be a UTF-8 csv file, but {error}") from error
    needed = (*_ESC50_COLUMNS, "esc10") if subset == "esc10" else _ESC50_COLUMNS
    _check_columns(csv_path, found=found, needed=needed)
    _check_values(csv_path, rows)
    if subset == "esc10":
        rows = [row for row in rows if row["esc10"].lower() == "true"]
    if not rows:
        raise PlatformError(f"{csv_path}: must list at least one clip, but lists none")
    return rows


def _check_columns(csv_path: Path, *, found: Sequence[str], needed: Sequence[str]) -> None:
    missing = [column for column in needed if column not in found]
    if missing:
        raise PlatformError(
            f"{csv_path}: must have the columns {', '.join(needed)}, but {', '.join(missing)} "
            f"is missing (found: {', '.join(found) or 'none'}); correct the first line"
        )


def _check_values(csv_path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    for line, row in enumerate(rows, start=2):
        if not row["filename"] or not row["category"]:
            raise PlatformError(f"{csv_path}: line {line}: filename and category must not be empty")
        for column in ("fold", "target"):
            if not row[column].strip().isdecimal():
                raise PlatformError(
                    f"{csv_path}: line {line}: {column} must be a whole number >= 0, but got "
                    f"{row[column]!r}"
                )


def _label_names(csv_path: Path, rows: Sequence[Mapping[str, str]]) -> dict[int, str]:
    names: dict[int, str] = {}
    for row in rows:
        name = names.setdefault(int(row["target"]), row["category"])
        if name != row["category"]:
            raise PlatformError(
                f"{csv_path}: target {row['target']} must have one category, but got "
                f"{name!r} and {row['category']!r}"
            )
    return names


def _find_audio(path: Path) -> Path:
    """The listed file, or the same recording in another format (a subset converted to .ogg)."""
    if path.is_file():
        return path
    others = (path.with_suffix(extension) for extension in _OTHER_EXTENSIONS)
    return next((other for other in others if other.is_file()), path)
