"""SSAST's discriminative task: find each masked patch among its clip's masked patches."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from asit_core.checks import check_one_of
from asit_core.heads import PatchHead
from asit_core.pretext.checks import check_weight
from asit_core.token_losses import Discrimination, SoftmaxOver, info_nce


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchDiscriminationConfig:
    """Weight in the total loss, axis of the softmax, and layers of the head.

    `softmax_over`: `targets`, as in the paper, or `predictions`, as in the released program.
    """

    __pydantic_config__ = {"extra": "forbid"}

    weight: float = 1.0
    softmax_over: SoftmaxOver = "targets"
    num_layers: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        check_weight(self.weight)
        check_one_of("softmax_over", self.softmax_over, ("predictions", "targets"))
        check_one_of("num_layers", self.num_layers, (1, 2))


class PatchDiscrimination(nn.Module):
    """Owns the head; needs tokens of masked patches and the patches' pixels, no teacher.

    Source: SSAST (arXiv:2110.09784), Sec. 3.2, Eq. 1.
    """

    def __init__(
        self, config: PatchDiscriminationConfig, *, embed_dim: int, num_pixels: int
    ) -> None:
        super().__init__()
        self.softmax_over: SoftmaxOver = config.softmax_over
        self.head = PatchHead(embed_dim, num_pixels=num_pixels, num_layers=config.num_layers)

    def forward(self, tokens_BMD: Tensor, patches_BMP: Tensor) -> Discrimination:
        """Unweighted loss and accuracy, scalars."""
        return info_nce(self.head(tokens_BMD), patches_BMP, softmax_over=self.softmax_over)
