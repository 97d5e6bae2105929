"""What one Ray Data task does: the clips of one shard -> one Parquet file."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from asit_core.spectrogram import LogMel, LogMelConfig
from asit_core.waveform import AudioError
from asit_platform.data.fold_statistics import FoldStatistics
from asit_platform.data.options import PrepareOptions
from asit_platform.data.out_folder import not_writable
from asit_platform.data.shard_file import (
    Shard,
    file_sha256,
    shard_fingerprint,
    shard_metadata,
    shard_schema,
)
from asit_platform.data.shard_report import SILENCE_REASON, ClipOutcome, ShardReport
from asit_platform.data.shard_reuse import BuiltShard, find_built
from asit_platform.data.sound_file import NOTHING_READ, Sound, decode, read_bytes
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

ROWS_PER_GROUP = 32


def build_block(block: pa.Table, *, out: str, options: PrepareOptions) -> pa.Table:
    """The task: one block of planned clips -> one shard on disk and one row of JSON.

    A shard that is there already is taken as it is.
    """
    files = block["file"].unique().to_pylist()
    assert len(files) == 1, f"a block must be one shard, but got {files}"
    clips = block.drop_columns(["file"]).to_pylist()
    folder, file = Place.of(out), files[0]
    answer: dict[str, Any] = {"file": file}
    try:
        built = find_built(folder, file, clips, options)
        if built is None:
            built = _build(folder, file, clips, options)
        answer |= {"shard": asdict(built.shard), "report": built.report.to_json()}
    # told by report: an exception would come back wrapped in a worker's traceback
    except OSError as error:
        answer["error"] = str(not_writable(folder, error))
    except PlatformError as error:
        answer["error"] = str(error)
    return pa.table({"answer": [json.dumps(answer)]})


def _build(
    out: Place, file: str, clips: Sequence[Mapping[str, Any]], options: PrepareOptions
) -> BuiltShard:
    log_mel = _log_mel(options.front_end)
    rows: list[dict[str, Any]] = []
    outcomes: list[ClipOutcome] = []
    statistics = FoldStatistics(0, 0.0, 0.0)
    for clip in clips:
        with _one_thread():
            outcome, sound = _read_clip(clip, log_mel, options)
        outcomes.append(outcome)
        if sound is not None:
            statistics = statistics.merge(sound.statistics)
            rows.append(_row(clip, sound, options))
    report = ShardReport(tuple(outcomes), statistics)
    fingerprint = shard_fingerprint(clips, report.content_hashes, **options.identity())
    metadata = shard_metadata(asdict(options.front_end), fingerprint, report.to_json())
    schema = shard_schema(options.content).with_metadata(metadata)
    num_bytes, sha256 = _write(out / file, pa.Table.from_pylist(rows, schema=schema))
    shard = Shard(
        file=file,
        fold=clips[0]["fold"],
        num_rows=len(rows),
        num_bytes=num_bytes,
        sha256=sha256,
        fingerprint=fingerprint,
    )
    return BuiltShard(shard, report)


@lru_cache(maxsize=1)
def _log_mel(config: LogMelConfig) -> LogMel:
    return LogMel(config)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The sum inside a matrix product may depend on the number of threads; bytes must not."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)  # Ray uses the process again, perhaps for training


def _read_clip(
    clip: Mapping[str, Any], log_mel: LogMel, options: PrepareOptions
) -> tuple[ClipOutcome, Sound | None]:
    place, read = Place.of(clip["path"]), NOTHING_READ
    try:
        read = read_bytes(place)
        sound = decode(read.file, clip, log_mel, content=options.content)
    except AudioError as error:
        reason = str(error).removeprefix(f"{place}: ")
        return ClipOutcome(reason, False, 0, 0.0, read.sha256, read.num_bytes), None
    dropped = sound.silent and not options.keep_silent
    outcome = ClipOutcome(
        SILENCE_REASON if dropped else "",
        sound.silent,
        sound.num_frames,
        sound.duration_s,
        read.sha256,
        read.num_bytes,
    )
    return outcome, None if dropped else sound


def _row(clip: Mapping[str, Any], sound: Sound, options: PrepareOptions) -> dict[str, Any]:
    length = "num_frames" if options.content == "log_mel" else "num_samples"
    return {
        **{name: clip[name] for name in ("clip_id", "labels", "fold", "source")},
        length: len(sound.values),
        options.content: sound.values.tobytes(),
    }


def _write(place: Place, table: pa.Table) -> tuple[int, str]:
    """Write a shard whole, so that a reader never meets half of it; its size and content hash."""
    num_groups = max(1, math.ceil(len(table) / ROWS_PER_GROUP))
    with place.replacing() as temporary:
        # without dictionary or compression the bytes are read at memory speed
        pq.write_table(
            table,
            temporary,
            row_group_size=max(1, math.ceil(len(table) / num_groups)),
            compression="none",
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=True,
        )
        written = Place.of(temporary)
        return written.stat().size, file_sha256(written)
