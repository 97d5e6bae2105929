import math

import pytest
import torch
from torch import nn

from asit_core.initialization import initialize
from asit_core.optim import (
    OptimizerConfig,
    clip_gradients,
    clip_per_parameter,
    make_optimizer,
    schedule_optimizer,
)
from asit_core.pretrainer import Pretrainer
from asit_core.schedules import cosine
from asit_core.seeding import stream


def _model() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    initialize(model, seed=0)
    model.register_parameter("token", nn.Parameter(torch.full((1, 1, 3), 0.5)))
    model.register_parameter("log_variance", nn.Parameter(torch.tensor(0.3)))
    return model


def _set_gradients(model: nn.Module, step: int) -> None:
    for index, parameter in enumerate(model.parameters()):
        parameter.grad = torch.randn(parameter.shape, generator=stream(step, "test", index))


def test_two_steps_of_adamw_by_loops():
    config = OptimizerConfig(
        lr_per_256=1.0, warmup_ratio=0.0, weight_decay=0.1, final_weight_decay=0.5
    )
    model = _model()
    expected = {name: p.flatten().tolist() for name, p in model.named_parameters()}
    first = {name: [0.0] * len(values) for name, values in expected.items()}
    second = {name: [0.0] * len(values) for name, values in expected.items()}
    optimizer = make_optimizer(model, config)
    for step in range(2):
        _set_gradients(model, step)
        gradients = {
            name: p.grad.flatten().tolist()  # pyright: ignore[reportOptionalMemberAccess]
            for name, p in model.named_parameters()
        }
        lr = schedule_optimizer(optimizer, config, step=step, total_steps=10, batch_size=16)
        assert lr == cosine(step, base=16 / 256, final=config.min_lr, total_steps=10)
        decay = 0.5 - 0.5 * 0.4 * (1 + math.cos(math.pi * step / 10))
        optimizer.step()
        for name, parameter in model.named_parameters():
            decays = parameter.ndim > 1
            for i, g in enumerate(gradients[name]):
                w = expected[name][i]
                m = first[name][i] = 0.9 * first[name][i] + 0.1 * g
                v = second[name][i] = 0.999 * second[name][i] + 0.001 * g * g
                m_hat, v_hat = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
                w -= lr * decay * w if decays else 0.0
                expected[name][i] = w - lr * m_hat / (math.sqrt(v_hat) + 1e-8)
    for name, parameter in model.named_parameters():
        # AdamW in float32
        assert parameter.flatten().tolist() == pytest.approx(expected[name], rel=1e-4, abs=1e-6)


