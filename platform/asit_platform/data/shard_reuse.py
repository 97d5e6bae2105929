"""Is the shard that lies there the one that is to be built?

It is if it reads whole (every page has its checksum), carries the fingerprint of the same clips
under the same front end, and no sound file changed since: one with a later time is compared by its
content hash. Files that are gone by now do not matter:
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
    is_metadata_whole,
    shard_fingerprint,
    shard_schema,
    source_sha256,
)
from asit_platform.data.shard_report import ClipOutcome, ShardReport
from asit_platform.storage import FileStat, Place, stat_all

_DAMAGED = (pa.ArrowException, OSError, ValueError, KeyError, TypeError)


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
        file whose content is another now.
    """
    place = out / file
    try:
        written = place.stat()
        content = place.read_bytes()
        parquet = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        report = ShardReport.from_json(parquet.schema_arrow.metadata[REPORT_KEY])
        fingerprint = shard_fingerprint(clips, report.content_hashes, **options.identity())
        is_whole = _is_whole(parquet, clips, report, options, fingerprint)
    except _DAMAGED:
        return None
    if not is_whole or _sources_changed(clips, report, written_ns=written.mtime_ns):
        return None
    shard = Shard(
        file=file,
        fold=clips[0]["fold"],
        num_rows=report.num_kept,
        num_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        fingerprint=fingerprint,
    )
    return BuiltShard(shard, report)


def is_of_other_sounds(out: Place, file: str, clips: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a shard was not made from the files that clips name now, whatever their times.

    Returns:
        True as well if there is no shard to be read.
    """
    try:
        with (out / file).open_input() as opened:
            report = ShardReport.from_json(pq.read_schema(opened).metadata[REPORT_KEY])
        sources = _existing(clips, report)
    except _DAMAGED:
        return True
    return any(_is_other(*source) for source in sources)


def _is_whole(
    parquet: pq.ParquetFile,
    clips: Sequence[Mapping[str, Any]],
    report: ShardReport,
    options: PrepareOptions,
    fingerprint: str,
) -> bool:
    metadata = parquet.schema_arrow.metadata
    table = parquet.read()  # every page, with its checksum
    kept = [
        clip["clip_id"]
        for clip, outcome in zip(clips, report.outcomes, strict=True)
        if not outcome.reason
    ]
    return (
        is_metadata_whole(metadata)
        and metadata[FINGERPRINT_KEY].decode() == fingerprint
        and table.schema.equals(shard_schema(options.content))
        and table["clip_id"].to_pylist() == kept
    )


def _sources_changed(
    clips: Sequence[Mapping[str, Any]], report: ShardReport, *, written_ns: int
) -> bool:
    return any(
        source.size != outcome.num_bytes
        # touched or moved since, which need not have changed a byte
        or (
            max(source.mtime_ns, source.ctime_ns) >= written_ns
            and _is_other(place, source, outcome)
        )
        for place, source, outcome in _existing(clips, report)
    )


def _existing(
    clips: Sequence[Mapping[str, Any]], report: ShardReport
) -> list[tuple[Place, FileStat, ClipOutcome]]:
    """The sound files that are there, with what was found in them."""
    places = [Place.of(clip["path"]) for clip in clips]
    return [
        (place, source, outcome)
        for place, source, outcome in zip(places, stat_all(places), report.outcomes, strict=True)
        if source is not None
    ]


def _is_other(place: Place, source: FileStat, outcome: ClipOutcome) -> bool:
    if source.size != outcome.num_bytes:
        return True
    try:
        return source_sha256(place, source) != outcome.content_sha256
    except OSError:
        return False  # as one that is gone: what was read of it is in the shard
