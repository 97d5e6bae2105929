"""The inner validation that chooses a probe's penalty: training clips only, groups kept whole.

Shape legend: N training clips, G groups, C classes, K folds.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from asit_core.likelihood import likelihood_of
from asit_core.seeding import numpy_stream

L2_PATH = tuple(10.0 ** (exponent / 2) for exponent in range(4, -7, -1))
"""Penalties tried by the fitted probes, strongest (100) first, weakest 0.001."""

DEFAULT_L2 = 0.1
"""Used when the training clips cannot be split, as with one clip (or recording) a class."""

_NUM_FOLDS = 4
_PATIENCE = 2  # the validation loss along the path has one valley; two rises in a row end the walk

Groups = Sequence[str] | Sequence[int] | Tensor


def choose_l2(validation_losses: Sequence[Callable[[float], float]]) -> float:
    """The penalty with the lowest loss, summed over the folds' functions of it."""
    if not validation_losses:
        return DEFAULT_L2
    best_l2, best_loss, num_rises = DEFAULT_L2, np.inf, 0
    for l2 in L2_PATH:
        loss = sum(validation_loss(l2) for validation_loss in validation_losses)
        if loss < best_loss:
            best_l2, best_loss, num_rises = l2, loss, 0
        else:
            num_rises += 1
        if num_rises == _PATIENCE:
            break
    return best_l2


def splits(label: Tensor, *, group_N: Groups | None, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Up to four pairs of boolean (N,): the clips to fit on and those to judge by.

    Folds are stratified by class. A fold is passed over where nothing can be learned from the rest
    or no held-out clip can be judged.
    """
    fold_N = torch.from_numpy(deal_folds(label.numpy(), _group_index(group_N, len(label)), seed))
    for fold in fold_N.unique():
        kept_N = fold_N != fold
        if not kept_N.any():
            continue
        likelihood = likelihood_of(label[kept_N])
        judged_N = ~kept_N & likelihood.can_judge(label)
        if likelihood.can_learn and judged_N.any():
            yield kept_N, judged_N


def deal_folds(label: np.ndarray, group_N: np.ndarray, seed: int) -> np.ndarray:
    """Fold of each clip: groups, largest first, each to the fold that has least of its classes.

    `label` is one class per clip (N,) or boolean (N, C); a clip of no class counts as one of a
    class of its own, so that such clips are spread too.
    """
    count_GC = _class_counts(label, group_N)
    share_GC = count_GC / count_GC.sum(axis=0)
    order_G = numpy_stream(seed, "probe_folds").permutation(len(count_GC))
    order_G = order_G[np.argsort(-count_GC.sum(axis=1)[order_G], kind="stable")]
    fold_G = np.zeros(len(count_GC), dtype=np.int64)
    load_KC = np.zeros((_NUM_FOLDS, share_GC.shape[1]))
    for group in order_G:
        # the second term sends groups of a class that is spread evenly to the emptiest fold
        crowding_K = load_KC @ count_GC[group] + 1e-6 * load_KC.sum(axis=1)
        fold_G[group] = crowding_K.argmin()
        load_KC[fold_G[group]] += share_GC[group]
    return fold_G[group_N]


def _class_counts(label: np.ndarray, group_N: np.ndarray) -> np.ndarray:
    """Clips of each group (row) that have each class (column) present."""
    if label.ndim == 2:
        belongs_NC = np.column_stack((label, ~label.any(axis=1)))
        belongs_NC = belongs_NC[:, belongs_NC.any(axis=0)].astype(float)
        count_GC = np.zeros((group_N.max() + 1, belongs_NC.shape[1]))
        np.add.at(count_GC, group_N, belongs_NC)
        return count_GC
    class_N = np.unique(label, return_inverse=True)[1]
    count_GC = np.zeros((group_N.max() + 1, class_N.max() + 1))
    np.add.at(count_GC, (group_N, class_N), 1)
    return count_GC


def _group_index(group_N: Groups | None, num_clips: int) -> np.ndarray:
    """Numbers the groups 0, 1, ...; without groups every clip is its own."""
    if group_N is None:
        return np.arange(num_clips)
    groups = group_N.tolist() if isinstance(group_N, Tensor) else list(group_N)
    if len(groups) != num_clips:
        raise ValueError(f"group_N must hold {num_clips} groups, but got {len(groups)}")
    return np.unique(np.array(groups), return_inverse=True)[1]
