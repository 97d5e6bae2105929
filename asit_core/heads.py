"""Heads on top of the encoder's tokens: projection, prototypes, reconstruction, masked patches.

Shapes: `B` clips, `N` patches, `D` width, `E` bottleneck, `K` prototypes, `T` frames, `F` mel bins,
`P` values of a patch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from asit_core.encoder import unpatchify


@dataclass(frozen=True, kw_only=True, slots=True)
class ProjectionHeadConfig:
    """Widths of the distillation tasks' projection.

    `shared`: class and patch tokens go through one, as in the released ASiT program; else each
    task has its own, as in the paper.
    """

    __pydantic_config__ = {"extra": "forbid"}

    hidden_dim: int = 2048
    bottleneck_dim: int = 256
    shared: bool = True

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        for name in ("hidden_dim", "bottleneck_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but got {getattr(self, name)}")


class ProjectionHead(nn.Module):
    """Three linear layers with GELU between them, then L2 normalisation.

    Source: DINO (arXiv:2104.14294), Appendix C; the released ASiT program shares one between class
    and patch tokens.
    """

    def __init__(self, embed_dim: int, config: ProjectionHeadConfig) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(embed_dim, config.hidden_dim),
            nn.GELU(),
            nn.Linear(config.hidden_dim, config.hidden_dim),
            nn.GELU(),
            nn.Linear(config.hidden_dim, config.bottleneck_dim),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., D) -> (..., E), each row of length one."""
        return functional.normalize(self.mlp(tokens).float(), dim=-1)


class Prototypes(nn.Module):
    """Cosine similarities to K learned directions.

    A weight-normalised linear layer whose gain is fixed at one is a linear layer on unit rows; only
    the direction is a parameter, in the student and in its EMA alike.
    """

    def __init__(self, bottleneck_dim: int, num_prototypes: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.empty(num_prototypes, bottleneck_dim))
        nn.init.kaiming_uniform_(self.direction, a=5**0.5)  # nn.Linear's default, as released

    def forward(self, projected: Tensor) -> Tensor:
        """(..., E) of length one -> (..., K) logits in [-1, 1]."""
        return functional.linear(projected, functional.normalize(self.direction, dim=-1))


class ReconstructionHead(nn.Module):
    """Patch tokens back to spectrogram patches.

    Three linear layers with GELU between them and, as in the released ASiT program, after the
    bottleneck, then one transposed convolution.

    Source: ASiT (arXiv:2211.13189), Sec. III-B, which has wider layers than the program.
    """

    def __init__(
        self,
        embed_dim: int,
        *,
        hidden_dim: int,
        bottleneck_dim: int,
        patch: tuple[int, int],
        bottleneck_gelu: bool = True,
    ) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(embed_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, bottleneck_dim),
            nn.GELU() if bottleneck_gelu else nn.Identity(),
        )
        self.to_pixels = nn.ConvTranspose2d(bottleneck_dim, 1, patch, stride=patch)

    def forward(self, patch_tokens_BND: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, N, D) tokens of a `grid` of patches -> (B, T, F) in normalised log-mel units."""
        # Stride equals kernel: the transposed convolution is a linear layer, and faster as one.
        weight_PE = self.to_pixels.weight.flatten(1).T
        patches_BNP = functional.linear(self.mlp(patch_tokens_BND), weight_PE).float()
        patch = (self.to_pixels.kernel_size[0], self.to_pixels.kernel_size[1])
        assert self.to_pixels.bias is not None, "the layer is made with a bias"
        return unpatchify(patches_BNP + self.to_pixels.bias, grid, patch)


class PatchHead(nn.Module):
    """Masked tokens to the pixels of their patches.

    One linear layer, as in MAE, or two with ReLU between them.

    Source: SSAST (arXiv:2110.09784), Sec. 3.2: two layers, the first as wide as its input.
    """

    def __init__(self, embed_dim: int, *, num_pixels: int, num_layers: int) -> None:
        super().__init__()
        hidden = [nn.Linear(embed_dim, embed_dim), nn.ReLU()] if num_layers == 2 else []
        self.mlp = nn.Sequential(*hidden, nn.Linear(embed_dim, num_pixels))

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., D) -> (..., P) in normalised log-mel units, fp32."""
        return self.mlp(tokens).float()
