"""Real trials of a tiny model on a tiny set: what they leave, and which clips they may touch."""

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import asit_core
from asit_core.checkpoint import load_checkpoint
from asit_core.encoder import EncoderConfig
from asit_core.presets import create_config
from asit_core.pretext.clip_distillation import ClipDistillationConfig
from asit_core.pretext.patch_distillation import PatchDistillationConfig
from asit_core.pretext.reconstruction import ReconstructionConfig
from asit_core.pretrain_config import NormalizationConfig
from asit_core.pretrainer import PretextConfig
from asit_core.probe import ProbeConfig
from asit_core.token_masking import TokenMaskingConfig
from asit_core.views import ViewsConfig
from asit_platform.cluster import ResourceSpec
from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.stream import ClipSource
from asit_platform.errors import PlatformError
from asit_platform.sections import SplitSpec
from asit_platform.study.trial import run_log_mel_statistics, run_trial, run_untrained
from asit_platform.training.worker import CHECKPOINT_NAME, Metrics
from asit_platform.trial_config import TrialConfig
from asit_platform.validation import validate
from asit_platform.yaml_file import read_yaml

pytestmark = pytest.mark.ray

SPLIT = SplitSpec()
RECONSTRUCTION = ReconstructionConfig(hidden_dim=16, bottleneck_dim=8)
CONFIG = TrialConfig(
    pretrain=dataclasses.replace(
        create_config("asit", size="nano"),
        encoder=EncoderConfig(embed_dim=24, depth=1, num_heads=2, input_bins=16),
        views=ViewsConfig(crop_frames=32),
        pretext=PretextConfig(
            reconstruction=RECONSTRUCTION,
            patch_distillation=PatchDistillationConfig(num_prototypes=12),
            clip_distillation=ClipDistillationConfig(num_prototypes=16),
        ),
        epochs=2,
        batch_size=16,
        donor_group=8,
        precision="fp32",
    ),
    probe=ProbeConfig(k=5),
)


class Finished(NamedTuple):
    """A trial that ran."""

    folder: Path
    reports: list[Metrics]
    last: Metrics


def _with_pretrain(**changes: object) -> TrialConfig:
    pretrain = dataclasses.replace(CONFIG.pretrain, **changes)  # pyright: ignore[reportArgumentType]
    return dataclasses.replace(CONFIG, pretrain=pretrain)


def _run(folder: Path, source: ClipSource, config: TrialConfig = CONFIG, **changes) -> Finished:
    reports: list[Metrics] = []
    options = {"seed": 3, "split": SPLIT, "evaluate_on": "select", **changes}
    last = run_trial(
        config,
        source=source,
        info=source.info,
        folder=folder,
        resources=ResourceSpec(),
        report=reports.append,
        **options,
    )
    return Finished(folder, reports, last)


def _predictions(folder: Path, name: str, source: ClipSource) -> tuple[set[str], float]:
    """Clip ids and accuracy of a file of predictions, whose rows are checked here."""
    table = pq.read_table(folder / "predictions" / f"{name}.parquet")
    assert table.column_names == ["clip_id", "fold", "label", "scores"]
    manifest = {row["clip_id"]: row for row in source.info.clips().to_pylist()}
    rows = table.to_pylist()
    for row in rows:
        assert (row["fold"], [row["label"]]) == tuple(
            manifest[row["clip_id"]][name] for name in ("fold", "labels")
        )
    scores = np.array([row["scores"] for row in rows])
    assert scores.shape == (len(rows), source.info.num_labels)
    # Written as float32.
    np.testing.assert_allclose(scores.sum(axis=1), 1.0, atol=1e-6)
    clip_ids = [row["clip_id"] for row in rows]
    assert len(set(clip_ids)) == len(clip_ids)
    labels = np.array([row["label"] for row in rows])
    return set(clip_ids), float((scores.argmax(axis=1) == labels).mean())


def _ids(info: DatasetInfo, *folds: int) -> set[str]:
    return set(info.clips(folds)["clip_id"].to_pylist())


def _normalization(folder: Path) -> tuple[float, float]:
    values = load_checkpoint(folder / CHECKPOINT_NAME).meta["normalization"]
    return values["mean"], values["std"]


@pytest.fixture(scope="module")
def everything(local_ray: None, tiny_data: Path) -> ClipSource:
    return ClipSource.open(tiny_data)


@pytest.fixture(scope="module")
def without_test(local_ray: None, tiny_data: Path) -> ClipSource:
    """What the search opens: a clip of the test fold cannot be had from it."""
    return ClipSource.open(tiny_data, (*SPLIT.train, SPLIT.select))


