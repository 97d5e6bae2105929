"""Several models as one: the mean of checkpoints' weights, and the mean of models' predictions.

Shapes: `M` clips, `C` classes.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from asit_core.checkpoint import Checkpoint, load_checkpoint

AST_ENSEMBLES: dict[str, tuple[int, ...]] = {"S": (10, 10, 10), "M": (10, 10, 10, 12, 14, 16)}
"""Patch strides of the members of AST's two ensembles; equal strides differ in their seed."""

_DESCRIBES_A_MODEL = (
    "kind",
    "config",
    "encoder",
    "input_frames",
    "front_end",
    "normalization",
    "pad_value",
    "pool",
    "head_norm_eps",
    "label_names",
)


class Predictions(NamedTuple):
    """A model's probabilities (M, C) for named clips."""

    clip_ids: Sequence[str]
    probability_MC: Tensor


def average_weights(states: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor over state dicts, which are read one at a time.

    Args:
        states: At least one; the same names and shapes in each. Whole numbers (counters) must be
            equal in all.

    Returns:
        Tensors of the first state's types; sums are taken in float64.

    Raises:
        ValueError: If there is nothing to average, or names, shapes or whole numbers differ.

    Source: AST (arXiv:2104.01778), Sec. 3.1: the last epochs' checkpoints; averaging along one
    run's path is SWA (arXiv:1803.05407).
    """
    first: dict[str, Tensor] = {}
    sums: dict[str, Tensor] = {}
    count = 0
    for state in states:
        if not count:
            first = dict(state)
            sums = {name: value.double() for name, value in state.items()}
        else:
            _check_alike(first, state, number=count)
            for name, value in state.items():
                sums[name] = sums[name] + value.double()
        count += 1
    if not count:
        raise ValueError("states must hold at least one model to average, but got none")
    return {
        name: (sums[name] / count).to(value.dtype) if value.is_floating_point() else value
        for name, value in first.items()
    }


def average_checkpoints(paths: Sequence[str | Path]) -> Checkpoint:
    """The mean model of checkpoint files, with the first one's description.

    Returns:
        Averaged tensors; the meta also lists the files' names under `averaged`.

    Raises:
        ValueError: If there is no file, one cannot be read, or they hold different models.
    """
    metas: list[dict[str, Any]] = []

    def read() -> Iterable[Mapping[str, Tensor]]:
        for path in paths:
            checkpoint = load_checkpoint(Path(path))
            metas.append(checkpoint.meta)
            for key in _DESCRIBES_A_MODEL:
                if checkpoint.meta.get(key) != metas[0].get(key):
                    raise ValueError(
                        f"{path}: {key} must be {metas[0].get(key)!r} as in {paths[0]}, "
                        f"but got {checkpoint.meta.get(key)!r}"
                    )
            yield checkpoint.tensors

    tensors = average_weights(read())
    return Checkpoint(tensors, {**metas[0], "averaged": [Path(path).name for path in paths]})


def ensemble(members: Sequence[Predictions]) -> Predictions:
    """The mean of several models' probabilities for the same clips in the same order.

    Raises:
        ValueError: If there is no member, members speak of different clips or classes, or hold
            something else than probabilities (logits, say).

    Source: AST (arXiv:2104.01778), Sec. 3.1: mean of the sigmoid outputs.
    """
    if not members:
        raise ValueError("members must hold at least one model's predictions, but got none")
    first = members[0]
    for number, (clip_ids, probability_MC) in enumerate(members):
        if list(clip_ids) != list(first.clip_ids):
            raise ValueError(f"member {number} must predict the clips of member 0 in their order")
        shape = (len(clip_ids), first.probability_MC.shape[-1])
        if probability_MC.shape != shape:
            raise ValueError(
                f"member {number} must have shape {shape}, but got {tuple(probability_MC.shape)}"
            )
        lowest, highest = probability_MC.min().item(), probability_MC.max().item()
        if not (lowest >= 0.0 and highest <= 1.0):
            raise ValueError(
                f"member {number} must hold probabilities in [0, 1], "
                f"but got {lowest:.4g} to {highest:.4g}"
            )
    mean_MC = torch.stack([member.probability_MC.double() for member in members]).mean(dim=0)
    return Predictions(first.clip_ids, mean_MC.to(first.probability_MC.dtype))


def ast_ensemble(
    members: Sequence[tuple[int, Predictions]], which: Literal["S", "M"]
) -> Predictions:
    """AST's ensemble S (three seeds at stride 10) or M (these, and strides 12, 14 and 16).

    Args:
        members: Each model's patch stride and predictions, in any order.
        which: `S` or `M`.

    Raises:
        ValueError: If the strides are not that ensemble's, or as `ensemble`.

    Source: AST (arXiv:2104.01778), Table 1.
    """
    if which not in AST_ENSEMBLES:
        raise ValueError(f"which must be S or M, but got {which!r}")
    strides = tuple(sorted(stride for stride, _ in members))
    if strides != AST_ENSEMBLES[which]:
        raise ValueError(
            f"members of ensemble {which} must have strides {AST_ENSEMBLES[which]}, "
            f"but got {strides}"
        )
    return ensemble([predictions for _, predictions in members])


def _check_alike(first: Mapping[str, Tensor], state: Mapping[str, Tensor], *, number: int) -> None:
    for name in sorted(first.keys() ^ state.keys()):
        where = "missing in" if name in first else "only in"
        raise ValueError(f"states must hold the same tensors, but {name!r} is {where} {number}")
    for name, value in state.items():
        if value.shape != first[name].shape:
            raise ValueError(
                f"{name!r} of state {number} must have shape {tuple(first[name].shape)}, "
                f"but got {tuple(value.shape)}"
            )
        if not value.is_floating_point() and not torch.equal(value, first[name]):
            raise ValueError(f"{name!r} of state {number} must equal that of state 0, as a counter")
