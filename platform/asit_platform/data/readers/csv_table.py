"""People's own data as a csv: any columns, mapped by flags."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path, PurePosixPath

from asit_platform.data.listing import Clip, LabelKind, Listing
from asit_platform.data.readers.manifests import join, normalised
from asit_platform.data.readers.splits import SPLIT_WORDS, assemble, deal_folds
from asit_platform.data.readers.tables import Row, Vocabulary, read_table, read_vocabulary
from asit_platform.errors import PlatformError
from asit_platform.storage import Place


@dataclass(frozen=True, kw_only=True, slots=True)
class CsvColumns:
    """Which column says what; None where no column does.

    Attributes:
        path: The sound file, relative to the root, absolute or a URL.
        label: Its label, or its labels.
        fold: A number, or train, validation, test (and their usual abbreviations).
        source: The recording that a clip was cut from: such clips share a fold.
        clip_id: A unique id; else the path without extension, with the start where there is one.
        start: Where in the file the clip begins, in seconds.
        stop: Where it ends, in seconds; an empty value is the end of the file.
    """

    path: str = "path"
    label: str | None = None
    fold: str | None = None
    source: str | None = None
    clip_id: str | None = None
    start: str | None = None
    stop: str | None = None

    def named(self) -> list[str]:
        """The columns that must be there."""
        every = (self.path, self.label, self.fold, self.source, self.clip_id, self.start, self.stop)
        return [column for column in every if column is not None]


def read_csv_table(
    table: str | Path,
    columns: CsvColumns,
    *,
    name: str,
    root: str | Path | None = None,
    label_separator: str | None = None,
    vocabulary: str | Path | None = None,
    delimiter: str | None = None,
    num_folds: int = 5,
) -> Listing:
    """List the clips of a csv with a header, one row a clip.

    Args:
        table: The csv.
        columns: Which of its columns says what.
        name: What tables call the set.
        root: Folder that relative paths start at; that of the csv if None.
        label_separator: Between the labels of a clip; None says that each has one label.
        vocabulary: Csv with number and name of each label; the labels that occur if None.
        delimiter: Between the columns; found in the header if None.
        num_folds: Folds to deal the recordings to where no column gives one.

    Returns:
        Files are not looked for: one that is missing is skipped with its name when the shards are
        made.

    Raises:
        PlatformError: If a column is missing, a value is malformed, or a label is not in the
            vocabulary.
    """
    place = Place.of(table)
    if delimiter is not None and len(delimiter) != 1:
        raise PlatformError(f"--delimiter must be one character, but got {delimiter!r}")
    remedy = "pass the path of a csv as --table"
    rows = read_table(place, needed=columns.named(), remedy=remedy, delimiter=delimiter)
    texts = [_labels(row, columns.label, label_separator) for row in rows]
    if vocabulary is None:
        names = Vocabulary.of_names(chain.from_iterable(texts), where=str(place))
    else:
        names = read_vocabulary(Place.of(vocabulary), remedy="pass a csv of labels as --labels")
    splits = _are_splits(rows, columns.fold)
    folder = place.parent if root is None else Place.of(root)
    clips = []
    spelled: dict[str, str] = {}  # where a file is: its first spelling, which moves with the set
    for row, labels in zip(rows, texts, strict=True):
        where = f"{place}: line {row.line}"
        if columns.label is not None and label_separator is None and not labels:
            raise PlatformError(f"{where}: {columns.label} must not be empty; give it a label")
        clip = _clip(where, row, columns, root=folder, splits=splits)
        source = clip.source
        if columns.source is None:
            source = spelled.setdefault(normalised(clip.path, absolute=True), source)
        clips.append(replace(clip, labels=names.look_up(labels, where=where), source=source))
    label_kind = _label_kind(columns.label, label_separator)
    return assemble(
        place,
        clips if columns.fold is not None else _dealt(clips, num_folds),
        name=name,
        origin={
            "kind": "csv",
            "name": name,
            "label_kind": label_kind,
            "num_folds": num_folds if columns.fold is None else None,
        },
        label_kind=label_kind,
        label_names=() if label_kind == "none" else names.names,
        official_splits=splits,
    )


def _label_kind(column: str | None, separator: str | None) -> LabelKind:
    if column is None:
        return "none"
    return "single" if separator is None else "multi"


def _labels(row: Row, column: str | None, separator: str | None) -> tuple[str, ...]:
    if column is None:
        return ()
    text = row.values[column]
    parts = [text] if separator is None else text.split(separator)
    return tuple(filter(None, (part.strip() for part in parts)))


def _are_splits(rows: Sequence[Row], column: str | None) -> bool:
    return column is not None and bool(rows) and not rows[0].values[column].isdecimal()


def _clip(where: str, row: Row, columns: CsvColumns, *, root: Place, splits: bool) -> Clip:
    values = row.values
    path = values[columns.path]
    if not path:
        raise PlatformError(f"{where}: {columns.path} must not be empty; name a sound file")
    start_s = _seconds(where, values, columns.start) or 0.0
    stop_s = _seconds(where, values, columns.stop)
    if stop_s is not None and stop_s <= start_s:
        raise PlatformError(
            f"{where}: {columns.stop} must be after {start_s:g} s, but got {stop_s:g} s"
        )
    clip_id = path.removesuffix(PurePosixPath(path).suffix)
    if columns.start is not None:
        clip_id += f"_{round(1000 * start_s)}"
    clip_id = values[columns.clip_id] if columns.clip_id is not None else clip_id
    return Clip(
        clip_id=clip_id,
        path=join(root, path),
        labels=(),
        fold=0 if columns.fold is None else _fold(where, values[columns.fold], splits=splits),
        # parts of one file are of one recording, whatever else is known
        source=values[columns.source] if columns.source is not None else normalised(path),
        start_s=start_s,
        stop_s=stop_s,
    )


def _fold(where: str, text: str, *, splits: bool) -> int:
    if splits and text.lower() in SPLIT_WORDS:
        return SPLIT_WORDS[text.lower()]
    if not splits and text.isdecimal():
        return int(text)
    rule = "train, validation or test" if splits else "a whole number, as on the first line"
    raise PlatformError(f"{where}: fold must be {rule}, but got {text!r}; correct it")


def _seconds(where: str, values: Mapping[str, str], column: str | None) -> float | None:
    if column is None or not values[column]:
        return None
    try:
        seconds = float(values[column])
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise PlatformError(
            f"{where}: {column} must be seconds >= 0, but got {values[column]!r}; correct it"
        )
    return seconds


def _dealt(clips: Sequence[Clip], num_folds: int) -> list[Clip]:
    folds = deal_folds(((clip.source, clip.labels) for clip in clips), num_folds)
    return [replace(clip, fold=folds[clip.source]) for clip in clips]
