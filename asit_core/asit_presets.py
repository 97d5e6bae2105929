"""ASiT's presets: `asit_code` is the released program, `asit` mends it, `asit_paper` is the text.

The released program differs from the paper in ways that matter (its total is clip + patch + 2
reconstruction, patch distillation covers all tokens, one projection serves both tasks); `asit`
keeps those and mends what is plainly a bug: a temperature counted in whole epochs, a last layer
whose freezing never happened, a clip that may be its own alien, padding that is hidden and has to
be reconstructed, another sample rate's statistics.

Some differences are no field. The paper's "Adam" cites AdamW, which the program uses. Prototypes
start from PyTorch's default in all of them: the program's own rule is applied before they exist,
and the paper has none. Its "cropped and resized" is in the program a plain crop, and here too. The
program's fp16 needs a scaler of the loss; `precision` offers fp32 and bf16, whose range needs none.
That a silent crop is drawn again, at most ten times, is in every preset and from neither source:
the project asks for it (issue 2).
"""

import dataclasses

from asit_core.heads import ProjectionHeadConfig
from asit_core.masking import MaskingConfig
from asit_core.optim import OptimizerConfig
from asit_core.pretext.clip_distillation import ClipDistillationConfig
from asit_core.pretext.patch_distillation import PatchDistillationConfig
from asit_core.pretext.reconstruction import ReconstructionConfig
from asit_core.pretrain_config import NormalizationConfig, PretextConfig, PretrainConfig
from asit_core.sizes import NANO_CROP_FRAMES, NANO_RUN, encoder_config, nano_optimizer
from asit_core.teacher import TeacherConfig
from asit_core.views import ViewsConfig

_PAPER_HEADS = {"nano": 3, "tiny": 3, "small": 3, "base": 6}


def asit_code(size: str) -> PretrainConfig:
    """The released program with its documented command: 100 epochs, 4 x 32 clips.

    Source: ASiT's repository, state of 2023-04-04. It computes in fp16; here `precision` decides.
    """
    config = PretrainConfig(
        encoder=encoder_config(size),
        views=ViewsConfig(crop_frames=592),
        masking=MaskingConfig(self_alien=True, spare_padding=False),
        pretext=PretextConfig(
            reconstruction=ReconstructionConfig(),
            patch_distillation=PatchDistillationConfig(),
            clip_distillation=ClipDistillationConfig(),
        ),
        projection_head=ProjectionHeadConfig(),
        teacher=TeacherConfig(temperature_per_epoch=True),
        optimizer=OptimizerConfig(),
        # AudioSet's at 16 kHz, on features of 32 kHz.
        normalization=NormalizationConfig(mean=-4.2677393, std=4.5689974),
        epochs=100,
        batch_size=128,
        donor_group=32,
    )
    return _nano(config, distillation_weight=0.2) if size == "nano" else config


def asit(size: str) -> PretrainConfig:
    """The released program without its bugs."""
    config = asit_code(size)
    assert config.masking is not None, "the program corrupts"
    assert config.teacher is not None, "the program distils"
    return dataclasses.replace(
        config,
        masking=dataclasses.replace(config.masking, self_alien=False, spare_padding=True),
        teacher=dataclasses.replace(config.teacher, temperature_per_epoch=False),
        # The program means to freeze the last layers for its first epoch of a hundred.
        optimizer=dataclasses.replace(config.optimizer, freeze_last_layer_ratio=0.01),
        normalization=None,
    )


def asit_paper(size: str) -> PretrainConfig:
    """The paper's text; where it gives no number, the program's.

    Equal weights; patch distillation over corrupted tokens, which are here those with any hidden
    pixel; a projection for each task; a decoder 2048-2048-256; 70 % hidden by zeros or 30 % by
    another clip; at `small` and `base` half the program's attention heads, elsewhere as many; 40
    epochs, of which the warm-ups take the program's 10 and 30.

    Source: ASiT (arXiv:2211.13189v1), Secs. III and IV-A.
    """
    config = PretrainConfig(
        encoder=encoder_config(size, num_heads=_PAPER_HEADS[size]),
        views=ViewsConfig(crop_frames=592),
        masking=MaskingConfig(min_ratio=0.7),
        pretext=PretextConfig(
            reconstruction=ReconstructionConfig(
                weight=1.0, hidden_dim=2048, bottleneck_dim=256, bottleneck_gelu=False
            ),
            patch_distillation=PatchDistillationConfig(tokens="any"),
            clip_distillation=ClipDistillationConfig(),
        ),
        projection_head=ProjectionHeadConfig(shared=False),
        teacher=TeacherConfig(temperature_warmup_ratio=0.75),
        optimizer=OptimizerConfig(warmup_ratio=0.25),
        epochs=40,
        batch_size=128,
        donor_group=32,
    )
    return _nano(config, distillation_weight=1.0) if size == "nano" else config


def _nano(config: PretrainConfig, *, distillation_weight: float) -> PretrainConfig:
    """Widths for a laptop, and a recipe for runs of minutes rather than days."""
    pretext, head, teacher = config.pretext, config.projection_head, config.teacher
    assert pretext.reconstruction is not None, "all three tasks are present"
    assert pretext.patch_distillation is not None, "all three tasks are present"
    assert pretext.clip_distillation is not None, "all three tasks are present"
    assert head is not None, "two tasks distil"
    assert teacher is not None, "two tasks distil"
    return dataclasses.replace(
        config,
        encoder=dataclasses.replace(config.encoder, drop_path_rate=0.0),
        views=dataclasses.replace(config.views, crop_frames=NANO_CROP_FRAMES),
        pretext=PretextConfig(
            reconstruction=dataclasses.replace(
                pretext.reconstruction, hidden_dim=192, bottleneck_dim=64
            ),
            patch_distillation=dataclasses.replace(
                pretext.patch_distillation, weight=distillation_weight, num_prototypes=256
            ),
            clip_distillation=dataclasses.replace(
                pretext.clip_distillation, weight=distillation_weight, num_prototypes=512
            ),
        ),
        projection_head=dataclasses.replace(head, hidden_dim=256, bottleneck_dim=64),
        # At the released 0.996 the teacher of a run of 500 steps is mostly its initial weights.
        teacher=dataclasses.replace(teacher, temperature_warmup_ratio=0.3, momentum=0.95),
        optimizer=nano_optimizer(),
        **NANO_RUN,
    )
