"""Tasks that are absent, tasks that stand alone, and one whole step."""

import dataclasses
import math
import random

import numpy as np
import pytest
import torch
from torch import Tensor

from asit_core.losses import clip_distillation_loss, cross_entropy, masked_l1
from asit_core.optim import clip_gradients, make_optimizer, schedule_optimizer
from asit_core.pretext.reconstruction import ReconstructionConfig
from asit_core.pretrain_inputs import draw_inputs
from asit_core.pretrainer import (
    PretextConfig,
    PretrainConfig,
    Pretrainer,
    PretrainInputs,
    StepReport,
)
from asit_core.seeding import stream

TASKS = ("reconstruction", "patch_distillation", "clip_distillation")
SUBSETS = [
    ("reconstruction",),
    ("patch_distillation",),
    ("clip_distillation",),
    ("reconstruction", "clip_distillation"),
    ("patch_distillation", "clip_distillation"),
    TASKS,
]
CLIPS = [f"clip-{i}" for i in range(4)]


def _only(config: PretrainConfig, tasks: tuple[str, ...]) -> PretrainConfig:
    present = {name: getattr(config.pretext, name) for name in tasks}
    return dataclasses.replace(config, pretext=PretextConfig(**present))


def _batch(config: PretrainConfig) -> PretrainInputs:
    log_mel = torch.randn(4, 50, 16, generator=stream(0, "test_input"))
    frames = torch.full((4,), 50)
    return draw_inputs(config, log_mel, frames, CLIPS, mean=0.0, std=0.5, seed=0, epoch=0)


def _step(pretrainer: Pretrainer) -> StepReport:
    """Forward and backward; the teacher is first moved away from the student."""
    if pretrainer.teacher is not None:
        with torch.no_grad():
            for name, parameter in pretrainer.teacher.named_parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=stream(0, name)))
    report = pretrainer(_batch(pretrainer.config), teacher_temperature=0.05)
    report.total.backward()
    return report


@pytest.mark.parametrize("tasks", SUBSETS)
def test_what_is_off_is_absent(micro_config, tasks):
    pretrainer = Pretrainer(_only(micro_config, tasks), seed=0)
    distills = "patch_distillation" in tasks or "clip_distillation" in tasks
    names = set(pretrainer.state_dict())
    parts = {
        "reconstruction.": "reconstruction" in tasks,
        "student.projection.": distills,
        "student.clip_prototypes.": "clip_distillation" in tasks,
        "student.patch_prototypes.": "patch_distillation" in tasks,
        "clip_distillation.center.": "clip_distillation" in tasks,
        "patch_distillation.center.": "patch_distillation" in tasks,
        "teacher.": distills,
        "teacher.patch_prototypes.": "patch_distillation" in tasks,
        "log_variances": False,
    }
    for prefix, present in parts.items():
        assert any(name.startswith(prefix) for name in names) == present, prefix
    assert (pretrainer.teacher is not None) == distills
    report = _step(pretrainer)
    assert set(report.losses) == set(tasks)
    assert set(report.teacher_logits) == set(tasks) - {"reconstruction"}
    for name, parameter in pretrainer.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    pretrainer.after_step(report.teacher_logits, momentum=0.9)


def test_each_loss_equals_its_pure_function(micro_config):
    """And the forward passes are: corrupted views to the student, clean ones to the teacher."""
    pretrainer = Pretrainer(micro_config, seed=0)
    inputs = _batch(micro_config)
    report = _step(pretrainer)
    assert pretrainer.teacher is not None
    assert pretrainer.reconstruction is not None
    temperatures = {"student_temperature": 0.1, "teacher_temperature": 0.05}
    assert inputs.mask_VBTF is not None
    tokens, student = pretrainer.student(inputs.corrupted_VBTF)
    _, teacher = pretrainer.teacher(inputs.clean_VBTF)
    pictures = [pretrainer.reconstruction.reconstruct(view[:, 1:]) for view in tokens]
    expected = {
        "reconstruction": masked_l1(torch.stack(pictures), inputs.clean_VBTF, inputs.mask_VBTF),
        "patch_distillation": cross_entropy(
            student["patch_distillation"],
            teacher["patch_distillation"],
            torch.zeros(12),
            student_temperature=0.1,
            teacher_temperature=0.05,
        ),
        "clip_distillation": clip_distillation_loss(
            student["clip_distillation"],
            teacher["clip_distillation"],
            torch.zeros(10),
            **temperatures,
        ),
    }
    for name, loss in expected.items():
        torch.testing.assert_close(report.losses[name], loss, rtol=1e-5, atol=1e-6)
    assert student["patch_distillation"].shape == (2, 4, 8, 12)
    assert student["clip_distillation"].shape == (2, 4, 10)


