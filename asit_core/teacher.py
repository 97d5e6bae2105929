"""The teacher: an exponential moving average of the student's network."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherConfig:
    """Temperature, centre and EMA schedule of the teacher.

    `temperature_warmup_ratio` is a share of the run. With `temperature_per_epoch` the temperature
    moves once an epoch, as in the released program; by step a short run keeps the schedule's shape.
    """

    __pydantic_config__ = {"extra": "forbid"}

    temperature: float = 0.07
    warmup_temperature: float = 0.04
    temperature_warmup_ratio: float = 0.3
    temperature_per_epoch: bool = False
    momentum: float = 0.996
    final_momentum: float = 1.0
    center_momentum: float = 0.9

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        for name in ("temperature", "warmup_temperature"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name} must be above 0, but got {getattr(self, name)}")
        for name in (
            "temperature_warmup_ratio",
            "momentum",
            "final_momentum",
            "center_momentum",
        ):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be in [0, 1], but got {getattr(self, name)}")


def make_teacher(student: ModuleT) -> ModuleT:
    """A frozen copy of the student in evaluation mode."""
    teacher = copy.deepcopy(student)
    teacher.requires_grad_(False)
    return teacher.eval()


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, *, momentum: float) -> None:
    """Set parameters to momentum * teacher + (1 - momentum) * student, in fp32.

    Source: DINO (arXiv:2104.14294), Sec. 3.1; once per optimizer step.
    """
    torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
        _tensors(teacher.parameters()), _tensors(student.parameters()), 1 - momentum
    )


def _tensors(parameters: Iterable[nn.Parameter]) -> list[torch.Tensor]:
    return [parameter.detach() for parameter in parameters]
