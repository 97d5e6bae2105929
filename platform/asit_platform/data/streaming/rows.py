"""The clips of one step as they lie in shared memory, before anything is copied.

A row is a tensor over the memory of an Arrow block, mapped from the object store: nobody may write
to it.

Shape legend: B clips, C classes, T frames, F mel bins, S samples.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from asit_platform.data.dataset import DatasetInfo

_CONTENT_TYPES = {"log_mel": pa.float16(), "waveform": pa.int16()}


class ClipLabels(NamedTuple):
    """What is known of B clips beside their sound.

    Attributes:
        clip_ids: B names; a clip that was drawn again in the epoch is `name#1`, so that it gets
            another crop.
        label_B: int64; -1 where a clip has not exactly one label.
        labels_BC: float32 multi-hot if clips may have several labels, else None.
        fold_B: int64.
    """

    clip_ids: list[str]
    label_B: Tensor
    labels_BC: Tensor | None
    fold_B: Tensor


class ClipRows(NamedTuple):
    """Clips of one step.

    Attributes:
        epoch: What draws are keyed by.
        rows: Of each clip, log-mels (T, F) in float16 or samples (S,) in int16; read-only.
        labels: The rest.
    """

    epoch: int
    rows: list[Tensor]
    labels: ClipLabels


class Block:
    """Clips of one Arrow table, by row."""

    def __init__(self, table: pa.Table, info: DatasetInfo) -> None:
        self.clip_ids: list[str] = table["clip_id"].to_pylist()
        column = table[info.content].combine_chunks()
        _, offsets, content = column.buffers()
        first, last = column.offset, column.offset + len(column) + 1
        content_type = _CONTENT_TYPES[info.content]
        width = content_type.bit_width // 8
        self._offsets = (np.frombuffer(offsets, np.int64)[first:last] // width).tolist()
        values = pa.Array.from_buffers(content_type, len(content) // width, [None, content])
        # torch.frombuffer warns of memory that is read-only, as an object store's is
        self._values = torch.from_dlpack(values)
        self._shape = (-1, info.num_mel_bins) if info.content == "log_mel" else (-1,)

    def row(self, row: int) -> Tensor:
        """One clip; keeps the whole block in memory."""
        return self._values[self._offsets[row] : self._offsets[row + 1]].view(self._shape)
