"""One loop, two ways to run it: inline and in Ray Train workers, on a real synthetic set."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch

from asit_core.checkpoint import load_checkpoint
from asit_core.decoder import DecoderConfig
from asit_core.encoder import EncoderConfig
from asit_core.presets import create_config
from asit_core.pretext.clip_distillation import ClipDistillationConfig
from asit_core.pretext.patch_distillation import PatchDistillationConfig
from asit_core.pretext.reconstruction import ReconstructionConfig
from asit_core.pretrainer import PretextConfig, PretrainConfig, Pretrainer
from asit_core.spectrogram import LogMelConfig
from asit_core.views import ViewsConfig
from asit_platform.cluster import ResourceSpec
from asit_platform.data.prepare import PrepareOptions, prepare
from asit_platform.data.stream import ClipSource
from asit_platform.data.synthetic import SyntheticConfig, write_synthetic
from asit_platform.errors import PlatformError
from asit_platform.training.launch import (
    PretrainJob,
    inline_device,
    read_metrics,
    run_distributed,
    run_inline,
)
from asit_platform.training.worker import CHECKPOINT_NAME, Metrics, Normalization

pytestmark = [pytest.mark.ray, pytest.mark.slow]

_TIMES = ("epoch_s", "evaluate_s")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClipSource]:
    # The dashboard is on, as `start_ray` has it for trials of several workers.
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=True,
        object_store_memory=200 * 2**20,
        log_to_driver=False,
    )
    folder = tmp_path_factory.mktemp("synthetic")
    listing = write_synthetic(folder / "audio", SyntheticConfig(clips_per_class=10))
    front_end = LogMelConfig(sample_rate_hz=16000)
    prepare(listing, folder, PrepareOptions(front_end=front_end))
    yield ClipSource.open(folder)
    ray.shutdown()


def _config() -> PretrainConfig:
    return dataclasses.replace(
        create_config("asit", size="nano"),
        encoder=EncoderConfig(embed_dim=24, depth=2, num_heads=2, drop_path_rate=0.2),
        views=ViewsConfig(crop_frames=64),
        pretext=PretextConfig(
            reconstruction=ReconstructionConfig(hidden_dim=16, bottleneck_dim=8),
            patch_distillation=PatchDistillationConfig(num_prototypes=12),
            clip_distillation=ClipDistillationConfig(num_prototypes=16),
        ),
        epochs=2,
        batch_size=16,
        donor_group=4,
        precision="fp32",
    )


def _evaluate(pretrainer: Pretrainer, epoch: int) -> Metrics:
    return {"norm": pretrainer.encoder.norm.weight.norm().item(), "at": float(epoch)}


def _tokens(name: str) -> PretrainConfig:
    """A preset that learns from masked tokens, as small."""
    preset = create_config(name, size="nano")
    masking, decoder = preset.token_masking, preset.decoder
    assert masking is not None
    return dataclasses.replace(
        preset,
        encoder=dataclasses.replace(preset.encoder, embed_dim=24, depth=2, num_heads=2),
        views=dataclasses.replace(preset.views, crop_frames=64),
        token_masking=dataclasses.replace(masking, num_masked=20, ratio=None),
        decoder=decoder and DecoderConfig(embed_dim=16, depth=1, num_heads=2),
        epochs=2,
        batch_size=16,
        donor_group=4,
        precision="fp32",
    )


def _uncertain() -> PretrainConfig:
    """Tokens that any pixel corrupts, and learned weights."""
    config = _config()
    return dataclasses.replace(
        config,
        loss_weights="uncertainty",
        pretext=dataclasses.replace(
            config.pretext,
            patch_distillation=PatchDistillationConfig(num_prototypes=12, tokens="any"),
        ),
    )


def _job(source: ClipSource, folder: Path, config: PretrainConfig | None = None) -> PretrainJob:
    folder.mkdir()
    return PretrainJob(
        config=config or _config(),
        seed=3,
        source=source,
        folds=(1, 2, 3),
        normalization=Normalization(*source.info.mean_std((1, 2, 3))),
        folder=folder,
        evaluate=_evaluate,
    )


def _results(folder: Path) -> tuple[dict[str, torch.Tensor], list[Metrics]]:
    metrics = [
        {name: value for name, value in epoch.items() if name not in _TIMES}
        for epoch in read_metrics(folder)
    ]
    return load_checkpoint(folder / CHECKPOINT_NAME).tensors, metrics


def test_one_worker_of_ray_train_computes_the_bits_of_an_inline_run(source, tmp_path):
    resources = ResourceSpec(cpus_per_worker=1)
    inline = _job(source, tmp_path / "inline")
    run_inline(inline, resources, lambda _metrics: None)
    trained = _job(source, tmp_path / "train")
    run_distributed(trained, resources)

    tensors, metrics = _results(inline.folder)
    other_tensors, other_metrics = _results(trained.folder)
    assert metrics == other_metrics
    assert tensors.keys() == other_tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(value, other_tensors[name]), name


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(_config(), id="asit"),
        pytest.param(_uncertain(), id="any token, uncertainty"),
        pytest.param(_tokens("ssast_patch"), id="ssast_patch"),
        pytest.param(_tokens("mae_ast"), id="mae_ast"),
    ],
)
def test_two_workers_train_what_one_trains(source, tmp_path, config):
    one = _job(source, tmp_path / "one", config)
    run_inline(one, ResourceSpec(), lambda _metrics: None)
    two = _job(source, tmp_path / "two", config)
    run_distributed(two, ResourceSpec(num_workers=2, cpus_per_worker=0.5))

    _, metrics = _results(one.folder)
    _, other_metrics = _results(two.folder)
    assert [m["epoch"] for m in other_metrics] == [1.0, 2.0]
    losses = {name for name in metrics[0] if name.startswith("loss/")}
    assert losses > {"loss/total"}
    for epoch, other_epoch in zip(metrics, other_metrics, strict=True):
        for name in (*losses, "norm"):
            # The same sums in another order, over eight optimizer steps in float32.
            assert other_epoch[name] == pytest.approx(epoch[name], rel=1e-4), name


def test_a_gpu_that_is_not_there_is_refused():
    assert inline_device(ResourceSpec()) == torch.device("cpu")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(PlatformError, match=r"gpus_per_worker must be 0 .* but got 0\.5; `asit"):
        inline_device(ResourceSpec(gpus_per_worker=0.5))
