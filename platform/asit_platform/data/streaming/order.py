"""In which order an epoch meets its clips: worked out from the clip table, before anything is read.

Up to `WINDOW_SHARDS` shards (about 2,000 clips) the order is a permutation of all clips, cut into
batches.

Past that, whoever streams must not need all shards at once, nor every worker all of them. The
shards are permuted, and the clips inside each; what comes out is cut into equal lanes, and a lane's
clips are permuted again inside a window of neighbouring shards. Every step takes as many clips from
each lane. So a batch holds clips of as many places of the data as there are lanes, and a worker,
which owns lanes, reads the shards of its own. At any moment a step draws from one window a lane, so
that all workers together hold at most `max(WINDOW_SHARDS, lanes)` shards, at most `MAX_LANES`, and
one a lane while a lane passes from a window to the next.

Nothing here depends on the number of workers, or on whether clips are streamed.

Shape legend: N clips of the epoch, S steps, B clips of a step, L lanes, P clips of a lane.
"""

from typing import NamedTuple

import numpy as np

WINDOW_SHARDS = 32
MAX_LANES = 128
# A lane begins and ends inside a shard, which its neighbour reads too: an eighth more at worst.
SHARDS_PER_LANE = 8


class EpochOrder(NamedTuple):
    """The steps of an epoch.

    Attributes:
        position_SB: Positions in the clip table.
        window_SB: Number of the window each was drawn from; clips of one shard that are due in
            two windows are worth reading twice.
    """

    position_SB: np.ndarray
    window_SB: np.ndarray


def epoch_order(
    position_N: np.ndarray,
    shard_N: np.ndarray,
    *,
    num_shards: int,
    generator: np.random.Generator,
    batch_size: int,
    donor_group: int,
) -> EpochOrder:
    """Order the clips of an epoch.

    Args:
        position_N: The clips, as positions in the clip table; one may come several times.
        shard_N: Number of the shard that each lies in.
        num_shards: Shards of the folds, also those that none of the clips lies in.
        generator: A fresh one of the seed and the epoch.
        batch_size: Clips of a step; at most N.
        donor_group: Consecutive clips of a step that must come from one lane.

    Returns:
        N // batch_size steps; which clips are left over differs from epoch to epoch.
    """
    rank_of_shard = np.empty(num_shards, dtype=np.int64)
    rank_of_shard[generator.permutation(num_shards)] = np.arange(num_shards)
    num_steps = len(position_N) // batch_size
    if num_shards <= WINDOW_SHARDS:
        order = generator.permutation(len(position_N))[: num_steps * batch_size]
        position_SB = position_N[order].reshape(num_steps, batch_size)
        return EpochOrder(position_SB, np.zeros_like(position_SB))
    lanes = num_lanes(num_shards, num_groups=batch_size // donor_group)
    rank_N = rank_of_shard[shard_N]
    order_N = np.argsort(rank_N + generator.random(len(rank_N)), kind="stable")
    order_LP = order_N[: num_steps * batch_size].reshape(lanes, -1)
    order_LP, window_LP = _shuffle_in_windows(order_LP, rank_N[order_LP], generator)
    position_SB = _one_step_a_row(position_N[order_LP], num_steps)
    return EpochOrder(position_SB, _one_step_a_row(window_LP, num_steps))


def num_lanes(num_shards: int, *, num_groups: int) -> int:
    """Lanes of an epoch: the largest divisor of the donor groups in a batch within both limits."""
    limit = max(1, min(MAX_LANES, num_shards // SHARDS_PER_LANE))
    return max(lanes for lanes in range(1, limit + 1) if num_groups % lanes == 0)


def _shuffle_in_windows(
    order_LP: np.ndarray, rank_LP: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Permute each lane inside its windows; returns the numbers of the windows too."""
    shards_a_window = max(1, WINDOW_SHARDS // len(order_LP))
    piece_LP = np.zeros_like(rank_LP)
    np.cumsum(np.diff(rank_LP, axis=1) != 0, axis=1, out=piece_LP[:, 1:])
    window_LP = piece_LP // shards_a_window
    shuffled_LP = np.argsort(window_LP + generator.random(window_LP.shape), axis=1, kind="stable")
    windows_a_lane = window_LP.max() + 1
    number_LP = window_LP + windows_a_lane * np.arange(len(order_LP))[:, None]
    return np.take_along_axis(order_LP, shuffled_LP, axis=1), number_LP


def _one_step_a_row(values_LP: np.ndarray, num_steps: int) -> np.ndarray:
    """(L, P) -> (S, B): as many clips from every lane in each step, lane by lane."""
    values_LSG = values_LP.reshape(len(values_LP), num_steps, -1)
    return values_LSG.transpose(1, 0, 2).reshape(num_steps, -1)
