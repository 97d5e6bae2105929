"""The manifest: what is to be built, one row per clip, before any sound is read.

It is all that the second half of a build needs, so that a build goes on wherever it is run again.
A table of two million clips is a few hundred megabytes: clips are Python objects in a reader only.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from asit_platform.data.dataset import MANIFEST_FILE
from asit_platform.data.listing import Clip, Listing, check_counts
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

LISTING_KEY = b"asit.listing"
MANIFEST_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("path", pa.string()),
        ("labels", pa.list_(pa.int32())),
        ("fold", pa.int32()),
        ("source", pa.string()),
        ("start_s", pa.float64()),
        ("stop_s", pa.float64()),  # null: the end of the file
    ]
)
HEAD_FIELDS = [name for name in Listing.__slots__ if name != "clips"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A data set before any sound was read, as a table.

    Attributes:
        listing: What it is; its own `clips` are empty.
        clips: Columns of `MANIFEST_SCHEMA`, ordered by clip id; local paths are absolute.
    """

    listing: Listing
    clips: pa.Table

    @classmethod
    def of(cls, listing: Listing) -> "Manifest":
        """Take a reader's listing.

        Raises:
            PlatformError: If two clips share an id, or a label is not in the vocabulary.
        """
        columns = {field.name: _column(listing.clips, field) for field in MANIFEST_SCHEMA}
        origin = json.loads(json.dumps(listing.origin))  # as it is read again: tuples become lists
        head = replace(listing, origin=origin, clips=())
        return checked(listing.name, head, pa.table(columns, schema=MANIFEST_SCHEMA))


def checked(where: object, listing: Listing, clips: pa.Table) -> Manifest:
    """Order clips by their ids and check that they are what a build expects.

    Args:
        where: The file or data set to name.
        listing: What it is.
        clips: Columns of `MANIFEST_SCHEMA`.

    Raises:
        PlatformError: If there is no clip, a value is missing, two clips share an id, a path is
            of a kind that cannot be read, a clip ends before it begins, a fold is negative, or a
            label is not in the vocabulary or has one clip.
    """
    if not len(clips):
        raise PlatformError(f"{where}: must list at least one clip, but lists none")
    for name in clips.column_names:
        if name != "stop_s" and clips[name].null_count:
            raise PlatformError(
                f"{where}: {name} must be given for every clip, but {clips[name].null_count} of "
                f"{len(clips)} have none; fill it in"
            )
    clips = clips.combine_chunks()
    if not _is_sorted(clips["clip_id"]):  # a reader's are, and a second table of them is large
        clips = clips.sort_by("clip_id").combine_chunks()
    _check_unique(where, clips["clip_id"])
    _check_paths(where, clips["path"])
    _check_times(where, clips)
    _check_folds(where, clips["fold"])
    _check_vocabulary(where, listing, clips)
    return Manifest(listing=listing, clips=clips)


def write_manifest(folder: Place, manifest: Manifest) -> None:
    """Write `manifest.parquet` into a folder."""
    table = manifest.clips.replace_schema_metadata({LISTING_KEY: _head_to_json(manifest.listing)})
    with (folder / MANIFEST_FILE).replacing() as temporary:
        pq.write_table(table, temporary)


def label_numbers(clips: pa.Table) -> np.ndarray:
    """The labels of all clips, one clip after the other."""
    return clips["labels"].combine_chunks().flatten().to_numpy()


def label_counts(clips: pa.Table) -> np.ndarray:
    """How many labels each clip has."""
    return np.diff(clips["labels"].combine_chunks().offsets.to_numpy())


def head_from_json(text: bytes) -> Listing:
    """Read what `write_manifest` put beside the clips.

    Raises:
        ValueError, KeyError, TypeError: If it is not that.
    """
    raw: dict[str, Any] = json.loads(text)
    fields = {name: raw[name] for name in HEAD_FIELDS}
    for name in ("label_names", "recipes", "warnings"):
        fields[name] = tuple(raw[name])
    fields["fold_names"] = {int(fold): name for fold, name in raw["fold_names"].items()}
    return Listing(**fields, clips=())


