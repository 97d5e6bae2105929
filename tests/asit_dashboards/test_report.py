"""The report as a file: the same bytes each time, nothing from outside, a page for every study."""

import math
import re
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from asit_dashboards.report import render, write_report
from asit_dashboards.sections import build_page
from asit_dashboards.style import SCRIPT
from asit_platform.study.store import StudyView, open_study

MakeView = Callable[..., StudyView]
ROW: dict[str, Any] = {"params": {"pretrain.masking.ratio": 0.5}, "elapsed_s": 2.0}


def text_of(view: StudyView) -> str:
    """The report without its programs; Plotly's holds every word there is."""
    return render(build_page(view)).replace(get_plotlyjs(), "").replace(SCRIPT, "")


def test_the_same_results_give_the_same_bytes(view: StudyView, tmp_path: Path) -> None:
    first = write_report(view, tmp_path / "a" / "report.html")
    second = write_report(open_study(view.folder), tmp_path / "b.html")
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size < 8 * 2**20
    assert [path.name for path in first.parent.iterdir()] == ["report.html"]


def test_nothing_is_loaded_from_outside(view: StudyView) -> None:
    page = render(build_page(view))
    assert page.count(get_plotlyjs()) == 1
    rest = page.replace(get_plotlyjs(), "")
    assert not re.search(r"https?:|<link|<script[^>]+src|<img|@import|url\(", rest)
    assert "default-src 'none'" in rest


def test_a_finished_study_says_all_of_it(view: StudyView) -> None:
    text = text_of(view)
    for words in (
        "Which masking, head and teacher settings",
        "synth, synthetic (sounds made by this program), 500 clips, 10 classes",
        "12 of 12: 6 complete, 5 stopped early, 1 failed",
        "folds 1, 2, 3 train, 4 selects, 5 tests",
        "0 while searching; 1000, 1001, 1002 for the result",
        "trial 8 on selection fold 4 (selected, optimistic)",
        "Read at epoch 2, the last that every complete or early-stopped trial reached "
        "(11 trials; 1 failed or unfinished left out).",
        "probe/accuracy is not finite at epoch 3",
    ):
        assert words in text
    figures = re.findall(r'data-figure="figure-(\w+)"', text)
    assert figures == [
        "result", "best", "curves", "importance", "parallel", "slices", "pictures"
    ]  # fmt: skip


def test_transductive_is_said_wherever_numbers_stand(view: StudyView) -> None:
    assert view.result is not None
    text = text_of(
        replace(
            view,
            spec={**view.spec, "transductive": True},
            result={**view.result, "transductive": True},
        )
    )
    assert text.lower().count("transductive") >= 5


def test_a_collapsed_trial_is_named(view: StudyView) -> None:
    assert "collapsed" not in text_of(view).lower()
    first, *others = view.trials
    first = replace(first, metrics={**first.metrics, "gauge/collapsed": 1.0})
    text = text_of(replace(view, trials=[first, *others]))
    assert "complete, collapsed" in text
    assert "collapse.txt" in text


def test_an_empty_study_says_so(make_view: MakeView) -> None:
    text = text_of(make_view([]))
    assert "No trial has been recorded yet" in text
    assert "data-figure" not in text


def test_one_trial_has_a_page(make_view: MakeView) -> None:
    text = text_of(make_view([{**ROW, "state": "COMPLETE", "curve": {1: 0.4, 2: 0.5}}]))
    assert "Best so far is trial 0 with 50.0 % on the selection fold (selected, optimistic)" in text
    assert "Importance needs at least 10 trials" in text
    assert "needs at least two trials" in text
    assert "has written no pictures" in text


def test_all_failed_lists_the_reasons(make_view: MakeView) -> None:
    failed = {**ROW, "state": "FAIL", "curve": {}, "reason": "out of memory on 'node-1'"}
    text = text_of(make_view([failed, failed, failed]))
    assert "No result: 3 trials ran and failed" in text
    assert text.count("out of memory on &#x27;node-1&#x27;") >= 3
    assert "data-figure" not in text


def test_a_metric_that_is_never_finite_is_no_value(make_view: MakeView) -> None:
    bad = {**ROW, "state": "FAIL", "curve": {1: math.nan, 2: math.inf}, "reason": "not finite"}
    good = {**ROW, "state": "COMPLETE", "curve": {1: 0.4, 2: 0.5}}
    text = text_of(make_view([bad, good]))
    assert "NaN" not in text
    assert "Best so far: 50.0 % at trial 1" in text


def test_a_running_study_says_that_it_is_not_finished(make_view: MakeView) -> None:
    running = {**ROW, "state": "RUNNING", "curve": {1: 0.4}}
    text = text_of(make_view([running, {**running, "curve": {}}]))
    assert "The study is not finished" in text
    assert "No result yet: no trial has reached its last epoch." in text


def test_names_from_the_study_are_never_code(view: StudyView) -> None:
    evil = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'
    assert view.result is not None
    dataset = {**view.result["dataset"], "name": evil, "label_names": [evil] * 10}
    rows = [{**row, "label": evil} for row in view.result["rows"]]
    trials = [
        replace(trial, params={**trial.params, evil: evil}, reason=evil) for trial in view.trials
    ]
    spec = {**view.spec, "question": evil}
    result = {**view.result, "dataset": dataset, "rows": rows}
    attacked = replace(view, name=evil, spec=spec, trials=trials, result=result)
    text = text_of(attacked)
    assert "<script>alert" not in text
    assert "<img" not in text
    assert text.count("<script") == text_of(view).count("<script")


def test_long_and_foreign_names_have_a_page(view: StudyView) -> None:
    long = "Vögel 鳥 " * 25
    spec = {**view.spec, "question": long}
    trials = [replace(trial, params={**trial.params, long: long}) for trial in view.trials]
    assert long.strip() in text_of(replace(view, spec=spec, trials=trials))


def has_trials(path: Path) -> bool:
    """True from the first row on; looks without a lock and without making tables."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            return database.execute("SELECT COUNT(*) FROM trials").fetchone()[0] > 0
    except sqlite3.OperationalError:
        return False


def test_a_study_can_be_read_while_it_is_written(tmp_path: Path, twelve: Callable) -> None:
    folder = tmp_path / "results" / "live"
    writer = threading.Thread(target=twelve, args=(folder,))
    writer.start()
    seen = set()
    while writer.is_alive():
        if has_trials(folder / "study.db"):
            view = open_study(folder)
            seen.add(len(view.trials))
            render(build_page(view))
    writer.join()
    assert len(open_study(folder).trials) == 12
    assert seen
