import subprocess
import sys
from dataclasses import replace

import pytest

from asit_dashboards.importance import Importance, importance
from asit_platform.study.store import StudyView


def test_the_parameter_that_was_planted_comes_first(view: StudyView) -> None:
    # In the fixed study the masking ratio is a straight line of the level; nothing else is.
    data = importance(view)
    assert isinstance(data, Importance)
    assert (data.epoch, data.num_trials) == (2, 11)
    assert data.names[0] == "pretrain.masking.ratio"
    assert sum(data.shares) == pytest.approx(1)
    assert data.shares == sorted(data.shares, reverse=True)
    assert all(low <= high for low, high in zip(data.low, data.high, strict=True))


def test_the_same_study_gives_the_same_numbers(view: StudyView) -> None:
    assert importance(view) == importance(view)


def test_minimising_the_negated_metric_changes_nothing(view: StudyView) -> None:
    trials = [
        replace(trial, curve={epoch: -value for epoch, value in trial.curve.items()})
        for trial in view.trials
    ]
    metric = {"name": "loss", "goal": "minimize", "at": "last"}
    assert importance(replace(view, trials=trials, metric=metric)) == importance(view)


def test_too_few_trials_are_said(view: StudyView) -> None:
    sentence = importance(replace(view, trials=view.trials[:5]))
    assert sentence == (
        "Importance needs at least 10 trials that are complete or were stopped early; "
        "this study has 5."
    )


def test_equal_values_are_said(view: StudyView) -> None:
    trials = [replace(trial, curve={1: 0.5}) for trial in view.trials]
    assert "same value at epoch 1" in str(importance(replace(view, trials=trials)))


def test_a_parameter_with_one_value_is_no_parameter(view: StudyView) -> None:
    trials = [replace(trial, params={"fixed": 3}) for trial in view.trials]
    spec = {**view.spec, "search": {}}
    assert (
        "no searched parameter" in str(importance(replace(view, trials=trials, spec=spec))).lower()
    )


def test_dashboards_load_neither_ray_nor_torch() -> None:
    program = (
        "import sys, asit_dashboards.cli, asit_dashboards.app\n"
        "print([name for name in ('ray', 'torch', 'asit_core') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
