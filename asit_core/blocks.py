"""The stack of timm's blocks that the encoder and a masked autoencoder's decoder both are.

Shapes: `B` clips, `N` tokens, `D` width.
"""

from functools import partial
from typing import Protocol

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

_UNFUSED_UP_TO = 2048  # tokens: beyond, the weights of one clip fill gigabytes


class BlockSizes(Protocol):
    """What a config says of its blocks."""

    @property
    def embed_dim(self) -> int:
        """Width of a token."""
        ...

    @property
    def depth(self) -> int:
        """Number of blocks."""
        ...

    @property
    def num_heads(self) -> int:
        """Attention heads of a block."""
        ...

    @property
    def mlp_ratio(self) -> float:
        """Hidden units of a block's MLP, as a multiple of the width."""
        ...


def check_sizes(sizes: BlockSizes) -> None:
    """Raise ValueError, naming the field, if no blocks can be made."""
    for name in ("embed_dim", "depth", "num_heads"):
        if getattr(sizes, name) < 1:
            raise ValueError(f"{name} must be at least 1, but got {getattr(sizes, name)}")
    if sizes.embed_dim % sizes.num_heads:
        raise ValueError(
            f"embed_dim must be a multiple of num_heads ({sizes.num_heads}), "
            f"but got {sizes.embed_dim}"
        )
    if not 1.0 <= sizes.embed_dim * sizes.mlp_ratio < float("inf"):
        raise ValueError(
            "mlp_ratio must be finite and leave at least one hidden unit, "
            f"but got {sizes.mlp_ratio}"
        )


def make_blocks(sizes: BlockSizes, *, norm_eps: float) -> nn.ModuleList:
    """Pre-norm blocks with GELU, as in ViT."""
    return nn.ModuleList(
        Block(
            sizes.embed_dim,
            sizes.num_heads,
            mlp_ratio=sizes.mlp_ratio,
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=norm_eps),  # pyright: ignore[reportArgumentType]
        )
        for _ in range(sizes.depth)
    )


def choose_attention(blocks: nn.ModuleList, tokens_BND: Tensor) -> None:
    """Fused attention, except under bf16 on a CPU: there its backward is six times slower."""
    on_cpu = tokens_BND.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    fused = not on_cpu or tokens_BND.shape[1] > _UNFUSED_UP_TO
    for block in blocks:
        block.attn.fused_attn = fused  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