def test_two_steps_of_ssasts_adam_by_loops():
    """Weight decay joins the gradient, on every parameter but learned loss weights."""
    config = OptimizerConfig(
        algorithm="adam",
        lr_per_256=1.0,
        schedule="constant",
        warmup_ratio=0.0,
        weight_decay=0.1,
        final_weight_decay=0.1,
        decay_on="all",
        beta1=0.95,
        epsilon=1e-6,
    )
    model = _model()
    expected = {name: p.flatten().tolist() for name, p in model.named_parameters()}
    first = {name: [0.0] * len(values) for name, values in expected.items()}
    second = {name: [0.0] * len(values) for name, values in expected.items()}
    optimizer = make_optimizer(model, config)
    for step in range(2):
        _set_gradients(model, step)
        lr = schedule_optimizer(optimizer, config, step=step, total_steps=10, batch_size=16)
        assert lr == 16 / 256
        gradients = {
            name: p.grad.flatten().tolist()  # pyright: ignore[reportOptionalMemberAccess]
            for name, p in model.named_parameters()
        }
        optimizer.step()
        for name, parameter in model.named_parameters():
            for i, gradient in enumerate(gradients[name]):
                w = expected[name][i]
                g = gradient + (0.1 * w if parameter.ndim > 0 else 0.0)
                m = first[name][i] = 0.95 * first[name][i] + 0.05 * g
                v = second[name][i] = 0.999 * second[name][i] + 0.001 * g * g
                m_hat, v_hat = m / (1 - 0.95 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
                expected[name][i] = w - lr * m_hat / (math.sqrt(v_hat) + 1e-6)
    for name, parameter in model.named_parameters():
        # Adam in float32
        assert parameter.flatten().tolist() == pytest.approx(expected[name], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("decay_on", "expected"),
    [
        ("all", {"encoder.cls_token", "encoder.pos_embed", "layer.weight", "layer.bias", "norm"}),
        ("matrices_and_tokens", {"encoder.cls_token", "encoder.pos_embed", "layer.weight"}),
        ("matrices", {"layer.weight"}),
    ],
)
def test_what_decays_is_named(decay_on, expected):
    """H18: positions and class token decay in ASiT's program, by their three dimensions."""
    shapes = {
        "encoder.cls_token": (1, 1, 3),
        "encoder.pos_embed": (1, 4, 3),
        "layer.weight": (3, 3),
        "layer.bias": (3,),
        "norm": (3,),
        "log_variance": (),
    }

    class Model(nn.Module):
        def named_parameters(self, *args: object, **kwargs: object):
            return iter(parameters.items())

    parameters = {name: nn.Parameter(torch.ones(shape)) for name, shape in shapes.items()}
    optimizer = make_optimizer(Model(), OptimizerConfig(decay_on=decay_on))
    decaying = {id(p) for g in optimizer.param_groups if g["decays"] for p in g["params"]}
    assert {name for name, p in parameters.items() if id(p) in decaying} == expected


def test_everything_may_decay():
    """The group of what does not is empty, and the optimizer still steps."""
    model = nn.Module()
    model.register_parameter("bias", nn.Parameter(torch.ones(2)))
    config = OptimizerConfig(decay_on="all", warmup_ratio=0.0)
    optimizer = make_optimizer(model, config)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    schedule_optimizer(optimizer, config, step=0, total_steps=2, batch_size=256)
    optimizer.step()
    assert all((parameter < 1.0).all() for parameter in model.parameters())


def test_clipping_all_gradients_together_by_loops():
    """H18: one norm for all, where `parameter` takes one for each."""
    model = _model()
    _set_gradients(model, 0)
    parameters = list(model.parameters())
    gradients = [p.grad.flatten().tolist() for p in parameters]  # pyright: ignore[reportOptionalMemberAccess]
    norm = math.sqrt(sum(x * x for gradient in gradients for x in gradient))
    clip_gradients(parameters, OptimizerConfig(clip_grad=1.5, clip_norm_of="all"))
    assert norm > 1.5
    for parameter, gradient in zip(parameters, gradients, strict=True):
        expected = [x * 1.5 / (norm + 1e-6) for x in gradient]
        assert parameter.grad is not None
        assert parameter.grad.flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_clipping_as_the_config_says():
    each, none = _model(), _model()
    for model in (each, none):
        _set_gradients(model, 0)
    before = [p.grad.clone() for p in each.parameters()]  # pyright: ignore[reportOptionalMemberAccess]
    clip_gradients(list(none.parameters()), OptimizerConfig(clip_grad=None))
    clip_gradients(list(each.parameters()), OptimizerConfig(clip_grad=1.5))
    for gradient, plain, clipped in zip(before, none.parameters(), each.parameters(), strict=True):
        assert torch.equal(gradient, plain.grad)  # pyright: ignore[reportArgumentType]
        assert clipped.grad is not None
        assert clipped.grad.norm().item() == pytest.approx(min(1.5, gradient.norm().item()))


def test_what_decays():
    model = _model()
    optimizer = make_optimizer(model, OptimizerConfig())
    decaying = {
        id(p) for group in optimizer.param_groups if group["decays"] for p in group["params"]
    }
    names = {name for name, p in model.named_parameters() if id(p) in decaying}
    assert names == {"0.weight", "2.weight", "token"}
    schedule_optimizer(optimizer, OptimizerConfig(), step=3, total_steps=9, batch_size=8)
    assert {g["weight_decay"] for g in optimizer.param_groups if not g["decays"]} == {0.0}


def test_only_trainable_parameters_are_optimised(micro_config):
    pretrainer = Pretrainer(micro_config, seed=0)
    optimizer = make_optimizer(pretrainer, micro_config.optimizer)
    optimised = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in pretrainer.parameters() if p.requires_grad}
    assert pretrainer.teacher is not None
    assert not optimised & {id(p) for p in pretrainer.teacher.parameters()}


