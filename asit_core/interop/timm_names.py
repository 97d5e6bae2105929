"""Names and axes of timm's vision transformers, which AST, SSAST and ASiT share, and of ours.

An image of AST and SSAST is (mel, time), so its kernels are too, and its patches count time
fastest; ASiT's is (time, mel), as ours. AST and SSAST keep a second class token as `dist_token`.
"""

import re
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor

_BLOCK = re.compile(r"blocks\.(\d+)\.")
_HEADS_OF_WIDTH = {192: 3, 384: 6, 768: 12, 1024: 16}  # ViT and DeiT tiny, small, base and large
_DIMENSIONS = {
    "cls_token": 3,
    "pos_embed": 3,
    "patch_embed.proj.weight": 4,
    "blocks.0.mlp.fc1.weight": 2,
}

Image = Literal["mel_time", "time_mel"]


def encoder_from_timm(state: dict[str, Tensor], *, image: Image) -> dict[str, Tensor]:
    """Tensors of timm's names, under ours with the prefix `encoder.`.

    Args:
        state: timm's, without classification heads.
        image: What is upright in the program's images.
    """
    renamed = {}
    for name, tensor in state.items():
        match name:
            case "dist_token":
                continue
            case "cls_token" if "dist_token" in state:
                tensor = torch.cat([tensor, state["dist_token"]], dim=1)
            case "patch_embed.proj.weight" if image == "mel_time":
                tensor = tensor.transpose(2, 3)
        renamed[f"encoder.{name.replace('patch_embed.proj.', 'patch_embed.')}"] = tensor
    return renamed


def timm_from_encoder(state: dict[str, Tensor], *, image: Image) -> dict[str, Tensor]:
    """Undoes `encoder_from_timm`; `state` is an encoder's own, without prefix."""
    renamed = {}
    for name, tensor in state.items():
        match name:
            case "cls_token" if tensor.shape[1] == 2:
                renamed["cls_token"], renamed["dist_token"] = tensor[:, :1], tensor[:, 1:]
                continue
            case "patch_embed.weight" if image == "mel_time":
                tensor = tensor.transpose(2, 3)
        renamed[name.replace("patch_embed.", "patch_embed.proj.")] = tensor
    return renamed


def below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }


def without_wrappers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without what DataParallel (`module.`) and torch.compile (`_orig_mod.`) put before."""
    return {re.sub(r"^(module\.|_orig_mod\.)+", "", name): t for name, t in state.items()}


def require(state: dict[str, Tensor], names: Iterable[str], *, what: str) -> None:
    """Refuses a state dict that lacks one of `names`.

    Raises:
        ValueError: Naming the first one missing.
    """
    missing = [name for name in names if name not in state]
    if missing:
        raise ValueError(f"{what} must hold {missing[0]!r}, but does not")


def check_vit(state: dict[str, Tensor], *, what: str) -> None:
    """Refuses a state dict that cannot be taken for timm's.

    Args:
        state: Under timm's names.
        what: What it should be, for the message.

    Raises:
        ValueError: Naming the tensor that is missing or has other dimensions.
    """
    require(state, _DIMENSIONS, what=what)
    for name, num_dims in _DIMENSIONS.items():
        shape = tuple(state[name].shape)
        if len(shape) != num_dims or 0 in shape:
            raise ValueError(f"{name} must have {num_dims} dimensions, none empty, but has {shape}")
    shape = tuple(state["cls_token"].shape)
    if "dist_token" in state and tuple(state["dist_token"].shape) != shape:
        raise ValueError(
            f"dist_token must have cls_token's shape {shape}, "
            f"but has {tuple(state['dist_token'].shape)}"
        )


def sizes(state: dict[str, Tensor], num_heads: int | None) -> dict[str, Any]:
    """Width, depth, heads and MLP ratio of timm's state dict, as fields of `EncoderConfig`.

    Args:
        state: timm's, checked.
        num_heads: None: what the published models of this width have; weights do not say.

    Raises:
        ValueError: If there is no published model of this width, and no `num_heads` is given.
    """
    width = state["cls_token"].shape[-1]
    if num_heads is None:
        num_heads = _HEADS_OF_WIDTH.get(width)
    if num_heads is None:
        known = ", ".join(map(str, _HEADS_OF_WIDTH))
        raise ValueError(
            f"give num_heads: it must be known, but weights do not show it and embed_dim is "
            f"{width}, none of the published {known}"
        )
    blocks = {int(found[1]) for name in state if (found := _BLOCK.match(name))}
    return {
        "embed_dim": width,
        "depth": max(blocks) + 1,
        "num_heads": num_heads,
        "mlp_ratio": state["blocks.0.mlp.fc1.weight"].shape[0] / width,
        "num_cls_tokens": 2 if "dist_token" in state else 1,
    }
