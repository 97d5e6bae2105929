"""GMML corruption: which pixels of a view are hidden, and what hides them.

Group masked model learning covers a view with random rectangles until a drawn share of its pixels
is hidden. The whole view is then filled with zeros, which after normalisation is the data set's
mean, or with another clip's content at the same place (an "alien"). Rectangles need not be aligned
with the encoder's patches.

Shapes: `V` views, `B` clips, `T` frames, `F` mel bins, `M` rectangles.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from asit_core.seeding import clip_keys, uniform

# Rectangles placed at once: as many as fit one power of four each into float32's exponent range.
_BLOCKS_PER_ROUND = 120
_DRAWS_PER_BLOCK = 4


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

    def check_fits(self, frames: int, bins: int) -> None:
        """Raise ValueError if no rectangles could hide the shares asked for in such views."""
        smaller = min(int(frames * self.block_max), int(bins * self.block_max))
        if smaller <= self.align:
            raise ValueError(
                f"block_max must allow rectangles larger than align ({self.align}) in views of "
                f"{frames} x {bins}, but got {self.block_max}"
            )
        highest = _reach(frames, self) * _reach(bins, self) / (frames * bins)
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
    all masks of a batch are drawn at once, with the same law.
    """
    config.check_fits(frames, bins)
    hidden_BTF = torch.zeros(len(keys_B), frames, bins, dtype=torch.bool, device=keys_B.device)
    goal_B = (target_B * (frames * bins)).ceil().long()
    num_draws = _BLOCKS_PER_ROUND * _DRAWS_PER_BLOCK
    # `corrupt` uses the first three draws of each key's stream.
    for skip in itertools.count(3, num_draws):
        draws_B = uniform(keys_B, num_draws, skip=skip)
        order_BTF = _first_cover(draws_B.unflatten(1, (-1, _DRAWS_PER_BLOCK)), frames, bins, config)
        order_BTF = order_BTF.masked_fill(hidden_BTF, -1)  # covered in an earlier round
        blocks_B = _blocks_needed(order_BTF.flatten(1), goal_B)
        hidden_BTF = order_BTF < blocks_B[:, None, None]
        if bool((hidden_BTF.flatten(1).sum(1) >= goal_B).all()):
            break
    return hidden_BTF


def _first_cover(draws_BM4: Tensor, frames: int, bins: int, config: MaskingConfig) -> Tensor:
    """Index (B, T, F) of the first of M rectangles that covers each pixel; M where none does.

    Rectangle m weighs 4 ** -m, so a pixel's total weight lies between 4 ** -m and 4/3 * 4 ** -m,
    where m is its first rectangle: the float's exponent names it. One batched matrix product
    replaces M passes over the view.
    """
    top_BM, height_BM = _intervals(draws_BM4[..., 0], draws_BM4[..., 2], frames, config)
    left_BM, width_BM = _intervals(draws_BM4[..., 1], draws_BM4[..., 3], bins, config)
    num_blocks = draws_BM4.shape[1]
    exponent_M = num_blocks - 2 * torch.arange(num_blocks, device=draws_BM4.device)
    rows_BMT = _inside(top_BM, height_BM, frames)
    columns_BMF = _inside(left_BM, width_BM, bins) * torch.exp2(exponent_M.float())[:, None]
    with torch.autocast(draws_BM4.device.type, enabled=False):
        weight_BTF = torch.bmm(rows_BMT.transpose(1, 2), columns_BMF)
    # frexp's mantissa lies in [0.5, 1), so its exponent is one more than the leading power of two.
    order_BTF = (num_blocks + 1 - torch.frexp(weight_BTF).exponent) // 2
    return order_BTF.masked_fill(weight_BTF == 0, num_blocks)


def _intervals(
    start_draw_BM: Tensor, length_draw_BM: Tensor, size: int, config: MaskingConfig
) -> tuple[Tensor, Tensor]:
    """Start and length along one side, integers as floats."""
    align, longest = config.align, int(size * config.block_max)
    start_BM = (start_draw_BM * (size - align)).floor()
    start_BM = (start_BM / align).floor() * align
    length_BM = align + (length_draw_BM * (longest - align)).floor()
    length_BM = torch.minimum(length_BM, size - start_BM)
    return start_BM, (length_BM / align).round() * align


def _reach(size: int, config: MaskingConfig) -> int:
    """Where the furthest interval that `_intervals` can draw ends: pixels past it stay visible."""
    align, longest = config.align, int(size * config.block_max) - 1  # draws stay below 1
    starts = range(0, size - align, align)
    ends = (start + round(min(longest, size - start) / align) * align for start in starts)
    return min(size, max(ends))


def _inside(start_BM: Tensor, length_BM: Tensor, size: int) -> Tensor:
    """(B, M, size) of ones inside each interval and zeros outside."""
    position = torch.arange(size, device=start_BM.device)
    start_BM1, length_BM1 = start_BM.unsqueeze(-1), length_BM.unsqueeze(-1)
    return ((position >= start_BM1) & (position < start_BM1 + length_BM1)).float()


def _blocks_needed(order_BP: Tensor, goal_B: Tensor) -> Tensor:
    """How many of a round's rectangles cover `goal_B` pixels (all, if too few)."""
    histogram = torch.zeros(
        len(order_BP), _BLOCKS_PER_ROUND + 2, dtype=torch.int64, device=order_BP.device
    )
    histogram.scatter_add_(1, order_BP.long() + 1, torch.ones_like(order_BP, dtype=torch.int64))
    covered_after = histogram.cumsum(1)[:, :-1]  # entry m: pixels covered by the first m rectangles
    return (covered_after < goal_B[:, None]).sum(1).clamp(max=_BLOCKS_PER_ROUND)


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
