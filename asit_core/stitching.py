"""Cuts a long row of columns into windows that overlap, and puts the windows' outputs together.

Shape legend: W windows, D width, t columns of patches in time, f rows of patches in frequency.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor


class WindowPlan(NamedTuple):
    """Which windows a clip is cut into, and which columns are kept of each.

    The border between two windows lies in the middle of what they share, so that a column is kept
    from the window that shows more of its surroundings.
    """

    start_W: list[int]  # first column
    kept_W: list[tuple[int, int]]  # columns kept, counted from the clip's start

    @classmethod
    def of(cls, num_columns: int, window: int, overlap: float) -> "WindowPlan":
        """Windows at equal distances, the last one where the clip ends.

        Args:
            num_columns: Columns of the clip, at least 1.
            window: Columns of a window; a shorter clip gets one window, which reaches past it.
            overlap: Share of a window that is also in the next, in [0, 1).
        """
        last = max(0, num_columns - window)
        hop = max(1, round(window * (1.0 - overlap)))
        start_W = [*range(0, last, hop), last]
        cuts = [(left + window + right) // 2 for left, right in pairwise(start_W)]
        return cls(start_W, list(pairwise([0, *cuts, num_columns])))

    def stitch(self, grid_WtfD: Tensor) -> Tensor:
        """(W, window, f, D) -> (t, f, D): each column of the clip once."""
        windows = zip(grid_WtfD, self.start_W, self.kept_W, strict=True)
        return torch.cat([grid[a - start : b - start] for grid, start, (a, b) in windows])
