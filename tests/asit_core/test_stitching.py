from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asit_core.stitching import WindowPlan


@settings(deadline=None, max_examples=60)
@given(
    num_columns=st.integers(1, 200),
    window=st.integers(1, 40),
    overlap=st.floats(0.0, 1.0, exclude_max=True),
)
def test_every_column_is_kept_once_in_order(num_columns, window, overlap):
    plan = WindowPlan.of(num_columns, window, overlap)
    # each window says which column of the clip it shows; padding is shown as -1
    shown = torch.tensor(
        [
            [column if column < num_columns else -1 for column in range(start, start + window)]
            for start in plan.start_W
        ]
    )
    stitched = plan.stitch(shown[:, :, None, None])
    assert stitched.flatten().tolist() == list(range(num_columns))


@settings(deadline=None, max_examples=60)
@given(
    num_columns=st.integers(2, 200),
    window=st.integers(2, 40),
    overlap=st.floats(0.0, 1.0, exclude_max=True),
)
def test_windows_cover_the_clip_and_share_what_was_asked(num_columns, window, overlap):
    starts = WindowPlan.of(num_columns, window, overlap).start_W
    assert starts == sorted(set(starts))
    assert starts[-1] == max(0, num_columns - window)
    hop = max(1, round(window * (1 - overlap)))
    distances = [right - left for left, right in pairwise(starts)]
    assert all(distance == hop for distance in distances[:-1])
    assert all(1 <= distance <= hop for distance in distances[-1:])


@pytest.mark.parametrize(
    ("num_columns", "starts", "kept"),
    [
        (3, [0], [(0, 3)]),
        (8, [0], [(0, 8)]),
        (9, [0, 1], [(0, 4), (4, 9)]),
        (14, [0, 6], [(0, 7), (7, 14)]),
        (20, [0, 6, 12], [(0, 7), (7, 13), (13, 20)]),
    ],
)
def test_borders_lie_in_the_middle_of_what_windows_share(num_columns, starts, kept):
    assert WindowPlan.of(num_columns, 8, 0.25) == (starts, kept)
