"""Random crops of whole-clip log-mels, on the worker's device.

A view is a time crop of the clip's log-mel: up to the hop's phase the same as the log-mel of a crop
of the waveform. Frames past a short clip's end are digital silence, which is what padding the
waveform with zeros gives, unless the config says otherwise.

Shapes: `V` views, `B` clips, `T` frames, `F` mel bins, `C` draws of a start.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from asit_core.checks import check_one_of
from asit_core.seeding import clip_keys, uniform
from asit_core.spectrogram import LOG_MEL_FLOOR

MAX_DRAWS = 11  # a silent crop is drawn again at most ten times
SILENCE = LOG_MEL_FLOOR + 0.05  # float16 shards round the floor by 0.005


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
        num_frames_B: Valid frames of each clip, at least 1; on the CPU: it is read here.
        clip_ids: Names of the clips.
        config: What to draw.
        seed: The trial's seed.
        epoch: Epoch, a part of each draw's key.

    Returns:
        (V, B, crop_frames, F) in the input's type, not yet normalised.

    Source: ASiT (arXiv:2211.13189), Sec. III-A; rolling with probability 1/2 as in the released
    program.
    """
    keys_VB = torch.stack(
        [clip_keys(seed, "crop", epoch, clip_ids, view) for view in range(config.num_views)]
    )
    draws_VBC = uniform(keys_VB.to(log_mel_BTF.device), 2 + MAX_DRAWS)
    views_VBTF = _crop(log_mel_BTF, num_frames_B, draws_VBC, config)
    if int(num_frames_B.min()) < config.crop_frames:
        position_T = torch.arange(config.crop_frames, device=log_mel_BTF.device)
        is_past_BT = position_T >= num_frames_B.to(log_mel_BTF.device)[:, None]
        filler = LOG_MEL_FLOOR if config.padding == "silence" else 0.0
        views_VBTF.masked_fill_(is_past_BT.unsqueeze(-1), filler)
    return views_VBTF


def _crop(
    log_mel_BTF: Tensor, num_frames_B: Tensor, draws_VBC: Tensor, config: ViewsConfig
) -> Tensor:
    """The crops, with anything past the end of a clip that is shorter than one."""
    num_clips, frames, bins = log_mel_BTF.shape
    length_B1 = num_frames_B.to(log_mel_BTF.device)[:, None]
    rolls_VB1 = draws_VBC[..., :1] < config.roll_probability
    shift_VB1 = (draws_VBC[..., 1:2] * length_B1).long() * rolls_VB1
    room_B1 = (length_B1 - config.crop_frames).clamp(min=0)
    starts_VBC = (draws_VBC[..., 2:] * (room_B1 + 1)).long()
    start_VB1 = _first_audible(log_mel_BTF, length_B1, shift_VB1, starts_VBC, config.crop_frames)
    position_VBT = start_VB1 + torch.arange(config.crop_frames, device=log_mel_BTF.device)
    frame_VBT = (position_VBT - shift_VB1) % length_B1
    first_B1 = torch.arange(0, num_clips * frames, frames, device=log_mel_BTF.device)[:, None]
    # Whole rows are copied at the speed of memory; `gather` would look up each value by itself.
    rows_TF = log_mel_BTF.flatten(0, 1).index_select(0, (first_B1 + frame_VBT).flatten())
    return rows_TF.view(config.num_views, num_clips, config.crop_frames, bins)


def _first_audible(
    log_mel_BTF: Tensor, length_B1: Tensor, shift_VB1: Tensor, starts_VBC: Tensor, crop: int
) -> Tensor:
    """(V, B, 1): the first of C starts whose crop is not all silence, else the last one."""
    frame_T = torch.arange(log_mel_BTF.shape[1], device=log_mel_BTF.device)
    audible_BT = (log_mel_BTF.amax(dim=2) > SILENCE) & (frame_T < length_B1)
    audible_VBT = audible_BT.expand(len(shift_VB1), -1, -1)
    rolled_VBT = audible_VBT.gather(2, (frame_T - shift_VB1) % length_B1) & (frame_T < length_B1)
    count_VBT = torch.nn.functional.pad(rolled_VBT.long().cumsum(2), (1, 0))
    ends_VBC = torch.minimum(starts_VBC + crop, length_B1)
    heard_VBC = count_VBT.gather(2, ends_VBC) > count_VBT.gather(2, starts_VBC)
    heard_VBC[..., -1] = True
    first_VB1 = heard_VBC.long().argmax(dim=2, keepdim=True)
    return starts_VBC.gather(2, first_VB1)
