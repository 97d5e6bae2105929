"""The manifests of fairseq, as MAE-AST and EAT use them: `train.tsv` beside `train.lbl`.

The first line of a tsv is the root folder, every other `path<TAB>number of samples`; the lines of
an lbl belong to them in the same order: `id<TAB>label,label`, or the labels alone; a blank line is
a clip without a label.
"""

from pathlib import Path, PurePosixPath

from asit_platform.data.listing import Listing
from asit_platform.data.readers.files import open_root, read_lines, read_text
from asit_platform.data.readers.manifests import Entry, LabelChoice, join, list_entries
from asit_platform.data.readers.splits import TEST, TRAIN, VALIDATION
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

VOCABULARY_FILE = "label_descriptors.csv"
_SPLIT_FILES = {TRAIN: ("train",), VALIDATION: ("valid", "dev"), TEST: ("eval", "test")}


def read_fairseq(
    root: str | Path,
    *,
    name: str,
    labels: str | Path | None = None,
    audio_root: str | Path | None = None,
    label_kind: LabelChoice = "auto",
) -> Listing:
    """List the clips of `train.tsv`, `valid.tsv` and `eval.tsv`, those of them that exist.

    Args:
        root: Folder of the manifests.
        name: What tables call the set.
        labels: Csv of the labels; `label_descriptors.csv` in `root`, if it is there, if None.
        audio_root: Folder of the sound; the first line of each tsv if None.
        label_kind: `auto` says single where every clip has exactly one label.

    Returns:
        Files are not looked for: one that is missing is skipped with its name when the shards are
        made.

    Raises:
        PlatformError: If there is no manifest, one is malformed, or lbl and tsv disagree.
    """
    place = open_root(root, holds="train.tsv")
    vocabulary = _vocabulary(place, labels, label_kind)
    entries = [
        entry
        for fold, tsv in _manifests(place).items()
        for entry in _read_split(tsv, fold, with_labels=vocabulary is not None, root=audio_root)
    ]
    return list_entries(
        place,
        entries,
        name=name,
        origin={"kind": "fairseq"},
        vocabulary=vocabulary,
        label_kind=label_kind,
    )


def _vocabulary(root: Place, labels: str | Path | None, label_kind: LabelChoice) -> Place | None:
    if label_kind == "none":
        return None
    if labels is not None:
        return Place.of(labels)
    found = root / VOCABULARY_FILE
    return found if found.exists() else None


def _manifests(root: Place) -> dict[int, Place]:
    found: dict[int, Place] = {}
    for fold, names in _SPLIT_FILES.items():
        for name in names:
            if fold not in found and (root / f"{name}.tsv").exists():
                found[fold] = root / f"{name}.tsv"
    if not found:
        raise PlatformError(
            f"{root}: must hold train.tsv, valid.tsv or eval.tsv, but holds none; "
            "pass the folder of the manifests as --root"
        )
    return found


def _read_split(
    tsv: Place, fold: int, *, with_labels: bool, root: str | Path | None
) -> list[Entry]:
    header, *lines = read_lines(tsv, remedy="write it again") or [""]
    if not header or "\t" in header:
        raise PlatformError(
            f"{tsv}: first line must be the root folder, but got {header!r}; write it again"
        )
    folder = Place.of(header if root is None else root)
    paths = [line.split("\t", 1)[0] for line in lines]
    labels = _read_labels(tsv, paths) if with_labels else [()] * len(paths)
    return [
        Entry(f"{tsv}: line {number}", fold, path, join(folder, path), names)
        for number, (path, names) in enumerate(zip(paths, labels, strict=True), start=2)
    ]


def _read_labels(tsv: Place, paths: list[str]) -> list[tuple[str, ...]]:
    lbl = tsv.parent / f"{PurePosixPath(tsv.name).stem}.lbl"
    remedy = "write it, or pass --label-kind none to leave labels out"
    lines = read_text(lbl, remedy=remedy).splitlines()
    if not any(line.strip() for line in lines[len(paths) :]):
        lines = lines[: len(paths)]  # blank ones at the end are no clips
    if len(lines) != len(paths):
        raise PlatformError(
            f"{lbl}: must have one line for each of the {len(paths):,} clips of {tsv.name}, but "
            f"has {len(lines):,}; write both again from one list"
        )
    return [
        _labels_of(f"{lbl}: line {number}", line, path)
        for number, (line, path) in enumerate(zip(lines, paths, strict=True), start=1)
    ]


def _labels_of(where: str, line: str, path: str) -> tuple[str, ...]:
    """An lbl without its ids cannot be checked; with them, a shifted line is found."""
    clip_id, tab, labels = line.partition("\t")
    if not tab:
        # some have a space there; ids hold spaces too, labels do not
        clip_id, _, labels = line.strip().rpartition(" ")
    if clip_id.strip() not in ("", PurePosixPath(path).stem, path):
        raise PlatformError(
            f"{where}: must be about {path}, the clip on the same line of the tsv, but is about "
            f"{clip_id.strip()!r}; write both again from one list"
        )
    return tuple(filter(None, labels.strip().split(",")))
