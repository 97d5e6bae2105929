"""What lies in `--out` already, and may it be built in?

A folder is ours if it is new or holds nothing but what a build writes; another dataset, or files
of someone else, are never overwritten. One build at a time works in a folder.
"""

import fcntl
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from typing import IO, Any

import numpy as np
import pyarrow.compute as pc

from asit_platform.data.dataset import (
    CLIPS_FILE,
    DATASET_FILE,
    MANIFEST_FILE,
    SHARD_FOLDER,
    SKIPPED_FILE,
    DatasetInfo,
)
from asit_platform.data.manifest import HEAD_FIELDS, MANIFEST_SCHEMA, Manifest, write_manifest
from asit_platform.data.manifest_file import read_manifest
from asit_platform.data.options import PrepareOptions
from asit_platform.data.shard_file import REMEDY
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

AUDIO_FOLDER = "audio"
LOCK_FILE = "build.lock"
SYNTHETIC_PREFIX = "synthetic-"
_FILES = (DATASET_FILE, MANIFEST_FILE, CLIPS_FILE, SKIPPED_FILE, LOCK_FILE)
_OURS = re.compile(
    rf"{AUDIO_FOLDER}(/{SYNTHETIC_PREFIX}.*\.wav)?"
    rf"|{SHARD_FOLDER}(/fold\d+-\d+\.parquet)?"
    rf"|{'|'.join(re.escape(name) for name in _FILES)}"
    # What a killed build left of `write_whole`.
    rf"|(({SHARD_FOLDER}|{AUDIO_FOLDER})/)?\.[^/]*\.\d+\.tmp"
)


@contextmanager
def claimed(out: Place) -> Iterator[None]:
    """Make the folder, if need be, and keep it from every other build; the kernel ends the claim.

    A bucket knows no claims: there, two builds at once write the same bytes twice.

    Raises:
        PlatformError: If it holds files that are not ours, cannot be written, or is being built
            in already.
    """
    _check_free(out)
    try:
        out.mkdir()
        lock = (out / LOCK_FILE).local.open("a") if out.is_local else nullcontext()
    except OSError as error:
        raise not_writable(out, error) from error
    with lock as file:
        if file is not None:
            _lock(out, file)
        yield


