"""All five tasks at once: each equals itself alone, and what is off is absent."""

import dataclasses
from typing import Any

import pytest
import torch

from asit_core.decoder import DecoderConfig
from asit_core.encoder import SpectrogramEncoder
from asit_core.losses import cross_entropy
from asit_core.optim import make_optimizer, schedule_optimizer
from asit_core.pretext.patch_discrimination import PatchDiscriminationConfig
from asit_core.pretext.patch_distillation import corrupted_tokens
from asit_core.pretext.patch_regression import PatchRegressionConfig
from asit_core.pretrain_config import PIXEL_TASKS, TOKEN_TASKS
from asit_core.pretrain_inputs import draw_inputs
from asit_core.pretrainer import (
    PretextConfig,
    PretrainConfig,
    Pretrainer,
    PretrainInputs,
    StepReport,
)
from asit_core.seeding import stream
from asit_core.token_masking import TokenMaskingConfig

TASKS = (*PIXEL_TASKS, *TOKEN_TASKS)
CLIPS = [f"clip-{i}" for i in range(4)]
# What no other task touches.
OWN = {
    "reconstruction": "reconstruction.",
    "patch_distillation": "student.patch_",
    "clip_distillation": "student.clip_",
    "patch_discrimination": "patch_discrimination.",
    "patch_regression": "patch_regression.",
}
VARIANTS = [
    pytest.param({"shared_pass": True}, None, id="one pass"),
    pytest.param({"shared_pass": False}, None, id="two passes"),
    pytest.param({}, DecoderConfig(embed_dim=12, depth=1, num_heads=2), id="decoder"),
]


def _whole(
    micro_config: PretrainConfig,
    masking: dict[str, Any],
    decoder: DecoderConfig | None,
    *,
    shared_projection: bool = False,
) -> PretrainConfig:
    """All tasks, stochastic depth, tokens of corrupted patches only."""
    pretext = micro_config.pretext
    assert pretext.patch_distillation is not None
    assert micro_config.projection_head is not None
    return dataclasses.replace(
        micro_config,
        encoder=dataclasses.replace(micro_config.encoder, drop_path_rate=0.3),
        token_masking=TokenMaskingConfig(num_masked=4, cluster_sizes=(1, 2), **masking),
        decoder=decoder,
        projection_head=dataclasses.replace(micro_config.projection_head, shared=shared_projection),
        pretext=dataclasses.replace(
            pretext,
            patch_distillation=dataclasses.replace(pretext.patch_distillation, tokens="half"),
            patch_discrimination=PatchDiscriminationConfig(weight=0.5),
            patch_regression=PatchRegressionConfig(weight=3.0),
        ),
    )


def _only(config: PretrainConfig, tasks: tuple[str, ...]) -> PretrainConfig:
    reads_pixels, reads_tokens = set(tasks) & set(PIXEL_TASKS), set(tasks) & set(TOKEN_TASKS)
    distills = any("distillation" in task for task in tasks)
    return dataclasses.replace(
        config,
        masking=config.masking if reads_pixels else None,
        token_masking=config.token_masking if reads_tokens else None,
        decoder=config.decoder if reads_tokens else None,
        projection_head=config.projection_head if distills else None,
        teacher=config.teacher if distills else None,
        pretext=PretextConfig(**{name: getattr(config.pretext, name) for name in tasks}),
    )


def _inputs(config: PretrainConfig, *, epoch: int = 0) -> PretrainInputs:
    log_mel = torch.randn(4, 50, 16, generator=stream(0, "test_input"))
    frames = torch.full((4,), 50)
    return draw_inputs(config, log_mel, frames, CLIPS, mean=0.0, std=0.5, seed=0, epoch=epoch)


def _step(pretrainer: Pretrainer) -> StepReport:
    """Forward and backward; the teacher is first moved away from the student."""
    if pretrainer.teacher is not None:
        with torch.no_grad():
            for name, parameter in pretrainer.teacher.named_parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=stream(0, name)))
    report = pretrainer(_inputs(pretrainer.config), teacher_temperature=0.05)
    report.total.backward()
    return report


