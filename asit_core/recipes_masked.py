"""Fine-tuning recipes of EAT, Audio-MAE, M2D and AudioMosaic; `recipes.py` names them.

Values come from the released programs and papers that each recipe's `source` names; what these do
not say is None and listed in `open_fields`.
"""

import dataclasses

from asit_core.augment import AugmentConfig, PatchoutConfig, SpecAugmentConfig
from asit_core.finetune_optim import FinetuneOptimizerConfig, LrScheduleConfig
from asit_core.mixup import MixupConfig
from asit_core.recipe import NOT_KNOWN, Recipe, Statistics
from asit_core.recipes_ast import AUDIOSET

_EAT = "EAT's released fine-tuning config, scripts and data set (arXiv:2401.03497)"
_AUDIO_MAE = "Audio-MAE's released fine-tuning program and scripts (arXiv:2207.06405)"
_M2D = "M2D's published settings (arXiv:2210.14648)"
_AUDIO_MOSAIC = "AudioMosaic's published configs (ICML 2026)"

_EAT_ESC50 = Statistics(-6.627, 5.359)
_EAT_SPEECH_COMMANDS = Statistics(-6.846, 5.565)
_EAT_NOTES = (
    "the optimizer is fairseq's `adam`, whose decay is decoupled: AdamW",
    "waveforms are rolled by a uniform share of the clip and scaled by Beta(10, 10) + 0.5",
)
_EAT_MIXED = "one weight of mixup is drawn per batch"

_WHICH_MIXUP = "published as {}, without saying whether that is a probability or Beta's parameter"


def _eat(frames: int, mask_ratio: float, *, mixed: bool) -> AugmentConfig:
    return AugmentConfig(
        mixup=MixupConfig(probability=0.9, beta=0.8, domain="log_mel") if mixed else None,
        spec_augment=SpecAugmentConfig(
            max_bins=128 * mask_ratio, max_frames=frames * mask_ratio, order="after_normalization"
        ),
    )


def _eat_optimizer(lr: float, warmup_steps: int) -> FinetuneOptimizerConfig:
    return FinetuneOptimizerConfig(
        name="adamw",
        lr=lr,
        beta1=0.9,
        beta2=0.95,
        weight_decay=0.05,
        layer_decay=0.65,
        layer_decay_of="blocks",
        schedule=LrScheduleConfig(decay="cosine", warmup_steps=warmup_steps, min_lr=1e-6),
    )


def eat_as20k() -> Recipe:
    """AudioSet-20K."""
    return Recipe(
        source=_EAT,
        dataset="AudioSet-20K",
        num_classes=527,
        metric="mAP",
        input_frames=1024,
        padding="zero",
        **AUDIOSET._asdict(),
        updates=40_000,
        batch_size=48,
        loss="bce",
        pool="class_token",
        drop_path_rate=0.1,
        augment=_eat(1024, 0.2, mixed=True),
        optimizer=_eat_optimizer(5e-5, 4000),
        notes=(*_EAT_NOTES, _EAT_MIXED),
    )


def eat_esc50() -> Recipe:
    """ESC-50."""
    return dataclasses.replace(
        eat_as20k(),
        dataset="ESC-50",
        num_classes=50,
        metric="accuracy",
        input_frames=512,
        **_EAT_ESC50._asdict(),
        updates=4000,
        loss="ce",
        label_smoothing=0.1,
        augment=_eat(512, 0.4, mixed=False),
        optimizer=_eat_optimizer(5e-5, 400),
        notes=_EAT_NOTES,
    )


def eat_scv2() -> Recipe:
    """Speech Commands V2, 35 classes."""
    augment = dataclasses.replace(_eat(128, 0.2, mixed=True), noise_amplitude=0.1, roll_frames=10)
    return dataclasses.replace(
        eat_as20k(),
        dataset="Speech Commands V2 (35 classes)",
        num_classes=35,
        metric="accuracy",
        input_frames=128,
        **_EAT_SPEECH_COMMANDS._asdict(),
        batch_size=256,
        label_smoothing=0.1,
        augment=augment,
        optimizer=_eat_optimizer(2e-4, 4000),
        notes=(
            *_EAT_NOTES,
            _EAT_MIXED,
            "noise and roll come before mixup and SpecAugment",
            "the script asks for label smoothing, which the program ignores where it mixes: 0",
        ),
    )


def audiomae_as20k() -> Recipe:
    """AudioSet-20K."""
    return Recipe(
        source=_AUDIO_MAE,
        dataset="AudioSet-20K",
        num_classes=527,
        metric="mAP",
        input_frames=1024,
        padding="zero",
        **AUDIOSET._asdict(),
        epochs=60,
        batch_size=32,
        loss="bce",
        pool="mean",
        drop_path_rate=0.1,
        augment=AugmentConfig(
            mixup=MixupConfig(probability=0.5),
            spec_augment=SpecAugmentConfig(max_bins=48, max_frames=192),
            patchout=PatchoutConfig(time_ratio=0.2, frequency_ratio=0.2),
        ),
        optimizer=FinetuneOptimizerConfig(
            name="adamw",
            lr_per_256=1e-3,
            weight_decay=5e-4,
            decayed="matrices_without_positions",
            layer_decay=0.75,
            schedule=LrScheduleConfig(decay="cosine", warmup_epochs=4, min_lr=1e-6),
        ),
        notes=(
            "8 clips on each of 4 GPUs",
            "waveforms are scaled by Beta(10, 10) + 0.5; their roll has length 1, so never moves",
        ),
    )


