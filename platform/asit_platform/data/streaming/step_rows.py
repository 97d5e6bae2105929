"""The sound of each step of one worker, from memory or from shards that are read as they come due.

Shape legend: N clips, S steps.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from asit_platform.data.shard_file import REMEDY
from asit_platform.data.streaming.clip_table import ClipTable
from asit_platform.data.streaming.rows import Block
from asit_platform.data.streaming.shard_reading import Piece, ShardReading
from asit_platform.errors import PlatformError


class Steps(NamedTuple):
    """What is due when on this worker.

    Attributes:
        positions: Of each step, positions in the clip table.
        windows: Of each step, the window that each clip was drawn from.
    """

    positions: Sequence[np.ndarray]
    windows: Sequence[np.ndarray]


class ReadingPlan(NamedTuple):
    """What to read, in the order in which it comes due.

    Attributes:
        shards: Number of the shard of each piece.
        slots: Of each piece, where its clips are due: indices into the clips of all steps.
        num_needed_S: Pieces that must have been read for each step.
    """

    shards: list[int]
    slots: list[np.ndarray]
    num_needed_S: list[int]


def plan_reading(steps: Steps, shard_N: np.ndarray) -> ReadingPlan:
    """Cut the clips of one worker into pieces: those of one shard in one window."""
    if not len(steps.positions):
        return ReadingPlan([], [], [])
    shard = shard_N[np.concatenate(steps.positions)]
    key = np.concatenate(steps.windows) * (shard.max() + 1) + shard
    _, first, piece_of_slot = np.unique(key, return_index=True, return_inverse=True)
    rank = np.empty_like(first)
    rank[np.argsort(first)] = np.arange(len(first))
    piece_of_slot = rank[piece_of_slot]
    edges = np.cumsum(np.bincount(piece_of_slot))[:-1]
    slots = np.split(np.argsort(piece_of_slot, kind="stable"), edges)
    begins = np.cumsum([0, *map(len, steps.positions[:-1])])
    num_needed_S = np.maximum.accumulate(np.maximum.reduceat(piece_of_slot, begins)) + 1
    return ReadingPlan([int(shard[piece[0]]) for piece in slots], slots, num_needed_S.tolist())


class StepRows:
    """The rows of each step; where clips are streamed, reading starts at once."""

    def __init__(self, table: ClipTable, steps: Steps) -> None:
        self._table = table
        self._positions = steps.positions
        self._reading: ShardReading | None = None
        if table.source.mode == "streamed" and len(steps.positions):
            self._plan = plan_reading(steps, table.shard_N)
            self._wanted = np.concatenate(steps.positions)
            self._reading = self._start()

    def __iter__(self) -> Iterator[list[Tensor]]:
        """Rows of one step after the other."""
        if self._reading is None:
            row = self._table.source.row
            for positions in self._positions:
                yield [row(clip_id) for clip_id in self._table.names(positions)]
            return
        try:
            yield from self._streamed(self._reading)
        finally:
            self.close()

    def close(self) -> None:
        """End the reading."""
        if self._reading is not None:
            self._reading.close()

    def _start(self) -> ShardReading:
        info, plan = self._table.source.info, self._plan
        num_rows = {shard.file: shard.num_rows for shard in info.shards}
        pieces = []
        for shard, slots in zip(plan.shards, plan.slots, strict=True):
            file, wanted = self._table.shards[shard], np.unique(self._wanted[slots])
            is_whole = len(wanted) == num_rows[file]
            pieces.append(Piece(file, None if is_whole else tuple(self._table.names(wanted))))
        return ShardReading(info, pieces, blocks_ahead=plan.num_needed_S[0])

    def _streamed(self, reading: ShardReading) -> Iterator[list[Tensor]]:
        # A clip is kept only until its step is due, and its block until the last of its clips is.
        waiting: dict[int, Tensor] = {}
        pieces = self._read_pieces(reading)
        num_read = first = 0
        for positions, num_needed in zip(self._positions, self._plan.num_needed_S, strict=True):
            for _ in range(num_needed - num_read):
                waiting.update(next(pieces))
            num_read, last = num_needed, first + len(positions)
            yield [waiting.pop(slot) for slot in range(first, last)]
            first = last

    def _read_pieces(self, reading: ShardReading) -> Iterator[dict[int, Tensor]]:
        """Of each piece, what it holds for which slot."""
        blocks = iter(reading)
        for shard, slots in zip(self._plan.shards, self._plan.slots, strict=True):
            due: dict[str, list[int]] = {}
            clip_ids = self._table.names(self._wanted[slots])
            for clip_id, slot in zip(clip_ids, slots.tolist(), strict=True):
                due.setdefault(clip_id, []).append(slot)
            found: dict[int, Tensor] = {}
            while due:
                for clip_id, row in self._next_block(blocks, shard, due):
                    found |= dict.fromkeys(due.pop(clip_id, ()), row)
            yield found

    def _next_block(
        self, blocks: Iterator, shard: int, due: dict[str, list[int]]
    ) -> list[tuple[str, Tensor]]:
        table = next(blocks, None)
        if table is None:
            file = self._table.source.info.folder / self._table.shards[shard]
            raise PlatformError(
                f"{file}: shard must hold clip {next(iter(due))!r}, but it does not; {REMEDY}"
            )
        block = Block(table, self._table.source.info)
        return [(clip_id, block.row(row)) for row, clip_id in enumerate(block.clip_ids)]
