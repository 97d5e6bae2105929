"""Positional embeddings of one grid of patches, fitted to another.

Shapes: `D` width, `t` columns of patches in time, `f` rows in frequency; a grid is `(t, f)`.
"""

from typing import Literal

from torch import Tensor
from torch.nn import functional

PositionAdaptation = Literal["interpolate", "ast", "ssast"]

_SSAST_ROWS = 8  # written into the released program, whatever the grid


def adapt_positions(pos_1Dtf: Tensor, grid: tuple[int, int], *, how: PositionAdaptation) -> Tensor:
    """Positional embeddings for `grid`, made from those of another grid.

    Args:
        pos_1Dtf: Learned embeddings on their own grid.
        grid: Columns and rows wanted.
        how: `interpolate` resizes both axes bilinearly. `ast` treats the axes one after the other,
            time first: cut to the middle where fewer are wanted, else bilinear. `ssast` does what
            the released SSAST program does: as `ast`, but a longer time axis is resized together
            with frequency to 8 rows, and the cut in frequency takes as many rows as there are
            *columns*.

    Returns:
        (1, D, t, f) for the new grid.

    Raises:
        ValueError: If SSAST's cut in frequency leaves another number of rows than wanted; there
            its program stops too.

    Source: AST (arXiv:2104.01778), Sec. 2.2; SSAST (arXiv:2110.09784), Sec. 4.1, and its released
    program.
    """
    match how:
        case "interpolate":
            return _resize(pos_1Dtf, grid)
        case "ast":
            num_rows = pos_1Dtf.shape[3]
            if grid[0] <= pos_1Dtf.shape[2]:
                pos_1Dtf = _middle(pos_1Dtf, 2, grid[0])
            else:
                pos_1Dtf = _resize(pos_1Dtf, (grid[0], num_rows))
            return _middle(pos_1Dtf, 3, grid[1]) if grid[1] <= num_rows else _resize(pos_1Dtf, grid)
        case "ssast":
            return _as_ssast(pos_1Dtf, grid)


def _as_ssast(pos_1Dtf: Tensor, grid: tuple[int, int]) -> Tensor:
    num_columns, num_rows = pos_1Dtf.shape[2:]
    if grid[0] < num_columns:
        pos_1Dtf = _middle(pos_1Dtf, 2, grid[0])
    else:
        pos_1Dtf = _resize(pos_1Dtf, (grid[0], _SSAST_ROWS))
    if grid[1] >= num_rows:
        return _resize(pos_1Dtf, grid)
    first = num_rows // 2 - grid[1] // 2
    pos_1Dtf = pos_1Dtf[..., first : first + grid[0]]
    if pos_1Dtf.shape[3] != grid[1]:
        raise ValueError(
            f"position_adaptation 'ssast' must leave {grid[1]} rows of patches, but its cut of "
            f"{num_rows} rows leaves {pos_1Dtf.shape[3]}; take 'ast'"
        )
    return pos_1Dtf


def _middle(pos_1Dtf: Tensor, dim: int, length: int) -> Tensor:
    return pos_1Dtf.narrow(dim, pos_1Dtf.shape[dim] // 2 - length // 2, length)


def _resize(pos_1Dtf: Tensor, grid: tuple[int, int]) -> Tensor:
    return functional.interpolate(pos_1Dtf, grid, mode="bilinear", align_corners=False)
