"""Masked reconstruction: the clean spectrogram from what corruption left of it."""

from dataclasses import dataclass

from torch import Tensor, nn

from asit_core.encoder import SpectrogramEncoder
from asit_core.heads import ReconstructionHead
from asit_core.losses import masked_l1
from asit_core.pretext.checks import check_weight


@dataclass(frozen=True, kw_only=True, slots=True)
class ReconstructionConfig:
    """Weight in the total loss, and widths of the decoder."""

    __pydantic_config__ = {"extra": "forbid"}

    weight: float = 2.0
    hidden_dim: int = 768
    bottleneck_dim: int = 128

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        check_weight(self.weight)
        for name in ("hidden_dim", "bottleneck_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but got {getattr(self, name)}")


class Reconstruction(nn.Module):
    """Owns the decoder; needs corrupted input and the student's patch tokens, no teacher."""

    def __init__(self, config: ReconstructionConfig, encoder: SpectrogramEncoder) -> None:
        super().__init__()
        self.head = ReconstructionHead(
            encoder.config.embed_dim,
            hidden_dim=config.hidden_dim,
            bottleneck_dim=config.bottleneck_dim,
            patch=(encoder.config.patch_frames, encoder.config.patch_bins),
        )
        self.grid = encoder.grid

    def reconstruct(self, patch_tokens_BND: Tensor) -> Tensor:
        """(B, N, D) -> (B, T, F)."""
        return self.head(patch_tokens_BND, self.grid)

    def forward(self, patch_tokens_BND: Tensor, clean_BTF: Tensor, mask_BTF: Tensor) -> Tensor:
        """Unweighted loss, a scalar; B counts views as clips."""
        return masked_l1(self.reconstruct(patch_tokens_BND), clean_BTF, mask_BTF)
