"""Masked reconstruction: the clean spectrogram from what corruption left of it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asit_core.encoder import SpectrogramEncoder, patch_grid
from asit_core.encoder_config import TokenOrder
from asit_core.heads import ReconstructionHead
from asit_core.losses import masked_l1
from asit_core.pretext.checks import check_weight


@dataclass(frozen=True, kw_only=True, slots=True)
class ReconstructionConfig:
    """Weight in the total loss, and the decoder.

    `bottleneck_gelu`: an activation after the last linear layer too, as in the released program.
    """

    __pydantic_config__ = {"extra": "forbid"}

    weight: float = 2.0
    hidden_dim: int = 768
    bottleneck_dim: int = 128
    bottleneck_gelu: bool = True

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        check_weight(self.weight)
        for name in ("hidden_dim", "bottleneck_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but got {getattr(self, name)}")


class Reconstruction(nn.Module):
    """Owns the decoder; needs corrupted input and the student's patch tokens, no teacher.

    Source: ASiT (arXiv:2211.13189), Sec. III-B, Eq. 1.
    """

    def __init__(self, config: ReconstructionConfig, encoder: SpectrogramEncoder) -> None:
        super().__init__()
        self.head = ReconstructionHead(
            encoder.config.embed_dim,
            hidden_dim=config.hidden_dim,
            bottleneck_dim=config.bottleneck_dim,
            bottleneck_gelu=config.bottleneck_gelu,
            patch=encoder.config.patch,
        )
        self.grid = encoder.grid
        self.token_order: TokenOrder = encoder.config.token_order

    def reconstruct(self, patch_tokens_BND: Tensor) -> Tensor:
        """(B, N, D) -> (B, T, F)."""
        tokens_BtfD = patch_grid(patch_tokens_BND, self.grid, self.token_order)
        return self.head(tokens_BtfD.flatten(1, 2), self.grid)

    def forward(
        self, patch_tokens_BND: Tensor, clean_BTF: Tensor, mask_BTF: Tensor | None
    ) -> Tensor:
        """Unweighted loss, a scalar, over hidden pixels (None: over all); B counts views too."""
        if mask_BTF is None:
            mask_BTF = torch.ones_like(clean_BTF, dtype=torch.bool)
        return masked_l1(self.reconstruct(patch_tokens_BND), clean_BTF, mask_BTF)
