"""Fine-tuning recipes of AST, SSAST and SSAST's SUPERB tasks; `recipes.py` names them.

Values come from the released programs that each recipe's `source` names.
"""

import dataclasses

from asit_core.augment import AugmentConfig, SpecAugmentConfig
from asit_core.finetune_optim import FinetuneOptimizerConfig, LrScheduleConfig
from asit_core.mixup import MixupConfig
from asit_core.recipe import NOT_KNOWN, Recipe, Statistics

AUDIOSET = Statistics(-4.2677393, 4.5689974)
_ESC50 = Statistics(-6.6268077, 5.358466)
_SPEECH_COMMANDS = Statistics(-6.845978, 5.5654526)

_AST = "AST's released run scripts and training loop (arXiv:2104.01778)"
_SSAST = "SSAST's released fine-tuning scripts and training loop (arXiv:2110.09784)"
_SUPERB = "SSAST's SUPERB configs (s3prl downstream tasks, arXiv:2105.01051)"

_ENHANCED = "labels are PSLA's enhanced ones"
_ANY_PARTNER = "partners of mixup are any clips"
_WARMUP_STAIR_STEPS = 50


def _ast_schedule(first: int, every: int, factor: float, warmup_steps: int) -> LrScheduleConfig:
    return LrScheduleConfig(
        decay="steps",
        first_epoch=first,
        every_epochs=every,
        factor=factor,
        warmup_steps=warmup_steps,
        warmup_stair_steps=_WARMUP_STAIR_STEPS if warmup_steps else 1,
    )


def _ast_optimizer(lr: float, schedule: LrScheduleConfig) -> FinetuneOptimizerConfig:
    return FinetuneOptimizerConfig(
        name="adam",
        lr=lr,
        beta1=0.95,
        beta2=0.999,
        weight_decay=5e-7,
        decayed="all",
        schedule=schedule,
    )


def _ast_augment(bins: int, frames: int, mixup: float, *, noise: bool = False) -> AugmentConfig:
    return AugmentConfig(
        mixup=MixupConfig(probability=mixup) if mixup else None,
        spec_augment=SpecAugmentConfig(max_bins=bins, max_frames=frames),
        noise_amplitude=0.1 if noise else None,
        roll_frames=10 if noise else None,
    )


def ast_as20k() -> Recipe:
    """AudioSet-20K from ImageNet's weights."""
    return Recipe(
        source=_AST,
        dataset="AudioSet-20K",
        num_classes=527,
        metric="mAP",
        input_frames=1024,
        padding="zero",
        **AUDIOSET._asdict(),
        epochs=25,
        batch_size=12,
        loss="bce",
        pool="class_tokens",
        stride_frames=10,
        stride_bins=10,
        augment=_ast_augment(48, 192, 0.5),
        average_epochs=(6, 25),
        optimizer=_ast_optimizer(5e-5, _ast_schedule(10, 5, 0.5, 1000)),
        notes=(_ENHANCED, _ANY_PARTNER),
    )


def ast_as2m() -> Recipe:
    """AudioSet-2M from ImageNet's weights, balanced."""
    return dataclasses.replace(
        ast_as20k(),
        dataset="AudioSet-2M",
        epochs=5,
        balanced_sampling=True,
        average_epochs=(1, 5),
        optimizer=_ast_optimizer(1e-5, _ast_schedule(2, 1, 0.5, 1000)),
        notes=(_ANY_PARTNER,),
    )


def ast_esc50() -> Recipe:
    """ESC-50 from AudioSet's weights."""
    return dataclasses.replace(
        ast_as20k(),
        dataset="ESC-50",
        num_classes=50,
        metric="accuracy",
        input_frames=512,
        **_ESC50._asdict(),
        batch_size=48,
        loss="ce",
        augment=_ast_augment(24, 96, 0.0),
        average_epochs=None,
        optimizer=_ast_optimizer(1e-5, _ast_schedule(5, 1, 0.85, 0)),
        notes=(
            "from AudioSet's weights; from ImageNet's the learning rate is 1e-4",
            "the published accuracy is of the epoch that is best on the five test folds' mean",
        ),
    )