@pytest.fixture(scope="module")
def selected(without_test: ClipSource, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return _run(tmp_path_factory.mktemp("trials") / "0000", without_test)


@pytest.fixture(scope="module")
def tested(everything: ClipSource, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return _run(tmp_path_factory.mktemp("result") / "seed0", everything, evaluate_on="test")


def test_a_trial_reports_every_epoch_and_returns_the_last(selected):
    assert [metrics["epoch"] for metrics in selected.reports] == [1.0, 2.0]
    assert selected.last == selected.reports[-1]
    for metrics in selected.reports:
        assert metrics.keys() >= {
            "probe/accuracy",
            "probe/knn_accuracy",
            "loss/total",
            "gauge/embedding_std",
            "gauge/effective_rank",
            "gauge/num_clips",
            "gauge/collapsed",
        }
    lines = (selected.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == selected.reports


def test_the_configuration_left_behind_loads_back(selected):
    values = read_yaml(selected.folder / "config.yaml")
    assert validate(TrialConfig, values["trial"]) == CONFIG
    assert validate(SplitSpec, values["split"]) == SPLIT
    assert (values["seed"], values["evaluate_on"]) == (3, "select")


def test_the_environment_names_packages_and_data(selected, without_test):
    values = json.loads((selected.folder / "environment.json").read_text())
    assert values["packages"].keys() >= {"asit", "torch", "ray", "optuna"}
    assert values["data"]["fingerprint"] == without_test.info.fingerprint


def test_predictions_are_of_the_selection_fold_and_give_the_accuracy(selected, without_test):
    for epoch, metrics in enumerate(selected.reports, start=1):
        clip_ids, accuracy = _predictions(selected.folder, f"epoch_{epoch:04d}", without_test)
        assert clip_ids == _ids(without_test.info, SPLIT.select)
        assert accuracy == pytest.approx(metrics["probe/accuracy"])
    assert len(list((selected.folder / "predictions").iterdir())) == 2


def test_pictures_show_eight_clips_of_the_selection_fold(selected, without_test):
    with np.load(selected.folder / "pictures.npz") as pictures:
        assert pictures["hop_ms"] == without_test.info.front_end["hop_ms"]
        clip_ids = pictures["clip_id"].tolist()
        assert len(set(clip_ids)) == 8
        assert set(clip_ids) <= _ids(without_test.info, SPLIT.select)
        for name in ("input", "corrupted", "mask", "reconstructed"):
            assert pictures[name].shape == (8, 32, 16), name
        mask = pictures["mask"]
        assert mask.any(axis=(1, 2)).all()
        np.testing.assert_array_equal(pictures["corrupted"][~mask], pictures["input"][~mask])


def test_the_cost_counts_clips_and_seconds(selected):
    cost = json.loads((selected.folder / "cost.json").read_text())
    seconds = sum(metrics["epoch_s"] + metrics["evaluate_s"] for metrics in selected.reports)
    assert cost == {
        "wall_s": pytest.approx(seconds),
        "cpu_s": pytest.approx(seconds),
        "gpu_s": 0.0,
        "clips": 2 * 60,
    }


def test_normalisation_knows_the_training_folds_only(selected, tested, everything):
    train = everything.info.mean_std(SPLIT.train)
    assert _normalization(selected.folder) == train
    assert _normalization(tested.folder) == train


def test_running_a_finished_trial_again_reports_it_and_trains_nothing(selected, without_test):
    trained = [selected.folder / name for name in (CHECKPOINT_NAME, "pictures.npz")]
    trained += sorted((selected.folder / "predictions").iterdir())
    stamps = [path.stat().st_mtime_ns for path in trained]
    again = _run(selected.folder, without_test)
    assert again == selected
    assert [path.stat().st_mtime_ns for path in trained] == stamps


def test_selection_and_test_train_the_same_model(selected, tested):
    for one, other in zip(selected.reports, tested.reports, strict=True):
        assert one["loss/total"] == other["loss/total"]


def test_the_test_fold_is_measured_once_after_the_last_epoch(tested, everything):
    assert ["probe/accuracy" in metrics for metrics in tested.reports] == [False, True]
    assert [path.name for path in (tested.folder / "predictions").iterdir()] == [
        "epoch_0002.parquet"
    ]
    clip_ids, accuracy = _predictions(tested.folder, "epoch_0002", everything)
    assert clip_ids == _ids(everything.info, SPLIT.test)
    assert accuracy == pytest.approx(tested.last["probe/accuracy"])
    assert not (tested.folder / "pictures.npz").exists()


def test_the_test_fold_is_out_of_reach_of_the_search(without_test, tmp_path):
    with pytest.raises(PlatformError, match="folds must be among those opened"):
        _run(tmp_path, without_test, _with_pretrain(epochs=1), evaluate_on="test")


def test_a_transductive_trial_trains_on_the_test_folds_sounds(everything, tmp_path):
    config = _with_pretrain(epochs=1)
    trial = _run(tmp_path, everything, config, transductive=True)
    assert _normalization(tmp_path) == everything.info.mean_std((*SPLIT.train, SPLIT.test))
    assert json.loads((tmp_path / "cost.json").read_text())["clips"] == 80
    clip_ids, _ = _predictions(trial.folder, "epoch_0001", everything)
    assert clip_ids == _ids(everything.info, SPLIT.select)


def test_no_reconstruction_no_reconstructed_picture(without_test, tmp_path):
    pretext = dataclasses.replace(CONFIG.pretrain.pretext, reconstruction=None)
    _run(tmp_path, without_test, _with_pretrain(pretext=pretext, epochs=1))
    with np.load(tmp_path / "pictures.npz") as pictures:
        assert "reconstructed" not in pictures.files
        assert "corrupted" in pictures.files


def test_probes_come_every_few_epochs_and_after_the_last(without_test, tmp_path):
    probe = dataclasses.replace(CONFIG.probe, kind="knn", every_epochs=2)
    config = dataclasses.replace(_with_pretrain(epochs=3), probe=probe)
    trial = _run(tmp_path, without_test, config)
    assert ["probe/accuracy" in metrics for metrics in trial.reports] == [False, True, True]
    assert trial.last["probe/accuracy"] == trial.last["probe/knn_accuracy"]


@pytest.mark.parametrize("evaluate_on", ["select", "test"])
def test_the_untrained_encoder_is_measured_on_the_fold_asked_for(everything, tmp_path, evaluate_on):
    first, second = (
        run_untrained(
            CONFIG,
            seed=3,
            split=SPLIT,
            evaluate_on=evaluate_on,
            source=everything,
            info=everything.info,
            folder=tmp_path / name,
            resources=ResourceSpec(),
        )
        for name in ("first", "second")
    )
    assert first == second
    clip_ids, accuracy = _predictions(tmp_path / "first", "untrained", everything)
    assert clip_ids == _ids(everything.info, getattr(SPLIT, evaluate_on))
    assert accuracy == pytest.approx(first["probe/accuracy"])
    assert (tmp_path / "first" / "config.yaml").exists()
    assert not (tmp_path / "first" / CHECKPOINT_NAME).exists()


@pytest.mark.parametrize("evaluate_on", ["select", "test"])
def test_log_mel_statistics_are_measured_on_the_fold_asked_for(everything, tmp_path, evaluate_on):
    metrics = run_log_mel_statistics(
        split=SPLIT,
        evaluate_on=evaluate_on,
        source=everything,
        info=everything.info,
        folder=tmp_path,
        probe=CONFIG.probe,
    )
    clip_ids, accuracy = _predictions(tmp_path, "probe", everything)
    assert clip_ids == _ids(everything.info, getattr(SPLIT, evaluate_on))
    assert accuracy == pytest.approx(metrics["probe/accuracy"])


def test_given_statistics_normalise_and_a_checkpoint_opens_as_a_model(everything, tmp_path):
    given = NormalizationConfig(mean=-4.0, std=4.5)
    trial = _run(tmp_path, everything, _with_pretrain(epochs=1, normalization=given))
    assert _normalization(trial.folder) == (-4.0, 4.5)

    model = asit_core.load(trial.folder / CHECKPOINT_NAME)
    assert dataclasses.asdict(model.log_mel.config) == everything.info.front_end
    assert (model.mean, model.std) == (-4.0, 4.5)
    sound_S = torch.linspace(-1, 1, 16000)
    assert model.embed(sound_S, 16000).clip_vector.shape == (24,)


@pytest.mark.parametrize("preset", ["ssast_patch", "mae_ast"])
def test_token_tasks_are_pretrained_and_probed(everything, tmp_path, preset):
    nano = create_config(preset, size="nano")
    pretrain = dataclasses.replace(
        nano,
        encoder=dataclasses.replace(nano.encoder, depth=1, input_bins=16),
        views=dataclasses.replace(nano.views, crop_frames=64),
        token_masking=TokenMaskingConfig(ratio=0.5, shape="random"),
        epochs=2,
        batch_size=16,
        donor_group=8,
    )
    trial = _run(tmp_path, everything, dataclasses.replace(CONFIG, pretrain=pretrain))
    losses = {name for name in trial.last if name.startswith("loss/")}
    assert losses == {"loss/total", *(f"loss/{name}" for name in nano.pretext.present())}
    assert trial.reports[1]["loss/total"] < trial.reports[0]["loss/total"]
    assert 0.0 <= trial.last["probe/accuracy"] <= 1.0
    assert np.load(tmp_path / "pictures.npz")["mask"].any()
