"""Batches of clips, in an order that depends on the seed and the epoch and on nothing else.

The order of an epoch is computed from the manifest before anything is read. A global batch is
`batch_size` consecutive clips of it, and worker r of w takes the r-th of w equal parts: so the
clips of a batch do not depend on the number of workers.

Up to `WINDOW_SHARDS` shards (about 2,000 clips) the order is a permutation of all clips. Past that
it is approximate: the shards are permuted and dealt out to windows of that many, and clips are
permuted inside their window; clips of two windows never meet in a batch of that epoch, but may in
the next. It is the same order whether clips are held in memory or streamed from the shards, so the
size of a machine changes no number. Streamed, a worker holds at most a window of its clips, and
every worker reads every shard and keeps its own clips.

Shape legend: B clips, T frames, F mel bins.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from asit_core.seeding import numpy_stream
from asit_core.spectrogram import LOG_MEL_FLOOR
from asit_platform.data.source import ClipSource, log_mel_of_row

__all__ = ["WINDOW_SHARDS", "ClipBatch", "ClipSource", "ClipStream", "read_all"]

WINDOW_SHARDS = 32


class ClipBatch(NamedTuple):
    """Clips of one step, on the CPU.

    Attributes:
        clip_ids: B ids.
        log_mel_BTF: float16; frames past a clip's end hold `LOG_MEL_FLOOR`; T is the dataset's
            `max_frames`.
        num_frames_B: int64, valid frames.
        label_B: int64.
        fold_B: int64.
    """

    clip_ids: list[str]
    log_mel_BTF: Tensor
    num_frames_B: Tensor
    label_B: Tensor
    fold_B: Tensor


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

        Raises:
            ValueError: If a batch cannot be divided so, or there are fewer clips than one batch.
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
        self._clips = _ClipTable(source, folds)
        if self.num_clips < batch_size:
            raise ValueError(
                f"batch_size must be <= {self.num_clips}, the clips in folds "
                f"{sorted(set(folds))}, but got {batch_size}"
            )
        self._seed = seed
        self._batch_size = batch_size
        self._rank = rank
        self._world_size = world_size

    @property
    def num_clips(self) -> int:
        """Clips in the folds."""
        return len(self._clips)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch; the clips left over are other ones every epoch."""
        return self.num_clips // self._batch_size

    def epoch(self, epoch: int) -> Iterator[ClipBatch]:
        """This worker's part of every batch of an epoch."""
        order = self._clips.order(self._seed, epoch)
        size = self._batch_size // self._world_size
        first = self._rank * size
        starts = range(first, self.steps_per_epoch * self._batch_size, self._batch_size)
        return self._clips.batches([order[start : start + size] for start in starts])


def read_all(source: ClipSource, folds: Sequence[int], batch_size: int = 64) -> Iterator[ClipBatch]:
    """Every clip of some folds once: in the order of clip ids, or, streamed, of shards."""
    clips = _ClipTable(source, folds)
    positions = clips.fixed_order()
    starts = range(0, len(positions), batch_size)
    return clips.batches([positions[start : start + batch_size] for start in starts])


class _ClipTable:
    """The clips of some folds by position in the order of their ids."""

    def __init__(self, source: ClipSource, folds: Sequence[int]) -> None:
        source.check_folds(folds)
        clips = source.clips.filter(pc.field("fold").isin(list(folds)))
        self._source = source
        self._clip_ids: list[str] = clips["clip_id"].to_pylist()
        self._label = clips["label"].to_numpy().astype(np.int64)
        self._fold = clips["fold"].to_numpy().astype(np.int64)
        self._shard = np.asarray(clips["shard"].to_pylist(), dtype=object)

    def __len__(self) -> int:
        return len(self._clip_ids)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Positions in the order of an epoch."""
        generator = numpy_stream(seed, "order", epoch)
        shards = generator.permutation(np.unique(self._shard))
        windows = [
            np.flatnonzero(np.isin(self._shard, shards[start : start + WINDOW_SHARDS]))
            for start in range(0, len(shards), WINDOW_SHARDS)
        ]
        return np.concatenate([generator.permutation(window) for window in windows])

    def fixed_order(self) -> np.ndarray:
        """Positions shard by shard: streaming reads them so, and memory gives the same order."""
        return np.argsort(self._shard, kind="stable")

    def batches(self, parts: Sequence[np.ndarray]) -> Iterator[ClipBatch]:
        """Read the clips of each part, one after the other."""
        if self._source.mode == "in_memory":
            for part in parts:
                spectrograms = [self._source.log_mel(self._clip_ids[index]) for index in part]
                yield self._collate(part, spectrograms)
        else:
            yield from self._streamed_batches(parts)

    def _streamed_batches(self, parts: Sequence[np.ndarray]) -> Iterator[ClipBatch]:
        # The order is known before the reading, so a row is kept only until its batch is due.
        wanted = [index for part in parts for index in part]
        needed = {self._clip_ids[index] for index in wanted}
        tables = self._source.read_shards(list(dict.fromkeys(self._shard[wanted])))
        waiting: dict[str, np.ndarray] = {}
        for part in parts:
            clip_ids = [self._clip_ids[index] for index in part]
            while not waiting.keys() >= set(clip_ids):
                waiting.update(self._rows(next(tables), needed))
            yield self._collate(part, [waiting.pop(clip_id) for clip_id in clip_ids])

    def _rows(self, table: pa.Table, needed: set[str]) -> Iterator[tuple[str, np.ndarray]]:
        num_mel_bins = self._source.info.num_mel_bins
        for row, clip_id in enumerate(table["clip_id"].to_pylist()):
            if clip_id in needed:
                yield clip_id, log_mel_of_row(table, row, num_mel_bins=num_mel_bins)

    def _collate(self, part: np.ndarray, spectrograms: Sequence[np.ndarray]) -> ClipBatch:
        info = self._source.info
        shape = (len(part), info.max_frames, info.num_mel_bins)
        log_mel_BTF = np.full(shape, LOG_MEL_FLOOR, dtype=np.float16)
        for row, log_mel_TF in enumerate(spectrograms):
            log_mel_BTF[row, : len(log_mel_TF)] = log_mel_TF
        return ClipBatch(
            clip_ids=[self._clip_ids[index] for index in part],
            log_mel_BTF=torch.from_numpy(log_mel_BTF),
            num_frames_B=torch.tensor([len(log_mel) for log_mel in spectrograms]),
            label_B=torch.from_numpy(self._label[part]),
            fold_B=torch.from_numpy(self._fold[part]),
        )