def _head_to_json(listing: Listing) -> str:
    fields = {name: getattr(listing, name) for name in HEAD_FIELDS}
    fields["fold_names"] = {str(fold): name for fold, name in listing.fold_names.items()}
    return json.dumps(fields, sort_keys=True)


def _column(clips: Sequence[Clip], field: pa.Field) -> pa.Array:
    if field.name == "path":
        return pa.array([_absolute(clip.path) for clip in clips], field.type)
    return pa.array([getattr(clip, field.name) for clip in clips], field.type)


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(path)


def _is_sorted(clip_ids: pa.ChunkedArray) -> bool:
    in_order = pc.call_function("less_equal", [clip_ids[:-1], clip_ids[1:]])
    return bool(np.all(in_order.to_numpy()))


def _check_unique(where: object, clip_ids: pa.ChunkedArray) -> None:
    repeated = pc.call_function("equal", [clip_ids[1:], clip_ids[:-1]]).to_numpy()
    if repeated.any():
        first = clip_ids[int(np.argmax(repeated))].as_py()
        times = clip_ids.to_pylist().count(first)
        raise PlatformError(
            f"{where}: each clip must be listed once, but {first!r} is listed {times} times; "
            "remove the others"
        )


def _check_paths(where: object, paths: pa.ChunkedArray) -> None:
    is_url = pc.call_function("match_substring", [paths], pc.MatchSubstringOptions("://"))
    for path in paths.filter(is_url).to_pylist():
        try:
            Place.of(path)
        except PlatformError as error:
            raise PlatformError(f"{where}: path {error}") from error


def _check_times(where: object, clips: pa.Table) -> None:
    start_s = clips["start_s"].to_numpy()
    stop_s = clips["stop_s"].to_numpy()  # null becomes NaN
    is_given = clips["stop_s"].is_valid().to_numpy()
    good_start = np.isfinite(start_s) & (start_s >= 0)
    good = good_start & (~is_given | (np.isfinite(stop_s) & (stop_s > start_s)))
    if not good.all():
        row = int(np.argmin(good))
        clip = clips.slice(row, 1).to_pylist()[0]
        raise PlatformError(
            f"{where}: start_s must be finite and >= 0, and stop_s finite and greater, or left "
            f"out for the end of the file, but {clip['clip_id']!r} has {clip['start_s']} and "
            f"{clip['stop_s']}; correct them"
        )


def _check_folds(where: object, folds: pa.ChunkedArray) -> None:
    lowest = int(folds.to_numpy().min())
    if lowest < 0:
        raise PlatformError(f"{where}: fold must be >= 0, but got {lowest}; number the folds anew")


def _check_vocabulary(where: object, listing: Listing, clips: pa.Table) -> None:
    labels = label_numbers(clips)
    num_labels = len(listing.label_names)
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_labels:
        outside = labels[(labels < 0) | (labels >= num_labels)][0]
        raise PlatformError(
            f"{where}: labels must be in [0, {num_labels}), the label names, but got {outside}; "
            "correct the labels or the names"
        )
    counts = label_counts(clips)
    allowed = {"single": counts == 1, "multi": counts >= 0, "none": counts == 0}
    wrong = np.flatnonzero(~allowed[listing.label_kind])
    if len(wrong):
        row = int(wrong[0])
        rule = "one label" if listing.label_kind == "single" else "no label"
        raise PlatformError(
            f"{where}: each clip must have {rule}, but {clips['clip_id'][row].as_py()!r} has "
            f"{counts[row]}; correct its labels"
        )
    if listing.label_kind == "single":
        per_label = np.bincount(labels, minlength=num_labels).tolist()
        check_counts(where, dict(enumerate(per_label)), listing.label_names)
