"""A driver killed with SIGKILL, again and again: nothing is lost, nothing is run twice."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from asit_platform.study.store import STUDY_DB, StudyView, open_study

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1500)]

PROGRAM = Path(__file__).with_name("toy_sweep.py")


def start(results: Path, data: Path, *overrides: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(PROGRAM), str(results), str(data), *overrides]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL)


def run_to_end(results: Path, data: Path, *overrides: str) -> StudyView:
    assert start(results, data, *overrides).wait() == 0
    return open_study(results / "toy")


def kill_when(reached: Callable[[], bool], results: Path, data: Path, *overrides: str) -> StudyView:
    """Start a driver and kill it as soon as the condition holds."""
    driver = start(results, data, *overrides)
    while not reached():
        assert driver.poll() is None, "the driver ended before it could be killed"
        time.sleep(0.02)
    os.kill(driver.pid, signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL
    return open_study(results / "toy")


def read_log(folder: Path) -> list[str]:
    path = folder / "log.txt"
    return path.read_text().splitlines() if path.exists() else []


def comparable(view: StudyView) -> list[tuple[object, ...]]:
    return [(row.number, row.state, row.params, row.curve, row.value) for row in view.trials]


def test_a_killed_study_equals_an_undisturbed_one(tiny_data, tmp_path):
    one_at_a_time = "resources.max_concurrent_trials=1"
    undisturbed = run_to_end(tmp_path / "undisturbed", tiny_data, one_at_a_time)
    folder = tmp_path / "killed" / "toy"

    def reached_epoch(number: int, epoch: int) -> Callable[[], bool]:
        log = folder / "trials" / f"{number:04d}"
        return lambda: f"epoch {epoch}" in read_log(log)

    def measured(place: str) -> Callable[[], bool]:
        return lambda: len(read_log(folder / place)) > 1

    # In a first trial, at the edge of a rung, while a trial writes its last files, while rows are
    # between two trials, and twice while the result is measured.
    moments = [
        reached_epoch(0, 1),
        reached_epoch(1, 2),
        reached_epoch(2, 2),
        lambda: (folder / "trials" / "0003").exists(),
        reached_epoch(4, 1),
        measured("result/seed1"),
        measured("result/seed2"),
    ]
    finished: dict[int, object] = {}
    for moment in moments:
        view = kill_when(moment, tmp_path / "killed", tiny_data, one_at_a_time)
        rows = {row.number: row for row in view.trials}
        assert {number: rows[number] for number in finished} == finished
        finished = {number: row for number, row in rows.items() if row.state != "RUNNING"}
    result_logs = {path: path.read_text() for path in folder.glob("*/*/outcome.json")}

    killed = run_to_end(tmp_path / "killed", tiny_data, one_at_a_time)

    assert comparable(killed) == comparable(undisturbed)
    assert [row.number for row in killed.trials] == list(range(6))
    for row in killed.trials:
        epochs = [line for line in read_log(row.folder) if line.startswith("epoch")]
        assert epochs == sorted(set(epochs)), "an epoch ran twice"
    assert {path: path.read_text() for path in result_logs} == result_logs
    assert killed.result is not None
    assert undisturbed.result is not None
    assert killed.result["rows"] == undisturbed.result["rows"]
    assert killed.result["differences"] == undisturbed.result["differences"]


def test_trials_that_ran_together_are_all_resumed(tiny_data, tmp_path):
    folder = tmp_path / "toy"
    # Long enough for the second trial to begin before the first one ends.
    longer = ("trial.pretrain.epochs=20", "scheduler.grace_period=18")

    def two_run() -> bool:
        return (folder / STUDY_DB).is_file() and all(
            "epoch 1" in read_log(folder / "trials" / number) for number in ("0000", "0001")
        )

    before = kill_when(two_run, tmp_path, tiny_data, *longer)
    assert {row.state for row in before.trials} == {"RUNNING"}

    after = run_to_end(tmp_path, tiny_data, *longer)

    assert [row.number for row in after.trials] == list(range(6))
    assert all(row.state in ("COMPLETE", "PRUNED") for row in after.trials)
    assert [row.params for row in after.trials[:2]] == [row.params for row in before.trials[:2]]
    for row in after.trials[:2]:
        starts = [line for line in read_log(row.folder) if line.startswith("start")]
        assert starts[0] == "start at epoch 1"
        assert starts[-1] != "start at epoch 1"


def test_ctrl_c_leaves_a_study_that_goes_on(tiny_data, tmp_path):
    folder = tmp_path / "toy"
    driver = start(tmp_path, tiny_data)
    while "epoch 1" not in read_log(folder / "trials" / "0000"):
        assert driver.poll() is None
        time.sleep(0.02)
    driver.send_signal(signal.SIGINT)
    assert driver.wait() != 0

    view = run_to_end(tmp_path, tiny_data)

    assert [row.number for row in view.trials] == list(range(6))
    assert view.result is not None


def test_a_second_driver_is_refused_while_one_runs(tiny_data, tmp_path):
    driver = start(tmp_path, tiny_data)
    while not (tmp_path / "toy" / "driver.lock").exists():
        time.sleep(0.05)
    second = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), str(tiny_data)],
        check=False,
        capture_output=True,
        text=True,
    )
    driver.wait()

    assert second.returncode != 0
    assert f"is being run by process {driver.pid}" in second.stderr
