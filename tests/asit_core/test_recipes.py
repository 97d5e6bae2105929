import dataclasses

import pytest
import torch

from asit_core.augment import AugmentConfig, augment_log_mels, fit_frames, visible_patches
from asit_core.classifier import Classifier, finetune_step
from asit_core.encoder import EncoderConfig, SpectrogramEncoder
from asit_core.finetune_optim import (
    base_learning_rate,
    learning_rate,
    make_finetune_optimizer,
    set_learning_rate,
)
from asit_core.initialization import initialize
from asit_core.mixup import MixupConfig, mixup_log_mels
from asit_core.recipe import Recipe
from asit_core.recipes import RECIPES, create_recipe
from asit_core.seeding import clip_keys, stream

# What must be known before anybody can follow a recipe; None elsewhere means "without".
_NEEDED = (
    "input_frames",
    "padding",
    "mean",
    "std",
    "batch_size",
    "loss",
    "pool",
    "optimizer.name",
    "optimizer.weight_decay",
    "optimizer.schedule",
)


def _get(recipe: Recipe, dotted_name: str) -> object:
    value: object = recipe
    for name in dotted_name.split("."):
        value = getattr(value, name)
    return value


@pytest.mark.parametrize("name", RECIPES)
def test_nothing_is_missing_without_a_reason(name):
    recipe = create_recipe(name)
    unknown = {field for field in _NEEDED if _get(recipe, field) is None}
    if recipe.epochs is None and recipe.updates is None:
        unknown.add("epochs")
    if recipe.optimizer.lr is None and recipe.optimizer.lr_per_256 is None:
        unknown.add("optimizer.lr")
    assert unknown <= recipe.missing.keys()
    # Nothing is called open that has a value.
    assert recipe.missing == recipe.open_fields


