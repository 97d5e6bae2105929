"""Reads a sound file as one float32 channel at the rate the front end expects.

Everything after this file may assume finite, mono, non-empty audio: what cannot be turned into that
raises `AudioError`, which a data preparation counts and lists instead of stopping.

Shape legend: S samples.
"""

from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor
from torchaudio.functional import resample

# torchaudio's polyphase kernel holds about `denominator * numerator` values, so an odd header such
# as 44101 Hz -> 32 kHz would ask for 5 GB. All usual pairs of rates have a denominator below this.
_MAX_RESAMPLE_DENOMINATOR = 2000
_MAX_RATE_ERROR = 1e-5  # 0.02 cents of pitch; what the rounding of an odd pair may cost


class AudioError(ValueError):
    """A sound file that cannot become usable samples; the message is one line with the path."""


def load_waveform(path: str | Path, *, sample_rate_hz: int) -> Tensor:
    """Decodes a file, averages its channels and resamples it.

    Args:
        path: A wav, flac, ogg or mp3 file (whatever libsndfile decodes).
        sample_rate_hz: Rate of the returned samples, in Hz.

    Returns:
        Float32 samples of shape (S,), S >= 1; in [-1, 1] for integer formats (averaging keeps the
        range, resampling may overshoot a little); float files keep their own scale.

    Raises:
        AudioError: If the file is missing, cannot be decoded, holds no sample, holds NaN or
            infinity, or has a rate that cannot be brought to `sample_rate_hz`.
        ValueError: If `sample_rate_hz` is not positive.

    Source: channel mean as in librosa.to_mono; windowed-sinc resampling of torchaudio. ASiT's own
    loader does neither and assumes 32 kHz mono.
    """
    if sample_rate_hz <= 0:
        raise ValueError(f"sample_rate_hz must be > 0, but got {sample_rate_hz}")
    samples, native_rate_hz = _decode(Path(path))
    if samples.shape[0] == 0:
        raise AudioError(f"{path}: holds no samples; remove the file or record it again")
    mono = samples.mean(axis=1, dtype=np.float32)
    if not np.isfinite(mono).all():
        raise AudioError(f"{path}: samples must be finite, but NaN or infinity was found")
    waveform = torch.from_numpy(mono)
    if native_rate_hz == sample_rate_hz:
        return waveform
    ratio = _resample_ratio(path, native_rate_hz, sample_rate_hz)
    return resample(waveform, ratio.numerator, ratio.denominator)


def is_digital_silence(waveform: Tensor) -> bool:
    """Says whether every sample is exactly zero (any shape; true for an empty tensor)."""
    return not bool(waveform.any())


def _decode(path: Path) -> tuple[np.ndarray, int]:
    if not path.is_file():
        raise AudioError(f"{path}: is not a file; check the path")
    try:
        return soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: headerless .raw
        raise AudioError(f"{path}: cannot be decoded as audio ({_one_line(error)})") from error


def _resample_ratio(path: str | Path, native_rate_hz: int, sample_rate_hz: int) -> Fraction:
    exact = Fraction(native_rate_hz, sample_rate_hz)
    ratio = exact.limit_denominator(_MAX_RESAMPLE_DENOMINATOR)
    if abs(ratio - exact) > _MAX_RATE_ERROR * exact:
        raise AudioError(
            f"{path}: a sample rate of {native_rate_hz} Hz cannot be resampled to "
            f"{sample_rate_hz} Hz; convert the file to a usual rate"
        )
    return ratio


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
