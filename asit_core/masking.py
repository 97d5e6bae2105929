"""GMML corruption: which pixels of a view are hidden, and what hides them.

Group masked model learning covers a view with random rectangles until a drawn share of its pixels
is hidden. The whole view is then filled with zeros, which after normalisation is the data set's
mean, or with another clip's content at the same place (an "alien"). Rectangles need not be aligned
with the encoder's patches.

Shapes: `V` views, `B` clips, `T` frames, `F` mel bins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from asit_core.rectangles import RectangleSizes, cover
from asit_core.seeding import clip_keys, uniform


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskingConfig:
    """Shape and fill of the corruption.

    `ratio` is the largest share of pixels hidden by zeros (a view's own share is uniform between
    `min_ratio`, or `ratio` if that is smaller, and `ratio`); `alien_ratio` the same for aliens.
    With `spare_padding`, frames past a short clip's end are never hidden: there is nothing in them
    to learn. The released program hides them like any others.
    """

    __pydantic_config__ = {"extra": "forbid"}

    ratio: float = 0.7
    min_ratio: float = 0.5
    alien_probability: float = 0.5
    alien_ratio: float = 0.3
    block_max: float = 0.3
    align: int = 1
    self_alien: bool = False
    spare_padding: bool = True

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        for name in ("ratio", "min_ratio", "alien_ratio"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must be in [0, 1), but got {getattr(self, name)}")
        if not 0.0 <= self.alien_probability <= 1.0:
            raise ValueError(
                f"alien_probability must be in [0, 1], but got {self.alien_probability}"
            )
        if not 0.0 < self.block_max <= 1.0:
            raise ValueError(f"block_max must be in (0, 1], but got {self.block_max}")
        if self.align < 1:
            raise ValueError(f"align must be at least 1, but got {self.align}")

    @property
    def hides_nothing(self) -> bool:
        """Whether no view can lose a pixel."""
        never_zeros = self.ratio == 0.0 or self.alien_probability == 1.0
        never_aliens = self.alien_ratio == 0.0 or self.alien_probability == 0.0
        return never_zeros and never_aliens

    def sizes(self, frames: int, bins: int) -> RectangleSizes:
        """Sizes of the rectangles in such views."""
        return RectangleSizes(frames=frames, bins=bins, align=self.align, block_max=self.block_max)

    def check_fits(self, frames: int, bins: int) -> None:
        """Raise ValueError if no rectangles could hide the shares asked for in such views."""
        smaller = min(int(frames * self.block_max), int(bins * self.block_max))
        if smaller <= self.align:
            raise ValueError(
                f"block_max must allow rectangles larger than align ({self.align}) in views of "
                f"{frames} x {bins}, but got {self.block_max}"
            )
        sizes = self.sizes(frames, bins)
        highest = sizes.reach(frames) * sizes.reach(bins) / (frames * bins)
        for name in ("ratio", "alien_ratio"):
            if getattr(self, name) > highest:
                raise ValueError(
                    f"{name} must be at most {highest:.3f}, all that rectangles with align "
                    f"{self.align} and block_max {self.block_max} can hide in views of "
                    f"{frames} x {bins}, but got {getattr(self, name)}"
                )


class Corruption(NamedTuple):
    """What the student sees, where it was corrupted, and which views hold an alien."""

    corrupted_VBTF: Tensor
    mask_VBTF: Tensor
    is_alien_VB: Tensor


def corrupt(
    views_VBTF: Tensor,
    clip_ids: Sequence[str],
    config: MaskingConfig,
    *,
    seed: int,
    epoch: int,
    donor_group: int,
    num_frames_B: Tensor | None = None,
) -> Corruption:
    """Corrupt a batch of normalised views.

    Args:
        views_VBTF: Clean views of B clips.
        clip_ids: Names of the B clips, in the epoch's order.
        config: What to hide.
        seed: The trial's seed.
        epoch: Epoch, a part of each draw's key.
        donor_group: B consists of consecutive groups of this many clips; an alien comes from its
            clip's group, so it does not depend on how groups are dealt to workers.
        num_frames_B: Valid frames of each clip, which its views begin with; None: all frames are.

    Returns:
        Corrupted views, boolean mask (True = hidden), boolean (V, B) of views filled with an alien.

    Raises:
        ValueError: If B is not a multiple of `donor_group`.

    Source: ASiT (arXiv:2211.13189), Sec. III-B, with the released program's law: a coin per view
    decides the fill, and an alien view starts again from the clean view.
    """
    num_views, num_clips, frames, bins = views_VBTF.shape
    if num_clips % donor_group:
        raise ValueError(
            f"a batch must hold whole donor groups of {donor_group} clips, but got {num_clips}"
        )
    keys_VB = torch.stack(
        [clip_keys(seed, "mask", epoch, clip_ids, view) for view in range(num_views)]
    ).to(views_VBTF.device)
    coin_VB, share_VB, donor_VB = uniform(keys_VB, 3).unbind(-1)
    is_alien_VB = coin_VB < config.alien_probability
    highest_VB = torch.where(is_alien_VB, config.alien_ratio, config.ratio)
    lowest_VB = highest_VB.clamp(max=config.min_ratio)
    target_VB = lowest_VB + share_VB * (highest_VB - lowest_VB)
    mask_VBTF = gmml_masks(
        keys_VB.flatten(), target_VB.flatten(), frames=frames, bins=bins, config=config
    ).view(views_VBTF.shape)
    if config.spare_padding and num_frames_B is not None:
        frame_T = torch.arange(frames, device=views_VBTF.device)
        valid_BT = frame_T < num_frames_B.to(views_VBTF.device)[:, None]
        mask_VBTF = mask_VBTF & valid_BT.unsqueeze(-1)

    donor_BV = _donors(donor_VB.T, donor_group, self_alien=config.self_alien)
    view_index_V1 = torch.arange(num_views, device=views_VBTF.device)[:, None]
    alien_VBTF = views_VBTF[view_index_V1, donor_BV.T]
    fill_VBTF = alien_VBTF * is_alien_VB[..., None, None]  # zeros elsewhere
    return Corruption(torch.where(mask_VBTF, fill_VBTF, views_VBTF), mask_VBTF, is_alien_VB)


def gmml_masks(
    keys_B: Tensor, target_B: Tensor, *, frames: int, bins: int, config: MaskingConfig
) -> Tensor:
    """Cover each (frames, bins) view with rectangles until `target_B` of its pixels are hidden.

    A rectangle's corner is uniform over the view, its sides uniform between `align` and `block_max`
    of the view's, cut at the edges; with `align` > 1 corners are rounded down and sides to the
    nearest multiple.

    Args:
        keys_B: Keys from `seeding.clip_keys`.
        target_B: Share of pixels to hide, in [0, 1).
        frames: Height of a view.
        bins: Width of a view.
        config: Sizes and alignment of the rectangles.

    Returns:
        Boolean (B, frames, bins), True = hidden.

    Source: GMML (arXiv:2205.14986) as released with ASiT. There each mask is a Python loop; here
    the law is the same, and a draw depends on its key alone.
    """
    config.check_fits(frames, bins)
    goal_B = (target_B * (frames * bins)).ceil().long()
    return cover(keys_B, goal_B, config.sizes(frames, bins))


def _donors(draw_BV: Tensor, group: int, *, self_alien: bool) -> Tensor:
    """Index (B, V) of each view's donor in its group; another clip unless `self_alien`."""
    position_B1 = torch.arange(len(draw_BV), device=draw_BV.device)[:, None]
    own_B1 = position_B1 % group
    if self_alien:
        offset_BV = (draw_BV * group).long()
    elif group > 1:
        offset_BV = 1 + (draw_BV * (group - 1)).long()
    else:
        raise ValueError(f"donor_group must be at least 2 for aliens, but got {group}")
    return position_B1 - own_B1 + (own_B1 + offset_BV) % group
