"""SSAST checkpoints, pre-trained and fine-tuned, and back.

A pre-trained one holds its grid as two whole-number parameters, `p_input_fdim` and `p_input_tdim`;
its patches do not overlap. A fine-tuned one lacks them, so that its own loader refuses it: here
the grid is recovered from the number of positions.

What belongs to the pretext tasks is kept below `pretext.` under the names that `Pretrainer` gives
it: `pretext.patch_discrimination.head.mlp.{0,2}.*`, `pretext.patch_regression.head.mlp.{0,2}.*` and
`pretext.masked_tokens.mask_embed`. The last layers put out a patch's pixels, bin by bin in SSAST
and frame by frame here: their rows are reordered.

Source: SSAST (arXiv:2110.09784), Sec. 2 and its released program.
"""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from asit_core.classifier import Pool
from asit_core.interop.ast import INPUT_BINS, assemble, ast_names, split
from asit_core.interop.grids import find_grid
from asit_core.interop.timm_names import require
from asit_core.model_weights import ModelWeights

SsastPool = Literal["mean", "class_tokens"]

_SIZE = ("p_input_fdim", "p_input_tdim")
_HEADS = {"cpredlayer": "patch_discrimination", "gpredlayer": "patch_regression"}
_PRETEXT = {
    "mask_embed": "masked_tokens.mask_embed",
    **{
        f"{theirs}.{layer}.{kind}": f"{ours}.head.mlp.{layer}.{kind}"
        for theirs, ours in _HEADS.items()
        for layer in (0, 2)
        for kind in ("weight", "bias")
    },
}
"""Names of SSAST, and ours below `pretext.`."""


def from_ssast(
    state: dict[str, Tensor],
    *,
    num_heads: int | None = None,
    input_frames: int | None = None,
    stride: tuple[int, int] | None = None,
    input_bins: int | None = None,
    pool: SsastPool | None = None,
) -> ModelWeights:
    """Reads an SSAST state dict, pre-trained or fine-tuned.

    Args:
        state: As published, with or without the prefix `module.`.
        num_heads: Attention heads; None: those of the published model of this width.
        input_frames: Clip length of a fine-tuned one, where its positions fit several.
        stride: Frames and bins from patch to patch, likewise.
        input_bins: Mel bins of a fine-tuned one; None: 128.
        pool: What a fine-tuned one's head takes: the `mean` of the patch tokens (None, the
            program's default), or that of the `class_tokens`.

    Returns:
        The encoder; of a pre-trained one also `pretext.*`, of a fine-tuned one the head.

    Raises:
        ValueError: If names or shapes are not SSAST's, the grid cannot be told, a pre-trained
            one is told its grid, or there is no head to pool for.
    """
    if pool not in (None, "mean", "class_tokens"):
        raise ValueError(f"pool must be one of mean, class_tokens, but got {pool!r}")
    parts = split(state)
    if pool is not None and not parts.head:
        raise ValueError(f"pool must be left out for a model without a head, but got {pool!r}")
    unknown = sorted(set(parts.rest) - set(_PRETEXT) - set(_SIZE))
    if unknown:
        raise ValueError(f"an SSAST checkpoint must hold its keys only, but got {unknown[0]!r}")
    if any(name in parts.rest for name in (*_SIZE, *_PRETEXT)):
        require(parts.rest, (*_SIZE, *_PRETEXT), what="a pre-trained SSAST checkpoint")
        given = {"input_frames": input_frames, "stride": stride, "input_bins": input_bins}
        for name, value in given.items():
            if value is not None:
                raise ValueError(
                    f"{name} must be left out, as a pre-trained SSAST says it, but got {value}"
                )
        input_bins, input_frames = (_whole_number(name, parts.rest[name]) for name in _SIZE)
        stride = parts.patch
    bins = max(INPUT_BINS, parts.patch[1]) if input_bins is None else input_bins
    weights = assemble(
        parts,
        grid=find_grid(
            parts.num_patches,
            patch=parts.patch,
            input_bins=bins,
            stride=stride,
            input_frames=input_frames,
        ),
        input_bins=bins,
        num_heads=num_heads,
        adaptation="ssast",
        pool=_class_pool(parts.num_cls_tokens) if pool == "class_tokens" else "mean",
        source="ssast",
    )
    pretext = {
        f"pretext.{ours}": _reordered(theirs, parts.rest[theirs], (parts.patch[1], parts.patch[0]))
        for theirs, ours in _PRETEXT.items()
        if theirs in parts.rest
    }
    return replace(weights, tensors={**weights.tensors, **pretext})


def to_ssast(weights: ModelWeights) -> dict[str, Tensor]:
    """SSAST's state dict, with the prefix `module.`; undoes `from_ssast`.

    Raises:
        ValueError: If the tokens run the other way, or a head pools one class token of two.
    """
    pools = ("mean", _class_pool(weights.encoder.num_cls_tokens))
    if weights.pool not in (None, *pools):
        raise ValueError(
            f"pool must be one of {', '.join(pools)} for SSAST, but got {weights.pool!r}"
        )
    state = ast_names(weights)
    pretext = weights.part("pretext")
    if pretext:
        patch = weights.encoder.patch
        state |= {name: _reordered(name, pretext[ours], patch) for name, ours in _PRETEXT.items()}
        state["p_input_fdim"] = torch.tensor(weights.encoder.input_bins)
        state["p_input_tdim"] = torch.tensor(weights.input_frames)
    return {f"module.{name}": tensor for name, tensor in state.items()}


def _class_pool(num_cls_tokens: int) -> Pool:
    return "class_tokens" if num_cls_tokens == 2 else "class_token"


def _whole_number(name: str, tensor: Tensor) -> int:
    if tensor.numel() != 1:
        raise ValueError(f"{name} must hold one number, but has shape {tuple(tensor.shape)}")
    return int(tensor.item())


def _reordered(name: str, tensor: Tensor, patch: tuple[int, int]) -> Tensor:
    """Rows of a last layer, which follow the pixels of `patch`, with its axes exchanged."""
    if ".2." not in name:
        return tensor
    if tuple(tensor.shape[:1]) != (patch[0] * patch[1],):
        raise ValueError(
            f"{name} must have a row for each of {patch[0] * patch[1]} pixels, "
            f"but has shape {tuple(tensor.shape)}"
        )
    return tensor.unflatten(0, patch).transpose(0, 1).flatten(0, 1)
