"""ASiT's local task: each patch token learns the teacher's of the same clean patch."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from asit_core.checks import check_one_of
from asit_core.encoder_config import EncoderConfig
from asit_core.losses import Center, cross_entropy
from asit_core.pretext.checks import check_prototypes, check_weight

TokenRule = Literal["all", "any", "half", "full"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchDistillationConfig:
    """Weight in the total loss, number of prototypes, and which tokens learn.

    `tokens`: `all`, as in the released program, or those of corrupted patches, as in the paper,
    which does not say when an unaligned mask corrupts a patch: if it hides `any` of its pixels, at
    least `half` of them, or `full` all. Where nothing is corrupted (`masking: null`) each of them
    means all.
    """

    __pydantic_config__ = {"extra": "forbid"}

    weight: float = 1.0
    num_prototypes: int = 1024
    tokens: TokenRule = "all"

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        check_weight(self.weight)
        check_prototypes(self.num_prototypes)
        check_one_of("tokens", self.tokens, ("all", "any", "half", "full"))


class PatchDistillation(nn.Module):
    """Owns the centre; needs a teacher on the clean view and all of the student's patch tokens.

    Source: ASiT (arXiv:2211.13189), Eqs. 5-6; over all tokens in the released program.
    """

    def __init__(self, config: PatchDistillationConfig, *, center_momentum: float) -> None:
        super().__init__()
        self.tokens: TokenRule = config.tokens
        self.center = Center(config.num_prototypes, momentum=center_momentum)

    def forward(
        self,
        student_VBNK: Tensor,
        teacher_VBNK: Tensor,
        *,
        corrupted_VBN: Tensor | None,
        student_temperature: float,
        teacher_temperature: float,
    ) -> Tensor:
        """Unweighted loss, a scalar: same view, same position.

        Args:
            student_VBNK: Logits of the student.
            teacher_VBNK: Logits of the teacher.
            corrupted_VBN: As `corrupted_tokens` gives it: the tokens that count; None means all.
            student_temperature: Divides the student's logits.
            teacher_temperature: Divides the teacher's.
        """
        return cross_entropy(
            student_VBNK,
            teacher_VBNK,
            self.center.value_K,
            student_temperature=student_temperature,
            teacher_temperature=teacher_temperature,
            counts=corrupted_VBN,
        )


def corrupted_tokens(
    mask_VBTF: Tensor, config: EncoderConfig, rule: Literal["any", "half", "full"]
) -> Tensor:
    """Which patches a pixel mask corrupts.

    Args:
        mask_VBTF: Boolean; True where a pixel is hidden.
        config: The encoder's, for the patches and their order.
        rule: Whether any, at least half or all pixels of a patch must be hidden.

    Returns:
        Boolean (V, B, N) in the encoder's token order.
    """
    mask_B1TF = mask_VBTF.flatten(0, 1).unsqueeze(1).float()
    share_Btf = functional.avg_pool2d(mask_B1TF, config.patch, config.stride).squeeze(1)
    if config.token_order == "frequency":
        share_Btf = share_Btf.transpose(1, 2)
    share_VBN = share_Btf.flatten(1).unflatten(0, mask_VBTF.shape[:2])
    match rule:
        case "any":
            return share_VBN > 0.0
        case "half":
            return share_VBN >= 0.5
        case "full":
            return share_VBN == 1.0
