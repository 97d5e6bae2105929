"""Which grid of patches a number of positions stands for.

A fine-tuned AST or SSAST does not say how its patches overlapped or how long its clips were; the
number of its positions does, as long as they were one of the lengths the published recipes use.
"""

from typing import NamedTuple

PUBLISHED_FRAMES = (1024, 512, 128)
"""Clip lengths of AST's and SSAST's recipes: AudioSet, ESC-50, Speech Commands."""


class PatchGrid(NamedTuple):
    """Clips of `frames` cut into `columns` x `rows` patches."""

    frames: int
    stride: tuple[int, int]
    columns: int
    rows: int

    def __str__(self) -> str:
        """As in `12 rows x 101 columns (stride 10)`."""
        return f"{self.rows} rows x {self.columns} columns (stride {self.stride[0]})"


def find_grid(
    num_patches: int,
    *,
    patch: tuple[int, int],
    input_bins: int,
    stride: tuple[int, int] | None = None,
    input_frames: int | None = None,
) -> PatchGrid:
    """The grid that `num_patches` positions stand for.

    Args:
        num_patches: Positions, without the class tokens'.
        patch: Frames and bins of a patch.
        input_bins: Mel bins.
        stride: Frames and bins from patch to patch, where known; else both axes of square patches
            are taken to overlap alike, and patches as high as the spectrogram in time alone.
        input_frames: Length of the clips, where known.

    Raises:
        ValueError: If no grid fits, or several do and neither option decides.
    """
    if patch[1] > input_bins:
        raise ValueError(f"input_bins must be at least {patch[1]} (a patch), but got {input_bins}")
    if stride is not None and patch[1] == input_bins:
        stride = (stride[0], patch[1])  # one row has no step
    strides = [stride] if stride is not None else _strides(patch, input_bins)
    grids = [
        grid
        for candidate in strides
        if (grid := _grid(num_patches, patch, input_bins, candidate)) is not None
    ]
    lengths = PUBLISHED_FRAMES if input_frames is None else (input_frames,)
    fitted = [_with_length(grid, patch, lengths) for grid in grids]
    chosen = [grid for grid in fitted if grid is not None]
    if input_frames is None and not chosen and len(grids) == 1:
        chosen = grids
    if len(chosen) == 1:
        return chosen[0]
    size = f"{num_patches} positions of patches {patch[0]} x {patch[1]} over {input_bins} bins"
    if not grids or (input_frames is not None and not chosen):
        raise ValueError(
            f"{size} must fill a grid, but none fits"
            f"{'' if input_frames is None else f' clips of {input_frames} frames'}; "
            "give another stride, input_frames or input_bins"
        )
    listed = "; ".join(map(str, chosen or grids))
    raise ValueError(f"{size} must mean one grid, but may be {listed}; give stride or input_frames")


def _strides(patch: tuple[int, int], input_bins: int) -> list[tuple[int, int]]:
    if patch[1] == input_bins:
        return [(step, patch[1]) for step in range(patch[0], 0, -1)]
    return [(step, step) for step in range(min(patch), 0, -1)]


def _grid(
    num_patches: int, patch: tuple[int, int], input_bins: int, stride: tuple[int, int]
) -> PatchGrid | None:
    rows = (input_bins - patch[1]) // stride[1] + 1
    columns, rest = divmod(num_patches, rows)
    if rest or not columns:
        return None
    return PatchGrid((columns - 1) * stride[0] + patch[0], stride, columns, rows)


def _with_length(
    grid: PatchGrid, patch: tuple[int, int], lengths: tuple[int, ...]
) -> PatchGrid | None:
    """The grid of the first of `lengths` that is cut into as many columns."""
    for frames in lengths:
        if frames >= patch[0] and (frames - patch[0]) // grid.stride[0] + 1 == grid.columns:
            return grid._replace(frames=frames)
    return None