def _own(name: str, task: str) -> bool:
    """Parameters that no other task touches."""
    prefixes = {
        "reconstruction": "reconstruction.",
        "patch_distillation": "student.patch_prototypes.",
        "clip_distillation": "student.clip_prototypes.",
    }
    return name.startswith(prefixes[task])


@pytest.mark.parametrize("drop_path_rate", [0.0, 0.3])
@pytest.mark.parametrize("task", TASKS)
def test_alone_a_task_equals_itself(micro_config, task, drop_path_rate):
    encoder = dataclasses.replace(micro_config.encoder, drop_path_rate=drop_path_rate)
    config = dataclasses.replace(micro_config, encoder=encoder)
    alone = Pretrainer(_only(config, (task,)), seed=0)
    loss = _step(alone).losses[task]
    for tasks in SUBSETS:
        if task not in tasks:
            continue
        together = Pretrainer(_only(config, tasks), seed=0)
        assert torch.equal(_step(together).losses[task], loss)
        gradients = {name: p.grad for name, p in together.named_parameters()}
        compared = 0
        for name, parameter in alone.named_parameters():
            if _own(name, task):
                compared += 1
                torch.testing.assert_close(gradients[name], parameter.grad, rtol=0, atol=0)
        assert compared


def test_the_encoders_gradient_is_the_weighted_sum_of_the_tasks(micro_config):
    together = Pretrainer(micro_config, seed=0)
    _step(together)
    expected: dict[str, Tensor] = {}
    for task in TASKS:
        alone = Pretrainer(_only(micro_config, (task,)), seed=0)
        _step(alone)
        for name, parameter in alone.student.encoder.named_parameters():
            assert parameter.grad is not None
            expected[name] = expected.get(name, torch.zeros(())) + parameter.grad
    for name, parameter in together.student.encoder.named_parameters():
        # each task's own total carries its weight already
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)


def test_cells_of_one_seed_start_from_the_same_weights(micro_config):
    whole = Pretrainer(micro_config, seed=3).state_dict()
    for tasks in SUBSETS:
        for name, value in Pretrainer(_only(micro_config, tasks), seed=3).state_dict().items():
            assert torch.equal(value, whole[name]), name
    other = Pretrainer(micro_config, seed=4).state_dict()
    assert not torch.equal(other["student.encoder.pos_embed"], whole["student.encoder.pos_embed"])
    for name, value in whole.items():
        if name.startswith("teacher."):
            assert torch.equal(value, whole[name.replace("teacher.", "student.", 1)])


def test_a_fixed_total_is_the_weighted_sum(micro_config):
    report = _step(Pretrainer(micro_config, seed=0))
    weights = {"reconstruction": 2.0, "patch_distillation": 0.5, "clip_distillation": 0.25}
    expected = sum(weights[name] * loss.item() for name, loss in report.losses.items())
    assert report.total.item() == pytest.approx(expected, rel=1e-6)


def test_a_weight_of_zero_is_present_and_trains_nothing(micro_config):
    pretext = dataclasses.replace(
        micro_config.pretext,
        clip_distillation=dataclasses.replace(micro_config.pretext.clip_distillation, weight=0.0),
    )
    pretrainer = Pretrainer(dataclasses.replace(micro_config, pretext=pretext), seed=0)
    report = _step(pretrainer)
    assert report.losses["clip_distillation"] > 0
    assert pretrainer.student.clip_prototypes is not None
    gradient = pretrainer.student.clip_prototypes.direction.grad
    assert gradient is not None
    assert not gradient.any()


