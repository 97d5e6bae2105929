"""One sound file, wherever it lies -> what a shard keeps of it.

Shape legend: S samples, T frames, F mel bins.
"""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from asit_core.spectrogram import LogMel
from asit_core.waveform import AudioError, check_waveform, is_digital_silence, load_waveform
from asit_platform.data.fold_statistics import FoldStatistics
from asit_platform.data.listing import Content
from asit_platform.data.shard_file import source_sha256
from asit_platform.data.shard_report import UNREADABLE
from asit_platform.storage import Place

_FULL_SCALE = 32768  # of int16


class SoundBytes(NamedTuple):
    """A file as it lies on disk: where to decode it from, its content hash and size."""

    file: Path | io.BytesIO
    sha256: str
    num_bytes: int


NOTHING_READ = SoundBytes(Path(), "", UNREADABLE)


class Sound(NamedTuple):
    """A decoded clip.

    Attributes:
        values: What the shard holds: float16 (T, F) or int16 (S,).
        num_frames: Of the spectrogram.
        duration_s: In seconds.
        silent: Whether it is digital silence.
        statistics: Of the log-mel values.
    """

    values: np.ndarray
    num_frames: int
    duration_s: float
    silent: bool
    statistics: FoldStatistics


def read_bytes(place: Place) -> SoundBytes:
    """Read a file for its content hash; a remote one is fetched whole, once.

    Raises:
        AudioError: If it is no file, or cannot be read.
    """
    try:
        if not place.is_local:
            content = place.read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            return SoundBytes(io.BytesIO(content), sha256, len(content))
        found = place.stat()
        return SoundBytes(place.local, source_sha256(place, found), found.size)
    except FileNotFoundError:
        raise AudioError("is not a file; check the path") from None
    except OSError as error:
        # without the path: what a shard says must not depend on where files lie
        reason = error.strerror if place.is_local else type(error).__name__
        raise AudioError(f"cannot be read ({reason})") from error


def decode(
    file: Path | io.BytesIO, clip: Mapping[str, Any], log_mel: LogMel, *, content: Content
) -> Sound:
    """Decode a clip.

    Args:
        file: From `read_bytes`.
        clip: Row of the manifest: which part of the file it is.
        log_mel: The front end.
        content: What to keep.

    Raises:
        AudioError: If the clip is unusable.
    """
    rate_hz = log_mel.config.sample_rate_hz
    waveform_S = _load(file, clip, rate_hz=rate_hz)
    if log_mel.num_frames(len(waveform_S)) == 0:
        raise AudioError(
            f"must last at least one frame ({log_mel.config.frame_length_ms:g} ms), "
            f"but got {len(waveform_S)} samples at {rate_hz} Hz"
        )
    samples_S = _quantize(waveform_S) if content == "waveform" else None
    if samples_S is not None:  # statistics are of what a stream will see
        waveform_S = torch.from_numpy(samples_S.astype(np.float32) / _FULL_SCALE)
    log_mel_TF = log_mel(waveform_S[None])[0].numpy().astype(np.float16)
    if not np.isfinite(log_mel_TF).all():  # one such clip would be the mean of the whole set
        raise AudioError("log-mels must be finite, but are not; record it again")
    return Sound(
        values=log_mel_TF if samples_S is None else samples_S,
        num_frames=len(log_mel_TF),
        duration_s=len(waveform_S) / rate_hz,
        silent=is_digital_silence(waveform_S),
        statistics=_statistics(log_mel_TF),
    )


def _load(file: Path | io.BytesIO, clip: Mapping[str, Any], *, rate_hz: int) -> Tensor:
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # told in one line below
            waveform_S = load_waveform(
                file, sample_rate_hz=rate_hz, start_s=clip["start_s"], stop_s=clip["stop_s"]
            )
    except AudioError:
        raise
    except (ValueError, OverflowError, MemoryError) as error:  # a header that says 68e9 samples
        raise AudioError(
            f"cannot be decoded as audio ({type(error).__name__}; damaged header?)"
        ) from error
    return check_waveform(waveform_S, "samples")


def _quantize(waveform_S: Tensor) -> np.ndarray:
    """16-bit samples; those of a 16-bit file at the same rate come out as they were."""
    scaled_S = (waveform_S * _FULL_SCALE).round().clamp(-_FULL_SCALE, _FULL_SCALE - 1)
    return scaled_S.numpy().astype(np.int16)


def _statistics(log_mel_TF: np.ndarray) -> FoldStatistics:
    values = log_mel_TF.astype(np.float64)
    mean = float(values.mean())
    return FoldStatistics(values.size, mean, float(np.square(values - mean).sum()))
