"""The three losses of ASiT, and the running centres of its distillation.

Shapes: `V` views (two crops of each clip), `B` clips, `N` patches, `K` prototypes, `T` frames, `F`
mel bins.
Losses are means over all workers' clips: where a denominator depends on the masks drawn, the
workers' mean of it divides, so that averaging gradients over workers gives the gradient of the
global loss.
"""

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional


def mean_over_workers(value: Tensor) -> Tensor:
    """Mean of a tensor over all workers; itself without a process group. Carries no gradient."""
    value = value.detach()
    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    value = value.clone()
    distributed.all_reduce(value)
    return value / distributed.get_world_size()


def masked_l1(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute error over corrupted pixels.

    Args:
        prediction: Reconstruction, normalised log-mel units, any shape.
        target: Clean spectrogram, same shape and units.
        mask: Boolean, same shape; True where the student saw something else.

    Returns:
        Scalar >= 0; exactly 0 if nothing is masked.

    Raises:
        ValueError: If the shapes disagree.

    Source: ASiT (arXiv:2211.13189), Eq. 1, over all crops jointly.
    """
    if not prediction.shape == target.shape == mask.shape:
        raise ValueError(
            f"prediction, target and mask must have one shape, but got {tuple(prediction.shape)}, "
            f"{tuple(target.shape)} and {tuple(mask.shape)}"
        )
    weight = mask.to(prediction.dtype)
    # A weighted sum, not boolean indexing: no shape depends on the data.
    error = (weight * (prediction - target).abs()).sum()
    return error / mean_over_workers(weight.sum()).clamp(min=1.0)


def cross_entropy(
    student_logits: Tensor,
    teacher_logits: Tensor,
    center_K: Tensor,
    *,
    student_temperature: float,
    teacher_temperature: float,
    counts: Tensor | None = None,
) -> Tensor:
    """Cross entropy of the student against the centred, sharpened teacher.

    Args:
        student_logits: (..., K).
        teacher_logits: (..., K), aligned with the student's rows; no gradient flows into it.
        center_K: Running mean of teacher logits.
        student_temperature: Divides the student's logits, > 0.
        teacher_temperature: Divides the teacher's centred logits, > 0.
        counts: Boolean, of the rows' shape: the rows that count; None means all.

    Returns:
        Scalar >= 0: mean over the rows that count; exactly 0 if none does.

    Source: DINO (arXiv:2104.14294), Eq. 2 and Algorithm 1; in fp32 whatever the inputs' type.
    """
    teacher = teacher_probabilities(teacher_logits, center_K, teacher_temperature)
    student_log = functional.log_softmax(student_logits.float() / student_temperature, dim=-1)
    loss = -(teacher * student_log).sum(dim=-1)
    if counts is None:
        return loss.mean()
    weight = counts.to(loss.dtype)
    return (weight * loss).sum() / mean_over_workers(weight.sum()).clamp(min=1.0)


def teacher_probabilities(teacher_logits: Tensor, center_K: Tensor, temperature: float) -> Tensor:
    """Softmax of the teacher's centred logits (..., K), without gradient."""
    centered = (teacher_logits.detach().float() - center_K) / temperature
    return functional.softmax(centered, dim=-1)


def clip_distillation_loss(
    student_VBK: Tensor,
    teacher_VBK: Tensor,
    center_K: Tensor,
    *,
    student_temperature: float,
    teacher_temperature: float,
) -> Tensor:
    """Class tokens across views: the teacher's view of a clip teaches the student's other view.

    Returns:
        Scalar >= 0: mean of both directions.

    Raises:
        ValueError: Unless there are exactly two views.

    Source: ASiT (arXiv:2211.13189), global loss, Sec. III-D.
    """
    if len(student_VBK) != 2:
        raise ValueError(f"clip distillation needs two views, but got {len(student_VBK)}")
    return cross_entropy(
        student_VBK,
        teacher_VBK.flip(0),
        center_K,
        student_temperature=student_temperature,
        teacher_temperature=teacher_temperature,
    )


class Center(nn.Module):
    """Running mean of the teacher's logits, which keeps one prototype from winning everything.

    Source: DINO (arXiv:2104.14294), Eq. 4. ASiT keeps one for class tokens and one for patch
    tokens.
    """

    value_K: Tensor

    def __init__(self, num_prototypes: int, *, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value_K", torch.zeros(num_prototypes))

    @torch.no_grad()
    def update(self, teacher_logits: Tensor) -> None:
        """Move towards the mean of (..., K) logits over rows and workers, once a step."""
        batch_mean_K = mean_over_workers(teacher_logits.float().flatten(0, -2).mean(dim=0))
        self.value_K.lerp_(batch_mean_K, 1.0 - self.momentum)
