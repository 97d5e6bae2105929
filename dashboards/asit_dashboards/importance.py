"""Which searched parameters matter: Optuna's PED-ANOVA, at an epoch where trials compare.

A sweep with a scheduler holds trials of different length. Their last values do not compare, so
importance reads every trial at the last epoch that all of them reached, and says so. Bars come
with the spread over bootstrap resamples of the trials: with few trials it is wide.
"""

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from asit_dashboards.figures import (
    choice_key,
    comparable,
    metric_goal,
    search_space,
)
from asit_platform.study.store import StudyView

# PED-ANOVA compares the best trials with all of them; its authors ask for five good ones,
# and there must be as many others to tell them from.
MIN_TRIALS = 10
NUM_RESAMPLES = 100
MAX_RESAMPLED_TRIALS = 300

# Optuna announces each in-memory study at INFO.
logging.getLogger("optuna.storages._in_memory").setLevel(logging.WARNING)


@dataclass(frozen=True)
class Importance:
    """Shares that sum to one, most important first, with the middle 80 % of resamples."""

    epoch: int
    num_trials: int
    names: list[str]
    shares: list[float]
    low: list[float]
    high: list[float]


def importance(view: StudyView) -> Importance | str:
    """PED-ANOVA shares of the searched parameters, or the sentence that says why there are none."""
    at_epoch = comparable(view)
    num_trials = 0 if at_epoch is None else len(at_epoch.trials)
    if at_epoch is None or num_trials < MIN_TRIALS:
        return (
            f"Importance needs at least {MIN_TRIALS} trials that are complete or were stopped "
            f"early; this study has {num_trials}."
        )
    if max(at_epoch.values) == min(at_epoch.values):
        return (
            f"All {num_trials} trials have the same value at epoch {at_epoch.epoch}, "
            "so no parameter can be told to matter."
        )
    rows = [trial.params for trial in at_epoch.trials]
    names = [name for name in search_space(view) if all(name in row for row in rows)]
    space = {
        name: _distribution(search_space(view)[name], [row[name] for row in rows]) for name in names
    }
    space = {name: each for name, each in space.items() if not each.single()}
    if not space:
        return "No searched parameter takes more than one value, so none can be told to matter."
    return _importance(rows, at_epoch.values, space, metric_goal(view), at_epoch.epoch)


def _importance(
    rows: Sequence[Mapping[str, Any]],
    values: Sequence[float],
    space: Mapping[str, BaseDistribution],
    goal: str,
    epoch: int,
) -> Importance:
    whole = _shares(rows, values, space, goal)
    order = sorted(whole, key=lambda name: (-whole[name], name))
    # A fixed seed: the same study gives the same report, byte for byte.
    draws = np.random.default_rng(0)
    size = min(len(rows), MAX_RESAMPLED_TRIALS)
    resampled = []
    for _ in range(NUM_RESAMPLES):
        picked = draws.choice(len(rows), size=size, replace=True)
        if len({values[i] for i in picked}) > 1:
            chosen = [rows[i] for i in picked]
            resampled.append(_shares(chosen, [values[i] for i in picked], space, goal))
    spread = {
        name: np.quantile([shares[name] for shares in resampled] or [whole[name]], [0.1, 0.9])
        for name in order
    }
    return Importance(
        epoch=epoch,
        num_trials=len(rows),
        names=order,
        shares=[whole[name] for name in order],
        low=[float(spread[name][0]) for name in order],
        high=[float(spread[name][1]) for name in order],
    )


def _shares(
    rows: Sequence[Mapping[str, Any]],
    values: Sequence[float],
    space: Mapping[str, BaseDistribution],
    goal: str,
) -> dict[str, float]:
    study = optuna.create_study(direction="minimize" if goal == "minimize" else "maximize")
    study.add_trials(
        create_trial(
            value=value,
            params={name: _internal(row[name], each) for name, each in space.items()},
            distributions=dict(space),
        )
        for row, value in zip(rows, values, strict=True)
    )
    quantile = min(0.5, max(0.1, 5 / len(rows)))
    with warnings.catch_warnings():
        # PED-ANOVA is experimental to Optuna; ties at the quantile are said by wide bars.
        warnings.simplefilter("ignore")
        evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)
        return get_param_importances(study, evaluator=evaluator, params=list(space))


def _distribution(declared: Mapping[str, Any], values: Sequence[Any]) -> BaseDistribution:
    choices = declared.get("values")
    numbers: list[Any] = [
        v for v in values if isinstance(v, int | float) and not isinstance(v, bool)
    ]
    if choices is not None or len(numbers) < len(values):
        keys = [choice_key(choice) for choice in choices or []]
        return CategoricalDistribution(keys + sorted({choice_key(v) for v in values} - set(keys)))
    bounds = [declared[key] for key in ("min", "max") if declared.get(key) is not None]
    low, high = min([*values, *bounds]), max([*values, *bounds])
    log = bool(declared.get("log")) and low > 0
    if all(isinstance(number, int) for number in [*values, *bounds]):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(_outward(low, -1), _outward(high, 1), log=log)


def _outward(bound: float, direction: int) -> float:
    """One float further out: a value at the bound may have been rounded past it on its way here."""
    return float(np.nextafter(bound, direction * math.inf))


def _internal(value: object, distribution: BaseDistribution) -> Any:
    return choice_key(value) if isinstance(distribution, CategoricalDistribution) else value
