"""ASiT's local task: each patch token learns the teacher's of the same clean patch."""

from dataclasses import dataclass

from torch import Tensor, nn

from asit_core.losses import Center, cross_entropy
from asit_core.pretext.checks import check_prototypes, check_weight


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchDistillationConfig:
    """Weight in the total loss, and number of prototypes."""

    __pydantic_config__ = {"extra": "forbid"}

    weight: float = 1.0
    num_prototypes: int = 1024

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        check_weight(self.weight)
        check_prototypes(self.num_prototypes)


class PatchDistillation(nn.Module):
    """Owns the centre; needs a teacher on the clean view and all of the student's patch tokens.

    Source: ASiT (arXiv:2211.13189), Eqs. 5-6, over all tokens as in the released program.
    """

    def __init__(self, config: PatchDistillationConfig, *, center_momentum: float) -> None:
        super().__init__()
        self.center = Center(config.num_prototypes, momentum=center_momentum)

    def forward(
        self,
        student_VBNK: Tensor,
        teacher_VBNK: Tensor,
        *,
        student_temperature: float,
        teacher_temperature: float,
    ) -> Tensor:
        """Unweighted loss, a scalar: same view, same position."""
        return cross_entropy(
            student_VBNK,
            teacher_VBNK,
            self.center.value_K,
            student_temperature=student_temperature,
            teacher_temperature=teacher_temperature,
        )
