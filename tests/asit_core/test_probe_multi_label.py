import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asit_core.logistic_regression import LogisticRegression, Standardiser
from asit_core.probe import DEFAULT_L2, L2_PATH, knn, linear_probe
from asit_core.probe.validation import deal_folds
from asit_core.seeding import numpy_stream, stream


def _tagged(
    *, num_clips: int, width: int = 6, num_classes: int = 3, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and the classes they lie on the positive side of, give or take some noise."""
    direction = torch.randn(width, num_classes, generator=stream(0, "direction"))
    generator = stream(seed, "tagged")
    feature = torch.randn(num_clips, width, generator=generator)
    noise = torch.randn(num_clips, num_classes, generator=generator)
    return 5 * feature + 2, feature @ direction + 0.5 * noise > 1.0


def _slow_fit(feature: np.ndarray, target: np.ndarray, l2: float) -> np.ndarray:
    """Newton's method on one class against the rest; weights (D + 1,), the intercept last."""
    inputs = np.hstack((feature, np.ones((len(feature), 1))))
    penalty = np.array([l2] * feature.shape[1] + [0.0])
    weight = np.zeros(inputs.shape[1])
    for _ in range(50):
        gradient, hessian = penalty * weight, np.diag(penalty)
        for row, truth in zip(inputs, target, strict=True):
            probability = 1 / (1 + math.exp(-float(row @ weight)))
            gradient = gradient + row * (probability - truth) / len(inputs)
            hessian = hessian + np.outer(row, row) * probability * (1 - probability) / len(inputs)
        weight = weight - np.linalg.solve(hessian, gradient)
        if np.abs(gradient).max() < 1e-12:
            break
    return weight


@pytest.mark.parametrize("l2", [1.0, 0.01])
def test_each_class_is_fitted_against_the_rest_and_squashed_once(l2):
    """H16: the scores are one sigmoid of the logits, not a sigmoid of a sigmoid."""
    feature, label = _tagged(num_clips=50)
    unseen, _ = _tagged(num_clips=12, seed=1)
    standardise = Standardiser.fit(feature.double())
    model = LogisticRegression(feature.double(), label)
    logits = model.logits(model.solve(l2), unseen.double())
    scores = model.likelihood.scores(logits, 3)
    for column in range(3):
        weight = _slow_fit(standardise(feature.double()).numpy(), label[:, column].numpy(), l2)
        for row, vector in enumerate(standardise(unseen.double()).numpy()):
            logit = float(vector @ weight[:-1]) + weight[-1]
            # as in the test of the multinomial fit: the gradient's bound over the least curvature
            assert float(scores[row, column]) == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-4)


def test_the_gradient_is_that_of_the_value():
    feature, label = _tagged(num_clips=30, width=4)
    model = LogisticRegression(feature.double(), label)
    weight = torch.randn(5, 3, generator=stream(0, "weight"), dtype=torch.float64)
    _, gradient = model.objective(weight, 0.3)
    for row, column in np.ndindex(5, 3):
        step = torch.zeros_like(weight)
        step[row, column] = 1e-6
        rise = model.objective(weight + step, 0.3)[0] - model.objective(weight - step, 0.3)[0]
        assert rise / 2e-6 == pytest.approx(float(gradient[row, column]), abs=1e-8)


def test_linear_probe_learns_tags():
    train, label = _tagged(num_clips=300)
    test, truth = _tagged(num_clips=100, seed=1)
    result = linear_probe(train, label, test, num_classes=3)
    assert result.l2 in L2_PATH
    assert result.scores_MC.shape == (100, 3)
    assert ((result.scores_MC > 0.5) == truth).double().mean() > 0.85


def test_a_tag_of_no_clip_scores_zero_and_one_of_every_clip_one():
    train, label = _tagged(num_clips=60)
    label = torch.hstack((label, torch.zeros(60, 1).bool(), torch.ones(60, 1).bool()))
    scores = linear_probe(train, label, train, num_classes=5).scores_MC
    assert (scores[:, 3] == 0).all()
    assert (scores[:, 4] == 1).all()
    plain = linear_probe(train, label[:, :3], train, num_classes=3).scores_MC
    torch.testing.assert_close(scores[:, :3], plain, rtol=0, atol=1e-6)


def test_tags_of_one_recording_use_the_default_penalty():
    train, label = _tagged(num_clips=30)
    result = linear_probe(train, label, train, num_classes=3, group_N=["one"] * 30)
    assert result.l2 == DEFAULT_L2


def test_knn_votes_for_every_tag_of_a_neighbour():
    train = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    label = torch.tensor([[True, True, False], [True, False, False], [False, False, True]])
    scores = knn(train, label, train[:1], num_classes=3, k=2, temperature=0.5)
    similarity = 0.9 / math.hypot(0.9, 0.1)
    votes = [math.exp(1 / 0.5), math.exp(similarity / 0.5)]
    assert scores[0].tolist() == pytest.approx([1.0, votes[0] / sum(votes), 0.0])


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), k=st.integers(1, 12))
def test_knn_of_one_tag_a_clip_is_that_of_labels(seed, k):
    generator = stream(seed, "knn")
    train = torch.randn(12, 3, generator=generator)
    label = torch.randint(4, (12,), generator=generator)
    tags = torch.eye(4).bool()[label]
    torch.testing.assert_close(
        knn(train, tags, train, num_classes=4, k=k), knn(train, label, train, num_classes=4, k=k)
    )


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), num_groups=st.integers(1, 20), share=st.floats(0.0, 1.0))
def test_folds_keep_groups_whole_and_use_every_fold(seed, num_groups, share):
    rng = numpy_stream(seed, "folds")
    group = np.concatenate((np.arange(num_groups), rng.integers(0, num_groups, 40)))
    label = rng.random((len(group), 5)) < share
    fold = deal_folds(label, group, seed)
    assert all(len(set(fold[group == name])) == 1 for name in range(num_groups))
    assert len(set(fold)) == min(4, num_groups)


def test_clips_without_a_tag_are_spread_over_the_folds():
    fold = deal_folds(np.zeros((40, 3), dtype=bool), np.arange(40), 0)
    assert np.bincount(fold).tolist() == [10, 10, 10, 10]


@pytest.mark.parametrize("probe", [knn, linear_probe])
def test_probes_refuse_tags_that_do_not_fit(probe):
    train, label = _tagged(num_clips=20)
    with pytest.raises(ValueError, match=r"boolean \(N, 4\), but got torch.bool \(20, 3\)"):
        probe(train, label, train, num_classes=4)
    with pytest.raises(ValueError, match=r"boolean \(N, 3\), but got torch.float32 \(20, 3\)"):
        probe(train, label.float(), train, num_classes=3)
    with pytest.raises(ValueError, match=r"for each of N >= 1 clips, but got \(20, 3, 1\)"):
        probe(train, label[..., None], train, num_classes=3)
    with pytest.raises(ValueError, match=r"must be integer, but got torch\.bool"):
        probe(train, label[:, 0], train, num_classes=3)


def test_linear_probe_needs_a_tag_that_tells_clips_apart():
    train, label = _tagged(num_clips=20)
    with pytest.raises(ValueError, match="each of the 3 classes is in all 20 clips or in none"):
        linear_probe(train, torch.zeros_like(label), train, num_classes=3)
