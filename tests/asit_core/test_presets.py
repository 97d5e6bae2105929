import dataclasses
import json
import math

import pytest
import torch

from asit_core import encoder, heads, masking, optim, presets, pretrainer, teacher, views
from asit_core.encoder import SpectrogramEncoder
from asit_core.presets import PRESETS, SIZES, create_config
from asit_core.pretext import clip_distillation, patch_distillation, reconstruction
from asit_core.pretrainer import Pretrainer


def _flat(value: object, path: str = "") -> dict[str, object]:
    if not isinstance(value, dict):
        return {path: value}
    return {k: v for key, child in value.items() for k, v in _flat(child, f"{path}.{key}").items()}


def _differences(a: object, b: object) -> set[str]:
    flat = [_flat(dataclasses.asdict(config)) for config in (a, b)]  # pyright: ignore[reportArgumentType]
    return {key.lstrip(".") for key in flat[0] if flat[0][key] != flat[1][key]}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", SIZES)
def test_a_preset_can_be_printed_stored_and_changed(preset, size):
    config = create_config(preset, size=size)
    assert create_config(preset, size=size) == config
    json.dumps(dataclasses.asdict(config))
    modules = (encoder, heads, masking, optim, presets, pretrainer, teacher, views)
    tasks = (clip_distillation, patch_distillation, reconstruction)
    names = {name: value for module in modules + tasks for name, value in vars(module).items()}
    assert eval(repr(config), names) == config
    longer = dataclasses.replace(config, epochs=config.epochs + 1)
    assert _differences(config, longer) == {"epochs"}


def test_mended_differs_from_released_in_its_three_bugs_alone():
    for size in SIZES:
        released, mended = (create_config(preset, size=size) for preset in ("asit_code", "asit"))
        assert _differences(released, mended) == {
            "masking.self_alien",
            "teacher.temperature_per_epoch",
            "optimizer.freeze_last_layer_ratio",
        }


def test_the_released_recipe():
    config = create_config("asit_code", size="small")
    flat = {key.lstrip("."): value for key, value in _flat(dataclasses.asdict(config)).items()}
    expected = {
        "encoder.drop_path_rate": 0.1,
        "views.crop_frames": 592,
        "views.roll_probability": 0.5,
        "masking.ratio": 0.7,
        "masking.min_ratio": 0.5,
        "masking.alien_probability": 0.5,
        "masking.alien_ratio": 0.3,
        "masking.block_max": 0.3,
        "masking.align": 1,
        "masking.self_alien": True,
        "pretext.reconstruction.weight": 2.0,
        "pretext.reconstruction.hidden_dim": 768,
        "pretext.reconstruction.bottleneck_dim": 128,
        "pretext.patch_distillation.weight": 1.0,
        "pretext.patch_distillation.num_prototypes": 1024,
        "pretext.clip_distillation.weight": 1.0,
        "pretext.clip_distillation.num_prototypes": 8192,
        "projection_head.hidden_dim": 2048,
        "projection_head.bottleneck_dim": 256,
        "teacher.warmup_temperature": 0.04,
        "teacher.temperature": 0.07,
        "teacher.momentum": 0.996,
        "teacher.final_momentum": 1.0,
        "teacher.center_momentum": 0.9,
        "student_temperature": 0.1,
        "optimizer.lr_per_256": 5e-4,
        "optimizer.min_lr": 1e-6,
        "optimizer.weight_decay": 0.04,
        "optimizer.final_weight_decay": 0.4,
        "optimizer.clip_grad": 3.0,
        "optimizer.freeze_last_layer_ratio": 0.0,
        "loss_weights": "fixed",
        "weight_init": "normal",
        "epochs": 100,
        "batch_size": 128,
    }
    assert {key: flat[key] for key in expected} == expected
    # 10 epochs of warm-up and 30 of temperature, out of 100
    assert config.optimizer.warmup_ratio * config.epochs == pytest.approx(10)
    assert config.teacher.temperature_warmup_ratio * config.epochs == pytest.approx(30)


@pytest.mark.parametrize(
    ("size", "millions"),
    # ViT-Ti/S/B with one class token, 1-channel 16 x 16 patches and 297 positions
    [("nano", 0.5), ("tiny", 5.45), ("small", 21.5), ("base", 85.48)],
)
def test_sizes(size, millions):
    config = create_config("asit", size=size)
    with torch.device("meta"):
        model = SpectrogramEncoder(config.encoder, input_frames=config.views.crop_frames)
    count = sum(math.prod(p.shape) for p in model.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.01 if size != "nano" else 0.2)


def test_nanos_heads_are_as_small_as_its_encoder():
    pretrainer = Pretrainer(create_config("asit", size="nano"), seed=0)
    counts = {"encoder": 0, "heads": 0}
    for name, parameter in pretrainer.named_parameters():
        if not name.startswith("teacher."):
            part = "encoder" if name.startswith("student.encoder.") else "heads"
            counts[part] += parameter.numel()
    assert 0.4e6 < counts["encoder"] < 0.6e6
    assert 0.2e6 < counts["heads"] < 0.6e6


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match="preset must be one of asit, asit_code, but got 'asti'"):
        create_config("asti", size="nano")
    with pytest.raises(
        ValueError, match="size must be one of nano, tiny, small, base, but got 'huge'"
    ):
        create_config("asit", size="huge")
