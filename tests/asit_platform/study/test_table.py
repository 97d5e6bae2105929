import io

import pytest
from rich.console import Console

from asit_platform.study.store import TrialRow
from asit_platform.study.table import (
    Progress,
    ProgressRow,
    describe,
    describe_error,
    render,
)


@pytest.fixture
def progress() -> Progress:
    progress = Progress(
        metric="probe/accuracy", mode="max", num_samples=10, num_epochs=8, concurrency=2
    )
    for number, (state, value) in enumerate(
        [("COMPLETE", 0.7), ("PRUNED", 0.9), ("FAIL", None), ("COMPLETE", 0.6)]
    ):
        row = ProgressRow(number=number, params={"pretrain.masking.ratio": 0.123456})
        row.state, row.value, row.epoch, row.elapsed_s = state, value, 8, 20.0
        progress.rows[number] = row
    progress.rows[4] = ProgressRow(number=4, params={"pretrain.masking.ratio": 0.5})
    progress.rows[4].started_s = 100.0
    return progress


def draw(progress: Progress, *, width: int = 120, height: int = 40) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(render(progress, now_s=105.0, width=width, height=height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_shows_what_a_trial_is_and_how_far(progress):
    progress.rows[4].epoch, progress.rows[4].value = 3, 0.4321
    text = draw(progress)

    for word in ("trial", "ratio", "epoch", "probe/accuracy", "state", "elapsed"):
        assert word in text.splitlines()[0]
    running = text.splitlines()[5]
    for word in ("4", "0.5", "3/8", "0.4321", "running", "5.0 s"):
        assert word in running
    assert "0.1235" in text


def test_a_collapsed_trial_and_transductive_training_are_named(progress):
    progress.rows[0].collapsed = True
    assert "collapsed" not in draw(progress).splitlines()[2]
    assert "complete, collapsed" in draw(progress).splitlines()[1]
    progress.transductive = True
    assert "4 of 10 trials, transductive, best so far" in draw(progress)


def test_the_last_line_tells_the_best_and_the_time_left(progress):
    # A stopped trial is never the best. 4 trials took 20 s each: 15 s of the one that runs and
    # 5 more are ahead, two at a time.
    assert describe(progress, now_s=105.0) == (
        "4 of 10 trials, best so far 0.7000 (trial 0), about 58 s left to search"
    )


def test_nothing_is_estimated_before_an_epoch_has_ended():
    progress = Progress(metric="m", mode="max", num_samples=4, num_epochs=8, concurrency=1)
    progress.rows[0] = ProgressRow(number=0, params={}, started_s=100.0)
    assert progress.seconds_left(110.0) is None

    progress.rows[0].epoch = 2
    assert progress.seconds_left(110.0) == pytest.approx(30 + 3 * 40)


def test_a_low_terminal_keeps_what_runs_and_the_best(progress):
    for number in range(5, 10):
        row = ProgressRow(number=number, params={}, state="PRUNED", value=0.1)
        progress.rows[number] = row
    shown = [line.split()[0] for line in draw(progress, height=11).splitlines()[1:-1]]

    assert shown == ["0", "9", "4"]


def test_a_narrow_terminal_shows_fewer_parameters_and_says_so(progress):
    for row in progress.rows.values():
        row.params = {f"pretrain.teacher.momentum_{index}": 0.123456 for index in range(10)}
    lines = draw(progress, width=110).splitlines()

    assert len(lines) == 7  # nothing is wrapped
    assert "momentum_2" in lines[0]
    assert "momentum_3" not in lines[0]
    assert lines[-1].endswith("; 7 more parameters not shown")


def test_a_metric_that_is_minimised_has_its_lowest_as_best(progress):
    progress.mode = "min"

    assert progress.best() is progress.rows[3]


def test_earlier_trials_are_taken_in_but_not_those_that_were_interrupted(tmp_path):
    progress = Progress(metric="m", mode="max", num_samples=4, num_epochs=8, concurrency=1)
    rows = [
        TrialRow(
            number=number,
            state=state,
            params={"x": 1},
            value=0.5,
            curve={1: 0.4, 2: 0.5},
            seed=0,
            elapsed_s=12.0,
            reason=None,
            folder=tmp_path,
        )
        for number, state in enumerate(["PRUNED", "RUNNING"])
    ]

    progress.add_earlier(rows)

    assert list(progress.rows) == [0]
    assert progress.rows[0].epoch == 2


def test_an_error_is_the_one_that_was_raised():
    wrapped = RuntimeError("a long Ray traceback")
    wrapped.cause = ValueError("boom\nsecond line")  # pyright: ignore[reportAttributeAccessIssue]

    assert describe_error(lambda: wrapped) == "ValueError: boom"
    assert describe_error(lambda: KeyError()) == "KeyError"
