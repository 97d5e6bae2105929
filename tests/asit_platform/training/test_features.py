"""Clip vectors of a frozen encoder, on clips made up here."""

import pytest
import torch

from asit_core.encoder import EncoderConfig, SpectrogramEncoder
from asit_platform.data.stream import ClipBatch
from asit_platform.training.features import ClipVectors, encode
from asit_platform.training.worker import Normalization


def _batch() -> ClipBatch:
    generator = torch.Generator().manual_seed(0)
    return ClipBatch(
        [f"clip-{number}" for number in range(4)],
        torch.randn(4, 48, 16, generator=generator).half(),
        torch.tensor([48, 40, 48, 20]),
        torch.arange(4) % 2,
        torch.tensor([1, 2, 1, 3]),
    )


@pytest.fixture(scope="module")
def encoder() -> SpectrogramEncoder:
    config = EncoderConfig(embed_dim=24, depth=1, num_heads=2, input_bins=16, drop_path_rate=0.5)
    return SpectrogramEncoder(config, input_frames=32)


def _encode(encoder: SpectrogramEncoder, features) -> ClipVectors:
    return encode(
        encoder,
        [_batch()],
        normalization=Normalization(0.0, 0.5),
        crop_frames=32,
        features=features,
    )


def test_both_is_mean_and_cls_side_by_side(encoder):
    mean, cls, both = (_encode(encoder, name).vector_ND for name in ("mean", "cls", "both"))
    assert mean.shape == cls.shape == (4, 24)
    assert not torch.equal(mean, cls)
    assert torch.equal(both, torch.cat([mean, cls], dim=1))


def test_encoding_leaves_the_encoder_in_its_mode(encoder):
    for training in (True, False):
        encoder.train(training)
        _encode(encoder, "mean")
        assert encoder.training is training


def test_clips_of_some_folds_keep_their_order(encoder):
    clips = _encode(encoder, "mean")
    chosen = clips.of_folds([3, 1])
    assert chosen.clip_ids == ["clip-0", "clip-2", "clip-3"]
    assert torch.equal(chosen.vector_ND, clips.vector_ND[[0, 2, 3]])
    assert chosen.fold_N.tolist() == [1, 1, 3]
    assert chosen.label_N.tolist() == [0, 0, 1]
