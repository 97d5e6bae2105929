"""Named configurations: `asit_code` is the released program, `asit` mends its bugs.

The released program differs from the paper in ways that matter (its total is clip + patch + 2
reconstruction, patch distillation covers all tokens, one projection serves both tasks); `asit`
keeps those and mends what is plainly a bug: a temperature counted in whole epochs, a last layer
whose freezing never happened, a clip that may be its own alien.
"""

import dataclasses
from dataclasses import dataclass

from asit_core.encoder import EncoderConfig
from asit_core.heads import ProjectionHeadConfig
from asit_core.masking import MaskingConfig
from asit_core.optim import OptimizerConfig
from asit_core.pretext.clip_distillation import ClipDistillationConfig
from asit_core.pretext.patch_distillation import PatchDistillationConfig
from asit_core.pretext.reconstruction import ReconstructionConfig
from asit_core.pretrainer import PretextConfig, PretrainConfig
from asit_core.teacher import TeacherConfig
from asit_core.views import ViewsConfig

PRESETS = ("asit", "asit_code")
SIZES = ("nano", "tiny", "small", "base")


@dataclass(frozen=True, kw_only=True)
class _Size:
    """Width, depth and heads of the encoder."""

    embed_dim: int
    depth: int
    num_heads: int


_ENCODERS = {
    "nano": _Size(embed_dim=96, depth=4, num_heads=3),
    "tiny": _Size(embed_dim=192, depth=12, num_heads=3),
    "small": _Size(embed_dim=384, depth=12, num_heads=6),
    "base": _Size(embed_dim=768, depth=12, num_heads=12),
}


def create_config(preset: str, *, size: str) -> PretrainConfig:
    """A preset at a size, as a config one can print and change (`dataclasses.replace`).

    Args:
        preset: One of `PRESETS`.
        size: One of `SIZES`. `nano` (encoder and heads about 0.5 M parameters each) is for laptops
            and CI: besides widths it shortens the crop and replaces the recipe's optimizer, which
            is made for long runs.

    Raises:
        ValueError: If preset or size is unknown; the message lists the known ones.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, but got {preset!r}")
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}, but got {size!r}")
    config = _released(_ENCODERS[size])
    if preset == "asit":
        config = _mended(config)
    return _nano(config) if size == "nano" else config


def _released(size: _Size) -> PretrainConfig:
    """The released program with its documented command: 100 epochs, 4 x 32 clips."""
    return PretrainConfig(
        encoder=EncoderConfig(embed_dim=size.embed_dim, depth=size.depth, num_heads=size.num_heads),
        views=ViewsConfig(crop_frames=592),
        masking=MaskingConfig(self_alien=True),
        pretext=PretextConfig(
            reconstruction=ReconstructionConfig(),
            patch_distillation=PatchDistillationConfig(),
            clip_distillation=ClipDistillationConfig(),
        ),
        projection_head=ProjectionHeadConfig(),
        teacher=TeacherConfig(temperature_per_epoch=True),
        optimizer=OptimizerConfig(),
        epochs=100,
        batch_size=128,
        donor_group=32,
    )


def _mended(config: PretrainConfig) -> PretrainConfig:
    return dataclasses.replace(
        config,
        masking=dataclasses.replace(config.masking, self_alien=False),
        teacher=dataclasses.replace(config.teacher, temperature_per_epoch=False),
        # The program means to freeze the last layers for its first epoch of a hundred.
        optimizer=dataclasses.replace(config.optimizer, freeze_last_layer_ratio=0.01),
    )


def _nano(config: PretrainConfig) -> PretrainConfig:
    """Widths for a laptop, and a recipe for runs of minutes rather than days."""
    return dataclasses.replace(
        config,
        encoder=dataclasses.replace(config.encoder, drop_path_rate=0.0),
        views=dataclasses.replace(config.views, crop_frames=128),
        pretext=PretextConfig(
            reconstruction=ReconstructionConfig(hidden_dim=192, bottleneck_dim=64),
            patch_distillation=PatchDistillationConfig(weight=0.2, num_prototypes=256),
            clip_distillation=ClipDistillationConfig(weight=0.2, num_prototypes=512),
        ),
        projection_head=ProjectionHeadConfig(hidden_dim=256, bottleneck_dim=64),
        # At the released 0.996 the teacher of a run of 500 steps is mostly its initial weights.
        teacher=dataclasses.replace(config.teacher, momentum=0.95),
        optimizer=dataclasses.replace(
            config.optimizer,
            lr_per_256=8e-3,
            warmup_ratio=0.05,
            weight_decay=0.05,
            final_weight_decay=0.05,
            beta2=0.95,
        ),
        weight_init="xavier",
        epochs=20,
        batch_size=32,
        donor_group=8,
    )
