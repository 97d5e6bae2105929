"""Student, teacher and the pretext tasks that are present: one step of ASiT pre-training.

A task whose config is `None` is absent: no head, no forward pass, no parameter, no metric. The
teacher exists only if a distillation task does.

Shapes: `V` views, `B` clips, `T` frames, `F` mel bins, `N` patches, `D` width, `E` bottleneck, `K`
prototypes.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from asit_core.encoder import EncoderConfig, SpectrogramEncoder
from asit_core.heads import ProjectionHead, ProjectionHeadConfig, Prototypes
from asit_core.initialization import WeightInit, initialize
from asit_core.masking import MaskingConfig
from asit_core.optim import OptimizerConfig
from asit_core.precision import Precision
from asit_core.pretext.clip_distillation import ClipDistillation, ClipDistillationConfig
from asit_core.pretext.patch_distillation import PatchDistillation, PatchDistillationConfig
from asit_core.pretext.reconstruction import Reconstruction, ReconstructionConfig
from asit_core.teacher import TeacherConfig, make_teacher, update_teacher
from asit_core.views import ViewsConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class PretextConfig:
    """The pretext tasks; `None` means absent."""

    __pydantic_config__ = {"extra": "forbid"}

    reconstruction: ReconstructionConfig | None = None
    patch_distillation: PatchDistillationConfig | None = None
    clip_distillation: ClipDistillationConfig | None = None

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        if not (self.reconstruction or self.patch_distillation or self.clip_distillation):
            raise ValueError("pretext must name at least one task, but all are null")


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainConfig:
    """Everything that decides a pre-training run, apart from seed and data."""

    __pydantic_config__ = {"extra": "forbid"}

    encoder: EncoderConfig
    views: ViewsConfig
    masking: MaskingConfig
    pretext: PretextConfig
    projection_head: ProjectionHeadConfig
    teacher: TeacherConfig
    optimizer: OptimizerConfig
    student_temperature: float = 0.1
    loss_weights: Literal["fixed", "uncertainty"] = "fixed"
    weight_init: WeightInit = "normal"
    epochs: int = 100
    batch_size: int = 128
    donor_group: int = 16
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        """Check how the parts fit together."""
        if not self.student_temperature > 0.0:
            raise ValueError(
                f"student_temperature must be above 0, but got {self.student_temperature}"
            )
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, but got {self.epochs}")
        if self.donor_group < 2 or self.donor_group % 2:
            raise ValueError(f"donor_group must be even and at least 2, but got {self.donor_group}")
        if self.batch_size < 1 or self.batch_size % self.donor_group:
            raise ValueError(
                f"batch_size must be a multiple of donor_group ({self.donor_group}), "
                f"but got {self.batch_size}"
            )
        if self.views.crop_frames % self.encoder.patch_frames:
            raise ValueError(
                f"crop_frames must be a multiple of patch_frames ({self.encoder.patch_frames}), "
                f"but got {self.views.crop_frames}"
            )
        if self.pretext.clip_distillation and self.views.num_views != 2:
            raise ValueError(
                f"num_views must be 2 for clip_distillation, but got {self.views.num_views}"
            )
        self.masking.check_fits(self.views.crop_frames, self.encoder.input_bins)


class StepReport(NamedTuple):
    """What one forward pass gives: the total to differentiate and each task's unweighted loss."""

    total: Tensor
    losses: dict[str, Tensor]
    teacher_logits: dict[str, Tensor]


class DistillationNetwork(nn.Module):
    """What student and teacher share: the encoder and, to distil, projection and prototypes."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.encoder = SpectrogramEncoder(config.encoder, input_frames=config.views.crop_frames)
        head, pretext = config.projection_head, config.pretext
        self.projection = (
            ProjectionHead(config.encoder.embed_dim, head)
            if pretext.clip_distillation or pretext.patch_distillation
            else None
        )
        self.clip_prototypes = (
            Prototypes(head.bottleneck_dim, pretext.clip_distillation.num_prototypes)
            if pretext.clip_distillation
            else None
        )
        self.patch_prototypes = (
            Prototypes(head.bottleneck_dim, pretext.patch_distillation.num_prototypes)
            if pretext.patch_distillation
            else None
        )

    def prototypes(self) -> list[Prototypes]:
        """The last layers present, which the recipe freezes at first."""
        return [layer for layer in (self.clip_prototypes, self.patch_prototypes) if layer]

    def forward(
        self, views_VBTF: Tensor, drop_path_keys_VB: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Tokens (V, B, 1 + N, D) and the logits of each distillation task present."""
        keys = None if drop_path_keys_VB is None else drop_path_keys_VB.flatten()
        tokens = self.encoder(views_VBTF.flatten(0, 1), keys).unflatten(0, views_VBTF.shape[:2])
        logits = {}
        if self.projection is not None:
            if self.clip_prototypes is not None:
                logits["clip_distillation"] = self.clip_prototypes(
                    self.projection(tokens[..., 0, :])
                )
            if self.patch_prototypes is not None:
                logits["patch_distillation"] = self.patch_prototypes(
                    self.projection(tokens[..., 1:, :])
                )
        return tokens, logits


