import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
from ray import cloudpickle

from asit_core.spectrogram import LogMelConfig
from asit_platform.cluster import start_ray
from asit_platform.data.prepare import PrepareOptions, prepare
from asit_platform.data.synthetic import SyntheticConfig, write_synthetic
from asit_platform.study.record import StudyIdentity, StudyRecord, open_record
from asit_platform.study.search import quieten_ray

SPEC = {
    "version": 1,
    "kind": "sweep",
    "name": "toy",
    "question": "Which x?",
    "trial": {"pretrain": {"epochs": 4}},
    "metric": {"name": "probe/accuracy", "goal": "maximize", "at": "last"},
    "search": {
        "method": "tpe",
        "seed": 0,
        "num_samples": 12,
        "parameters": {"x": {"min": 0.0, "max": 1.0}},
    },
}
OpenToy = Callable[..., AbstractContextManager[StudyRecord]]


def create_identity(**changes: object) -> StudyIdentity:
    fields = {
        "name": "toy",
        "spec": SPEC,
        "metric": SPEC["metric"],
        "num_epochs": 4,
        "data_fingerprint": "cafe",
        "asit_version": "0.1.0",
    }
    return StudyIdentity(**{**fields, **changes})  # pyright: ignore[reportArgumentType]


@pytest.fixture
def study_folder(tmp_path: Path) -> Path:
    return tmp_path / "results" / "toy"


@pytest.fixture(scope="session")
def open_study_record() -> Callable[..., AbstractContextManager[StudyRecord]]:
    @contextmanager
    def open_it(folder: Path, **changes: object) -> Iterator[StudyRecord]:
        with open_record(folder, create_identity(**changes)) as record:
            yield record

    return open_it


@pytest.fixture
def open_toy(study_folder: Path, open_study_record: OpenToy) -> OpenToy:
    return partial(open_study_record, study_folder)


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    quieten_ray()
    with start_ray(address="local", num_cpus=2, object_store_bytes=200 * 2**20):
        yield


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder of a hundred short clips in five folds."""
    folder = tmp_path_factory.mktemp("tiny")
    config = SyntheticConfig(clips_per_class=10, duration_s=0.5)
    listing = write_synthetic(folder / "audio", config)
    front_end = LogMelConfig(sample_rate_hz=16000, num_mel_bins=16)
    with start_ray(address="local", num_cpus=2, object_store_bytes=200 * 2**20):
        prepare(listing, folder / "data", PrepareOptions(front_end=front_end))
    return folder / "data"


@pytest.fixture(scope="session")
def toy_sweep() -> ModuleType:
    """`toy_sweep.py` as a module; workers cannot import a test, so it travels whole."""
    path = Path(__file__).with_name("toy_sweep.py")
    spec = importlib.util.spec_from_file_location("toy_sweep", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["toy_sweep"] = module
    spec.loader.exec_module(module)
    cloudpickle.register_pickle_by_value(module)
    return module
