"""AdamW as ASiT's recipe uses it: scheduled per step, clipped per parameter."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from asit_core.schedules import cosine


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW and its schedules; `*_ratio` fields are shares of the run's steps."""

    __pydantic_config__ = {"extra": "forbid"}

    lr_per_256: float = 5e-4
    min_lr: float = 1e-6
    warmup_ratio: float = 0.1
    weight_decay: float = 0.04
    final_weight_decay: float = 0.4
    beta1: float = 0.9
    beta2: float = 0.999
    clip_grad: float | None = 3.0
    freeze_last_layer_ratio: float = 0.0

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        if not self.lr_per_256 > 0.0:
            raise ValueError(f"lr_per_256 must be above 0, but got {self.lr_per_256}")
        for name in ("min_lr", "weight_decay", "final_weight_decay"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{name} must be at least 0, but got {getattr(self, name)}")
        for name in ("warmup_ratio", "freeze_last_layer_ratio"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be in [0, 1], but got {getattr(self, name)}")
        for name in ("beta1", "beta2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must be in [0, 1), but got {getattr(self, name)}")
        if self.clip_grad is not None and not self.clip_grad > 0.0:
            raise ValueError(f"clip_grad must be above 0 or null, but got {self.clip_grad}")


def make_optimizer(module: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; biases and other vectors carry no weight decay.

    Positions and class token have three dimensions and do decay, as in the released program.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "decays": True},
        {"params": [p for p in trainable if p.ndim <= 1], "decays": False, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(config.beta1, config.beta2), fused=True)


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
        up, then a cosine.
    """
    lr = cosine(
        step,
        base=config.lr_per_256 * batch_size / 256,
        final=config.min_lr,
        total_steps=total_steps,
        warmup_steps=round(config.warmup_ratio * total_steps),
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


@torch.no_grad()
def clip_per_parameter(parameters: Iterable[nn.Parameter], max_norm: float) -> None:
    """Scale each parameter's gradient to at most `max_norm`, without a host synchronisation.

    Source: DINO's released program, which ASiT follows: norms are per tensor, not global.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch._foreach_norm(gradients)  # pyright: ignore[reportPrivateImportUsage]
    scales = [(max_norm / (norm + 1e-6)).clamp(max=1.0) for norm in norms]
    torch._foreach_mul_(gradients, scales)  # pyright: ignore[reportPrivateImportUsage]
