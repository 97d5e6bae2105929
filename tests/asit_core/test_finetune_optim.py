import dataclasses
import math

import pytest
import torch
from torch.optim.lr_scheduler import MultiStepLR

from asit_core.classifier import Classifier
from asit_core.encoder import EncoderConfig, SpectrogramEncoder
from asit_core.finetune_optim import (
    FinetuneOptimizerConfig,
    LrScheduleConfig,
    base_learning_rate,
    learning_rate,
    make_finetune_optimizer,
    parameter_groups,
    set_learning_rate,
)

STEPS = LrScheduleConfig(decay="steps", first_epoch=10, every_epochs=5, factor=0.5)


def _released_loop(
    *, lr: float, epochs: int, steps: int, first: int, every: int, factor: float, warmup: bool
) -> list[float]:
    """AST's and SSAST's training loop, with nothing in it but the learning rate."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    scheduler = MultiStepLR(optimizer, list(range(first, 1000, every)), gamma=factor)
    used, step = [], 0
    for _ in range(epochs):
        for _ in range(steps):
            if warmup and step <= 1000 and step % 50 == 0:
                optimizer.param_groups[0]["lr"] = step / 1000 * lr
            used.append(optimizer.param_groups[0]["lr"])
            step += 1
        optimizer.step()  # or the scheduler warns
        scheduler.step()
    return used


@pytest.mark.parametrize(
    ("first", "every", "factor", "epochs", "warmup"),
    [
        (10, 5, 0.5, 26, True),
        (2, 1, 0.5, 6, True),
        (5, 1, 0.85, 30, False),
        (6, 1, 0.85, 12, False),
    ],
)
def test_steps_and_stairs_are_the_released_loops(first, every, factor, epochs, warmup):
    steps_per_epoch = 553  # the warm-up ends in the second epoch
    config = LrScheduleConfig(
        decay="steps",
        first_epoch=first,
        every_epochs=every,
        factor=factor,
        warmup_steps=1000 if warmup else 0,
        warmup_stair_steps=50,
    )
    total = epochs * steps_per_epoch
    ours = [
        learning_rate(config, step, base=5e-5, steps_per_epoch=steps_per_epoch, total_steps=total)
        for step in range(total)
    ]
    released = _released_loop(
        lr=5e-5,
        epochs=epochs,
        steps=steps_per_epoch,
        first=first,
        every=every,
        factor=factor,
        warmup=warmup,
    )
    assert ours == pytest.approx(released, rel=1e-9)


def test_without_stairs_the_warm_up_is_a_straight_line():
    config = dataclasses.replace(STEPS, warmup_steps=1000)
    for step in (0, 1, 49, 50, 499, 1000, 1001):
        rate = learning_rate(config, step, base=2.0, steps_per_epoch=500, total_steps=5000)
        assert rate == pytest.approx(2.0 * min(1.0, step / 1000))


@pytest.mark.parametrize("length", [{"warmup_steps": 6}, {"warmup_epochs": 1.5}])
def test_a_cosine_is_maes(length):
    config = LrScheduleConfig(decay="cosine", min_lr=1e-6, **length)
    for step in range(20):
        epoch, epochs, warmup = step / 4, 20 / 4, 1.5
        if epoch < warmup:
            expected = 1e-3 * epoch / warmup
        else:
            share = (epoch - warmup) / (epochs - warmup)
            expected = 1e-6 + (1e-3 - 1e-6) * 0.5 * (1 + math.cos(math.pi * share))
        rate = learning_rate(config, step, base=1e-3, steps_per_epoch=4, total_steps=20)
        assert rate == pytest.approx(expected, rel=1e-12)


def test_constant_is_constant():
    config = LrScheduleConfig(decay="constant")
    rates = {
        learning_rate(config, step, base=1e-4, steps_per_epoch=5, total_steps=50)
        for step in range(50)
    }
    assert rates == {1e-4}


def test_a_cosines_warm_up_fits_into_the_run():
    config = LrScheduleConfig(decay="cosine", warmup_steps=11)
    with pytest.raises(ValueError, match="warm-up must be at most the run's 10 steps, but got 11"):
        learning_rate(config, 0, base=1.0, steps_per_epoch=5, total_steps=10)


def _classifier() -> Classifier:
    config = EncoderConfig(
        embed_dim=16, depth=2, num_heads=2, patch_frames=8, patch_bins=8, input_bins=16
    )
    return Classifier(SpectrogramEncoder(config, input_frames=32), num_classes=3, seed=0)


ADAMW = FinetuneOptimizerConfig(
    name="adamw", lr=1e-3, weight_decay=0.05, schedule=LrScheduleConfig(decay="constant")
)


def test_each_layer_learns_at_a_share_of_the_one_above():
    classifier = _classifier()
    config = dataclasses.replace(ADAMW, layer_decay=0.5, head_lr_factor=10.0)
    scales = {
        id(parameter): group["lr_scale"]
        for group in parameter_groups(classifier, config)
        for parameter in group["params"]  # pyright: ignore[reportGeneralTypeIssues]
    }
    expected = {
        "encoder.patch_embed.weight": 0.125,
        "encoder.pos_embed": 0.125,
        "encoder.cls_token": 0.125,
        "encoder.blocks.0.attn.qkv.weight": 0.25,
        "encoder.blocks.1.mlp.fc2.bias": 0.5,
        "encoder.norm.weight": 1.0,
        "head.0.weight": 10.0,
        "head.1.bias": 10.0,
    }
    named = dict(classifier.named_parameters())
    assert {name: scales[id(named[name])] for name in expected} == expected
    assert len(scales) == len(named)


def test_eats_decay_by_layer_leaves_the_input_at_the_full_rate():
    classifier = _classifier()
    config = dataclasses.replace(ADAMW, layer_decay=0.5, layer_decay_of="blocks")
    scales = {
        id(parameter): group["lr_scale"]
        for group in parameter_groups(classifier, config)
        for parameter in group["params"]  # pyright: ignore[reportGeneralTypeIssues]
    }
    for name, parameter in classifier.named_parameters():
        below = 2 - int(name.split(".")[2]) if name.startswith("encoder.blocks.") else 0
        assert scales[id(parameter)] == 0.5**below, name


@pytest.mark.parametrize(
    ("decayed", "kept"),
    [
        ("all", {"encoder.cls_token", "encoder.pos_embed", "encoder.norm.bias", "head.1.weight"}),
        ("matrices", {"encoder.cls_token", "encoder.pos_embed", "head.1.weight"}),
        ("matrices_without_positions", {"head.1.weight"}),
    ],
)
def test_weight_decay_falls_on_the_parameters_named(decayed, kept):
    # H18: positions and class tokens have three dimensions.
    classifier = _classifier()
    groups = parameter_groups(classifier, dataclasses.replace(ADAMW, decayed=decayed))
    decays = {
        id(parameter): group["weight_decay"]
        for group in groups
        for parameter in group["params"]  # pyright: ignore[reportGeneralTypeIssues]
    }
    asked = ("encoder.cls_token", "encoder.pos_embed", "encoder.norm.bias", "head.1.weight")
    named = dict(classifier.named_parameters())
    assert {name for name in asked if decays[id(named[name])] == 0.05} == kept
    assert set(decays.values()) <= {0.0, 0.05}


def test_frozen_parameters_are_left_out():
    classifier = _classifier()
    classifier.encoder.requires_grad_(False)
    groups = parameter_groups(classifier, ADAMW)
    assert sum(len(group["params"]) for group in groups) == 4  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_a_step_is_adams(name):
    classifier = _classifier()
    config = dataclasses.replace(ADAMW, name=name, beta1=0.95, decayed="all", layer_decay=0.5)
    optimizer = make_finetune_optimizer(classifier, config)
    set_learning_rate(optimizer, 1e-2)
    weight = dict(classifier.named_parameters())["encoder.blocks.0.attn.qkv.weight"]
    before = weight.detach().clone()
    for parameter in classifier.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    lr = 1e-2 * 0.25
    gradient = torch.ones_like(before)
    if name == "adam":  # the decay is part of the gradient, whose size Adam divides away
        gradient = gradient + 0.05 * before
        expected = before - lr * gradient / (gradient.abs() + 1e-8)
    else:
        expected = before * (1 - lr * 0.05) - lr * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-7)


def test_the_learning_rate_is_given_or_scaled():
    assert base_learning_rate(ADAMW, batch_size=12) == 1e-3
    scaled = dataclasses.replace(ADAMW, lr=None, lr_per_256=1e-3)
    assert base_learning_rate(scaled, batch_size=32) == pytest.approx(1.25e-4)
    with pytest.raises(ValueError, match="lr must be set to train, but is None"):
        base_learning_rate(dataclasses.replace(ADAMW, lr=None), batch_size=32)


def test_what_is_not_known_cannot_be_made():
    for change, message in (
        ({"name": "lars"}, "optimizer must be adam or adamw to be made here, but got 'lars'"),
        ({"name": None}, "optimizer must be adam or adamw to be made here, but got None"),
        ({"weight_decay": None}, "weight_decay must be set to train, but is None"),
    ):
        with pytest.raises(ValueError, match=message):
            make_finetune_optimizer(_classifier(), dataclasses.replace(ADAMW, **change))


@pytest.mark.parametrize(
    ("config", "field", "value", "message"),
    [
        (ADAMW, "lr", 0.0, "lr must be above 0, but got 0"),
        (ADAMW, "lr_per_256", 1e-3, r"lr_per_256 must be null beside lr, but got 0\.001"),
        (ADAMW, "beta1", 1.0, r"beta1 must be in \[0, 1\), but got 1"),
        (ADAMW, "weight_decay", -0.1, "weight_decay must be at least 0, but got -0"),
        (ADAMW, "layer_decay", 0.0, r"layer_decay must be in \(0, 1\], but got 0"),
        (ADAMW, "clip_grad_norm", 0.0, "clip_grad_norm must be above 0, but got 0"),
        (STEPS, "factor", None, "factor must be set with decay 'steps', but got None"),
        (STEPS, "decay", "cosine", "first_epoch must be null with decay 'cosine', but got 10"),
        (STEPS, "factor", 1.5, r"factor must be in \(0, 1\], but got 1"),
        (STEPS, "every_epochs", 0, "every_epochs must be at least 1, but got 0"),
        (STEPS, "warmup_steps", -1, "warmup_steps must be at least 0, but got -1"),
        (STEPS, "warmup_stair_steps", 0, "warmup_stair_steps must be at least 1, but got 0"),
    ],
)
def test_a_bad_field_is_named(config, field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config, **{field: value})


def test_a_warm_up_has_one_length():
    with pytest.raises(ValueError, match=r"warmup_epochs must be 0 beside warmup_steps \(10\)"):
        LrScheduleConfig(decay="constant", warmup_steps=10, warmup_epochs=1.0)
