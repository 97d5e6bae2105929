"""The search stage: Tune runs the rows of a study, each as one trial in a worker.

Nothing of Tune's own is kept: its files go to a temporary folder, its table and its signal
handler are off, and a rerun makes a new Tuner on the same rows.
"""

import json
import logging
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ray import tune
from ray.tune.schedulers import FIFOScheduler
from rich.console import Console

from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.source import ClipSource
from asit_platform.errors import PlatformError
from asit_platform.spec import SweepSpec, trial_fingerprint
from asit_platform.study.folders import claim_folder
from asit_platform.study.record import StudyRecord
from asit_platform.study.result import PLACEHOLDER_MEMORY_BYTES
from asit_platform.study.scheduler import TIME_ATTR, ReplayableAsha, create_asha
from asit_platform.study.searcher import (
    FINISHED_KEY,
    METRICS_KEY,
    REASON_KEY,
    SearchSpace,
    StudySearcher,
)
from asit_platform.study.store import TRIALS_FOLDER, open_study
from asit_platform.study.table import Progress, SweepProgress
from asit_platform.trial_config import TrialConfig

Metrics = dict[str, float]

# Ray reads these from the environment only; the workers of a local cluster inherit them.
QUIET_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Epochs that are not probed report no metric.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@dataclass(frozen=True, kw_only=True)
class TrialFunctions:
    """What a study runs; the functions of `trial.py`, or others of the same signatures.

    Attributes:
        run_trial: One configuration and one seed.
        run_untrained: The same encoder, not trained.
        run_log_mel_statistics: No encoder at all.
    """

    run_trial: Callable[..., Metrics]
    run_untrained: Callable[..., Metrics]
    run_log_mel_statistics: Callable[..., Metrics]


@dataclass(frozen=True, kw_only=True)
class StudyContext:
    """What every run of a study needs; goes to the workers.

    Attributes:
        spec: The sweep.
        info: Its data set.
        folder: `results/<study>`, absolute: workers have working directories of their own.
        functions: What to run.
    """

    spec: SweepSpec
    info: DatasetInfo
    folder: Path
    functions: TrialFunctions

    @property
    def mode(self) -> Literal["max", "min"]:
        """The metric's goal in Tune's word."""
        return "max" if self.spec.metric.goal == "maximize" else "min"

    @property
    def num_epochs(self) -> int:
        """Epochs of a trial that is not stopped."""
        return self.spec.resolve({}).pretrain.epochs

    def fingerprint(self, config: TrialConfig, seed: int, *, purpose: str) -> str:
        """Identity of a run: equal ones give equal numbers."""
        identity = trial_fingerprint(
            config, seed=seed, data_fingerprint=self.info.fingerprint, split=self.spec.split
        )
        transductive = "-transductive" if self.spec.transductive else ""
        return f"{purpose}{transductive}-{identity}"


def run_search(
    record: StudyRecord,
    context: StudyContext,
    source: ClipSource,
    *,
    concurrency: int,
    console: Console,
) -> None:
    """Run the rows a study still lacks; returns when there are as many as it asks for.

    Raises:
        PlatformError: If Tune ended before that.
        KeyboardInterrupt: On Ctrl-C; what ran stays to be resumed.
    """
    spec, scheduler = context.spec, _create_scheduler(context)
    searcher = StudySearcher(
        record,
        space=SearchSpace(
            spec.search.method, spec.search.seed, spec.search.parameters, spec.search.num_samples
        ),
        metric=spec.metric.name,
        mode=context.mode,
        num_epochs=context.num_epochs,
        trial_seed=spec.search.seed,
        concurrent=concurrency > 1,
        scheduler=scheduler if isinstance(scheduler, ReplayableAsha) else None,
    )
    progress = Progress(
        metric=spec.metric.name,
        mode=context.mode,
        num_samples=spec.search.num_samples,
        num_epochs=context.num_epochs,
        concurrency=concurrency,
        transductive=spec.transductive,
    )
    progress.add_earlier(open_study(context.folder).trials)
    with (
        tempfile.TemporaryDirectory(prefix="asit-tune-") as scratch,
        SweepProgress(progress, searcher, console) as shown,
    ):
        trainable = tune.with_parameters(_run_row, context=context, source=source)
        tune.Tuner(
            tune.with_resources(trainable, _reserve(spec)),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=-1,
                max_concurrent_trials=concurrency,
                reuse_actors=spec.resources.num_workers == 1,
            ),
            run_config=tune.RunConfig(
                name=spec.name,
                storage_path=scratch,
                failure_config=tune.FailureConfig(max_failures=spec.failure.max_failures),
                stop=lambda _trial_id, result: not _is_finite(result, spec.metric.name),
                callbacks=[shown],
                verbose=0,
            ),
        ).fit()
    if is_unfinished(record, spec):
        raise PlatformError(f"study '{spec.name}': Ray Tune ended before all trials had")