def ast_esc50_imagenet() -> Recipe:
    """ESC-50 from ImageNet's weights."""
    recipe = ast_esc50()
    return dataclasses.replace(
        recipe, optimizer=dataclasses.replace(recipe.optimizer, lr=1e-4), notes=recipe.notes[1:]
    )


def ast_scv2() -> Recipe:
    """Speech Commands V2, 35 classes."""
    return dataclasses.replace(
        ast_as20k(),
        dataset="Speech Commands V2 (35 classes)",
        num_classes=35,
        metric="accuracy",
        input_frames=128,
        **_SPEECH_COMMANDS._asdict(),
        epochs=30,
        batch_size=128,
        augment=_ast_augment(48, 48, 0.6, noise=True),
        average_epochs=None,
        optimizer=_ast_optimizer(2.5e-4, _ast_schedule(5, 1, 0.85, 0)),
        notes=("the epoch is chosen on the validation set",),
    )


def ssast_as20k() -> Recipe:
    """AudioSet-20K."""
    return dataclasses.replace(
        ast_as20k(),
        source=_SSAST,
        pool="mean",
        optimizer=_ast_optimizer(5e-5, _ast_schedule(10, 5, 0.5, 0)),
        notes=(
            _ENHANCED,
            _ANY_PARTNER,
            "no warm-up: the script sets warmup=True, but passes False",
            "tiny and small models give the head a larger learning rate: head_lr_factor",
        ),
    )


def ssast_esc50() -> Recipe:
    """ESC-50."""
    return dataclasses.replace(
        ast_esc50(),
        source=_SSAST,
        pool="mean",
        epochs=50,
        augment=_ast_augment(24, 96, 0.0, noise=True),
        optimizer=_ast_optimizer(1e-4, _ast_schedule(6, 1, 0.85, 0)),
        notes=(),
    )


def ssast_scv2() -> Recipe:
    """Speech Commands V2, 35 classes, from a frame model."""
    return dataclasses.replace(
        ast_scv2(),
        source=_SSAST,
        pool="mean",
        stride_frames=1,
        stride_bins=128,
        optimizer=_ast_optimizer(2.5e-4, _ast_schedule(5, 1, 0.85, 1000)),
        notes=("for the frame model: patches of 2 frames and 128 bins",),
    )


def _superb(
    dataset: str, num_classes: int, *, updates: int, batch_size: int, accumulation: int, frames: int
) -> Recipe:
    return Recipe(
        source=_SUPERB,
        dataset=dataset,
        num_classes=num_classes,
        metric="accuracy",
        input_frames=frames,
        padding=None,
        mean=None,
        std=None,
        updates=updates,
        batch_size=batch_size,
        accumulation=accumulation,
        loss="ce",
        pool="mean",
        projector_dim=256,
        augment=AugmentConfig(),
        optimizer=FinetuneOptimizerConfig(
            name="adam",
            lr=1e-4,
            weight_decay=0.0,
            clip_grad_norm=1.0,
            schedule=LrScheduleConfig(decay="constant"),
        ),
        open_fields={
            "mean": "set inside s3prl's upstream; " + NOT_KNOWN,
            "std": "set inside s3prl's upstream; " + NOT_KNOWN,
            "padding": NOT_KNOWN,
        },
        notes=("the whole encoder is trained (s3prl's -f)",),
    )


def superb_ks1() -> Recipe:
    """SUPERB's keyword spotting, 12 classes."""
    return _superb(
        "Speech Commands V1 (12 classes)",
        12,
        updates=20_000,
        batch_size=32,
        accumulation=1,
        frames=100,
    )


def superb_er() -> Recipe:
    """SUPERB's emotion recognition."""
    return _superb("IEMOCAP", 4, updates=10_000, batch_size=4, accumulation=8, frames=600)


def superb_sid() -> Recipe:
    """SUPERB's speaker identification."""
    recipe = _superb("VoxCeleb1", 1251, updates=40_000, batch_size=4, accumulation=8, frames=1000)
    return dataclasses.replace(recipe, notes=(*recipe.notes, "training clips are cut to 8 s"))
