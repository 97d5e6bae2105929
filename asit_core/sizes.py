"""The sizes all presets come in, and what `nano` changes in any of them."""

from typing import Any

from asit_core.encoder_config import EncoderConfig
from asit_core.optim import OptimizerConfig

# Width, depth and heads.
_ENCODERS = {
    "nano": (96, 4, 3),
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
}
SIZES = tuple(_ENCODERS)

NANO_CROP_FRAMES = 128
# How a preset's other fields change for runs of minutes rather than days.
NANO_RUN: dict[str, Any] = {
    "normalization": None,
    "weight_init": "xavier",
    "epochs": 20,
    "batch_size": 32,
    "donor_group": 8,
    "precision": "auto",
}


def encoder_config(size: str, **changes: Any) -> EncoderConfig:
    """The encoder of a size; `changes` are other fields, or the same ones with other values."""
    embed_dim, depth, num_heads = _ENCODERS[size]
    return EncoderConfig(
        **{"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads, **changes}
    )


def nano_optimizer() -> OptimizerConfig:
    """A recipe for runs of some hundred steps."""
    return OptimizerConfig(
        lr_per_256=8e-3,
        warmup_ratio=0.05,
        weight_decay=0.05,
        final_weight_decay=0.05,
        beta2=0.95,
    )
