"""The main job on synthetic sound with real trials: sweep, kill, go on, result, report."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from ray.util import placement_group_table
from rich.console import Console

from asit_platform.cluster import start_ray
from asit_platform.spec import load_sweep
from asit_platform.study import trial
from asit_platform.study.run import run_sweep
from asit_platform.study.search import TrialFunctions, quieten_ray
from asit_platform.study.store import open_study

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]

SPEC = """
version: 1
kind: sweep
name: small
question: Which ratio?
base: asit/nano
data: {data}
trial:
  pretrain:
    epochs: 4
    batch_size: 16
    encoder: {{embed_dim: 24, depth: 1, num_heads: 2, input_bins: 64}}
    views: {{crop_frames: 64}}
metric: {{name: probe/accuracy, goal: maximize, at: last}}
search:
  seed: 0
  num_samples: 4
  parameters:
    pretrain.masking.ratio: {{min: 0.3, max: 0.8}}
    pretrain.teacher.momentum: {{min: 0.9, max: 0.99}}
scheduler: {{type: asha, grace_period: 2, reduction_factor: 2}}
result: {{seeds: 2}}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "synthetic"
    _asit("data", "synth", "--out", str(folder), "--clips-per-class", "10")
    return folder


@pytest.fixture
def spec_file(tmp_path: Path, data: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SPEC.format(data=data))
    return path


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "asit_platform", *arguments]


def _asit(*arguments: str) -> str:
    done = subprocess.run(_command(*arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_killed_sweep_goes_on_to_its_result_and_report(spec_file, tmp_path):
    results = tmp_path / "results"
    arguments = ("sweep", "run", str(spec_file), "--yes", "--results", str(results))
    study = results / "small"
    with subprocess.Popen(
        _command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as driver:
        _wait_for(lambda: _num_finished(study) >= 1)
        driver.send_signal(signal.SIGKILL)
    before = {row.number: row for row in open_study(study).trials if row.state != "RUNNING"}
    stamps = {number: _stamp(study / "trials" / f"{number:04d}") for number in before}

    printed = _asit(*arguments)

    rows = open_study(study).trials
    assert [row.number for row in rows] == [0, 1, 2, 3]
    assert {row.state for row in rows} <= {"COMPLETE", "PRUNED"}
    for row in rows:
        last = 4 if row.state == "COMPLETE" else max(row.curve)
        assert sorted(row.curve) == list(range(1, last + 1))
        if row.number in before:
            assert row == before[row.number]
            assert _stamp(study / "trials" / f"{row.number:04d}") == stamps[row.number]
        else:
            lines = (study / row.folder / "metrics.jsonl").read_text().splitlines()
            epochs = [json.loads(line)["epoch"] for line in lines]
            assert epochs == sorted(set(epochs))
    result = json.loads((study / "result.json").read_text())
    assert [row["name"] for row in result["rows"]] == [
        "pretrained",
        "untrained",
        "log_mel_statistics",
    ]
    assert result["dataset"]["synthetic"] is True
    assert all(0.0 <= value <= 1.0 for row in result["rows"] for value in row["values"])
    assert str(study / "report.html") in printed
    assert "selected, optimistic" in (study / "report.html").read_text()
    exported = json.loads(_asit("sweep", "export", "small", "--results", str(results)))
    assert [set(row) >= {"params", "seed", "state", "value"} for row in exported] == [True] * 4


def test_trials_of_two_workers_leave_no_placement_group(spec_file, tmp_path):
    overrides = [
        "resources.num_workers=2",
        "resources.cpus_per_worker=0.5",
        "resources.max_concurrent_trials=1",
        "search.num_samples=3",
        "result.seeds=1",
        "name=two_workers",
    ]
    spec = load_sweep(spec_file, overrides)
    functions = TrialFunctions(
        run_trial=trial.run_trial,
        run_untrained=trial.run_untrained,
        run_log_mel_statistics=trial.run_log_mel_statistics,
    )
    quieten_ray()
    with start_ray(address="local", num_cpus=2, with_dashboard=True):
        outcome = run_sweep(
            spec, results_dir=tmp_path, functions=functions, console=Console(quiet=True)
        )
        _wait_for(
            lambda: all(group["state"] == "REMOVED" for group in placement_group_table().values()),
            timeout_s=60,
        )
        assert ray.cluster_resources()["CPU"] == 2
    rows = open_study(outcome.folder).trials
    assert [row.number for row in rows] == [0, 1, 2]
    assert {row.state for row in rows} <= {"COMPLETE", "PRUNED"}
    assert any(row.state == "COMPLETE" for row in rows)
    for row in rows:
        assert sorted(row.curve) == list(range(1, max(row.curve) + 1))
    assert len(outcome.result["rows"][0]["values"]) == 1


def _num_finished(study: Path) -> int:
    if not (study / "study.db").exists() or not (study / "trials").exists():
        return 0
    return sum(row.state != "RUNNING" for row in open_study(study).trials)


def _stamp(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.*")}


def _wait_for(condition, *, timeout_s: float = 300.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.3)
