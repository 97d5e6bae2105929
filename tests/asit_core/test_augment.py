import pytest
import torch
from torch import Tensor

from asit_core.augment import (
    AugmentConfig,
    PatchoutConfig,
    SpecAugmentConfig,
    augment_log_mels,
    fit_frames,
    spec_augment_mask,
    visible_patches,
)
from asit_core.seeding import clip_keys, stream, uniform
from asit_core.spectrogram import LOG_MEL_FLOOR

IDS = [f"clip{i}" for i in range(6)]
MEAN, STD = -4.2677393, 4.5689974  # AudioSet's, as AST holds them
DRAW = {"seed": 0, "epoch": 0}


def _log_mels(frames: int = 40, bins: int = 16) -> Tensor:
    return torch.randn(6, frames, bins, generator=stream(0, "test_input")) * STD + MEAN


def _normalized(log_mel: Tensor) -> Tensor:
    return (log_mel - MEAN) / (2 * STD)


def _augment(log_mel: Tensor, ids: list[str], config: AugmentConfig, **draw: int) -> Tensor:
    return augment_log_mels(log_mel, ids, config, mean=MEAN, std=STD, **(DRAW | draw))


def test_the_mask_is_torchaudios_law_of_a_width_and_a_start():
    config = SpecAugmentConfig(max_bins=7, max_frames=25.6)
    mask = spec_augment_mask(_log_mels(), IDS, config, **DRAW)
    draws = uniform(clip_keys(0, "spec_augment", 0, IDS), 4).tolist()
    for row, (u_bins, v_bins, u_frames, v_frames) in enumerate(draws):
        expected = torch.zeros(40, 16, dtype=torch.bool)
        for dim, size, limit, u, v in (
            (1, 16, 7, u_bins, v_bins),
            (0, 40, 25.6, u_frames, v_frames),
        ):
            width = u * limit
            start = int(v * (size - width))
            expected.narrow(dim, start, int(width)).fill_(True)
        assert torch.equal(mask[row], expected)


def test_widths_stay_below_their_limit_and_reach_every_width_below():
    ids = [str(i) for i in range(600)]
    log_mel = torch.zeros(600, 12, 9)
    mask = spec_augment_mask(log_mel, ids, SpecAugmentConfig(max_bins=4, max_frames=0), **DRAW)
    assert torch.equal(mask[:, :1].expand(-1, 12, -1), mask)  # all frames alike
    assert set(mask[:, 0].sum(dim=1).tolist()) == {0, 1, 2, 3}
    # torchaudio's rounding never reaches the last bin.
    assert mask[:, 0].any(dim=0).tolist() == [True] * 8 + [False]


@pytest.mark.parametrize(
    ("order", "value"), [("before_normalization", 0.467), ("after_normalization", 0.0)]
)
def test_hidden_values_depend_on_the_order(order, value):
    # H9: 0 in log-mel units is louder than most sound, 0 after normalisation is the mean.
    hidden = SpecAugmentConfig(max_bins=8, max_frames=20, order=order)
    log_mel = _log_mels()
    result = _augment(log_mel, IDS, AugmentConfig(spec_augment=hidden))
    mask = spec_augment_mask(log_mel, IDS, hidden, **DRAW)
    assert 0 < mask.sum() < mask.numel()
    assert result[mask].mean().item() == pytest.approx(value, abs=1e-3)
    if order == "before_normalization":
        expected = _normalized(log_mel.masked_fill(mask, 0.0))
    else:
        expected = _normalized(log_mel).masked_fill(mask, 0.0)
    torch.testing.assert_close(result, expected)


def test_an_empty_config_only_normalises():
    log_mel = _log_mels().half()
    result = _augment(log_mel, IDS, AugmentConfig())
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, _normalized(log_mel.float()))


def test_noise_is_uniform_below_an_amplitude_of_the_clips_own():
    added = _augment(_log_mels(), IDS, AugmentConfig(noise_amplitude=0.1)) - _normalized(
        _log_mels()
    )
    draws = uniform(clip_keys(0, "noise", 0, IDS), 1 + 40 * 16)
    for row in range(6):
        amplitude = 0.1 * draws[row, 0].item()
        assert -1e-6 <= added[row].min().item() < 0.02 * amplitude + 1e-6
        assert 0.98 * amplitude < added[row].max().item() <= amplitude + 1e-6
        assert added[row].mean().item() == pytest.approx(amplitude / 2, rel=0.1)


def test_a_roll_moves_whole_frames_round_the_end():
    ids = [str(i) for i in range(400)]
    log_mel = torch.arange(30.0)[None, :, None].expand(400, 30, 2)
    config = AugmentConfig(roll_frames=10)
    rolled = augment_log_mels(log_mel, ids, config, mean=0.0, std=0.5, **DRAW)
    shifts = [(-int(row[0, 0])) % 30 for row in rolled]
    for row, shift in zip(rolled, shifts, strict=True):
        assert torch.equal(row, torch.roll(log_mel[0], shift, dims=0))
    # As numpy's randint(-10, 10): the upper end is left out.
    assert {shift - 30 if shift > 15 else shift for shift in shifts} == set(range(-10, 10))


def test_noise_covers_hidden_bands_too_and_is_rolled_with_them():
    hidden = SpecAugmentConfig(max_bins=8, max_frames=20)
    parts = AugmentConfig(spec_augment=hidden, noise_amplitude=0.1)
    still = _augment(_log_mels(), IDS, parts)
    moved = _augment(
        _log_mels(), IDS, AugmentConfig(spec_augment=hidden, noise_amplitude=0.1, roll_frames=7)
    )
    shifts = (uniform(clip_keys(0, "roll", 0, IDS), 1) * 14).long().squeeze(1) - 7
    for row, shift in enumerate(shifts.tolist()):
        assert torch.equal(moved[row], torch.roll(still[row], shift, dims=0))
    mask = spec_augment_mask(_log_mels(), IDS, hidden, **DRAW)
    assert still[mask].std() > 0.0