@pytest.mark.parametrize("tasks", [TASKS, ("reconstruction",), ("patch_distillation",)])
def test_an_uncertainty_total_and_its_gradient_by_hand(micro_config, tasks):
    config = dataclasses.replace(_only(micro_config, tasks), loss_weights="uncertainty")
    pretrainer = Pretrainer(config, seed=0)
    assert pretrainer.log_variances is not None
    assert set(pretrainer.log_variances) == set(tasks)
    values = dict(zip(tasks, (0.7, -0.4, 0.2), strict=False))
    with torch.no_grad():
        for name, value in values.items():
            pretrainer.log_variances[name].fill_(value)
    report = _step(pretrainer)
    total = 0.0
    for name, s in values.items():
        # Kendall et al.: loss / (2 sigma^2) for a regression, loss / sigma^2 for a classification,
        # plus log sigma, with s = log sigma^2.
        sigma = math.exp(s / 2)
        factor = 1 / (2 * sigma**2) if name == "reconstruction" else 1 / sigma**2
        loss = report.losses[name].item()
        total += factor * loss + math.log(sigma)
        gradient = pretrainer.log_variances[name].grad
        assert gradient is not None
        assert gradient.item() == pytest.approx(-factor * loss + 0.5, rel=1e-5)
    assert report.total.item() == pytest.approx(total, rel=1e-5)


def test_uncertainty_starts_from_the_fixed_weights_and_its_variances_never_decay(micro_config):
    config = dataclasses.replace(micro_config, loss_weights="uncertainty")
    pretrainer = Pretrainer(config, seed=0)
    assert pretrainer.log_variances is not None
    report = _step(pretrainer)
    fixed = _step(Pretrainer(micro_config, seed=0)).total.item()
    offset = 0.5 * sum(value.item() for value in pretrainer.log_variances.values())
    assert report.total.item() == pytest.approx(fixed + offset, rel=1e-6)
    for decay_on in ("all", "matrices_and_tokens", "matrices"):
        changed = dataclasses.replace(config.optimizer, decay_on=decay_on)
        plain = {
            id(p)
            for group in make_optimizer(pretrainer, changed).param_groups
            if not group["decays"]
            for p in group["params"]
        }
        assert {id(p) for p in pretrainer.log_variances.values()} <= plain


def test_uncertainty_cannot_start_from_a_weight_of_zero(micro_config):
    pretext = dataclasses.replace(
        micro_config.pretext,
        clip_distillation=dataclasses.replace(micro_config.pretext.clip_distillation, weight=0.0),
    )
    with pytest.raises(ValueError, match=r"clip_distillation\.weight must be above 0 where loss_w"):
        dataclasses.replace(micro_config, pretext=pretext, loss_weights="uncertainty")


def test_the_teacher_gets_no_gradient_and_sees_no_stochastic_depth(micro_config):
    encoder = dataclasses.replace(micro_config.encoder, drop_path_rate=0.5)
    pretrainer = Pretrainer(dataclasses.replace(micro_config, encoder=encoder), seed=0)
    report = _step(pretrainer)
    assert pretrainer.teacher is not None
    assert all(p.grad is None for p in pretrainer.teacher.parameters())
    clean = _batch(micro_config).clean_VBTF
    for name, logits in pretrainer.teacher(clean)[1].items():
        assert torch.equal(report.teacher_logits[name], logits)
        assert not report.teacher_logits[name].requires_grad


def test_after_two_steps_centres_and_teacher_are_as_by_hand(micro_config):
    pretrainer = Pretrainer(micro_config, seed=0)
    assert pretrainer.teacher is not None
    assert pretrainer.clip_distillation is not None
    assert pretrainer.patch_distillation is not None
    inputs = _batch(micro_config)
    expected = {n: p.clone() for n, p in pretrainer.teacher.named_parameters()}
    centers = {"clip_distillation": torch.zeros(10), "patch_distillation": torch.zeros(12)}
    for step, momentum in enumerate([0.9, 0.99]):
        report = pretrainer(inputs, teacher_temperature=0.05)
        with torch.no_grad():
            for parameter in pretrainer.student.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=stream(step, "test")))
        pretrainer.after_step(report.teacher_logits, momentum=momentum)
        for name, parameter in pretrainer.student.named_parameters():
            expected[name] = momentum * expected[name] + (1 - momentum) * parameter.detach()
        for name, logits in report.teacher_logits.items():
            rows = logits.reshape(-1, logits.shape[-1])
            centers[name] = 0.9 * centers[name] + 0.1 * sum(rows) / len(rows)
    for name, parameter in pretrainer.teacher.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name])
    torch.testing.assert_close(
        pretrainer.clip_distillation.center.value_K, centers["clip_distillation"]
    )
    torch.testing.assert_close(
        pretrainer.patch_distillation.center.value_K, centers["patch_distillation"]
    )


