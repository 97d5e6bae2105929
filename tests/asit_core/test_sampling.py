import math

import pytest
import torch

from asit_core.sampling import (
    SamplingWeights,
    balanced_weights,
    check_weights,
    class_counts,
    labels_fingerprint,
    occurrence_ids,
    sample_clips,
)

IDS = ["a", "b", "c", "d"]
LABELS = [[0], [0, 2], [0], [2, 3]]  # of five classes: nobody holds 1 and 4


def _weights() -> SamplingWeights:
    return balanced_weights(IDS, LABELS, num_classes=5)


def test_weights_are_asts():
    counts = [3, 0, 2, 1, 0]
    assert class_counts(LABELS, num_classes=5).tolist() == counts
    for weight, classes in zip(_weights().weight_N.tolist(), LABELS, strict=True):
        assert weight == pytest.approx(sum(1000 / (counts[c] + 0.01) for c in classes), rel=1e-12)


def test_an_absent_class_changes_no_weight():
    wider = balanced_weights(IDS, LABELS, num_classes=9)
    assert torch.equal(wider.weight_N, _weights().weight_N)


@pytest.mark.parametrize(
    ("ids", "labels", "num_classes"),
    [
        (["a", "b", "c", "e"], LABELS, 5),
        (["b", "a", "c", "d"], LABELS, 5),
        (IDS, [[0], [0], [0], [2, 3]], 5),
        (IDS, [[0], [0, 2], [0, 2], [3]], 5),
        (IDS, LABELS, 6),
        (IDS[:3], LABELS[:3], 5),
    ],
)
def test_weights_of_other_clips_or_labels_are_refused(ids, labels, num_classes):
    # H17
    check_weights(_weights(), IDS, LABELS, num_classes=5)
    other = labels_fingerprint(ids, labels, num_classes=num_classes)
    message = rf"\({other}\), but got {_weights().fingerprint}; compute them again"
    with pytest.raises(ValueError, match=message):
        check_weights(_weights(), ids, labels, num_classes=num_classes)


def test_clips_are_drawn_in_proportion_to_their_weights():
    drawn = sample_clips(_weights(), num_draws=20_000, seed=0, epoch=0)
    shares = torch.bincount(drawn, minlength=4) / 20_000
    for share, weight in zip(shares.tolist(), _weights().weight_N.tolist(), strict=True):
        p = weight / _weights().weight_N.sum().item()
        assert share == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 20_000))


def test_draws_depend_on_seed_and_epoch_alone():
    before = torch.get_rng_state()
    one = sample_clips(_weights(), num_draws=50, seed=0, epoch=0)
    assert torch.equal(one, sample_clips(_weights(), num_draws=50, seed=0, epoch=0))
    assert not torch.equal(one, sample_clips(_weights(), num_draws=50, seed=0, epoch=1))
    assert not torch.equal(one, sample_clips(_weights(), num_draws=50, seed=1, epoch=0))
    assert torch.equal(before, torch.get_rng_state())


def test_a_clip_without_weight_is_never_drawn():
    weights = SamplingWeights(torch.tensor([0.0, 1.0, 0.0, 2.0, 0.0], dtype=torch.float64), "")
    drawn = sample_clips(weights, num_draws=2000, seed=0, epoch=0)
    assert set(drawn.tolist()) == {1, 3}


def test_repeated_clips_get_names_of_their_own():
    assert occurrence_ids(["a", "b", "a", "a", "b"]) == ["a", "b", "a#1", "a#2", "b#1"]


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -1.0], [1.0, float("nan")]])
def test_weights_that_cannot_be_drawn_from_are_refused(weights):
    bad = SamplingWeights(torch.tensor(weights, dtype=torch.float64), "")
    with pytest.raises(ValueError, match="weights must be finite, at least 0 and not all 0"):
        sample_clips(bad, num_draws=1, seed=0, epoch=0)


def test_bad_labels_are_named_with_rule_and_value():
    with pytest.raises(ValueError, match="labels of clip 'b' must hold a class, but got none"):
        balanced_weights(IDS, [[0], [], [0], [1]], num_classes=2)
    with pytest.raises(ValueError, match=r"labels must be in \[0, 3\), but got 3"):
        balanced_weights(IDS, LABELS, num_classes=3)
    with pytest.raises(ValueError, match=r"labels must be one entry per clip \(4\), but got 3"):
        balanced_weights(IDS, LABELS[:3], num_classes=5)
