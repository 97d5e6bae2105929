import dataclasses
import json
import math

import pytest
import torch

from asit_core import (
    decoder,
    encoder_config,
    heads,
    masking,
    optim,
    pretrain_config,
    teacher,
    token_masking,
    views,
)
from asit_core.encoder import SpectrogramEncoder
from asit_core.optim import clip_gradients, make_optimizer, schedule_optimizer
from asit_core.presets import (
    ENCODER_PRESETS,
    PRESETS,
    SIZES,
    create_config,
    create_encoder_config,
    create_pretrainer,
)
from asit_core.pretext import (
    clip_distillation,
    patch_discrimination,
    patch_distillation,
    patch_regression,
    reconstruction,
)
from asit_core.pretrain_inputs import draw_inputs
from asit_core.pretrainer import Pretrainer
from asit_core.seeding import stream


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
    modules = (decoder, encoder_config, heads, masking, optim, pretrain_config, teacher)
    modules += (token_masking, views)
    tasks = (clip_distillation, patch_distillation, reconstruction)
    tasks += (patch_discrimination, patch_regression)
    names = {name: value for module in modules + tasks for name, value in vars(module).items()}
    assert eval(repr(config), names) == config
    longer = dataclasses.replace(config, epochs=config.epochs + 1)
    assert _differences(config, longer) == {"epochs"}


MENDED = {
    "masking.self_alien",
    "masking.spare_padding",
    "teacher.temperature_per_epoch",
    "optimizer.freeze_last_layer_ratio",
}


@pytest.mark.parametrize("size", SIZES)
def test_mended_differs_from_released_in_its_bugs_alone(size):
    released, mended = (create_config(preset, size=size) for preset in ("asit_code", "asit"))
    assert _differences(dataclasses.replace(released, normalization=None), mended) == MENDED
    # At `nano` both take the statistics of the clips at hand.
    assert (released.normalization is None) == (size == "nano")
    assert mended.normalization is None


def test_the_papers_text_differs_from_the_mended_program_as_table_b_says():
    mended, paper = (create_config(preset, size="base") for preset in ("asit", "asit_paper"))
    assert _differences(mended, paper) == {
        "encoder.num_heads",
        "masking.min_ratio",
        "pretext.reconstruction.weight",
        "pretext.reconstruction.hidden_dim",
        "pretext.reconstruction.bottleneck_dim",
        "pretext.reconstruction.bottleneck_gelu",
        "pretext.patch_distillation.tokens",
        "projection_head.shared",
        "teacher.temperature_warmup_ratio",
        "optimizer.warmup_ratio",
        "optimizer.freeze_last_layer_ratio",
        "epochs",
    }
    paper = create_config("asit_paper", size="small")
    assert set(paper.pretext.weights().values()) == {1.0}
    assert paper.encoder.num_heads == 3
    assert paper.optimizer.warmup_ratio * paper.epochs == 10
    assert set(create_config("asit_paper", size="nano").pretext.weights().values()) == {1.0}


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
        "masking.spare_padding": False,
        "normalization.mean": -4.2677393,
        "normalization.std": 4.5689974,
        "pretext.reconstruction.weight": 2.0,
        "pretext.reconstruction.hidden_dim": 768,
        "pretext.reconstruction.bottleneck_dim": 128,
        "pretext.reconstruction.bottleneck_gelu": True,
        "pretext.patch_distillation.weight": 1.0,
        "pretext.patch_distillation.num_prototypes": 1024,
        "pretext.patch_distillation.tokens": "all",
        "pretext.clip_distillation.weight": 1.0,
        "pretext.clip_distillation.num_prototypes": 8192,
        "projection_head.hidden_dim": 2048,
        "projection_head.bottleneck_dim": 256,
        "projection_head.shared": True,
        "views.padding": "silence",
        "donor_group": 32,
        "precision": "auto",
        "teacher.temperature_per_epoch": True,
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
        "optimizer.algorithm": "adamw",
        "optimizer.decay_on": "matrices_and_tokens",
        "optimizer.clip_grad": 3.0,
        "optimizer.clip_norm_of": "parameter",
        "optimizer.freeze_last_layer_ratio": 0.0,
        "loss_weights": "fixed",
        "weight_init": "normal",
        "epochs": 100,
        "batch_size": 128,
    }
    assert {key: flat[key] for key in expected} == expected
    for size, distillation in (("nano", 0.2), ("tiny", 1.0), ("small", 1.0), ("base", 1.0)):
        assert create_config("asit_code", size=size).pretext.weights() == {
            "reconstruction": 2.0,
            "patch_distillation": distillation,
            "clip_distillation": distillation,
        }
    # 10 epochs of warm-up and 30 of temperature, out of 100
    assert config.teacher is not None
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


