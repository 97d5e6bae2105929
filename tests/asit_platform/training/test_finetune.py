"""Fine-tuning on a set of noises that their levels tell apart."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import soundfile
import torch
from torch import Tensor

from asit_core.classifier import Classifier, FinetuneConfig
from asit_core.encoder import EncoderConfig, SpectrogramEncoder
from asit_core.seeding import numpy_stream
from asit_core.spectrogram import LogMelConfig
from asit_platform.cluster import start_ray
from asit_platform.data.listing import Clip, Listing
from asit_platform.data.prepare import PrepareOptions, prepare
from asit_platform.data.stream import ClipSource
from asit_platform.training.finetune import finetune, predict
from asit_platform.training.worker import Normalization

pytestmark = pytest.mark.ray

LEVELS = {"faint": 0.001, "loud": 0.3}
TRAIN, TEST = (1, 2, 3), (5,)


class Scores(NamedTuple):
    """What `predict` gives."""

    clip_ids: list[str]
    probability_MC: Tensor
    label_M: Tensor


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClipSource]:
    folder = tmp_path_factory.mktemp("levels")
    clips = [
        _write_clip(folder, name, label, number)
        for label, name in enumerate(LEVELS)
        for number in range(20)
    ]
    listing = Listing(
        name="levels",
        synthetic=True,
        origin={},
        label_kind="single",
        label_names=tuple(LEVELS),
        fold_names={},
        metric=None,
        recipes=(),
        warnings=(),
        clips=tuple(clips),
    )
    front_end = LogMelConfig(sample_rate_hz=16000, num_mel_bins=16)
    with start_ray(address="local", num_cpus=2, object_store_bytes=200 * 2**20):
        prepare(listing, folder / "data", PrepareOptions(front_end=front_end))
        yield ClipSource.open(folder / "data")


def _write_clip(folder: Path, name: str, label: int, number: int) -> Clip:
    path = folder / f"{name}-{number:02d}.wav"
    noise_S = numpy_stream(0, "noise", label, number).standard_normal(8000).clip(-3, 3)
    soundfile.write(path, LEVELS[name] * noise_S, 16000)
    return Clip(
        clip_id=path.stem,
        path=str(path),
        labels=(label,),
        fold=number % 5 + 1,
        source=path.stem,
    )


@pytest.fixture
def encoder() -> SpectrogramEncoder:
    config = EncoderConfig(embed_dim=24, depth=1, num_heads=2, input_bins=16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SpectrogramEncoder(config, input_frames=32)


def _finetune(encoder: SpectrogramEncoder, source: ClipSource, *, seed: int = 0) -> Classifier:
    return finetune(
        encoder,
        FinetuneConfig(epochs=2, batch_size=4, lr=5e-3, precision="fp32"),
        seed=seed,
        source=source,
        folds=TRAIN,
        num_classes=len(LEVELS),
        normalization=Normalization(*source.info.mean_std(TRAIN)),
        crop_frames=32,
    )


def _predict(classifier: Classifier, source: ClipSource) -> Scores:
    normalization = Normalization(*source.info.mean_std(TRAIN))
    return Scores(
        *predict(classifier, source=source, folds=TEST, normalization=normalization, crop_frames=32)
    )


def test_two_epochs_learn_an_easy_set_and_leave_the_encoder_alone(encoder, source):
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    classifier = _finetune(encoder, source)
    scores = _predict(classifier, source)

    assert scores.clip_ids == source.info.clips(TEST)["clip_id"].to_pylist()
    assert scores.label_M.tolist() == [
        label for (label,) in source.info.clips(TEST)["labels"].to_pylist()
    ]
    assert scores.probability_MC.shape == (8, len(LEVELS))
    # Means over windows of float32 softmaxes.
    torch.testing.assert_close(scores.probability_MC.sum(1), torch.ones(8), rtol=0, atol=1e-6)
    assert (scores.probability_MC.argmax(1) == scores.label_M).float().mean() > 0.75
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    trained = classifier.encoder.state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in trained.items())


def test_equal_seeds_give_equal_predictions(encoder, source):
    first, second, other = (
        _predict(_finetune(encoder, source, seed=seed), source).probability_MC for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
