"""Manifests as they are given to `asit data shards`: ours, or anybody's table of the same columns.

A .parquet or .csv file with the columns `clip_id` and `path`, and as needed `labels`, `fold`,
`source`, `start_s`, `stop_s`. In a .csv, `labels` are names with `;` between them. Relative paths
start from the folder of the file.
"""

import posixpath
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from asit_platform.data.listing import LabelKind, Listing
from asit_platform.data.manifest import (
    LISTING_KEY,
    MANIFEST_SCHEMA,
    Manifest,
    checked,
    head_from_json,
    label_counts,
    label_numbers,
)
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

_NEEDED = ("clip_id", "path")
_DEFAULTS: dict[str, Any] = {"labels": [], "fold": 1, "start_s": 0.0, "stop_s": None}
_SEPARATOR = ";"


def read_manifest(place: str | Path | Place) -> Manifest:
    """Read a manifest.

    Args:
        place: A .parquet or .csv file: a path, or an s3:// or gs:// URL.

    Raises:
        PlatformError: If the file is missing, of another kind, cannot be read, lacks a column,
            lists a clip twice, or has a label that is not in its vocabulary.
    """
    place = Place.of(place)
    table, names = _read_table(place)
    missing = [name for name in _NEEDED if name not in table.column_names]
    if missing:
        raise PlatformError(
            f"{place}: must have the columns {', '.join(_NEEDED)}, but {', '.join(missing)} is "
            f"missing (found: {', '.join(table.column_names) or 'none'})"
        )
    clips = _with_absolute_paths(place, _fill_in(place, table))
    _check_no_nulls(place, clips)
    if names is None and LISTING_KEY not in (table.schema.metadata or {}):
        clips, names = _numbered_anew(clips)
    return checked(place, _head(place, table, clips, names), clips)


def _read_table(place: Place) -> tuple[pa.Table, tuple[str, ...] | None]:
    """The file's own columns, and the label names where the labels were names."""
    kind = PurePosixPath(place.path).suffix.lower()
    if kind not in (".parquet", ".csv"):
        raise PlatformError(f"{place}: a manifest must be a .parquet or .csv file")
    try:
        if not place.is_file():
            raise PlatformError(
                f"{place}: manifest must exist, but it does not; `asit data prepare` writes one"
            )
        with place.open_input() as file:
            return (pq.read_table(file), None) if kind == ".parquet" else _read_csv(file)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise PlatformError(f"{place}: must be a readable {kind[1:]} file, but {reason}") from error


def _read_csv(file: pa.NativeFile) -> tuple[pa.Table, tuple[str, ...]]:
    # a clip id such as 007 is no number
    types = {field.name: field.type for field in MANIFEST_SCHEMA} | {"labels": pa.string()}
    table = csv.read_csv(
        file,
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types=types),
    )
    if "labels" not in table.column_names:
        return table, ()
    texts = table["labels"].to_pylist()
    named = [[name.strip() for name in text.split(_SEPARATOR) if name.strip()] for text in texts]
    names = _in_order({name for labels in named for name in labels})
    numbers = {name: number for number, name in enumerate(names)}
    labels = pa.array(
        [[numbers[name] for name in labels] for labels in named], pa.list_(pa.int32())
    )
    position = table.column_names.index("labels")
    return table.set_column(position, "labels", labels), names


def _in_order(names: set[str]) -> tuple[str, ...]:
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), len(name), name)))
    return tuple(sorted(names))


def _fill_in(place: Place, table: pa.Table) -> pa.Table:
    """Columns of `MANIFEST_SCHEMA`; those that may be left out get their defaults."""
    columns = {}
    for field in MANIFEST_SCHEMA:
        if field.name in table.column_names:
            columns[field.name] = _cast(place, table[field.name], field)
        elif field.name == "source":  # every clip counts as a recording of its own
            columns[field.name] = columns["clip_id"]
        else:
            columns[field.name] = pa.array([_DEFAULTS[field.name]] * len(table), field.type)
    return pa.table(columns, schema=MANIFEST_SCHEMA)


def _cast(place: Place, column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise PlatformError(
            f"{place}: {field.name} must be {field.type}, but got {column.type} "
            f"({' '.join(str(error).split())})"
        ) from error


def _check_no_nulls(place: Place, clips: pa.Table) -> None:
    num_missing = clips["labels"].combine_chunks().flatten().null_count
    if num_missing:
        raise PlatformError(
            f"{place}: labels must be numbers, but {num_missing} inside the lists are null; fill "
            "them in or take them out"
        )


def _numbered_anew(clips: pa.Table) -> tuple[pa.Table, tuple[str, ...] | None]:
    """Labels from 0 on without gaps, called by the numbers they had; negative ones are left."""
    labels = label_numbers(clips)
    seen, numbers = np.unique(labels, return_inverse=True)
    nested = clips["labels"].combine_chunks()
    if nested.null_count or not len(seen) or seen[0] < 0:
        return clips, None
    renumbered = pa.ListArray.from_arrays(
        np.concatenate([[0], np.cumsum(label_counts(clips))]).astype(np.int32),
        pa.array(numbers.astype(np.int32)),
    )
    position = clips.column_names.index("labels")
    return clips.set_column(position, "labels", renumbered), tuple(str(each) for each in seen)


def _with_absolute_paths(place: Place, clips: pa.Table) -> pa.Table:
    folder = place.absolute().parent
    paths = [_join(folder, path) for path in clips["path"].to_pylist()]
    return clips.set_column(clips.column_names.index("path"), "path", pa.array(paths, pa.string()))


def _join(folder: Place, path: str | None) -> str | None:
    if path is None or "://" in path or path.startswith(("/", "file:")):
        return path
    return posixpath.normpath(str(folder / path)) if folder.is_local else str(folder / path)


def _head(place: Place, table: pa.Table, clips: pa.Table, names: tuple[str, ...] | None) -> Listing:
    """What the file says it is; a table that is not ours is called by its name."""
    text = (table.schema.metadata or {}).get(LISTING_KEY)
    if text is not None:
        try:
            return head_from_json(text)
        except (KeyError, TypeError, ValueError) as error:
            raise PlatformError(
                f"{place}: must say what it lists, but its metadata are malformed "
                f"({type(error).__name__}: {error}); write it again with `asit data prepare`"
            ) from error
    name = PurePosixPath(place.name).stem
    if names is None:
        names = tuple(str(number) for number in range(label_numbers(clips).max(initial=-1) + 1))
    return Listing(
        name=name,
        synthetic=False,
        origin={"kind": "manifest", "name": name},
        label_kind=_label_kind(clips, names),
        label_names=names,
        fold_names={},
        metric=None,
        recipes=(),
        warnings=(),
        clips=(),
    )


def _label_kind(clips: pa.Table, names: Sequence[str]) -> LabelKind:
    if not names:
        return "none"
    return "single" if (label_counts(clips) == 1).all() else "multi"
