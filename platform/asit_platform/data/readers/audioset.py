"""AudioSet: segment lists, a vocabulary of 527 classes, and clips under many names.

The lists are the official `*_segments.csv` and `class_labels_indices.csv` of Gemmeke et al., "Audio
Set" (ICASSP 2017). Nobody holds all clips: videos vanish, so what is not on disk is left out with
a warning that says how much; tables should repeat it, since a tenth of the evaluation set moves the
mAP by points.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from asit_platform.data.listing import Clip, Listing
from asit_platform.data.readers.files import find_sounds, open_root, read_text
from asit_platform.data.readers.splits import (
    TEST,
    TRAIN,
    assemble,
    count_warnings,
    missing_warning,
)
from asit_platform.data.readers.tables import Vocabulary, iterate_rows, read_vocabulary
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

Subset = Literal["20k", "2m"]
_NUM_CLASSES = 527
_NUM_SEGMENTS = {"balanced_train": 22_160, "unbalanced_train": 2_041_789, "eval": 20_371}
# AST's AS-2M is both lists together; its AS-20K is the balanced one.
_TRAIN_LISTS: dict[Subset, tuple[str, ...]] = {
    "20k": ("balanced_train",),
    "2m": ("balanced_train", "unbalanced_train"),
}
_RECIPES: dict[Subset, tuple[str, ...]] = {
    "20k": ("ast_as20k", "ssast_as20k", "eat_as20k", "audiomae_as20k", "audiomosaic_as20k"),
    "2m": ("ast_as2m", "audiomae_as2m", "m2d_as2m"),
}
_REMEDY = "pass the folder that holds the *_segments.csv and class_labels_indices.csv as --metadata"
# A YouTube id has 11 characters and may itself hold `-` and `_`, so its length decides. Before it:
# nothing, or the `Y` of PANNs and DCASE. After it: nothing, the start (AST), or start and end.
_STEM = re.compile(r"Y?(?P<ytid>[\w-]{11})(?:_(?P<start>\d+(?:\.\d+)?)(?:_\d+(?:\.\d+)?)?)?", re.A)


class _Segment(NamedTuple):
    ytid: str
    start: str
    labels: tuple[int, ...]


def read_audioset(
    root: str | Path,
    *,
    subset: Subset = "20k",
    metadata: str | Path | None = None,
    with_eval: bool = True,
) -> Listing:
    """List AudioSet by its segment lists and what is on disk.

    Files are found by the YouTube id in their names, wherever below `root` they lie: `ID.wav`,
    `ID_30.000.flac` (AST), `YID.wav` (PANNs), `ID_30.000_40.000.wav`, `ID_30000_40000.mp3`.

    Args:
        root: Folder of the sound files, each one segment long.
        subset: Train on the balanced list (20k), or on both lists (2m).
        metadata: Folder of the lists and the vocabulary; `root` if None.
        with_eval: Also list the evaluation segments, as the split test.

    Returns:
        Raw labels as Google released them. AST's AS-20K uses the enhanced labels of PSLA: read
        its JSON manifest with `read_json_manifests` for those. There is no validation split.

    Raises:
        PlatformError: If a list or the vocabulary is missing or malformed, a label is unknown, or
            no segment is on disk.
    """
    place = open_root(root, holds="the sound files")
    lists = place if metadata is None else open_root(metadata, holds="lists", option="--metadata")
    vocabulary = read_vocabulary(lists / "class_labels_indices.csv", remedy=_REMEDY)
    warnings = count_warnings(
        {"class_labels_indices.csv": _NUM_CLASSES},
        {"class_labels_indices.csv": len(vocabulary.names)},
        noun="label",
    )
    parts = (*_TRAIN_LISTS[subset], *(["eval"] if with_eval else []))
    clips, of_parts = _list_parts(place, lists, vocabulary, parts)
    return assemble(
        lists,
        clips,
        name=f"AudioSet-{subset.upper()}",
        origin={"kind": "audioset", "subset": subset, "with_eval": with_eval},
        label_kind="multi",
        label_names=vocabulary.names,
        recipes=_RECIPES[subset],
        warnings=[*warnings, *of_parts],
    )


def _list_parts(
    root: Place, lists: Place, vocabulary: Vocabulary, parts: Iterable[str]
) -> tuple[list[Clip], list[str]]:
    """Clips of the lists that are on disk, and warnings of the counts."""
    on_disk = _by_segment(find_sounds(root))
    clips: list[Clip] = []
    warnings = []
    for part in parts:
        table = lists / f"{part}_segments.csv"
        fold = TEST if part == "eval" else TRAIN
        missing = []
        num_before = len(clips)
        for segment in _read_segments(table, vocabulary):
            relative = _find(segment, on_disk)
            if relative is None:
                missing.append(segment.ytid)
            else:
                clips.append(_clip(root, segment, relative, fold))
        num_found = len(clips) - num_before
        official, found = _NUM_SEGMENTS[part], num_found + len(missing)
        warnings += count_warnings({table.name: official}, {table.name: found}, noun="segment")
        warnings += missing_warning(root, part, missing, num_found=num_found)
    return clips, warnings


def _clip(root: Place, segment: _Segment, relative: str, fold: int) -> Clip:
    return Clip(
        # as in the strong labels: one video may have several segments
        clip_id=f"{segment.ytid}_{_milliseconds(segment.start)}",
        path=str(root / relative),
        labels=segment.labels,
        fold=fold,
        source=segment.ytid,
    )


def _read_segments(place: Place, vocabulary: Vocabulary) -> Iterator[_Segment]:
    """Rows `YTID, start, end, "mid,mid"` after comment lines; the quotes are not needed."""
    text = read_text(place, remedy=_REMEDY)
    known: dict[str, tuple[int, ...]] = {}  # two million segments share their label tuples
    for line, row in iterate_rows(place, text, skip_spaces=True):
        if row[0].startswith("#") or row[0].upper() == "YTID":
            continue
        where = f"{place}: line {line}"
        if len(row) < 4 or not _is_seconds(row[1]) or not _is_seconds(row[2]):
            raise PlatformError(
                f'{where}: must be `YTID, start, end, "label,label"` with seconds, but got '
                f"{', '.join(row)[:80]!r}; take the list as it was released"
            )
        mids = ",".join(row[3:]).replace(" ", "").replace("'", "").replace('"', "")
        if mids not in known:
            known[mids] = vocabulary.look_up(filter(None, mids.split(",")), where=where)
        yield _Segment(row[0], row[1], known[mids])


def _by_segment(sounds: Iterable[str]) -> dict[str, str]:
    """Files by `ID`, or by `ID_start` where the name says a start, in whatever unit."""
    found: dict[str, str] = {}
    for relative in sounds:
        matched = _STEM.fullmatch(PurePosixPath(relative).stem)
        if matched:
            found.setdefault(_key(matched["ytid"], matched["start"]), relative)
    return found


def _find(segment: _Segment, on_disk: Mapping[str, str]) -> str | None:
    """The file of this segment; one whose name says so goes before one without a start."""
    for start in (segment.start, str(_milliseconds(segment.start)), None):
        relative = on_disk.get(_key(segment.ytid, start))
        if relative is not None:
            return relative
    return None


def _key(ytid: str, start: str | None) -> str:
    return ytid if start is None else f"{ytid}_{float(start)}"


def _milliseconds(seconds: str) -> int:
    return round(float(seconds) * 1000)


def _is_seconds(text: str) -> bool:
    return re.fullmatch(r"\s*\d+(\.\d+)?\s*", text, re.A) is not None
