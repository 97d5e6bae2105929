"""What each figure shows, as plain data: pure functions of a study, tested against worked values.

`drawing.py` turns this data into Plotly figures and adds nothing to it. Values of trials are
kept in the metric's own unit; what is not finite is left out of every figure.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from asit_platform.study.store import StudyView, TrialRow

ENDED = ("COMPLETE", "PRUNED")


@dataclass(frozen=True)
class ResultRow:
    """One row of the result: its seeds' values, their mean and its interval."""

    name: str
    label: str
    seeds: list[int | None]
    values: list[float]
    mean: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class TrialPoint:
    """A trial's last finite value and the epoch it belongs to."""

    number: int
    state: str
    epoch: int
    value: float


@dataclass(frozen=True)
class BestSoFar:
    """Every trial that reported, those that failed, and the best complete value up to each."""

    points: list[TrialPoint]
    failed: list[int]
    best: list[tuple[int, float]]


@dataclass(frozen=True)
class Curve:
    """A trial's metric over epochs."""

    number: int
    state: str
    epochs: list[int]
    values: list[float]
    is_best: bool


@dataclass(frozen=True)
class Comparable:
    """Trials that can be compared at one epoch: complete or stopped early, and there by then."""

    epoch: int
    trials: list[TrialRow]
    values: list[float]


@dataclass(frozen=True)
class Axis:
    """One searched parameter (or the metric) over trials, as positions on an axis.

    `ticks` are position and text where positions are not the values themselves
    (choices; logarithms).
    """

    name: str
    positions: list[float]
    low: float
    high: float
    log: bool
    ticks: list[tuple[float, str]] | None


def result_rows(result: Mapping[str, Any] | None) -> list[ResultRow]:
    """The result's rows that were measured, in the file's order."""
    rows = []
    for row in (result or {}).get("rows", []):
        # What no seed changes (log-mel statistics) may name none.
        pairs = [pair for pair in zip_longest(row["seeds"], row["values"]) if _finite(pair[1])]
        if pairs and _finite(row["mean"]):
            low_high = row["ci95"]
            rows.append(
                ResultRow(
                    name=row["name"],
                    label=row["label"],
                    seeds=[seed for seed, _ in pairs],
                    values=[value for _, value in pairs],
                    mean=row["mean"],
                    interval=None if low_high is None else (low_high[0], low_high[1]),
                )
            )
    return rows


def seed_pairs(rows: Sequence[ResultRow]) -> list[tuple[float, tuple[int, float]]]:
    """The first row's value and (row, value) of every other with the same seed.

    A row of one value is no pair: its seed is not what sets it apart.
    """
    pairs = []
    for place, row in enumerate(rows[1:], start=1):
        others = dict(zip(row.seeds, row.values, strict=True))
        if len(others) > 1:
            pairs += [
                (value, (place, others[seed]))
                for seed, value in zip(rows[0].seeds, rows[0].values, strict=True)
                if seed in others
            ]
    return pairs


def best_so_far(view: StudyView) -> BestSoFar:
    """Each trial's value in the order of trials; only complete trials can be the best."""
    points, best = [], []
    for trial in sorted(view.trials, key=lambda each: each.number):
        last = last_value(trial)
        if trial.state not in ENDED or last is None:
            continue
        points.append(TrialPoint(trial.number, trial.state, *last))
        if trial.state == "COMPLETE" and (
            not best or is_better(last[1], best[-1][1], metric_goal(view))
        ):
            best.append((trial.number, last[1]))
    failed = sorted(trial.number for trial in view.trials if trial.state == "FAIL")
    return BestSoFar(points=points, failed=failed, best=best)


def learning_curves(view: StudyView) -> list[Curve]:
    """Every trial's finite values by epoch, the best trial last so that it is drawn on top."""
    best = best_number(view)
    curves = []
    for trial in view.trials:
        curve = finite_curve(trial)
        if curve:
            curves.append(
                Curve(
                    number=trial.number,
                    state=trial.state,
                    epochs=list(curve),
                    values=list(curve.values()),
                    is_best=trial.number == best,
                )
            )
    return sorted(curves, key=lambda each: (each.is_best, each.number))


