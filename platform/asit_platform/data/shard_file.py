"""One shard: a Parquet file of clips of one fold, which says itself what it was made from.

Its schema's metadata hold the front end, a fingerprint of all it depends on, and a report of what
became of the clips planned for it. So a build that is run again takes a finished shard as it is,
and a reader recognises a stale one.

Imports neither Ray nor torch.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from asit_platform.data.listing import Content
from asit_platform.errors import PlatformError
from asit_platform.storage import FileStat, Place

FORMAT_VERSION = 2
SHARD_FOLDER = "shards"
DIGEST_KEY = b"asit.digest"
FINGERPRINT_KEY = b"asit.fingerprint"
FRONT_END_KEY = b"asit.front_end"
REPORT_KEY = b"asit.report"
REMEDY = "build the dataset again with `asit data prepare` or `asit data synth`"
_FINGERPRINT_LENGTH = 32
_MAX_FOOTERS = 256  # read when a dataset is opened; each is one or two requests to a bucket
_THREADS = 16
_CLIP_FIELDS = [
    ("clip_id", pa.string()),
    ("labels", pa.list_(pa.int32())),
    ("fold", pa.int32()),
    ("source", pa.string()),
]
_CONTENT_FIELDS: dict[Content, list[tuple[str, pa.DataType]]] = {
    # float16, T*F values, row-major
    "log_mel": [("num_frames", pa.int32()), ("log_mel", pa.large_binary())],
    # int16
    "waveform": [("num_samples", pa.int32()), ("waveform", pa.large_binary())],
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """A shard as it was when the dataset was finished."""

    file: str
    fold: int
    num_rows: int
    num_bytes: int
    sha256: str
    fingerprint: str


def shard_schema(content: Content) -> pa.Schema:
    """Columns of a shard."""
    return pa.schema([*_CLIP_FIELDS, *_CONTENT_FIELDS[content]])


def digest(described: object) -> str:
    """Fingerprint of something JSON-able."""
    text = json.dumps(described, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_FINGERPRINT_LENGTH]


def shard_fingerprint(
    clips: Sequence[Mapping[str, Any]],
    content_hashes: Sequence[str],
    *,
    front_end: Mapping[str, Any],
    content: Content,
    keep_silent: bool,
) -> str:
    """Hash of everything a shard depends on; where the files lie is not part of it.

    Args:
        clips: Rows of the manifest that are planned for the shard.
        content_hashes: Of their files; an empty string for one that cannot be read.
        front_end: Fields of `LogMelConfig`.
        content: What the shard holds.
        keep_silent: Whether clips of digital silence are kept.
    """
    names = ("clip_id", "labels", "fold", "source", "start_s", "stop_s")
    return digest(
        {
            "version": FORMAT_VERSION,
            "front_end": dict(front_end),
            "content": content,
            "keep_silent": keep_silent,
            "clips": [
                [*(clip[name] for name in names), sha256]
                for clip, sha256 in zip(clips, content_hashes, strict=True)
            ],
        }
    )


def shard_metadata(front_end: Mapping[str, Any], fingerprint: str, report: str) -> dict[bytes, str]:
    """What a shard says of itself, with a digest: no page checksum covers it."""
    texts = {
        FRONT_END_KEY: json.dumps(front_end),
        FINGERPRINT_KEY: fingerprint,
        REPORT_KEY: report,
    }
    return texts | {DIGEST_KEY: digest(list(texts.values()))}


def is_metadata_whole(metadata: Mapping[bytes, bytes]) -> bool:
    """Whether a shard's metadata are as they were written.

    Raises:
        KeyError, ValueError: If one is missing or no text.
    """
    texts = [metadata[key].decode() for key in (FRONT_END_KEY, FINGERPRINT_KEY, REPORT_KEY)]
    return metadata[DIGEST_KEY].decode() == digest(texts)


@lru_cache(maxsize=1024)
def source_sha256(place: Place, found: FileStat) -> str:
    """Content hash of a sound file; many clips may be cut from one, which is read once.

    Args:
        place: The file.
        found: Its size and times now; with others, it is another file.
    """
    del found
    return file_sha256(place)


def file_sha256(place: Place) -> str:
    """Content hash of a file, in hexadecimal."""
    with place.open_input() as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]


def read_footer(place: Place, what: str) -> pq.FileMetaData:
    """Read what a Parquet file says of itself.

    Raises:
        PlatformError: If it is not readable Parquet.
    """
    try:
        with place.open_input() as file:
            return pq.read_metadata(file)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise PlatformError(
            f"{place}: {what} must be readable Parquet, but {reason}; {REMEDY}"
        ) from error


def check_shards(folder: Place, shards: Sequence[Shard]) -> None:
    """Check that shards are there, of the size they had, and belong to the dataset.

    Sizes come from one listing of the folder. Of very many shards, footers are looked at in some
    hundred, evenly spaced: `asit data check` reads all.

    Raises:
        PlatformError: Naming the first shard that is missing, truncated or stale.
    """
    sizes = (folder / SHARD_FOLDER).file_sizes()
    for shard in shards:
        _check_size(folder / shard.file, shard, sizes)
    spaced = np.linspace(0, len(shards) - 1, min(len(shards), _MAX_FOOTERS)).astype(int)
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda index: _check_fingerprint(folder, shards[index]), spaced))


def _check_size(place: Place, shard: Shard, sizes: Mapping[str, int]) -> None:
    num_bytes = sizes.get(place.name)
    if num_bytes is None:
        raise PlatformError(f"{place}: shard must exist, but it does not; {REMEDY}")
    if num_bytes != shard.num_bytes:
        raise PlatformError(
            f"{place}: shard must hold {shard.num_bytes} bytes, but got {num_bytes} "
            f"(truncated or replaced); {REMEDY}"
        )


def _check_fingerprint(folder: Place, shard: Shard) -> None:
    place = folder / shard.file
    metadata = read_footer(place, "shard").metadata or {}
    found = metadata.get(FINGERPRINT_KEY, b"none").decode()
    if found != shard.fingerprint:
        raise PlatformError(
            f"{place}: shard must carry fingerprint {shard.fingerprint}, but got {found} "
            f"(stale shard); {REMEDY}"
        )
