"""Ten classes of sounds that the program makes itself; called synthetic wherever they appear.

Written as wav files, listed, and from there on treated as any other data set. What the classes are
and how hard they are to tell apart is said in `sounds.py`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from asit_core.seeding import numpy_stream
from asit_platform.data.datasets import Clip, Listing
from asit_platform.data.out_folder import SYNTHETIC_PREFIX
from asit_platform.data.sounds import CLASS_NAMES, make_sound
from asit_platform.errors import PlatformError

GENERATOR_VERSION = 1  # a change of any sound is another data set
NUM_FOLDS = 5


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
    clips_per_class: int = 120
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

    Raises:
        PlatformError: If a file cannot be written.
    """
    clips = [
        _describe(folder, label, number)
        for label in range(len(CLASS_NAMES))
        for number in range(config.clips_per_class)
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for index, clip in enumerate(clips):
            samples_S = make_clip(clip.label_name, index % config.clips_per_class, config)
            soundfile.write(clip.path, samples_S, config.sample_rate_hz, subtype="PCM_16")
    except (OSError, soundfile.LibsndfileError) as error:
        raise PlatformError(f"{folder}: must be writable, but {error}; free space") from error
    return Listing(
        name="synthetic",
        synthetic=True,
        origin=synthetic_origin(config),
        label_names=CLASS_NAMES,
        clips=tuple(sorted(clips, key=lambda clip: clip.clip_id)),
    )


def make_clip(name: str, number: int, config: SyntheticConfig) -> np.ndarray:
    """Samples of the clip `number` of class `name`, whatever else is in the set."""
    return make_sound(
        name,
        numpy_stream(config.seed, "synthetic", GENERATOR_VERSION, name, number),
        duration_s=config.duration_s,
        sample_rate_hz=config.sample_rate_hz,
    )


def _describe(folder: Path, label: int, number: int) -> Clip:
    clip_id = f"{SYNTHETIC_PREFIX}{CLASS_NAMES[label]}-{number:04d}"
    return Clip(
        clip_id=clip_id,
        path=folder / f"{clip_id}.wav",
        label=label,
        label_name=CLASS_NAMES[label],
        fold=number % NUM_FOLDS + 1,
        source=clip_id,
    )
