"""Spectrograms as PNG and sounds as MP3, small enough to stand in a page.

Shape legend: S samples, T frames, F mel bins.
"""

import io

import numpy as np
import soundfile
import torch
from PIL import Image
from torch import Tensor

from asit_core.waveform import AudioError, load_waveform, resample_waveform
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

_MAX_WIDTH = 1000  # pixels; longer clips are drawn with several frames a pixel
# Dark violet to pale yellow, of even steps in lightness: at ten levels, those between are mixed.
_LEVELS = np.array(
    [
        (0, 0, 4),
        (24, 15, 61),
        (68, 15, 118),
        (114, 31, 129),
        (158, 47, 127),
        (205, 64, 113),
        (241, 96, 93),
        (253, 150, 104),
        (254, 202, 141),
        (252, 253, 191),
    ]
)
_MP3_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


def spectrogram_png(log_mel_TF: np.ndarray, *, low: float, high: float) -> bytes:
    """Draw a spectrogram, low frequencies at the bottom.

    Args:
        log_mel_TF: Log-mel values.
        low: Value that is drawn darkest.
        high: Value that is drawn brightest.
    """
    scaled_TF = (log_mel_TF.astype(np.float32) - low) / max(high - low, 1e-6)
    levels_FT = (scaled_TF.clip(0.0, 1.0) * 255.0).round().astype(np.uint8).T[::-1]
    picture = Image.fromarray(np.ascontiguousarray(levels_FT))
    if picture.width > _MAX_WIDTH:
        picture = picture.resize((_MAX_WIDTH, picture.height), Image.Resampling.BOX)
    picture.putpalette(_palette())
    written = io.BytesIO()
    picture.save(written, "PNG", optimize=True)
    return written.getvalue()


def file_sound(path: str, *, start_s: float, stop_s: float | None, rate_hz: int) -> Tensor | None:
    """Samples (S,) of a clip from its own file; None if it cannot be had any more."""
    try:
        place = Place.of(path)
        file = place.local if place.is_local else io.BytesIO(place.read_bytes())
        return load_waveform(file, sample_rate_hz=rate_hz, start_s=start_s, stop_s=stop_s)
    except (AudioError, OSError, PlatformError):
        return None


def sound_mp3(waveform_S: Tensor, rate_hz: int) -> bytes:
    """Encode a sound, at the next rate that MP3 knows.

    Args:
        waveform_S: Samples in [-1, 1].
        rate_hz: Their rate.
    """
    mp3_hz = next((rate for rate in _MP3_RATES_HZ if rate >= rate_hz), _MP3_RATES_HZ[-1])
    samples_S = resample_waveform(waveform_S, rate_hz, sample_rate_hz=mp3_hz)
    written = io.BytesIO()
    peak = float(torch.maximum(samples_S.abs().max(), torch.tensor(1.0)))  # float files may clip
    soundfile.write(written, (samples_S / peak).numpy(), mp3_hz, format="MP3")
    return written.getvalue()


def _palette() -> list[int]:
    at = np.linspace(0, len(_LEVELS) - 1, 256)
    channels = [np.interp(at, np.arange(len(_LEVELS)), _LEVELS[:, color]) for color in range(3)]
    return np.stack(channels, axis=1).round().astype(int).flatten().tolist()
