"""Crops against a loop that rolls, draws and pads one clip at a time."""

import math

import pytest
import torch
from torch import Tensor

from asit_core.seeding import clip_keys, stream, uniform
from asit_core.spectrogram import LOG_MEL_FLOOR, LogMel, LogMelConfig
from asit_core.views import ViewsConfig, make_views, normalize

BINS = 4


def _batch(lengths: list[int], *, seed: int = 0) -> tuple[Tensor, Tensor, list[str]]:
    """Clips of noise, padded with the floor to the longest."""
    clips = torch.full((len(lengths), max(lengths), BINS), LOG_MEL_FLOOR)
    for index, length in enumerate(lengths):
        clips[index, :length] = torch.randn(length, BINS, generator=stream(seed, "test", index))
    return clips, torch.tensor(lengths), [f"clip-{i}" for i in range(len(lengths))]


def _crop_by_hand(clip: Tensor, length: int, draws: list[float], config: ViewsConfig) -> Tensor:
    """One view of one clip, from its uniform draws: roll it, cut it, cut again while silent."""
    frames = [clip[t] for t in range(length)]
    if draws[0] < config.roll_probability:
        shift = int(draws[1] * length)
        frames = frames[length - shift :] + frames[: length - shift]
    room = max(0, length - config.crop_frames)
    cut: list[Tensor] = []
    for draw in draws[2:13]:  # at most ten times again
        start = int(draw * (room + 1))
        cut = frames[start : start + config.crop_frames]
        if any(value > LOG_MEL_FLOOR + 0.05 for frame in cut for value in frame.tolist()):
            break
    padding = [torch.full((BINS,), LOG_MEL_FLOOR, dtype=clip.dtype)] * config.crop_frames
    return torch.stack((cut + padding)[: config.crop_frames])


def _assert_equals_the_loop(
    clips: Tensor, lengths: Tensor, ids: list[str], config: ViewsConfig, epochs: int = 3
) -> None:
    for epoch in range(epochs):
        views = make_views(clips, lengths, ids, config, seed=2, epoch=epoch)
        assert views.dtype == clips.dtype
        assert views.shape == (config.num_views, len(ids), config.crop_frames, BINS)
        for view in range(config.num_views):
            for index, clip in enumerate(clips):
                key = clip_keys(2, "crop", epoch, [ids[index]], view)[0]
                draws = uniform(key, 13).tolist()
                expected = _crop_by_hand(clip, int(lengths[index]), draws, config)
                assert torch.equal(views[view, index], expected)


@pytest.mark.parametrize("roll_probability", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("num_views", [1, 2])
def test_crops_equal_a_loop_over_clips(roll_probability, num_views):
    clips, lengths, ids = _batch([30, 12, 11, 25, 3, 1])
    config = ViewsConfig(num_views=num_views, crop_frames=12, roll_probability=roll_probability)
    _assert_equals_the_loop(clips, lengths, ids, config)


def test_float16_shards_give_float16_views():
    clips, lengths, ids = _batch([30, 9])
    _assert_equals_the_loop(clips.half(), lengths, ids, ViewsConfig(crop_frames=12))


def test_a_silent_crop_is_drawn_again():
    clips, lengths, ids = _batch([60] * 20)
    clips[:, 12:] = LOG_MEL_FLOOR  # a fifth of each clip can be heard
    config = ViewsConfig(crop_frames=6)
    _assert_equals_the_loop(clips, lengths, ids, config)
    views = make_views(clips, lengths, ids, config, seed=2, epoch=0)
    audible = (views > LOG_MEL_FLOOR).flatten(2).any(2)
    # A first draw hears about 0.3 of these clips; eleven draws miss 0.7 ** 11 = 2 %.
    assert audible.float().mean() > 0.9


def test_a_clip_of_silence_gives_silence_after_ten_more_draws():
    clips, lengths, ids = _batch([40, 40])
    clips[0] = LOG_MEL_FLOOR
    clips[1] = torch.tensor(LOG_MEL_FLOOR).half().float()  # as a float16 shard rounds it
    clips[:, :, 0] -= torch.arange(40) * 1e-3  # tells the frames apart, below the floor
    _assert_equals_the_loop(clips, lengths, ids, ViewsConfig(crop_frames=6))


def test_a_short_clip_is_padded_with_the_floor():
    clips, lengths, ids = _batch([5, 30])
    views = make_views(clips, lengths, ids, ViewsConfig(crop_frames=8), seed=0, epoch=0)
    assert (views[:, 0, 5:] == LOG_MEL_FLOOR).all()
    for view in views[:, 0]:  # rolled at most: every frame once
        assert torch.equal(view[:5].sort(0).values, clips[0, :5].sort(0).values)


def test_a_short_clip_may_be_padded_with_zeros():
    """H9: AST's and SSAST's zero stands before normalisation: +0.467 with AudioSet's statistics."""
    clips, lengths, ids = _batch([5, 30])
    config = ViewsConfig(crop_frames=8, padding="zero")
    views = make_views(clips, lengths, ids, config, seed=0, epoch=0)
    silent = make_views(clips, lengths, ids, ViewsConfig(crop_frames=8), seed=0, epoch=0)
    assert (views[:, 0, 5:] == 0.0).all()
    assert torch.equal(views[:, 0, :5], silent[:, 0, :5])
    assert torch.equal(views[:, 1], silent[:, 1])
    normalized = normalize(views[:, 0, 5:], mean=-4.2677393, std=4.5689974)
    assert normalized.unique().item() == pytest.approx(0.467, abs=5e-4)


def test_rolling_happens_as_often_as_asked():
    clips, lengths, ids = _batch([8] * 400)
    config = ViewsConfig(num_views=1, crop_frames=8, roll_probability=0.25)
    views = make_views(clips, lengths, ids, config, seed=0, epoch=0)[0]
    moved = (views != clips).flatten(1).any(1).float().mean().item()
    # A roll by no frame leaves a clip as it is: 7 in 8 rolls show.
    expected = 0.25 * 7 / 8
    assert moved == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 400) ** 0.5)


