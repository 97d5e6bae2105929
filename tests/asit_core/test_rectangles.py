"""The two ways of placing rectangles; `test_masking.py` compares the first with a plain loop."""

import pytest
import torch

from asit_core.rectangles import RectangleSizes, cover_at_once, cover_in_turn
from asit_core.seeding import clip_keys


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.95])
@pytest.mark.parametrize(
    ("frames", "bins", "align", "block_max"),
    [
        (48, 24, 1, 0.3),
        (48, 24, 1, 0.2),  # 0.95 takes hundreds of rectangles: several rounds of either way
        (48, 24, 1, 1.0),
        (48, 24, 4, 0.5),
        (50, 23, 5, 0.9),  # neither side is a multiple: rectangles may end past the view
        (592, 128, 1, 0.3),
    ],
)
def test_a_batch_at_once_hides_what_one_rectangle_after_another_hides(
    frames: int, bins: int, align: int, block_max: float, share: float
):
    sizes = RectangleSizes(frames=frames, bins=bins, align=align, block_max=block_max)
    reached = min(share, sizes.reach(frames) * sizes.reach(bins) / (frames * bins))
    keys = clip_keys(3, "mask", 0, [f"clip-{i}" for i in range(5)])
    goals = torch.full((5,), int(reached * frames * bins))
    goals[0] = 0  # in the same batch
    masks = cover_in_turn(keys, goals, sizes)
    assert torch.equal(cover_at_once(keys, goals, sizes), masks)
    assert (masks.flatten(1).sum(1) >= goals).all()
    assert not masks[0].any()


def test_a_view_does_not_depend_on_the_others_of_its_batch():
    sizes = RectangleSizes(frames=48, bins=24, align=1, block_max=0.2)
    keys = clip_keys(0, "mask", 0, ["a", "b", "c"])
    goals = torch.tensor([100, 1100, 600])  # one of them takes many rounds
    for place in (cover_in_turn, cover_at_once):
        whole = place(keys, goals, sizes)
        for view in range(3):
            alone = place(keys[view : view + 1], goals[view : view + 1], sizes)
            assert torch.equal(alone[0], whole[view])
