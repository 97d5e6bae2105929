"""Two ways to run the one training loop: inline in this process, or in Ray Train workers.

Inline costs nothing and is used whenever a trial has one worker; `TorchTrainer` is for more. Both
give the loop the same arguments, so one worker computes the same bits either way.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray.tune.integration.ray_train import TuneReportCallback

from asit_core.pretrainer import PretrainConfig, Pretrainer
from asit_platform.cluster import ResourceSpec
from asit_platform.data.stream import ClipSource, ClipStream
from asit_platform.errors import PlatformError
from asit_platform.training.worker import Metrics, Normalization, Worker, pretrain
from asit_platform.whole_files import write_whole

METRICS_NAME = "metrics.jsonl"

Evaluate = Callable[[Pretrainer, int], Metrics]
# Picklable; None where Tune is to be told nothing.
TuneMessage = Callable[[Metrics], dict[str, Any] | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainJob:
    """A pre-training run, ready to be sent to a worker.

    Attributes:
        config: What to train.
        seed: The trial's.
        source: The clips.
        folds: Folds to train on.
        normalization: Their statistics.
        folder: Of the trial; every worker must see it.
        evaluate: Picklable; metrics after each epoch.
    """

    config: PretrainConfig
    seed: int
    source: ClipSource
    folds: tuple[int, ...]
    normalization: Normalization
    folder: Path
    evaluate: Evaluate

    def run(self, worker: Worker, report: Callable[[Metrics], None]) -> None:
        """Train as one worker of possibly several."""
        history: list[Metrics] = []

        def record(metrics: Metrics) -> None:
            history.append(metrics)
            if worker.rank == 0:
                _write_metrics(self.folder, history)
            report(metrics)

        pretrain(
            self.config,
            seed=self.seed,
            stream=ClipStream(
                self.source,
                folds=self.folds,
                seed=self.seed,
                batch_size=self.config.batch_size,
                donor_group=self.config.donor_group,
                rank=worker.rank,
                world_size=worker.world_size,
            ),
            normalization=self.normalization,
            folder=self.folder,
            evaluate=self.evaluate,
            report=record,
            worker=worker,
            front_end=self.source.info.front_end,
        )


def launch(
    job: PretrainJob,
    resources: ResourceSpec,
    report: Callable[[Metrics], None],
    *,
    tune_message: TuneMessage | None,
) -> list[Metrics]:
    """Run a job to its end; returns the metrics of every epoch.

    Args:
        job: What to run.
        resources: One worker runs inline, more run in a `TorchTrainer`.
        report: Called after every epoch of an inline run.
        tune_message: For a Tune trial with several workers: what Tune is told of an epoch.
    """
    if resources.num_workers == 1:
        run_inline(job, resources, report)
    else:
        run_distributed(job, resources, tune_message=tune_message)
    return read_metrics(job.folder)


def run_inline(
    job: PretrainJob, resources: ResourceSpec, report: Callable[[Metrics], None]
) -> None:
    """Train in this process."""
    torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
    job.run(Worker(device=inline_device(resources)), report)


def inline_device(resources: ResourceSpec) -> torch.device:
    """The device of a worker that runs in this process.

    Raises:
        PlatformError: If a GPU is asked for that PyTorch cannot use.
    """
    if resources.gpus_per_worker == 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise PlatformError(
            "resources.gpus_per_worker must be 0 where PyTorch finds no usable GPU, but got "
            f"{resources.gpus_per_worker:g}; `asit doctor` shows what it finds"
        )
    return torch.device("cuda")


def run_distributed(
    job: PretrainJob, resources: ResourceSpec, *, tune_message: TuneMessage | None = None
) -> None:
    """Train in Ray Train workers, which keep their own placement group."""
    per_worker = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    trainer = ray.train.torch.TorchTrainer(
        _train_loop,
        train_loop_config={"job": job, "num_threads": max(1, int(resources.cpus_per_worker))},
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.num_workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker={name: amount for name, amount in per_worker.items() if amount},
        ),
        run_config=ray.train.RunConfig(
            name="train",
            storage_path=str(job.folder.resolve() / "ray"),
            callbacks=[_ReportToTune(tune_message)] if tune_message else [],
        ),
    )
    try:
        trainer.fit()
    except ray.train.WorkerGroupError as error:
        # What a configuration is at fault for is told as an inline run tells it.
        for failure in error.worker_failures.values():
            cause = failure.__cause__ or failure
            if isinstance(cause, ArithmeticError | ValueError):
                raise cause from error
        raise


class _ReportToTune(TuneReportCallback):
    """Passes rank 0's metrics on to the Tune trial that started these workers."""

    def __init__(self, message: TuneMessage) -> None:
        super().__init__()
        self._message = message

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any
    ) -> None:
        message = self._message(metrics[0])
        if message is not None:
            super().after_report(run_context, [message], None)


def _train_loop(loop_config: dict[str, Any]) -> None:
    torch.set_num_threads(loop_config["num_threads"])
    context = ray.train.get_context()
    worker = Worker(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        device=ray.train.torch.get_device(),
    )
    loop_config["job"].run(worker, ray.train.report)


def read_metrics(folder: Path) -> list[Metrics]:
    """The epochs a folder's training has finished."""
    path = folder / METRICS_NAME
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _write_metrics(folder: Path, history: list[Metrics]) -> None:
    lines = "".join(json.dumps(metrics) + "\n" for metrics in history)
    write_whole(folder / METRICS_NAME, lines)
