"""Is the shard that lies there the one that is to be built?

It is if it reads whole (every page has its checksum), carries the fingerprint of the same clips
under the same front end, and no sound file changed since. Files that are gone by now do not matter:
what was read of them is in the shard.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from asit_platform.data.options import PrepareOptions
from asit_platform.data.shard_file import (
    FINGERPRINT_KEY,
    REPORT_KEY,
    Shard,
    shard_fingerprint,
)
from asit_platform.data.shard_report import ShardReport
from asit_platform.storage import Place, stat_all


class BuiltShard(NamedTuple):
    """A shard on disk, and what its task found out; a shard of no rows is no part of a dataset."""

    shard: Shard
    report: ShardReport


def find_built(
    out: Place, file: str, clips: Sequence[Mapping[str, Any]], options: PrepareOptions
) -> BuiltShard | None:
    """Look for a finished shard.

    Args:
        out: The dataset folder.
        file: The shard's name in it.
        clips: Rows of the manifest that are planned for it.
        options: Those of the build.

    Returns:
        None if it is to be built: missing, damaged, of other clips or options, or made from a sound
        file that is newer now or of another size.
    """
    place = out / file
    try:
        written = place.stat()
        content = place.read_bytes()
        parquet = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        metadata = parquet.schema_arrow.metadata
        report = ShardReport.from_json(metadata[REPORT_KEY])
        wanted = shard_fingerprint(clips, report.content_hashes, **options.identity())
        num_rows = parquet.read().num_rows  # every page, with its checksum
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        return None
    fingerprint = metadata[FINGERPRINT_KEY].decode()
    if fingerprint != wanted or num_rows != report.num_kept:
        return None
    if _sources_changed(clips, report, written_ns=written.mtime_ns):
        return None
    shard = Shard(
        file=file,
        fold=clips[0]["fold"],
        num_rows=num_rows,
        num_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        fingerprint=fingerprint,
    )
    return BuiltShard(shard, report)


def _sources_changed(
    clips: Sequence[Mapping[str, Any]], report: ShardReport, *, written_ns: int
) -> bool:
    sources = stat_all([Place.of(clip["path"]) for clip in clips])
    return any(
        source is not None and (source.size != outcome.num_bytes or source.mtime_ns > written_ns)
        for source, outcome in zip(sources, report.outcomes, strict=True)
    )