def test_ssasts_released_recipe():
    for preset, patch in (("ssast_patch", (16, 16)), ("ssast_frame", (2, 128))):
        config = create_config(preset, size="base")
        encoder, masking, optimizer = config.encoder, config.token_masking, config.optimizer
        assert encoder.patch == encoder.stride == patch
        assert math.prod(encoder.grid_of(config.views.crop_frames)) == 512
        assert (encoder.num_cls_tokens, encoder.token_order) == (2, "frequency")
        assert masking is not None
        assert (masking.num_masked, masking.sampler) == (400, "official")
        assert masking.shape == ("cluster" if preset == "ssast_patch" else "random")
        assert not masking.shared_pass
        assert config.decoder is None
        assert config.pretext.weights() == {"patch_discrimination": 1.0, "patch_regression": 10.0}
        assert config.pretext.patch_discrimination is not None
        assert config.pretext.patch_discrimination.softmax_over == "predictions"
        assert (config.masking, config.teacher, config.projection_head) == (None, None, None)
        assert (optimizer.algorithm, optimizer.beta1, optimizer.beta2) == ("adam", 0.95, 0.999)
        assert (optimizer.weight_decay, optimizer.decay_on, optimizer.clip_grad) == (
            5e-7,
            "all",
            None,
        )
        assert config.normalization == pretrain_config.NormalizationConfig(
            mean=-4.2677393, std=4.5689974
        )
        assert create_config(preset, size="nano").normalization is None
    for size, learning_rate in (("base", 1e-4), ("tiny", 5e-4)):
        config = create_config("ssast_patch", size=size)
        scaled = config.optimizer.lr_per_256 * config.batch_size / 256
        assert scaled == pytest.approx(learning_rate)


@pytest.mark.parametrize("preset", ["ssast_patch", "ssast_frame"])
@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_ssast_warms_up_for_a_thousand_steps_at_every_size(preset, size):
    config = create_config(preset, size=size)
    # 800,000 steps of 24 clips, which are ten epochs
    total_steps = 800_000 * 24 / config.batch_size
    assert config.optimizer.warmup_ratio * total_steps == pytest.approx(1000)
    assert config.optimizer.warmup_stairs == 20


def test_the_masked_autoencoders_encode_a_quarter():
    for preset in ("mae_ast", "maskspec"):
        config = create_config(preset, size="base")
        assert config.token_masking is not None
        num_patches = math.prod(config.encoder.grid_of(config.views.crop_frames))
        visible = num_patches - config.token_masking.count(num_patches)
        assert visible == num_patches // 4
        assert config.decoder is not None
    mae_ast, maskspec = (create_config(name, size="base") for name in ("mae_ast", "maskspec"))
    assert mae_ast.decoder == decoder.DecoderConfig(embed_dim=768, depth=2, num_heads=12)
    assert maskspec.decoder == decoder.DecoderConfig(embed_dim=512, depth=8, num_heads=16)
    assert mae_ast.pretext.weights() == {"patch_discrimination": 1.0, "patch_regression": 10.0}
    assert maskspec.pretext.present() == ["patch_regression"]
    assert maskspec.pretext.patch_regression is not None
    assert maskspec.pretext.patch_regression.normalize_target


