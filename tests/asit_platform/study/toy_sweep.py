"""A sweep whose trials take no time to speak of, to be run in this process or as a program.

As a program: `python toy_sweep.py RESULTS DATA [KEY=VALUE ...]`, so that it can be killed.
"""

import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from rich.console import Console

from asit_platform.cluster import start_ray
from asit_platform.spec import SweepSpec, load_sweep
from asit_platform.study.run import SweepOutcome, run_sweep
from asit_platform.study.search import TrialFunctions, quieten_ray

SPEC = """
version: 1
kind: sweep
name: toy
question: Which ratio?
base: asit/nano
data: {data}
trial: {{pretrain: {{epochs: 4, encoder: {{input_bins: 16}}}}}}
metric: {{name: probe/accuracy, goal: maximize, at: last}}
search:
  method: tpe
  seed: 0
  num_samples: 6
  parameters:
    pretrain.masking.ratio: {{min: 0.3, max: 0.8}}
    pretrain.teacher.temperature: {{min: 0.02, max: 0.1, log: true}}
scheduler: {{type: asha, grace_period: 2, reduction_factor: 3}}
result: {{seeds: 2}}
"""


def accuracy(ratio: float, epoch: int, *, seed: int) -> float:
    return ratio * (0.5 + epoch / 8) + seed / 1000


def run_trial(config, *, seed, folder, report, faults, epoch_s, **_):
    checkpoint = folder / "checkpoint.json"
    history = json.loads(checkpoint.read_text()) if checkpoint.exists() else []
    log(folder, f"start at epoch {len(history) + 1}")
    for metrics in history:
        report(metrics)
    for epoch in range(len(history) + 1, config.pretrain.epochs + 1):
        time.sleep(epoch_s)
        go_wrong(folder, epoch, fault=faults.get(folder.name))
        value = accuracy(config.pretrain.masking.ratio, epoch, seed=seed)
        history.append({"epoch": float(epoch), "probe/accuracy": value, "loss/total": 1 / epoch})
        temporary = folder / ".checkpoint.tmp"
        temporary.write_text(json.dumps(history))
        temporary.replace(checkpoint)
        log(folder, f"epoch {epoch}")
        report(history[-1])
    time.sleep(0.2)  # long enough to be killed in by a scheduler that does not wait
    log(folder, "written")
    return history[-1]


def run_untrained(config, *, seed, folder, **_):
    log(folder, "start")
    return {"probe/accuracy": 0.3 + seed / 1000}


def run_log_mel_statistics(*, folder, **_):
    log(folder, "start")
    return {"probe/accuracy": 0.25}


def go_wrong(folder: Path, epoch: int, *, fault: str | None) -> None:
    first = (folder / "log.txt").read_text().count("start") == 1
    if fault == "once" and epoch == 2 and first:
        raise RuntimeError("a passing trouble")
    if fault == "dies" and epoch == 2:
        os._exit(1)
    if fault == "always" and epoch == 2:
        raise RuntimeError("it never works\nand says more")
    if fault == "diverges" and epoch == 2:
        raise FloatingPointError("loss/total is nan at epoch 2")


def log(folder: Path, line: str) -> None:
    with (folder / "log.txt").open("a") as file:
        file.write(f"{line}\n")


def create_functions(faults: dict[str, str] | None = None, *, epoch_s: float = 0.01):
    """What a toy sweep runs; `faults` says which folders' trials go wrong, and how."""
    return TrialFunctions(
        run_trial=partial(run_trial, faults=faults or {}, epoch_s=epoch_s),
        run_untrained=run_untrained,
        run_log_mel_statistics=run_log_mel_statistics,
    )


def load(folder: Path, data: Path, *overrides: str) -> SweepSpec:
    path = folder / "toy.yaml"
    path.write_text(SPEC.format(data=data))
    return load_sweep(path, list(overrides), results_dir=folder)


def sweep(
    results: Path, data: Path, *overrides: str, functions: TrialFunctions | None = None
) -> SweepOutcome:
    results.mkdir(parents=True, exist_ok=True)
    return run_sweep(
        load(results, data, *overrides),
        results_dir=results,
        functions=functions or create_functions(),
        console=Console(stderr=True),
    )


if __name__ == "__main__":
    # A test run in the background of a shell inherits that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    quieten_ray()
    slow = create_functions(epoch_s=0.3)
    with start_ray(address="local", num_cpus=2, object_store_bytes=200 * 2**20):
        sweep(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:], functions=slow)
