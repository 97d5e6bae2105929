import csv
import json

import pytest
import yaml
from typer.testing import CliRunner

from asit_platform.errors import PlatformError
from asit_platform.study import cli
from asit_platform.study.record import Ending
from asit_platform.study.run import SweepOutcome

SPEC = """
version: 1
kind: sweep
name: toy
question: Which ratio?
base: asit/nano
data: nowhere
metric: {name: probe/accuracy, goal: maximize, at: last}
search: {num_samples: 6, parameters: {pretrain.masking.ratio: {min: 0.3, max: 0.8}}}
"""
RESULT = {
    "study": "toy",
    "question": "Which ratio?",
    "metric": {"name": "probe/accuracy", "goal": "maximize", "at": "last"},
    "selected_by": "probe/accuracy",
    "dataset": {"name": "synthetic", "synthetic": True, "num_clips": 10},
    "split": {"train": [1, 2, 3], "select": 4, "test": 5},
    "transductive": True,
    "best": {"number": 3, "params": {"pretrain.masking.ratio": 0.123456}, "selected_value": 0.75},
    "rows": [
        {"name": "pretrained", "label": "p", "values": [0.7, 0.8], "mean": 0.75, "ci95": [0.1, 1]},
        {"name": "log_mel_statistics", "label": "l", "values": [0.5], "mean": 0.5, "ci95": None},
    ],
    "differences": [{"against": "untrained", "mean": 0.1, "ci95": [0.0, 0.2], "n": 2}],
}


@pytest.fixture
def spec_file(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def results(open_toy, study_folder):
    with open_toy() as record:
        for number, value in enumerate((0.5, 0.7)):
            trial = record.study.ask()
            trial.suggest_int("prototypes", 64, 64)
            record.start(number, seed=3)
            record.finish(number, Ending(state="COMPLETE", epoch=4, value=value))
    return study_folder.parent


def export(results, output_format):
    arguments = ["export", "toy", "--format", output_format, "--results", str(results)]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_export_writes_each_format(results):
    trial = {"number": 1, "params": {"prototypes": 64}, "seed": 3, "state": "COMPLETE"}
    trial["transductive"] = False

    assert json.loads(export(results, "json"))[1] == {**trial, "value": 0.7}
    assert yaml.safe_load(export(results, "yaml"))["trials"][1] == {**trial, "value": 0.7}
    rows = list(csv.DictReader(export(results, "csv").splitlines()))
    assert rows[1] == {
        "number": "1",
        "prototypes": "64",
        "seed": "3",
        "state": "COMPLETE",
        "value": "0.7",
        "transductive": "False",
    }


def test_a_study_that_is_not_there_is_named(results):
    done = CliRunner().invoke(cli.app, ["export", "toi", "--results", str(results)])

    assert isinstance(done.exception, PlatformError)
    assert "did you mean 'toy'" in str(done.exception)


def test_ctrl_c_ends_with_130_and_the_command_that_goes_on(spec_file, tmp_path, monkeypatch):
    def interrupted(*_arguments, **_keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_sweep", interrupted)
    arguments = ["run", str(spec_file), "-S", "question=What now?", "--results", str(tmp_path)]

    done = CliRunner().invoke(cli.app, arguments)

    assert done.exit_code == 130
    assert done.stderr.strip() == (
        f"interrupted; this goes on: asit sweep run {spec_file} -S 'question=What now?' "
        f"--results {tmp_path}"
    )


@pytest.fixture
def reported(monkeypatch, tmp_path):
    calls = []

    def report(*arguments):
        calls.append(arguments)
        print("report.html")  # noqa: T201 - as the command does

    outcome = SweepOutcome(folder=tmp_path / "toy", result=RESULT)
    monkeypatch.setattr(cli, "run_sweep", lambda *_arguments, **_keywords: outcome)
    monkeypatch.setattr(cli, "call_command", report)
    return calls


def test_a_finished_sweep_prints_its_result_and_writes_the_report(spec_file, tmp_path, reported):
    done = CliRunner().invoke(cli.app, ["run", str(spec_file)])

    assert done.exit_code == 0, done.output
    for words in (
        "synthetic: sounds the program made itself",
        "transductive: unlabelled test clips took part in pre-training",
        "0.7500 on fold 4 (selected, optimistic)",
        "ratio 0.1235",
        "report.html",
    ):
        assert words in done.stdout
    folder = tmp_path / "toy"
    assert reported == [("report", str(folder), "--out", str(folder / "report.html"))]


def test_json_on_stdout_is_nothing_but_the_result(spec_file, reported):
    done = CliRunner().invoke(cli.app, ["run", str(spec_file), "--json"])

    assert json.loads(done.stdout) == RESULT
    assert len(reported) == 1
    assert "report.html" in done.stderr