@pytest.mark.parametrize("shared_projection", [False, True])
@pytest.mark.parametrize(("masking", "decoder"), VARIANTS)
def test_alone_every_task_equals_itself(micro_config, masking, decoder, shared_projection):
    whole = _whole(micro_config, masking, decoder, shared_projection=shared_projection)
    together = Pretrainer(whole, seed=0)
    report = _step(together)
    gradients = {name: p.grad for name, p in together.named_parameters()}
    shared: dict[str, torch.Tensor] = {}
    for task in TASKS:
        alone = Pretrainer(_only(whole, (task,)), seed=0)
        assert torch.equal(_step(alone).losses[task], report.losses[task]), task
        compared = 0
        for name, parameter in alone.named_parameters():
            if name.startswith(OWN[task]):
                compared += 1
                assert torch.equal(gradients[name], parameter.grad), name  # pyright: ignore[reportArgumentType]
            elif parameter.requires_grad:
                assert parameter.grad is not None
                shared[name] = shared.get(name, torch.zeros(())) + parameter.grad
        assert compared
    parts = {".".join(name.split(".")[:2]) for name in shared}
    tokens = "masked_tokens.mask_embed" if decoder is None else "masked_tokens.decoder"
    projection = {"student.projection"} if shared_projection else set()
    assert parts == {"student.encoder", tokens, *projection}
    for name, gradient in shared.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("masking", "decoder"), VARIANTS)
def test_alone_every_task_meets_the_same_draws(micro_config, masking, decoder):
    whole = _whole(micro_config, masking, decoder)
    together = _inputs(whole)
    for task in TASKS:
        alone = _inputs(_only(whole, (task,)))
        assert torch.equal(alone.clean_VBTF, together.clean_VBTF)
        assert torch.equal(alone.drop_path_keys_VB, together.drop_path_keys_VB)  # pyright: ignore[reportArgumentType]
        if task in PIXEL_TASKS:
            assert torch.equal(alone.corrupted_VBTF, together.corrupted_VBTF)
            assert torch.equal(alone.mask_VBTF, together.mask_VBTF)  # pyright: ignore[reportArgumentType]
            assert not alone.token_masks
        else:
            assert alone.mask_VBTF is None
            ((name, masks),) = alone.token_masks.items()
            assert name == ("shared" if masking.get("shared_pass", True) else task)
            assert torch.equal(masks.masked_BM, together.token_masks[name].masked_BM)


@pytest.mark.parametrize(("masking", "decoder"), VARIANTS)
@pytest.mark.parametrize(
    "tasks",
    [
        *((task,) for task in TASKS),
        TOKEN_TASKS,
        ("reconstruction", "patch_regression"),
        ("clip_distillation", *TOKEN_TASKS),
        TASKS,
    ],
)
def test_what_is_off_is_absent(micro_config, monkeypatch, masking, decoder, tasks):
    config = _only(_whole(micro_config, masking, decoder), tasks)
    passes = []
    encode = SpectrogramEncoder.encode

    def counted(encoder: SpectrogramEncoder, *args: torch.Tensor, **kwargs: torch.Tensor):
        passes.append(encoder)
        return encode(encoder, *args, **kwargs)  # pyright: ignore[reportArgumentType, reportCallIssue]

    monkeypatch.setattr(SpectrogramEncoder, "encode", counted)
    pretrainer = Pretrainer(config, seed=0)
    report = _step(pretrainer)
    reads_tokens, distills = set(tasks) & set(TOKEN_TASKS), "distillation" in str(tasks)
    token_passes = len(reads_tokens) if not masking.get("shared_pass", True) else bool(reads_tokens)
    assert len(passes) == bool(set(tasks) & set(PIXEL_TASKS)) + distills + token_passes
    parts = {
        **{prefix: task in tasks for task, prefix in OWN.items()},
        "teacher.": distills,
        "masked_tokens.mask_embed": bool(reads_tokens) and decoder is None,
        "masked_tokens.decoder.": bool(reads_tokens) and decoder is not None,
        "student.projection.": False,
    }
    names = set(pretrainer.state_dict())
    for prefix, present in parts.items():
        assert any(name.startswith(prefix) for name in names) == present, prefix
    assert set(report.losses) == set(tasks)
    distilling = {task for task in tasks if "distillation" in task}
    assert set(report.teacher_logits) == set(report.student_logits) == distilling
    accuracy = {"patch_discrimination/accuracy"} if "patch_discrimination" in tasks else set()
    assert set(report.metrics) == accuracy
    for name, parameter in pretrainer.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    pretrainer.after_step(report.teacher_logits, momentum=0.9 if distills else None)


