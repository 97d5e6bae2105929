"""From a batch of log-mels to all that a pre-training step reads: views, corruption, masks, keys.

Every draw is keyed by seed, epoch and clip, so a batch's order or size changes none of them. One
that no task reads is not made.

Shapes: `V` views, `B` clips, `T` frames, `F` mel bins.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from asit_core.masking import corrupt
from asit_core.pretrain_config import TOKEN_TASKS, PretrainConfig
from asit_core.seeding import clip_keys
from asit_core.token_masking import TokenMasks, draw_token_masks
from asit_core.views import make_views, normalize

SHARED_PASS = "shared"


class PretrainInputs(NamedTuple):
    """What one step reads.

    Attributes:
        clean_VBTF: Normalised views.
        corrupted_VBTF: The same, corrupted; where nothing is, the clean views themselves.
        mask_VBTF: Boolean, True where pixels are hidden; None without corruption.
        token_masks: Masks of V * B views: one entry, `SHARED_PASS`, for all tasks that read
            masked tokens, or one for each by its name; empty without such tasks.
        drop_path_keys_VB: Keys of the student's stochastic depth; None switches it off.
    """

    clean_VBTF: Tensor
    corrupted_VBTF: Tensor
    mask_VBTF: Tensor | None = None
    token_masks: Mapping[str, TokenMasks] = MappingProxyType({})
    drop_path_keys_VB: Tensor | None = None


def draw_inputs(
    config: PretrainConfig,
    log_mel_BTF: Tensor,
    num_frames_B: Tensor,
    clip_ids: Sequence[str],
    *,
    mean: float,
    std: float,
    seed: int,
    epoch: int,
    donor_group: int | None = None,
) -> PretrainInputs:
    """Draw a step's views, corruption and masks, on the log-mels' device.

    Args:
        config: What to draw.
        log_mel_BTF: Log-mels of whole clips, padded to one length.
        num_frames_B: Valid frames of each clip, at least 1.
        clip_ids: Names of the clips: what the draws depend on.
        mean: Log-mel mean to normalise with.
        std: Log-mel deviation to normalise with.
        seed: The run's.
        epoch: Epoch, a part of each draw's key.
        donor_group: Clips among which aliens are exchanged; None: the config's.

    Raises:
        ValueError: If the batch does not consist of whole donor groups.
    """
    views_VBTF = make_views(
        log_mel_BTF, num_frames_B, clip_ids, config.views, seed=seed, epoch=epoch
    )
    clean_VBTF = normalize(views_VBTF, mean=mean, std=std)
    corrupted_VBTF, mask_VBTF = clean_VBTF, None
    if config.masking is not None:
        corrupted_VBTF, mask_VBTF, _ = corrupt(
            clean_VBTF,
            clip_ids,
            config.masking,
            seed=seed,
            epoch=epoch,
            donor_group=donor_group or config.donor_group,
            num_frames_B=num_frames_B,
        )

    def keys(purpose: str, *more: str) -> Tensor:
        views = range(config.views.num_views)
        drawn = [clip_keys(seed, purpose, epoch, clip_ids, view, *more) for view in views]
        return torch.stack(drawn).to(log_mel_BTF.device)

    token_masks: dict[str, TokenMasks] = {}
    if config.token_masking is not None:
        shared = config.token_masking.shared_pass
        passes = [SHARED_PASS] if shared else config.pretext.present(TOKEN_TASKS)
        for name in passes:
            token_masks[name] = draw_token_masks(
                keys("token_mask", name).flatten(),
                config.encoder.grid_of(config.views.crop_frames),
                config.token_masking,
                token_order=config.encoder.token_order,
            )
    drop_path_keys_VB = keys("drop_path") if config.encoder.drop_path_rate > 0.0 else None
    return PretrainInputs(clean_VBTF, corrupted_VBTF, mask_VBTF, token_masks, drop_path_keys_VB)
