"""Optimizers and learning rates of the published fine-tuning recipes.

Shares of the learning rate (by layer, of the head) are fixed per parameter group; the schedule is a
pure function of the step and moves all groups together.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from asit_core.classifier import Classifier

DecayedParameters = Literal["all", "matrices", "matrices_without_positions"]
SlowedLayers = Literal["all", "blocks"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LrScheduleConfig:
    """A warm-up, then constant, in steps, or a cosine.

    Attributes:
        decay: `steps` multiplies by `factor` after `first_epoch` whole epochs and every
            `every_epochs` from then on; `cosine` falls to `min_lr` at the end of the run.
        first_epoch: Epochs before the first factor; only for `steps`.
        every_epochs: Epochs between factors; only for `steps`.
        factor: In (0, 1]; only for `steps`.
        warmup_steps: Steps of the linear rise from 0. At most one of the two lengths is above 0.
        warmup_epochs: The same in epochs.
        warmup_stair_steps: The rise moves every this many steps: 50 in the released AST and SSAST,
            1 for a straight line.
        min_lr: End of the cosine.
    """

    __pydantic_config__ = {"extra": "forbid"}

    decay: Literal["constant", "steps", "cosine"]
    first_epoch: int | None = None
    every_epochs: int | None = None
    factor: float | None = None
    warmup_steps: int = 0
    warmup_epochs: float = 0.0
    warmup_stair_steps: int = 1
    min_lr: float = 0.0

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        for name in ("first_epoch", "every_epochs", "factor"):
            if (getattr(self, name) is None) == (self.decay == "steps"):
                rule = "be set" if self.decay == "steps" else "be null"
                raise ValueError(
                    f"{name} must {rule} with decay {self.decay!r}, but got {getattr(self, name)}"
                )
        for name in ("first_epoch", "every_epochs", "warmup_stair_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, but got {value}")
        if self.factor is not None and not 0.0 < self.factor <= 1.0:
            raise ValueError(f"factor must be in (0, 1], but got {self.factor}")
        for name in ("warmup_steps", "warmup_epochs", "min_lr"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{name} must be at least 0, but got {getattr(self, name)}")
        if self.warmup_steps and self.warmup_epochs:
            raise ValueError(
                f"warmup_epochs must be 0 beside warmup_steps ({self.warmup_steps}), "
                f"but got {self.warmup_epochs}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneOptimizerConfig:
    """What updates a classifier's weights; None means that a recipe does not say.

    Attributes:
        name: `adam` adds the decay to the gradient, `adamw` to the update. `lars` is M2D's; PyTorch
            has none.
        lr: Learning rate after the warm-up; either this or `lr_per_256`.
        lr_per_256: The same per 256 clips of the effective batch.
        beta1: First moment's momentum.
        beta2: Second moment's.
        weight_decay: Strength of the decay.
        decayed: Which parameters decay: all, those with two or more dimensions, or of these all
            but positions and class tokens.
        layer_decay: Each layer learns at this share of the layer above it; None: all alike.
        layer_decay_of: `all` slows patches, positions and class tokens below the first block;
            `blocks` lets them learn at the full rate, as EAT does.
        head_lr_factor: Times the learning rate for the head.
        clip_grad_norm: Largest norm of all gradients together; None: no limit.
        schedule: Learning rate over the run.
    """

    __pydantic_config__ = {"extra": "forbid"}

    name: Literal["adam", "adamw", "lars"] | None
    lr: float | None = None
    lr_per_256: float | None = None
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float | None
    decayed: DecayedParameters = "matrices"
    layer_decay: float | None = None
    layer_decay_of: SlowedLayers = "all"
    head_lr_factor: float = 1.0
    clip_grad_norm: float | None = None
    schedule: LrScheduleConfig | None

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        if self.lr is not None and self.lr_per_256 is not None:
            raise ValueError(f"lr_per_256 must be null beside lr, but got {self.lr_per_256}")
        for name in ("lr", "lr_per_256", "head_lr_factor", "clip_grad_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0.0:
                raise ValueError(f"{name} must be above 0, but got {value}")
        for name in ("beta1", "beta2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must be in [0, 1), but got {getattr(self, name)}")
        if self.weight_decay is not None and not self.weight_decay >= 0.0:
            raise ValueError(f"weight_decay must be at least 0, but got {self.weight_decay}")
        if self.layer_decay is not None and not 0.0 < self.layer_decay <= 1.0:
            raise ValueError(f"layer_decay must be in (0, 1], but got {self.layer_decay}")


def base_learning_rate(config: FinetuneOptimizerConfig, *, batch_size: int) -> float:
    """The learning rate after the warm-up, for clips per update.

    Raises:
        ValueError: If the config names none.

    Source: linear scaling (arXiv:1706.02677), as in MAE's `blr`.
    """
    if config.lr is not None:
        return config.lr
    if config.lr_per_256 is not None:
        return config.lr_per_256 * batch_size / 256
    raise ValueError("lr must be set to train, but is None; set lr or lr_per_256")


def learning_rate(
    config: LrScheduleConfig, step: int, *, base: float, steps_per_epoch: int, total_steps: int
) -> float:
    """The learning rate of one update.

    Args:
        config: Shape of the schedule.
        step: Update, 0 <= step < total_steps.
        base: Learning rate after the warm-up.
        steps_per_epoch: Updates per epoch.
        total_steps: Updates of the run.

    Returns:
        The scheduled value; the warm-up multiplies the steps' factors. The released AST instead
        overwrites them during its warm-up: equal as long as the warm-up ends before the first
        factor, which it does in every published recipe.

    Raises:
        ValueError: If a cosine's warm-up is longer than the run.

    Source: AST's and SSAST's released training loops (`MultiStepLR`, 1000 warm-up steps in stairs
    of 50); MAE (arXiv:2111.06377) for the cosine.
    """
    warmup_steps = config.warmup_steps or config.warmup_epochs * steps_per_epoch
    stair = config.warmup_stair_steps
    warmed = min(1.0, step // stair * stair / warmup_steps) if warmup_steps else 1.0
    match config.decay:
        case "constant":
            return base * warmed
        case "steps":
            return base * warmed * _factor(config, step // steps_per_epoch)
        case "cosine":
            if warmup_steps > total_steps:
                raise ValueError(
                    f"warm-up must be at most the run's {total_steps} steps, but got {warmup_steps}"
                )
            if step < warmup_steps:
                return base * warmed
            progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
            half = 0.5 * (1.0 + math.cos(math.pi * progress))
            return config.min_lr + (base - config.min_lr) * half


def _factor(config: LrScheduleConfig, epoch: int) -> float:
    first, every, factor = config.first_epoch, config.every_epochs, config.factor
    assert first is not None
    assert every is not None
    assert factor is not None
    return 1.0 if epoch < first else factor ** (1 + (epoch - first) // every)


def parameter_groups(
    classifier: Classifier, config: FinetuneOptimizerConfig
) -> list[dict[str, object]]:
    """Trainable parameters grouped by their share of the learning rate and whether they decay.

    Each group holds `params`, `lr_scale` and `weight_decay`. Patches, positions and class tokens
    are layer 0 (with `layer_decay_of="blocks"` the top), block i is layer i + 1, the last norm and
    the head are the top.

    Raises:
        ValueError: If the config names no weight decay.

    Source: BEiT's layer-wise decay (arXiv:2106.08254, App.), as in MAE and Audio-MAE.
    """
    if config.weight_decay is None:
        raise ValueError("weight_decay must be set to train, but is None; 0 turns it off")
    top = 1 + classifier.encoder.config.depth
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in classifier.named_parameters():
        if parameter.requires_grad:
            layer = _layer(name, top, config.layer_decay_of)
            scale = (config.layer_decay or 1.0) ** (top - layer)
            scale *= config.head_lr_factor if name.startswith("head.") else 1.0
            decays = _decays(name, parameter, config.decayed)
            groups.setdefault((scale, decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr_scale": scale,
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (scale, decays), parameters in groups.items()
    ]


def make_finetune_optimizer(
    classifier: Classifier, config: FinetuneOptimizerConfig
) -> torch.optim.Optimizer:
    """Adam or AdamW over `parameter_groups`; `set_learning_rate` gives it a rate before each step.

    Raises:
        ValueError: If the config names no optimizer, one that PyTorch does not have, or no decay.
    """
    groups = parameter_groups(classifier, config)
    betas = (config.beta1, config.beta2)
    match config.name:
        case "adam":
            return torch.optim.Adam(groups, lr=0.0, betas=betas)
        case "adamw":
            return torch.optim.AdamW(groups, lr=0.0, betas=betas)
        case _:
            raise ValueError(
                f"optimizer must be adam or adamw to be made here, but got {config.name!r}; "
                f"set name, or give parameter_groups to an optimizer of your own"
            )


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its share of the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def _layer(name: str, top: int, slowed: SlowedLayers) -> int:
    if name.startswith("encoder.blocks."):
        return 1 + int(name.split(".")[2])
    is_input = name.startswith(("encoder.patch_embed.", "encoder.pos_embed", "encoder.cls_token"))
    return 0 if is_input and slowed == "all" else top


def _decays(name: str, parameter: nn.Parameter, decayed: DecayedParameters) -> bool:
    if decayed == "all":
        return True
    is_token = name in ("encoder.pos_embed", "encoder.cls_token")
    return parameter.ndim > 1 and not (is_token and decayed == "matrices_without_positions")
