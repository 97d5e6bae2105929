"""Does pre-training help on real sound? Five seeds, five folds, paired with the same encoder from
scratch.

    python tests/benchmarks/pretraining_helps.py --data SHARDS --out FOLDER

SHARDS is what `asit data prepare esc50` made of the ESC-10 subset of ESC-50. For every seed and
fold the encoder is pre-trained on the other four folds; then that encoder and an untrained one with
the same initial weights are fine-tuned on those four folds and scored on the one left out, and both
are probed frozen, beside log-mel statistics. A cell (seed, fold) that is finished is not run again.
The interval is over seeds, with folds
averaged: five folds are not five seeds.

The settings below were fixed on seed 100, which is not reported. Seeds 0 to 4 were spent on earlier
settings (two views, 800 steps; README tells what they gave), so these run on seeds of their own.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import ray
import torch

from asit_core.classifier import FinetuneConfig
from asit_core.encoder import SpectrogramEncoder
from asit_core.optim import OptimizerConfig
from asit_core.presets import create_config
from asit_core.pretext.reconstruction import ReconstructionConfig
from asit_core.pretrainer import PretextConfig, PretrainConfig, Pretrainer
from asit_core.probe import accuracy, knn, linear_probe
from asit_core.views import ViewsConfig
from asit_platform.analysis.statistics import mean_interval, paired_interval
from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.stream import ClipSource, ClipStream, read_all
from asit_platform.training.features import ClipVectors, encode, statistics_vectors
from asit_platform.training.finetune import finetune, predict
from asit_platform.training.worker import Metrics, Normalization, pretrain
from asit_platform.whole_files import write_whole

EPOCHS = 200  # of ten steps: 2,000 steps of 32 clips in one view
FINETUNE = FinetuneConfig(epochs=60, lr=3e-4, roll_probability=1.0)


def pretraining() -> PretrainConfig:
    """ASiT at nano with masked reconstruction alone."""
    nano = create_config("asit", size="nano")
    return dataclasses.replace(
        nano,
        views=ViewsConfig(num_views=1, crop_frames=128),
        pretext=PretextConfig(
            reconstruction=ReconstructionConfig(weight=1.0, hidden_dim=192, bottleneck_dim=64)
        ),
        optimizer=OptimizerConfig(
            lr_per_256=8e-3,
            warmup_ratio=0.05,
            weight_decay=0.05,
            final_weight_decay=0.05,
            beta2=0.95,
        ),
        epochs=EPOCHS,
    )


def run_cell(source: ClipSource, *, seed: int, fold: int, folder: Path) -> dict[str, float]:
    """One seed with one fold left out of everything but the scores."""
    started = time.perf_counter()
    config, info = pretraining(), source.info
    train_folds = tuple(f for f in info.folds if f != fold)
    normalization = Normalization(*info.mean_std(train_folds))
    stream = ClipStream(
        source,
        folds=train_folds,
        seed=seed,
        batch_size=config.batch_size,
        donor_group=config.donor_group,
    )
    trained = pretrain(
        config,
        seed=seed,
        stream=stream,
        normalization=normalization,
        folder=folder,
        evaluate=lambda _model, _epoch: {},
        report=_print_progress(seed, fold),
    ).encoder
    pretrain_s = time.perf_counter() - started
    untrained = Pretrainer(config, seed=seed).encoder
    crop_frames = config.views.crop_frames

    def finetuned(encoder: SpectrogramEncoder) -> float:
        classifier = finetune(
            encoder,
            FINETUNE,
            seed=seed,
            source=source,
            folds=train_folds,
            num_classes=info.num_labels,
            normalization=normalization,
            crop_frames=crop_frames,
        )
        _, scores, labels = predict(
            classifier,
            source=source,
            folds=(fold,),
            normalization=normalization,
            crop_frames=crop_frames,
        )
        return accuracy(scores, labels)

    def vectors(encoder: SpectrogramEncoder) -> ClipVectors:
        return encode(
            encoder,
            read_all(source, info.folds),
            normalization=normalization,
            crop_frames=crop_frames,
            features="mean",
        )

    results = {
        "finetune/pretrained": finetuned(trained),
        "finetune/scratch": finetuned(untrained),
    }
    for name, clips in {
        "pretrained": vectors(trained),
        "untrained": vectors(untrained),
        "log_mel_statistics": statistics_vectors(read_all(source, info.folds)),
    }.items():
        results |= _probes(name, clips, train_folds, fold, info, seed)
    results |= {"pretrain_s": pretrain_s, "total_s": time.perf_counter() - started}
    return results


def _probes(
    name: str,
    clips: ClipVectors,
    train_folds: tuple[int, ...],
    fold: int,
    info: DatasetInfo,
    seed: int,
) -> Metrics:
    train, test = clips.of_folds(train_folds), clips.of_folds([fold])
    recording = dict(
        zip(*(info.clips()[column].to_pylist() for column in ("clip_id", "source")), strict=True)
    )
    common = {"num_classes": info.num_labels}
    linear = linear_probe(
        train.vector_ND,
        train.label_N,
        test.vector_ND,
        group_N=[recording[clip_id] for clip_id in train.clip_ids],
        seed=seed,
        **common,
    )
    neighbours = knn(train.vector_ND, train.label_N, test.vector_ND, **common)
    return {
        f"linear/{name}": accuracy(linear.scores_MC, test.label_N),
        f"knn/{name}": accuracy(neighbours, test.label_N),
    }


def _print_progress(seed: int, fold: int):
    def report(metrics: Metrics) -> None:
        if metrics["epoch"] % 50 == 0:
            loss, epoch = metrics["loss/reconstruction"], int(metrics["epoch"])
            print(f"seed {seed} fold {fold} epoch {epoch}: {loss:.4f}", flush=True)  # noqa: T201

    return report


@ray.remote(num_cpus=1)
def _cell_task(source: ClipSource, seed: int, fold: int, out: Path) -> None:
    torch.set_num_threads(1)
    folder = out / f"seed{seed}-fold{fold}"
    numbers = run_cell(source, seed=seed, fold=fold, folder=folder)
    results = {"settings": settings(source), **numbers}
    write_whole(folder / "cell.json", json.dumps(results))


def settings(source: ClipSource) -> str:
    """What a cell's numbers depend on beside seed and fold."""
    return f"{pretraining()} {FINETUNE} {source.info.fingerprint}"


