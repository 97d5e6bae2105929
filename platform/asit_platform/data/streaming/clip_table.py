"""The clips of some folds by position in the order of their ids: names, labels, shards.

Two million clips take 100 MB here; nothing is kept per clip as a Python object.

Shape legend: N clips, B clips of a batch, C classes.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from asit_core.sampling import SamplingWeights, balanced_weights
from asit_platform.data.source import ClipSource
from asit_platform.data.streaming.rows import ClipLabels


class ClipTable:
    """What is known of the clips before their sound is read.

    Attributes:
        source: Where their sound is.
        shards: Files that hold them, in the order of their names.
        shard_N: Which of these each clip lies in.
    """

    def __init__(self, source: ClipSource, folds: Sequence[int]) -> None:
        """Select the clips.

        Args:
            source: Where the clips are.
            folds: Folds to take, among the source's.

        Raises:
            PlatformError: If a fold is not among the source's.
        """
        source.check_folds(folds)
        clips = source.clips.filter(pc.field("fold").isin(list(folds)))
        self.source = source
        self._clip_ids = clips["clip_id"].combine_chunks()
        self._fold_N = clips["fold"].to_numpy().astype(np.int64)
        labels = clips["labels"].combine_chunks()
        self._labels = labels.values.to_numpy().astype(np.int64)
        self._offsets = labels.offsets.to_numpy()
        shard_file_N = clips["shard"].combine_chunks().dictionary_encode()
        files = np.asarray(shard_file_N.dictionary.to_pylist())
        self.shards: list[str] = sorted(files.tolist())
        self.shard_N = np.searchsorted(self.shards, files)[shard_file_N.indices.to_numpy()]

    def __len__(self) -> int:
        return len(self._clip_ids)

    def names(self, positions: np.ndarray) -> list[str]:
        """Ids of some clips."""
        return self._clip_ids.take(pa.array(positions)).to_pylist()

    def labels(self, position_B: np.ndarray, repeat_B: np.ndarray | None = None) -> ClipLabels:
        """Names and labels of a batch.

        Args:
            position_B: The clips.
            repeat_B: How often each came before in the epoch; None for never.
        """
        clip_ids = self.names(position_B)
        if repeat_B is not None:
            repeats = zip(clip_ids, repeat_B.tolist(), strict=True)
            clip_ids = [f"{clip_id}#{times}" if times else clip_id for clip_id, times in repeats]
        classes = [self._classes(position) for position in position_B.tolist()]
        label_B = [int(held[0]) if len(held) == 1 else -1 for held in classes]
        labels_BC = None
        if self.source.info.label_kind == "multi":
            labels_BC = torch.zeros(len(classes), self.source.info.num_labels)
            for held, labels_C in zip(classes, labels_BC, strict=True):
                labels_C[torch.from_numpy(held)] = 1.0
        fold_B = torch.from_numpy(self._fold_N[position_B])
        return ClipLabels(clip_ids, torch.tensor(label_B), labels_BC, fold_B)

    def balanced_weights(self) -> SamplingWeights:
        """Weights of class-balanced sampling.

        Raises:
            ValueError: If a clip has no label.
        """
        return balanced_weights(
            self._clip_ids.to_pylist(),
            [self._classes(position).tolist() for position in range(len(self))],
            num_classes=self.source.info.num_labels,
        )

    def _classes(self, position: int) -> np.ndarray:
        return self._labels[self._offsets[position] : self._offsets[position + 1]]


def count_repeats(position_SB: np.ndarray) -> np.ndarray:
    """How often each clip of an epoch came before it, as in `asit_core.sampling.occurrence_ids`."""
    flat = position_SB.ravel()
    order = np.argsort(flat, kind="stable")
    place = np.arange(len(flat))
    is_first = np.diff(flat[order], prepend=-1) != 0
    repeats = np.empty_like(place)
    repeats[order] = place - np.maximum.accumulate(np.where(is_first, place, 0))
    return repeats.reshape(position_SB.shape)
