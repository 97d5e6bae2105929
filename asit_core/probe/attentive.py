"""The attentive probe: a few queries choose the tokens that speak for a clip.

Shape legend: N training clips, M test clips, T tokens, H queries, D features, C classes.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from asit_core.logistic_regression import few_threads
from asit_core.probe.inputs import check_can_learn, check_finite, checked_label
from asit_core.probe.pooled import fit
from asit_core.probe.token_pool import TokenPool
from asit_core.probe.validation import Groups

# Queries and classifier can stand in for each other, so the way to a minimum takes hundreds of
# steps; on planted tokens those past the first twenty changed no accuracy at many times the cost.
_STEPS_PER_PENALTY = 20


class AttentiveProbeResult(NamedTuple):
    """Outcome of `attentive_probe`."""

    scores_MC: Tensor  # float64 class probabilities of the test clips
    l2: float  # the penalty that the inner validation chose


@torch.no_grad()
def attentive_probe(
    train_NTD: Tensor,
    train_label: Tensor,
    test_MTD: Tensor,
    *,
    num_classes: int,
    num_queries: int = 4,
    train_valid_NT: Tensor | None = None,
    test_valid_MT: Tensor | None = None,
    group_N: Groups | None = None,
    seed: int = 0,
) -> AttentiveProbeResult:
    """Linear probe on clip vectors that attention draws from frozen tokens.

    Query h weighs all tokens of a clip by the softmax of their products and averages its own block
    of D / H features, as a head of multi-head attention does without projections. Zero queries give
    the mean of the tokens and with it a linear probe: that is where the fit starts, and what a
    strong penalty keeps. The penalty falls on queries and classifier and is chosen as
    `linear_probe` chooses it; under each at most 20 steps are made, so that the fit is a walk of
    fixed length and not a minimum. Tokens are standardised over all training clips. The fit reads
    all tokens about a thousand times.

    Args:
        train_NTD: Finite tokens of the training clips, such as the encoder's patch tokens; kept in
            their type and averaged in chunks, in float32 or, if they are float64, in that.
        train_label: Integer labels (N,), or boolean ones (N, num_classes), as for `linear_probe`.
        test_MTD: Finite tokens of the clips to classify; their T may differ.
        num_classes: C.
        num_queries: H, a divisor of D.
        train_valid_NT: Boolean, False for padding (anything finite); None if there is none.
        test_valid_MT: The same for the clips to classify.
        group_N: What must stay together in the inner validation.
        seed: Draws the order in which equally large groups are dealt to the folds.

    Returns:
        Float64 probabilities (M, C) on the CPU and the chosen penalty.

    Raises:
        ValueError: If shapes or labels do not fit, a token is not finite, a clip has no valid
            token, D is not a multiple of num_queries, or the labels leave nothing to learn.

    Source: attentive probing with several queries and no projections (arXiv:2506.10178), here
    solved in full batch.
    """
    if train_NTD.ndim != 3 or test_MTD.ndim != 3 or train_NTD.shape[2] != test_MTD.shape[2]:
        raise ValueError(
            "train_NTD and test_MTD must be (N, T, D) and (M, T, D), but got "
            f"{tuple(train_NTD.shape)} and {tuple(test_MTD.shape)}"
        )
    if num_queries < 1 or train_NTD.shape[2] % num_queries:
        raise ValueError(
            f"num_queries must divide the {train_NTD.shape[2]} features, but got {num_queries}"
        )
    label = checked_label(train_label, len(train_NTD), num_classes)
    check_can_learn(label)
    check_finite("train_NTD", train_NTD)
    check_finite("test_MTD", test_MTD)
    train_valid_NT = _checked_valid("train_valid_NT", train_valid_NT, train_NTD)
    test_valid_MT = _checked_valid("test_valid_MT", test_valid_MT, test_MTD)
    pool = TokenPool(train_NTD.cpu(), train_valid_NT, num_queries=num_queries)
    with few_threads(train_NTD.numel() * num_queries):
        model, l2 = fit(pool, label, group_N=group_N, seed=seed, max_steps=_STEPS_PER_PENALTY)
        test_pool = model.pool.over(test_MTD.cpu(), test_valid_MT)
        logits_MC = model.logits(test_pool, torch.arange(len(test_MTD)))
    return AttentiveProbeResult(model.likelihood.scores(logits_MC, num_classes), l2)


def _checked_valid(name: str, valid_NT: Tensor | None, token_NTD: Tensor) -> Tensor:
    if valid_NT is None:
        return torch.ones(token_NTD.shape[:2], dtype=torch.bool)
    if valid_NT.dtype != torch.bool or valid_NT.shape != token_NTD.shape[:2]:
        raise ValueError(
            f"{name} must be boolean {tuple(token_NTD.shape[:2])}, but got {valid_NT.dtype} "
            f"{tuple(valid_NT.shape)}"
        )
    empty_rows = (~valid_NT.any(dim=1)).nonzero()[:, 0].tolist()
    if empty_rows:
        raise ValueError(f"{name} must leave every clip a token, but row {empty_rows[0]} has none")
    return valid_NT.cpu()
