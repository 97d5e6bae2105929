"""Random rectangles placed one after another until enough of a view is hidden.

Two ways to the same masks from the same draws. On a CPU the rectangles are placed in turn, which
costs little more than writing the hidden pixels; a GPU places those of a whole batch at once.

Shapes: `B` views, `T` frames, `F` mel bins, `P` pixels, `M` rectangles.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from asit_core.seeding import uniform

# Rectangles placed at once: as many as fit one power of four each into float32's exponent range.
_BLOCKS_AT_ONCE = 120
_BLOCKS_IN_TURN = 64  # drawn at a time for a view that the first ones did not cover
_COUNT_MARGIN = 1.5  # corners near the edges cut rectangles, and views differ
_NEARLY_ALL = 0.999
_DRAWS_PER_BLOCK = 4
_FIRST_DRAW = 3  # `masking.corrupt` uses the first three draws of each key's stream


@dataclass(frozen=True, kw_only=True, slots=True)
class RectangleSizes:
    """What rectangles are drawn in: views of `frames` x `bins`, no side above `block_max` of it."""

    frames: int
    bins: int
    align: int
    block_max: float

    def longest(self, size: int) -> int:
        """Length that a side stays below, along a side of the view."""
        return int(size * self.block_max)

    def reach(self, size: int) -> int:
        """Where the furthest interval that can be drawn ends: pixels past it stay visible."""
        longest = self.longest(size) - 1  # draws stay below 1
        starts = range(0, size - self.align, self.align)
        ends = (
            start + round(min(longest, size - start) / self.align) * self.align for start in starts
        )
        return min(size, max(ends))

    def likely_count(self, goal: int) -> int:
        """About as many rectangles as hide `goal` pixels, so that few views need more.

        Were they dropped anywhere, n of them would leave (1 - mean area / view) ** n visible.
        """
        sides = [(self.align + self.longest(size)) / 2 for size in (self.frames, self.bins)]
        hidden = min(math.prod(sides) / (self.frames * self.bins), _NEARLY_ALL)
        share = min(goal / (self.frames * self.bins), _NEARLY_ALL)
        return math.ceil(_COUNT_MARGIN * math.log1p(-share) / math.log1p(-hidden)) + 1


def cover(keys_B: Tensor, goal_B: Tensor, sizes: RectangleSizes) -> Tensor:
    """Place rectangles until `goal_B` pixels of each view are hidden, and no rectangle more.

    Args:
        keys_B: Keys from `seeding.clip_keys`.
        goal_B: Pixels to hide, within reach.
        sizes: The views and the rectangles' sides.

    Returns:
        Boolean (B, frames, bins) on the keys' device, True = hidden.
    """
    place = cover_in_turn if keys_B.device.type == "cpu" else cover_at_once
    return place(keys_B, goal_B, sizes)


def cover_in_turn(keys_B: Tensor, goal_B: Tensor, sizes: RectangleSizes) -> Tensor:
    """As `cover`, view by view and rectangle by rectangle; on the CPU."""
    hidden_BTF = torch.zeros(len(keys_B), sizes.frames, sizes.bins, dtype=torch.bool)
    num_drawn = sizes.likely_count(int(goal_B.max()))
    drawn_BM4 = _edges(keys_B, num_drawn, _FIRST_DRAW, sizes)
    for view, (mask_TF, goal) in enumerate(zip(hidden_BTF.numpy(), goal_B.tolist(), strict=True)):
        more = _more_edges(keys_B[view : view + 1], num_drawn, sizes)
        _hide(mask_TF, goal, itertools.chain(drawn_BM4[view], more))
    return hidden_BTF


def cover_at_once(keys_B: Tensor, goal_B: Tensor, sizes: RectangleSizes) -> Tensor:
    """As `cover`, without a loop over views or rectangles; on any device."""
    hidden_BTF = torch.zeros(
        len(keys_B), sizes.frames, sizes.bins, dtype=torch.bool, device=keys_B.device
    )
    for skip in itertools.count(_FIRST_DRAW, _BLOCKS_AT_ONCE * _DRAWS_PER_BLOCK):
        order_BTF = _first_cover(keys_B, skip, sizes)
        order_BTF = order_BTF.masked_fill(hidden_BTF, -1)  # covered in an earlier round
        blocks_B = _blocks_needed(order_BTF.flatten(1), goal_B)
        hidden_BTF = order_BTF < blocks_B[:, None, None]
        if bool((hidden_BTF.flatten(1).sum(1) >= goal_B).all()):
            break
    return hidden_BTF


def _hide(mask_TF: np.ndarray, goal: int, rectangles: Iterator[Sequence[int]]) -> None:
    missing = goal
    while missing > 0:
        top, bottom, left, right = next(rectangles)
        mask_TF[top:bottom, left:right] = True
        missing -= (bottom - top) * (right - left)
        if missing <= 0:  # at best: rectangles overlap, so now it pays to count
            missing = goal - int(np.count_nonzero(mask_TF))


def _edges(keys_B: Tensor, num: int, skip: int, sizes: RectangleSizes) -> list[list[list[int]]]:
    """Top, bottom, left and right of `num` rectangles of each view."""
    top_BM, height_BM, left_BM, width_BM = _draw(keys_B, num, skip, sizes)
    edges = (top_BM, top_BM + height_BM, left_BM, left_BM + width_BM)
    return torch.stack(edges, dim=-1).int().tolist()


def _more_edges(key_1: Tensor, num_drawn: int, sizes: RectangleSizes) -> Iterator[list[int]]:
    """The rectangles of one view after the first `num_drawn`."""
    first = _FIRST_DRAW + num_drawn * _DRAWS_PER_BLOCK
    for skip in itertools.count(first, _BLOCKS_IN_TURN * _DRAWS_PER_BLOCK):
        yield from _edges(key_1, _BLOCKS_IN_TURN, skip, sizes)[0]


def _draw(
    keys_B: Tensor, num: int, skip: int, sizes: RectangleSizes
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top, height, left and width (B, M): integers as floats."""
    draws_BM4 = uniform(keys_B, num * _DRAWS_PER_BLOCK, skip=skip)
    draws_BM4 = draws_BM4.unflatten(1, (-1, _DRAWS_PER_BLOCK))
    top_BM, height_BM = _intervals(draws_BM4[..., 0], draws_BM4[..., 2], sizes.frames, sizes)
    left_BM, width_BM = _intervals(draws_BM4[..., 1], draws_BM4[..., 3], sizes.bins, sizes)
    return top_BM, height_BM, left_BM, width_BM


