"""The result stage: the best configuration with fresh seeds, measured once on the test fold.

Two rows stand beside it and must be beaten: the same encoder untrained, and log-mel
statistics. Every run is a Ray task with a folder of its own; a finished folder is never run
again, an unfinished one goes on from its checkpoint.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ray
from ray.exceptions import RayError, RayTaskError

from asit_platform.analysis.statistics import MeanInterval, mean_interval, paired_interval
from asit_platform.cluster import ResourceSpec
from asit_platform.errors import PlatformError
from asit_platform.study.folders import claim_folder, read_json, write_json

OUTCOME_FILE = "outcome.json"

# What Tune and a task reserve for a trial that only waits for its Ray Train workers, which
# reserve their own; Ray refuses a request for nothing.
PLACEHOLDER_MEMORY_BYTES = 256 * 2**20

RowName = Literal["pretrained", "untrained", "log_mel_statistics"]

LABELS: dict[RowName, str] = {
    "pretrained": "pre-trained, best configuration",
    "untrained": "same encoder, untrained",
    "log_mel_statistics": "log-mel statistics, no network",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultJob:
    """One measurement on the test fold.

    Attributes:
        row: The row of the result it belongs to.
        seed: A seed no trial of the search has used; `None` where nothing is drawn.
        folder: Where its files go.
        fingerprint: What it must have been computed from for its outcome to count.
    """

    row: RowName
    seed: int | None
    folder: Path
    fingerprint: str


class Outcome(NamedTuple):
    """A job and what it measured."""

    job: ResultJob
    metrics: Mapping[str, float]


def plan_jobs(
    folder: Path, seeds: Sequence[int], fingerprint: Callable[[RowName, int | None], str]
) -> list[ResultJob]:
    """The jobs of a result, longest first.

    Args:
        folder: The study's.
        seeds: Fresh seeds.
        fingerprint: What a row with a seed is computed from.
    """
    places: list[tuple[RowName, int | None, str]] = [
        *(("pretrained", seed, f"result/seed{seed}") for seed in seeds),
        *(("untrained", seed, f"baselines/untrained-seed{seed}") for seed in seeds),
        ("log_mel_statistics", None, "baselines/log_mel_statistics"),
    ]
    return [
        ResultJob(row=row, seed=seed, folder=folder / place, fingerprint=fingerprint(row, seed))
        for row, seed, place in places
    ]


def run_jobs(
    jobs: Sequence[ResultJob],
    run: Callable[[ResultJob], dict[str, float]],
    *,
    resources: ResourceSpec,
    concurrency: int,
    max_failures: int,
) -> Iterator[Outcome]:
    """Run what is not finished, in parallel; outcomes come as they are there.

    Args:
        jobs: All of them; finished ones come first and are not run.
        run: Runs one job in a worker; must pickle.
        resources: What a trial takes.
        concurrency: Jobs at a time.
        max_failures: How often a job is tried again.

    Raises:
        PlatformError: If a job fails for good; the others are finished first.
    """
    waiting = []
    for job in jobs:
        metrics = read_outcome(job)
        if metrics is None:
            waiting.append(job)
        else:
            yield Outcome(job, metrics)
    run_ref = ray.put(run)
    running: dict[ray.ObjectRef, ResultJob] = {}
    failures: list[str] = []
    while waiting or running:
        while waiting and len(running) < concurrency:
            job = waiting.pop(0)
            options = {**_reserve(job, resources), "max_retries": max_failures}
            task = _run_job.options(**options, retry_exceptions=True)
            running[task.remote(job, run_ref)] = job
        done, _ = ray.wait(list(running), num_returns=1)
        job = running.pop(done[0])
        try:
            yield Outcome(job, ray.get(done[0]))
        except RayError as error:
            failures.append(_describe_failure(job, error))
    if failures:
        raise PlatformError("\n".join(failures))


def read_outcome(job: ResultJob) -> dict[str, float] | None:
    """What a finished job measured; `None` if it has to be run."""
    content = read_json(job.folder / OUTCOME_FILE)
    return content["metrics"] if content.get("fingerprint") == job.fingerprint else None


def assemble_result(
    outcomes: Sequence[Outcome], *, metric: str, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Content of result.json.

    Args:
        outcomes: All jobs.
        metric: Name of the metric.
        about: What else the result says of the study.

    Raises:
        PlatformError: If a job did not measure the metric.
    """
    values: dict[RowName, dict[int | None, float]] = {
        name: _values(outcomes, name, metric) for name in LABELS
    }
    rows = [_create_row(name, of_seed) for name, of_seed in values.items()]
    pretrained = values["pretrained"]
    untrained = [values["untrained"][seed] for seed in pretrained]
    constant = [values["log_mel_statistics"][None]] * len(pretrained)
    differences = [
        _create_difference(against, paired_interval(list(pretrained.values()), control))
        for against, control in (("untrained", untrained), ("log_mel_statistics", constant))
    ]
    return {**about, "rows": rows, "differences": differences}


@ray.remote
def _run_job(job: ResultJob, run: Callable[[ResultJob], dict[str, float]]) -> dict[str, float]:
    claim_folder(job.folder, job.fingerprint)
    metrics = run(job)
    outcome = {"fingerprint": job.fingerprint, "seed": job.seed, "metrics": metrics}
    write_json(job.folder / OUTCOME_FILE, outcome)
    return metrics


def _reserve(job: ResultJob, resources: ResourceSpec) -> dict[str, float]:
    if job.row == "log_mel_statistics":
        return {"num_cpus": resources.cpus_per_worker}
    if job.row == "pretrained" and resources.num_workers > 1:
        return {"num_cpus": 0, "memory": PLACEHOLDER_MEMORY_BYTES}
    return {"num_cpus": resources.cpus_per_worker, "num_gpus": resources.gpus_per_worker}


def _describe_failure(job: ResultJob, error: RayError) -> str:
    cause = error.cause if isinstance(error, RayTaskError) else error
    text = str(cause).strip().splitlines() or [""]
    return (
        f"{job.folder}: {type(cause).__name__}: {text[0]}; "
        "the same command again goes on from what is finished"
    )


def _values(outcomes: Sequence[Outcome], name: RowName, metric: str) -> dict[int | None, float]:
    values: dict[int | None, float] = {}
    ours = [outcome for outcome in outcomes if outcome.job.row == name]
    for job, metrics in sorted(ours, key=lambda outcome: outcome.job.seed or 0):
        value = metrics.get(metric, math.nan)
        if not math.isfinite(value):
            raise PlatformError(f"{job.folder}: {metric} must be a number, but got {value}")
        values[job.seed] = value
    return values


def _create_row(name: RowName, of_seed: Mapping[int | None, float]) -> dict[str, Any]:
    mean = mean_interval(list(of_seed.values()))
    return {
        "name": name,
        "label": LABELS[name],
        "seeds": [seed for seed in of_seed if seed is not None],
        "values": list(of_seed.values()),
        "mean": mean.mean,
        "ci95": None if mean.interval is None else list(mean.interval),
    }


def _create_difference(against: str, difference: MeanInterval) -> dict[str, Any]:
    return {
        "against": against,
        "mean": difference.mean,
        "ci95": None if difference.interval is None else list(difference.interval),
        "n": difference.num_values,
    }