# What is published, row by row, under the shortest names of the fields.
_AUDIOSET = {"mean": -4.268, "std": 4.569}
_ESC50 = {"mean": -6.627, "std": 5.358, "metric": "accuracy", "loss": "ce", "num_classes": 50}
_COMMANDS = {"mean": -6.846, "std": 5.565, "metric": "accuracy", "num_classes": 35}
_TAGGED = {**_AUDIOSET, "metric": "mAP", "loss": "bce", "num_classes": 527}
_AST = {
    **{"name": "adam", "beta1": 0.95, "beta2": 0.999, "weight_decay": 5e-7, "decay": "steps"},
    **{"padding": "zero", "accumulation": 1, "updates": None, "label_smoothing": 0.0},
}
_QUIET = {"noise_amplitude": None, "roll_frames": None}
_NOISY = {"noise_amplitude": 0.1, "roll_frames": 10}
_UNWARMED = {"warmup_steps": 0, "warmup_epochs": 0.0, "warmup_stair_steps": 1}
_WARMED = {"warmup_steps": 1000, "warmup_epochs": 0.0, "warmup_stair_steps": 50}
_SUPERB = {
    **{"lr": 1e-4, "name": "adam", "decay": "constant", "loss": "ce", "metric": "accuracy"},
    **{"projector_dim": 256, "pool": "mean", "clip_grad_norm": 1.0, "epochs": None, "mixup": None},
    **{"mean": None, "std": None, "spec_augment": None, **_UNWARMED},
}
_EAT = {
    **{"name": "adamw", "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.05, "decay": "cosine"},
    **{"min_lr": 1e-6, "layer_decay": 0.65, "layer_decay_of": "blocks", "pool": "class_token"},
    **{"padding": "zero", "epochs": None, "order": "after_normalization"},
}
_AUDIOMAE = {**_TAGGED, "mixup": 0.5, "time_ratio": 0.2, "frequency_ratio": 0.2, "pool": "mean"}
_M2D = {"batch_size": 64, "mean": None, "std": None, "schedule": None, "updates": None}
_MOSAIC = {
    **{**_AUDIOSET, "epochs": 60, "lr": 5e-4, "weight_decay": 0.01, "decay": "cosine"},
    **{"time_ratio": 0.2, "frequency_ratio": 0.2, "pool": "mean"},
}


def _run(epochs: int | None, batch_size: int | None, lr: float, frames: int | None) -> dict:
    return {"epochs": epochs, "batch_size": batch_size, "lr": lr, "input_frames": frames}


def _steps(first: int, every: int, factor: float) -> dict:
    return {"first_epoch": first, "every_epochs": every, "factor": factor}


def _hidden(mixup: float | None, bins: float, frames: float) -> dict:
    return {"mixup": mixup, "max_bins": bins, "max_frames": frames}


_ROWS: dict[str, dict] = {
    "ast_as20k": {
        **{**_AST, **_TAGGED, **_QUIET, **_WARMED, "pool": "class_tokens"},
        **{**_run(25, 12, 5e-5, 1024), **_steps(10, 5, 0.5), **_hidden(0.5, 48, 192)},
        **{"average_epochs": (6, 25), "balanced_sampling": False},
    },
    "ast_as2m": {
        **{**_AST, **_TAGGED, **_QUIET, **_WARMED, "pool": "class_tokens"},
        **{**_run(5, 12, 1e-5, 1024), **_steps(2, 1, 0.5), **_hidden(0.5, 48, 192)},
        **{"average_epochs": (1, 5), "balanced_sampling": True},
    },
    "ast_esc50": {
        **{**_AST, **_ESC50, **_QUIET, **_UNWARMED, "average_epochs": None},
        **{**_run(25, 48, 1e-5, 512), **_steps(5, 1, 0.85), **_hidden(None, 24, 96)},
    },
    "ast_esc50_imagenet": {
        **{**_AST, **_ESC50, **_QUIET, **_UNWARMED, "average_epochs": None},
        **{**_run(25, 48, 1e-4, 512), **_steps(5, 1, 0.85), **_hidden(None, 24, 96)},
    },
    "ast_scv2": {
        **{**_AST, **_COMMANDS, **_NOISY, **_UNWARMED, "loss": "bce", "average_epochs": None},
        **{**_run(30, 128, 2.5e-4, 128), **_steps(5, 1, 0.85), **_hidden(0.6, 48, 48)},
    },
    "ssast_as20k": {
        **{**_AST, **_TAGGED, **_QUIET, **_UNWARMED, "pool": "mean"},
        **{**_run(25, 12, 5e-5, 1024), **_steps(10, 5, 0.5), **_hidden(0.5, 48, 192)},
        **{"average_epochs": (6, 25), "balanced_sampling": False},
    },
    "ssast_esc50": {
        **{**_AST, **_ESC50, **_NOISY, **_UNWARMED, "pool": "mean", "average_epochs": None},
        **{**_run(50, 48, 1e-4, 512), **_steps(6, 1, 0.85), **_hidden(None, 24, 96)},
    },
    "ssast_scv2": {
        **{**_AST, **_COMMANDS, **_NOISY, **_WARMED, "loss": "bce", "pool": "mean"},
        **{**_run(30, 128, 2.5e-4, 128), **_steps(5, 1, 0.85), **_hidden(0.6, 48, 48)},
        **{"stride_frames": 1, "average_epochs": None},
    },
    "superb_ks1": {
        **{**_SUPERB, "updates": 20_000, "batch_size": 32, "accumulation": 1, "input_frames": 100},
        **{"num_classes": 12},
    },
    "superb_er": {
        **{**_SUPERB, "updates": 10_000, "batch_size": 4, "accumulation": 8, "input_frames": 600},
        **{"num_classes": 4},
    },
    "superb_sid": {
        **{**_SUPERB, "updates": 40_000, "batch_size": 4, "accumulation": 8, "input_frames": 1000},
        **{"num_classes": 1251},
    },
    "eat_as20k": {
        **{**_EAT, **_TAGGED, **_QUIET, **_run(None, 48, 5e-5, 1024), "updates": 40_000},
        **{"beta": 0.8, "max_bins": 25.6, "max_frames": 204.8, "label_smoothing": 0.0},
        **{"warmup_steps": 4000},
    },
    "eat_esc50": {
        **{**_EAT, **_ESC50, **_QUIET, **_run(None, 48, 5e-5, 512), "updates": 4000},
        **{**_hidden(None, 51.2, 204.8), "label_smoothing": 0.1, "std": 5.359},
        **{"warmup_steps": 400},
    },
    "eat_scv2": {
        **{**_EAT, **_COMMANDS, **_NOISY, **_run(None, 256, 2e-4, 128), "updates": 40_000},
        **{"beta": 0.8, "max_bins": 25.6, "max_frames": 25.6, "label_smoothing": 0.1},
        **{"warmup_steps": 4000, "loss": "bce"},
    },
    "audiomae_as20k": {
        **{**_AUDIOMAE, "epochs": 60, "batch_size": 8 * 4, "lr": None, "lr_per_256": 1e-3},
        **{"warmup_epochs": 4, "input_frames": 1024, "balanced_sampling": False, "decay": "cosine"},
    },
    "audiomae_as2m": {
        **{**_AUDIOMAE, "epochs": 100, "batch_size": None, "lr": None, "lr_per_256": 2e-4},
        **{"schedule": None, "input_frames": 1024, "balanced_sampling": True},
    },
    "m2d_as2m": {
        **{**_M2D, **_run(70, 64, 2.0, 1001), **_hidden(None, 30, 192), "name": "lars"},
        **{"metric": "mAP", "num_classes": 527},
    },
    "m2d_esc50": {
        **{**_M2D, **_run(None, 64, 0.5, 501), **_hidden(None, 15, 48), "name": "lars"},
        **{"metric": "accuracy", "num_classes": 50},
    },
    "m2d_scv2": {
        **{**_M2D, **_run(None, 64, 0.5, None), **_hidden(None, 30, 48), "name": "lars"},
        **{"metric": "accuracy", "num_classes": 35},
    },
    "m2d_vox1": {
        **{**_M2D, **_run(50, 64, 5e-4, 821), **_hidden(None, 30, 48), "name": "adamw"},
        **{"patchout": None, "metric": "accuracy", "num_classes": 1251},
    },
    "audiomosaic_as20k": {
        **{**_MOSAIC, "batch_size": 64, "input_frames": 1024, "layer_decay": 0.65},
        **{"warmup_epochs": 4, "loss": "bce", "metric": "mAP"},
    },
    "audiomosaic_esc50": {
        **{**_MOSAIC, "batch_size": 16, "input_frames": 512, "layer_decay": 0.75},
        **{"warmup_epochs": 5, "loss": "ce", "metric": "accuracy"},
    },
}


def _flat(recipe: Recipe) -> dict[str, object]:
    """Every field by its own name; of mixup its probability and, where it is present, its beta."""
    mixup = recipe.augment.mixup
    parts = (
        recipe,
        recipe.augment,
        recipe.augment.spec_augment,
        recipe.augment.patchout,
        recipe.optimizer,
        recipe.optimizer.schedule,
    )
    fields = {
        field.name: getattr(part, field.name)
        for part in parts
        if part is not None
        for field in dataclasses.fields(part)
    }
    beta = {"beta": mixup.beta} if mixup else {}
    return {**fields, "mixup": mixup and mixup.probability, **beta}


def test_every_recipe_has_its_row():
    assert _ROWS.keys() == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_holds_what_is_published(name):
    found = _flat(create_recipe(name))
    published = {
        # Means and deviations are printed with three decimals.
        field: pytest.approx(value, abs=5e-4 if field in ("mean", "std") else 1e-12)
        if isinstance(value, float)
        else value
        for field, value in _ROWS[name].items()
    }
    assert {field: found[field] for field in published} == published


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith(("ast", "ssast"))])
def test_asts_and_ssasts_recipes_can_be_followed(name):
    create_recipe(name).check_complete()


