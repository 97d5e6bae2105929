"""Shards through Ray Data, in an order that is given, read ahead by a thread.

Ray Data needs most of a second to start. So a reading starts when it is made, not when its first
block is asked for: the next epoch's begins while this one runs.
"""

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.ray_data import explain_no_progress, ray_data_context
from asit_platform.storage import Place

BLOCKS_AHEAD = 4
# Ray Data sets up all tasks of a run before the first; 4,000 shards are 256,000 clips.
PIECES_A_RUN = 4000
_POLL_S = 0.1
# Ray Data's current settings are those of all threads.
_settings_lock = threading.Lock()


class Piece(NamedTuple):
    """A shard to be read, or some clips of it.

    Attributes:
        shard: Its file, relative to the dataset's folder.
        clip_ids: The clips wanted, None for all.
    """

    shard: str
    clip_ids: tuple[str, ...] | None = None


def read_into_memory(info: DatasetInfo, shards: Sequence[str]) -> list[Any]:
    """Read whole shards; what comes back refers to blocks in the object store."""
    pieces = [Piece(shard) for shard in shards]
    with explain_no_progress():
        return _dataset(info, pieces, runs_through=True).materialize().to_arrow_refs()


class ShardReading:
    """Tables of `clip_id` and content, piece by piece in order, read ahead.

    A piece's table comes in several where it is larger than a block of Ray Data.
    """

    def __init__(self, info: DatasetInfo, pieces: Sequence[Piece], *, blocks_ahead: int) -> None:
        """Start to read.

        Args:
            info: The dataset.
            pieces: What to read.
            blocks_ahead: Blocks that may wait here, beside those that Ray Data works on.
        """
        self._blocks: queue.Queue[Any] = queue.Queue(max(BLOCKS_AHEAD, blocks_ahead))
        self._stopped = threading.Event()
        arguments = (info, pieces, self._blocks, self._stopped)
        threading.Thread(target=_read_ahead, args=arguments, daemon=True).start()

    def __iter__(self) -> Iterator[pa.Table]:
        """The tables; an error of the reading is raised here."""
        while (block := self._blocks.get()) is not None:
            if isinstance(block, BaseException):
                raise block
            yield block

    def close(self) -> None:
        """Stop; Ray Data's tasks end with the thread."""
        self._stopped.set()

    def __del__(self) -> None:
        self._stopped.set()


def _read_ahead(
    info: DatasetInfo,
    pieces: Sequence[Piece],
    blocks: queue.Queue[Any],
    stopped: threading.Event,
) -> None:
    # a function, not a method: a thread that held its reading would keep it from being collected
    def put(block: Any) -> bool:
        while not stopped.is_set():
            try:
                blocks.put(block, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False

    try:
        for first in range(0, len(pieces), PIECES_A_RUN):
            run = pieces[first : first + PIECES_A_RUN]
            dataset = _dataset(info, run, runs_through=False)
            for block in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
                if not put(block):
                    return
        put(None)
    except BaseException as error:
        put(error)


class _Shards(Datasource):
    """One block a piece, in order."""

    def __init__(self, info: DatasetInfo, pieces: Iterable[Piece]) -> None:
        super().__init__()
        shards = {shard.file: shard for shard in info.shards}
        self._tasks = [
            ReadTask(
                partial(_read_piece, info.folder, piece, info.content),
                BlockMetadata(
                    num_rows=len(piece.clip_ids or ()) or shards[piece.shard].num_rows,
                    size_bytes=shards[piece.shard].num_bytes,
                    input_files=None,
                    exec_stats=None,
                ),
            )
            for piece in pieces
        ]

    def estimate_inmemory_data_size(self) -> int:
        return sum(task.metadata.size_bytes or 0 for task in self._tasks)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        return self._tasks


def _dataset(info: DatasetInfo, pieces: Sequence[Piece], *, runs_through: bool) -> ray.data.Dataset:
    with _settings_lock, ray_data_context(runs_through=runs_through):
        return ray.data.read_datasource(_Shards(info, pieces), override_num_blocks=len(pieces))


def _read_piece(folder: Place, piece: Piece, content: str) -> list[pa.Table]:
    """The task: the clips wanted, without the row groups that hold none of them."""
    place = folder / piece.shard
    columns = ["clip_id", content]
    with pq.ParquetFile(place.path, filesystem=place.filesystem, pre_buffer=True) as file:
        if piece.clip_ids is None:
            return [file.read(columns)]
        wanted = set(piece.clip_ids)
        groups = [
            group
            for group in range(file.num_row_groups)
            if wanted.intersection(file.read_row_group(group, ["clip_id"])["clip_id"].to_pylist())
        ]
        table = file.read_row_groups(groups, columns)
    return [table.filter([clip_id in wanted for clip_id in table["clip_id"].to_pylist()])]