def comparable(view: StudyView) -> Comparable | None:
    """Trials at the last epoch that all of them reached; None if there is no such epoch.

    Trials that are running or have failed are left out: they would pull the epoch down,
    and what they reached says nothing about their parameters yet.
    """
    trials = [trial for trial in view.trials if trial.state in ENDED and finite_curve(trial)]
    if not trials:
        return None
    shared = set.intersection(*(set(finite_curve(trial)) for trial in trials))
    if not shared:
        return None
    epoch = max(shared)
    return Comparable(epoch, trials, [trial.curve[epoch] for trial in trials])


def parameter_axes(view: StudyView, trials: Sequence[TrialRow]) -> list[Axis]:
    """One axis a searched parameter, over those of `trials` that all have it."""
    names = [name for name in search_space(view) if all(name in each.params for each in trials)]
    return [
        _axis(name, search_space(view)[name], [trial.params[name] for trial in trials])
        for name in names
    ]


def search_space(view: StudyView) -> dict[str, dict[str, Any]]:
    """The searched parameters, as the spec or, where it is silent, the trials name them."""
    declared = ((view.spec or {}).get("search") or {}).get("parameters") or {}
    space = {name: dict(each or {}) for name, each in declared.items()}
    for trial in view.trials:
        for name in trial.params:
            space.setdefault(name, {})
    return space


def best_number(view: StudyView) -> int | None:
    """The selected trial: the result's, or else the best complete one so far."""
    selected = ((view.result or {}).get("best") or {}).get("number")
    if selected is not None:
        return int(selected)
    best = best_so_far(view).best
    return best[-1][0] if best else None


def metric_name(view: StudyView) -> str:
    """The study's metric; a study that is just being created has none yet."""
    return view.metric.get("name", "metric")


def metric_goal(view: StudyView) -> str:
    """Which direction is better: "maximize" or "minimize"."""
    return view.metric.get("goal", "maximize")


def last_value(trial: TrialRow) -> tuple[int, float] | None:
    """Epoch and value of the last finite report."""
    curve = finite_curve(trial)
    if not curve:
        return None
    epoch = max(curve)
    value = trial.value
    if trial.state == "COMPLETE" and value is not None and math.isfinite(value):
        return epoch, value
    return epoch, curve[epoch]


def finite_curve(trial: TrialRow) -> dict[int, float]:
    """The trial's curve in the order of epochs, without values that are not finite."""
    return {
        epoch: trial.curve[epoch] for epoch in sorted(trial.curve) if _finite(trial.curve[epoch])
    }


def is_better(value: float, other: float, goal: str) -> bool:
    """True if `value` beats `other`."""
    return value < other if goal == "minimize" else value > other


def is_number(value: object) -> bool:
    """True for numbers; true and false are choices."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _axis(name: str, declared: Mapping[str, Any], values: Sequence[Any]) -> Axis:
    choices = declared.get("values")
    if choices is not None or not all(is_number(value) for value in values):
        return _choice_axis(name, choices, values)
    log = bool(declared.get("log")) and min(values, default=1) > 0
    bounds = [declared[key] for key in ("min", "max") if declared.get(key) is not None]
    low, high = min([*values, *bounds]), max([*values, *bounds])
    if not log:
        return Axis(name, [float(v) for v in values], float(low), float(high), log, None)
    return Axis(
        name,
        [math.log10(v) for v in values],
        math.log10(low),
        math.log10(high),
        log,
        _log_ticks(low, high),
    )


def _choice_axis(name: str, choices: Sequence[Any] | None, values: Sequence[Any]) -> Axis:
    keys = [choice_key(choice) for choice in choices or []]
    keys += sorted({choice_key(value) for value in values} - set(keys))
    return Axis(
        name=name,
        positions=[float(keys.index(choice_key(value))) for value in values],
        low=0.0,
        high=float(max(len(keys) - 1, 1)),
        log=False,
        ticks=[(float(place), key) for place, key in enumerate(keys)],
    )


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Both ends, and between them ones, twos and fives that keep clear of the ends."""
    start, end = math.log10(low), math.log10(high)
    clear = 0.1 * (end - start)
    digits = (1, 2, 5) if end - start < 2 else (1,)
    powers = range(math.floor(start), math.ceil(end) + 1)
    marks = [math.log10(digit) + power for power in powers for digit in digits]
    inside = [mark for mark in marks if start + clear < mark < end - clear]
    return [(place, f"{10**place:.4g}") for place in dict.fromkeys([start, *inside, end])]


def choice_key(value: object) -> str:
    """A choice as text: 1 and 1.0 are one choice, true and 1 are two."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
