import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from asit_core.seeding import stream
from asit_core.targets import classification_loss, multi_hot, present_classes, probabilities


def _logits() -> Tensor:
    return 3 * torch.randn(4, 5, generator=stream(0, "test_input"))


SOFT = torch.tensor(
    [
        [1.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.6, 0.4],
        [0.0, 0.25, 0.75, 0.0, 0.0],
        [0.0, 0.0, 1.0, 0.0, 0.0],
    ]
)


def _loop_loss(logits: Tensor, target: Tensor, kind: str, smoothing: float) -> float:
    """Both losses, written out class by class."""
    clips, classes = logits.shape
    total = 0.0
    for clip in range(clips):
        row = [value.item() for value in logits[clip].double()]
        for index in range(classes):
            y = (1 - smoothing) * target[clip, index].item() + smoothing / classes
            if kind == "ce":
                p = math.exp(row[index]) / sum(math.exp(value) for value in row)
                total -= y * math.log(p)
            else:
                p = 1 / (1 + math.exp(-row[index]))
                total -= (y * math.log(p) + (1 - y) * math.log(1 - p)) / classes
    return total / clips


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["ce", "bce"])
def test_soft_labels_count_as_they_are(kind, label_smoothing):
    # H16: never rounded down.
    loss = classification_loss(_logits(), SOFT, kind=kind, label_smoothing=label_smoothing)
    assert loss.item() == pytest.approx(
        _loop_loss(_logits(), SOFT, kind, label_smoothing), rel=1e-5
    )


@pytest.mark.parametrize("kind", ["ce", "bce"])
def test_a_mix_is_learned_as_a_mix(kind):
    # H16: the released argmax of floored labels would pull this clip towards class 0.
    logits = torch.zeros(1, 5, requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=2.0)
    for _ in range(400):
        optimizer.zero_grad()
        classification_loss(logits, SOFT[1:2], kind=kind).backward()
        optimizer.step()
    learned = probabilities(logits.detach(), kind=kind)
    torch.testing.assert_close(learned, SOFT[1:2], rtol=0, atol=0.03)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_hard_labels_are_soft_labels_of_weight_one(label_smoothing):
    label = torch.tensor([0, 3, 2, 4])
    one_hot = functional.one_hot(label, 5).float()
    for kind in ("ce", "bce"):
        hard = classification_loss(_logits(), label, kind=kind, label_smoothing=label_smoothing)
        soft = classification_loss(_logits(), one_hot, kind=kind, label_smoothing=label_smoothing)
        torch.testing.assert_close(hard, soft)
    plain = functional.cross_entropy(_logits(), label, label_smoothing=label_smoothing)
    ours = classification_loss(_logits(), label, kind="ce", label_smoothing=label_smoothing)
    assert torch.equal(ours, plain)


@pytest.mark.parametrize("kind", ["ce", "bce"])
def test_a_class_that_no_clip_holds_is_left_out(kind):
    # H16: absent classes
    labels = [[0], [3, 4], [2], [4]]
    target = multi_hot(labels, num_classes=6)
    present = present_classes(labels, num_classes=6)
    assert present.tolist() == [0, 2, 3, 4]
    logits = torch.randn(4, 6, generator=stream(1, "test_input")).requires_grad_()
    loss = classification_loss(logits, target, kind=kind, present=present)
    expected = _loop_loss(logits.detach()[:, present], target[:, present], kind, 0.0)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert torch.all(logits.grad[:, [1, 5]] == 0.0)
    assert torch.all(logits.grad[:, present] != 0.0)


@pytest.mark.parametrize("kind", ["ce", "bce"])
def test_a_perfect_model_has_no_loss(kind):
    # H16: AST's validation loss, of a sigmoid's sigmoid, stays near 0.69.
    target = functional.one_hot(torch.tensor([0, 3, 2, 4]), 5).float()
    assert classification_loss(40 * (2 * target - 1), target, kind=kind).item() < 1e-6


def test_probabilities_are_what_the_loss_trains():
    ce, bce = (probabilities(_logits().half(), kind=kind) for kind in ("ce", "bce"))
    assert ce.dtype == bce.dtype == torch.float32
    torch.testing.assert_close(ce.sum(dim=-1), torch.ones(4))
    torch.testing.assert_close(bce, 1 / (1 + (-_logits().half().float()).exp()))


def test_the_loss_is_fp32_whatever_the_logits():
    loss = classification_loss(_logits().bfloat16(), SOFT, kind="ce")
    assert loss.dtype == torch.float32


def test_several_labels_make_a_row_of_ones():
    assert multi_hot([[2, 0], [], [1, 1]], num_classes=3).tolist() == [
        [1, 0, 1],
        [0, 0, 0],
        [0, 1, 0],
    ]


def test_bad_input_is_named_with_rule_and_value():
    with pytest.raises(ValueError, match=r"labels of clip 1 must be in \[0, 3\), but got 3"):
        multi_hot([[0], [3]], num_classes=3)
    with pytest.raises(
        ValueError, match=r"target must be .* shape \(4, 5\), but got shape \(4, 4\)"
    ):
        classification_loss(_logits(), SOFT[:, :4], kind="bce")
    for target, weight in ((SOFT, "0.4"), (torch.tensor([0, 4, 2, 3]), "1")):
        with pytest.raises(ValueError, match=f"clip 1 has {weight} on class 4"):
            classification_loss(_logits(), target, kind="ce", present=torch.tensor([0, 1, 2, 3]))
    with pytest.raises(ValueError, match=r"target must be .* shape \(4, 5\), but got shape \(3,\)"):
        classification_loss(_logits(), torch.tensor([0, 1, 2]), kind="ce")
