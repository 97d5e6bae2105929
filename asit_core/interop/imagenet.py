"""ImageNet weights of timm's ViT and DeiT as the start of a spectrogram transformer.

What AST does: the kernel's three colours become one channel, positions are adapted from a square
picture to a long spectrogram, one axis after the other, and the class tokens stay.

Source: AST (arXiv:2104.01778), Sec. 2.2: the paper averages the colours, its program adds them up.
"""

import math
from dataclasses import replace
from typing import Literal

from torch import Tensor

from asit_core.encoder import EncoderConfig, SpectrogramEncoder
from asit_core.interop.timm_names import check_vit, encoder_from_timm, sizes
from asit_core.model_weights import ModelWeights
from asit_core.spectrogram import LogMelConfig

Channels = Literal["sum", "mean"]

_STEP = 10  # of AST
_HEADS = ("head.", "head_dist.", "fc_norm.")


def from_imagenet(
    state: dict[str, Tensor],
    *,
    input_frames: int = 1024,
    stride: tuple[int, int] | None = None,
    input_bins: int = 128,
    channels: Channels = "sum",
    num_heads: int | None = None,
) -> ModelWeights:
    """Turns timm's state dict into an AST without a head.

    Args:
        state: Of a `vit_*` or `deit_*` model with square patches and learned positions.
        input_frames: Length of the clips.
        stride: Frames and bins from patch to patch; None: 10, as AST, or the patch if smaller.
        input_bins: Mel bins.
        channels: How the colours become one channel: `sum` as AST's program, `mean` as its paper.
        num_heads: Attention heads; None: those of the ViT or DeiT of this width.

    Raises:
        ValueError: If the weights are not such a model's, or the clips cannot be cut so.
    """
    if channels not in ("sum", "mean"):
        raise ValueError(f"channels must be one of sum, mean, but got {channels!r}")
    vit = {name: tensor for name, tensor in state.items() if not name.startswith(_HEADS)}
    check_vit(vit, what="ImageNet weights")
    kernel_DCHW = vit["patch_embed.proj.weight"]
    vit["patch_embed.proj.weight"] = (
        kernel_DCHW.sum(1, keepdim=True) if channels == "sum" else kernel_DCHW.mean(1, keepdim=True)
    )
    fields = sizes(vit, num_heads)
    num_patches = vit["pos_embed"].shape[1] - fields["num_cls_tokens"]
    side = math.isqrt(max(0, num_patches))
    if side * side != num_patches or kernel_DCHW.shape[2] != kernel_DCHW.shape[3]:
        raise ValueError(
            f"ImageNet weights must have square patches on a square grid, but got {num_patches} "
            f"patches of {kernel_DCHW.shape[2]} x {kernel_DCHW.shape[3]} pixels"
        )
    length = kernel_DCHW.shape[2]
    step = min(_STEP, length)
    picture = EncoderConfig(
        **fields,
        patch_frames=length,
        patch_bins=length,
        input_bins=side * length,
        token_order="frequency",
        position_adaptation="ast",
        drop_path_rate=0.0,
    )
    of_picture = ModelWeights(
        tensors=encoder_from_timm(vit, image="mel_time"),
        encoder=picture,
        input_frames=side * length,
        front_end=LogMelConfig(sample_rate_hz=16000, num_mel_bins=picture.input_bins),
        source="imagenet",
    )
    encoder = SpectrogramEncoder(picture, input_frames=side * length)
    encoder.load_state_dict(of_picture.part("encoder"))
    encoder = encoder.refitted(
        input_frames=input_frames, stride=stride or (step, step), input_bins=input_bins
    )
    return replace(
        of_picture,
        tensors={f"encoder.{name}": value for name, value in encoder.state_dict().items()},
        encoder=encoder.config,
        input_frames=input_frames,
        front_end=LogMelConfig(sample_rate_hz=16000, num_mel_bins=input_bins),
        pad_value=0.0,
    )
