"""SSAST checkpoints, pre-trained and fine-tuned, and back.

A pre-trained one holds its grid as two whole-number parameters, `p_input_fdim` and `p_input_tdim`;
its patches do not overlap. A fine-tuned one lacks them, so that its own loader refuses it: here
the grid is recovered from the number of positions.

The pre-training heads stay as they are published, below `pretext.`: `pretext.mask_embed` (1, 1, D),
`pretext.cpredlayer.{0,2}.*` (discrimination) and `pretext.gpredlayer.{0,2}.*` (regression), each
two linear layers with a ReLU between them. A patch is (mel, time) there: output
`bin * patch_frames + frame` is the pixel of that bin and frame.

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
_PRETEXT = (
    "mask_embed",
    *(
        f"{head}.{layer}.{kind}"
        for head in ("cpredlayer", "gpredlayer")
        for layer in (0, 2)
        for kind in ("weight", "bias")
    ),
)


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
    pretext = {name: tensor for name, tensor in parts.rest.items() if name in _PRETEXT}
    unknown = sorted(set(parts.rest) - set(pretext) - set(_SIZE))
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
    kept = {f"pretext.{name}": tensor for name, tensor in pretext.items()}
    return replace(weights, tensors={**weights.tensors, **kept})


def to_ssast(weights: ModelWeights) -> dict[str, Tensor]:
    """SSAST's state dict, with the prefix `module.`; undoes `from_ssast`.

    Raises:
        ValueError: If the tokens run the other way, or a head pools class tokens.
    """
    if weights.pool not in (None, "mean"):
        raise ValueError(f"pool must be 'mean' for SSAST, but got {weights.pool!r}")
    state = {**ast_names(weights), **weights.part("pretext")}
    if weights.part("pretext"):
        state["p_input_fdim"] = torch.tensor(weights.encoder.input_bins)
        state["p_input_tdim"] = torch.tensor(weights.input_frames)
    return {f"module.{name}": tensor for name, tensor in state.items()}
