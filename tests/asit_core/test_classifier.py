import copy
import dataclasses
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from asit_core.augment import PatchoutConfig, visible_patches
from asit_core.classifier import (
    Classifier,
    FinetuneConfig,
    finetune_step,
    pool_tokens,
    windows,
)
from asit_core.encoder import EncoderConfig, SpectrogramEncoder
from asit_core.initialization import initialize
from asit_core.seeding import clip_keys, stream
from asit_core.spectrogram import LOG_MEL_FLOOR
from asit_core.views import ViewsConfig, make_views

CLASSES = 5


def _encoder(*, num_cls_tokens: Literal[1, 2] = 1) -> SpectrogramEncoder:
    config = EncoderConfig(
        embed_dim=16,
        depth=2,
        num_heads=2,
        patch_frames=8,
        patch_bins=8,
        input_bins=16,
        num_cls_tokens=num_cls_tokens,
    )
    encoder = SpectrogramEncoder(config, input_frames=32)
    initialize(encoder, seed=0)
    return encoder


def _crops(step: int = 0) -> tuple[Tensor, Tensor]:
    log_mel = torch.randn(6, 32, 16, generator=stream(step, "test_input"))
    return log_mel, torch.tensor([0, 1, 2, 3, 4, 0])


class _Plain(nn.Module):
    """The fine-tuned model, written out."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(classifier.encoder)
        self.norm = copy.deepcopy(classifier.head[0])
        self.linear = copy.deepcopy(classifier.head[1])

    def forward(self, log_mel: Tensor) -> Tensor:
        tokens = self.encoder(log_mel)
        mean = sum(tokens[:, n] for n in range(1, tokens.shape[1])) / (tokens.shape[1] - 1)
        return self.linear(self.norm(mean))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_steps_equal_a_plain_loop(label_smoothing):
    classifier = Classifier(_encoder(), num_classes=CLASSES, seed=1)
    plain = _Plain(classifier)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-3)
    plain_optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-3)
    for step in range(2):
        log_mel, label = _crops(step)
        loss = finetune_step(classifier, optimizer, log_mel, label, label_smoothing=label_smoothing)
        plain_optimizer.zero_grad()
        log_probabilities = plain(log_mel).log_softmax(-1)
        target = torch.full((6, CLASSES), label_smoothing / CLASSES)
        for row, index in enumerate(label.tolist()):
            target[row, index] += 1 - label_smoothing
        plain_loss = -(target * log_probabilities).sum() / 6
        plain_loss.backward()
        plain_optimizer.step()
        torch.testing.assert_close(loss, plain_loss.detach(), rtol=1e-5, atol=1e-6)
        assert not loss.requires_grad
    pairs = zip(classifier.parameters(), plain.parameters(), strict=True)
    for ours, theirs in pairs:
        # AdamW's first steps divide by a gradient's size: rounding counts up to the learning rate.
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def test_the_encoder_is_a_trainable_copy():
    encoder = _encoder().requires_grad_(False).eval()
    before = copy.deepcopy(encoder.state_dict())
    classifier = Classifier(encoder, num_classes=CLASSES, seed=0)
    assert all(parameter.requires_grad for parameter in classifier.parameters())
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-2)
    finetune_step(classifier, optimizer, *_crops())
    changed = classifier.encoder.state_dict()
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name])
        assert not torch.equal(value, changed[name]), name
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_the_head_depends_on_its_seed_alone():
    encoder = _encoder()
    global_state = torch.get_rng_state()
    heads = [Classifier(encoder, num_classes=CLASSES, seed=seed).head for seed in (0, 0, 1)]
    weights = [head[1].weight for head in heads]
    assert torch.equal(weights[0], weights[1])  # pyright: ignore[reportArgumentType]
    assert not torch.equal(weights[0], weights[2])  # pyright: ignore[reportArgumentType]
    assert torch.equal(global_state, torch.get_rng_state())


def test_logits_are_fp32_under_bf16():
    classifier = Classifier(_encoder(), num_classes=CLASSES, seed=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert classifier(_crops()[0]).dtype == torch.float32
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-3)
    loss = finetune_step(classifier, optimizer, *_crops(), dtype=torch.bfloat16)
    assert loss.dtype == torch.float32


@pytest.mark.parametrize("num_cls_tokens", [1, 2])
def test_the_clips_vector_is_made_of_the_tokens_named(num_cls_tokens):
    tokens = torch.randn(3, num_cls_tokens + 4, 5, generator=stream(0, "test_input"))

    def mean(*positions: int) -> Tensor:
        return torch.stack([tokens[:, n] for n in positions]).double().mean(dim=0).float()

    expected = {
        "mean": mean(*range(num_cls_tokens, num_cls_tokens + 4)),
        "class_token": tokens[:, 0],
        "class_tokens": mean(*range(num_cls_tokens)),
    }
    for pool, vector in expected.items():
        pooled = pool_tokens(tokens, num_cls_tokens=num_cls_tokens, pool=pool)  # pyright: ignore[reportArgumentType]
        torch.testing.assert_close(pooled, vector)


@pytest.mark.parametrize("pool", ["mean", "class_token", "class_tokens"])
def test_logits_are_the_head_of_the_pooled_tokens(pool):
    encoder = _encoder(num_cls_tokens=2)
    classifier = Classifier(encoder, num_classes=CLASSES, seed=0, pool=pool).eval()
    log_mel = _crops()[0]
    norm, linear = classifier.head
    tokens = encoder(log_mel)
    vector = pool_tokens(tokens, num_cls_tokens=2, pool=pool)
    centered = vector - vector.mean(dim=1, keepdim=True)
    normed = centered / (vector.var(dim=1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    assert torch.equal(norm.weight, torch.ones(16))  # pyright: ignore[reportArgumentType]
    expected = normed @ linear.weight.T + linear.bias  # pyright: ignore[reportCallIssue, reportOperatorIssue]
    torch.testing.assert_close(classifier(log_mel), expected, rtol=1e-4, atol=1e-5)


def test_superbs_head_projects_tokens_then_averages_them():
    classifier = Classifier(_encoder(), num_classes=CLASSES, seed=0, projector_dim=6).eval()
    project, linear = classifier.head
    log_mel = _crops()[0]
    projected = [project(token) for token in classifier.encoder(log_mel)[:, 1:].unbind(1)]
    expected = linear(torch.stack(projected).mean(dim=0))
    torch.testing.assert_close(classifier(log_mel), expected, rtol=1e-4, atol=1e-6)


def test_patches_left_out_change_nothing_for_the_rest():
    classifier = Classifier(_encoder(), num_classes=CLASSES, seed=0).eval()
    log_mel = _crops()[0]
    ids = [f"clip{row}" for row in range(6)]
    config = PatchoutConfig(time_ratio=0.5, frequency_ratio=0.0)
    visible = visible_patches(ids, (4, 2), config, token_order="time", seed=0, epoch=0)
    logits = classifier(log_mel, visible_BM=visible)
    hidden = torch.ones(6, 8, dtype=torch.bool).scatter(1, visible, False)
    # What was left out may hold anything.
    pixels = hidden.unflatten(1, (4, 2)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    other = log_mel.masked_fill(pixels, 99.0)
    torch.testing.assert_close(classifier(other, visible_BM=visible), logits)
    assert not torch.allclose(classifier(log_mel), logits)
    everything = torch.arange(8).expand(6, 8)
    torch.testing.assert_close(classifier(log_mel, visible_BM=everything), classifier(log_mel))


def test_stochastic_depth_belongs_to_the_clip_and_only_on_request():
    classifier = Classifier(_encoder(), num_classes=CLASSES, seed=0)
    classifier.encoder.config = dataclasses.replace(classifier.encoder.config, drop_path_rate=0.9)
    log_mel = _crops()[0]
    keys = clip_keys(0, "drop_path", 0, [f"clip{row}" for row in range(6)])
    dropped = classifier(log_mel, drop_path_keys_B=keys)
    assert not torch.allclose(dropped, classifier(log_mel))
    order = torch.tensor([4, 1, 0])
    torch.testing.assert_close(
        classifier(log_mel[order], drop_path_keys_B=keys[order]), dropped[order]
    )


@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_a_step_on_soft_labels_follows_the_gradient_of_the_loss(loss):
    classifier = Classifier(_encoder(), num_classes=CLASSES, seed=1)
    log_mel = _crops()[0]
    target = torch.rand(6, CLASSES, generator=stream(0, "test_target"))
    target = target / target.sum(dim=1, keepdim=True)
    plain = _Plain(classifier)
    optimizer = torch.optim.SGD(classifier.parameters(), lr=1.0)
    value = finetune_step(classifier, optimizer, log_mel, target, loss=loss, clip_grad_norm=0.01)
    logits = plain(log_mel)
    if loss == "ce":
        expected = -(target * logits.log_softmax(-1)).sum() / 6
    else:
        p = logits.sigmoid()
        expected = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    torch.testing.assert_close(value, expected.detach())
    expected.backward()
    pairs = list(zip(classifier.parameters(), plain.parameters(), strict=True))
    norm = torch.stack([theirs.grad.norm() for _, theirs in pairs]).norm()  # pyright: ignore[reportOptionalMemberAccess]
    assert norm > 0.01
    for ours, theirs in pairs:
        assert theirs.grad is not None
        moved = theirs.detach() - 0.01 * theirs.grad / norm
        torch.testing.assert_close(ours.detach(), moved, rtol=1e-4, atol=1e-6)


def test_no_global_generator_moves():
    encoder, before = _encoder(), torch.get_rng_state()
    classifier = Classifier(encoder, num_classes=CLASSES, seed=0, projector_dim=4)
    finetune_step(classifier, torch.optim.SGD(classifier.parameters(), lr=0.1), *_crops())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("frames", [1, 7, 32, 33])
@pytest.mark.parametrize("padded", [20, 64, 101])
def test_windows_cover_every_frame_of_every_clip(frames, padded):
    lengths = [n for n in (1, 6, 7, 8, 20, 31, 32, 33, 63, 64, 100, 101) if n <= padded]
    # A frame's value is its number, silence is below zero.
    number = torch.arange(float(padded)).expand(len(lengths), padded)
    num_frames = torch.tensor(lengths)
    clips = torch.where(number < num_frames[:, None], number, LOG_MEL_FLOOR)[..., None]
    cut = windows(clips, num_frames, frames=frames)
    assert cut.shape == (len(lengths), -(-max(padded, frames) // frames), frames, 1)
    for clip, length in zip(cut, lengths, strict=True):
        assert {value for value in clip.flatten().tolist() if value >= 0} == set(range(length))
        assert clip[0, 0, 0] == 0.0
        if length >= frames:
            assert clip[-1, -1, 0] == length - 1
            assert clip.min() >= 0.0  # no silence of ours in any window
        for window in clip[..., 0].tolist():
            valid = [value for value in window if value >= 0]
            assert valid == [valid[0] + i for i in range(len(valid))]


def test_a_window_longer_than_all_clips_is_filled_as_the_training_crop_is():
    clips = torch.randn(2, 3, 4, generator=stream(0, "test"))
    config = ViewsConfig(num_views=1, crop_frames=5, roll_probability=0.0)
    crops = make_views(clips, torch.tensor([3, 3]), ["a", "b"], config, seed=0, epoch=0)
    assert torch.equal(windows(clips, torch.tensor([3, 3]), frames=5)[:, 0], crops[0])


def test_a_classifier_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="num_classes must be at least 2, but got 1"):
        Classifier(_encoder(), num_classes=1, seed=0)
    with pytest.raises(ValueError, match=r"'class_tokens' must have two .* has 1; take 'class_to"):
        Classifier(_encoder(), num_classes=3, seed=0, pool="class_tokens")
    with pytest.raises(ValueError, match="projector_dim must be at least 1 or null, but got 0"):
        Classifier(_encoder(), num_classes=3, seed=0, projector_dim=0)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "epochs must be at least 1, but got 0"),
        ("batch_size", 0, "batch_size must be at least 1, but got 0"),
        ("lr", 0.0, "lr must be above 0, but got 0.0"),
        ("weight_decay", -1.0, "weight_decay must be at least 0, but got -1.0"),
        ("warmup_ratio", 2.0, r"warmup_ratio must be in \[0, 1\], but got 2.0"),
        ("label_smoothing", 1.0, r"label_smoothing must be in \[0, 1\), but got 1.0"),
    ],
)
def test_a_bad_field_is_named_with_rule_and_value(field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(FinetuneConfig(), **{field: value})
