from typing import Any

import pytest

from asit_dashboards.words import finding, value_text
from asit_platform.study.store import StudyView


def changed(view: StudyView, **others: Any) -> dict[str, Any]:
    assert view.result is not None
    return {**view.result, **others}


def difference(low: float, high: float) -> list[dict[str, Any]]:
    return [{"against": "untrained", "mean": (low + high) / 2, "ci95": [low, high], "n": 3}]


def test_the_finding_gives_the_interval_and_says_where_it_lies(view: StudyView) -> None:
    reached, untrained, statistics = finding(changed(view), "maximize")
    assert reached == (
        "Pre-trained with the selected configuration, the encoder reaches 72.5 % on the test "
        "fold (95 % interval 68.8 to 76.2 %, 3 seeds)."
    )
    assert untrained == (
        "Against the same encoder untrained: 11.5 points higher (paired over 3 seeds, 95 % "
        "interval +10.3 to +12.7 points): the whole interval lies above zero, in favour of "
        "pre-training."
    )
    assert "log-mel statistics (no network): 6.5 points higher" in statistics


def test_an_interval_that_includes_zero_claims_nothing(view: StudyView) -> None:
    text = finding(changed(view, differences=difference(-0.02, 0.06)), "maximize")[1]
    assert "includes zero, so these seeds do not show a difference" in text
    assert "favour" not in text


@pytest.mark.parametrize(
    ("low", "high", "goal", "words"),
    [
        (-0.06, -0.02, "maximize", "below zero, against pre-training"),
        (-0.06, -0.02, "minimize", "below zero, in favour of pre-training"),
        (0.02, 0.06, "minimize", "above zero, against pre-training"),
    ],
)
def test_which_side_is_good_follows_the_goal(
    view: StudyView, low: float, high: float, goal: str, words: str
) -> None:
    assert words in finding(changed(view, differences=difference(low, high)), goal)[1]


def test_one_seed_has_no_interval(view: StudyView) -> None:
    row = {
        "name": "pretrained",
        "label": "p",
        "seeds": [1],
        "values": [0.7],
        "mean": 0.7,
        "ci95": None,
    }
    alone = [{"against": "untrained", "mean": 0.1, "ci95": None, "n": 1}]
    reached, compared = finding(changed(view, rows=[row], differences=alone), "maximize")
    assert "one seed, so no interval" in reached
    assert "cannot say whether that is more than chance" in compared


def test_transductive_is_said(view: StudyView) -> None:
    assert finding(changed(view, transductive=True), "maximize")[-1].startswith("Transductive")


def test_values_are_per_cent_only_where_they_are_shares() -> None:
    assert value_text(0.7131, "probe/accuracy") == "71.3 %"
    assert value_text(12.34567, "gauge/effective_rank") == "12.35"
    assert value_text(None, "probe/accuracy") == value_text(float("nan"), "x") == "\N{EN DASH}"
