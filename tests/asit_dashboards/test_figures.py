"""The figures' data against values worked out by hand from the fixed study (conftest.py)."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from asit_dashboards import figures
from asit_dashboards.figures import TrialPoint
from asit_platform.study.store import StudyView

MakeView = Callable[..., StudyView]


def test_best_so_far_counts_complete_trials_only(view: StudyView) -> None:
    data = figures.best_so_far(view)
    assert data.best == [
        (0, pytest.approx(0.54)),
        (1, pytest.approx(0.66)),
        (4, pytest.approx(0.69)),
        (6, pytest.approx(0.72)),
        (8, pytest.approx(0.74)),
    ]
    assert data.points[2] == TrialPoint(number=2, state="PRUNED", epoch=4, value=0.52)
    assert [point.number for point in data.points] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11]
    assert data.failed == [9]


def test_best_so_far_goes_down_when_the_metric_is_minimised(view: StudyView) -> None:
    metric = {"name": "loss", "goal": "minimize", "at": "last"}
    assert figures.best_so_far(replace(view, metric=metric)).best == [(0, pytest.approx(0.54))]


def test_learning_curves_leave_out_what_is_not_finite_and_end_with_the_best(
    view: StudyView,
) -> None:
    curves = figures.learning_curves(view)
    assert [curve.number for curve in curves] == [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 8]
    assert curves[-1].is_best
    failed = curves[8]
    assert (failed.epochs, failed.values) == ([1, 2], [0.33, 0.35])
    assert curves[2].epochs == [1, 2, 3, 4]


def test_trials_compare_at_the_last_epoch_that_all_reached(view: StudyView) -> None:
    data = figures.comparable(view)
    assert data is not None
    assert data.epoch == 2
    assert [trial.number for trial in data.trials] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11]
    assert data.values[:3] == [0.42, 0.54, 0.48]


def test_running_trials_do_not_pull_the_shared_epoch_down(make_view: MakeView) -> None:
    row = {"params": {"a.b": 1}, "elapsed_s": 1.0}
    view = make_view(
        [
            {**row, "state": "COMPLETE", "curve": {1: 0.1, 2: 0.2, 3: 0.3}},
            {**row, "state": "PRUNED", "curve": {1: 0.1, 2: 0.25}},
            {**row, "state": "RUNNING", "curve": {1: 0.9}},
        ]
    )
    data = figures.comparable(view)
    assert data is not None
    assert (data.epoch, data.values) == (2, [0.2, 0.25])


def test_axes_place_logarithms_and_choices(view: StudyView) -> None:
    data = figures.comparable(view)
    assert data is not None
    ratio, temperature, prototypes, align = figures.parameter_axes(view, data.trials)
    assert (ratio.low, ratio.high, ratio.ticks) == (0.3, 0.8, None)
    assert ratio.positions[0] == pytest.approx(0.4667)
    assert temperature.positions[0] == pytest.approx(math.log10(0.02))
    assert temperature.ticks is not None
    assert [text for _, text in temperature.ticks] == ["0.02", "0.05", "0.1"]
    assert prototypes.positions[:4] == [0.0, 1.0, 2.0, 0.0]
    assert align.ticks == [(0.0, "false"), (1.0, "true")]


def test_result_rows_keep_order_and_what_no_seed_changes(view: StudyView) -> None:
    rows = figures.result_rows(view.result)
    assert [row.name for row in rows] == ["pretrained", "untrained", "log_mel_statistics"]
    assert rows[0].mean == pytest.approx(0.725)
    assert rows[0].interval == pytest.approx((0.6877, 0.7623))
    assert rows[2].interval is None
    seedless = {"name": "x", "label": "x", "seeds": [], "values": [0.5], "mean": 0.5, "ci95": None}
    assert figures.result_rows({"rows": [seedless]})[0].values == [0.5]


def test_seeds_are_joined_between_rows_that_share_them(view: StudyView) -> None:
    assert figures.seed_pairs(figures.result_rows(view.result)) == [
        (0.71, (1, 0.60)),
        (0.74, (1, 0.62)),
        (0.725, (1, 0.61)),
    ]


def test_the_best_number_is_the_selected_one(view: StudyView) -> None:
    assert figures.best_number(view) == 8
    assert figures.best_number(replace(view, result=None)) == 8
    assert figures.best_number(replace(view, result={"best": {"number": 6}})) == 6
    assert figures.best_number(replace(view, result=None, trials=[])) is None
