"""AST checkpoints, and back; what SSAST's share with them.

Keys: `module.v.*` is timm's distilled DeiT with a one-channel kernel, `module.mlp_head.{0,1}.*`
LayerNorm and a linear layer on the mean of the two class tokens. The classification heads that timm
gives the DeiT, `v.head.*` and `v.head_dist.*`, are never used and left out.

Source: AST (arXiv:2104.01778), Sec. 2.1 and its released program.
"""

from typing import NamedTuple

from torch import Tensor

from asit_core.classifier import Pool
from asit_core.encoder_config import EncoderConfig, patch_fields
from asit_core.interop.grids import PatchGrid, find_grid
from asit_core.interop.timm_names import (
    below,
    check_vit,
    encoder_from_timm,
    sizes,
    timm_from_encoder,
    without_wrappers,
)
from asit_core.model_weights import ModelWeights
from asit_core.positions import PositionAdaptation
from asit_core.spectrogram import LogMelConfig

INPUT_BINS = 128  # of every published AST and SSAST

_IMAGENET_HEADS = ("head.", "head_dist.")


class AstParts(NamedTuple):
    """A state dict of AST or SSAST, taken apart."""

    vit: dict[str, Tensor]  # timm's names
    head: dict[str, Tensor]  # `0.weight` ... `1.bias`; empty where there is none
    rest: dict[str, Tensor]

    @property
    def patch(self) -> tuple[int, int]:
        """Frames and bins of a patch."""
        kernel = self.vit["patch_embed.proj.weight"]
        return kernel.shape[3], kernel.shape[2]

    @property
    def num_cls_tokens(self) -> int:
        """Class and distillation token."""
        return 2 if "dist_token" in self.vit else 1

    @property
    def num_patches(self) -> int:
        """Positions without the class tokens'."""
        return self.vit["pos_embed"].shape[1] - self.num_cls_tokens


def split(state: dict[str, Tensor]) -> AstParts:
    """Takes a state dict of AST or SSAST apart.

    Raises:
        ValueError: If there is no transformer below `v.`, or its kernel has several channels.
    """
    state = without_wrappers(state)
    check_vit(below(state, "v."), what="an AST or SSAST checkpoint, below `v.`,")
    channels = state["v.patch_embed.proj.weight"].shape[1]
    if channels != 1:
        raise ValueError(f"v.patch_embed.proj.weight must have one channel, but has {channels}")
    vit = {
        name: tensor
        for name, tensor in below(state, "v.").items()
        if not name.startswith(_IMAGENET_HEADS)
    }
    rest = {name: t for name, t in state.items() if not name.startswith(("v.", "mlp_head."))}
    return AstParts(vit, below(state, "mlp_head."), rest)


def assemble(
    parts: AstParts,
    *,
    grid: PatchGrid,
    input_bins: int,
    num_heads: int | None,
    adaptation: PositionAdaptation,
    pool: Pool,
    source: str,
) -> ModelWeights:
    """Our weights from the parts; `pool` counts only where there is a head."""
    head = {f"head.{name}": tensor for name, tensor in parts.head.items()}
    return ModelWeights(
        tensors={**encoder_from_timm(parts.vit, image="mel_time"), **head},
        encoder=EncoderConfig(
            **sizes(parts.vit, num_heads),
            **patch_fields(parts.patch, grid.stride),
            input_bins=input_bins,
            token_order="frequency",
            position_adaptation=adaptation,
            drop_path_rate=0.0,
        ),
        input_frames=grid.frames,
        front_end=LogMelConfig(sample_rate_hz=16000, num_mel_bins=input_bins),
        pad_value=0.0,  # the loaders append zeros to the log-mels, before they normalise
        pool=pool if head else None,
        notes=grid.notes,
        source=source,
    )


def from_ast(
    state: dict[str, Tensor],
    *,
    num_heads: int | None = None,
    input_frames: int | None = None,
    stride: tuple[int, int] | None = None,
    input_bins: int | None = None,
) -> ModelWeights:
    """Reads an AST state dict.

    Args:
        state: As published, with or without the prefix `module.`.
        num_heads: Attention heads; None: those of the published model of this width.
        input_frames: Clip length, where the positions fit several.
        stride: Frames and bins from patch to patch, likewise.
        input_bins: Mel bins; None: 128.

    Raises:
        ValueError: If names or shapes are not AST's, or the grid cannot be told.
    """
    parts = split(state)
    if parts.rest:
        raise ValueError(f"an AST checkpoint must hold its keys only, but got {min(parts.rest)!r}")
    bins = max(INPUT_BINS, parts.patch[1]) if input_bins is None else input_bins
    grid = find_grid(
        parts.num_patches,
        patch=parts.patch,
        input_bins=bins,
        stride=stride,
        input_frames=input_frames,
    )
    return assemble(
        parts,
        grid=grid,
        input_bins=bins,
        num_heads=num_heads,
        adaptation="ast",
        pool="class_tokens" if parts.num_cls_tokens == 2 else "class_token",
        source="ast",
    )


def to_ast(weights: ModelWeights) -> dict[str, Tensor]:
    """AST's state dict, with the prefix `module.`; undoes `from_ast`.

    Raises:
        ValueError: If the tokens run the other way, or a head pools patch tokens.
    """
    if weights.pool == "mean":
        raise ValueError("pool must be class_tokens or class_token for AST, but got 'mean'")
    return {f"module.{name}": tensor for name, tensor in ast_names(weights).items()}


def ast_names(weights: ModelWeights) -> dict[str, Tensor]:
    """`v.*` and `mlp_head.*` of a model.

    Raises:
        ValueError: If its tokens are not in AST's order.
    """
    if weights.encoder.token_order != "frequency":
        raise ValueError(
            f"token_order must be 'frequency', AST's, but got {weights.encoder.token_order!r}"
        )
    vit = timm_from_encoder(weights.part("encoder"), image="mel_time")
    return {
        **{f"v.{name}": tensor for name, tensor in vit.items()},
        **{f"mlp_head.{name}": tensor for name, tensor in weights.part("head").items()},
    }
