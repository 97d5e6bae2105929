"""Targets and losses of fine-tuning: soft or hard labels, one or several per clip.

A target is a row of class weights in [0, 1]. A mix's row holds fractions, and both losses take them
as they are: the released AST and SSAST programs round them down and take the largest for cross
entropy, which turns every mixed clip into class 0.

Shapes: `B` clips, `C` classes.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

LossKind = Literal["bce", "ce"]


def multi_hot(labels: Sequence[Sequence[int]], *, num_classes: int) -> Tensor:
    """Class numbers of each clip as a float row of zeros and ones (B, C).

    Raises:
        ValueError: If a class number is out of range.
    """
    target_BC = torch.zeros(len(labels), num_classes)
    for row, classes in enumerate(labels):
        for index in classes:
            if not 0 <= index < num_classes:
                raise ValueError(
                    f"labels of clip {row} must be in [0, {num_classes}), but got {index}"
                )
            target_BC[row, index] = 1.0
    return target_BC


def present_classes(labels: Sequence[Sequence[int]], *, num_classes: int) -> Tensor:
    """Numbers of the classes that some clip holds, ascending, int64.

    A class that no training clip holds has nothing to teach but "never"; `classification_loss`
    leaves it out when it is given these.

    Raises:
        ValueError: If a class number is out of range.
    """
    held_C = multi_hot(labels, num_classes=num_classes).any(dim=0)
    return held_C.nonzero().squeeze(1)


def classification_loss(
    logits_BC: Tensor,
    target: Tensor,
    *,
    kind: LossKind,
    label_smoothing: float = 0.0,
    present: Tensor | None = None,
) -> Tensor:
    """Cross entropy over classes (`ce`), or binary cross entropy of each class (`bce`).

    Args:
        logits_BC: Raw outputs, before any sigmoid or softmax.
        target: Class numbers (B,) int64, or class weights (B, C) in [0, 1].
        kind: `ce` for one label a clip: a row's weights should sum to 1. `bce` for several.
        label_smoothing: Share of each target spread over all classes.
        present: Classes to learn, from `present_classes`; None means all. The others get no
            gradient, and targets must hold none of them.

    Returns:
        Scalar >= 0 in fp32: `ce` is a mean over clips, `bce` over clips and classes.

    Raises:
        ValueError: If the target's shape does not fit, or it has weight on a class not present.

    Source: smoothing (1 - s) y + s / C (arXiv:1512.00567, Sec. 7), for `bce` as in
    arXiv:2110.00476.
    """
    num_classes = logits_BC.shape[-1]
    is_hard = target.ndim == 1
    if target.shape != (logits_BC.shape[:1] if is_hard else logits_BC.shape):
        raise ValueError(
            f"target must be (B,) class numbers or (B, C) weights for logits of shape "
            f"{tuple(logits_BC.shape)}, but got shape {tuple(target.shape)}"
        )
    logits_BC = logits_BC.float()
    if kind == "ce" and is_hard and present is None:
        return functional.cross_entropy(logits_BC, target, label_smoothing=label_smoothing)
    target_BC = functional.one_hot(target, num_classes) if is_hard else target
    target_BC = target_BC.float()
    if present is not None:
        absent_BC = target_BC.index_fill(1, present.to(target_BC.device), 0.0)
        if absent_BC.any():
            row, index = absent_BC.nonzero()[0].tolist()
            raise ValueError(
                f"target must have no weight on classes that are not present, but clip {row} has "
                f"{float(target_BC[row, index]):.3g} on class {index}"
            )
        logits_BC, target_BC = logits_BC[:, present], target_BC[:, present]
    target_BC = (1.0 - label_smoothing) * target_BC + label_smoothing / target_BC.shape[1]
    if kind == "ce":
        return -(target_BC * logits_BC.log_softmax(dim=-1)).sum(dim=-1).mean()
    return functional.binary_cross_entropy_with_logits(logits_BC, target_BC)


def probabilities(logits_BC: Tensor, *, kind: LossKind) -> Tensor:
    """What a model trained with this loss predicts: softmax over classes, or a sigmoid of each.

    The losses take logits, never these: the released AST validates with a sigmoid of a sigmoid, and
    its validation loss stands still near ln 2.
    """
    return logits_BC.float().softmax(dim=-1) if kind == "ce" else logits_BC.float().sigmoid()