class Pretrainer(nn.Module):
    """Corrupted views through the student, clean ones through the teacher.

    Source: ASiT (arXiv:2211.13189), Fig. 1.
    """

    def __init__(self, config: PretrainConfig, *, seed: int) -> None:
        """Build all parts; initial weights depend on `seed` and parameter names alone."""
        super().__init__()
        self.config = config
        pretext, momentum = config.pretext, config.teacher.center_momentum
        # Constructors of torch layers draw from the global generator; it is put back as it was.
        with torch.random.fork_rng(devices=[]):
            self.student = DistillationNetwork(config)
            self.reconstruction = (
                Reconstruction(pretext.reconstruction, self.student.encoder)
                if pretext.reconstruction
                else None
            )
        self.clip_distillation = (
            ClipDistillation(pretext.clip_distillation, center_momentum=momentum)
            if pretext.clip_distillation
            else None
        )
        self.patch_distillation = (
            PatchDistillation(pretext.patch_distillation, center_momentum=momentum)
            if pretext.patch_distillation
            else None
        )
        initialize(self, seed=seed, weight_init=config.weight_init)
        distills = self.clip_distillation or self.patch_distillation
        self.teacher = make_teacher(self.student) if distills else None
        self.log_variances = (
            nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in self.task_weights()})
            if config.loss_weights == "uncertainty"
            else None
        )

    def task_weights(self) -> dict[str, float]:
        """Fixed weight of each task present."""
        pretext = self.config.pretext
        tasks = {
            "reconstruction": pretext.reconstruction,
            "patch_distillation": pretext.patch_distillation,
            "clip_distillation": pretext.clip_distillation,
        }
        return {name: task.weight for name, task in tasks.items() if task is not None}

    @property
    def encoder(self) -> SpectrogramEncoder:
        """The encoder to evaluate: the teacher's where there is one, as the paper does."""
        return (self.teacher or self.student).encoder

    def forward(
        self,
        clean_VBTF: Tensor,
        corrupted_VBTF: Tensor,
        mask_VBTF: Tensor,
        *,
        teacher_temperature: float,
        drop_path_keys_VB: Tensor | None = None,
    ) -> StepReport:
        """Losses of one batch.

        Args:
            clean_VBTF: Normalised views.
            corrupted_VBTF: The same, corrupted: what the student sees.
            mask_VBTF: Boolean, True where they differ by corruption.
            teacher_temperature: This step's.
            drop_path_keys_VB: Keys of the student's stochastic depth; None switches it off.

        Returns:
            Total, unweighted losses, and the teacher's logits for `after_step`.
        """
        tokens_VBND, student = self.student(corrupted_VBTF, drop_path_keys_VB)
        teacher: dict[str, Tensor] = {}
        if self.teacher is not None:
            with torch.no_grad():
                _, teacher = self.teacher(clean_VBTF)
        temperatures = {
            "student_temperature": self.config.student_temperature,
            "teacher_temperature": teacher_temperature,
        }
        losses = {}
        if self.reconstruction is not None:
            losses["reconstruction"] = self.reconstruction(
                tokens_VBND[:, :, 1:].flatten(0, 1),
                clean_VBTF.flatten(0, 1),
                mask_VBTF.flatten(0, 1),
            )
        if self.patch_distillation is not None:
            name = "patch_distillation"
            losses[name] = self.patch_distillation(student[name], teacher[name], **temperatures)
        if self.clip_distillation is not None:
            name = "clip_distillation"
            losses[name] = self.clip_distillation(student[name], teacher[name], **temperatures)
        return StepReport(self._total(losses), losses, teacher)

    def after_step(self, teacher_logits: dict[str, Tensor], *, momentum: float) -> None:
        """Move centres and teacher; once per optimizer step, after the optimizer."""
        if self.clip_distillation is not None:
            self.clip_distillation.center.update(teacher_logits["clip_distillation"])
        if self.patch_distillation is not None:
            self.patch_distillation.center.update(teacher_logits["patch_distillation"])
        if self.teacher is not None:
            update_teacher(self.teacher, self.student, momentum=momentum)

    def _total(self, losses: dict[str, Tensor]) -> Tensor:
        """Weighted sum of the tasks, the one place where weights apply.

        `uncertainty` learns s = log variance of each task: exp(-s) loss + s / 2 for a cross
        entropy, half that factor for a regression. Source: Kendall et al. (arXiv:1705.07115), Eqs.
        7 and 10.
        """
        if self.log_variances is None:
            return torch.stack([w * losses[name] for name, w in self.task_weights().items()]).sum()
        terms = []
        for name, loss in losses.items():
            factor = 0.5 if name == "reconstruction" else 1.0
            log_variance = self.log_variances[name]
            terms.append(factor * torch.exp(-log_variance) * loss + 0.5 * log_variance)
        return torch.stack(terms).sum()