def test_the_encoder_to_evaluate_is_the_teachers_where_there_is_one(micro_config):
    whole = Pretrainer(micro_config, seed=0)
    assert whole.teacher is not None
    assert whole.encoder is whole.teacher.encoder
    alone = Pretrainer(_only(micro_config, ("reconstruction",)), seed=0)
    assert alone.encoder is alone.student.encoder


def _numpy_state() -> tuple[bytes, int]:
    state = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    return state["key"].tobytes(), state["pos"]


@pytest.mark.parametrize("loss_weights", ["fixed", "uncertainty"])
def test_no_global_generator_moves_in_construction_or_in_a_step(micro_config, loss_weights):
    encoder = dataclasses.replace(micro_config.encoder, drop_path_rate=0.3)
    config = dataclasses.replace(micro_config, encoder=encoder, loss_weights=loss_weights)
    before = torch.get_rng_state(), random.getstate(), _numpy_state()
    pretrainer = Pretrainer(config, seed=0)
    optimizer = make_optimizer(pretrainer, config.optimizer)
    report = _step(pretrainer)
    clip_gradients(pretrainer.student.parameters(), config.optimizer)
    schedule_optimizer(optimizer, config.optimizer, step=1, total_steps=9, batch_size=4)
    optimizer.step()
    pretrainer.after_step(report.teacher_logits, momentum=0.9)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert before[2] == _numpy_state()


def test_views_of_a_clip_drop_different_residuals(micro_config):
    encoder = dataclasses.replace(micro_config.encoder, drop_path_rate=0.5)
    pretrainer = Pretrainer(dataclasses.replace(micro_config, encoder=encoder), seed=0)
    inputs = _batch(pretrainer.config)
    same = torch.stack([inputs.clean_VBTF[0], inputs.clean_VBTF[0]])
    tokens, _ = pretrainer.student(same, inputs.drop_path_keys_VB)
    assert not torch.allclose(tokens[0], tokens[1], atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss_weights": "equal"}, "loss_weights must be one of fixed, uncertainty, but got 'equ"),
        ({"weight_init": "zero"}, "weight_init must be one of normal, xavier, but got 'zero'"),
        ({"precision": "fp16"}, "precision must be one of auto, fp32, bf16, but got 'fp16'"),
        ({"student_temperature": 0.0}, "student_temperature must be above 0, but got 0.0"),
        ({"epochs": 0}, "epochs must be at least 1, but got 0"),
        ({"donor_group": 3}, "donor_group must be even and at least 2, but got 3"),
        ({"batch_size": 5}, r"batch_size must be a multiple of donor_group \(2\), but got 5"),
        ({"views.crop_frames": 30}, r"crop_frames must be a multiple of patch_frames \(8\).*30"),
        ({"views.num_views": 1}, "num_views must be 2 for clip_distillation, but got 1"),
        ({"masking.align": 4}, r"block_max must allow.*align \(4\).*32 x 16, but got 0.3"),
        ({"pretext.reconstruction.weight": -1.0}, "weight must be finite and at least 0.*-1.0"),
        ({"pretext.reconstruction.weight": math.inf}, "weight must be finite.*inf"),
        ({"pretext.reconstruction.hidden_dim": 0}, "hidden_dim must be at least 1, but got 0"),
        ({"pretext.clip_distillation.num_prototypes": 1}, "num_prototypes must be at least 2.*1"),
    ],
)
def test_a_bad_configuration_is_named_with_rule_and_value(micro_config, change, message):
    ((path, value),) = change.items()
    *parents, field = path.split(".")
    owners = [micro_config]
    for parent in parents:
        owners.append(getattr(owners[-1], parent))
    with pytest.raises(ValueError, match=message):  # noqa: PT012
        for owner, name in zip(reversed(owners), reversed([*parents, field]), strict=True):
            value = dataclasses.replace(owner, **{name: value})


def test_a_pretext_without_tasks_is_refused():
    with pytest.raises(ValueError, match="pretext must name at least one task, but all are null"):
        PretextConfig()
    idle = ReconstructionConfig(weight=0.0)
    with pytest.raises(
        ValueError, match=r"weight must be above 0 for at least one task.*reconstru"
    ):
        PretextConfig(reconstruction=idle)
