"""Ten classes of sounds that the program makes itself; called synthetic wherever they appear.

Written as wav files, listed, and from there on treated as any other data set. What the classes are
and how hard they are to tell apart is said in `sounds.py`.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from asit_core.seeding import numpy_stream
from asit_platform.data.listing import Clip, Listing
from asit_platform.data.out_folder import SYNTHETIC_PREFIX
from asit_platform.data.sounds import CLASS_NAMES, make_sound
from asit_platform.errors import PlatformError
from asit_platform.whole_files import write_whole

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
        folder: Made if missing. A file that is as it should be keeps its time, so that shards made
            from it stay.
        config: What to make.

    Raises:
        PlatformError: If a file cannot be written.
    """
    clips = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for label, name in enumerate(CLASS_NAMES):
            for number in range(config.clips_per_class):
                clip = _describe(folder, label, number)
                _write(Path(clip.path), make_clip(name, number, config), config.sample_rate_hz)
                clips.append(clip)
    except OSError as error:
        raise PlatformError(f"{folder}: must be writable, but {error}; free space") from error
    return Listing(
        name="synthetic",
        synthetic=True,
        origin=synthetic_origin(config),
        label_kind="single",
        label_names=CLASS_NAMES,
        fold_names={},
        metric="accuracy",
        recipes=(),
        warnings=(),
        clips=tuple(sorted(clips, key=lambda clip: clip.clip_id)),
    )


def _write(path: Path, samples_S: np.ndarray, rate_hz: int) -> None:
    encoded = io.BytesIO()
    soundfile.write(encoded, samples_S, rate_hz, subtype="PCM_16", format="WAV")
    content = encoded.getvalue()
    if not path.is_file() or path.read_bytes() != content:
        write_whole(path, content)


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
        path=str(folder / f"{clip_id}.wav"),
        labels=(label,),
        fold=number % NUM_FOLDS + 1,
        source=clip_id,
    )