def _is_finished(path: Path, wanted: str) -> bool:
    """Whether a cell is there; one made with other settings is refused, not mixed in."""
    if not path.exists():
        return False
    if json.loads(path.read_text())["settings"] != wanted:
        raise SystemExit(f"error: {path} was made with other settings or data; change --out")
    return True


def summarize(out: Path, seeds: list[int], folds: tuple[int, ...]) -> dict[str, object]:
    """Each row's mean over seeds with its interval, and the paired differences."""
    cells = {
        seed: [json.loads((out / f"seed{seed}-fold{f}" / "cell.json").read_text()) for f in folds]
        for seed in seeds
    }
    rows = [name for name in cells[seeds[0]][0] if "/" in name]
    by_seed = {
        row: [sum(cell[row] for cell in cells[seed]) / len(folds) for seed in seeds] for row in rows
    }
    pairs = [
        ("finetune/pretrained", "finetune/scratch"),
        ("linear/pretrained", "linear/untrained"),
        ("linear/pretrained", "linear/log_mel_statistics"),
        ("knn/pretrained", "knn/untrained"),
        ("knn/pretrained", "knn/log_mel_statistics"),
    ]
    differences = {}
    if len(seeds) > 1:
        differences = {
            f"{a} - {b}": paired_interval(by_seed[a], by_seed[b])._asdict() for a, b in pairs
        }
    return {
        "seeds": seeds,
        "folds": list(folds),
        "rows": {
            row: {
                "by_seed": values,
                "interval": mean_interval(values)._asdict() if len(values) > 1 else None,
            }
            for row, values in by_seed.items()
        },
        "differences": differences,
        "core_hours": sum(c["total_s"] for cs in cells.values() for c in cs) / 3600,
    }


def main() -> None:
    """Run what is missing, then print the table as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 6, 7, 8, 9])
    parser.add_argument("--folds", type=int, nargs="+")
    parser.add_argument("--cpus", type=int, default=2)
    arguments = parser.parse_args()
    ray.init(address="local", num_cpus=arguments.cpus, include_dashboard=False)
    source = ClipSource.open(arguments.data)
    folds = tuple(arguments.folds or source.info.folds)
    out = arguments.out.resolve()
    todo = [
        (seed, fold)
        for seed in arguments.seeds
        for fold in folds
        if not _is_finished(out / f"seed{seed}-fold{fold}" / "cell.json", settings(source))
    ]
    ray.get([_cell_task.remote(source, seed, fold, out) for seed, fold in todo])
    summary = summarize(out, arguments.seeds, folds)
    (out / "summary.json").write_text(json.dumps(summary, indent=2))
    print(json.dumps(summary, indent=2))  # noqa: T201
    ray.shutdown()


if __name__ == "__main__":
    main()
