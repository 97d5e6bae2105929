"""Positional embeddings fitted to another grid, against loops written from the descriptions."""

import pytest
import torch
from torch import Tensor

from asit_core import seeding
from asit_core.positions import adapt_positions


def _positions(columns: int, rows: int) -> Tensor:
    return torch.randn(1, 3, columns, rows, generator=seeding.stream(0, "positions", columns, rows))


def _linear(pos_1Dtf: Tensor, axis: int, length: int) -> Tensor:
    """Linear interpolation of one axis by loops: centres lie at halves, edges repeat (H13)."""
    old = pos_1Dtf.shape[axis]
    values = pos_1Dtf.movedim(axis, 0)
    resized = []
    for index in range(length):
        at = min(max((index + 0.5) * old / length - 0.5, 0.0), old - 1.0)
        low = int(at)
        high = min(low + 1, old - 1)
        resized.append(values[low] * (1 - (at - low)) + values[high] * (at - low))
    return torch.stack(resized).movedim(0, axis)


def _ast_axis(pos_1Dtf: Tensor, axis: int, length: int) -> Tensor:
    old = pos_1Dtf.shape[axis]
    if length > old:
        return _linear(pos_1Dtf, axis, length)
    first = old // 2 - length // 2
    return pos_1Dtf.index_select(axis, torch.arange(first, first + length))


@pytest.mark.parametrize("grid", [(5, 4), (4, 3), (3, 6), (9, 4), (9, 7), (8, 2), (1, 1)])
def test_ast_cuts_the_middle_or_interpolates_each_axis(grid):
    positions = _positions(5, 4)
    expected = _ast_axis(_ast_axis(positions, 2, grid[0]), 3, grid[1])
    torch.testing.assert_close(adapt_positions(positions, grid, how="ast"), expected)


@pytest.mark.parametrize("grid", [(5, 4), (4, 3), (9, 7)])
def test_interpolation_never_cuts(grid):
    positions = _positions(5, 4)
    expected = _linear(_linear(positions, 2, grid[0]), 3, grid[1])
    torch.testing.assert_close(adapt_positions(positions, grid, how="interpolate"), expected)


@pytest.mark.parametrize("columns", [8, 13])
def test_ssast_resizes_to_eight_rows_on_the_way(columns):
    positions = _positions(6, 4)
    expected = _linear(_linear(_linear(positions, 2, columns), 3, 8), 3, 5)
    torch.testing.assert_close(adapt_positions(positions, (columns, 5), how="ssast"), expected)


def test_ssast_keeps_what_fits_and_cuts_time_as_ast():
    positions = _positions(20, 8)
    torch.testing.assert_close(adapt_positions(positions, (20, 8), how="ssast"), positions)
    for grid in ((12, 8), (12, 12), (31, 12)):
        torch.testing.assert_close(
            adapt_positions(positions, grid, how="ssast"),
            adapt_positions(positions, grid, how="ast"),
        )


def test_ssast_cuts_as_many_rows_as_there_are_columns():
    """H13: the released bug. Seven of eight rows survive it; they are not the middle ones."""
    positions = _positions(20, 8)
    cut = adapt_positions(positions, (12, 7), how="ssast")
    assert torch.equal(cut, adapt_positions(positions, (12, 8), how="ast")[..., 1:8])
    square = adapt_positions(positions, (4, 4), how="ssast")
    assert torch.equal(square, adapt_positions(positions, (4, 4), how="ast"))
    with pytest.raises(ValueError, match=r"must leave 6 rows of .* 8 rows leaves 7; take"):
        adapt_positions(positions, (12, 6), how="ssast")
