from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from asit_platform.study.record import StudyIdentity, StudyRecord, open_record

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


def create_identity(**changes: object) -> StudyIdentity:
    fields = {
        "name": "toy",
        "spec": SPEC,
        "spec_fingerprint": "f00d",
        "metric": SPEC["metric"],
        "num_epochs": 4,
        "data_fingerprint": "cafe",
        "asit_version": "0.1.0",
    }
    return StudyIdentity(**{**fields, **changes})  # pyright: ignore[reportArgumentType]


@pytest.fixture
def study_folder(tmp_path: Path) -> Path:
    return tmp_path / "results" / "toy"


@pytest.fixture
def open_toy(study_folder: Path) -> Callable[..., contextmanager]:
    @contextmanager
    def open_it(**changes: object) -> Iterator[StudyRecord]:
        with open_record(study_folder, create_identity(**changes)) as record:
            yield record

    return open_it
