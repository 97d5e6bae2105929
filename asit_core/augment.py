"""Augmentation for fine-tuning: SpecAugment, noise and roll of log-mels, patches left out.

The order is AST's: cut or pad to the input's length, SpecAugment, normalise, noise, roll. Mixup
comes first and has a file of its own. Every draw belongs to a clip and an epoch, so a clip is
changed in the same way whatever batch it sits in.

Shapes: `B` clips, `T` frames, `F` mel bins, `M` visible patches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from asit_core.mixup import MixupConfig
from asit_core.seeding import clip_keys, uniform
from asit_core.spectrogram import LOG_MEL_FLOOR
from asit_core.views import normalize

Padding = Literal["silence", "zero"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecAugmentConfig:
    """One band of bins and one stretch of frames are hidden in each clip.

    Attributes:
        max_bins: Widths are drawn below this many bins; 0 hides none.
        max_frames: The same for frames.
        order: `before_normalization` hides with 0 in log-mel units, which becomes
            (0 - mean) / (2 std), about +0.47 for AudioSet's statistics; `after_normalization` hides
            with 0, the data's mean. None: a recipe does not say, and must be told.
    """

    __pydantic_config__ = {"extra": "forbid"}

    max_bins: float
    max_frames: float
    order: Literal["before_normalization", "after_normalization"] | None = "before_normalization"

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        for name in ("max_bins", "max_frames"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be at least 0, but got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchoutConfig:
    """Shares of the columns (time) and rows (frequency) of patches that the encoder never sees."""

    __pydantic_config__ = {"extra": "forbid"}

    time_ratio: float
    frequency_ratio: float

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        for name in ("time_ratio", "frequency_ratio"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must be in [0, 1), but got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """What happens to a training clip; None means that it does not.

    Attributes:
        mixup: Read by `mixup_waveforms` and `mixup_log_mels`.
        spec_augment: Hidden bands of frequency and time.
        noise_amplitude: Noise uniform in [0, a) is added after normalisation, with a uniform in
            [0, noise_amplitude) per clip.
        roll_frames: The input is rolled by -roll_frames to roll_frames - 1 frames.
        patchout: Read by `visible_patches`.
    """

    __pydantic_config__ = {"extra": "forbid"}

    mixup: MixupConfig | None = None
    spec_augment: SpecAugmentConfig | None = None
    noise_amplitude: float | None = None
    roll_frames: int | None = None
    patchout: PatchoutConfig | None = None

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        if self.noise_amplitude is not None and not 0.0 < self.noise_amplitude < float("inf"):
            raise ValueError(
                f"noise_amplitude must be above 0 or null, but got {self.noise_amplitude}"
            )
        if self.roll_frames is not None and self.roll_frames < 1:
            raise ValueError(f"roll_frames must be at least 1 or null, but got {self.roll_frames}")


def fit_frames(
    log_mel_BTF: Tensor, num_frames_B: Tensor, *, frames: int, padding: Padding = "silence"
) -> Tensor:
    """The first `frames` frames of each clip, a shorter one padded at its end.

    Args:
        log_mel_BTF: Log-mels, not normalised, padded to one length with anything.
        num_frames_B: Valid frames of each clip.
        frames: Length of the result.
        padding: `silence` is what zero samples give; `zero` is AST's 0 in log-mel units, louder
            than most sound.

    Returns:
        (B, frames, F) in the input's type.

    Raises:
        ValueError: If `frames` is below 1.

    Source: AST's released loader pads with zeros before it normalises.
    """
    if frames < 1:
        raise ValueError(f"frames must be at least 1, but got {frames}")
    fitted_BTF = functional.pad(log_mel_BTF, (0, 0, 0, frames - log_mel_BTF.shape[1]))
    frame_T = torch.arange(frames, device=log_mel_BTF.device)
    past_BT = frame_T >= num_frames_B.to(log_mel_BTF.device)[:, None]
    value = LOG_MEL_FLOOR if padding == "silence" else 0.0
    return fitted_BTF.masked_fill(past_BT[..., None], value)


def augment_log_mels(
    log_mel_BTF: Tensor,
    clip_ids: Sequence[str],
    config: AugmentConfig,
    *,
    mean: float,
    std: float,
    seed: int,
    epoch: int,
) -> Tensor:
    """SpecAugment, normalisation, noise and roll of a batch.

    Args:
        log_mel_BTF: Log-mels of one length, not normalised; mixed already if they are to be.
        clip_ids: Names of the clips.
        config: What to do; an empty one only normalises.
        mean: Mean of the training data's log-mels.
        std: Their standard deviation, above 0.
        seed: The trial's seed.
        epoch: Epoch, a part of each draw's key.

    Returns:
        (B, T, F), normalised, fp32.

    Raises:
        ValueError: If a hidden band could be wider than the input, SpecAugment's order is not set,
            or `std` is not above 0.

    Source: AST (arXiv:2104.01778), Sec. 3.1, and its released loader; SpecAugment
    (arXiv:1904.08779) with torchaudio's law of the widths.
    """
    if not std > 0.0:
        raise ValueError(f"std must be above 0, but got {std}")
    hidden = config.spec_augment
    if hidden is not None and hidden.order is None:
        raise ValueError("spec_augment.order must be set to hide anything, but is None")
    if hidden is None:
        input_BTF = normalize(log_mel_BTF, mean=mean, std=std)
    else:
        mask_BTF = spec_augment_mask(log_mel_BTF, clip_ids, hidden, seed=seed, epoch=epoch)
        value = -mean / (2.0 * std) if hidden.order == "before_normalization" else 0.0
        input_BTF = normalize(log_mel_BTF, mean=mean, std=std).masked_fill(mask_BTF, value)
    if config.noise_amplitude is not None:
        keys_B = clip_keys(seed, "noise", epoch, clip_ids).to(input_BTF.device)
        input_BTF = input_BTF + _noise(keys_B, config.noise_amplitude, input_BTF.shape[1:])
    if config.roll_frames is not None:
        keys_B = clip_keys(seed, "roll", epoch, clip_ids).to(input_BTF.device)
        input_BTF = _roll(input_BTF, keys_B, config.roll_frames)
    return input_BTF


def spec_augment_mask(
    log_mel_BTF: Tensor,
    clip_ids: Sequence[str],
    config: SpecAugmentConfig,
    *,
    seed: int,
    epoch: int,
) -> Tensor:
    """Boolean (B, T, F), True where a band hides the clip.

    A width is `u * max` and a start `v * (size - u * max)`, both rounded down, u and v uniform: the
    last bin and the last frame are never hidden.

    Raises:
        ValueError: If a band could be wider than the input.
    """
    frames, bins = log_mel_BTF.shape[1:]
    for name, limit, size in (
        ("max_bins", config.max_bins, bins),
        ("max_frames", config.max_frames, frames),
    ):
        if limit > size:
            raise ValueError(
                f"spec_augment.{name} must be at most the input's {size}, but got {limit}"
            )
    keys_B = clip_keys(seed, "spec_augment", epoch, clip_ids).to(log_mel_BTF.device)
    draws_B4 = uniform(keys_B, 4)
    band_BF = _band(draws_B4[:, :2], config.max_bins, bins)
    stretch_BT = _band(draws_B4[:, 2:], config.max_frames, frames)
    return stretch_BT[:, :, None] | band_BF[:, None, :]


def visible_patches(
    clip_ids: Sequence[str],
    grid: tuple[int, int],
    config: PatchoutConfig,
    *,
    token_order: Literal["time", "frequency"],
    seed: int,
    epoch: int,
) -> Tensor:
    """The patches that stay when whole columns and rows of the grid are left out.

    Args:
        clip_ids: Names of the clips.
        grid: Columns (time) and rows (frequency) of patches.
        config: Shares left out.
        token_order: The encoder's: which axis runs slowest.
        seed: The trial's seed.
        epoch: Epoch, a part of each draw's key.

    Returns:
        int64 token numbers (B, M), ascending; M is the same for every clip.

    Raises:
        ValueError: If nothing would stay.

    Source: Audio-MAE (arXiv:2207.06405), Sec. 3: fine-tuning with columns and rows left out.
    """
    columns, rows = grid
    kept_columns = _kept(columns, config.time_ratio)
    kept_rows = _kept(rows, config.frequency_ratio)
    if kept_columns < 1 or kept_rows < 1:
        raise ValueError(
            f"patchout must leave a column and a row of patches, but {config.time_ratio} and "
            f"{config.frequency_ratio} of {grid} leave {(kept_columns, kept_rows)}"
        )
    draws = uniform(clip_keys(seed, "patchout", epoch, clip_ids), columns + rows)
    column_Bt = draws[:, :columns].argsort(dim=1)[:, :kept_columns].sort(dim=1).values
    row_Bf = draws[:, columns:].argsort(dim=1)[:, :kept_rows].sort(dim=1).values
    if token_order == "time":
        return (column_Bt[:, :, None] * rows + row_Bf[:, None, :]).flatten(1)
    return (row_Bf[:, :, None] * columns + column_Bt[:, None, :]).flatten(1)


def _kept(size: int, ratio: float) -> int:
    # 10 * (1.0 - 0.8) is 1.9999999999999996 in floats.
    return int(size * (1.0 - ratio) + 1e-9)


def _band(draws_B2: Tensor, limit: float, size: int) -> Tensor:
    """Boolean (B, size): one run of True per clip."""
    width_B1 = draws_B2[:, :1] * limit
    start_B1 = (draws_B2[:, 1:] * (size - width_B1)).long()
    index = torch.arange(size, device=draws_B2.device)
    return (index >= start_B1) & (index < start_B1 + width_B1.long())


def _noise(keys_B: Tensor, amplitude: float, shape: torch.Size) -> Tensor:
    draws = uniform(keys_B, 1 + shape.numel()).float()
    return (draws[:, 1:] * (amplitude * draws[:, :1])).unflatten(1, shape)


def _roll(input_BTF: Tensor, keys_B: Tensor, roll_frames: int) -> Tensor:
    shift_B1 = (uniform(keys_B, 1) * 2 * roll_frames).long() - roll_frames
    frame_T = torch.arange(input_BTF.shape[1], device=input_BTF.device)
    source_BT = (frame_T - shift_B1) % input_BTF.shape[1]
    return input_BTF.gather(1, source_BT[..., None].expand(-1, -1, input_BTF.shape[2]))
