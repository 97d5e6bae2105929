"""The sounds of the synthetic set: five movements of a tone, each slow or fast, in noise.

A class is a pattern in time: which way a pitch glides, whether it swings or steps, whether only the
level moves, and how often a second. Averages over time hardly tell such classes apart, and patterns
do: steady tones, noise bands, clicks and harmonic stacks are not among them, since log-mel
statistics alone name those. Pitch, width of the glide, phase, level, background and the colour of
the whole are drawn at random.

Shape legend: S samples.
"""

from collections.abc import Callable, Mapping

import numpy as np

# Difficulty. Narrower ranges and a higher signal-to-noise ratio make the task easier, for log-mel
# statistics as well as for a model.
PITCH_RANGE_HZ = (600.0, 1300.0)
GLIDE_RANGE_OCTAVES = (0.8, 1.0)
RATE_RANGE_HZ: Mapping[str, tuple[float, float]] = {"slow": (3.0, 4.5), "fast": (7.0, 11.0)}
SNR_RANGE_DB = (12.0, 22.0)
NOISE_SLOPE_RANGE = (0.0, 1.0)  # power ~ 1 / f ** slope: from white to pink
COLOUR_RANGE_DB = (-1.5, 1.5)
LEVEL_RANGE_DB = (-26.0, -16.0)  # of full scale: room for peaks, which would be clipped


def make_sound(
    name: str, rng: np.random.Generator, *, duration_s: float, sample_rate_hz: int
) -> np.ndarray:
    """One sound in (-1, 1): the class's pattern in noise.

    Args:
        name: One of `CLASS_NAMES`.
        rng: Every draw is from here.
        duration_s: Of the clip.
        sample_rate_hz: Of the samples.
    """
    movement, speed = name.rsplit("_", 1)
    time_s = np.arange(round(duration_s * sample_rate_hz)) / sample_rate_hz
    cycles = rng.uniform(*RATE_RANGE_HZ[speed]) * time_s + rng.uniform()
    octaves, gain = _MOVEMENTS[movement](cycles)
    octaves = octaves * rng.uniform(*GLIDE_RANGE_OCTAVES)
    pitch_hz = np.exp(rng.uniform(*np.log(PITCH_RANGE_HZ))) * 2.0**octaves
    tone_S = gain * np.sin(2 * np.pi * (np.cumsum(pitch_hz) / sample_rate_hz + rng.uniform()))
    mixture_S = _coloured_noise(rng, len(time_s))
    mixture_S += _scale_to(tone_S, 10 ** (rng.uniform(*SNR_RANGE_DB) / 20))
    mixture_S = _recolour(rng, mixture_S)
    mixture_S = _scale_to(mixture_S, 10 ** (rng.uniform(*LEVEL_RANGE_DB) / 20))
    return np.clip(mixture_S, -0.99, 0.99)


# A movement gives, for a phase in cycles, the pitch in octaves within [-0.5, 0.5] and the gain.
_Movement = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def _rising_chirps(cycles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return cycles % 1.0 - 0.5, np.ones_like(cycles)


def _falling_chirps(cycles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return 0.5 - cycles % 1.0, np.ones_like(cycles)


def _frequency_modulation(cycles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.sin(2 * np.pi * cycles) / 2, np.ones_like(cycles)


def _trill(cycles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.where(cycles % 1.0 < 0.5, -0.5, 0.5), np.ones_like(cycles)


def _amplitude_modulation(cycles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros_like(cycles), 0.5 - 0.5 * np.cos(2 * np.pi * cycles)


_MOVEMENTS: Mapping[str, _Movement] = {
    "rising_chirps": _rising_chirps,
    "falling_chirps": _falling_chirps,
    "frequency_modulation": _frequency_modulation,
    "trill": _trill,
    "amplitude_modulation": _amplitude_modulation,
}
CLASS_NAMES = tuple(f"{movement}_{speed}" for movement in _MOVEMENTS for speed in RATE_RANGE_HZ)


def _coloured_noise(rng: np.random.Generator, num_samples: int) -> np.ndarray:
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    bins = np.arange(len(spectrum)).clip(min=1)
    spectrum *= bins ** (-rng.uniform(*NOISE_SLOPE_RANGE) / 2)
    return _scale_to(np.fft.irfft(spectrum, num_samples), 1.0)


def _recolour(rng: np.random.Generator, samples_S: np.ndarray) -> np.ndarray:
    """A smooth random filter over the whole clip, as a room or a microphone would be."""
    spectrum = np.fft.rfft(samples_S)
    knots_db = rng.uniform(*COLOUR_RANGE_DB, size=8)
    position = np.log1p(np.arange(len(spectrum))) / np.log(len(spectrum))
    gain_db = np.interp(position, np.linspace(0, 1, len(knots_db)), knots_db)
    return np.fft.irfft(spectrum * 10 ** (gain_db / 20), len(samples_S))


def _scale_to(samples_S: np.ndarray, rms: float) -> np.ndarray:
    return samples_S * (rms / np.sqrt(np.mean(np.square(samples_S)) + 1e-20))