@pytest.mark.parametrize("preset", PRESETS)
def test_a_nano_of_every_preset_takes_a_step(preset):
    """Every part gets a gradient, and distillation starts between the two kinds of collapse."""
    pretrainer = create_pretrainer(preset, size="nano", seed=1)
    config, ids = pretrainer.config, ["a", "b"]
    log_mel = torch.randn(2, 140, 128, generator=stream(0, "test_input"))
    inputs = draw_inputs(
        config,
        log_mel,
        torch.full((2,), 140),
        ids,
        mean=0.0,
        std=0.5,
        seed=1,
        epoch=0,
        donor_group=2,
    )
    report = pretrainer(inputs, teacher_temperature=0.04)
    report.total.backward()
    assert report.total.isfinite()
    for name, parameter in pretrainer.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    if config.pretext.distills:
        # H1: below the logarithm of the prototypes, uniform collapse; above 0, peaked collapse
        for task, num_prototypes in (("clip_distillation", 512), ("patch_distillation", 256)):
            assert 0.0 < report.losses[task].item() <= math.log(num_prototypes) + 1.0


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_every_nano_learns_one_batch(preset):
    pretrainer = create_pretrainer(preset, size="nano")
    config, ids = pretrainer.config, [f"clip-{i}" for i in range(8)]
    bend = torch.linspace(0.0, 3.0, 128)  # spectra that differ by clip, not noise
    log_mel = torch.stack([(bend * (1 + clip)).sin().expand(140, -1) for clip in range(8)])
    optimizer = make_optimizer(pretrainer, config.optimizer)
    shown = []
    for step in range(30):
        inputs = draw_inputs(
            config,
            log_mel,
            torch.full((8,), 140),
            ids,
            mean=0.0,
            std=0.5,
            seed=0,
            epoch=step,
        )
        report = pretrainer(inputs, teacher_temperature=0.05)
        optimizer.zero_grad(set_to_none=True)
        report.total.backward()
        clip_gradients(pretrainer.parameters(), config.optimizer)
        schedule_optimizer(optimizer, config.optimizer, step=step, total_steps=30, batch_size=64)
        optimizer.step()
        pretrainer.after_step(report.teacher_logits, momentum=0.95)
        # The cross entropies rise at first, to the logarithm of the prototypes, as in DINO.
        shown.append(report.losses.get("reconstruction", report.total).item())
    assert sum(shown[-5:]) < 0.9 * sum(shown[:5]), shown


def test_the_seed_decides_the_initial_weights():
    first, again = (create_pretrainer("ssast_patch", size="nano", seed=1) for _ in range(2))
    other = create_pretrainer("ssast_patch", size="nano", seed=2)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    name = "masked_tokens.mask_embed"
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


@pytest.mark.parametrize("size", SIZES)
def test_asts_encoder(size):
    """C.2: patches of 16 every 10, so 12 x 101 of 1024 frames."""
    config = create_encoder_config("ast", size=size)
    assert config.grid_of(1024) == (101, 12)
    assert (config.num_cls_tokens, config.token_order) == (2, "frequency")
    assert config.position_adaptation == "ast"
    assert create_encoder_config("asit", size=size) == create_config("asit", size=size).encoder


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match=r"preset must be one of asit, asit_code.* but got 'asti'"):
        create_config("asti", size="nano")
    with pytest.raises(ValueError, match=r"preset must be .*maskspec, but got 'ast', .*see cr"):
        create_config("ast", size="nano")
    with pytest.raises(ValueError, match=r"preset must be one of .*maskspec, ast, but got 'vit'"):
        create_encoder_config("vit", size="nano")
    assert ENCODER_PRESETS == (*PRESETS, "ast")
    for create in (create_config, create_encoder_config, create_pretrainer):
        with pytest.raises(
            ValueError, match="size must be one of nano, tiny, small, base, but got 'huge'"
        ):
            create("asit", size="huge")
