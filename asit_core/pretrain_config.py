"""Everything that decides a pre-training run, and the checks of how its parts fit together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from asit_core.checks import check_one_of
from asit_core.decoder import DecoderConfig
from asit_core.encoder_config import EncoderConfig
from asit_core.heads import ProjectionHeadConfig
from asit_core.initialization import WeightInit
from asit_core.masking import MaskingConfig
from asit_core.optim import OptimizerConfig
from asit_core.precision import Precision
from asit_core.pretext.clip_distillation import ClipDistillationConfig
from asit_core.pretext.patch_discrimination import PatchDiscriminationConfig
from asit_core.pretext.patch_distillation import PatchDistillationConfig
from asit_core.pretext.patch_regression import PatchRegressionConfig
from asit_core.pretext.reconstruction import ReconstructionConfig
from asit_core.teacher import TeacherConfig
from asit_core.token_masking import TokenMaskingConfig
from asit_core.views import ViewsConfig

PIXEL_TASKS = ("reconstruction", "patch_distillation", "clip_distillation")
TOKEN_TASKS = ("patch_discrimination", "patch_regression")


@dataclass(frozen=True, kw_only=True, slots=True)
class PretextConfig:
    """The pretext tasks; `None` means absent.

    The first three read views whose pixels `masking` corrupts, the other two tokens that
    `token_masking` masks; both kinds may be present.
    """

    __pydantic_config__ = {"extra": "forbid"}

    reconstruction: ReconstructionConfig | None = None
    patch_distillation: PatchDistillationConfig | None = None
    clip_distillation: ClipDistillationConfig | None = None
    patch_discrimination: PatchDiscriminationConfig | None = None
    patch_regression: PatchRegressionConfig | None = None

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        weights = self.weights()
        if not weights:
            raise ValueError("pretext must name at least one task, but all are null")
        if not any(weights.values()):
            raise ValueError(
                f"weight must be above 0 for at least one task, but got 0 for {', '.join(weights)}"
            )

    def present(self, names: Sequence[str] = (*PIXEL_TASKS, *TOKEN_TASKS)) -> list[str]:
        """Which of these tasks there are."""
        return [name for name in names if getattr(self, name) is not None]

    def weights(self) -> dict[str, float]:
        """Weight of each task present."""
        return {name: getattr(self, name).weight for name in self.present()}

    @property
    def distills(self) -> bool:
        """Whether a task needs a teacher."""
        return bool(self.present(("patch_distillation", "clip_distillation")))


@dataclass(frozen=True, kw_only=True, slots=True)
class NormalizationConfig:
    """Log-mel statistics given beforehand."""

    __pydantic_config__ = {"extra": "forbid"}

    mean: float
    std: float

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        if not self.std > 0.0:
            raise ValueError(f"std must be above 0, but got {self.std}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainConfig:
    """Everything that decides a pre-training run, apart from seed and data.

    Attributes:
        encoder: The encoder.
        views: Crops of each clip.
        masking: Corruption of pixels; null: nothing is corrupted, reconstruction is over all
            pixels, and a rule about corrupted tokens means all.
        token_masking: Which patch tokens are masked, for the tasks that learn from them.
        decoder: Null: mask embeddings take masked tokens' places in the encoder (SSAST); else the
            encoder sees visible tokens only and the decoder all (MAE-AST, MaskSpec).
        pretext: The tasks.
        projection_head: Of the distillation tasks; read where one is present.
        teacher: The same.
        optimizer: Optimizer and its schedules.
        normalization: Statistics to normalise with; null: those of the clips trained on.
        student_temperature: Divides the student's logits in distillation.
        loss_weights: `fixed`: the tasks' weights; `uncertainty`: learned from there on.
        weight_init: How linear layers start.
        epochs: Passes over the clips.
        batch_size: Clips of an optimizer step, over all workers.
        donor_group: Clips among which aliens are exchanged; a worker's batch holds whole groups.
        precision: Number type of the forward pass.
    """

    __pydantic_config__ = {"extra": "forbid"}

    encoder: EncoderConfig
    views: ViewsConfig
    masking: MaskingConfig | None
    token_masking: TokenMaskingConfig | None = None
    decoder: DecoderConfig | None = None
    pretext: PretextConfig
    projection_head: ProjectionHeadConfig | None = None
    teacher: TeacherConfig | None = None
    optimizer: OptimizerConfig
    normalization: NormalizationConfig | None = None
    student_temperature: float = 0.1
    loss_weights: Literal["fixed", "uncertainty"] = "fixed"
    weight_init: WeightInit = "normal"
    epochs: int = 100
    batch_size: int = 128
    donor_group: int = 16
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        """Check how the parts fit together."""
        check_one_of("loss_weights", self.loss_weights, ("fixed", "uncertainty"))
        check_one_of("weight_init", self.weight_init, ("normal", "xavier"))
        check_one_of("precision", self.precision, ("auto", "fp32", "bf16"))
        for fault in (
            *_faults_of_numbers(self),
            *_faults_of_patches(self),
            *_faults_of_distillation(self),
            *_faults_of_masking(self),
            *_faults_of_token_masking(self),
        ):
            raise ValueError(fault)


def _faults_of_numbers(config: PretrainConfig) -> Iterator[str]:
    if not config.student_temperature > 0.0:
        yield f"student_temperature must be above 0, but got {config.student_temperature}"
    if config.epochs < 1:
        yield f"epochs must be at least 1, but got {config.epochs}"
    group = config.donor_group
    if group < 2 or group % 2:
        yield f"donor_group must be even and at least 2, but got {group}"
    elif config.batch_size < 1 or config.batch_size % group:
        yield (
            f"batch_size must be a multiple of donor_group ({group}), but got {config.batch_size}"
        )
    weights = config.pretext.weights()
    if config.loss_weights == "uncertainty" and not all(weights.values()):
        name = next(name for name, weight in weights.items() if not weight)
        yield f"{name}.weight must be above 0 where loss_weights is uncertainty, but got 0"


def _faults_of_patches(config: PretrainConfig) -> Iterator[str]:
    encoder, frames = config.encoder, config.views.crop_frames
    if not encoder.overlaps:
        if frames % encoder.patch_frames:
            yield (
                f"crop_frames must be a multiple of patch_frames ({encoder.patch_frames}), "
                f"but got {frames}"
            )
        return
    drawing = config.pretext.present(("reconstruction", *TOKEN_TASKS))
    if drawing:
        axis = "frames" if encoder.stride[0] != encoder.patch_frames else "bins"
        patch, stride = getattr(encoder, f"patch_{axis}"), getattr(encoder, f"stride_{axis}")
        yield (
            f"stride_{axis} must be null or {patch} (patch_{axis}) for {drawing[0]}, whose patches "
            f"may not overlap, but got {stride}"
        )
    if frames < encoder.patch_frames:
        patch = encoder.patch_frames
        yield f"crop_frames must be at least patch_frames ({patch}), but got {frames}"


def _faults_of_distillation(config: PretrainConfig) -> Iterator[str]:
    distilling = ", ".join(config.pretext.present(("patch_distillation", "clip_distillation")))
    for name in ("teacher", "projection_head"):
        if distilling and getattr(config, name) is None:
            yield f"{name} must be given for {distilling}, but got null"
    if config.pretext.clip_distillation and config.views.num_views != 2:
        yield f"num_views must be 2 for clip_distillation, but got {config.views.num_views}"


def _faults_of_masking(config: PretrainConfig) -> Iterator[str]:
    """Of the corruption of pixels: tasks that could learn nothing, parts that nobody reads."""
    masking, pretext = config.masking, config.pretext
    if masking is None:
        return
    reading = pretext.present(PIXEL_TASKS)
    if not reading:
        yield f"masking must be null without {_either(PIXEL_TASKS)}, but is given"
    masking.check_fits(config.views.crop_frames, config.encoder.input_bins)
    masked_only = pretext.present(("reconstruction",))
    if pretext.patch_distillation and pretext.patch_distillation.tokens != "all":
        masked_only.append("patch_distillation")
    if masking.hides_nothing and masked_only:
        name, value = _empty_share(masking)
        yield (
            f"{name} must be above 0 for {masked_only[0]}, which learns from what is hidden, or "
            f"masking null, but got {value}"
        )
    if pretext.patch_distillation and pretext.patch_distillation.tokens == "full":
        yield from _faults_of_full_patches(masking, config)


def _empty_share(masking: MaskingConfig) -> tuple[str, str]:
    """Name and value of the share that lets a masking hide nothing."""
    if masking.alien_probability == 0.0:
        return "ratio", f"{masking.ratio}"
    if masking.alien_probability == 1.0:
        return "alien_ratio", f"{masking.alien_ratio}"
    return "ratio or alien_ratio", f"{masking.ratio} and {masking.alien_ratio}"


def _faults_of_full_patches(masking: MaskingConfig, config: PretrainConfig) -> Iterator[str]:
    """Patches that only several rectangles together could hide: seldom, and in small views never.

    Of 16 x 64 patches in views of 592 x 128 six in a hundred are hidden at a ratio of 0.7; of
    2 x 128 patches two in a thousand.
    """
    sides = (config.views.crop_frames, config.encoder.input_bins)
    # As `masking` draws them: one less than block_max allows, then rounded to align.
    reach = [int(side * masking.block_max) - 1 for side in sides]
    frames, bins = (round(length / masking.align) * masking.align for length in reach)
    patch_frames, patch_bins = config.encoder.patch
    if frames < patch_frames or bins < patch_bins:
        yield (
            f"tokens must be all, any or half where no rectangle of the masking (at most {frames} "
            f"x {bins}, by block_max {masking.block_max}) can hide a patch of {patch_frames} x "
            f"{patch_bins}, but got 'full'"
        )


def _faults_of_token_masking(config: PretrainConfig) -> Iterator[str]:
    """Of the masking of tokens, in the same way."""
    masking, reading = config.token_masking, config.pretext.present(TOKEN_TASKS)
    if masking is None:
        if reading:
            yield f"token_masking must be given for {', '.join(reading)}, but got null"
        if config.decoder is not None:
            yield "decoder must be null without token_masking, but is given"
        return
    if not reading:
        yield f"token_masking must be null without {_either(TOKEN_TASKS)}, but is given"
    columns, rows = config.encoder.grid_of(config.views.crop_frames)
    masking.check_fits(columns * rows)
    count = masking.count(columns * rows)
    if config.pretext.patch_discrimination and count < 2:
        name = "num_masked" if masking.ratio is None else "ratio"
        yield (
            f"{name} must mask at least 2 patches for patch_discrimination, which tells them "
            f"apart, but got {getattr(masking, name)}"
        )
    regression = config.pretext.patch_regression
    if regression and regression.normalize_target and config.encoder.patch == (1, 1):
        yield (
            "normalize_target must be false for patches of 1 x 1, which have no deviation, "
            "but got true"
        )


def _either(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"
