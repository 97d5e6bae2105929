"""From the rows of a step to one batch of whole clips, on the device asked for.

Waveform shards become log-mels here, on that device; they are rounded to float16, as the values in
log-mel shards are.

Shape legend: B clips, C classes, T frames, F mel bins, S samples.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from asit_core.spectrogram import LOG_MEL_FLOOR, LogMel, LogMelConfig
from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.streaming.rows import ClipRows

_INT16_SCALE = 32768.0


class ClipBatch(NamedTuple):
    """Clips of one step.

    Attributes:
        clip_ids: B ids; a clip that was drawn again in the epoch is `name#1`.
        log_mel_BTF: float16, on the stream's device; frames past a clip's end hold
            `LOG_MEL_FLOOR`; T is the dataset's `max_frames`.
        num_frames_B: int64, valid frames.
        label_B: int64; -1 where a clip has not exactly one label.
        fold_B: int64.
        labels_BC: float32 multi-hot if clips may have several labels, else None.
    """

    clip_ids: list[str]
    log_mel_BTF: Tensor
    num_frames_B: Tensor
    label_B: Tensor
    fold_B: Tensor
    labels_BC: Tensor | None = None


class Collator:
    """Makes batches of whole clips.

    Host memory is pinned where the device is a GPU: PyTorch's allocator hands the same again once
    the copy from it is done.
    """

    def __init__(self, info: DatasetInfo, device: torch.device | None = None) -> None:
        self._device = device or torch.device("cpu")
        self._shape = (info.max_frames, info.num_mel_bins)
        self._log_mel = None
        if info.content == "waveform":
            self._log_mel = LogMel(LogMelConfig(**info.front_end)).to(self._device)

    def __call__(self, rows: ClipRows) -> ClipBatch:
        """Copy the rows into a batch."""
        if self._log_mel is None:
            log_mel_BTF = self._pad(rows.rows, self._shape, fill=LOG_MEL_FLOOR)
            num_frames_B = torch.tensor([len(row) for row in rows.rows])
        else:
            log_mel_BTF, num_frames_B = self._compute(self._log_mel, rows.rows)
        return ClipBatch(
            clip_ids=rows.labels.clip_ids,
            log_mel_BTF=log_mel_BTF,
            num_frames_B=num_frames_B,
            label_B=rows.labels.label_B,
            fold_B=rows.labels.fold_B,
            labels_BC=rows.labels.labels_BC,
        )

    def _pad(self, rows: list[Tensor], shape: tuple[int, ...], *, fill: float) -> Tensor:
        padded = torch.empty(
            (len(rows), *shape), dtype=rows[0].dtype, pin_memory=self._device.type == "cuda"
        )
        for row, out in zip(rows, padded, strict=True):
            out[: len(row)].copy_(row)
            out[len(row) :].fill_(fill)
        return padded.to(self._device, non_blocking=True)

    def _compute(self, log_mel: LogMel, waveforms: list[Tensor]) -> tuple[Tensor, Tensor]:
        num_samples_B = torch.tensor([len(waveform_S) for waveform_S in waveforms])
        samples_BS = self._pad(waveforms, (int(num_samples_B.max()),), fill=0)
        computed_BTF = log_mel(samples_BS.float() / _INT16_SCALE, num_samples_B).half()
        shape = (len(waveforms), *self._shape)
        log_mel_BTF = computed_BTF.new_full(shape, LOG_MEL_FLOOR)
        log_mel_BTF[:, : computed_BTF.shape[1]] = computed_BTF
        num_frames = [log_mel.num_frames(num_samples) for num_samples in num_samples_B.tolist()]
        return log_mel_BTF, torch.tensor(num_frames)
