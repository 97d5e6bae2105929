from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asit_core.probe import accuracy, linear_probe, log_mel_statistics
from asit_core.spectrogram import LogMel, LogMelConfig
from asit_platform.data.synthetic import (
    CLASS_NAMES,
    SyntheticConfig,
    make_clip,
    write_synthetic,
)
from asit_platform.errors import PlatformError

SMALL = SyntheticConfig(clips_per_class=10, duration_s=0.6)


@pytest.mark.parametrize("name", CLASS_NAMES)
@pytest.mark.parametrize("sample_rate_hz", [8000, 32000])
def test_every_class_at_any_rate(name: str, sample_rate_hz: int) -> None:
    config = SyntheticConfig(duration_s=0.5, sample_rate_hz=sample_rate_hz)
    for number in range(5):
        samples = make_clip(name, number, config)
        assert samples.shape == (sample_rate_hz // 2,)
        assert np.isfinite(samples).all()
        assert np.abs(samples).max() < 1.0
        assert np.sqrt(np.mean(np.square(samples))) > 1e-3


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    first = write_synthetic(tmp_path / "a", SMALL)
    second = write_synthetic(tmp_path / "b", SMALL)
    for one, other in zip(first.clips, second.clips, strict=True):
        assert Path(one.path).read_bytes() == Path(other.path).read_bytes()


def test_files_that_are_as_they_should_be_are_left(tmp_path: Path) -> None:
    first = write_synthetic(tmp_path, SMALL)
    inodes = [Path(clip.path).stat().st_ino for clip in first.clips]
    Path(first.clips[3].path).write_bytes(b"half a file")
    assert write_synthetic(tmp_path, SMALL) == first
    again = [Path(clip.path).stat().st_ino for clip in first.clips]
    assert [old == new for old, new in zip(inodes, again, strict=True)].count(False) == 1
    assert soundfile.info(first.clips[3].path).samplerate == SMALL.sample_rate_hz


def test_seeds_and_numbers_differ() -> None:
    clip = make_clip("trill_slow", 0, SMALL)
    assert not np.array_equal(clip, make_clip("trill_slow", 1, SMALL))
    assert not np.array_equal(
        clip, make_clip("trill_slow", 0, SyntheticConfig(seed=1, duration_s=0.6))
    )


def test_a_clip_does_not_depend_on_how_many_there_are() -> None:
    more = SyntheticConfig(clips_per_class=50, duration_s=0.6)
    assert np.array_equal(
        make_clip("rising_chirps_fast", 3, SMALL), make_clip("rising_chirps_fast", 3, more)
    )


def test_listing_is_balanced_and_called_synthetic(tmp_path: Path) -> None:
    listing = write_synthetic(tmp_path, SMALL)
    assert listing.synthetic
    assert listing.name == "synthetic"
    assert len(listing.clips) == 100
    assert all(clip.clip_id.startswith("synthetic-") for clip in listing.clips)
    pairs = {(clip.labels, clip.fold) for clip in listing.clips}
    assert len(pairs) == 50
    assert soundfile.info(listing.clips[0].path).samplerate == SMALL.sample_rate_hz


def test_default_clips_have_160_frames() -> None:
    config = SyntheticConfig()
    log_mel = LogMel(LogMelConfig(sample_rate_hz=config.sample_rate_hz))
    assert log_mel.num_frames(len(make_clip("trill_slow", 0, config))) == 160


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"clips_per_class": 9}, r"--clips-per-class must be in \[10, 100000\], but got 9"),
        ({"duration_s": 0.1}, r"--duration must be in"),
        ({"sample_rate_hz": 100}, r"--sample-rate must be in"),
    ],
)
def test_out_of_range(field: dict, message: str) -> None:
    with pytest.raises(PlatformError, match=message):
        SyntheticConfig(**field)


def test_log_mel_statistics_stay_below_three_quarters() -> None:
    """What needs no structure in time must not solve the default set (folds 1-3 on fold 5)."""
    config = SyntheticConfig()
    num_clips = config.clips_per_class
    log_mel = LogMel(LogMelConfig(sample_rate_hz=config.sample_rate_hz, num_mel_bins=64))
    features, labels, folds = [], [], []
    for label, name in enumerate(CLASS_NAMES):
        waveforms = [make_clip(name, number, config) for number in range(num_clips)]
        log_mel_BTF = log_mel(torch.from_numpy(np.stack(waveforms)).float())
        num_frames_B = torch.full((num_clips,), log_mel_BTF.shape[1])
        features.append(log_mel_statistics(log_mel_BTF, num_frames_B))
        labels += [label] * num_clips
        folds += [number % 5 + 1 for number in range(num_clips)]
    feature_ND, label_N, fold_N = torch.cat(features), torch.tensor(labels), torch.tensor(folds)
    train, test = fold_N <= 3, fold_N == 5
    result = linear_probe(feature_ND[train], label_N[train], feature_ND[test], num_classes=10)
    assert 0.2 < accuracy(result.scores_MC, label_N[test]) < 0.75
