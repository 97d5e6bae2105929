"""Reads a sound file as one float32 channel at the rate the front end expects.

Everything after this file may assume finite, mono, non-empty audio: what cannot be turned into that
raises `AudioError`, which a data preparation counts and lists instead of stopping.

Shape legend: S samples.
"""

from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import torch
from torch import Tensor
from torchaudio.functional import resample

# torchaudio's polyphase kernel holds about `denominator * numerator` values, so an odd header such
# as 44101 Hz -> 32 kHz would ask for 5 GB. All usual pairs of rates have a denominator below this.
_MAX_RESAMPLE_DENOMINATOR = 2000
_MAX_RATE_ERROR = 1e-5  # 0.02 cents of pitch; what the rounding of an odd pair may cost
_MAX_PEAK = 100.0  # 40 dB above full scale: no float recording, but 16-bit samples not divided

Waveform = Tensor | np.ndarray


class AudioError(ValueError):
    """Sound that cannot be used; the message is one line, with the path where it is a file."""


def load_waveform(
    path: str | Path | BinaryIO,
    *,
    sample_rate_hz: int,
    start_s: float = 0.0,
    stop_s: float | None = None,
) -> Tensor:
    """Decodes a file, averages its channels and resamples it.

    Args:
        path: A wav, flac, ogg or mp3 file (whatever libsndfile decodes), or one open for reading.
        sample_rate_hz: Rate of the returned samples, in Hz.
        start_s: Where in the file to begin.
        stop_s: Where to end; None, or a time past the end, means the end.

    Returns:
        Float32 samples of shape (S,), S >= 1; in [-1, 1] for integer formats (averaging keeps the
        range, resampling may overshoot a little); float files keep their own scale.

    Raises:
        AudioError: If the file is missing, cannot be decoded, holds no sample there, holds NaN or
            infinity, or has a rate that cannot be brought to `sample_rate_hz`.
        ValueError: If `sample_rate_hz` is not positive.

    Source: channel mean as in librosa.to_mono; windowed-sinc resampling of torchaudio. ASiT's own
    loader does neither and assumes 32 kHz mono.
    """
    if sample_rate_hz <= 0:
        raise ValueError(f"sample_rate_hz must be > 0, but got {sample_rate_hz}")
    try:
        samples, native_rate_hz = _decode(path, start_s=start_s, stop_s=stop_s)
        if samples.shape[0] == 0:
            raise AudioError("holds no samples; remove the file or record it again")
        mono = samples.mean(axis=1, dtype=np.float32)
        if not np.isfinite(mono).all():
            raise AudioError("samples must be finite, but NaN or infinity was found")
        waveform = torch.from_numpy(mono)
        return resample_waveform(waveform, native_rate_hz, sample_rate_hz=sample_rate_hz)
    except AudioError as error:
        if not isinstance(path, str | Path):
            raise
        raise AudioError(f"{path}: {error}") from error


def resample_waveform(waveform_S: Tensor, native_rate_hz: int, *, sample_rate_hz: int) -> Tensor:
    """Brings samples to another rate; at the rate they have, they are returned as they are.

    Args:
        waveform_S: Floating-point samples, on any device; any leading axes.
        native_rate_hz: Their rate, in Hz.
        sample_rate_hz: The rate wanted, in Hz.

    Returns:
        About S * sample_rate_hz / native_rate_hz samples.

    Raises:
        AudioError: If the ratio of the rates is one that nobody uses, such as 1 Hz to 32 kHz.
        ValueError: If a rate is not positive.

    Source: windowed-sinc resampling of torchaudio.
    """
    for name, rate_hz in (("native_rate_hz", native_rate_hz), ("sample_rate_hz", sample_rate_hz)):
        if rate_hz <= 0:
            raise ValueError(f"{name} must be > 0, but got {rate_hz}")
    if native_rate_hz == sample_rate_hz:
        return waveform_S
    ratio = _resample_ratio(native_rate_hz, sample_rate_hz)
    return resample(waveform_S, ratio.numerator, ratio.denominator)


def check_waveform(waveform: Waveform, name: str) -> Tensor:
    """Makes sure that samples from anywhere are what `load_waveform` would have given.

    Args:
        waveform: Samples of one channel, (S,), as a tensor or an array.
        name: What to call them in an error.

    Returns:
        The same samples as a tensor.

    Raises:
        ValueError: If they have another shape.
        AudioError: If they are integers, none, not finite, or not scaled to about [-1, 1].
    """
    waveform_S = torch.as_tensor(waveform)
    if waveform_S.ndim != 1:
        raise ValueError(
            f"{name} must have shape (S,), (B, S) for a batch, but got {tuple(waveform_S.shape)}; "
            "average its channels first"
        )
    if not waveform_S.is_floating_point():
        raise AudioError(
            f"{name} must be floating point in [-1, 1], but got {waveform_S.dtype}; divide 16-bit "
            "samples by 32768"
        )
    if not len(waveform_S):
        raise AudioError(f"{name} must hold at least one sample, but got none")
    bad = (~waveform_S.isfinite()).nonzero()
    if len(bad):
        at = int(bad[0])
        raise AudioError(f"{name} must be finite, but got {waveform_S[at].item()} at sample {at}")
    peak = waveform_S.abs().max().item()
    if peak > _MAX_PEAK:
        raise AudioError(
            f"{name} must be scaled to [-1, 1], but got a peak of {peak:g}; divide 16-bit samples "
            "by 32768"
        )
    return waveform_S


def is_digital_silence(waveform: Tensor) -> bool:
    """Says whether every sample is exactly zero (any shape; true for an empty tensor)."""
    return not bool(waveform.any())


def _decode(
    file: str | Path | BinaryIO, *, start_s: float, stop_s: float | None
) -> tuple[np.ndarray, int]:
    if isinstance(file, str | Path) and not Path(file).is_file():
        raise AudioError("is not a file; check the path")
    try:
        with soundfile.SoundFile(file) as sound:
            rate_hz, end = sound.samplerate, sound.frames
            start = round(start_s * rate_hz)
            stop = end if stop_s is None else min(round(stop_s * rate_hz), end)
            if 0 < start >= end:
                raise AudioError(
                    f"must last longer than {start_s:g} s, where the clip begins, but lasts "
                    f"{end / rate_hz:g} s"
                )
            sound.seek(start)
            return sound.read(max(0, stop - start), dtype="float32", always_2d=True), rate_hz
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: headerless .raw
        raise AudioError(f"cannot be decoded as audio ({_reason(error)})") from error


def _resample_ratio(native_rate_hz: int, sample_rate_hz: int) -> Fraction:
    exact = Fraction(native_rate_hz, sample_rate_hz)
    ratio = exact.limit_denominator(_MAX_RESAMPLE_DENOMINATOR)
    if abs(ratio - exact) > _MAX_RATE_ERROR * exact:
        raise AudioError(
            f"a sample rate of {native_rate_hz} Hz cannot be resampled to "
            f"{sample_rate_hz} Hz; convert the file to a usual rate"
        )
    return ratio


def _reason(error: Exception) -> str:
    """In one line and without the path, which whoever prints it knows."""
    text = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    return " ".join(text.split())
