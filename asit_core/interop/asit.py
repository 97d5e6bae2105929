"""Training checkpoints of the released ASiT program, and back.

One file holds `student` (below `module.`) and `teacher`, each with `backbone.*` (timm's names),
`head_cls.*` (projection and two weight-normalised prototype layers) and `head_recons.*`, besides
optimizer, centres and pickled `argparse` arguments.

What belongs to the pretext tasks is kept below `pretext.` under the names that `Pretrainer` gives
it: `pretext.projection.mlp.*`, `pretext.clip_prototypes.direction` and
`pretext.patch_prototypes.direction` (there below `student.` and `teacher.`),
`pretext.reconstruction.head.{mlp,to_pixels}.*` and, where the file has centres,
`pretext.clip_distillation.center.value_K` and `pretext.patch_distillation.center.value_K`. The
prototypes' gains are one and frozen there, and left out.

Source: ASiT (arXiv:2211.13189), Sec. III, and its released program.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from asit_core.encoder_config import EncoderConfig
from asit_core.interop.timm_names import (
    below,
    check_vit,
    encoder_from_timm,
    sizes,
    timm_from_encoder,
    without_wrappers,
)
from asit_core.model_weights import ModelWeights
from asit_core.spectrogram import LogMelConfig

Network = Literal["teacher", "student"]

_PRETEXT = {
    "head_cls.mlp.": "projection.mlp.",
    "head_cls.cls_layer.weight_v": "clip_prototypes.direction",
    "head_cls.data_layer.weight_v": "patch_prototypes.direction",
    "head_recons.mlp.": "reconstruction.head.mlp.",
    "head_recons.convTrans.": "reconstruction.head.to_pixels.",
}
_CENTERS = {"loss_cls": "clip_distillation", "loss_data": "patch_distillation"}
# Of torch.nn.utils.parametrizations.weight_norm, which replaces the deprecated function.
_NEW_WEIGHT_NORM = {"original0": "weight_g", "original1": "weight_v"}


def from_asit(
    checkpoint: Mapping[str, Any],
    *,
    network: Network = "teacher",
    num_heads: int | None = None,
    input_bins: int = 128,
) -> ModelWeights:
    """Reads an ASiT training checkpoint.

    Args:
        checkpoint: The file's content, or the state dict of one network alone.
        network: Which of the two; the paper evaluates the teacher.
        num_heads: Attention heads; None: those of the program's model of this width (the paper
            says half as many).
        input_bins: Mel bins.

    Raises:
        ValueError: If names or shapes are not ASiT's, a prototype's gain is not one, or the
            positions fill no grid.
    """
    if network not in ("teacher", "student"):
        raise ValueError(f"network must be one of teacher, student, but got {network!r}")
    state = _network(checkpoint, network)
    vit = below(state, "backbone.")
    check_vit(vit, what="an ASiT checkpoint, below `backbone.`,")
    patch = tuple(vit["patch_embed.proj.weight"].shape[2:])
    config = EncoderConfig(
        **sizes(vit, num_heads), patch_frames=patch[0], patch_bins=patch[1], input_bins=input_bins
    )
    rows = input_bins // patch[1]
    columns, rest = divmod(vit["pos_embed"].shape[1] - config.num_cls_tokens, rows)
    if rest:
        raise ValueError(
            f"backbone.pos_embed must hold whole columns of {rows} patches ({input_bins} bins), "
            f"but {rest} are left over; give another input_bins"
        )
    pretext = {**_pretext(state), **_centers(checkpoint)}
    return ModelWeights(
        tensors={
            **encoder_from_timm(vit, image="time_mel"),
            **{f"pretext.{name}": tensor for name, tensor in pretext.items()},
        },
        encoder=config,
        input_frames=columns * patch[0],
        front_end=LogMelConfig(sample_rate_hz=32000, num_mel_bins=input_bins),
        source=f"asit_{network}",
    )


def to_asit(weights: ModelWeights) -> dict[str, Tensor]:
    """One network's state dict in ASiT's layout, as the teacher's; undoes `from_asit`.

    Centres belong to the file, not to a network, and are left out.

    Raises:
        ValueError: If the tokens run the other way.
    """
    if weights.encoder.token_order != "time":
        raise ValueError(f"token_order must be 'time', but got {weights.encoder.token_order!r}")
    vit = timm_from_encoder(weights.part("encoder"), image="time_mel")
    state = {f"backbone.{name}": tensor for name, tensor in vit.items()}
    for name, tensor in weights.part("pretext").items():
        for theirs, ours in _PRETEXT.items():
            if name.startswith(ours):
                state[theirs + name.removeprefix(ours)] = tensor
                if theirs.endswith("weight_v"):
                    state[theirs.replace("weight_v", "weight_g")] = torch.ones(len(tensor), 1)
    return state


def _network(checkpoint: Mapping[str, Any], network: Network) -> dict[str, Tensor]:
    is_whole_file = "teacher" in checkpoint or "student" in checkpoint
    if is_whole_file and network not in checkpoint:
        raise ValueError(f"network must be in the checkpoint, but got {network!r}; take the other")
    content = checkpoint[network] if is_whole_file else checkpoint
    if not isinstance(content, Mapping):
        raise ValueError(f"{network} must be a state dict, but is a {type(content).__name__}")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} must be a tensor, but is a {type(value).__name__}")
    state = without_wrappers({str(name): value for name, value in content.items()})
    return {_old_weight_norm(name): tensor for name, tensor in state.items()}


def _old_weight_norm(name: str) -> str:
    start, middle, end = name.partition(".parametrizations.weight.")
    return f"{start}.{_NEW_WEIGHT_NORM[end]}" if middle else name


def _pretext(state: dict[str, Tensor]) -> dict[str, Tensor]:
    kept = {}
    for name, tensor in state.items():
        if name.startswith("backbone."):
            continue
        if name.endswith(".weight_g"):
            # On the meta device there is nothing to look at.
            if not tensor.is_meta and not torch.equal(tensor, torch.ones_like(tensor)):
                raise ValueError(f"{name} must be 1, as ASiT freezes it, but is not")
            continue
        found = next((old for old in _PRETEXT if name.startswith(old)), None)
        if found is None:
            raise ValueError(f"an ASiT network must hold its keys only, but got {name!r}")
        kept[_PRETEXT[found] + name.removeprefix(found)] = tensor
    return kept


def _centers(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    centers = {}
    for loss, task in _CENTERS.items():
        held = checkpoint.get(loss)
        if not isinstance(held, Mapping) or "center" not in held:
            continue
        if not isinstance(held["center"], Tensor):
            raise ValueError(
                f"{loss}.center must be a tensor, but is a {type(held['center']).__name__}"
            )
        centers[f"{task}.center.value_K"] = held["center"].flatten()
    return centers
