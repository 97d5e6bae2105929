"""Student, teacher and the pretext tasks that are present: one step of pre-training.

A task whose config is `None` is absent: no head, no forward pass, no parameter, no metric. The
teacher exists only if a distillation task does.

Two kinds of tasks read two kinds of forward passes, which do not know of each other: tasks on
corrupted pixels (ASiT) and tasks on masked tokens (SSAST, MAE-AST, MaskSpec).

Shapes: `V` views, `B` clips, `T` frames, `F` mel bins, `N` patches, `M` masked ones, `D` width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from asit_core.encoder import SpectrogramEncoder
from asit_core.initialization import initialize
from asit_core.networks import DistillationNetwork, MaskedTokenNetwork, patch_pixels, take
from asit_core.pretext.clip_distillation import ClipDistillation
from asit_core.pretext.patch_discrimination import PatchDiscrimination
from asit_core.pretext.patch_distillation import PatchDistillation, corrupted_tokens
from asit_core.pretext.patch_regression import PatchRegression
from asit_core.pretext.reconstruction import Reconstruction
from asit_core.pretrain_config import PIXEL_TASKS, TOKEN_TASKS, PretextConfig, PretrainConfig
from asit_core.pretrain_inputs import SHARED_PASS, PretrainInputs
from asit_core.teacher import make_teacher, update_teacher
from asit_core.token_masking import TokenMasks
from asit_core.totals import fixed_total, log_variances, uncertainty_total

__all__ = ["PretextConfig", "PretrainConfig", "PretrainInputs", "Pretrainer", "StepReport"]


class StepReport(NamedTuple):
    """What one forward pass gives.

    Attributes:
        total: The scalar to differentiate.
        losses: Each task's unweighted loss.
        teacher_logits: Of each distillation task, for `after_step`.
        student_logits: The same of the student, without gradient.
        metrics: What else the tasks tell, by task and name: `patch_discrimination/accuracy`.
    """

    total: Tensor
    losses: dict[str, Tensor]
    teacher_logits: dict[str, Tensor]
    student_logits: dict[str, Tensor]
    metrics: dict[str, Tensor]


class Pretrainer(nn.Module):
    """Corrupted views through the student, clean ones through the teacher; masked tokens apart.

    Source: ASiT (arXiv:2211.13189), Fig. 1; SSAST (arXiv:2110.09784), Algorithm 1.
    """

    def __init__(self, config: PretrainConfig, *, seed: int) -> None:
        """Build all parts; initial weights depend on `seed` and parameter names alone."""
        super().__init__()
        self.config = config
        # Constructors of torch layers draw from the global generator; it is put back as it was.
        with torch.random.fork_rng(devices=[]):
            self.student = DistillationNetwork(config)
            self._build_pixel_tasks()
            self._build_token_tasks()
        initialize(self, seed=seed, weight_init=config.weight_init)
        self.teacher = make_teacher(self.student) if config.pretext.distills else None
        self.log_variances = (
            log_variances(config.pretext.weights())
            if config.loss_weights == "uncertainty"
            else None
        )

    def _build_pixel_tasks(self) -> None:
        pretext, teacher = self.config.pretext, self.config.teacher
        self.reconstruction = self.clip_distillation = self.patch_distillation = None
        if pretext.reconstruction is not None:
            self.reconstruction = Reconstruction(pretext.reconstruction, self.student.encoder)
        if pretext.distills:
            assert teacher is not None, "the config is checked"
            momentum = teacher.center_momentum
            if pretext.clip_distillation is not None:
                self.clip_distillation = ClipDistillation(
                    pretext.clip_distillation, center_momentum=momentum
                )
            if pretext.patch_distillation is not None:
                self.patch_distillation = PatchDistillation(
                    pretext.patch_distillation, center_momentum=momentum
                )

    def _build_token_tasks(self) -> None:
        config, pretext = self.config, self.config.pretext
        self.masked_tokens = self.patch_discrimination = self.patch_regression = None
        if not pretext.present(TOKEN_TASKS):
            return
        self.masked_tokens = MaskedTokenNetwork(config, self.student.encoder)
        width = (config.decoder or config.encoder).embed_dim
        num_pixels = config.encoder.patch_frames * config.encoder.patch_bins
        if pretext.patch_discrimination is not None:
            self.patch_discrimination = PatchDiscrimination(
                pretext.patch_discrimination, embed_dim=width, num_pixels=num_pixels
            )
        if pretext.patch_regression is not None:
            self.patch_regression = PatchRegression(
                pretext.patch_regression, embed_dim=width, num_pixels=num_pixels
            )

    @property
    def encoder(self) -> SpectrogramEncoder:
        """The encoder to evaluate: the teacher's where there is one, as the paper does."""
        return (self.teacher or self.student).encoder

    def forward(
        self, inputs: PretrainInputs, *, teacher_temperature: float | None = None
    ) -> StepReport:
        """Losses of one batch.

        Args:
            inputs: As `draw_inputs` draws them.
            teacher_temperature: This step's; not read without a teacher.

        Returns:
            Total, unweighted losses, and what `after_step` and gauges need.
        """
        losses: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        student: dict[str, Tensor] = {}
        teacher: dict[str, Tensor] = {}
        if self.config.pretext.present(PIXEL_TASKS):
            tokens_VBND, student = self.student(inputs.corrupted_VBTF, inputs.drop_path_keys_VB)
            if self.teacher is not None:
                with torch.no_grad():
                    _, teacher = self.teacher(inputs.clean_VBTF)
            losses |= self._reconstruction_loss(tokens_VBND, inputs)
            losses |= self._distillation_losses(student, teacher, inputs, teacher_temperature)
        if self.masked_tokens is not None:
            losses |= self._masked_token_losses(inputs, metrics)
        total = (
            fixed_total(losses, self.config.pretext.weights())
            if self.log_variances is None
            else uncertainty_total(losses, self.log_variances)
        )
        student = {name: logits.detach() for name, logits in student.items()}
        return StepReport(total, losses, teacher, student, metrics)

    def after_step(
        self, teacher_logits: dict[str, Tensor], *, momentum: float | None = None
    ) -> None:
        """Move centres and teacher, if any; once per optimizer step, after the optimizer."""
        if self.clip_distillation is not None:
            self.clip_distillation.center.update(teacher_logits["clip_distillation"])
        if self.patch_distillation is not None:
            self.patch_distillation.center.update(teacher_logits["patch_distillation"])
        if self.teacher is not None:
            assert momentum is not None, "a teacher needs a momentum"
            update_teacher(self.teacher, self.student, momentum=momentum)

    def masked_patches(self, inputs: PretrainInputs, masks: TokenMasks) -> tuple[Tensor, Tensor]:
        """Tokens (V * B, M, D) of masked patches, and the patches' pixels (V * B, M, P)."""
        assert self.masked_tokens is not None, "there is a task that reads them"
        views_BTF, keys = inputs.clean_VBTF.flatten(0, 1), inputs.drop_path_keys_VB
        keys_B = None if keys is None else keys.flatten()
        tokens_BMD = self.masked_tokens(self.student.encoder, views_BTF, masks, keys_B)
        return tokens_BMD, take(patch_pixels(views_BTF, self.config.encoder), masks.masked_BM)

    def _reconstruction_loss(
        self, tokens_VBND: Tensor, inputs: PretrainInputs
    ) -> dict[str, Tensor]:
        if self.reconstruction is None:
            return {}
        mask = inputs.mask_VBTF
        loss = self.reconstruction(
            tokens_VBND[:, :, self.student.encoder.num_cls_tokens :].flatten(0, 1),
            inputs.clean_VBTF.flatten(0, 1),
            None if mask is None else mask.flatten(0, 1),
        )
        return {"reconstruction": loss}

    def _distillation_losses(
        self,
        student: dict[str, Tensor],
        teacher: dict[str, Tensor],
        inputs: PretrainInputs,
        teacher_temperature: float | None,
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        if self.teacher is None:
            return losses
        assert teacher_temperature is not None, "a teacher needs a temperature"
        temperatures = {
            "student_temperature": self.config.student_temperature,
            "teacher_temperature": teacher_temperature,
        }
        if self.patch_distillation is not None:
            rule, corrupted_VBN = self.patch_distillation.tokens, None
            if rule != "all" and inputs.mask_VBTF is not None:
                corrupted_VBN = corrupted_tokens(inputs.mask_VBTF, self.config.encoder, rule)
            name = "patch_distillation"
            losses[name] = self.patch_distillation(
                student[name], teacher[name], corrupted_VBN=corrupted_VBN, **temperatures
            )
        if self.clip_distillation is not None:
            name = "clip_distillation"
            losses[name] = self.clip_distillation(student[name], teacher[name], **temperatures)
        return losses

    def _masked_token_losses(
        self, inputs: PretrainInputs, metrics: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        passes = {
            name: self.masked_patches(inputs, masks) for name, masks in inputs.token_masks.items()
        }
        if self.patch_discrimination is not None:
            name = "patch_discrimination"
            found = self.patch_discrimination(*passes[self._pass_of(name)])
            losses[name], metrics[f"{name}/accuracy"] = found
        if self.patch_regression is not None:
            name = "patch_regression"
            losses[name] = self.patch_regression(*passes[self._pass_of(name)])
        return losses

    def _pass_of(self, task: str) -> str:
        masking = self.config.token_masking
        return SHARED_PASS if masking is not None and masking.shared_pass else task
