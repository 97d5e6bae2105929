"""Who, where, how long, which label and fold: the manifest, and the fingerprint of its content.

The fingerprint is taken before any sound is decoded, from the bytes of the files: so a finished
build is recognised at once, and every shard can carry it from the start.
"""

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from asit_platform.data.dataset import FORMAT_VERSION, MANIFEST_FILE, SKIPPED_FILE, file_sha256
from asit_platform.data.datasets import Clip
from asit_platform.whole_files import replacing, write_whole

MANIFEST_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("path", pa.string()),
        ("label", pa.int32()),
        ("label_name", pa.string()),
        ("fold", pa.int32()),
        ("source", pa.string()),
        ("duration_s", pa.float64()),
        ("num_frames", pa.int32()),
        ("shard", pa.string()),
    ]
)
_FINGERPRINT_LENGTH = 32
_HASH_THREADS = 4  # hashing releases the interpreter lock; more threads only compete for the disk


class SkippedClip(NamedTuple):
    """A clip that is in no shard."""

    path: str
    reason: str


def hash_files(paths: Sequence[Path]) -> list[str]:
    """Content hashes of files; an empty string for one that cannot be read."""
    with ThreadPoolExecutor(_HASH_THREADS) as pool:
        return list(pool.map(_hash_or_empty, paths))


def fingerprint(
    clips: Sequence[Clip],
    content_hashes: Sequence[str],
    *,
    front_end: Mapping[str, Any],
    keep_silent: bool,
) -> str:
    """Hash of everything a shard's content depends on; where the files lie is not part of it."""
    described = {
        "version": FORMAT_VERSION,
        "front_end": dict(front_end),
        "keep_silent": keep_silent,
        "clips": [
            [clip.clip_id, clip.label, clip.label_name, clip.fold, clip.source, content]
            for clip, content in zip(clips, content_hashes, strict=True)
        ],
    }
    text = json.dumps(described, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_FINGERPRINT_LENGTH]


def write_manifest(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one row per clip, in the order given; `rows` hold the columns of the schema."""
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=MANIFEST_SCHEMA)
    with replacing(folder / MANIFEST_FILE) as temporary:
        pq.write_table(table, temporary)


def write_skipped(folder: Path, skipped: Sequence[SkippedClip]) -> None:
    """Write the list of clips left out; a header alone says that none was."""
    lines = io.StringIO(newline="")
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(SkippedClip._fields)
    writer.writerows(skipped)
    write_whole(folder / SKIPPED_FILE, lines.getvalue())


def _hash_or_empty(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError:
        return ""
