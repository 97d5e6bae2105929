"""ASiT's global task: the class token learns the teacher's of the other crop."""

from dataclasses import dataclass

from torch import Tensor, nn

from asit_core.losses import Center, clip_distillation_loss
from asit_core.pretext.checks import check_prototypes, check_weight


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipDistillationConfig:
    """Weight in the total loss, and number of prototypes."""

    __pydantic_config__ = {"extra": "forbid"}

    weight: float = 1.0
    num_prototypes: int = 8192

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        check_weight(self.weight)
        check_prototypes(self.num_prototypes)


class ClipDistillation(nn.Module):
    """Owns the centre; needs a teacher on clean views and class tokens of two views."""

    def __init__(self, config: ClipDistillationConfig, *, center_momentum: float) -> None:
        super().__init__()
        self.center = Center(config.num_prototypes, momentum=center_momentum)

    def forward(
        self,
        student_VBK: Tensor,
        teacher_VBK: Tensor,
        *,
        student_temperature: float,
        teacher_temperature: float,
    ) -> Tensor:
        """Unweighted loss, a scalar."""
        return clip_distillation_loss(
            student_VBK,
            teacher_VBK,
            self.center.value_K,
            student_temperature=student_temperature,
            teacher_temperature=teacher_temperature,
        )