def audiomae_as2m() -> Recipe:
    """AudioSet-2M, balanced."""
    recipe = audiomae_as20k()
    return dataclasses.replace(
        recipe,
        dataset="AudioSet-2M",
        epochs=100,
        clips_per_epoch=200_000,
        batch_size=None,
        balanced_sampling=True,
        optimizer=dataclasses.replace(recipe.optimizer, lr_per_256=2e-4, schedule=None),
        open_fields={
            "batch_size": "8 nodes, the GPUs of each and clips of each GPU are given differently",
            "optimizer.schedule": "a cosine; its warm-up is given as 4 and as 10 epochs",
        },
        notes=recipe.notes[1:],
    )


_M2D_OPEN = {
    "augment.spec_augment.order": NOT_KNOWN,
    "mean": "computed for each run from its training data",
    "std": "computed for each run from its training data",
    "padding": NOT_KNOWN,
    "loss": NOT_KNOWN,
    "pool": NOT_KNOWN,
    "optimizer.weight_decay": NOT_KNOWN,
    "optimizer.schedule": "a cosine; its warm-up is " + NOT_KNOWN,
}
_M2D_PATCHOUT = {"augment.patchout": "structured patchout of 0.5; its split over axes is not given"}


def _m2d(dataset: str, num_classes: int, *, lr: float | None, bins: int, frames: int) -> Recipe:
    return Recipe(
        source=_M2D,
        dataset=dataset,
        num_classes=num_classes,
        metric="mAP" if dataset.startswith("AudioSet") else "accuracy",
        input_frames=None,
        padding=None,
        mean=None,
        std=None,
        batch_size=64,
        loss=None,
        pool=None,
        augment=AugmentConfig(
            spec_augment=SpecAugmentConfig(max_bins=bins, max_frames=frames, order=None)
        ),
        optimizer=FinetuneOptimizerConfig(name="lars", lr=lr, weight_decay=None, schedule=None),
    )


def m2d_as2m() -> Recipe:
    """AudioSet-2M."""
    return dataclasses.replace(
        _m2d("AudioSet-2M", 527, lr=2.0, bins=30, frames=192),
        input_frames=1001,
        epochs=70,
        open_fields={**_M2D_OPEN, **_M2D_PATCHOUT, "augment.mixup": _WHICH_MIXUP.format(0.5)},
    )


def m2d_esc50() -> Recipe:
    """ESC-50."""
    return dataclasses.replace(
        _m2d("ESC-50", 50, lr=0.5, bins=15, frames=48),
        input_frames=501,
        open_fields={**_M2D_OPEN, **_M2D_PATCHOUT, "epochs": "perhaps 200, not confirmed"},
    )


def m2d_scv2() -> Recipe:
    """Speech Commands V2, 35 classes."""
    return dataclasses.replace(
        _m2d("Speech Commands V2 (35 classes)", 35, lr=0.5, bins=30, frames=48),
        open_fields={
            **_M2D_OPEN,
            **_M2D_PATCHOUT,
            "epochs": NOT_KNOWN,
            "input_frames": NOT_KNOWN,
            "augment.mixup": _WHICH_MIXUP.format(0.3),
        },
    )


def m2d_vox1() -> Recipe:
    """VoxCeleb1's speakers."""
    recipe = _m2d("VoxCeleb1", 1251, lr=5e-4, bins=30, frames=48)
    return dataclasses.replace(
        recipe,
        input_frames=821,
        epochs=50,
        optimizer=dataclasses.replace(recipe.optimizer, name="adamw"),
        open_fields=dict(_M2D_OPEN),
    )


def audiomosaic_as20k() -> Recipe:
    """AudioSet-20K."""
    return Recipe(
        source=_AUDIO_MOSAIC,
        dataset="AudioSet-20K",
        num_classes=527,
        metric="mAP",
        input_frames=1024,
        padding=None,
        **AUDIOSET._asdict(),
        epochs=60,
        batch_size=64,
        loss="bce",
        pool="mean",
        augment=AugmentConfig(patchout=PatchoutConfig(time_ratio=0.2, frequency_ratio=0.2)),
        optimizer=FinetuneOptimizerConfig(
            name=None,
            lr=5e-4,
            weight_decay=0.01,
            layer_decay=0.65,
            schedule=LrScheduleConfig(decay="cosine", warmup_epochs=4),
        ),
        open_fields={
            "padding": NOT_KNOWN,
            "augment.mixup": "on in its config; the values are " + NOT_KNOWN,
            "optimizer.name": NOT_KNOWN,
        },
    )


def audiomosaic_esc50() -> Recipe:
    """ESC-50."""
    recipe = audiomosaic_as20k()
    return dataclasses.replace(
        recipe,
        dataset="ESC-50",
        num_classes=50,
        metric="accuracy",
        input_frames=512,
        batch_size=16,
        loss="ce",
        optimizer=dataclasses.replace(
            recipe.optimizer,
            layer_decay=0.75,
            schedule=LrScheduleConfig(decay="cosine", warmup_epochs=5),
        ),
    )
