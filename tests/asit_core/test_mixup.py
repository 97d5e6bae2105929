import math

import pytest
import torch
from scipy.stats import beta as beta_law
from scipy.stats import kstest
from torch import Tensor

from asit_core.mixup import (
    MixupConfig,
    batch_partners,
    draw_mixup,
    mix_powers,
    mix_targets,
    mix_waveforms,
    mixup_log_mels,
    mixup_waveforms,
    symmetric_beta,
)
from asit_core.seeding import clip_keys, stream
from asit_core.spectrogram import LOG_MEL_FLOOR

IDS = ["rain", "dog", "siren", "bell", "cat"]
TARGETS = torch.eye(5)


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=stream(seed, "test_input"))


@pytest.mark.parametrize("beta", [0.3, 0.8, 1.0, 2.0, 10.0])
def test_weights_follow_the_beta_law(beta):
    keys = clip_keys(0, "test", 0, [str(i) for i in range(4000)])
    weights = symmetric_beta(keys, beta, skip=2).numpy()
    assert kstest(weights, beta_law(beta, beta).cdf).pvalue > 1e-3


def _mixed_as_ast(clip: list[float], partner: list[float], weight: float) -> list[float]:
    """AST's loader, sample by sample."""
    clip = [value - sum(clip) / len(clip) for value in clip]
    partner = [value - sum(partner) / len(partner) for value in partner]
    partner = (partner + [0.0] * len(clip))[: len(clip)]
    mix = [weight * a + (1 - weight) * b for a, b in zip(clip, partner, strict=True)]
    return [value - sum(mix) / len(mix) for value in mix]


@pytest.mark.parametrize("partner_width", [6, 9, 14])
def test_waveforms_are_mixed_as_by_ast(partner_width):
    waveform, partner = _noise(3, 9) + 0.5, _noise(3, partner_width, seed=1) - 2.0
    lengths, partner_lengths = torch.tensor([9, 4, 7]), torch.tensor([partner_width, 5, 3])
    weights = torch.tensor([0.25, 0.6, 0.9], dtype=torch.float64)
    mixed = mix_waveforms(waveform, lengths, partner, partner_lengths, weights)
    for row in range(3):
        n, m = int(lengths[row]), int(partner_lengths[row])
        expected = _mixed_as_ast(
            waveform[row, :n].tolist(), partner[row, :m].tolist(), weights[row].item()
        )
        torch.testing.assert_close(mixed[row, :n], torch.tensor(expected), rtol=1e-5, atol=1e-6)
        assert torch.all(mixed[row, n:] == 0.0)


def test_a_clip_that_stays_alone_is_returned_as_it_came():
    waveform, lengths = _noise(5, 9) + 1.0, torch.full((5,), 9)
    config = MixupConfig(probability=0.5)
    weights = draw_mixup(IDS, config, seed=3, epoch=0).weight_B
    assert 0 < (weights == 1.0).sum() < 5
    mixed, targets = mixup_waveforms(waveform, lengths, TARGETS, IDS, config, seed=3, epoch=0)
    for row, weight in enumerate(weights.tolist()):
        assert torch.equal(mixed[row], waveform[row]) == (weight == 1.0)
        assert torch.equal(targets[row], TARGETS[row]) == (weight == 1.0)


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (0.3, 0.3), (1.0, 1.0)])
def test_probability_is_the_share_of_mixed_clips(probability, share):
    ids = [str(i) for i in range(2000)]
    draws = draw_mixup(ids, MixupConfig(probability=probability), seed=0, epoch=0)
    # Four standard deviations of a share of 2000.
    tolerance = 4 * math.sqrt(share * (1 - share) / 2000)
    assert (draws.weight_B < 1.0).double().mean().item() == pytest.approx(share, abs=tolerance)


def test_power_is_mixed_before_the_logarithm():
    log_mel, partner = 4 * _noise(2, 3, 4) - 5, 4 * _noise(2, 3, 4, seed=1) - 5
    weights = torch.tensor([0.3, 1.0], dtype=torch.float64)
    mixed = mix_powers(log_mel, partner, weights)
    for index in ((0, 1, 2), (0, 2, 0), (1, 0, 3)):
        a, b, w = log_mel[index].item(), partner[index].item(), weights[index[0]].item()
        expected = math.log(w * math.exp(a) + (1 - w) * math.exp(b))
        assert mixed[index].item() == pytest.approx(expected, abs=1e-5)
    assert torch.equal(mixed[1], log_mel[1])  # weight 1: bit for bit


