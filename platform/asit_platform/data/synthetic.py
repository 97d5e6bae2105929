"""Ten classes of sounds that the program makes itself; called synthetic wherever they appear.

What tells the classes apart is a pattern in time and frequency: a rising from a falling chirp,
steady from pulsed, one line from a stack of lines. What does not is drawn at random: pitch, level,
onset, length, background noise and the colour of the whole. So averages over a clip (log-mel
statistics) say little, and a model that has learned local structure can say more. The constants
below set how hard it is.

Shape legend: S samples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from asit_core.seeding import numpy_stream
from asit_platform.data.datasets import Clip, Listing
from asit_platform.errors import PlatformError

GENERATOR_VERSION = 1  # a change of any sound below is another data set
NUM_FOLDS = 5

# Difficulty. Narrower ranges and a higher signal-to-noise ratio make the task easier, for log-mel
# statistics as well as for a model.
PITCH_RANGE_HZ = (220.0, 3000.0)
SNR_RANGE_DB = (-3.0, 12.0)
PULSE_RATE_RANGE_HZ = (4.0, 11.0)
GLIDE_RANGE_OCTAVES = (0.5, 1.2)
LEVEL_RANGE_DB = (-30.0, -6.0)
NOISE_SLOPE_RANGE = (0.0, 2.0)  # power ~ 1 / f ** slope: from white to brown
COLOUR_RANGE_DB = (-10.0, 10.0)
ONSET_RANGE = (0.0, 0.3)  # of the clip
LENGTH_RANGE = (0.5, 0.7)  # of the clip


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticConfig:
    """A synthetic set; equal configs give equal sounds.

    Attributes:
        seed: Of every draw.
        clips_per_class: At least 10, so that each of the five folds has two of a label.
        duration_s: Of each clip; the default gives 160 frames.
        sample_rate_hz: Of the files.
    """

    seed: int = 0
    clips_per_class: int = 60
    duration_s: float = 1.615
    sample_rate_hz: int = 16000

    def __post_init__(self) -> None:
        rules = (
            ("--clips-per-class", self.clips_per_class, 2 * NUM_FOLDS, 100_000),
            ("--duration", self.duration_s, 0.5, 60.0),
            ("--sample-rate", self.sample_rate_hz, 8000, 192_000),
        )
        for name, value, low, high in rules:
            if not low <= value <= high:
                raise PlatformError(f"{name} must be in [{low}, {high}], but got {value}")


def synthetic_origin(config: SyntheticConfig) -> dict[str, object]:
    """What a synthetic set is made from, as `dataset.json` keeps it."""
    return {
        "kind": "synthetic",
        "generator": GENERATOR_VERSION,
        "seed": config.seed,
        "clips_per_class": config.clips_per_class,
        "duration_s": config.duration_s,
        "sample_rate_hz": config.sample_rate_hz,
    }


def write_synthetic(folder: Path, config: SyntheticConfig) -> Listing:
    """Write the set as 16-bit wav files and list them.

    Args:
        folder: Made if missing; files of the same names are replaced.
        config: What to make.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for label, name in enumerate(CLASS_NAMES):
        for number in range(config.clips_per_class):
            clip_id = f"synthetic-{name}-{number:04d}"
            path = folder / f"{clip_id}.wav"
            samples_S = make_clip(name, number, config)
            soundfile.write(path, samples_S, config.sample_rate_hz, subtype="PCM_16")
            clips.append(
                Clip(
                    clip_id=clip_id,
                    path=path,
                    label=label,
                    label_name=name,
                    fold=number % NUM_FOLDS + 1,
                    source=clip_id,
                )
            )
    return Listing(
        name="synthetic",
        synthetic=True,
        origin=synthetic_origin(config),
        label_names=CLASS_NAMES,
        clips=tuple(sorted(clips, key=lambda clip: clip.clip_id)),
    )


def make_clip(name: str, number: int, config: SyntheticConfig) -> np.ndarray:
    """One sound in (-1, 1): the class's pattern somewhere in a noise of random colour.

    Args:
        name: One of `CLASS_NAMES`.
        number: Which clip of the class.
        config: Seed, duration and rate.
    """
    rng = numpy_stream(config.seed, "synthetic", GENERATOR_VERSION, name, number)
    num_samples = round(config.duration_s * config.sample_rate_hz)
    onset = int(rng.uniform(*ONSET_RANGE) * num_samples)
    length = int(rng.uniform(*LENGTH_RANGE) * num_samples)
    event = _CLASSES[name](_Draw(rng, length, config.sample_rate_hz))
    event = _scale_to(event * _fades(length, config.sample_rate_hz), 1.0)
    mixture_S = _coloured_noise(rng, num_samples)
    gain = 10 ** (rng.uniform(*SNR_RANGE_DB) / 20)
    mixture_S[onset : onset + length] += gain * event
    mixture_S = _recolour(rng, mixture_S)
    mixture_S = _scale_to(mixture_S, 10 ** (rng.uniform(*LEVEL_RANGE_DB) / 20))
    return np.clip(mixture_S, -0.99, 0.99)


