"""One configuration with one seed: pre-train, probe frozen features, write it all down.

A trial's folder holds config.yaml, environment.json, metrics.jsonl (one line an epoch),
predictions/ (one Parquet file per evaluation: clip id, fold, label, scores), pictures.npz,
cost.json and the checkpoint. A trial whose process died goes on from its checkpoint when it is run
again in the same folder.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from asit_core import gauges
from asit_core.precision import autocast_dtype
from asit_core.pretrainer import Pretrainer
from asit_core.probe import ProbeConfig, accuracy, knn, linear_probe
from asit_platform.cluster import ResourceSpec
from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.stream import ClipSource, read_all
from asit_platform.sections import SplitSpec
from asit_platform.study.trial_files import (
    write_config,
    write_cost,
    write_environment,
    write_pictures,
    write_predictions,
)
from asit_platform.training.features import ClipVectors, encode, statistics_vectors
from asit_platform.training.launch import PretrainJob, TuneMessage, inline_device, launch
from asit_platform.training.worker import Metrics, Normalization
from asit_platform.trial_config import TrialConfig

EvaluateOn = Literal["select", "test"]


def pretrain_folds(split: SplitSpec, *, transductive: bool) -> tuple[int, ...]:
    """Folds whose clips are pre-trained on, without their labels."""
    return (*split.train, split.test) if transductive else split.train


def run_trial(
    config: TrialConfig,
    *,
    seed: int,
    split: SplitSpec,
    evaluate_on: EvaluateOn,
    source: ClipSource,
    info: DatasetInfo,
    folder: Path,
    resources: ResourceSpec,
    report: Callable[[Metrics], None],
    transductive: bool = False,
    tune_message: TuneMessage | None = None,
) -> Metrics:
    """Pre-train and probe.

    Args:
        config: Resolved configuration.
        seed: Decides initial weights and every draw.
        split: Which folds train, select and test.
        evaluate_on: `select` probes every few epochs on the selection fold; `test` probes once, at
            the end.
        source: The clips.
        info: The data set.
        folder: Of this trial; made if missing, continued if not.
        resources: What the trial may use.
        report: Given each epoch's metrics in order, past ones again after a resume.
        transductive: Whether the test fold's clips, without labels, are pre-trained on.
        tune_message: For a Tune trial with several workers: what Tune is told of an epoch.

    Returns:
        The last epoch's metrics.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_config(
        folder,
        config,
        seed=seed,
        split=split,
        transductive=transductive,
        evaluate_on=evaluate_on,
    )
    write_environment(folder, info)
    folds = pretrain_folds(split, transductive=transductive)
    normalization = _normalization(config, info, folds)
    job = PretrainJob(
        config=config.pretrain,
        seed=seed,
        source=source,
        folds=folds,
        normalization=normalization,
        folder=folder,
        evaluate=Evaluation(
            config=config,
            seed=seed,
            split=split,
            evaluate_on=evaluate_on,
            source=source,
            info=info,
            folder=folder,
            normalization=normalization,
        ),
    )
    history = launch(job, resources, report, tune_message=tune_message)
    write_cost(folder, history, resources, num_clips=len(info.clips(folds)))
    return history[-1]


def _normalization(config: TrialConfig, info: DatasetInfo, folds: tuple[int, ...]) -> Normalization:
    """The statistics that the configuration gives, or those of the clips pre-trained on."""
    given = config.pretrain.normalization
    return Normalization(given.mean, given.std) if given else Normalization(*info.mean_std(folds))


def run_untrained(
    config: TrialConfig,
    *,
    seed: int,
    split: SplitSpec,
    evaluate_on: EvaluateOn,
    source: ClipSource,
    info: DatasetInfo,
    folder: Path,
    resources: ResourceSpec,
    transductive: bool = False,
) -> Metrics:
    """The same encoder with its initial weights: what pre-training has to beat."""
    folder.mkdir(parents=True, exist_ok=True)
    write_config(
        folder,
        config,
        seed=seed,
        split=split,
        transductive=transductive,
        evaluate_on=evaluate_on,
    )
    write_environment(folder, info)
    evaluation = Evaluation(
        config=config,
        seed=seed,
        split=split,
        evaluate_on=evaluate_on,
        source=source,
        info=info,
        folder=folder,
        normalization=_normalization(
            config, info, pretrain_folds(split, transductive=transductive)
        ),
    )
    pretrainer = Pretrainer(config.pretrain, seed=seed).to(inline_device(resources))
    return evaluation.probe(pretrainer, name="untrained")


