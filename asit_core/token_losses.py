"""The losses on masked patches of SSAST, MAE-AST and MaskSpec.

Their target is the patch itself, as pixels; no teacher, no temperature, no normalisation of
lengths. Computed in fp32 whatever the inputs' type.

Shapes: `B` clips, `M` masked patches of a clip, `P` values of a patch.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

SoftmaxOver = Literal["predictions", "targets"]


class Discrimination(NamedTuple):
    """InfoNCE, and the share of predictions whose own patch scores highest; scalars."""

    loss: Tensor
    accuracy: Tensor


def info_nce(
    prediction_BMP: Tensor, target_BMP: Tensor, *, softmax_over: SoftmaxOver
) -> Discrimination:
    """Each prediction among the masked patches of its clip.

    Args:
        prediction_BMP: Predicted patches.
        target_BMP: The patches, in the same order; no gradient flows into them.
        softmax_over: `targets`: which patch does this prediction fit, as the paper's Eq. 1 has it;
            `predictions`: which prediction fits this patch, as the released program computes it.

    Returns:
        Loss >= 0, ln M where nothing is told apart, and accuracy in [0, 1].

    Source: SSAST (arXiv:2110.09784), Eq. 1.
    """
    # Matrix products would be rounded to bf16 under autocast, and the softmax has no temperature.
    with torch.autocast(prediction_BMP.device.type, enabled=False):
        logits_BMM = target_BMP.detach().float() @ prediction_BMP.float().transpose(1, 2)
    axis = {"targets": 1, "predictions": 2}[softmax_over]
    log_share_BMM = functional.log_softmax(logits_BMM, dim=axis)
    loss = -log_share_BMM.diagonal(dim1=1, dim2=2).mean()
    own_M = torch.arange(logits_BMM.shape[1], device=logits_BMM.device)
    accuracy = (log_share_BMM.detach().argmax(dim=1) == own_M).float().mean()
    return Discrimination(loss, accuracy)


def patch_mse(prediction_BMP: Tensor, target_BMP: Tensor) -> Tensor:
    """Mean squared error of predicted patches, a scalar >= 0; no gradient flows into targets.

    Source: SSAST (arXiv:2110.09784), Eq. 2; MAE (arXiv:2111.06377), Sec. 3.
    """
    return functional.mse_loss(prediction_BMP.float(), target_BMP.detach().float())


def normalized_patches(patches_BMP: Tensor) -> Tensor:
    """Each patch with mean 0 and deviation 1; all zeros if it is constant.

    Source: MAE (arXiv:2111.06377), Sec. 3, "Reconstruction target"; unbiased variance plus 1e-6 as
    in its released program.
    """
    variance_BM1, mean_BM1 = torch.var_mean(patches_BMP.float(), dim=2, keepdim=True)
    return (patches_BMP.float() - mean_BM1) / (variance_BM1 + 1e-6).sqrt()
