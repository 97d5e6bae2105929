"""A fixed study of twelve trials in real Optuna storage, small enough to work out by hand.

Trial n's metric at epoch e is LEVELS[n] + 0.02 (e - 1). Six trials are complete, five were
stopped early (the earliest at epoch 2), one failed with NaN at epoch 3.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from asit_platform.study.store import StudyView, open_study

LEVELS = [0.40, 0.52, 0.46, 0.30, 0.55, 0.35, 0.58, 0.44, 0.60, 0.33, 0.57, 0.50]
STATES = "C C P P C P C P C F C P".split()
LAST_EPOCHS = [8, 8, 4, 2, 8, 2, 8, 4, 8, 3, 8, 4]
RATIO, TEMPERATURE, PROTOTYPES, ALIGN = (
    "pretrain.masking.ratio",
    "pretrain.teacher.temperature",
    "pretrain.pretext.patch_distillation.num_prototypes",
    "pretrain.masking.align",
)
SPACE: dict[str, BaseDistribution] = {
    RATIO: FloatDistribution(0.3, 0.8),
    TEMPERATURE: FloatDistribution(0.02, 0.1, log=True),
    PROTOTYPES: CategoricalDistribution([64, 128, 256]),
    ALIGN: CategoricalDistribution([False, True]),
}
METRIC = {"name": "probe/accuracy", "goal": "maximize", "at": "last"}
LABELS = ["tone", "chirp", "am", "fm", "noise", "clicks", "stack", "sweep", "hum", "burst"]

TrialSpec = dict[str, Any]


def trial_params(number: int) -> dict[str, Any]:
    return {
        RATIO: round(0.3 + 0.5 * (LEVELS[number] - 0.30) / 0.30, 4),
        TEMPERATURE: round(0.02 * 5 ** ((number * 5 % 12) / 12), 5),
        PROTOTYPES: (64, 128, 256)[number % 3],
        ALIGN: number % 4 == 1,
    }


def twelve_trials() -> list[TrialSpec]:
    names = {"C": "COMPLETE", "P": "PRUNED", "F": "FAIL"}
    trials = []
    for number, letter in enumerate(STATES):
        curve = {
            epoch: round(LEVELS[number] + 0.02 * (epoch - 1), 4)
            for epoch in range(1, LAST_EPOCHS[number] + 1)
        }
        reason = {"P": f"stopped by asha at epoch {LAST_EPOCHS[number]}", "F": None, "C": None}
        if letter == "F":
            curve[3] = math.nan
            reason["F"] = "probe/accuracy is not finite at epoch 3"
        trials.append(
            {
                "params": trial_params(number),
                "state": names[letter],
                "curve": curve,
                "reason": reason[letter],
                "elapsed_s": 3.5 * LAST_EPOCHS[number],
            }
        )
    return trials


def spec_dict(name: str = "quickstart") -> dict[str, Any]:
    return {
        "version": 1,
        "kind": "sweep",
        "name": name,
        "question": "Which masking, head and teacher settings give the better representation?",
        "base": "asit/nano",
        "data": "data/synth",
        "split": {"train": [1, 2, 3], "select": 4, "test": 5},
        "transductive": False,
        "metric": METRIC,
        "search": {
            "method": "tpe",
            "seed": 0,
            "num_samples": 12,
            "parameters": {
                RATIO: {"min": 0.3, "max": 0.8},
                TEMPERATURE: {"min": 0.02, "max": 0.1, "log": True},
                PROTOTYPES: {"values": [64, 128, 256]},
                ALIGN: {"values": [False, True]},
            },
        },
        "scheduler": {"type": "asha", "grace_period": 2, "reduction_factor": 3},
    }


def result_dict() -> dict[str, Any]:
    seeds = [1000, 1001, 1002]

    def row(name: str, label: str, values: list[float], half: float | None) -> dict[str, Any]:
        mean = sum(values) / len(values)
        ci95 = None if half is None else [mean - half, mean + half]
        return {
            "name": name,
            "label": label,
            "seeds": seeds if len(values) > 1 else [],
            "values": values,
            "mean": mean,
            "ci95": ci95,
        }

    return {
        "study": "quickstart",
        "question": spec_dict()["question"],
        "metric": METRIC,
        "dataset": {
            "name": "synth",
            "synthetic": True,
            "num_clips": 500,
            "label_names": LABELS,
            "fingerprint": "f" * 16,
        },
        "split": {"train": [1, 2, 3], "select": 4, "test": 5},
        "transductive": False,
        "best": {"number": 8, "params": trial_params(8), "selected_value": 0.74},
        "rows": [
            row("pretrained", "pre-trained (selected)", [0.71, 0.74, 0.725], 0.0373),
            row("untrained", "untrained encoder", [0.60, 0.62, 0.61], 0.0248),
            row("log_mel_statistics", "log-mel statistics", [0.66], None),
        ],
        "differences": [
            {"against": "untrained", "mean": 0.115, "ci95": [0.1026, 0.1274], "n": 3},
            {"against": "log_mel_statistics", "mean": 0.065, "ci95": [0.0277, 0.1023], "n": 3},
        ],
        "environment": {"python": "3.11.2", "torch": "2.11.0", "git": {"commit": "abc123"}},
        "elapsed_s": 214.0,
    }


def write_pictures(folder: Path, *, num_clips: int = 8, num_frames: int = 498) -> None:
    """Eight clips of drifting harmonics over noise, with two blocks replaced and blurred back."""
    draws = np.random.default_rng(3)
    time, mel_bin = np.arange(num_frames)[:, None], np.arange(128)[None, :]
    clips = []
    for clip in range(num_clips):
        ridge = 30 + 8 * clip + 12 * np.sin(time / (30 + 10 * clip))
        level = sum(np.exp(-((mel_bin - k * ridge / 2) ** 2) / 8) / k for k in (1, 2, 3))
        clips.append(3 * level - 1 + 0.25 * draws.standard_normal((num_frames, 128)))
    clean_BTF = np.stack(clips)
    mask_BTF = np.zeros(clean_BTF.shape, dtype=bool)
    mask_BTF[:, num_frames // 5 : num_frames // 2, 20:90] = True
    mask_BTF[:, num_frames * 3 // 5 : num_frames * 4 // 5, 50:120] = True
    corrupted_BTF = np.where(mask_BTF, np.roll(clean_BTF, 1, axis=0), clean_BTF)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        folder / "pictures.npz",
        clip_id=np.array([f"clip-{clip:03d}" for clip in range(num_clips)]),
        label=np.arange(num_clips),
        input=clean_BTF.astype(np.float16),
        corrupted=corrupted_BTF.astype(np.float16),
        mask=mask_BTF,
        reconstructed=(0.8 * clean_BTF).astype(np.float16),
    )


def write_study(
    folder: Path,
    trials: list[TrialSpec],
    *,
    result: dict[str, Any] | None = None,
    spec: dict[str, Any] | None = None,
) -> Path:
    """Write a study the way a sweep does: rows step by step in SQLite, result.json beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = spec_dict(folder.name) if spec is None else spec
    storage = RDBStorage(f"sqlite:///{folder / 'study.db'}")
    study = optuna.create_study(storage=storage, study_name=spec["name"], direction="maximize")
    study.set_user_attr("spec", spec)
    study.set_user_attr("metric", spec["metric"])
    study.set_user_attr("num_epochs", 8)
    for number, row in enumerate(trials):
        study.enqueue_trial(row["params"])
        space: dict[str, BaseDistribution] = {
            key: SPACE.get(key) or CategoricalDistribution([value])
            for key, value in row["params"].items()
        }
        trial = study.ask(space)
        trial.set_user_attr("seed", 0)
        trial.set_user_attr("folder", f"trials/{number:04d}")
        trial.set_user_attr("elapsed_s", row.get("elapsed_s"))
        if row.get("reason"):
            trial.set_user_attr("reason", row["reason"])
        for epoch, value in row["curve"].items():
            trial.report(value, epoch)
        if row["state"] in ("COMPLETE", "PRUNED"):
            last = row["curve"][max(row["curve"])]
            value = last if row["state"] == "COMPLETE" else None
            study.tell(trial, value, state=TrialState[row["state"]])
        elif row["state"] == "FAIL":
            study.tell(trial, state=TrialState.FAIL)
    if result is not None:
        (folder / "result.json").write_text(json.dumps(result))
    storage.remove_session()
    storage.engine.dispose()
    return folder


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixed study with its result and the best trial's pictures."""
    folder = tmp_path_factory.mktemp("results") / "quickstart"
    write_study(folder, twelve_trials(), result=result_dict())
    write_pictures(folder / "trials" / "0008")
    return folder


@pytest.fixture(scope="session")
def view(study_folder: Path) -> StudyView:
    return open_study(study_folder)


@pytest.fixture
def make_view(tmp_path: Path) -> Callable[..., StudyView]:
    """Write a study of given trials and open it."""

    def make(trials: list[TrialSpec], **others: Any) -> StudyView:
        return open_study(write_study(tmp_path / "results" / "study", trials, **others))

    return make


@pytest.fixture
def twelve() -> Callable[[Path], Path]:
    """Write the twelve trials into a folder, step by step, without a result."""
    return lambda folder: write_study(folder, twelve_trials())
