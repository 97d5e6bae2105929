from itertools import pairwise

import numpy as np
import pytest

from asit_core.seeding import numpy_stream
from asit_platform.data.streaming import order
from asit_platform.data.streaming.order import (
    MAX_LANES,
    SHARDS_PER_LANE,
    WINDOW_SHARDS,
    EpochOrder,
    epoch_order,
    num_lanes,
)

CLIPS_PER_SHARD = 16


def shards_of(num_clips: int) -> np.ndarray:
    """Clips spread over shards as ids are: a shard's clips are no neighbours."""
    num_shards = -(-num_clips // CLIPS_PER_SHARD)
    return numpy_stream(0, "test_shards").permutation(np.arange(num_clips) % num_shards)


def draw(
    num_clips: int, *, batch_size: int, donor_group: int = 2, seed: int = 0, epoch: int = 0
) -> EpochOrder:
    shard_N = shards_of(num_clips)
    return epoch_order(
        np.arange(num_clips),
        shard_N,
        num_shards=len(np.unique(shard_N)),
        generator=numpy_stream(seed, "order", epoch),
        batch_size=batch_size,
        donor_group=donor_group,
    )


def order_of_one_window(shard: list[str], *, seed: int, epoch: int) -> np.ndarray:
    """The program that made the loss curves of small sets: all of its draws, in its order."""
    generator = numpy_stream(seed, "order", epoch)
    shards = generator.permutation(np.unique(np.asarray(shard, dtype=object)))
    window = np.flatnonzero(np.isin(np.asarray(shard, dtype=object), shards))
    return generator.permutation(window)


@pytest.mark.parametrize("num_clips", [40, 500, WINDOW_SHARDS * CLIPS_PER_SHARD])
def test_small_sets_keep_the_order_they_always_had(num_clips: int) -> None:
    names = [f"shards/fold1-{shard:05d}.parquet" for shard in shards_of(num_clips)]
    expected = order_of_one_window(names, seed=3, epoch=7)
    found = draw(num_clips, batch_size=12, seed=3, epoch=7).position_SB
    assert found.shape == (num_clips // 12, 12)
    assert np.array_equal(found.ravel(), expected[: found.size])


def test_the_order_of_one_epoch_is_this() -> None:
    found = draw(20, batch_size=10, seed=1, epoch=2).position_SB
    assert found.tolist() == [
        [6, 14, 9, 4, 15, 12, 13, 19, 1, 8],
        [7, 17, 16, 10, 2, 5, 11, 18, 3, 0],
    ]


@pytest.mark.parametrize(
    ("num_clips", "batch_size", "donor_group"), [(3000, 64, 2), (1037, 24, 4), (5000, 7, 7)]
)
def test_no_clip_twice_and_less_than_a_batch_left_over(
    num_clips: int, batch_size: int, donor_group: int
) -> None:
    found = draw(num_clips, batch_size=batch_size, donor_group=donor_group).position_SB
    assert found.shape == (num_clips // batch_size, batch_size)
    assert len(np.unique(found)) == found.size


def test_clips_left_over_are_others_in_the_next_epoch() -> None:
    left = [
        set(range(1037)) - set(draw(1037, batch_size=24, epoch=epoch).position_SB.ravel())
        for epoch in range(3)
    ]
    assert [len(clips) for clips in left] == [1037 % 24] * 3
    assert len(set.union(*left)) > 1037 % 24


def test_seed_and_epoch_change_a_large_order_and_nothing_else_does() -> None:
    settings = {"batch_size": 64, "donor_group": 2}
    once, again = draw(3000, **settings), draw(3000, **settings)
    assert np.array_equal(once.position_SB, again.position_SB)
    assert np.array_equal(once.window_SB, again.window_SB)
    for changed in ({"epoch": 1}, {"seed": 1}):
        assert not np.array_equal(once.position_SB, draw(3000, **settings, **changed).position_SB)


def test_a_step_takes_as_much_from_every_lane() -> None:
    shard_N = shards_of(6400)
    found = draw(6400, batch_size=64, donor_group=2).position_SB
    lanes = num_lanes(400, num_groups=32)
    assert lanes == 32
    of_lane = found.reshape(100, lanes, 2).transpose(1, 0, 2).reshape(lanes, -1)
    held = [set(shard_N[clips]) for clips in of_lane]
    # neighbours share the shard that the cut went through, the others none
    for lane, next_lane in pairwise(held):
        assert len(lane & next_lane) <= 1
    assert sum(map(len, held)) <= 400 + lanes - 1


def test_a_lane_is_shuffled_inside_windows_of_a_few_shards() -> None:
    num_clips, batch_size, donor_group = 6400, 16, 4
    shard_N = shards_of(num_clips)
    found = draw(num_clips, batch_size=batch_size, donor_group=donor_group)
    lanes = num_lanes(400, num_groups=4)
    assert lanes == 4
    for lane in range(lanes):
        columns = slice(lane * donor_group, (lane + 1) * donor_group)
        position, window = (
            found.position_SB[:, columns].ravel(),
            found.window_SB[:, columns].ravel(),
        )
        assert (np.diff(window) >= 0).all()
        shards = [set(shard_N[position[window == number]]) for number in np.unique(window)]
        assert all(len(held) <= WINDOW_SHARDS // lanes + 1 for held in shards)
        assert len(np.unique(shard_N[position[:64]])) > 4


@pytest.mark.parametrize(("batch_size", "donor_group"), [(64, 2), (16, 4), (256, 1)])
def test_a_step_needs_few_shards_at_hand(batch_size: int, donor_group: int) -> None:
    num_clips = 40000
    shard_N = shards_of(num_clips)
    found = draw(num_clips, batch_size=batch_size, donor_group=donor_group)
    shard_SB = shard_N[found.position_SB]
    of_window: dict[int, set[int]] = {}
    for window, shard in zip(found.window_SB.ravel(), shard_SB.ravel(), strict=True):
        of_window.setdefault(window, set()).add(shard)
    at_hand = [sum(len(of_window[w]) for w in set(step)) for step in found.window_SB.tolist()]
    lanes = num_lanes(len(np.unique(shard_N)), num_groups=batch_size // donor_group)
    bound = max(WINDOW_SHARDS, lanes)
    assert bound <= MAX_LANES
    assert np.median(at_hand) <= bound + lanes
    assert max(at_hand) <= 2 * bound


def test_lanes_divide_the_batch_and_are_worth_their_borders() -> None:
    assert num_lanes(33, num_groups=32) == 33 // SHARDS_PER_LANE
    assert num_lanes(79, num_groups=32) == 8
    assert num_lanes(31250, num_groups=32) == 32
    assert num_lanes(31250, num_groups=1024) == MAX_LANES
    assert num_lanes(31250, num_groups=97) == 97
    assert num_lanes(400, num_groups=97) == 1


def test_clips_drawn_twice_and_shards_without_any() -> None:
    shard_N = np.arange(100) // 2
    drawn = np.repeat([0, 1, 40, 41, 98], 8)
    found = epoch_order(
        drawn,
        shard_N[drawn],
        num_shards=50,
        generator=numpy_stream(0, "order", 0),
        batch_size=20,
        donor_group=1,
    )
    assert sorted(found.position_SB.ravel()) == drawn.tolist()


def test_windows_of_one_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "WINDOW_SHARDS", 1)
    shard_N = shards_of(160)
    found = draw(160, batch_size=16, donor_group=16)
    assert all(len(set(shard_N[step])) == 1 for step in found.position_SB)
    assert len(np.unique(found.window_SB)) == 10
