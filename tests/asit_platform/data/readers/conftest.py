import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE_HZ = 16000
_FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}


def sound_bytes(suffix: str, *, seed: int, seconds: float) -> bytes:
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE_HZ))
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE_HZ, format=_FORMATS[suffix.lower()])
    return buffer.getvalue()


@pytest.fixture
def write_sounds() -> Callable[..., None]:
    """Call with a folder and relative paths: noises, each another."""

    def write(root: Path, paths: Iterable[str], *, seconds: float = 0.2) -> None:
        for number, relative in enumerate(paths):
            path = root / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sound_bytes(path.suffix, seed=number, seconds=seconds))

    return write
