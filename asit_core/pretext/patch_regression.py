"""The generative task on masked patches of SSAST, MAE-AST and MaskSpec: predict their pixels."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from asit_core.checks import check_one_of
from asit_core.heads import PatchHead
from asit_core.pretext.checks import check_weight
from asit_core.token_losses import normalized_patches, patch_mse


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchRegressionConfig:
    """Weight in the total loss, target, and layers of the head.

    `normalize_target`: predict each patch with its own mean and deviation removed, as MaskSpec
    does.
    """

    __pydantic_config__ = {"extra": "forbid"}

    weight: float = 1.0
    normalize_target: bool = False
    num_layers: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        check_weight(self.weight)
        check_one_of("num_layers", self.num_layers, (1, 2))


class PatchRegression(nn.Module):
    """Owns the head; needs tokens of masked patches and the patches' pixels, no teacher.

    Source: SSAST (arXiv:2110.09784), Sec. 3.2, Eq. 2; MAE (arXiv:2111.06377), Sec. 3.
    """

    def __init__(self, config: PatchRegressionConfig, *, embed_dim: int, num_pixels: int) -> None:
        super().__init__()
        self.normalize_target = config.normalize_target
        self.head = PatchHead(embed_dim, num_pixels=num_pixels, num_layers=config.num_layers)

    def forward(self, tokens_BMD: Tensor, patches_BMP: Tensor) -> Tensor:
        """Unweighted loss, a scalar."""
        if self.normalize_target:
            patches_BMP = normalized_patches(patches_BMP)
        return patch_mse(self.head(tokens_BMD), patches_BMP)
