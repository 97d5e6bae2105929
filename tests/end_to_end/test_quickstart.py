"""The study behind `make demo`: how hard its data are, and the same study through Ray Train.

That its best trial beats the two rows is measured, not tested: README's results, by `make demo`.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from asit_core.spectrogram import LogMelConfig
from asit_platform.cluster import start_ray
from asit_platform.data.cli_build import build_synthetic
from asit_platform.data.prepare import PrepareOptions
from asit_platform.data.source import ClipSource
from asit_platform.data.synthetic import SyntheticConfig
from asit_platform.spec import load_sweep
from asit_platform.study.store import open_study
from asit_platform.study.trial import run_log_mel_statistics, run_untrained

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1200)]

QUICKSTART = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_synthetic_set_is_hard_without_training(tmp_path, seed):
    spec = load_sweep(QUICKSTART)
    config = spec.resolve({})
    # As `asit data synth` makes it, but for the seed.
    sounds = SyntheticConfig(seed=seed)
    front_end = LogMelConfig(
        sample_rate_hz=sounds.sample_rate_hz, num_mel_bins=config.pretrain.encoder.input_bins
    )
    info = build_synthetic(sounds, tmp_path / "data", PrepareOptions(front_end=front_end))
    with start_ray(address="local", num_cpus=2):
        source = ClipSource.open(info.folder)
        common = {"split": spec.split, "evaluate_on": "test", "source": source, "info": info}
        untrained = run_untrained(
            config, seed=seed, folder=tmp_path / "untrained", resources=spec.resources, **common
        )
        statistics = run_log_mel_statistics(
            folder=tmp_path / "statistics", probe=config.probe, **common
        )
    # Ten classes: chance is 10 %; above it, so that there is something to hear.
    for row in (untrained, statistics):
        assert 0.2 < row["probe/accuracy"] < 0.75


def test_the_quickstart_runs_with_two_workers(tmp_path):
    def asit(*arguments: str) -> None:
        command = [sys.executable, "-m", "asit_platform", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    data, results = tmp_path / "synthetic", tmp_path / "results"
    asit("data", "synth", "--out", str(data))
    shorter = (
        "trial.pretrain.epochs=2",
        "trial.probe.every_epochs=1",
        "scheduler.grace_period=1",
        "search.num_samples=3",
        "result.seeds=1",
    )
    two = ("resources.num_workers=2", "resources.cpus_per_worker=0.5", f"data={data}")
    overrides = [word for override in (*shorter, *two) for word in ("-S", override)]
    asit("sweep", "run", str(QUICKSTART), "--yes", "--results", str(results), *overrides)

    study = results / "quickstart"
    rows = open_study(study).trials
    assert [row.state in ("COMPLETE", "PRUNED") for row in rows] == [True] * 3
    assert all((row.folder / "ray").is_dir() for row in rows), "no Ray Train run was made"
    assert json.loads((study / "result.json").read_text())["rows"][0]["name"] == "pretrained"
    assert (study / "report.html").is_file()