@pytest.mark.parametrize("domain", ["power", "log_mel"])
def test_past_its_end_a_clip_is_silent_mixed_or_not(domain):
    log_mel = _noise(5, 8, 3).half()
    lengths = torch.tensor([8, 3, 5, 1, 6])
    config = MixupConfig(probability=0.7, domain=domain)
    mixed, targets = mixup_log_mels(log_mel, lengths, TARGETS, IDS, config, seed=0, epoch=0)
    assert mixed.dtype == torch.float32
    draws = draw_mixup(IDS, config, seed=0, epoch=0)
    partner = batch_partners(IDS, draws.partner_B)
    for row, length in enumerate(lengths.tolist()):
        assert torch.all(mixed[row, length:] == LOG_MEL_FLOOR)
        weight, other = draws.weight_B[row].item(), int(partner[row])
        expected_target = weight * TARGETS[row] + (1 - weight) * TARGETS[other]
        torch.testing.assert_close(targets[row], expected_target)
        for frame in range(length):
            a = log_mel[row, frame].double()
            b = torch.full_like(a, LOG_MEL_FLOOR)
            if frame < lengths[other]:
                b = log_mel[other, frame].double()
            if domain == "power":
                expected = (weight * a.exp() + (1 - weight) * b.exp()).log()
            else:
                expected = weight * a + (1 - weight) * b
            torch.testing.assert_close(mixed[row, frame], expected.float(), rtol=1e-4, atol=1e-5)


def test_two_silent_clips_mix_to_silence():
    silence = torch.full((2, 4, 3), LOG_MEL_FLOOR)
    mixed = mix_powers(silence, silence, torch.tensor([0.5, 0.2], dtype=torch.float64))
    torch.testing.assert_close(mixed, silence)


def test_a_class_that_both_clips_hold_keeps_its_weight():
    target, partner = torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[1.0, 0.0, 1.0]])
    mixed = mix_targets(target, partner, torch.tensor([0.75], dtype=torch.float64))
    assert mixed.tolist() == [[1.0, 0.75, 0.25]]


@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [2, 0, 4, 1, 3]])
def test_the_order_of_a_batch_changes_nothing(order):
    waveform, lengths = _noise(5, 9), torch.tensor([9, 4, 7, 2, 5])
    log_mel = _noise(5, 8, 3)
    ids = [IDS[row] for row in order]
    for epoch in range(3):
        for mixup, sound, config in (
            (mixup_waveforms, waveform, MixupConfig(probability=0.8)),
            (mixup_log_mels, log_mel, MixupConfig(probability=0.8, domain="power")),
        ):
            mixed, targets = mixup(sound, lengths, TARGETS, IDS, config, seed=0, epoch=epoch)
            again, targets_again = mixup(
                sound[order], lengths[order], TARGETS[order], ids, config, seed=0, epoch=epoch
            )
            # A vectorised logarithm may differ in the last bit from its scalar remainder.
            torch.testing.assert_close(mixed[order], again, rtol=1e-6, atol=1e-6)
            assert torch.equal(targets[order], targets_again)


def test_partners_are_others_and_every_other_is_met():
    met: dict[str, set[str]] = {name: set() for name in IDS}
    for epoch in range(60):
        draws = draw_mixup(IDS, MixupConfig(probability=1.0), seed=0, epoch=epoch)
        for name, row in zip(IDS, batch_partners(IDS, draws.partner_B).tolist(), strict=True):
            met[name].add(IDS[row])
    assert all(others == set(IDS) - {name} for name, others in met.items())


def test_epoch_and_seed_change_the_draws_and_no_global_generator_moves():
    before = torch.get_rng_state()
    config = MixupConfig(probability=1.0, beta=0.8)
    draws = [draw_mixup(IDS, config, seed=s, epoch=e).weight_B for s, e in ((0, 0), (0, 1), (1, 0))]
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(before, torch.get_rng_state())


def test_the_wrong_domain_is_refused():
    sound, lengths = _noise(5, 4, 3), torch.full((5,), 4)
    config = MixupConfig(probability=1.0)
    with pytest.raises(ValueError, match=r"domain must be power or log_mel for .* got 'waveform'"):
        mixup_log_mels(sound, lengths, TARGETS, IDS, config, seed=0, epoch=0)
    config = MixupConfig(probability=1.0, domain="power")
    with pytest.raises(ValueError, match=r"domain must be waveform for .*, but got 'power'"):
        mixup_waveforms(sound[..., 0], lengths, TARGETS, IDS, config, seed=0, epoch=0)


def test_a_batch_of_one_is_refused():
    with pytest.raises(ValueError, match="mixup must have at least 2 clips in a batch, but got 1"):
        batch_partners(["rain"], torch.zeros(1))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("probability", 1.5, r"probability must be in \[0, 1\], but got 1.5"),
        ("beta", 0.0, r"beta must be a whole number or in \(0, 1\), but got 0.0"),
        ("beta", 1.5, r"beta must be a whole number or in \(0, 1\), but got 1.5"),
        ("beta", float("inf"), "beta must be a whole number"),
    ],
)
def test_a_bad_field_is_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        MixupConfig(**{"probability": 0.5, field: value})
