"""Which grid of patches a number of positions stands for.

A fine-tuned AST or SSAST does not say how its patches overlapped or how long its clips were; the
number of its positions does, as long as it was one of the published recipes. What else the number
would fit is kept beside the grid that was taken, to be shown.
"""

from typing import NamedTuple

PUBLISHED_FRAMES = (1024, 512, 128)
"""Clip lengths of AST's and SSAST's recipes: AudioSet, ESC-50, Speech Commands."""

_SQUARE, _SQUARE_STEPS = (16, 16), (16, 14, 12, 10)
_FRAMES, _FRAME_STEPS = 2, (2, 1)  # of a patch as high as the spectrogram


class PatchGrid(NamedTuple):
    """Clips of `frames` cut into `columns` x `rows` patches."""

    frames: int
    stride: tuple[int, int]
    columns: int
    rows: int
    others: tuple["PatchGrid", ...] = ()  # which as many positions fill too

    def __str__(self) -> str:
        """As in `12 rows x 101 columns (stride 10)`."""
        return f"{self.rows} rows x {self.columns} columns (stride {self.stride[0]})"

    @property
    def notes(self) -> tuple[str, ...]:
        """What was guessed, and the option that would say otherwise."""
        if not self.others:
            return ()
        listed = "; ".join(map(str, self.others))
        return (
            f"took {self} for the published recipe's, but as many positions also fill {listed}; "
            "if it is one of these, give stride and input_frames",
        )


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

    Returns:
        The grid; where neither option is given, one of a published recipe (a stride of 10, 12, 14
        or 16, or of 1 or 2 frames, and one of `PUBLISHED_FRAMES`), with the others that would fit.

    Raises:
        ValueError: If no grid fits, or the options given do not decide, or neither is given and
            the published recipes do not.
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
    is_told = stride is not None or input_frames is not None
    likely = grids if is_told else [g for g in grids if _is_published(g.stride, patch, input_bins)]
    lengths = PUBLISHED_FRAMES if input_frames is None else (input_frames,)
    fitted = [_with_length(grid, patch, lengths) for grid in likely]
    chosen = [grid for grid in fitted if grid is not None]
    if stride is not None and input_frames is None and not chosen:
        chosen = grids
    if len(chosen) == 1:
        others = () if is_told else tuple(g for g in grids if g.stride != chosen[0].stride)
        return chosen[0]._replace(others=others)
    size = f"{num_patches} positions of patches {patch[0]} x {patch[1]} over {input_bins} bins"
    if not grids or (input_frames is not None and not chosen):
        raise ValueError(
            f"{size} must fill a grid, but none fits"
            f"{'' if input_frames is None else f' clips of {input_frames} frames'}; "
            "give another stride, input_frames or input_bins"
        )
    listed = "; ".join(map(str, chosen or grids))
    raise ValueError(
        f"{size} must mean one grid of a published recipe, but may be {listed}; "
        "give stride or input_frames"
    )


def _is_published(stride: tuple[int, int], patch: tuple[int, int], input_bins: int) -> bool:
    if patch == _SQUARE:
        return stride[0] in _SQUARE_STEPS
    return patch == (_FRAMES, input_bins) and stride[0] in _FRAME_STEPS


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
