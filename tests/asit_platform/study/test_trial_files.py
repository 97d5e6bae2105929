"""The pictures of a trial, for tasks on pixels and on tokens."""

import dataclasses

import numpy as np
import pytest
import torch

from asit_core.presets import create_pretrainer
from asit_core.pretext.patch_discrimination import PatchDiscriminationConfig
from asit_core.pretrainer import PretextConfig, Pretrainer
from asit_core.seeding import stream
from asit_platform.data.stream import ClipBatch
from asit_platform.study.trial_files import NUM_PICTURES, write_pictures
from asit_platform.training.worker import Normalization


def _batches(count: int) -> list[ClipBatch]:
    return [
        ClipBatch(
            [f"clip-{start + i}" for i in range(5)],
            torch.randn(5, 140, 128, generator=stream(start, "test_clip")).half(),
            torch.full((5,), 140),
            torch.arange(5),
            torch.ones(5, dtype=torch.int64),
        )
        for start in range(0, 5 * count, 5)
    ]


def _pictures(folder, pretrainer: Pretrainer, batches: list[ClipBatch]) -> dict[str, np.ndarray]:
    normalization = Normalization(0.0, 0.5)
    write_pictures(folder, pretrainer, batches, normalization=normalization, seed=3, hop_ms=10.0)
    with np.load(folder / "pictures.npz") as file:
        return dict(file)


@pytest.mark.parametrize("preset", ["asit", "ssast_patch", "maskspec"])
def test_eight_clips_as_seen_and_as_drawn(tmp_path, preset):
    pictures = _pictures(tmp_path, create_pretrainer(preset, size="nano"), _batches(3))
    for name in ("input", "corrupted", "mask", "reconstructed"):
        assert pictures[name].shape == (NUM_PICTURES, 128, 128)
    hidden = pictures["mask"]
    assert 0.2 < hidden.mean() < 0.9
    assert (pictures["corrupted"][~hidden] == pictures["input"][~hidden]).all()


def test_a_model_that_draws_nothing_leaves_no_drawing(tmp_path):
    config = create_pretrainer("ssast_patch", size="nano").config
    pretext = PretextConfig(patch_discrimination=PatchDiscriminationConfig())
    pretrainer = Pretrainer(dataclasses.replace(config, pretext=pretext), seed=0)
    assert "reconstructed" not in _pictures(tmp_path, pretrainer, _batches(2))


def test_fewer_clips_than_pictures_are_all_shown(tmp_path):
    pictures = _pictures(tmp_path, create_pretrainer("asit", size="nano"), _batches(1))
    assert list(pictures["clip_id"]) == [f"clip-{i}" for i in range(5)]