def run_log_mel_statistics(
    *,
    split: SplitSpec,
    evaluate_on: EvaluateOn,
    source: ClipSource,
    info: DatasetInfo,
    folder: Path,
    probe: ProbeConfig,
) -> Metrics:
    """Mean and deviation per mel bin under the same probe: no network at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_environment(folder, info)
    held_out = getattr(split, evaluate_on)
    clips = statistics_vectors(read_all(source, (*split.train, held_out)))
    return _probe(
        clips, probe, info=info, split=split, held_out=held_out, seed=0, folder=folder, name="probe"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics of a model after an epoch; sent to the worker that trains."""

    config: TrialConfig
    seed: int
    split: SplitSpec
    evaluate_on: EvaluateOn
    source: ClipSource
    info: DatasetInfo
    folder: Path
    normalization: Normalization

    def __call__(self, pretrainer: Pretrainer, epoch: int) -> Metrics:
        """Probe where it is due; the last epoch also leaves pictures for the report."""
        last = epoch == self.config.pretrain.epochs
        if last and self.evaluate_on == "select":
            clips = read_all(self.source, (self.split.select,))
            write_pictures(
                self.folder,
                pretrainer,
                clips,
                normalization=self.normalization,
                seed=self.seed,
                hop_ms=self.info.front_end["hop_ms"],
            )
        due = epoch % self.config.probe.every_epochs == 0 and self.evaluate_on == "select"
        return self.probe(pretrainer, name=f"epoch_{epoch:04d}") if due or last else {}

    def probe(self, pretrainer: Pretrainer, *, name: str) -> Metrics:
        """Score frozen features of the training folds and the held-out one; add gauges."""
        encoder, held_out = pretrainer.encoder, getattr(self.split, self.evaluate_on)
        config = self.config.pretrain
        clips = encode(
            encoder,
            read_all(self.source, (*self.split.train, held_out)),
            normalization=self.normalization,
            crop_frames=config.views.crop_frames,
            features=self.config.probe.features,
            dtype=autocast_dtype(config.precision, encoder.cls_token.device),
        )
        metrics = _probe(
            clips,
            self.config.probe,
            info=self.info,
            split=self.split,
            held_out=held_out,
            seed=self.seed,
            folder=self.folder,
            name=name,
        )
        return metrics | {
            "gauge/embedding_std": gauges.embedding_std(clips.vector_ND).item(),
            "gauge/effective_rank": gauges.effective_rank(clips.vector_ND).item(),
            "gauge/num_clips": float(len(clips.clip_ids)),
        }


def _probe(
    clips: ClipVectors,
    probe: ProbeConfig,
    *,
    info: DatasetInfo,
    split: SplitSpec,
    held_out: int,
    seed: int,
    folder: Path,
    name: str,
) -> Metrics:
    train, test = clips.of_folds(split.train), clips.of_folds([held_out])
    recordings = info.clips(split.train)
    recording = dict(
        zip(recordings["clip_id"].to_pylist(), recordings["source"].to_pylist(), strict=True)
    )
    neighbours_MC = knn(
        train.vector_ND,
        train.label_N,
        test.vector_ND,
        num_classes=info.num_labels,
        k=min(probe.k, len(train.clip_ids)),
    )
    scores_MC = neighbours_MC
    if probe.kind == "linear":
        scores_MC = linear_probe(
            train.vector_ND,
            train.label_N,
            test.vector_ND,
            num_classes=info.num_labels,
            group_N=[recording[clip_id] for clip_id in train.clip_ids],
            seed=seed,
        ).scores_MC
    write_predictions(folder, name, test, scores_MC)
    return {
        "probe/accuracy": accuracy(scores_MC, test.label_N),
        "probe/knn_accuracy": accuracy(neighbours_MC, test.label_N),
    }
