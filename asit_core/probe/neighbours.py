"""k nearest neighbours on clip vectors: nothing is fitted.

Shape legend: N training clips, M test clips, D features, C classes, k neighbours.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from asit_core.probe.inputs import checked_vectors

_CHUNK = 1024


@torch.no_grad()
def knn(
    train_ND: Tensor,
    train_label: Tensor,
    test_MD: Tensor,
    *,
    num_classes: int,
    k: int = 10,
    temperature: float = 0.07,
) -> Tensor:
    """Weighted vote of the k nearest training clips by cosine similarity.

    Args:
        train_ND: Finite features of the training clips, any scale.
        train_label: Integer labels (N,) in [0, num_classes), or boolean ones (N, num_classes).
        test_MD: Finite features of the clips to classify.
        num_classes: C.
        k: Neighbours, at most N.
        temperature: A neighbour of similarity s votes with weight exp(s / temperature).

    Returns:
        Float64 shares of the vote on the CPU, (M, C), in [0, 1]; with one label per clip the rows
        sum to 1, with several a neighbour votes for each of its classes.

    Raises:
        ValueError: If shapes or labels do not fit, a feature is not finite, k is not in [1, N] or
            the temperature is not positive.

    Source: Wu et al. 2018 (arXiv:1805.01978), Eq. 6-7, as used by DINO (arXiv:2104.14294).
    """
    train_ND, train_label, test_MD = checked_vectors(train_ND, train_label, test_MD, num_classes)
    if not 1 <= k <= len(train_ND):
        raise ValueError(f"k must be in [1, {len(train_ND)}] (the training clips), but got {k}")
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, but got {temperature}")
    train_ND = normalize(train_ND, dim=1)
    scores_MC = torch.zeros(len(test_MD), num_classes, dtype=torch.float64)
    for start in range(0, len(test_MD), _CHUNK):
        rows = slice(start, start + _CHUNK)
        similarity_MN = normalize(test_MD[rows], dim=1) @ train_ND.T
        nearest_Mk, index_Mk = similarity_MN.topk(k, dim=1)
        # The softmax over neighbours is the vote divided by its sum, and cannot overflow.
        vote_Mk = torch.softmax(nearest_Mk / temperature, dim=1)
        if train_label.ndim == 1:
            scores_MC[rows].scatter_add_(1, train_label[index_Mk], vote_Mk)
        else:
            voted_MkC = train_label[index_Mk].double()
            scores_MC[rows] = torch.einsum("mk,mkc->mc", vote_Mk, voted_MkC)
    return scores_MC
