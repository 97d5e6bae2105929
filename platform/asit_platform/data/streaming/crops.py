"""Crops of a step's clips, cut straight from shared memory into buffers that are used again.

`asit_core.views` cuts crops out of a padded batch of whole clips, which is right on a GPU; on a CPU
that batch is copied for nothing. Here each crop is copied once, becomes float32 on the way, and is
normalised while it is in the cache. Draws and values are those of `make_views` and `normalize`, bit
for bit.

Shape legend: V views, B clips, T frames, F mel bins, C classes.
"""

from collections.abc import Iterator
from itertools import cycle
from typing import NamedTuple

import torch
from torch import Tensor

from asit_core.seeding import clip_keys, uniform
from asit_core.spectrogram import LOG_MEL_FLOOR
from asit_core.views import MAX_DRAWS, SILENCE, ViewsConfig, make_views, normalize
from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.streaming.collate import Collator
from asit_platform.data.streaming.rows import ClipRows

_FLOOR_IN_SHARDS = float(torch.tensor(LOG_MEL_FLOOR, dtype=torch.float16))


class ViewBatch(NamedTuple):
    """Crops of one step, as a model takes them.

    Attributes:
        clip_ids: B ids; a clip that was drawn again in the epoch is `name#1`.
        view_VBTF: float32, normalised, on the device asked for; on a CPU, the buffer of a later
            batch, so not to be kept.
        num_frames_B: int64, valid frames of the whole clip.
        label_B: int64; -1 where a clip has not exactly one label.
        fold_B: int64.
        labels_BC: float32 multi-hot if clips may have several labels, else None.
    """

    clip_ids: list[str]
    view_VBTF: Tensor
    num_frames_B: Tensor
    label_B: Tensor
    fold_B: Tensor
    labels_BC: Tensor | None


class ViewCutter:
    """Cuts, pads and normalises the crops of each step."""

    def __init__(
        self,
        info: DatasetInfo,
        config: ViewsConfig,
        *,
        seed: int,
        mean: float,
        std: float,
        device: torch.device | None = None,
        num_buffers: int = 2,
    ) -> None:
        """Set up the buffers.

        Args:
            info: The dataset.
            config: What to cut.
            seed: The trial's.
            mean: Log-mel mean to normalise with.
            std: Log-mel deviation to normalise with.
            device: Where the crops go.
            num_buffers: On a CPU, a batch is overwritten by the `num_buffers`-th one after it.
        """
        self._config, self._seed, self._mean, self._std = config, seed, mean, std
        self._device = device or torch.device("cpu")
        self._num_mel_bins = info.num_mel_bins
        self._collator = Collator(info, self._device) if info.content == "waveform" else None
        self._buffers: Iterator[list[Tensor]] = cycle([[] for _ in range(num_buffers)])

    def __call__(self, rows: ClipRows) -> ViewBatch:
        """Cut one step's crops."""
        if self._collator is None:
            view_VBTF = self._cut(rows)
            num_frames_B = torch.tensor([len(row_TF) for row_TF in rows.rows])
        else:
            batch = self._collator(rows)
            num_frames_B = batch.num_frames_B
            views_VBTF = make_views(
                batch.log_mel_BTF,
                num_frames_B,
                batch.clip_ids,
                self._config,
                seed=self._seed,
                epoch=rows.epoch,
            )
            view_VBTF = normalize(views_VBTF, mean=self._mean, std=self._std)
        labels = rows.labels
        return ViewBatch(
            clip_ids=labels.clip_ids,
            view_VBTF=view_VBTF,
            num_frames_B=num_frames_B,
            label_B=labels.label_B,
            fold_B=labels.fold_B,
            labels_BC=labels.labels_BC,
        )

    def _cut(self, rows: ClipRows) -> Tensor:
        view_VBTF = self._buffer(len(rows.rows))
        for view, out_BTF in enumerate(view_VBTF):
            crops = self._draw(rows, view)
            for row_TF, (shift, starts), out_TF in zip(rows.rows, crops, out_BTF, strict=True):
                self._write(row_TF, shift, starts, out_TF)
        # on a CPU it is there already
        return view_VBTF.to(self._device, non_blocking=True)

    def _buffer(self, num_clips: int) -> Tensor:
        config = self._config
        shape = (config.num_views, num_clips, config.crop_frames, self._num_mel_bins)
        if self._device.type == "cuda":
            # pinned memory that PyTorch hands out again once the copy from it is done
            return torch.empty(shape, pin_memory=True)
        kept = next(self._buffers)
        if not kept or kept[0].shape != shape:
            kept[:] = [torch.empty(shape)]
        return kept[0]

    def _draw(self, rows: ClipRows, view: int) -> list[tuple[int, list[int]]]:
        """Of each clip, how far it is rolled, and where its crop may start."""
        config = self._config
        keys_B = clip_keys(self._seed, "crop", rows.epoch, rows.labels.clip_ids, view)
        draws = uniform(keys_B, 2 + MAX_DRAWS)
        length_B1 = torch.tensor([len(row_TF) for row_TF in rows.rows])[:, None]
        rolls_B1 = draws[:, :1] < config.roll_probability
        shift_B1 = (draws[:, 1:2] * length_B1).long() * rolls_B1
        room_B1 = (length_B1 - config.crop_frames).clamp(min=0)
        starts_BC = (draws[:, 2:] * (room_B1 + 1)).long()
        return list(zip(shift_B1[:, 0].tolist(), starts_BC.tolist(), strict=True))

    def _write(self, row_TF: Tensor, shift: int, starts: list[int], out_TF: Tensor) -> None:
        for start in starts[:-1]:
            parts = _rolled(row_TF, shift, start, self._config.crop_frames)
            if any(_is_audible(part_TF) for part_TF in parts):
                break
        else:
            parts = _rolled(row_TF, shift, starts[-1], self._config.crop_frames)
        written = 0
        for part_TF in parts:
            end = written + part_TF.shape[0]
            out_TF[written:end].copy_(part_TF)
            written = end
        if written < self._config.crop_frames:
            filler = _FLOOR_IN_SHARDS if self._config.padding == "silence" else 0.0
            out_TF[written:].fill_(filler)
        out_TF.sub_(self._mean).div_(2.0 * self._std)


def _rolled(row_TF: Tensor, shift: int, start: int, crop_frames: int) -> list[Tensor]:
    """A crop of the clip rolled by `shift` frames: one part of it, or its end and its beginning."""
    length = row_TF.shape[0]
    first = (start - shift) % length
    last = first + min(crop_frames, length - start)
    parts = [row_TF[first:last]]
    if last > length:
        parts.append(row_TF[: last - length])
    return parts


def _is_audible(part_TF: Tensor) -> bool:
    # nearly always the first frame settles it
    return bool((part_TF[:1] > SILENCE).any()) or bool((part_TF > SILENCE).any())
