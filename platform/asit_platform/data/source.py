"""Where a consumer finds its clips: in the object store, once per node, or in the shards.

Opened once by the driver and handed to every trial and worker (it pickles small). In memory, Ray
Data reads the shards once and what it read stays in the object store; consumers map those blocks
without copying, so an epoch costs no start of Ray Data (0.8-1 s). Streamed, for what does not fit,
every epoch reads the shards through Ray Data again.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import ray
from torch import Tensor

from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.streaming.rows import Block
from asit_platform.data.streaming.shard_reading import read_into_memory
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

Mode = Literal["auto", "in_memory", "streamed"]

# Shards may take this share of the smallest node's object store. The rest is for checkpoints, for
# Ray Data's own working space, and for a second set of folds opened beside the first.
OBJECT_STORE_SHARE = 0.5
_COLUMNS = ["clip_id", "labels", "fold", "shard"]

_logger = logging.getLogger(__name__)


class ClipSource:
    """The clips of some folds, and how to get at their sound.

    Attributes:
        info: The dataset.
        folds: The folds that can be asked for.
        clips: Id, labels, fold and shard of their clips, ordered by id.
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
        self._rows: dict[str, tuple[Block, int]] | None = None

    @classmethod
    def open(
        cls,
        data_dir: str | Path | Place,
        folds: Sequence[int] | None = None,
        *,
        mode: Mode = "auto",
    ) -> "ClipSource":
        """Open a dataset folder in the driver; Ray must be initialised.

        Args:
            data_dir: What `asit data` made.
            folds: Folds to hold; None for all.
            mode: `auto` holds the shards in the object store if they fit.

        Raises:
            PlatformError: If the dataset is missing, unfinished or damaged, or a fold is unknown.
        """
        info = DatasetInfo.open(Place.of(data_dir).absolute())
        folds = info.folds if folds is None else tuple(sorted(set(folds)))
        clips = info.clips(folds).select(_COLUMNS)
        shards = [shard for shard in info.shards if shard.fold in folds]
        num_bytes = sum(shard.num_bytes for shard in shards)
        capacity = _object_store_bytes()
        fits = num_bytes <= OBJECT_STORE_SHARE * capacity
        in_memory = mode == "in_memory" or (mode == "auto" and fits)
        files = [shard.file for shard in shards]
        blocks = read_into_memory(info, files) if in_memory else None
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
        """How sound is reached."""
        return "streamed" if self._blocks is None else "in_memory"

    def check_folds(self, folds: Sequence[int]) -> None:
        """Raise PlatformError if a fold was not opened."""
        if not folds or not set(folds) <= set(self.folds):
            raise PlatformError(
                f"{self.info.folder}: folds must be among those opened, {list(self.folds)}, but "
                f"got {list(folds)}"
            )

    def row(self, clip_id: str) -> Tensor:
        """Sound of a clip held in memory: a view of shared memory, not to be written to."""
        if self._rows is None:
            self._rows = self._index_blocks()
        block, row = self._rows[clip_id]
        return block.row(row)

    def _index_blocks(self) -> dict[str, tuple[Block, int]]:
        # Getting a block maps shared memory; keeping it keeps it from being spilled.
        assert self._blocks is not None, "only clips held in memory can be asked for by id"
        blocks = [Block(table, self.info) for table in ray.get(self._blocks)]
        return {
            clip_id: (block, row) for block in blocks for row, clip_id in enumerate(block.clip_ids)
        }

    def __getstate__(self) -> dict[str, Any]:
        # views into shared memory stay in the process that made them
        return {**self.__dict__, "_rows": None}


def _object_store_bytes() -> float:
    if not ray.is_initialized():
        raise PlatformError("Ray must be initialised before a dataset is opened; call ray.init()")
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return min(node["Resources"].get("object_store_memory", 0.0) for node in nodes)
