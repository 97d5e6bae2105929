"""The decoder of a masked autoencoder: visible tokens and mask embeddings to tokens of all patches.

Shapes: `B` clips, `C` class tokens, `N` patches, `U` visible ones, `D` width.
"""

from dataclasses import dataclass
from functools import partial

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from asit_core.encoder import SpectrogramEncoder


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderConfig:
    """Size of the decoder."""

    __pydantic_config__ = {"extra": "forbid"}

    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        for name in ("embed_dim", "depth", "num_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but got {getattr(self, name)}")
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"embed_dim must be a multiple of num_heads ({self.num_heads}), "
                f"but got {self.embed_dim}"
            )
        if not 1.0 <= self.embed_dim * self.mlp_ratio < float("inf"):
            raise ValueError(
                "mlp_ratio must be finite and leave at least one hidden unit, "
                f"but got {self.mlp_ratio}"
            )


class Decoder(nn.Module):
    """A shallow transformer with positions of its own.

    Source: MAE (arXiv:2111.06377), Sec. 3. Positions are learned; MAE's, MAE-AST's and MaskSpec's
    are fixed sines.
    """

    def __init__(self, config: DecoderConfig, encoder: SpectrogramEncoder) -> None:
        """Build a decoder for the grid of patches that the encoder was built for."""
        super().__init__()
        layer_norm = partial(nn.LayerNorm, eps=encoder.config.norm_eps)
        self.num_cls_tokens = encoder.num_cls_tokens
        self.embed = nn.Linear(encoder.config.embed_dim, config.embed_dim)
        self.mask_embed = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, encoder.pos_embed.shape[1], config.embed_dim))
        self.blocks = nn.ModuleList(
            Block(
                config.embed_dim,
                config.num_heads,
                mlp_ratio=config.mlp_ratio,
                qkv_bias=True,
                norm_layer=layer_norm,  # pyright: ignore[reportArgumentType]
            )
            for _ in range(config.depth)
        )
        self.norm = layer_norm(config.embed_dim)

    def forward(self, encoded_BUD: Tensor, visible_BU: Tensor) -> Tensor:
        """Tokens of all patches.

        Args:
            encoded_BUD: (B, C + U, D): the encoder's class tokens and visible patch tokens.
            visible_BU: Indices of those patches.

        Returns:
            (B, N, D') with the decoder's width, after its last norm, without class tokens.
        """
        tokens_BUD = self.embed(encoded_BUD)
        cls_BCD, patches_BUD = tokens_BUD.split([self.num_cls_tokens, visible_BU.shape[1]], dim=1)
        num_patches = self.pos_embed.shape[1] - self.num_cls_tokens
        masks_BND = self.mask_embed.to(tokens_BUD.dtype).expand(len(tokens_BUD), num_patches, -1)
        index_BUD = visible_BU.unsqueeze(-1).expand_as(patches_BUD)
        patches_BND = masks_BND.scatter(1, index_BUD, patches_BUD)
        tokens_BND = torch.cat([cls_BCD, patches_BND], dim=1) + self.pos_embed
        # As in the encoder: fused attention's backward is slow under bf16 on a CPU.
        fused = tokens_BND.device.type != "cpu" or not torch.is_autocast_enabled("cpu")
        for block in self.blocks:
            block.attn.fused_attn = fused  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
            tokens_BND = block(tokens_BND)
        return self.norm(tokens_BND)[:, self.num_cls_tokens :]
