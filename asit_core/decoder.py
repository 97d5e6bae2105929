"""The decoder of a masked autoencoder: visible tokens and mask embeddings to tokens of all patches.

Shapes: `B` clips, `C` class tokens, `N` patches, `U` visible ones, `D` width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asit_core.blocks import check_sizes, choose_attention, make_blocks
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
        check_sizes(self)


class Decoder(nn.Module):
    """A shallow transformer with positions of its own.

    Source: MAE (arXiv:2111.06377), Sec. 3. Positions are learned; MAE's, MAE-AST's and MaskSpec's
    are fixed sines.
    """

    def __init__(self, config: DecoderConfig, encoder: SpectrogramEncoder) -> None:
        """Build a decoder for the grid of patches that the encoder was built for."""
        super().__init__()
        self.num_cls_tokens = encoder.num_cls_tokens
        self.embed = nn.Linear(encoder.config.embed_dim, config.embed_dim)
        self.mask_embed = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, encoder.pos_embed.shape[1], config.embed_dim))
        norm_eps = encoder.config.norm_eps
        self.blocks = make_blocks(config, norm_eps=norm_eps)
        self.norm = nn.LayerNorm(config.embed_dim, eps=norm_eps)

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
        choose_attention(self.blocks, tokens_BND)
        for block in self.blocks:
            tokens_BND = block(tokens_BND)
        return self.norm(tokens_BND)[:, self.num_cls_tokens :]
