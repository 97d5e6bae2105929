"""Mixup for fine-tuning: two sounds become one, and so do their targets.

A mix is `weight * clip + (1 - weight) * partner`, of samples (AST), of the linear power behind two
log-mels (BYOL-A), or of the log-mels themselves (EAT). Every draw belongs to a clip and an epoch:
neither the order of a batch nor the number of workers changes what a clip is mixed with, as long as
the batch holds the same clips.

Shapes: `B` clips, `S` samples, `T` frames, `F` mel bins, `C` classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from asit_core.seeding import clip_keys, uniform
from asit_core.spectrogram import LOG_MEL_FLOOR

MixupDomain = Literal["waveform", "power", "log_mel"]

_JOHNK_TRIES = 64  # each is accepted with probability above 1/2
_HALF_STEP = 2.0**-54  # keeps a uniform draw off 0, whose logarithm is infinite


@dataclass(frozen=True, kw_only=True, slots=True)
class MixupConfig:
    """How often clips are mixed, how evenly, and in which domain.

    Attributes:
        probability: Share of the clips that are mixed.
        beta: The weight is drawn from Beta(beta, beta): a whole number, or below 1.
        domain: `waveform` mixes samples, `power` the spectrograms before the logarithm, `log_mel`
            those after it.
    """

    __pydantic_config__ = {"extra": "forbid"}

    probability: float
    beta: float = 10.0
    domain: MixupDomain = "waveform"

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"probability must be in [0, 1], but got {self.probability}")
        if not (0.0 < self.beta < 1.0 or (self.beta >= 1.0 and float(self.beta).is_integer())):
            raise ValueError(f"beta must be a whole number or in (0, 1), but got {self.beta}")


class MixupDraws(NamedTuple):
    """What chance says of each clip: its weight (1 = stays alone), and a draw for its partner."""

    weight_B: Tensor
    partner_B: Tensor


def draw_mixup(
    clip_ids: Sequence[str], config: MixupConfig, *, seed: int, epoch: int
) -> MixupDraws:
    """Draw weights and partners, keyed by clip.

    Returns:
        float64 tensors (B,) on the CPU: weights in [0, 1], and uniform draws in [0, 1) that
        `batch_partners` turns into clips of the batch. AST takes partners from the whole training
        set: `(partner_B * num_clips).long()`.

    Source: mixup (arXiv:1710.09412), Eq. 1; AST's released program draws per clip with
    Beta(10, 10).
    """
    keys_B = clip_keys(seed, "mixup", epoch, clip_ids)
    coin_B, partner_B = uniform(keys_B, 2).unbind(-1)
    weight_B = symmetric_beta(keys_B, config.beta, skip=2)
    return MixupDraws(torch.where(coin_B < config.probability, weight_B, 1.0), partner_B)


def symmetric_beta(keys_B: Tensor, beta: float, *, skip: int = 0) -> Tensor:
    """Draws from Beta(beta, beta), one per key, after `skip` draws of each key's stream.

    Source: a whole beta is the middle one of 2 beta - 1 sorted uniform draws (order statistics);
    below 1 Jöhnk's method (Metrika 8, 1964), in logarithms.
    """
    if beta >= 1.0:
        middle = int(beta) - 1
        return uniform(keys_B, 2 * middle + 1, skip=skip).sort(dim=-1).values[..., middle]
    draws_BJ2 = uniform(keys_B, 2 * _JOHNK_TRIES, skip=skip).unflatten(-1, (_JOHNK_TRIES, 2))
    log_BJ2 = (draws_BJ2 + _HALF_STEP).log() / beta
    accepted_BJ = log_BJ2.exp().sum(dim=-1) <= 1.0
    first_B1 = accepted_BJ.long().argmax(dim=-1, keepdim=True)
    own_BJ, other_BJ = log_BJ2.unbind(-1)
    return torch.sigmoid(own_BJ - other_BJ).gather(-1, first_B1).squeeze(-1)


def batch_partners(clip_ids: Sequence[str], partner_B: Tensor) -> Tensor:
    """Each clip's partner within its batch: always another row, the same in any order of the batch.

    Args:
        clip_ids: B clips, at least two.
        partner_B: Uniform draws of `draw_mixup`.

    Returns:
        int64 row numbers (B,).

    Raises:
        ValueError: If there is nobody to mix with.
    """
    num_clips = len(clip_ids)
    if num_clips < 2:
        raise ValueError(f"mixup must have at least 2 clips in a batch, but got {num_clips}")
    row_of_rank = torch.tensor(sorted(range(num_clips), key=lambda row: clip_ids[row]))
    rank_B = row_of_rank.argsort()
    step_B = 1 + (partner_B * (num_clips - 1)).long()
    return row_of_rank[(rank_B + step_B) % num_clips]


def mixup_waveforms(
    waveform_BS: Tensor,
    num_samples_B: Tensor,
    target_BC: Tensor,
    clip_ids: Sequence[str],
    config: MixupConfig,
    *,
    seed: int,
    epoch: int,
) -> tuple[Tensor, Tensor]:
    """Mix the samples of a batch, as AST does, with partners from the same batch.

    Args:
        waveform_BS: Samples, padded to one length with anything.
        num_samples_B: Valid samples of each clip, at least 1.
        target_BC: Float targets in [0, 1].
        clip_ids: Names of the clips.
        config: Its domain must be `waveform`.
        seed: The trial's seed.
        epoch: Epoch, a part of each draw's key.

    Returns:
        Mixed samples (B, S), and targets (B, C). A clip that stays alone is returned as it came.

    Raises:
        ValueError: If the config is for another domain or the batch holds one clip.
    """
    _check_domain(config, "waveform")
    draws = draw_mixup(clip_ids, config, seed=seed, epoch=epoch)
    partner_B = batch_partners(clip_ids, draws.partner_B).to(waveform_BS.device)
    weight_B = draws.weight_B.to(waveform_BS.device)
    num_samples_B = num_samples_B.to(waveform_BS.device)
    mixed_BS = mix_waveforms(
        waveform_BS, num_samples_B, waveform_BS[partner_B], num_samples_B[partner_B], weight_B
    )
    return mixed_BS, mix_targets(target_BC, target_BC[partner_B.to(target_BC.device)], weight_B)


def mixup_log_mels(
    log_mel_BTF: Tensor,
    num_frames_B: Tensor,
    target_BC: Tensor,
    clip_ids: Sequence[str],
    config: MixupConfig,
    *,
    seed: int,
    epoch: int,
) -> tuple[Tensor, Tensor]:
    """Mix the spectrograms of a batch, with partners from the same batch.

    Args:
        log_mel_BTF: Log-mels, not normalised, padded to one length with anything.
        num_frames_B: Valid frames of each clip, at least 1.
        target_BC: Float targets in [0, 1].
        clip_ids: Names of the clips.
        config: Its domain must be `power` or `log_mel`.
        seed: The trial's seed.
        epoch: Epoch, a part of each draw's key.

    Returns:
        Mixed log-mels (B, T, F) in fp32, silent past each clip's end, and targets (B, C).

    Raises:
        ValueError: If the config is for waveforms or the batch holds one clip.
    """
    _check_domain(config, "power", "log_mel")
    draws = draw_mixup(clip_ids, config, seed=seed, epoch=epoch)
    partner_B = batch_partners(clip_ids, draws.partner_B).to(log_mel_BTF.device)
    weight_B = draws.weight_B.to(log_mel_BTF.device)
    sound_BTF = _silent_past(log_mel_BTF.float(), num_frames_B.to(log_mel_BTF.device))
    mix = mix_powers if config.domain == "power" else _mix_log_mels
    mixed_BTF = mix(sound_BTF, sound_BTF[partner_B], weight_B)
    mixed_BTF = _silent_past(mixed_BTF, num_frames_B.to(log_mel_BTF.device))
    return mixed_BTF, mix_targets(target_BC, target_BC[partner_B.to(target_BC.device)], weight_B)


def mix_waveforms(
    waveform_BS: Tensor,
    num_samples_B: Tensor,
    partner_BS: Tensor,
    partner_samples_B: Tensor,
    weight_B: Tensor,
) -> Tensor:
    """`weight * clip + (1 - weight) * partner`, each without its mean, at the clip's length.

    The partner is cut, or followed by zeros, to the clip's length; the mix loses its mean again.
    Where the weight is 1 the clip is returned as it came.

    Source: AST's released loader; the paper (arXiv:2104.01778), Sec. 3.1, only names mixup.
    """
    missing = waveform_BS.shape[1] - partner_BS.shape[1]
    partner_BS = functional.pad(_centered(partner_BS, partner_samples_B), (0, missing))
    weight_B1 = weight_B[:, None].to(waveform_BS.dtype)
    own_BS = _centered(waveform_BS, num_samples_B)
    mixed_BS = _centered(weight_B1 * own_BS + (1.0 - weight_B1) * partner_BS, num_samples_B)
    return torch.where(weight_B[:, None] == 1.0, waveform_BS, mixed_BS)


def mix_powers(log_mel_BTF: Tensor, partner_BTF: Tensor, weight_B: Tensor) -> Tensor:
    """log(weight * exp(clip) + (1 - weight) * exp(partner)).

    Two sounds that are heard together add their power, not its logarithm.

    Source: BYOL-A (arXiv:2103.06695), Eq. 2.
    """
    weight_B11 = weight_B[:, None, None]
    own_B11, other_B11 = weight_B11.log().float(), torch.log1p(-weight_B11).float()
    return torch.logaddexp(log_mel_BTF + own_B11, partner_BTF + other_B11)


def mix_targets(target_BC: Tensor, partner_BC: Tensor, weight_B: Tensor) -> Tensor:
    """Targets of a mix: a class that both clips hold keeps its full weight."""
    weight_B1 = weight_B[:, None].to(target_BC.dtype).to(target_BC.device)
    return weight_B1 * target_BC + (1.0 - weight_B1) * partner_BC


def _mix_log_mels(log_mel_BTF: Tensor, partner_BTF: Tensor, weight_B: Tensor) -> Tensor:
    return torch.lerp(partner_BTF, log_mel_BTF, weight_B[:, None, None].float())


def _check_domain(config: MixupConfig, *allowed: MixupDomain) -> None:
    if config.domain not in allowed:
        raise ValueError(
            f"mixup.domain must be {' or '.join(allowed)} for this input, but got {config.domain!r}"
        )


def _centered(waveform_BS: Tensor, num_samples_B: Tensor) -> Tensor:
    """Valid samples less their mean; zeros past the end."""
    sample_S = torch.arange(waveform_BS.shape[1], device=waveform_BS.device)
    valid_BS = sample_S < num_samples_B[:, None]
    sound_BS = waveform_BS * valid_BS
    mean_B1 = sound_BS.sum(dim=1, keepdim=True) / num_samples_B[:, None]
    return (sound_BS - mean_B1) * valid_BS


def _silent_past(log_mel_BTF: Tensor, num_frames_B: Tensor) -> Tensor:
    frame_T = torch.arange(log_mel_BTF.shape[1], device=log_mel_BTF.device)
    past_BT = frame_T >= num_frames_B[:, None]
    return log_mel_BTF.masked_fill(past_BT[..., None], LOG_MEL_FLOOR)
