"""Batches of clips, in an order that depends on the seed and the epoch and on nothing else.

The order of an epoch (`streaming/order.py`) is computed from the clip table before anything is
read. Worker r of w takes the r-th of w equal parts of every global batch: so the clips of a batch
do not depend on the number of workers. It is the same order whether clips are held in memory or
streamed from the shards, so the size of a machine changes no number. An epoch can be entered at any
step, and what only earlier steps need is not read then.

Shape legend: B clips of a batch, S steps.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch

from asit_core.sampling import sample_clips
from asit_core.seeding import numpy_stream
from asit_platform.data.source import ClipSource
from asit_platform.data.streaming.clip_table import ClipTable, count_repeats
from asit_platform.data.streaming.collate import ClipBatch, Collator
from asit_platform.data.streaming.order import epoch_order
from asit_platform.data.streaming.rows import ClipRows
from asit_platform.data.streaming.step_rows import StepRows, Steps

__all__ = ["ClipBatch", "ClipSource", "ClipStream", "Weights", "read_all"]

Weights = Literal["uniform", "balanced"]


class ClipStream:
    """Training batches of one worker."""

    def __init__(
        self,
        source: ClipSource,
        *,
        folds: Sequence[int],
        seed: int,
        batch_size: int,
        donor_group: int = 2,
        rank: int = 0,
        world_size: int = 1,
        weights: Weights = "uniform",
        device: torch.device | None = None,
    ) -> None:
        """Set up the stream; nothing is read yet.

        Args:
            source: Where the clips are.
            folds: Folds to draw from, among the source's.
            seed: The trial's seed.
            batch_size: Clips of a step, all workers together.
            donor_group: Consecutive clips of the order that must stay on one worker.
            rank: This worker's number.
            world_size: Number of workers.
            weights: `uniform` takes each clip once an epoch; `balanced` draws as many with
                replacement, by how rare their classes are, as AST does.
            device: Where batches are put, and where log-mels of waveform shards are computed.

        Raises:
            ValueError: If a batch cannot be divided so, there are fewer clips than one batch, or a
                clip to be drawn by its classes has none.
            PlatformError: If a fold is not among the source's.
        """
        part = world_size * donor_group
        if batch_size < 1 or batch_size % part != 0:
            raise ValueError(
                f"batch_size must be a positive multiple of world_size * donor_group = {part}, "
                f"but got {batch_size}"
            )
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in [0, {world_size}), but got {rank}")
        self._table = ClipTable(source, folds)
        if self.num_clips < batch_size:
            raise ValueError(
                f"batch_size must be <= {self.num_clips}, the clips in folds "
                f"{sorted(set(folds))}, but got {batch_size}"
            )
        self._seed = seed
        self._batch_size = batch_size
        self._donor_group = donor_group
        size = batch_size // world_size
        self._part = slice(rank * size, (rank + 1) * size)
        self._weights = self._table.balanced_weights() if weights == "balanced" else None
        self._collator = Collator(source.info, device)
        self._prepared: dict[tuple[int, int], _Epoch] = {}

    @property
    def source(self) -> ClipSource:
        """Where the clips are."""
        return self._table.source

    @property
    def seed(self) -> int:
        """The trial's seed."""
        return self._seed

    @property
    def num_clips(self) -> int:
        """Clips in the folds."""
        return len(self._table)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch; the clips left over are other ones every epoch."""
        return self.num_clips // self._batch_size

    def epoch(self, epoch: int, *, first_step: int = 0) -> Iterator[ClipBatch]:
        """This worker's part of every batch of an epoch.

        Args:
            epoch: Its number, counted from 0.
            first_step: Step to begin with; what only earlier ones need is not read.

        Raises:
            ValueError: If the epoch has no such step.
        """
        for rows in self.rows(epoch, first_step=first_step):
            yield self._collator(rows)

    def rows(self, epoch: int, *, first_step: int = 0) -> Iterator[ClipRows]:
        """As `epoch`, but as they lie in shared memory, before anything is copied."""
        self.prepare(epoch, first_step=first_step)
        return iter(self._prepared.pop((epoch, first_step)))

    def prepare(self, epoch: int, *, first_step: int = 0) -> None:
        """Start an epoch in the background: its order, and the reading of its first shards.

        One epoch is kept so, the last.
        """
        self.check_first_step(first_step)
        key = (epoch, first_step)
        if key not in self._prepared:
            self._prepared = {key: self._open(epoch, first_step)}

    def check_first_step(self, first_step: int) -> None:
        """Raise ValueError if an epoch cannot begin there."""
        if not 0 <= first_step <= self.steps_per_epoch:
            raise ValueError(
                f"first_step must be in [0, {self.steps_per_epoch}], but got {first_step}"
            )

    def _open(self, epoch: int, first_step: int) -> "_Epoch":
        """This worker's steps from the first on."""
        positions = np.arange(self.num_clips)
        if self._weights is not None:
            drawn = sample_clips(
                self._weights, num_draws=self.num_clips, seed=self._seed, epoch=epoch
            )
            positions = drawn.numpy()
        order = epoch_order(
            positions,
            self._table.shard_N[positions],
            num_shards=len(self._table.shards),
            generator=numpy_stream(self._seed, "order", epoch),
            batch_size=self._batch_size,
            donor_group=self._donor_group,
        )
        mine = (slice(first_step, None), self._part)
        steps = Steps(list(order.position_SB[mine]), list(order.window_SB[mine]))
        if self._weights is None:
            return _Epoch(self._table, steps, epoch=epoch)
        repeats = list(count_repeats(order.position_SB)[mine])
        return _Epoch(self._table, steps, epoch=epoch, repeats=repeats)


def read_all(
    source: ClipSource,
    folds: Sequence[int],
    batch_size: int = 64,
    *,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | None = None,
) -> Iterator[ClipBatch]:
    """Every clip of some folds once, shard by shard, whether in memory or streamed.

    Args:
        source: Where the clips are.
        folds: Folds to read.
        batch_size: Clips of a batch; the last one may have fewer.
        rank: This worker's number.
        world_size: Number of workers; each reads its part, and parts may differ by a clip.
        device: Where batches are put.
    """
    table = ClipTable(source, folds)
    collator = Collator(source.info, device)
    order = np.array_split(np.argsort(table.shard_N, kind="stable"), world_size)[rank]
    positions = np.split(order, range(batch_size, len(order), batch_size))
    steps = Steps(positions, [np.zeros_like(part) for part in positions])
    for rows in _Epoch(table, steps, epoch=0):
        yield collator(rows)


class _Epoch:
    """Steps that are due, with their rows and labels; it can be gone through once."""

    def __init__(
        self,
        table: ClipTable,
        steps: Steps,
        *,
        epoch: int,
        repeats: Sequence[np.ndarray] | None = None,
    ) -> None:
        self._table = table
        self._steps = steps
        self._epoch = epoch
        self._repeats = repeats or [None] * len(steps.positions)
        self._rows = StepRows(table, steps)

    def __iter__(self) -> Iterator[ClipRows]:
        steps = zip(self._steps.positions, self._repeats, self._rows, strict=True)
        for positions, repeats, rows in steps:
            yield ClipRows(self._epoch, rows, self._table.labels(positions, repeats))
