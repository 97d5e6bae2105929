"""The pre-training loop, as every worker runs it: steps, schedules, checkpoints.

It knows nothing of Ray: `launch.py` runs it inline or in Ray Train workers, with the same numbers.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from asit_core import gauges
from asit_core.checkpoint import (
    Checkpoint,
    flatten_optimizer,
    load_checkpoint,
    restore_optimizer,
    save_checkpoint,
)
from asit_core.losses import mean_over_workers
from asit_core.optim import clip_gradients, make_optimizer, schedule_optimizer
from asit_core.precision import autocast, autocast_dtype
from asit_core.pretext.clip_distillation import ClipDistillation
from asit_core.pretext.patch_distillation import PatchDistillation
from asit_core.pretrain_inputs import draw_inputs
from asit_core.pretrainer import PretrainConfig, Pretrainer, PretrainInputs, StepReport
from asit_core.schedules import cosine, linear_ramp
from asit_platform.data.stream import ClipBatch

CHECKPOINT_NAME = "checkpoint.safetensors"

Metrics = dict[str, float]


class TrainingStream(Protocol):
    """What the loop needs of a `ClipStream`."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        ...

    def epoch(self, epoch: int) -> Iterator[ClipBatch]:
        """This worker's batches."""
        ...


class Normalization(NamedTuple):
    """Log-mel statistics of the clips trained on."""

    mean: float
    std: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Worker:
    """Where this process stands among its peers."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))


class NonFiniteLossError(ArithmeticError):
    """The loss is NaN or infinite: training cannot go on."""


def pretrain(
    config: PretrainConfig,
    *,
    seed: int,
    stream: TrainingStream,
    normalization: Normalization,
    folder: Path,
    evaluate: Callable[[Pretrainer, int], Metrics],
    report: Callable[[Metrics], None],
    worker: Worker | None = None,
    front_end: Mapping[str, Any] | None = None,
) -> Pretrainer:
    """Pre-train, from the folder's checkpoint if it has one.

    Args:
        config: What to train.
        seed: Decides initial weights and every draw.
        stream: This worker's batches.
        normalization: Statistics of the training clips.
        folder: Holds the checkpoint; all workers must see it.
        evaluate: Metrics of the model after an epoch (1-based), called on rank 0 alone.
        report: Given the metrics of every epoch in order, past ones again after a resume. Called on
            every rank, since Ray Train waits for all of them; only rank 0 has `evaluate`'s.
        worker: This process; one worker on the CPU by default.
        front_end: What the log-mels were made with, for whoever opens the checkpoint.

    Returns:
        The trained model, on every rank.

    Raises:
        NonFiniteLossError: If an epoch's mean loss is not finite; names epoch and task.
    """
    worker = worker or Worker()
    run = _Run(
        config,
        seed=seed,
        stream=stream,
        normalization=normalization,
        worker=worker,
        front_end=front_end,
    )
    path = folder / CHECKPOINT_NAME
    history: list[Metrics] = run.restore(path) if path.exists() else []
    for metrics in history:
        report(metrics)
    for epoch in range(len(history), config.epochs):
        metrics = {"epoch": float(epoch + 1), **run.train_epoch(epoch)}
        if worker.rank == 0:
            started = time.perf_counter()
            metrics |= evaluate(run.pretrainer, epoch + 1)
            metrics["evaluate_s"] = time.perf_counter() - started
            metrics |= _note_collapse(metrics, config, folder)
            history.append(metrics)
            save_checkpoint(path, run.checkpoint(history))
        report(metrics)
    return run.pretrainer


def _note_collapse(metrics: Metrics, config: PretrainConfig, folder: Path) -> Metrics:
    """Judge an evaluated epoch; a collapse is named in collapse.txt and flagged in the metrics."""
    if "gauge/embedding_std" not in metrics:
        return {}
    tasks = {
        "clip_distillation": config.pretext.clip_distillation,
        "patch_distillation": config.pretext.patch_distillation,
    }
    judge = partial(
        gauges.collapse_reason,
        embedding_std=metrics["gauge/embedding_std"],
        effective_rank=metrics["gauge/effective_rank"],
        embed_dim=config.encoder.embed_dim,
        num_clips=int(metrics["gauge/num_clips"]),
    )
    reasons = {judge()} | {
        judge(
            teacher_entropy=metrics[f"gauge/teacher_entropy/{name}"],
            marginal_entropy=metrics[f"gauge/marginal_entropy/{name}"],
            num_prototypes=task.num_prototypes,
            student_entropy=metrics[f"gauge/student_entropy/{name}"],
            loss=metrics[f"loss/{name}"],
        )
        for name, task in tasks.items()
        if task is not None
    }
    named = sorted(reason for reason in reasons if reason is not None)
    if named:
        with (folder / "collapse.txt").open("a") as file:
            file.writelines(f"epoch {metrics['epoch']:.0f}: {reason}\n" for reason in named)
    return {"gauge/collapsed": float(bool(named))}


class _Run:
    """Model, optimizer and position of one worker."""

    def __init__(
        self,
        config: PretrainConfig,
        *,
        seed: int,
        stream: TrainingStream,
        normalization: Normalization,
        worker: Worker,
        front_end: Mapping[str, Any] | None,
    ) -> None:
        self.config, self.seed, self.stream = config, seed, stream
        self.normalization, self.worker, self.front_end = normalization, worker, front_end
        self.total_steps = config.epochs * stream.steps_per_epoch
        self.pretrainer = Pretrainer(config, seed=seed).to(worker.device)
        self.trainable = [p for p in self.pretrainer.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(self.pretrainer, config.optimizer)
        self.dtype = autocast_dtype(config.precision, worker.device)
        self.centers: dict[str, Tensor] = {}  # as the last step's losses used them
        self.model: nn.Module = self.pretrainer
        if worker.world_size > 1:
            self.model = DistributedDataParallel(self.pretrainer, broadcast_buffers=False)

    def train_epoch(self, epoch: int) -> Metrics:
        """One pass over the stream; means of the losses over all steps and workers."""
        started = time.perf_counter()
        sums: dict[str, Tensor] = {}
        step = epoch * self.stream.steps_per_epoch
        report, learning_rate = None, 0.0
        for batch in self.stream.epoch(epoch):
            report, learning_rate = self.step(batch, epoch=epoch, step=step)
            losses = {"total": report.total, **report.losses}
            named = {f"loss/{name}": loss for name, loss in losses.items()}
            named |= {f"pretext/{name}": value for name, value in report.metrics.items()}
            for name, value in named.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach()
            step += 1
        assert report is not None, "a stream has at least one step"
        means = {
            name: mean_over_workers(value / self.stream.steps_per_epoch).item()
            for name, value in sums.items()
        }
        for name, value in means.items():
            if not torch.isfinite(torch.tensor(value)):
                raise NonFiniteLossError(f"{name} is {value} in epoch {epoch + 1}")
        return {
            **means,
            **self._gauges(report, step),
            "lr": learning_rate,
            "epoch_s": time.perf_counter() - started,
        }

    def step(self, batch: ClipBatch, *, epoch: int, step: int) -> tuple[StepReport, float]:
        """One optimizer step; returns its losses and learning rate."""
        config = self.config
        inputs = self.inputs(batch, epoch)
        with autocast(self.worker.device, self.dtype):
            report: StepReport = self.model(
                inputs, teacher_temperature=self.teacher_temperature(step)
            )
        self.optimizer.zero_grad(set_to_none=True)
        report.total.backward()
        if step < round(config.optimizer.freeze_last_layer_ratio * self.total_steps):
            for layer in self.pretrainer.student.prototypes():
                layer.zero_grad(set_to_none=True)
        clip_gradients(self.trainable, config.optimizer)
        learning_rate = schedule_optimizer(
            self.optimizer,
            config.optimizer,
            step=step,
            total_steps=self.total_steps,
            batch_size=config.batch_size,
        )
        self.optimizer.step()
        self.centers = {name: task.center.value_K.clone() for name, task in self._distillation()}
        self.pretrainer.after_step(report.teacher_logits, momentum=self.momentum(step))
        return report, learning_rate

    def inputs(self, batch: ClipBatch, epoch: int) -> PretrainInputs:
        """Views, corruption and masks of this worker's batch."""
        return draw_inputs(
            self.config,
            batch.log_mel_BTF.to(self.worker.device),
            batch.num_frames_B,
            batch.clip_ids,
            **self.normalization._asdict(),
            seed=self.seed,
            epoch=epoch,
        )

    def momentum(self, step: int) -> float | None:
        """Momentum of the teacher in this step; None without one."""
        teacher = self.config.teacher
        if self.pretrainer.teacher is None or teacher is None:
            return None
        return cosine(
            step,
            base=teacher.momentum,
            final=teacher.final_momentum,
            total_steps=self.total_steps,
        )

    def teacher_temperature(self, step: int) -> float | None:
        """Temperature of this step, ramped by step or, as released, by epoch; None: no teacher."""
        teacher = self.config.teacher
        if self.pretrainer.teacher is None or teacher is None:
            return None
        length = self.total_steps
        if teacher.temperature_per_epoch:
            step, length = step // self.stream.steps_per_epoch, self.config.epochs
        return linear_ramp(
            step,
            start=teacher.warmup_temperature,
            end=teacher.temperature,
            ramp_steps=round(teacher.temperature_warmup_ratio * length),
        )

    def _distillation(self) -> Iterator[tuple[str, ClipDistillation | PatchDistillation]]:
        """The distillation tasks present, by name."""
        if self.pretrainer.clip_distillation is not None:
            yield "clip_distillation", self.pretrainer.clip_distillation
        if self.pretrainer.patch_distillation is not None:
            yield "patch_distillation", self.pretrainer.patch_distillation

    def _gauges(self, report: StepReport, step: int) -> Metrics:
        """Entropies and divergence (nats), prototype use and centre of this worker's last batch.

        Over all rows, also where the loss counts the tokens of corrupted patches alone.
        """
        metrics: Metrics = {}
        temperature = self.teacher_temperature(step - 1)
        if temperature is None:
            return metrics
        for name, center_K in self.centers.items():
            student, teacher = report.student_logits[name], report.teacher_logits[name]
            found = gauges.distillation_gauges(
                student,
                teacher.flip(0) if name == "clip_distillation" else teacher,
                center_K,
                student_temperature=self.config.student_temperature,
                teacher_temperature=temperature,
            )
            metrics |= {f"gauge/{gauge}/{name}": value.item() for gauge, value in found.items()}
        return metrics

    def checkpoint(self, history: list[Metrics]) -> Checkpoint:
        """Everything a resumed run needs; draws are keyed, so no generator is saved."""
        model = {f"model.{name}": value for name, value in self.pretrainer.state_dict().items()}
        return Checkpoint(
            {**model, **flatten_optimizer(self.optimizer)},
            {
                "kind": "pretrain",
                "seed": self.seed,
                # As JSON gives it back, tuples and all.
                "config": json.loads(json.dumps(dataclasses.asdict(self.config))),
                "normalization": self.normalization._asdict(),
                "front_end": None if self.front_end is None else dict(self.front_end),
                "history": history,
            },
        )

    def restore(self, path: Path) -> list[Metrics]:
        """Load a checkpoint of this very run; returns the metrics of its epochs."""
        checkpoint = load_checkpoint(path, device=self.worker.device)
        ours = self.checkpoint([]).meta
        if any(checkpoint.meta[name] != ours[name] for name in ("config", "seed", "normalization")):
            raise ValueError(
                f"{path}: must be a checkpoint of this configuration, seed and data, but is of "
                "another; choose another folder or remove the file"
            )
        model = {
            name.removeprefix("model."): value
            for name, value in checkpoint.tensors.items()
            if name.startswith("model.")
        }
        self.pretrainer.load_state_dict(model)
        restore_optimizer(self.optimizer, checkpoint.tensors)
        return checkpoint.meta["history"]