@pytest.mark.parametrize("shared_pass", [True, False])
def test_two_passes_draw_two_masks_and_one_draws_one(micro_config, shared_pass):
    config = _only(_whole(micro_config, {"shared_pass": shared_pass}, None), TOKEN_TASKS)
    masks = list(_inputs(config).token_masks.values())
    assert len(masks) == (1 if shared_pass else 2)
    assert shared_pass or not torch.equal(masks[0].masked_BM, masks[1].masked_BM)
    later = list(_inputs(config, epoch=1).token_masks.values())
    assert not torch.equal(masks[0].masked_BM, later[0].masked_BM)


def test_the_order_of_the_batch_changes_no_draw(micro_config):
    config = _whole(micro_config, {}, None)
    whole, order = _inputs(config), [2, 3, 0, 1]  # donor groups of two stay together
    log_mel = torch.randn(4, 50, 16, generator=stream(0, "test_input"))[order]
    ids = [CLIPS[i] for i in order]
    frames = torch.full((4,), 50)
    other = draw_inputs(config, log_mel, frames, ids, mean=0.0, std=0.5, seed=0, epoch=0)
    assert torch.equal(other.corrupted_VBTF, whole.corrupted_VBTF[:, order])
    flat = [view * 4 + clip for view in range(2) for clip in order]
    ours, theirs = other.token_masks["shared"], whole.token_masks["shared"]
    assert torch.equal(ours.masked_BM, theirs.masked_BM[flat])
    assert torch.equal(other.drop_path_keys_VB, whole.drop_path_keys_VB[:, order])  # pyright: ignore[reportArgumentType, reportOptionalSubscript]


@pytest.mark.parametrize("rule", ["any", "half", "full"])
@pytest.mark.parametrize("token_order", ["time", "frequency"])
@pytest.mark.parametrize("stride", [8, 4])
def test_which_tokens_a_mask_corrupts_by_loops(micro_config, rule, token_order, stride):
    config = dataclasses.replace(
        micro_config.encoder, token_order=token_order, stride_frames=stride
    )
    mask = _inputs(micro_config).mask_VBTF
    assert mask is not None
    mask = mask.clone()
    mask[0, 0, :8, :8] = True  # one patch hidden whole
    mask[0, 1, :8, :8] = False
    mask[0, 1, :4, :8] = True  # and one by half
    ours = corrupted_tokens(mask, config, rule)
    columns, rows = config.grid_of(32)
    for view in range(2):
        for clip in range(4):
            for t in range(columns):
                for f in range(rows):
                    patch = mask[view, clip, stride * t : stride * t + 8, 8 * f : 8 * f + 8]
                    expected = {
                        "any": bool(patch.any()),
                        "half": int(patch.sum()) * 2 >= 64,
                        "full": bool(patch.all()),
                    }[rule]
                    n = t * rows + f if token_order == "time" else f * columns + t
                    assert bool(ours[view, clip, n]) == expected