def test_what_has_no_field_or_no_certain_meaning_is_said():
    for name, mixup in (("m2d_as2m", "0.5"), ("m2d_scv2", "0.3")):
        assert mixup in create_recipe(name).missing["augment.mixup"]
    assert "perhaps 200" in create_recipe("m2d_esc50").missing["epochs"]
    assert any("ignores where it mixes" in note for note in create_recipe("eat_scv2").notes)
    for name in ("eat_as20k", "eat_esc50", "eat_scv2"):
        recipe = create_recipe(name)
        assert recipe.missing == {}
        assert any("scaled by Beta(10, 10) + 0.5" in note for note in recipe.notes)
    for name in ("ast_as20k", "ssast_as20k"):
        assert "labels are PSLA's enhanced ones" in create_recipe(name).notes


def test_a_recipe_with_holes_says_which_and_why():
    recipe = create_recipe("audiomosaic_as20k")
    with pytest.raises(
        ValueError, match=r"leaves open padding \(not known\); augment\.mixup \(on in"
    ):
        recipe.check_complete()
    filled = dataclasses.replace(
        recipe,
        padding="silence",
        augment=dataclasses.replace(recipe.augment, mixup=MixupConfig(probability=0.5)),
        optimizer=dataclasses.replace(recipe.optimizer, name="adamw"),
    )
    assert filled.missing == {}
    filled.check_complete()


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"recipe must be one of ast_as20k, .* got 'ast_fsd50k'"):
        create_recipe("ast_fsd50k")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("updates", 100, "updates must be null beside epochs, but got 100"),
        ("batch_size", 0, "batch_size must be at least 1, but got 0"),
        ("std", 0.0, "std must be above 0, but got 0"),
        (
            "average_epochs",
            (6, 26),
            r"average_epochs must lie in the run's 25 epochs, but got \(6, 26",
        ),
        ("average_epochs", (0, 5), "average_epochs must lie in the run's 25 epochs, but got"),
        (
            "open_fields",
            {"optimizer.rate": "?"},
            "must name fields of the recipe, but got 'optimizer",
        ),
    ],
)
def test_a_bad_field_is_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(create_recipe("ast_as20k"), **{field: value})


