import csv
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asit_core.spectrogram import LogMelConfig
from asit_platform.cluster import start_ray
from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.prepare import PrepareOptions, prepare
from asit_platform.data.readers.esc50 import read_esc50

RATE_HZ = 16000
COLUMNS = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
ESC10 = Path(__file__).resolve().parents[4] / "shared" / "data" / "esc10"


def _noise(num_samples: int, *, seed: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(num_samples)


def _write_esc50(root: Path, *, clips_per_label: int = 10) -> Path:
    """A folder in ESC-50's layout: two labels, noises of about half a second."""
    (root / "audio").mkdir(parents=True)
    (root / "meta").mkdir()
    rows = []
    for label, name in enumerate(("dog", "rain")):
        for number in range(clips_per_label):
            fold = number % 5 + 1
            filename = f"{fold}-{1000 + number}-A-{10 * label}.wav"
            samples = _noise(6000 + 160 * number, seed=100 * label + number)
            soundfile.write(root / "audio" / filename, samples, RATE_HZ)
            rows.append((filename, fold, 10 * label, name, label == 0, 1000 + number, "A"))
    _write_csv(root, rows)
    return root


def _write_csv(
    root: Path, rows: Sequence[Sequence[object]], columns: Sequence[str] = COLUMNS
) -> None:
    with (root / "meta" / "esc50.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def _write_nan(path: Path) -> None:
    samples = _noise(8000, seed=0)
    samples[4000] = np.nan
    soundfile.write(path, samples, RATE_HZ, subtype="FLOAT")


def _write_truncated_flac(path: Path) -> None:
    soundfile.write(path, _noise(32000, seed=1), RATE_HZ, format="FLAC")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])


_BREAKERS: dict[str, Callable[[Path], object]] = {
    "zero bytes": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("this is not audio\n" * 50),
    "NaN": _write_nan,
    "no samples": lambda path: soundfile.write(path, np.zeros(0), RATE_HZ),
    "shorter than a frame": lambda path: soundfile.write(path, _noise(100, seed=0), RATE_HZ),
    "missing": Path.unlink,
    "truncated flac": _write_truncated_flac,
    "silence": lambda path: soundfile.write(path, np.zeros(8000), RATE_HZ),
}


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    with start_ray(address="local", num_cpus=2, object_store_bytes=200 * 2**20):
        yield


@pytest.fixture(scope="session")
def front_end() -> LogMelConfig:
    return LogMelConfig(sample_rate_hz=RATE_HZ, num_mel_bins=16)


@pytest.fixture
def esc50(tmp_path: Path) -> Path:
    return _write_esc50(tmp_path / "esc50")


@pytest.fixture
def write_csv() -> Callable[..., None]:
    return _write_csv


@pytest.fixture
def break_clip() -> Callable[[Path, str], object]:
    """Call with a path and a key of `_BREAKERS`."""
    return lambda path, how: _BREAKERS[how](path)


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory, front_end: LogMelConfig) -> Path:
    """A dataset folder of 60 clips in five shards; copy it before changing it."""
    folder = tmp_path_factory.mktemp("built")
    listing = read_esc50(_write_esc50(folder / "esc50", clips_per_label=30))
    with start_ray(address="local", num_cpus=2, object_store_bytes=200 * 2**20):
        prepare(listing, folder / "dataset", PrepareOptions(front_end=front_end))
    return folder / "dataset"


@pytest.fixture
def built(built_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built_once, tmp_path / "dataset"))


@pytest.fixture
def info(built_once: Path) -> DatasetInfo:
    return DatasetInfo.open(built_once)


@pytest.fixture
def esc10() -> Path:
    if not ESC10.is_dir():
        pytest.skip(f"the ESC-10 subset of ESC-50 is not at {ESC10}")
    return ESC10
