"""A model with its front end: sound in; clip vector, frames and patches out.

The front end and its normalisation travel with the weights, so that a model trained at 16 kHz is
never fed 32 kHz statistics. Long sound goes through in windows of the length the model was trained
on; their overlaps are cut in the middle, so that every column of patches comes from one window.

Shape legend: B clips, S samples, T frames of the log-mel, F mel bins, W windows, N patches, C class
tokens, D width, t columns of patches in time, f rows of patches in frequency.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from asit_core.encoder import SpectrogramEncoder, patch_grid
from asit_core.spectrogram import LOG_MEL_FLOOR, LogMel, LogMelConfig
from asit_core.stitching import WindowPlan
from asit_core.views import normalize
from asit_core.waveform import AudioError, Waveform, check_waveform, resample_waveform

Features = Literal["mean", "cls", "both"]

_FEATURES = ("mean", "cls", "both")


class Embedding(NamedTuple):
    """What a model makes of one clip; of a batch (B, S), each field but the times begins with B."""

    clip_vector: Tensor  # (D,), or (2 D,) with features="both"
    frame_matrix: Tensor  # (t, D): the mean over frequency of each column of patches
    frame_time_s: Tensor  # (t,), float64: middle of each frame, in seconds from the clip's start
    patch_grid: Tensor  # (t, f, D)


class SpectrogramModel(nn.Module):
    """An encoder, the front end it was trained with, and the normalisation in between."""

    def __init__(
        self,
        encoder: SpectrogramEncoder,
        *,
        front_end: LogMelConfig,
        mean: float,
        std: float,
        pad_value: float = LOG_MEL_FLOOR,
    ) -> None:
        """Put the parts together.

        Args:
            encoder: Used as it is, in evaluation mode.
            front_end: Makes log-mels of waveforms.
            mean: Of the log-mels trained on.
            std: Their deviation; the encoder sees (x - mean) / (2 std).
            pad_value: Log-mel that follows clips shorter than a window: silence, or the 0 of AST.

        Raises:
            ValueError: If the front end's mel bins are not the encoder's, or the statistics are
                not finite or the deviation not positive.
        """
        super().__init__()
        if front_end.num_mel_bins != encoder.config.input_bins:
            raise ValueError(
                f"front_end.num_mel_bins must be {encoder.config.input_bins} (the encoder's "
                f"input_bins), but got {front_end.num_mel_bins}"
            )
        if not (math.isfinite(mean) and math.isfinite(pad_value) and 0.0 < std < math.inf):
            raise ValueError(
                "mean and pad_value must be finite and std finite and above 0, "
                f"but got {mean}, {pad_value} and {std}"
            )
        self.encoder = encoder
        self.log_mel = LogMel(front_end)
        self.mean, self.std, self.pad_value = mean, std, pad_value
        self.eval()

    @overload
    def embed(
        self,
        waveform: Waveform,
        sample_rate_hz: int,
        *,
        features: Features = "mean",
        overlap: float = 0.25,
        windows_per_batch: int = 8,
    ) -> Embedding: ...

    @overload
    def embed(
        self,
        waveform: Sequence[Waveform],
        sample_rate_hz: int,
        *,
        features: Features = "mean",
        overlap: float = 0.25,
        windows_per_batch: int = 8,
    ) -> list[Embedding]: ...

    @torch.no_grad()
    def embed(
        self,
        waveform: Waveform | Sequence[Waveform],
        sample_rate_hz: int,
        *,
        features: Features = "mean",
        overlap: float = 0.25,
        windows_per_batch: int = 8,
    ) -> Embedding | list[Embedding]:
        """Embeds sound of any length and rate.

        Args:
            waveform: Floating-point samples in [-1, 1] of one channel: (S,) for one clip, (B, S)
                for a batch, or a sequence of (S,) of different lengths. Channels are not a batch:
                average them first, as `load_waveform` does.
            sample_rate_hz: Their rate, in Hz; resampled to the front end's.
            features: The clip vector: `mean` of the patches, `cls` token (two: their mean), or
                `both` side by side.
            overlap: Share of a window that is also in the next, in [0, 1). Read for clips longer
                than a window only.
            windows_per_batch: Windows the encoder sees at once.

        Returns:
            Float32 tensors on the model's device; a list where a sequence came in. Patches that lie
            wholly beyond the end of a clip are left out; the last one may reach past it. A clip of
            up to one window has no more columns than the encoder was trained on.

        Raises:
            ValueError: If the rate is not a whole number above 0, an option is out of range, or
                the shape is another; `AudioError`, a `ValueError`, if samples are integers, none,
                not finite, not scaled to [-1, 1], or fewer than one frame.

        Source: frame vectors as in SSAST's frame models (arXiv:2110.09784, Sec. 2.1). For a clip
        that fills one window, `cls` is AST's pooling (arXiv:2104.01778, Sec. 2.1) and `mean` that
        of SSAST's fine-tuning; these also pool the padding of shorter clips, and know no windows.
        """
        _check_options(sample_rate_hz, features, overlap, windows_per_batch)
        if isinstance(waveform, Tensor | np.ndarray) and waveform.ndim != 2:
            clips, names = [waveform], ["waveform"]
        else:
            clips = list(waveform)
            names = [f"waveform {index}" for index in range(len(clips))]
        if not clips:
            raise ValueError("waveform must hold at least one clip, but got none")
        log_mels = [
            self._log_mel_of(check_waveform(clip, name), int(sample_rate_hz), name)
            for clip, name in zip(clips, names, strict=True)
        ]
        tokens = self._tokens(log_mels, overlap, windows_per_batch)
        embeddings = [self._embedding(grid_tfD, cls_D, features) for grid_tfD, cls_D in tokens]
        if not isinstance(waveform, Tensor | np.ndarray):
            return embeddings
        return _stack(embeddings) if waveform.ndim == 2 else embeddings[0]

    def _log_mel_of(self, waveform_S: Tensor, sample_rate_hz: int, name: str) -> Tensor:
        config = self.log_mel.config
        waveform_S = resample_waveform(
            waveform_S.to(self.encoder.pos_embed.device, torch.float32),
            sample_rate_hz,
            sample_rate_hz=config.sample_rate_hz,
        )
        if len(waveform_S) < config.frame_samples:
            raise AudioError(
                f"{name} must last at least one frame ({config.frame_length_ms:g} ms), but got "
                f"{len(waveform_S)} samples at {config.sample_rate_hz} Hz; pad the clip"
            )
        return self.log_mel(waveform_S[None])[0]

    def _tokens(
        self, log_mels: Sequence[Tensor], overlap: float, windows_per_batch: int
    ) -> list[tuple[Tensor, Tensor]]:
        """Of each clip, the patch grid (t, f, D) and the mean class token (D,)."""
        config, (columns, rows) = self.encoder.config, self.encoder.grid
        (patch, _), (stride, _) = config.patch, config.stride
        span = patch + stride * (columns - 1)
        windows, plans = [], []
        for log_mel_TF in log_mels:
            num_columns = 1 + max(0, math.ceil((len(log_mel_TF) - patch) / stride))
            if len(log_mel_TF) <= self.encoder.input_frames:
                num_columns = min(num_columns, columns)
            padding = patch + stride * (max(num_columns, columns) - 1) - len(log_mel_TF)
            padded_TF = pad(log_mel_TF, (0, 0, 0, padding), value=self.pad_value)
            padded_TF = normalize(padded_TF, mean=self.mean, std=self.std)
            plan = WindowPlan.of(num_columns, columns, overlap)
            windows += [padded_TF[stride * start :][:span] for start in plan.start_W]
            plans.append(plan)
        tokens_WND = torch.cat(
            [
                self.encoder(torch.stack(windows[first : first + windows_per_batch])).float()
                for first in range(0, len(windows), windows_per_batch)
            ]
        )
        num_cls = config.num_cls_tokens
        cls_WD = tokens_WND[:, :num_cls].mean(dim=1)
        grid_WtfD = patch_grid(tokens_WND[:, num_cls:], (columns, rows), config.token_order)
        sizes = [len(plan.start_W) for plan in plans]
        return [
            (plan.stitch(clip_WtfD), clip_WD.mean(dim=0))
            for plan, clip_WtfD, clip_WD in zip(
                plans, grid_WtfD.split(sizes), cls_WD.split(sizes), strict=True
            )
        ]

    def _embedding(self, grid_tfD: Tensor, cls_D: Tensor, features: Features) -> Embedding:
        mean_D = grid_tfD.mean(dim=(0, 1))
        match features:
            case "mean":
                clip_vector = mean_D
            case "cls":
                clip_vector = cls_D
            case "both":
                clip_vector = torch.cat([mean_D, cls_D])
        return Embedding(clip_vector, grid_tfD.mean(dim=1), self._times(len(grid_tfD)), grid_tfD)

    def _times(self, num_columns: int) -> Tensor:
        """Middle of the sound that each column of patches sees, (t,) in seconds."""
        front_end, encoder = self.log_mel.config, self.encoder.config
        column_t = torch.arange(
            num_columns, dtype=torch.float64, device=self.encoder.pos_embed.device
        )
        first_sample_t = column_t * encoder.stride[0] * front_end.hop_samples
        num_samples = (encoder.patch_frames - 1) * front_end.hop_samples + front_end.frame_samples
        return (first_sample_t + num_samples / 2) / front_end.sample_rate_hz


def _check_options(
    sample_rate_hz: float, features: str, overlap: float, windows_per_batch: int
) -> None:
    if not 0 < sample_rate_hz < math.inf or sample_rate_hz != int(sample_rate_hz):
        raise ValueError(f"sample_rate_hz must be a whole number > 0, but got {sample_rate_hz}")
    if features not in _FEATURES:
        raise ValueError(f"features must be one of {', '.join(_FEATURES)}, but got {features!r}")
    if not 0.0 <= overlap < 1.0:
        raise ValueError(f"overlap must be in [0, 1), but got {overlap}")
    if windows_per_batch < 1:
        raise ValueError(f"windows_per_batch must be >= 1, but got {windows_per_batch}")


def _stack(embeddings: Sequence[Embedding]) -> Embedding:
    vectors, matrices, times, grids = zip(*embeddings, strict=True)
    return Embedding(torch.stack(vectors), torch.stack(matrices), times[0], torch.stack(grids))