def _small(recipe: Recipe) -> Recipe:
    """The recipe on inputs of 32 frames and 16 bins, mixed as log-mels, at a rate for few steps."""
    mixup, hidden, schedule = (
        recipe.augment.mixup,
        recipe.augment.spec_augment,
        recipe.optimizer.schedule,
    )
    assert hidden is not None
    assert schedule is not None
    return dataclasses.replace(
        recipe,
        input_frames=32,
        epochs=40,
        average_epochs=None,
        augment=dataclasses.replace(
            recipe.augment,
            spec_augment=dataclasses.replace(hidden, max_bins=2, max_frames=4),
            mixup=mixup and dataclasses.replace(mixup, domain="power"),
        ),
        optimizer=dataclasses.replace(
            recipe.optimizer,
            lr=1e-2,
            lr_per_256=None,
            schedule=dataclasses.replace(schedule, warmup_steps=5, warmup_epochs=0),
        ),
    )


@pytest.mark.parametrize("name", ["ast_esc50", "ast_scv2", "ssast_as20k", "audiomae_as20k"])
def test_a_recipe_trains(name):
    """Four combs of bins, told apart by a small model that was trained as the recipe says."""
    recipe = _small(create_recipe(name))
    assert recipe.input_frames is not None
    assert recipe.mean is not None
    assert recipe.std is not None
    assert recipe.padding is not None
    assert recipe.loss is not None
    assert recipe.pool is not None
    assert recipe.epochs is not None
    assert recipe.optimizer.schedule is not None
    ids = [f"clip{i}" for i in range(16)]
    label = torch.arange(16) % 4
    log_mel = recipe.mean + torch.randn(16, 40, 16, generator=stream(0, "test_input"))
    for row, index in enumerate(label.tolist()):
        log_mel[row, :, index::4] += 6.0
    target, lengths = torch.eye(4)[label], torch.tensor([40, 30, 20, 35] * 4)
    encoder = SpectrogramEncoder(
        EncoderConfig(
            embed_dim=16,
            depth=1,
            num_heads=2,
            patch_frames=8,
            patch_bins=4,
            input_bins=16,
            num_cls_tokens=2,
            drop_path_rate=recipe.drop_path_rate or 0.0,
        ),
        input_frames=32,
    )
    initialize(encoder, seed=0, weight_init="xavier")
    classifier = Classifier(encoder, num_classes=4, seed=0, pool=recipe.pool)
    optimizer = make_finetune_optimizer(classifier, recipe.optimizer)
    before = torch.get_rng_state()
    for epoch in range(recipe.epochs):
        draw = {"seed": 0, "epoch": epoch}
        sound, mixed_target = log_mel, target
        if recipe.augment.mixup:
            sound, mixed_target = mixup_log_mels(
                log_mel, lengths, target, ids, recipe.augment.mixup, **draw
            )
        crops = fit_frames(sound, lengths, frames=recipe.input_frames, padding=recipe.padding)
        crops = augment_log_mels(
            crops, ids, recipe.augment, mean=recipe.mean, std=recipe.std, **draw
        )
        visible = None
        if recipe.augment.patchout:
            visible = visible_patches(
                ids, classifier.encoder.grid, recipe.augment.patchout, token_order="time", **draw
            )
        rate = learning_rate(
            recipe.optimizer.schedule,
            epoch,
            base=base_learning_rate(recipe.optimizer, batch_size=16),
            steps_per_epoch=10,
            total_steps=recipe.epochs,
        )
        set_learning_rate(optimizer, rate)
        finetune_step(
            classifier,
            optimizer,
            crops,
            mixed_target,
            loss=recipe.loss,
            visible_BM=visible,
            drop_path_keys_B=clip_keys(0, "drop_path", epoch, ids),
        )
    clean = fit_frames(log_mel, lengths, frames=recipe.input_frames, padding=recipe.padding)
    clean = augment_log_mels(
        clean, ids, AugmentConfig(), mean=recipe.mean, std=recipe.std, seed=0, epoch=0
    )
    assert torch.equal(classifier.eval()(clean).argmax(dim=1), label)
    assert torch.equal(before, torch.get_rng_state())