def is_unfinished(record: StudyRecord, spec: SweepSpec) -> bool:
    """True while a study has rows to run."""
    rows = record.rows()
    return len(rows) < spec.search.num_samples or any(not row.state.is_finished() for row in rows)


def quieten_ray() -> None:
    """Turn off what Tune prints and the signal handler it sets; call before Ray starts."""
    os.environ.update(QUIET_ENVIRONMENT)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


def _create_scheduler(context: StudyContext) -> ReplayableAsha | FIFOScheduler:
    scheduler = context.spec.scheduler
    if scheduler.type == "none":
        return FIFOScheduler()
    return create_asha(
        metric=context.spec.metric.name,
        mode=context.mode,
        num_epochs=context.num_epochs,
        grace_period=scheduler.grace_period,
        reduction_factor=scheduler.reduction_factor,
    )


def _reserve(spec: SweepSpec) -> dict[str, float]:
    if spec.resources.num_workers > 1:
        return {"memory": PLACEHOLDER_MEMORY_BYTES}
    return {"cpu": spec.resources.cpus_per_worker, "gpu": spec.resources.gpus_per_worker}


def _run_row(config: dict[str, Any], *, context: StudyContext, source: ClipSource) -> None:
    """What a Tune worker runs: one row of the study."""
    spec, seed = context.spec, int(config["seed"])
    folder = context.folder / TRIALS_FOLDER / f"{config['number']:04d}"
    reports = _Reports(spec.metric.name, num_epochs=context.num_epochs)
    try:
        trial_config = spec.resolve(json.loads(config["params"]))
        claim_folder(folder, context.fingerprint(trial_config, seed, purpose="search"))
        metrics = context.functions.run_trial(
            trial_config,
            seed=seed,
            split=spec.split,
            evaluate_on="select",
            source=source,
            info=context.info,
            folder=folder,
            resources=spec.resources,
            report=reports,
            tune_message=reports.message,
            transductive=spec.transductive,
        )
        reports.finish(metrics)
    except (ArithmeticError, ValueError, PlatformError) as error:
        # It would end so again: close the row with the reason instead of trying once more.
        reports.give_up(str(error))


class _Reports:
    """Passes epochs to Tune, the last one only when the trial has written all its files.

    A scheduler ends a trial's process at the last epoch it is told of.
    """

    def __init__(self, metric: str, *, num_epochs: int) -> None:
        self._metric = metric
        self._num_epochs = num_epochs
        self._epoch = 0

    def __call__(self, metrics: Mapping[str, float]) -> None:
        self._epoch = int(metrics[TIME_ATTR])
        message = self.message(metrics)
        if message is not None:
            tune.report(message)

    def message(self, metrics: Mapping[str, float]) -> dict[str, Any] | None:
        """What Tune is told of an epoch; None for the last one, which `finish` tells."""
        return self._pack(metrics) if metrics[TIME_ATTR] < self._num_epochs else None

    def finish(self, metrics: Mapping[str, float]) -> None:
        if self._metric not in metrics:
            raise PlatformError(
                f"metric.name must be one that trials report ({', '.join(sorted(metrics))}), "
                f"but got '{self._metric}'"
            )
        tune.report({**self._pack(metrics), FINISHED_KEY: True})

    def give_up(self, reason: str) -> None:
        epoch = max(1, self._epoch)
        nothing = {TIME_ATTR: epoch, self._metric: math.nan, METRICS_KEY: "{}"}
        tune.report({**nothing, REASON_KEY: reason})

    def _pack(self, metrics: Mapping[str, float]) -> dict[str, Any]:
        packed = {TIME_ATTR: int(metrics[TIME_ATTR]), METRICS_KEY: json.dumps(dict(metrics))}
        if self._metric in metrics:
            packed[self._metric] = float(metrics[self._metric])
        return packed


def _is_finite(result: Mapping[str, Any], metric: str) -> bool:
    return metric not in result or math.isfinite(float(result[metric]))