def test_learning_rate_and_decay_follow_their_schedules():
    config = OptimizerConfig(lr_per_256=1e-2, min_lr=1e-5, warmup_ratio=0.25)
    model = _model()
    optimizer = make_optimizer(model, config)
    for step in range(20):
        lr = schedule_optimizer(optimizer, config, step=step, total_steps=20, batch_size=512)
        expected = cosine(step, base=2e-2, final=1e-5, total_steps=20, warmup_steps=5)
        assert lr == expected
        assert {group["lr"] for group in optimizer.param_groups} == {expected}
        decay = cosine(step, base=0.04, final=0.4, total_steps=20)
        assert optimizer.param_groups[0]["weight_decay"] == decay


def test_clipping_by_loops():
    model = _model()
    _set_gradients(model, 0)
    parameters = list(model.parameters())
    parameters[0].grad = None  # such as a frozen layer's
    gradients = [p.grad.flatten().tolist() if p.grad is not None else None for p in parameters]
    max_norm = 1.5
    clip_per_parameter(parameters, max_norm)
    clipped = 0
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            assert parameter.grad is None
            continue
        norm = math.sqrt(sum(x * x for x in gradient))
        factor = max_norm / (norm + 1e-6)
        clipped += factor < 1
        expected = [x * factor if factor < 1 else x for x in gradient]
        assert parameter.grad is not None
        assert parameter.grad.flatten().tolist() == pytest.approx(expected, rel=1e-5)
    assert 0 < clipped < len(parameters) - 1  # some above, some below


def test_a_gradient_of_zeros_stays_zero():
    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.zeros(3)
    clip_per_parameter([parameter], 1e-9)
    assert torch.equal(parameter.grad, torch.zeros(3))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("lr_per_256", 0.0, "lr_per_256 must be above 0, but got 0.0"),
        ("lr_per_256", float("nan"), "lr_per_256 must be above 0, but got nan"),
        ("min_lr", -1e-6, "min_lr must be at least 0, but got -1e-06"),
        ("weight_decay", -0.1, "weight_decay must be at least 0, but got -0.1"),
        ("final_weight_decay", -0.1, "final_weight_decay must be at least 0, but got -0.1"),
        ("warmup_ratio", 1.5, r"warmup_ratio must be in \[0, 1\], but got 1.5"),
        ("freeze_last_layer_ratio", -1.0, r"freeze_last_layer_ratio must be in \[0, 1\].*-1.0"),
        ("beta1", 1.0, r"beta1 must be in \[0, 1\), but got 1.0"),
        ("beta2", -0.5, r"beta2 must be in \[0, 1\), but got -0.5"),
        ("clip_grad", 0.0, "clip_grad must be above 0 or null, but got 0.0"),
        ("epsilon", 0.0, "epsilon must be above 0, but got 0.0"),
        ("algorithm", "sgd", "algorithm must be one of adamw, adam, but got 'sgd'"),
        ("schedule", "step", "schedule must be one of cosine, linear, constant, but got 'step'"),
        ("decay_on", "none", "decay_on must be one of all, matrices_and_tokens, matrices, but"),
        ("clip_norm_of", "each", "clip_norm_of must be one of parameter, all, but got 'each'"),
        ("warmup_stairs", 0, "warmup_stairs must be at least 1 or null, but got 0"),
    ],
)
def test_a_bad_field_is_named_with_rule_and_value(field, value, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**{field: value})