FULL = AugmentConfig(
    spec_augment=SpecAugmentConfig(max_bins=8, max_frames=20), noise_amplitude=0.1, roll_frames=7
)


def test_the_batch_a_clip_sits_in_changes_nothing():
    log_mel = _log_mels()
    whole = _augment(log_mel, IDS, FULL)
    order = [3, 0, 5]
    assert torch.equal(_augment(log_mel[order], [IDS[row] for row in order], FULL), whole[order])
    assert not torch.equal(_augment(log_mel, IDS, FULL, epoch=1), whole)
    assert not torch.equal(_augment(log_mel, IDS, FULL, seed=1), whole)


def test_no_global_generator_moves():
    before = torch.get_rng_state()
    _augment(_log_mels(), IDS, FULL)
    visible_patches(
        IDS, (4, 2), PatchoutConfig(time_ratio=0.5, frequency_ratio=0.0), token_order="time", **DRAW
    )
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("frames", [3, 8, 12])
@pytest.mark.parametrize(("padding", "value"), [("silence", LOG_MEL_FLOOR), ("zero", 0.0)])
def test_a_clip_is_cut_or_padded_at_its_end(frames, padding, value):
    log_mel, lengths = _log_mels(frames=8), torch.tensor([8, 1, 5, 3, 7, 8])
    fitted = fit_frames(log_mel, lengths, frames=frames, padding=padding)
    assert fitted.shape == (6, frames, 16)
    for row, length in enumerate(lengths.tolist()):
        kept = min(length, frames)
        assert torch.equal(fitted[row, :kept], log_mel[row, :kept])
        assert torch.all(fitted[row, kept:] == value)


@pytest.mark.parametrize("token_order", ["time", "frequency"])
def test_patchout_keeps_a_grid_of_whole_columns_and_rows(token_order):
    config = PatchoutConfig(time_ratio=0.3, frequency_ratio=0.25)
    visible = visible_patches(IDS, (7, 4), config, token_order=token_order, **DRAW)
    assert visible.shape == (6, int(7 * 0.7) * 3)
    draws = uniform(clip_keys(0, "patchout", 0, IDS), 7 + 4).tolist()
    for row, tokens in enumerate(visible.tolist()):
        columns = sorted(range(7), key=lambda t: draws[row][t])[:4]
        rows = sorted(range(4), key=lambda f: draws[row][7 + f])[:3]
        expected = {
            t * 4 + f if token_order == "time" else f * 7 + t for t in columns for f in rows
        }
        assert tokens == sorted(expected)
    assert len({tuple(tokens) for tokens in visible.tolist()}) > 1


def test_patchout_counts_as_on_paper():
    """A fifth of 10 is 2, though 10 * (1 - 0.8) is a little less in floats."""
    config = PatchoutConfig(time_ratio=0.8, frequency_ratio=0.4)
    assert visible_patches(IDS, (10, 5), config, token_order="time", **DRAW).shape == (6, 2 * 3)


def test_without_patchout_every_patch_is_visible():
    config = PatchoutConfig(time_ratio=0.0, frequency_ratio=0.0)
    visible = visible_patches(IDS, (5, 2), config, token_order="time", **DRAW)
    assert visible.tolist() == [list(range(10))] * 6


def test_bad_input_is_named_with_rule_and_value():
    log_mel = _log_mels()
    for hidden, message in (
        (
            SpecAugmentConfig(max_bins=17, max_frames=0),
            "max_bins must be at most .* 16, but got 17",
        ),
        (SpecAugmentConfig(max_bins=0, max_frames=41), "max_frames must be .* 40, but got 41"),
        (SpecAugmentConfig(max_bins=1, max_frames=1, order=None), "spec_augment.order must be set"),
    ):
        with pytest.raises(ValueError, match=message):
            _augment(log_mel, IDS, AugmentConfig(spec_augment=hidden))
    with pytest.raises(ValueError, match=r"std must be above 0, but got 0\.0"):
        augment_log_mels(log_mel, IDS, AugmentConfig(), mean=0.0, std=0.0, **DRAW)
    with pytest.raises(ValueError, match="frames must be at least 1, but got 0"):
        fit_frames(log_mel, torch.full((6,), 40), frames=0)
    config = PatchoutConfig(time_ratio=0.5, frequency_ratio=0.5)
    with pytest.raises(ValueError, match=r"must leave a column and .* \(2, 1\) leave \(1, 0\)"):
        visible_patches(IDS, (2, 1), config, token_order="time", **DRAW)


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (
            SpecAugmentConfig,
            {"max_bins": -1, "max_frames": 0},
            "max_bins must be at least 0, but got",
        ),
        (PatchoutConfig, {"time_ratio": 1.0, "frequency_ratio": 0.0}, r"time_ratio must be in \[0"),
        (
            AugmentConfig,
            {"noise_amplitude": 0.0},
            "noise_amplitude must be above 0 or null, but got",
        ),
        (AugmentConfig, {"roll_frames": 0}, "roll_frames must be at least 1 or null, but got 0"),
    ],
)
def test_a_bad_field_is_named(config, fields, message):
    with pytest.raises(ValueError, match=message):
        config(**fields)
