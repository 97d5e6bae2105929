"""Where a consumer finds its clips: in the object store, once per node, or in the shards.

Opened once by the driver and handed to every trial and worker (it pickles small). In memory, Ray
Data reads the shards once and what it read stays in the object store; consumers map those blocks
without copying, so an epoch costs no start of Ray Data (0.8-1 s). Streamed, for what does not fit,
every epoch reads the shards through Ray Data again.

Shape legend: T frames, F mel bins.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import ray
import ray.data

from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.ray_data import explain_no_progress, ray_data_context
from asit_platform.errors import PlatformError

Mode = Literal["auto", "in_memory", "streamed"]

# Shards may take this share of the smallest node's object store. The rest is for checkpoints, for
# Ray Data's own working space, and for a second set of folds opened beside the first.
OBJECT_STORE_SHARE = 0.5
_COLUMNS = ["clip_id", "log_mel"]

_logger = logging.getLogger(__name__)


class ClipSource:
    """The clips of some folds, and how to get at their spectrograms.

    Attributes:
        info: The dataset.
        folds: The folds that can be asked for.
        clips: Manifest rows of these folds, ordered by clip id.
        mode: `in_memory` or `streamed`.
    """

    def __init__(
        self,
        info: DatasetInfo,
        *,
        folds: tuple[int, ...],
        clips: pa.Table,
        blocks: list[Any] | None,
    ) -> None:
        self.info = info
        self.folds = folds
        self.clips = clips
        self._blocks = blocks
        self._rows: dict[str, tuple[int, int]] | None = None
        self._tables: list[pa.Table] = []

    @classmethod
    def open(
        cls, data_dir: str | Path, folds: Sequence[int] | None = None, *, mode: Mode = "auto"
    ) -> "ClipSource":
        """Open a dataset folder in the driver; Ray must be initialised.

        Args:
            data_dir: What `asit data` made.
            folds: Folds to hold; None for all.
            mode: `auto` holds the shards in the object store if they fit.

        Raises:
            PlatformError: If the dataset is missing, unfinished or damaged, or a fold is unknown.
        """
        info = DatasetInfo.open(Path(data_dir).resolve())
        folds = info.folds if folds is None else tuple(sorted(set(folds)))
        clips = info.clips(folds)
        num_bytes = sum(shard.num_bytes for shard in info.shards if shard.fold in folds)
        capacity = _object_store_bytes()
        fits = num_bytes <= OBJECT_STORE_SHARE * capacity
        in_memory = mode == "in_memory" or (mode == "auto" and fits)
        shards = [shard.file for shard in info.shards if shard.fold in folds]
        blocks = _load_blocks(info, shards) if in_memory else None
        _logger.info(
            "%s: %d clips of folds %s, %.0f MB, %s (object store: %.0f MB a node)",
            info.name,
            len(clips),
            ",".join(map(str, folds)),
            num_bytes / 1e6,
            "held in the object store" if in_memory else "read from the shards every epoch",
            capacity / 1e6,
        )
        return cls(info, folds=folds, clips=clips, blocks=blocks)

    @property
    def mode(self) -> Literal["in_memory", "streamed"]:
        """How spectrograms are reached."""
        return "streamed" if self._blocks is None else "in_memory"

    def check_folds(self, folds: Sequence[int]) -> None:
        """Raise PlatformError if a fold was not opened."""
        if not folds or not set(folds) <= set(self.folds):
            raise PlatformError(
                f"{self.info.folder}: folds must be among those opened, {list(self.folds)}, but "
                f"got {list(folds)}"
            )

    def read_shards(self, shards: Sequence[str]) -> Iterator[pa.Table]:
        """Stream shards through Ray Data, in the order given."""
        with ray_data_context(runs_through=False):
            dataset = _read_parquet(self.info, shards)
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow")

    def log_mel(self, clip_id: str) -> np.ndarray:
        """Spectrogram of a clip held in memory: a read-only float16 view (T, F)."""
        if self._rows is None:
            self._rows = self._index_blocks()
        block, row = self._rows[clip_id]
        return log_mel_of_row(self._tables[block], row, num_mel_bins=self.info.num_mel_bins)

    def _index_blocks(self) -> dict[str, tuple[int, int]]:
        # Getting a block maps shared memory; keeping the table keeps it from being spilled.
        assert self._blocks is not None, "only clips held in memory can be asked for by id"
        self._tables = [table.combine_chunks() for table in ray.get(self._blocks)]
        return {
            clip_id: (block, row)
            for block, table in enumerate(self._tables)
            for row, clip_id in enumerate(table["clip_id"].to_pylist())
        }

    def __getstate__(self) -> dict[str, Any]:
        # views into shared memory stay in the process that made them
        return {**self.__dict__, "_rows": None, "_tables": []}


def log_mel_of_row(table: pa.Table, row: int, *, num_mel_bins: int) -> np.ndarray:
    """One row's spectrogram as a view (T, F) of the table's memory."""
    buffer = table["log_mel"][row].as_buffer()
    return np.frombuffer(buffer, dtype=np.float16).reshape(-1, num_mel_bins)


def _read_parquet(info: DatasetInfo, shards: Sequence[str]) -> ray.data.Dataset:
    # a path given twice is counted twice but read once: rows would be missing without a word
    assert len(set(shards)) == len(shards), "shards must be distinct"
    paths = [str(info.folder / shard) for shard in shards]
    # select_columns, since `columns=` of read_parquet is deprecated
    return ray.data.read_parquet(paths).select_columns(_COLUMNS)


def _load_blocks(info: DatasetInfo, shards: Sequence[str]) -> list[Any]:
    with ray_data_context(runs_through=True), explain_no_progress():
        return _read_parquet(info, shards).materialize().to_arrow_refs()


def _object_store_bytes() -> float:
    if not ray.is_initialized():
        raise PlatformError("Ray must be initialised before a dataset is opened; call ray.init()")
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return min(node["Resources"].get("object_store_memory", 0.0) for node in nodes)