def _lock(out: Place, file: IO[str]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PlatformError(
            f"{out}: --out must not be in use, but another build is running there; wait for it, "
            "stop it, or choose another --out"
        ) from None
    except OSError as error:
        raise PlatformError(
            f"{out}: --out must be on a file system with locks, but {error}; choose another"
        ) from error


def finished_build(
    out: Place, *, origin: Mapping[str, Any], options: PrepareOptions
) -> DatasetInfo | None:
    """Look for a finished build of the same thing, without reading a sound.

    Returns:
        What lies there if it came from the same origin; None if there is no finished build.

    Raises:
        PlatformError: If it holds another dataset, or one of another version of the program.
    """
    if not (out / DATASET_FILE).is_file():
        return None
    try:
        info = DatasetInfo.read(out)
    except PlatformError as error:
        if (out / MANIFEST_FILE).is_file() and not _foreign(out):
            return None  # damaged; the manifest says whether it is the same dataset
        raise _not_readable(out, error) from error
    front_end = {**asdict(options.front_end), "content": options.content}
    differences = "; ".join(
        text
        for text in (
            _differences(info.origin, info_origin(origin, options)),
            _differences({**info.front_end, "content": info.content}, front_end),
        )
        if text
    )
    if differences:
        raise _other_dataset(out, info.name, differences)
    return info


def info_origin(origin: Mapping[str, Any], options: PrepareOptions) -> dict[str, Any]:
    """What `dataset.json` keeps of where a dataset came from."""
    return {**_to_json(origin), "keep_silent": options.keep_silent}


def agree_on_manifest(
    out: Place,
    manifest: Manifest,
    *,
    before_move: Callable[[np.ndarray], None] = lambda is_moved: None,
) -> None:
    """Write the manifest, or make sure that the one that lies there is of the same data set.

    Args:
        out: The dataset folder.
        manifest: What is to be built.
        before_move: Called with whether a clip's path is another than in the manifest that lies
            there, before that is replaced.

    Raises:
        PlatformError: If it is of another; where the sound files lie may differ.
        OSError: If it cannot be written.
    """
    place = out / MANIFEST_FILE
    if place.is_file():
        try:
            found = read_manifest(place)
        except PlatformError as error:
            raise _not_readable(out, error) from error
        difference = _manifest_difference(found, manifest)
        if difference:
            raise _other_dataset(out, found.listing.name, difference)
        if found.clips["path"].equals(manifest.clips["path"]):
            return
        is_moved = pc.call_function("not_equal", [found.clips["path"], manifest.clips["path"]])
        before_move(is_moved.to_numpy())
    write_manifest(out, manifest)


def clear(out: Place, *, keep: Collection[str]) -> None:
    """Take away what an unfinished build left, `dataset.json` first, but for the shards to keep.

    Args:
        out: The dataset folder.
        keep: Names of shards that are planned.

    Raises:
        OSError: If the folder cannot be written.
    """
    (out / DATASET_FILE).unlink(missing_ok=True)
    (out / SHARD_FOLDER).mkdir()
    for name in _names(out):
        unplanned = name.startswith(f"{SHARD_FOLDER}/") and name not in keep
        if _OURS.fullmatch(name) and (unplanned or name.endswith(".tmp")):
            (out / name).unlink(missing_ok=True)


def not_writable(out: Place, error: OSError) -> PlatformError:
    """The error to raise where a file cannot be written."""
    return PlatformError(
        f"{out}: --out must be writable, but {error}; choose another or free space"
    )


def _not_readable(out: Place, error: PlatformError) -> PlatformError:
    reason = str(error).removesuffix(f"; {REMEDY}")
    return PlatformError(
        f"{out}: --out must be free or hold a dataset of this version, but {reason}; delete the "
        "folder or choose another --out"
    )


def _other_dataset(out: Place, name: str, difference: str) -> PlatformError:
    return PlatformError(
        f"{out}: --out must be free or hold the same dataset, but it holds another "
        f"({name}: {difference}); choose another --out or delete the folder"
    )


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{key} {found.get(key)}, wanted {wanted.get(key)}"
        for key in sorted({*found, *wanted})
        if found.get(key) != wanted.get(key)
    )


def _manifest_difference(found: Manifest, wanted: Manifest) -> str:
    """In a few words; empty where the same clips are listed, wherever their files lie."""
    origin = _differences(found.listing.origin, wanted.listing.origin)
    if origin:
        return origin
    for name in HEAD_FIELDS:
        if name != "warnings" and getattr(found.listing, name) != getattr(wanted.listing, name):
            return f"other {name}"
    if len(found.clips) != len(wanted.clips):
        return f"{len(found.clips)} clips, wanted {len(wanted.clips)}"
    columns = [name for name in MANIFEST_SCHEMA.names if name != "path"]
    other = [name for name in columns if not found.clips[name].equals(wanted.clips[name])]
    return f"other {', '.join(other)} of clips" if other else ""


def _check_free(out: Place) -> None:
    try:
        if out.is_file():
            raise PlatformError(f"{out}: --out must be a folder, but it is a file")
        if (out / DATASET_FILE).is_file():
            return
        foreign = _foreign(out)
    except OSError as error:
        raise PlatformError(
            f"{out}: --out must be readable, but {error}; choose another or correct its permissions"
        ) from error
    if foreign:
        raise PlatformError(
            f"{out}: --out must be a new or empty folder, but it holds {foreign[0]!r}"
            f"{' and more' if len(foreign) > 1 else ''}; choose another"
        )


def _foreign(out: Place) -> list[str]:
    return [name for name in _names(out) if not _OURS.fullmatch(name)]


def _names(out: Place) -> list[str]:
    inside = [
        f"{folder}/{place.name}"
        for folder in (AUDIO_FOLDER, SHARD_FOLDER)
        for place in (out / folder).iterdir()
    ]
    return sorted([*inside, *(place.name for place in out.iterdir())])


def _to_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """As it will be read again: tuples become lists."""
    return json.loads(json.dumps(value))
