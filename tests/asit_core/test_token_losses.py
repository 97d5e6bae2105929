"""The losses on masked patches against the equations written out in loops."""

import math

import pytest
import torch
from torch import Tensor

from asit_core.seeding import stream
from asit_core.token_losses import info_nce, normalized_patches, patch_mse


def _random(*shape: int, key: int = 0) -> Tensor:
    return torch.randn(shape, generator=stream(key, "test"))


def _info_nce(
    prediction: list[list[float]], target: list[list[float]], over: str
) -> tuple[list[float], list[bool]]:
    """Of one clip, -log softmax of each patch's own score, and whether it wins among targets."""
    count = len(prediction)
    score = [
        [sum(a * b for a, b in zip(t, p, strict=True)) for p in prediction] for t in target
    ]  # [target][prediction]

    def log_share(t: int, p: int) -> float:
        rivals = [score[t][q] for q in range(count)]
        if over == "targets":
            rivals = [score[s][p] for s in range(count)]
        highest = max(rivals)
        return score[t][p] - highest - math.log(sum(math.exp(r - highest) for r in rivals))

    losses = [-log_share(m, m) for m in range(count)]
    found = [max(range(count), key=lambda t: log_share(t, p)) == p for p in range(count)]
    return losses, found


@pytest.mark.parametrize("over", ["predictions", "targets"])
def test_info_nce_by_loops(over):
    target = _random(3, 6, 5, key=1)
    prediction = 0.5 * target + 0.7 * _random(3, 6, 5, key=0)
    losses, found = [], []
    for clip in range(3):
        clip_losses, clip_found = _info_nce(prediction[clip].tolist(), target[clip].tolist(), over)
        losses += clip_losses
        found += clip_found
    result = info_nce(prediction, target, softmax_over=over)
    assert result.loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)  # float32
    assert result.accuracy.item() == pytest.approx(sum(found) / len(found))
    assert 0.0 < result.accuracy.item() < 1.0


@pytest.mark.parametrize("over", ["predictions", "targets"])
def test_the_gradient_of_info_nce_is_by_hand(over):
    """(softmax - identity) / rows on the scores, carried to the predictions through the targets."""
    target = _random(2, 4, 3, key=1).requires_grad_()
    prediction = _random(2, 4, 3, key=0).requires_grad_()
    info_nce(prediction, target, softmax_over=over).loss.backward()
    assert target.grad is None
    fixed = target.detach()
    score = fixed @ prediction.detach().transpose(1, 2)
    share = score.softmax(dim=2 if over == "predictions" else 1)
    score_gradient = (share - torch.eye(4)) / 8
    torch.testing.assert_close(prediction.grad, score_gradient.transpose(1, 2) @ fixed)


def test_what_cannot_be_told_apart_costs_ln_m():
    target = _random(2, 7, 4)
    for over in ("predictions", "targets"):
        loss = info_nce(torch.zeros(2, 7, 4), target, softmax_over=over).loss
        assert loss.item() == pytest.approx(math.log(7), rel=1e-6)


def test_a_clips_loss_does_not_depend_on_the_other_clips():
    """Negatives are the masked patches of the same clip alone."""
    target, prediction = _random(3, 5, 4, key=1), _random(3, 5, 4, key=0)
    alone = [
        info_nce(prediction[i : i + 1], target[i : i + 1], softmax_over="targets").loss
        for i in range(3)
    ]
    together = info_nce(prediction, target, softmax_over="targets").loss
    torch.testing.assert_close(together, torch.stack(alone).mean())


def test_info_nce_computes_in_fp32_under_autocast():
    target, prediction = 3 * _random(2, 5, 64, key=1), 3 * _random(2, 5, 64, key=0)
    exact = info_nce(prediction, target, softmax_over="targets")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = info_nce(prediction, target, softmax_over="targets")
    assert torch.equal(exact.loss, rounded.loss)


def test_patch_mse_by_loops():
    target = _random(2, 3, 4, key=1).requires_grad_()
    prediction = _random(2, 3, 4, key=0).requires_grad_()
    differences = (prediction - target).detach().flatten().tolist()
    loss = patch_mse(prediction, target)
    assert loss.item() == pytest.approx(sum(x * x for x in differences) / 24, rel=1e-6)
    loss.backward()
    assert target.grad is None
    torch.testing.assert_close(prediction.grad, 2 * (prediction - target).detach() / 24)


def test_normalized_patches_by_loops():
    patches = 3 * _random(2, 3, 6) + 5
    for patch, ours in zip(
        patches.flatten(0, 1), normalized_patches(patches).flatten(0, 1), strict=True
    ):
        values = patch.tolist()
        mean = sum(values) / 6
        variance = sum((x - mean) ** 2 for x in values) / 5
        expected = [(x - mean) / math.sqrt(variance + 1e-6) for x in values]
        assert ours.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_constant_patch_is_normalised_to_zeros():
    assert not normalized_patches(torch.full((1, 2, 8), -7.0)).any()
