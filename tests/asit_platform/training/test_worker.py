"""The training loop without Ray: resumption, determinism, absent tasks, bad numbers."""

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from asit_core.checkpoint import load_checkpoint
from asit_core.encoder import EncoderConfig
from asit_core.heads import ProjectionHeadConfig
from asit_core.masking import MaskingConfig
from asit_core.optim import OptimizerConfig
from asit_core.presets import create_config
from asit_core.pretext.clip_distillation import ClipDistillationConfig
from asit_core.pretext.patch_discrimination import PatchDiscriminationConfig
from asit_core.pretext.patch_distillation import PatchDistillationConfig
from asit_core.pretext.patch_regression import PatchRegressionConfig
from asit_core.pretext.reconstruction import ReconstructionConfig
from asit_core.pretrainer import PretextConfig, PretrainConfig, Pretrainer
from asit_core.seeding import stream
from asit_core.teacher import TeacherConfig
from asit_core.token_masking import TokenMaskingConfig
from asit_core.views import ViewsConfig
from asit_platform.data.stream import ClipBatch
from asit_platform.training.worker import (
    CHECKPOINT_NAME,
    Metrics,
    NonFiniteLossError,
    Normalization,
    pretrain,
)

CONFIG = PretrainConfig(
    encoder=EncoderConfig(embed_dim=24, depth=2, num_heads=2, input_bins=32, drop_path_rate=0.2),
    views=ViewsConfig(crop_frames=48),
    masking=MaskingConfig(),
    pretext=PretextConfig(
        reconstruction=ReconstructionConfig(hidden_dim=16, bottleneck_dim=8),
        patch_distillation=PatchDistillationConfig(num_prototypes=12),
        clip_distillation=ClipDistillationConfig(num_prototypes=16),
    ),
    projection_head=ProjectionHeadConfig(hidden_dim=16, bottleneck_dim=8),
    teacher=TeacherConfig(momentum=0.9),
    optimizer=OptimizerConfig(lr_per_256=0.05, freeze_last_layer_ratio=0.2),
    epochs=4,
    batch_size=8,
    donor_group=4,
)
# SSAST's way: no teacher, no corrupted pixels, one view.
MASKED_TOKENS = dataclasses.replace(
    CONFIG,
    views=ViewsConfig(num_views=1, crop_frames=48),
    masking=None,
    token_masking=TokenMaskingConfig(num_masked=4, cluster_sizes=(1, 2), shared_pass=False),
    pretext=PretextConfig(
        patch_discrimination=PatchDiscriminationConfig(),
        patch_regression=PatchRegressionConfig(weight=10.0),
    ),
    projection_head=None,
    teacher=None,
    optimizer=OptimizerConfig(algorithm="adam", lr_per_256=0.05, clip_norm_of="all"),
)
_TIMES = ("epoch_s", "evaluate_s")


class NoiseStream:
    """Three batches an epoch of random log-mels that depend on the clip alone."""

    steps_per_epoch = 3

    def __init__(self, value: float | None = None) -> None:
        self.value = value

    def epoch(self, epoch: int) -> Iterator[ClipBatch]:
        order = torch.randperm(24, generator=stream(0, "test_order", epoch)).tolist()
        for start in range(0, 24, 8):
            clips = order[start : start + 8]
            log_mel = torch.stack(
                [torch.randn(60, 32, generator=stream(clip, "test_clip")) for clip in clips]
            )
            if self.value is not None:
                log_mel.fill_(self.value)
            yield ClipBatch(
                [f"clip-{clip}" for clip in clips],
                log_mel.half(),
                torch.full((8,), 60),
                torch.tensor(clips) % 3,
                torch.ones(8, dtype=torch.int64),
            )


class Killed(BaseException):
    """Stands for the end of the process."""


def _run(
    folder: Path,
    config: PretrainConfig = CONFIG,
    *,
    die_in_epoch: int | None = None,
    value: float | None = None,
) -> tuple[Pretrainer, list[Metrics]]:
    reports: list[Metrics] = []

    def evaluate(_model: Pretrainer, epoch: int) -> Metrics:
        if epoch == die_in_epoch:
            raise Killed
        return {"evaluated": float(epoch)}

    model = pretrain(
        config,
        seed=7,
        stream=NoiseStream(value),
        normalization=Normalization(0.0, 0.5),
        folder=folder,
        evaluate=evaluate,
        report=reports.append,
    )
    return model, reports


def _without_times(reports: list[Metrics]) -> list[Metrics]:
    return [{k: v for k, v in metrics.items() if k not in _TIMES} for metrics in reports]


def _assert_same_weights(a: Pretrainer, b: Pretrainer) -> None:
    states = a.state_dict(), b.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


@pytest.mark.parametrize(
    "config",
    [CONFIG, dataclasses.replace(CONFIG, loss_weights="uncertainty"), MASKED_TOKENS],
    ids=["fixed", "uncertainty", "masked tokens"],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, config):
    whole, whole_reports = _run(tmp_path / "whole", config)
    for die_in_epoch in (1, 3, 4):
        with pytest.raises(Killed):
            _run(tmp_path / "killed", config, die_in_epoch=die_in_epoch)
    resumed, resumed_reports = _run(tmp_path / "killed", config)
    _assert_same_weights(whole, resumed)
    assert _without_times(whole_reports) == _without_times(resumed_reports)
    assert [m["epoch"] for m in resumed_reports] == [1.0, 2.0, 3.0, 4.0]


