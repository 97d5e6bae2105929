"""Random crops of whole-clip log-mels, on the worker's device.

A view is a time crop of the clip's log-mel: up to the hop's phase the same as the log-mel of a crop
of the waveform. Frames past a short clip's end are digital silence, which is what padding the
waveform with zeros gives, unless the config says otherwise.

Shapes: `V` views, `B` clips, `T` frames, `F` mel bins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from asit_core.checks import check_one_of
from asit_core.seeding import clip_keys, uniform
from asit_core.spectrogram import LOG_MEL_FLOOR

_MAX_DRAWS = 11  # a silent crop is drawn again at most ten times
_SILENCE = LOG_MEL_FLOOR + 0.05  # float16 shards round the floor by 0.005


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewsConfig:
    """Number and length of the crops.

    `padding` is what follows a short clip: `silence`, as where ASiT pads the waveform, or `zero`,
    AST's and SSAST's 0 in log-mel units, louder than most clips.
    """

    __pydantic_config__ = {"extra": "forbid"}

    num_views: int = 2
    crop_frames: int = 592
    roll_probability: float = 0.5
    padding: Literal["silence", "zero"] = "silence"

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        if self.num_views not in (1, 2):
            raise ValueError(f"num_views must be 1 or 2, but got {self.num_views}")
        if self.crop_frames < 1:
            raise ValueError(f"crop_frames must be at least 1, but got {self.crop_frames}")
        if not 0.0 <= self.roll_probability <= 1.0:
            raise ValueError(f"roll_probability must be in [0, 1], but got {self.roll_probability}")
        check_one_of("padding", self.padding, ("silence", "zero"))


def normalize(log_mel: Tensor, *, mean: float, std: float) -> Tensor:
    """(x - mean) / (2 std) in fp32, AST's and ASiT's convention: about half a unit of deviation."""
    return (log_mel.float() - mean) / (2.0 * std)


def make_views(
    log_mel_BTF: Tensor,
    num_frames_B: Tensor,
    clip_ids: Sequence[str],
    config: ViewsConfig,
    *,
    seed: int,
    epoch: int,
) -> Tensor:
    """Draw the crops of a batch.

    Args:
        log_mel_BTF: Log-mels of whole clips, padded to one length.
        num_frames_B: Valid frames of each clip, at least 1.
        clip_ids: Names of the clips.
        config: What to draw.
        seed: The trial's seed.
        epoch: Epoch, a part of each draw's key.

    Returns:
        (V, B, crop_frames, F) in the input's type, not yet normalised.

    Source: ASiT (arXiv:2211.13189), Sec. III-A; rolling with probability 1/2 as in the released
    program.
    """
    views = [
        _crop(
            log_mel_BTF,
            num_frames_B,
            uniform(
                clip_keys(seed, "crop", epoch, clip_ids, view).to(log_mel_BTF.device),
                2 + _MAX_DRAWS,
            ),
            config,
        )
        for view in range(config.num_views)
    ]
    return torch.stack(views)


def _crop(log_mel_BTF: Tensor, num_frames_B: Tensor, draws: Tensor, config: ViewsConfig) -> Tensor:
    length_B1 = num_frames_B.to(log_mel_BTF.device)[:, None]
    rolls_B1 = draws[:, :1] < config.roll_probability
    shift_B1 = (draws[:, 1:2] * length_B1).long() * rolls_B1
    offset_T = torch.arange(config.crop_frames, device=log_mel_BTF.device)
    room_B1 = (length_B1 - config.crop_frames).clamp(min=0)
    starts_BC = (draws[:, 2:] * (room_B1 + 1)).long()
    start_B1 = _first_audible(log_mel_BTF, length_B1, shift_B1, starts_BC, config.crop_frames)
    position_BT = start_B1 + offset_T
    frame_BT = (position_BT - shift_B1) % length_B1
    crop_BTF = log_mel_BTF.gather(1, frame_BT.unsqueeze(-1).expand(-1, -1, log_mel_BTF.shape[2]))
    filler = LOG_MEL_FLOOR if config.padding == "silence" else 0.0
    return crop_BTF.masked_fill((position_BT >= length_B1).unsqueeze(-1), filler)


def _first_audible(
    log_mel_BTF: Tensor, length_B1: Tensor, shift_B1: Tensor, starts_BC: Tensor, crop: int
) -> Tensor:
    """(B, 1): the first of C starts whose crop is not all silence, else the last one."""
    frame_T = torch.arange(log_mel_BTF.shape[1], device=log_mel_BTF.device)
    audible_BT = (log_mel_BTF > _SILENCE).any(dim=2) & (frame_T < length_B1)
    rolled_BT = audible_BT.gather(1, (frame_T - shift_B1) % length_B1) & (frame_T < length_B1)
    count_BT = torch.nn.functional.pad(rolled_BT.long().cumsum(1), (1, 0))
    ends_BC = torch.minimum(starts_BC + crop, length_B1)
    heard_BC = count_BT.gather(1, ends_BC) > count_BT.gather(1, starts_BC)
    heard_BC[:, -1] = True
    first_B1 = heard_BC.long().argmax(dim=1, keepdim=True)
    return starts_BC.gather(1, first_B1)