@pytest.mark.parametrize("rule", ["any", "half", "full"])
def test_patch_distillation_over_corrupted_tokens_is_their_mean(micro_config, rule):
    pretext = dataclasses.replace(
        micro_config.pretext,
        patch_distillation=dataclasses.replace(
            micro_config.pretext.patch_distillation, tokens=rule
        ),
    )
    masking = dataclasses.replace(micro_config.masking, block_max=1.0)  # else none is hidden whole
    config = dataclasses.replace(micro_config, pretext=pretext, masking=masking)
    config = _only(config, ("patch_distillation",))
    pretrainer = Pretrainer(config, seed=0)
    inputs, report = _inputs(config), _step(pretrainer)
    assert inputs.mask_VBTF is not None
    counts = corrupted_tokens(inputs.mask_VBTF, config.encoder, rule)
    assert 0 < int(counts.sum()) < counts.numel()
    student, teacher = report.student_logits, report.teacher_logits
    rows = [
        cross_entropy(
            student["patch_distillation"][index],
            teacher["patch_distillation"][index],
            torch.zeros(12),
            student_temperature=0.1,
            teacher_temperature=0.05,
        )
        for index in map(tuple, counts.nonzero().tolist())
    ]
    loss = report.losses["patch_distillation"]
    torch.testing.assert_close(loss.detach(), torch.stack(rows).mean(), rtol=1e-5, atol=1e-6)


def test_without_corruption_rules_mean_all_tokens_and_all_pixels(micro_config):
    pretext = micro_config.pretext
    everywhere = dataclasses.replace(micro_config, masking=None)
    losses = {}
    for rule in ("all", "any", "half", "full"):
        patch = dataclasses.replace(pretext.patch_distillation, tokens=rule)
        changed = dataclasses.replace(pretext, patch_distillation=patch)
        pretrainer = Pretrainer(dataclasses.replace(everywhere, pretext=changed), seed=0)
        losses[rule] = _step(pretrainer).losses
    for rule in ("any", "half", "full"):
        assert torch.equal(losses[rule]["patch_distillation"], losses["all"]["patch_distillation"])
    pretrainer = Pretrainer(everywhere, seed=0)
    inputs = _inputs(everywhere)
    assert inputs.mask_VBTF is None
    assert torch.equal(inputs.corrupted_VBTF, inputs.clean_VBTF)
    assert pretrainer.reconstruction is not None
    tokens, _ = pretrainer.student(inputs.clean_VBTF, inputs.drop_path_keys_VB)
    drawn = pretrainer.reconstruction.reconstruct(tokens[:, :, 1:].flatten(0, 1))
    expected = (drawn - inputs.clean_VBTF.flatten(0, 1)).abs().mean()
    torch.testing.assert_close(losses["all"]["reconstruction"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("task", "masked"), [*((task, True) for task in TASKS), ("reconstruction", False)]
)
def test_every_loss_falls_in_a_few_steps(micro_config, task, masked):
    """On one batch: every task has something to learn, reconstruction without corruption too."""
    config = _only(_whole(micro_config, {}, None), (task,))
    encoder = dataclasses.replace(config.encoder, drop_path_rate=0.0)
    optimizer_config = dataclasses.replace(
        config.optimizer, lr_per_256=0.3, warmup_ratio=0.0, weight_decay=0.0
    )
    config = dataclasses.replace(
        config,
        encoder=encoder,
        masking=config.masking if masked else None,
        optimizer=optimizer_config,
        weight_init="xavier",
    )
    pretrainer = Pretrainer(config, seed=0)
    optimizer = make_optimizer(pretrainer, config.optimizer)
    losses = []
    for step in range(12):
        report = pretrainer(_inputs(config), teacher_temperature=0.05)
        optimizer.zero_grad(set_to_none=True)
        report.total.backward()
        schedule_optimizer(optimizer, config.optimizer, step=step, total_steps=12, batch_size=4)
        optimizer.step()  # the teacher stays: a fixed target
        losses.append(report.losses[task].item())
    assert losses[-1] < 0.98 * losses[0], losses