def test_draws_do_not_depend_on_the_batch():
    clips, lengths, ids = _batch([30, 12, 25, 40])
    config = ViewsConfig(crop_frames=10)
    whole = make_views(clips, lengths, ids, config, seed=0, epoch=0)
    order = [2, 0, 3, 1]
    shuffled = make_views(
        clips[order], lengths[order], [ids[i] for i in order], config, seed=0, epoch=0
    )
    assert torch.equal(shuffled, whole[:, order])
    alone = make_views(clips[2:3, :26], lengths[2:3], ids[2:3], config, seed=0, epoch=0)
    assert torch.equal(alone, whole[:, 2:3])


def test_views_epochs_and_seeds_are_cropped_differently():
    clips, lengths, ids = _batch([200] * 50)
    config = ViewsConfig(crop_frames=10)
    first = make_views(clips, lengths, ids, config, seed=0, epoch=0)
    others = [
        make_views(clips, lengths, ids, config, seed=seed, epoch=epoch)
        for seed, epoch in [(0, 1), (1, 0)]
    ]
    for other in [first.flip(0), *others]:
        # Two draws of about 200 places meet by chance in one clip of 200.
        assert (first != other).flatten(2).any(2).float().mean() > 0.95
    assert torch.equal(first, make_views(clips, lengths, ids, config, seed=0, epoch=0))


def test_a_crop_of_the_log_mel_is_the_log_mel_of_a_crop():
    config = LogMelConfig(sample_rate_hz=8000, num_mel_bins=20, subtract_mean=False)
    waveform = torch.randn(1, 8000, generator=stream(0, "test_waveform"))
    log_mel = LogMel(config)
    hop = 80
    whole = log_mel(waveform)[0]
    cut = log_mel(waveform[:, 17 * hop : 17 * hop + 4000])[0]
    # Frames share no state; only the FFT's sums may round differently.
    torch.testing.assert_close(cut, whole[17 : 17 + len(cut)], rtol=0, atol=1e-4)


def test_normalisation_is_half_a_unit_of_deviation_in_fp32():
    log_mel = torch.tensor([-4.0, 0.5, LOG_MEL_FLOOR], dtype=torch.float16)
    normalized = normalize(log_mel, mean=-4.0, std=4.5)
    assert normalized.dtype == torch.float32
    expected = [(x + 4.0) / 9.0 for x in log_mel.tolist()]
    assert normalized.tolist() == pytest.approx(expected, rel=1e-6)
    assert math.isclose(normalized[1].item(), 0.5)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_views", 3, "num_views must be 1 or 2, but got 3"),
        ("crop_frames", 0, "crop_frames must be at least 1, but got 0"),
        ("roll_probability", 1.5, r"roll_probability must be in \[0, 1\], but got 1.5"),
        ("padding", "mean", "padding must be one of silence, zero, but got 'mean'"),
    ],
)
def test_a_bad_field_is_named_with_rule_and_value(field, value, message):
    with pytest.raises(ValueError, match=message):
        ViewsConfig(**{field: value})
