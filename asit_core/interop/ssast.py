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

import torch
from torch import Tensor

from asit_core.interop.ast import INPUT_BINS, assemble, ast_names, split
from asit_core.interop.grids import find_grid
from asit_core.interop.timm_names import require
from asit_core.interop.weights import ModelWeights

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
) -> ModelWeights:
    """Reads an SSAST state dict, pre-trained or fine-tuned.

    Args:
        state: As published, with or without the prefix `module.`.
        num_heads: Attention heads; None: one for each 64 of the width, as published.
        input_frames: Clip length of a fine-tuned one, where its positions fit several.
        stride: Frames and bins from patch to patch, likewise.
        input_bins: Mel bins of a fine-tuned one; None: 128.

    Returns:
        The encoder; of a pre-trained one also `pretext.*`, of a fine-tuned one the head, which
        takes the mean of the patch tokens.

    Raises:
        ValueError: If names or shapes are not SSAST's, the grid cannot be told, or a pre-trained
            one is told its grid.
    """
    parts = split(state)
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
        input_bins, input_frames = (int(parts.rest[name].item()) for name in _SIZE)
        stride = parts.patch
    bins = input_bins or max(INPUT_BINS, parts.patch[1])
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
        pool="mean",
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
        ValueError: If the tokens run the other way, or a head pools class tokens.
    """
    if weights.pool not in (None, "mean"):
        raise ValueError(f"pool must be 'mean' for SSAST, but got {weights.pool!r}")
    state = ast_names(weights)
    pretext = weights.part("pretext")
    if pretext:
        patch = weights.encoder.patch
        state |= {name: _reordered(name, pretext[ours], patch) for name, ours in _PRETEXT.items()}
        state["p_input_fdim"] = torch.tensor(weights.encoder.input_bins)
        state["p_input_tdim"] = torch.tensor(weights.input_frames)
    return {f"module.{name}": tensor for name, tensor in state.items()}


def _reordered(name: str, tensor: Tensor, patch: tuple[int, int]) -> Tensor:
    """Rows of a last layer, which follow the pixels of `patch`, with its axes exchanged."""
    if ".2." not in name:
        return tensor
    if tensor.shape[0] != patch[0] * patch[1]:
        raise ValueError(
            f"{name} must have a row for each of {patch[0] * patch[1]} pixels, "
            f"but has {tensor.shape[0]}"
        )
    return tensor.unflatten(0, patch).transpose(0, 1).flatten(0, 1)
