"""Grids recovered from a number of positions."""

import pytest

from asit_core.interop.grids import PatchGrid, find_grid

PATCH = (16, 16)
FRAME = (2, 128)


@pytest.mark.parametrize(
    ("num_patches", "patch", "expected"),
    [
        (512, PATCH, PatchGrid(1024, (16, 16), 64, 8)),
        (1212, PATCH, PatchGrid(1024, (10, 10), 101, 12)),
        (850, PATCH, PatchGrid(1024, (12, 12), 85, 10)),
        (657, PATCH, PatchGrid(1024, (14, 14), 73, 9)),
        (600, PATCH, PatchGrid(512, (10, 10), 50, 12)),
        (144, PATCH, PatchGrid(128, (10, 10), 12, 12)),
        (512, FRAME, PatchGrid(1024, (2, 128), 512, 1)),
        (1023, FRAME, PatchGrid(1024, (1, 128), 1023, 1)),
        (127, FRAME, PatchGrid(128, (1, 128), 127, 1)),
    ],
)
def test_published_recipes_are_recognised(num_patches, patch, expected):
    found = find_grid(num_patches, patch=patch, input_bins=128)
    assert found._replace(others=()) == expected
    assert bool(found.notes) == bool(found.others)


@pytest.mark.parametrize("frames", [100, 298, 998])
@pytest.mark.parametrize("step", [10, 16])
def test_a_length_or_a_stride_decides_what_positions_leave_open(frames, step):
    columns, rows = (frames - 16) // step + 1, (128 - 16) // step + 1
    by_both = find_grid(
        columns * rows, patch=PATCH, input_bins=128, stride=(step, step), input_frames=frames
    )
    assert by_both == PatchGrid(frames, (step, step), columns, rows)
    by_stride = find_grid(columns * rows, patch=PATCH, input_bins=128, stride=(step, step))
    assert (by_stride.columns, by_stride.rows) == (columns, rows)
    assert frames - step < by_stride.frames <= frames or by_stride.frames in (1024, 512, 128)


def test_one_row_has_no_step_in_frequency():
    by_number = find_grid(39, patch=FRAME, input_bins=128, stride=(1, 1))
    assert by_number == PatchGrid(40, (1, 128), 39, 1)


@pytest.mark.parametrize(
    ("num_patches", "patch", "others"),
    [
        (1212, PATCH, []),  # AudioSet at stride 10: 12 rows x 101 columns and nothing else
        (144, PATCH, ["8 rows x 18 columns (stride 16)", "9 rows x 16 columns (stride 14)"]),
        (512, FRAME, ["1 rows x 512 columns (stride 1)"]),
    ],
)
def test_a_guess_says_what_else_would_fit(num_patches, patch, others):
    notes = find_grid(num_patches, patch=patch, input_bins=128).notes
    assert len(notes) == bool(others)
    for other in others:
        assert other in notes[0]
        assert "give stride and input_frames" in notes[0]
    chosen = find_grid(num_patches, patch=patch, input_bins=128)
    told = find_grid(num_patches, patch=patch, input_bins=128, stride=chosen.stride)
    assert told == chosen._replace(others=())
    assert told.notes == ()


@pytest.mark.parametrize(
    ("num_patches", "patch"),
    [(15 * 8, PATCH), (1024 // 8 * 16, (8, 8)), (341, (3, 128)), (256, (4, 128))],
)
def test_only_published_recipes_are_guessed(num_patches, patch):
    """120 positions fill grids of several strides, none of a published length."""
    with pytest.raises(ValueError, match=r"one grid of a published recipe, but may be .*; give st"):
        find_grid(num_patches, patch=patch, input_bins=128)


def test_what_stays_open_lists_the_grids_and_the_options():
    with pytest.raises(ValueError, match=r"may be .*12 rows x 5 columns .*give stride or"):
        find_grid(60, patch=PATCH, input_bins=128)


def test_what_cannot_be_says_so():
    with pytest.raises(ValueError, match=r"513 positions .* none fits clips of 1024 frames; give"):
        find_grid(513, patch=PATCH, input_bins=128, input_frames=1024)
    with pytest.raises(ValueError, match=r"513 positions .* none fits; give"):
        find_grid(513, patch=PATCH, input_bins=128, stride=(16, 16))
    with pytest.raises(ValueError, match=r"input_bins must be at least 16"):
        find_grid(64, patch=PATCH, input_bins=8)
