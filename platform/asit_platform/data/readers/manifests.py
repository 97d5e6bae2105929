"""What the manifests of other repositories have in common: paths and labels for each split."""

import os
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from asit_platform.data.listing import Clip, LabelKind, Listing
from asit_platform.data.readers.splits import SPLIT_NAMES, assemble
from asit_platform.data.readers.tables import Vocabulary, read_vocabulary
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

LabelChoice = Literal["auto", "single", "multi", "none"]
_VOCABULARY_REMEDY = "pass where the csv of the labels is as --labels, or leave it out for none"


class Entry(NamedTuple):
    """One line of a manifest."""

    where: str
    fold: int
    listed: str  # the path as the manifest says it
    path: str  # and where the file is
    labels: tuple[str, ...]
    source: str | None = None


def list_entries(
    where: object,
    entries: Sequence[Entry],
    *,
    name: str,
    origin: Mapping[str, Any],
    vocabulary: Place | None,
    label_kind: LabelChoice,
) -> Listing:
    """Make the listing of manifests whose entries were read.

    Args:
        where: File or folder that a message is about.
        entries: Of all splits.
        name: What tables call the set.
        origin: What it is made from.
        vocabulary: Csv of the labels; None leaves labels out, as ASiT's pretraining does.
        label_kind: `auto` says single where every clip has exactly one label.

    Raises:
        PlatformError: If a label is unknown, or the clips do not have the labels they must have.
    """
    labels = None
    if vocabulary is not None:
        labels = read_vocabulary(vocabulary, remedy=_VOCABULARY_REMEDY)
    kind = _label_kind(entries, label_kind, has_vocabulary=labels is not None)
    ids = _clip_ids(entries)
    return assemble(
        where,
        [
            _clip(entry, clip_id, labels=labels, label_kind=kind)
            for entry, clip_id in zip(entries, ids, strict=True)
        ],
        name=name,
        origin={**origin, "name": name, "label_kind": kind},
        label_kind=kind,
        label_names=labels.names if labels is not None and kind != "none" else (),
    )


def join(root: Place, path: str) -> str:
    """A path of a manifest: as it is if it is a URL or absolute, else below `root`."""
    return path if "://" in path or posixpath.isabs(path) else str(root / posixpath.normpath(path))


def normalised(path: str, *, absolute: bool = False) -> str:
    """One spelling of a local path; of a URL every character counts."""
    if "://" in path:
        return path
    return os.path.abspath(path) if absolute else posixpath.normpath(path)


def open_splits(files: Mapping[int, str | Path | None]) -> dict[int, Place]:
    """The manifests that were passed, by fold.

    Raises:
        PlatformError: If there is none.
    """
    places = {fold: Place.of(file) for fold, file in files.items() if file is not None}
    if not places:
        flags = ", ".join(f"--{SPLIT_NAMES[fold]}" for fold in files)
        raise PlatformError(f"at least one manifest must be passed: {flags}")
    return places


def _label_kind(
    entries: Sequence[Entry], choice: LabelChoice, *, has_vocabulary: bool
) -> LabelKind:
    if choice == "none" or (choice == "auto" and not has_vocabulary):
        return "none"
    if not has_vocabulary:
        raise PlatformError(f"--label-kind {choice} must come with --labels, a csv of the labels")
    if choice == "auto":
        return "single" if all(len(entry.labels) == 1 for entry in entries) else "multi"
    return choice


def _clip(entry: Entry, clip_id: str, *, labels: Vocabulary | None, label_kind: LabelKind) -> Clip:
    numbers: tuple[int, ...] = ()
    if labels is not None and label_kind != "none":
        numbers = labels.look_up(entry.labels, where=entry.where)
    if label_kind == "single" and len(numbers) != 1:
        raise PlatformError(
            f"{entry.where}: clip must have one label, but has {len(numbers)}; "
            "correct it or pass --label-kind multi"
        )
    return Clip(
        clip_id=clip_id,
        path=entry.path,
        labels=numbers,
        fold=entry.fold,
        source=entry.source or clip_id,
    )


def _clip_ids(entries: Sequence[Entry]) -> list[str]:
    """File names without extension; with the folders that differ where those are needed."""
    listed = [entry.listed for entry in entries]
    stems = [PurePosixPath(path).stem for path in listed]
    if len(set(stems)) == len(stems) or len(set(listed)) < len(listed):
        return stems
    # characters will do, cut back to a folder; `commonpath` refuses URLs beside relative paths
    start = os.path.commonprefix(listed).rfind("/") + 1  # noqa: RUF071
    return [path[start:].removesuffix(PurePosixPath(path).suffix) for path in listed]