def test_a_finished_run_is_reported_again_and_not_trained(tmp_path):
    first, first_reports = _run(tmp_path)
    stamp = (tmp_path / CHECKPOINT_NAME).stat().st_mtime_ns
    again, again_reports = _run(tmp_path)
    _assert_same_weights(first, again)
    assert first_reports == again_reports
    assert (tmp_path / CHECKPOINT_NAME).stat().st_mtime_ns == stamp


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path):
    _run(tmp_path)
    other = dataclasses.replace(CONFIG, student_temperature=0.2)
    with pytest.raises(
        ValueError, match="must be a checkpoint of this configuration, seed and data"
    ):
        _run(tmp_path, other)


def test_no_step_moves_the_global_generator(tmp_path):
    before = torch.get_rng_state()
    _run(tmp_path)
    assert torch.equal(before, torch.get_rng_state())


def test_losses_fall_and_are_reported_by_task(tmp_path):
    pretext = PretextConfig(reconstruction=CONFIG.pretext.reconstruction)
    config = dataclasses.replace(CONFIG, pretext=pretext, epochs=12)
    _, reports = _run(tmp_path, config)
    assert reports[-1]["loss/reconstruction"] < reports[0]["loss/reconstruction"]
    # Weight 2 in the total, unweighted alone.
    for metrics in reports:
        assert metrics["loss/total"] == pytest.approx(2 * metrics["loss/reconstruction"], rel=1e-5)
    assert not [name for name in reports[0] if "distillation" in name]


def test_without_a_teacher_there_is_nothing_of_it(tmp_path):
    trained, reports = _run(tmp_path, MASKED_TOKENS)
    assert trained.teacher is None
    for metrics in reports:
        assert set(metrics) - {"evaluated", *_TIMES} == {
            "epoch",
            "lr",
            "loss/total",
            "loss/patch_discrimination",
            "loss/patch_regression",
            "pretext/patch_discrimination/accuracy",
        }
        assert 0.0 <= metrics["pretext/patch_discrimination/accuracy"] <= 1.0
    assert reports[-1]["loss/total"] < reports[0]["loss/total"]


@pytest.mark.parametrize("tokens", ["all", "any"])
def test_gauges_of_both_networks_and_of_the_centre(tmp_path, tokens):
    """H1: what tells uniform from peaked collapse, for each distillation task, over all rows."""
    patch = PatchDistillationConfig(num_prototypes=12, tokens=tokens)
    pretext = dataclasses.replace(CONFIG.pretext, patch_distillation=patch)
    _, reports = _run(tmp_path, dataclasses.replace(CONFIG, pretext=pretext))
    for name, num_prototypes in (("clip_distillation", 16), ("patch_distillation", 12)):
        for metrics in reports:
            for network in ("teacher", "student"):
                entropy = metrics[f"gauge/{network}_entropy/{name}"]
                assert 0.0 < entropy <= math.log(num_prototypes) + 1e-6
            assert metrics[f"gauge/kl/{name}"] >= 0.0
        # The centre the last step's loss used: still zero in the first step alone.
        assert reports[-1][f"gauge/center_norm/{name}"] > 0.0


def test_the_papers_divergence_is_one_though_its_loss_counts_corrupted_tokens_alone(tmp_path):
    preset = create_config("asit_paper", size="nano")
    assert preset.pretext.patch_distillation is not None
    assert preset.pretext.patch_distillation.tokens != "all"
    encoder = dataclasses.replace(preset.encoder, input_bins=32)
    config = dataclasses.replace(preset, encoder=encoder, epochs=1, batch_size=8, donor_group=4)
    _, reports = _run(tmp_path, config)
    for metrics in reports:
        for name in ("clip_distillation", "patch_distillation"):
            assert 0.0 <= metrics[f"gauge/kl/{name}"] < math.inf


def test_the_last_layers_are_frozen_at_first_and_only_they(tmp_path):
    config = dataclasses.replace(
        CONFIG,
        epochs=1,
        optimizer=dataclasses.replace(CONFIG.optimizer, freeze_last_layer_ratio=1.0),
    )
    trained, _ = _run(tmp_path, config)
    initial = Pretrainer(config, seed=7)
    for name, value in trained.student.named_parameters():
        unchanged = torch.equal(value, dict(initial.student.named_parameters())[name])
        assert unchanged == name.endswith("prototypes.direction"), name


def test_a_loss_that_is_not_finite_ends_the_run_with_its_name(tmp_path):
    with pytest.raises(NonFiniteLossError, match=r"loss/\w+ is nan in epoch 1"):
        _run(tmp_path, value=float("nan"))
    assert not (tmp_path / CHECKPOINT_NAME).exists()


def test_the_checkpoint_says_what_it_is(tmp_path):
    _run(tmp_path)
    meta = load_checkpoint(tmp_path / CHECKPOINT_NAME).meta
    assert meta["kind"] == "pretrain"
    assert meta["config"] == json.loads(json.dumps(dataclasses.asdict(CONFIG)))
    assert len(meta["history"]) == CONFIG.epochs
