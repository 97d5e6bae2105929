"""`asit data check`: read every shard in full and say all that is wrong with it.

`DatasetInfo.open` looks at sizes and some footers, which is quick and finds an unfinished copy;
this reads all bytes, which finds a bad disk.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from asit_platform.data.dataset import CLIPS_FILE, DATASET_FILE, DatasetInfo
from asit_platform.data.shard_file import (
    FINGERPRINT_KEY,
    FRONT_END_KEY,
    REMEDY,
    Shard,
    digest,
    shard_schema,
)
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

_THREADS = 4  # each holds one shard in memory
_SAMPLE_BYTES = 2  # float16 and int16 alike
_LISTED = ["clip_id", "labels", "fold", "source", "num_frames"]
_LIST_SCHEMA = pa.schema(
    [*(shard_schema("log_mel").field(name) for name in _LISTED), ("shard", pa.string())]
)


class CheckReport(NamedTuple):
    """What was read, and one line for each fault."""

    info: DatasetInfo
    faults: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        """Of all shards, as they should be."""
        return sum(shard.num_bytes for shard in self.info.shards)


def check_dataset(
    folder: str | Path | Place, on_progress: Callable[[int, int], None]
) -> CheckReport:
    """Compare every shard with what the dataset says of it.

    Each shard's content hash, schema, fingerprint and front end; each row's clip, labels and fold
    with the list of clips; each clip's length and, of spectrograms, that all values are finite.

    Args:
        folder: The dataset folder: a path, or an s3:// or gs:// URL.
        on_progress: Called with shards done and shards in all.

    Raises:
        PlatformError: If there is no dataset to check.
    """
    info = DatasetInfo.read(folder)
    listed = _read_listed(info)
    list_faults = list(_list_faults(info, listed.schema))
    by_shard = {} if list_faults else _by_shard(listed)

    def check(shard: Shard) -> list[str]:
        place = info.folder / shard.file
        clips = None if list_faults else by_shard.get(shard.file, listed.slice(0, 0))
        return [f"{place}: {fault}" for fault in _shard_faults(info, shard, clips)]

    faults = [*list_faults, *_dataset_faults(info, listed)]
    with ThreadPoolExecutor(_THREADS) as pool:
        for done, found in enumerate(pool.map(check, info.shards), start=1):
            faults += found
            on_progress(done, len(info.shards))
    return CheckReport(info, tuple(faults))


def _read_listed(info: DatasetInfo) -> pa.Table:
    place = info.folder / CLIPS_FILE
    try:
        with place.open_input() as file:
            return pq.ParquetFile(file).read(columns=_LIST_SCHEMA.names)
    except (pa.ArrowException, OSError) as error:
        raise PlatformError(
            f"{place}: must be readable, but {_one_line(error)}; {REMEDY}"
        ) from error


def _list_faults(info: DatasetInfo, schema: pa.Schema) -> Iterator[str]:
    """Columns that are missing or of another type: without them no shard can be compared."""
    got = []
    for field in _LIST_SCHEMA:
        if field.name not in schema.names:
            got.append(f"no {field.name}")
        elif (found := schema.field(field.name).type) != field.type:
            got.append(f"{field.name} {found}")
    if got:
        place = info.folder / CLIPS_FILE
        yield f"{place}: columns must be {_columns(_LIST_SCHEMA)}, but got {', '.join(got)}"


def _by_shard(listed: pa.Table) -> dict[str, pa.Table]:
    """Rows of each shard, in their order; without a search for each."""
    shards = pc.fill_null(listed["shard"], "").combine_chunks().dictionary_encode()
    number = shards.indices.to_numpy()
    order = np.argsort(number, kind="stable")
    files = shards.dictionary.to_pylist()
    edges = np.searchsorted(number[order], np.arange(len(files) + 1))
    parts = (order[start:stop] for start, stop in pairwise(edges))
    return {file: listed.take(pa.array(part)) for file, part in zip(files, parts, strict=True)}


def _dataset_faults(info: DatasetInfo, listed: pa.Table) -> Iterator[str]:
    if len(listed) != info.num_clips:
        place = info.folder / CLIPS_FILE
        yield f"{place}: must list {info.num_clips} clips, but lists {len(listed)}"
    found = digest([shard.fingerprint for shard in info.shards])
    if found != info.fingerprint:
        place = info.folder / DATASET_FILE
        yield f"{place}: fingerprint must be {found}, of its shards, but got {info.fingerprint}"


def _shard_faults(info: DatasetInfo, shard: Shard, listed: pa.Table | None) -> Iterator[str]:
    """Faults of one shard; those that make others meaningless end the list.

    Without `listed`, its clips are compared with nothing.
    """
    try:
        content = (info.folder / shard.file).read_bytes()
    except FileNotFoundError:
        yield "shard must exist, but it does not"
        return
    except OSError as error:
        yield f"shard must be readable, but {_one_line(error)}"
        return
    found = hashlib.sha256(content).hexdigest()
    if found != shard.sha256:
        yield f"content hash must be {shard.sha256[:12]}, but got {found[:12]} (damaged)"
        return
    try:
        table = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        yield f"shard must be readable Parquet, but {_one_line(error)}"
        return
    schema = shard_schema(info.content)
    if not table.schema.equals(schema):
        yield f"columns must be {_columns(schema)}, but got {_columns(table.schema)}"
        return
    yield from _metadata_faults(info, shard, table.schema.metadata or {})
    if empty := [name for name in table.column_names if table[name].null_count]:
        count = table[empty[0]].null_count
        yield f"{empty[0]} must have a value for every clip, but has none for {count}"
        return
    if len(table) != shard.num_rows:
        yield f"must hold {shard.num_rows} clips, but holds {len(table)}"
    if listed is not None:
        yield from _row_faults(table, listed)
    yield from _value_faults(info, table)


def _metadata_faults(
    info: DatasetInfo, shard: Shard, metadata: dict[bytes, bytes]
) -> Iterator[str]:
    fingerprint = metadata.get(FINGERPRINT_KEY, b"none").decode(errors="replace")
    if fingerprint != shard.fingerprint:
        yield f"fingerprint must be {shard.fingerprint}, but got {fingerprint} (stale)"
    front_end = _decoded(metadata.get(FRONT_END_KEY, b"null"))
    if front_end != dict(info.front_end):
        yield f"front end must be that of the dataset, but got {front_end}"


def _decoded(text: bytes) -> object:
    """What JSON says; what is none, as it stands there."""
    try:
        return json.loads(text)
    except ValueError:
        return repr(text.decode(errors="replace"))


def _row_faults(table: pa.Table, listed: pa.Table) -> Iterator[str]:
    table = table.sort_by("clip_id")
    if table["clip_id"].to_pylist() != listed["clip_id"].to_pylist():
        yield f"clips must be those that {CLIPS_FILE} lists for it, but they are not"
        return
    for name in _LISTED:
        if name not in table.column_names:  # of waveforms, the frames are not in the shard
            continue
        pairs = zip(table[name].to_pylist(), listed[name].to_pylist(), strict=True)
        wrong = [clip for clip, (held, wanted) in enumerate(pairs) if held != wanted]
        if wrong:
            yield (
                f"{name} must be as {CLIPS_FILE} lists it, but differs for "
                f"{_clips(table, np.array(wrong))}"
            )


def _value_faults(info: DatasetInfo, table: pa.Table) -> Iterator[str]:
    if info.content == "log_mel":
        length, values_each = "num_frames", info.num_mel_bins
    else:
        length, values_each = "num_samples", 1
    num_bytes = pc.call_function("binary_length", [table[info.content]]).to_numpy()
    wanted = table[length].to_numpy().astype(np.int64) * values_each * _SAMPLE_BYTES
    if (wrong := np.flatnonzero((num_bytes != wanted) | (wanted == 0))).size:
        yield f"{info.content} must be as long as {length} says, but is not for " + _clips(
            table, wrong
        )
    if info.content == "log_mel":
        wild = [row for row in range(len(table)) if not _is_finite(table, row)]
        if wild:
            yield f"log_mel must be finite, but is not for {_clips(table, np.array(wild))}"


def _is_finite(table: pa.Table, row: int) -> bool:
    buffer = table["log_mel"][row].as_buffer()
    values = np.frombuffer(buffer, dtype=np.float16, count=buffer.size // _SAMPLE_BYTES)
    return bool(np.isfinite(values).all())


def _clips(table: pa.Table, rows: np.ndarray) -> str:
    first = table["clip_id"][int(rows[0])].as_py()
    return f"clip {first!r}" + (f" and {len(rows) - 1} more" if len(rows) > 1 else "")


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
