"""The JSON manifests of AST, SSAST, Audio-MAE, ASiT: `{"data": [{"wav": ..., "labels": ...}]}`.

Weight files beside them (`train_weight.csv`) are not read: weights that were made from another
download silently cost mAP, so they are computed anew from the clips that are there.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from asit_platform.data.listing import Listing
from asit_platform.data.readers.files import read_text
from asit_platform.data.readers.manifests import (
    Entry,
    LabelChoice,
    join,
    list_entries,
    open_splits,
)
from asit_platform.errors import PlatformError
from asit_platform.storage import Place


def read_json_manifests(
    files: Mapping[int, str | Path | None],
    *,
    name: str,
    labels: str | Path | None = None,
    root: str | Path | None = None,
    label_kind: LabelChoice = "auto",
) -> Listing:
    """List the clips of JSON manifests, one file a split.

    Args:
        files: Manifest of each fold (1 train, 2 validation, 3 test), or None.
        name: What tables call the set.
        labels: `class_labels_indices.csv`; without it labels are ignored.
        root: Folder that relative paths are joined to (ASiT's `--data_path`); that of the manifest
            if None.
        label_kind: `auto` says single where every clip has exactly one label.

    Returns:
        Files are not looked for: one that is missing is skipped with its name when the shards are
        made. The source of a clip is its `video_id` where there is one.

    Raises:
        PlatformError: If a manifest is missing or malformed, or a label is unknown.
    """
    places = open_splits(files)
    entries = []
    for fold, place in places.items():
        folder = place.parent if root is None else Place.of(root)
        entries += [
            _entry(item, f"{place}: data[{number}]", fold, root=folder)
            for number, item in enumerate(_read(place))
        ]
    return list_entries(
        ", ".join(str(place) for place in places.values()),
        entries,
        name=name,
        origin={"kind": "json"},
        vocabulary=None if labels is None else Place.of(labels),
        label_kind=label_kind,
    )


class _Item(NamedTuple):
    """An object with `wav`, small: two million dictionaries would take gigabytes."""

    wav: object
    labels: object
    video_id: object


def _read(place: Place) -> list[object]:
    text = read_text(place, remedy="pass the path of a JSON manifest")
    # AST's own sample file opens with a comment, which JSON does not have
    if text.lstrip().startswith("#"):
        text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    try:
        raw = json.loads(text, object_hook=_compact)
    except ValueError as error:
        raise PlatformError(f"{place}: must be JSON, but {error}; write it again") from error
    data = raw.get("data") if isinstance(raw, dict) else raw
    if not isinstance(data, list):
        raise PlatformError(
            f'{place}: must be {{"data": [{{"wav": ..., "labels": ...}}, ...]}}, but there is no '
            "list of clips; pass a manifest of AST's or SSAST's kind"
        )
    return data


def _compact(raw: dict[str, Any]) -> object:
    return _Item(raw["wav"], raw.get("labels"), raw.get("video_id")) if "wav" in raw else raw


def _entry(item: object, where: str, fold: int, *, root: Place) -> Entry:
    if not isinstance(item, _Item) or not isinstance(item.wav, str) or not item.wav:
        raise PlatformError(f"{where}: must have a path as `wav`; correct or remove the entry")
    if not isinstance(item.labels, str | None):
        raise PlatformError(
            f"{where}: labels must be one text `label,label`, but got {item.labels!r}"
        )
    names = (name.strip() for name in (item.labels or "").split(","))
    return Entry(
        where=where,
        fold=fold,
        listed=item.wav,
        path=join(root, item.wav),
        labels=tuple(filter(None, names)),
        source=None if item.video_id is None else str(item.video_id),
    )
