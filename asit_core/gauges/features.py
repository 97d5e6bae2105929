"""Gauges of clip vectors: how far apart they lie and how many dimensions they use.

Shape legend: N rows (clips or tokens), D features.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

_RANK_EPSILON = 1e-7  # RankMe's


@torch.no_grad()
def embedding_std(feature_ND: Tensor) -> Tensor:
    """Standard deviation of each dimension after L2-normalising the rows, averaged.

    Args:
        feature_ND: Features of N >= 2 clips, any scale.

    Returns:
        Scalar; 0 if all rows point the same way, about 1 / sqrt(D) if they fill the sphere.

    Raises:
        ValueError: If the input is not (N, D) with N >= 2.

    Source: SimSiam (arXiv:2011.10566), Sec. 4.1.
    """
    _check_features(feature_ND)
    return normalize(feature_ND.float(), dim=1).std(dim=0, correction=0).mean()


@torch.no_grad()
def effective_rank(feature_ND: Tensor) -> Tensor:
    """RankMe: the exponential of the entropy of the normalised singular values.

    Args:
        feature_ND: Features of N >= 2 clips, as they are (neither centred nor normalised).

    Returns:
        Scalar from 1 (all rows on one line) to min(N, D); NaN if a feature is not finite.

    Raises:
        ValueError: If the input is not (N, D) with N >= 2.

    Source: Garrido et al. 2023 (arXiv:2210.02885), Eq. 1-2.
    """
    _check_features(feature_ND)
    if not feature_ND.isfinite().all():
        return torch.tensor(math.nan, device=feature_ND.device)
    singular_values = torch.linalg.svdvals(feature_ND.float())
    share = singular_values / singular_values.sum().clamp_min(_RANK_EPSILON) + _RANK_EPSILON
    return torch.special.entr(share).sum().exp()


def _check_features(feature_ND: Tensor) -> None:
    if feature_ND.ndim != 2 or feature_ND.shape[0] < 2:
        raise ValueError(
            f"feature_ND must be (N, D) with N >= 2, but got {tuple(feature_ND.shape)}"
        )