class _Draw:
    """Random quantities of one event, and the time axis they are drawn on."""

    def __init__(self, rng: np.random.Generator, num_samples: int, sample_rate_hz: int) -> None:
        self.rng = rng
        self.num_samples = num_samples
        self.sample_rate_hz = sample_rate_hz
        self.time_s = np.arange(num_samples) / sample_rate_hz

    def pitch_hz(self, factor: float = 1.0) -> float:
        low, high = np.log(PITCH_RANGE_HZ)
        return factor * float(np.exp(self.rng.uniform(low, high)))

    def glide_octaves(self) -> float:
        return float(self.rng.uniform(*GLIDE_RANGE_OCTAVES))

    def pulse_cycles(self) -> np.ndarray:
        """Phase, in cycles, of a pulsation of random rate and start."""
        return self.rng.uniform(*PULSE_RATE_RANGE_HZ) * self.time_s + self.rng.uniform()

    def tone(self, frequency_hz: float | np.ndarray) -> np.ndarray:
        steps = np.broadcast_to(frequency_hz, self.num_samples) / self.sample_rate_hz
        return np.sin(2 * np.pi * (np.cumsum(steps) + self.rng.uniform()))

    def noise_band(self) -> np.ndarray:
        """Noise around a random pitch, a third to a whole octave wide."""
        half_octaves = self.rng.uniform(0.17, 0.5)
        centre_hz = self.pitch_hz()
        spectrum = np.fft.rfft(self.rng.standard_normal(self.num_samples))
        frequency_hz = np.fft.rfftfreq(self.num_samples, 1 / self.sample_rate_hz)
        octaves = np.abs(np.log2(np.maximum(frequency_hz, 1.0) / centre_hz))
        return np.fft.irfft(spectrum * (octaves < half_octaves), self.num_samples)


def _tone(draw: _Draw) -> np.ndarray:
    return draw.tone(draw.pitch_hz())


def _rising_chirps(draw: _Draw, sign: float = 1.0) -> np.ndarray:
    sweep = draw.pulse_cycles() / 2 % 1.0 - 0.5
    return draw.tone(draw.pitch_hz() * 2.0 ** (sign * draw.glide_octaves() * sweep))


def _falling_chirps(draw: _Draw) -> np.ndarray:
    return _rising_chirps(draw, sign=-1.0)


def _amplitude_modulation(draw: _Draw) -> np.ndarray:
    return draw.tone(draw.pitch_hz()) * _pulses(draw)


def _frequency_modulation(draw: _Draw) -> np.ndarray:
    wave = np.sin(2 * np.pi * draw.pulse_cycles())
    return draw.tone(draw.pitch_hz() * 2.0 ** (draw.glide_octaves() * wave / 2))


def _trill(draw: _Draw) -> np.ndarray:
    """Two pitches in turn."""
    step = np.where(draw.pulse_cycles() % 1.0 < 0.5, -0.5, 0.5)
    return draw.tone(draw.pitch_hz() * 2.0 ** (draw.glide_octaves() * step))


def _noise_band(draw: _Draw) -> np.ndarray:
    return draw.noise_band()


def _noise_bursts(draw: _Draw) -> np.ndarray:
    return draw.noise_band() * _pulses(draw)


def _clicks(draw: _Draw) -> np.ndarray:
    """Regular, short, wide-band strokes."""
    decay_s = draw.rng.uniform(0.002, 0.006)
    cycles = draw.pulse_cycles() * 1.5
    starts = np.flatnonzero(np.diff(np.floor(cycles))) + 1
    train = np.zeros(draw.num_samples)
    train[starts] = 1.0
    stroke = draw.rng.standard_normal(draw.num_samples) * np.exp(-draw.time_s / decay_s)
    return np.convolve(train, stroke[: round(8 * decay_s * draw.sample_rate_hz)])[: len(train)]


def _harmonic_stack(draw: _Draw) -> np.ndarray:
    pitch_hz = draw.pitch_hz(0.4)
    num_harmonics = int(draw.rng.integers(4, 9))
    rolloff = draw.rng.uniform(0.0, 1.0)
    harmonics = [
        draw.tone(pitch_hz * order) / order**rolloff
        for order in range(1, num_harmonics + 1)
        if pitch_hz * order < 0.45 * draw.sample_rate_hz
    ]
    return np.sum(harmonics, axis=0)


_CLASSES: Mapping[str, Callable[[_Draw], np.ndarray]] = {
    "tone": _tone,
    "rising_chirps": _rising_chirps,
    "falling_chirps": _falling_chirps,
    "amplitude_modulation": _amplitude_modulation,
    "frequency_modulation": _frequency_modulation,
    "trill": _trill,
    "noise_band": _noise_band,
    "noise_bursts": _noise_bursts,
    "clicks": _clicks,
    "harmonic_stack": _harmonic_stack,
}
CLASS_NAMES = tuple(_CLASSES)


def _pulses(draw: _Draw) -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * draw.pulse_cycles())


def _fades(num_samples: int, sample_rate_hz: int) -> np.ndarray:
    """A window with edges of 10 ms, so that starting and stopping are no clicks."""
    edge = np.arange(num_samples) / (0.01 * sample_rate_hz)
    return np.minimum(1.0, np.minimum(edge, edge[::-1]))


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
