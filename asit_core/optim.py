"""The optimizers of the papers' recipes: scheduled per step, gradients clipped on request."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from asit_core.checks import check_one_of
from asit_core.schedules import ScheduleShape, cosine, learning_rate

DecayOn = Literal["all", "matrices_and_tokens", "matrices"]
_TOKENS = ("cls_token", "pos_embed", "mask_embed")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """Optimizer and its schedules; `*_ratio` fields are shares of the run's steps.

    Attributes:
        algorithm: `adamw`, or `adam`, whose weight decay is a part of the gradient.
        lr_per_256: Learning rate at 256 clips a step; proportional to the clips.
        min_lr: What the learning rate tends to.
        schedule: Of the learning rate after its warm-up.
        warmup_ratio: Length of the warm-up.
        warmup_stairs: Stairs of the warm-up; null: it rises with every step.
        weight_decay: At first; moves to `final_weight_decay` along a cosine.
        final_weight_decay: At last.
        decay_on: What decays: `all` parameters; `matrices_and_tokens`, not biases and norms, as in
            DINO's and ASiT's released programs, whose positions, class token and mask embedding do
            decay because they have three dimensions; `matrices` alone. Learned loss weights never
            decay.
        beta1: Momentum.
        beta2: Momentum of the squares.
        epsilon: Added to the root of the squares.
        clip_grad: Largest norm of a gradient; null switches clipping off.
        clip_norm_of: Of each `parameter`'s gradient, as in DINO's and ASiT's released programs, or
            of `all` gradients taken together.
        freeze_last_layer_ratio: For how long the prototypes stay as they are.
    """

    __pydantic_config__ = {"extra": "forbid"}

    algorithm: Literal["adamw", "adam"] = "adamw"
    lr_per_256: float = 5e-4
    min_lr: float = 1e-6
    schedule: ScheduleShape = "cosine"
    warmup_ratio: float = 0.1
    warmup_stairs: int | None = None
    weight_decay: float = 0.04
    final_weight_decay: float = 0.4
    decay_on: DecayOn = "matrices_and_tokens"
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    clip_grad: float | None = 3.0
    clip_norm_of: Literal["parameter", "all"] = "parameter"
    freeze_last_layer_ratio: float = 0.0

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        for name in ("lr_per_256", "epsilon"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name} must be above 0, but got {getattr(self, name)}")
        for name in ("min_lr", "weight_decay", "final_weight_decay"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{name} must be at least 0, but got {getattr(self, name)}")
        for name in ("warmup_ratio", "freeze_last_layer_ratio"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be in [0, 1], but got {getattr(self, name)}")
        for name in ("beta1", "beta2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must be in [0, 1), but got {getattr(self, name)}")
        check_one_of("algorithm", self.algorithm, ("adamw", "adam"))
        check_one_of("schedule", self.schedule, ("cosine", "linear", "constant"))
        check_one_of("decay_on", self.decay_on, ("all", "matrices_and_tokens", "matrices"))
        check_one_of("clip_norm_of", self.clip_norm_of, ("parameter", "all"))
        if self.warmup_stairs is not None and self.warmup_stairs < 1:
            raise ValueError(
                f"warmup_stairs must be at least 1 or null, but got {self.warmup_stairs}"
            )
        if self.clip_grad is not None and not self.clip_grad > 0.0:
            raise ValueError(f"clip_grad must be above 0 or null, but got {self.clip_grad}")


def make_optimizer(module: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer over the trainable parameters, split into those that decay and the others."""
    decaying, plain = [], []
    for name, parameter in _trainable(module):
        (decaying if _decays(name, parameter, config.decay_on) else plain).append(parameter)
    groups = [
        {"params": decaying, "decays": True},
        {"params": plain, "decays": False, "weight_decay": 0.0},
    ]
    algorithm = torch.optim.AdamW if config.algorithm == "adamw" else torch.optim.Adam
    return algorithm(
        groups,
        lr=0.0,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        fused=True,
    )


def schedule_optimizer(
    optimizer: torch.optim.Optimizer,
    config: OptimizerConfig,
    *,
    step: int,
    total_steps: int,
    batch_size: int,
) -> float:
    """Set learning rate and weight decay for this step.

    Returns:
        The learning rate: linear in the effective batch (Goyal et al., arXiv:1706.02677), warmed
        up, then as scheduled.
    """
    lr = learning_rate(
        step,
        shape=config.schedule,
        base=config.lr_per_256 * batch_size / 256,
        final=config.min_lr,
        total_steps=total_steps,
        warmup_steps=round(config.warmup_ratio * total_steps),
        warmup_stairs=config.warmup_stairs,
    )
    weight_decay = cosine(
        step,
        base=config.weight_decay,
        final=config.final_weight_decay,
        total_steps=total_steps,
    )
    for group in optimizer.param_groups:
        group["lr"] = lr
        if group["decays"]:
            group["weight_decay"] = weight_decay
    return lr


def clip_gradients(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> None:
    """Clip as the config says, without a host synchronisation."""
    if config.clip_grad is None:
        return
    if config.clip_norm_of == "parameter":
        clip_per_parameter(parameters, config.clip_grad)
    else:
        nn.utils.clip_grad_norm_(parameters, config.clip_grad)


@torch.no_grad()
def clip_per_parameter(parameters: Iterable[nn.Parameter], max_norm: float) -> None:
    """Scale each parameter's gradient to at most `max_norm`, without a host synchronisation.

    Source: DINO's released program, which ASiT follows: norms are per tensor, not global.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch._foreach_norm(gradients)  # pyright: ignore[reportPrivateImportUsage]
    scales = [(max_norm / (norm + 1e-6)).clamp(max=1.0) for norm in norms]
    torch._foreach_mul_(gradients, scales)  # pyright: ignore[reportPrivateImportUsage]


def _trainable(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, p) for name, p in module.named_parameters() if p.requires_grad)


def _decays(name: str, parameter: nn.Parameter, decay_on: DecayOn) -> bool:
    match decay_on:
        case "all":
            return parameter.ndim > 0
        case "matrices_and_tokens":
            return parameter.ndim > 1
        case "matrices":
            return parameter.ndim > 1 and not name.endswith(_TOKENS)
