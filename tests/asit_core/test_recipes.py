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


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ast_as20k", (25, 12, 5e-5, (10, 5, 0.5), 1000, 1024, 0.5, (48, 192), "bce", (6, 25))),
        ("ast_as2m", (5, 12, 1e-5, (2, 1, 0.5), 1000, 1024, 0.5, (48, 192), "bce", (1, 5))),
        ("ast_esc50", (25, 48, 1e-5, (5, 1, 0.85), 0, 512, 0, (24, 96), "ce", None)),
        ("ast_esc50_imagenet", (25, 48, 1e-4, (5, 1, 0.85), 0, 512, 0, (24, 96), "ce", None)),
        ("ast_scv2", (30, 128, 2.5e-4, (5, 1, 0.85), 0, 128, 0.6, (48, 48), "bce", None)),
        ("ssast_as20k", (25, 12, 5e-5, (10, 5, 0.5), 0, 1024, 0.5, (48, 192), "bce", (6, 25))),
        ("ssast_esc50", (50, 48, 1e-4, (6, 1, 0.85), 0, 512, 0, (24, 96), "ce", None)),
        ("ssast_scv2", (30, 128, 2.5e-4, (5, 1, 0.85), 1000, 128, 0.6, (48, 48), "bce", None)),
    ],
)
def test_asts_and_ssasts_rows_of_the_table(name, expected):
    recipe = create_recipe(name)
    schedule, hidden = recipe.optimizer.schedule, recipe.augment.spec_augment
    assert schedule is not None
    assert hidden is not None
    mixup = recipe.augment.mixup
    assert (
        recipe.epochs,
        recipe.batch_size,
        recipe.optimizer.lr,
        (schedule.first_epoch, schedule.every_epochs, schedule.factor),
        schedule.warmup_steps,
        recipe.input_frames,
        mixup.probability if mixup else 0,
        (hidden.max_bins, hidden.max_frames),
        recipe.loss,
        recipe.average_epochs,
    ) == expected
    assert recipe.balanced_sampling == (name == "ast_as2m")
    noisy = name in ("ast_scv2", "ssast_scv2", "ssast_esc50")
    assert (recipe.augment.noise_amplitude is not None) == noisy
    assert recipe.pool == ("mean" if name.startswith("ssast") else "class_tokens")
    recipe.check_complete()


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