def _intervals(
    start_draw_BM: Tensor, length_draw_BM: Tensor, size: int, sizes: RectangleSizes
) -> tuple[Tensor, Tensor]:
    """Start and length along one side."""
    align, longest = sizes.align, sizes.longest(size)
    start_BM = (start_draw_BM * (size - align)).floor()
    start_BM = (start_BM / align).floor() * align
    length_BM = align + (length_draw_BM * (longest - align)).floor()
    length_BM = torch.minimum(length_BM, size - start_BM)
    return start_BM, (length_BM / align).round() * align


def _first_cover(keys_B: Tensor, skip: int, sizes: RectangleSizes) -> Tensor:
    """Index (B, T, F) of the first of M rectangles that covers each pixel; M where none does.

    Rectangle m weighs 4 ** -m, so a pixel's total weight lies between 4 ** -m and 4/3 * 4 ** -m,
    where m is its first rectangle: the float's exponent names it. One batched matrix product
    replaces M passes over the view.
    """
    num_blocks = _BLOCKS_AT_ONCE
    top_BM, height_BM, left_BM, width_BM = _draw(keys_B, num_blocks, skip, sizes)
    exponent_M = num_blocks - 2 * torch.arange(num_blocks, device=keys_B.device)
    rows_BMT = _inside(top_BM, height_BM, sizes.frames)
    columns_BMF = _inside(left_BM, width_BM, sizes.bins) * torch.exp2(exponent_M.float())[:, None]
    with torch.autocast(keys_B.device.type, enabled=False):
        weight_BTF = torch.bmm(rows_BMT.transpose(1, 2), columns_BMF)
    # frexp's mantissa lies in [0.5, 1), so its exponent is one more than the leading power of two.
    order_BTF = (num_blocks + 1 - torch.frexp(weight_BTF).exponent) // 2
    return order_BTF.masked_fill(weight_BTF == 0, num_blocks)


def _inside(start_BM: Tensor, length_BM: Tensor, size: int) -> Tensor:
    """(B, M, size) of ones inside each interval and zeros outside."""
    position = torch.arange(size, device=start_BM.device)
    start_BM1, length_BM1 = start_BM.unsqueeze(-1), length_BM.unsqueeze(-1)
    return ((position >= start_BM1) & (position < start_BM1 + length_BM1)).float()


def _blocks_needed(order_BP: Tensor, goal_B: Tensor) -> Tensor:
    """How many of a round's rectangles cover `goal_B` pixels (all, if too few)."""
    histogram = torch.zeros(
        len(order_BP), _BLOCKS_AT_ONCE + 2, dtype=torch.int64, device=order_BP.device
    )
    histogram.scatter_add_(1, order_BP.long() + 1, torch.ones_like(order_BP, dtype=torch.int64))
    covered_after = histogram.cumsum(1)[:, :-1]  # entry m: pixels covered by the first m rectangles
    return (covered_after < goal_B[:, None]).sum(1).clamp(max=_BLOCKS_AT_ONCE)
