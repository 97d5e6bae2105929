import math
import random
import time

import numpy as np
import pytest
import torch

from asit_core.logistic_regression import LogisticRegression, Standardiser
from asit_core.probe import (
    DEFAULT_L2,
    L2_PATH,
    ProbeConfig,
    accuracy,
    knn,
    linear_probe,
    log_mel_statistics,
)
from asit_core.probe.validation import deal_folds
from asit_core.seeding import numpy_stream, stream


def _clusters(
    *, num_clips: int, width: int, num_classes: int, spread: float = 1.5, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlapping clouds in strongly correlated features, as a transformer's are."""
    rng = numpy_stream(seed, "clusters")
    centers = numpy_stream(0, "centers").normal(size=(num_classes, width))
    mixing = numpy_stream(0, "mixing").normal(size=(width, width))
    mixing *= np.logspace(0, -3, width)[:, None]
    label = np.arange(num_clips) % num_classes
    feature = (centers[label] + spread * rng.normal(size=(num_clips, width))) @ mixing + 3.0
    return torch.from_numpy(feature).float(), torch.from_numpy(label)


def _slow_fit(feature: np.ndarray, label: np.ndarray, l2: float) -> np.ndarray:
    """Newton's method on the textbook objective; weights (D + 1, C), the intercept last."""
    num_clips, width = feature.shape
    num_classes = label.max() + 1
    inputs = np.hstack((feature, np.ones((num_clips, 1))))
    penalty = np.full((width + 1, num_classes), l2)
    penalty[-1] = 0.0
    weight = np.zeros((width + 1, num_classes))
    for _ in range(50):
        gradient = penalty * weight
        hessian = np.diag(penalty.flatten())
        for row, target in zip(inputs, label, strict=True):
            exponentials = [math.exp(logit) for logit in row @ weight]
            probability = np.array([value / sum(exponentials) for value in exponentials])
            gradient += np.outer(row, probability - np.eye(num_classes)[target]) / num_clips
            curvature = np.diag(probability) - np.outer(probability, probability)
            hessian += np.kron(np.outer(row, row), curvature) / num_clips
        # adding a constant to all intercepts changes nothing: the pseudo-inverse picks the least
        weight -= (np.linalg.pinv(hessian, rcond=1e-13) @ gradient.flatten()).reshape(weight.shape)
        if np.abs(gradient).max() < 1e-12:
            break
    return weight


def _probabilities(feature: np.ndarray, weight: np.ndarray) -> np.ndarray:
    exponentials = np.exp(np.hstack((feature, np.ones((len(feature), 1)))) @ weight)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("l2", [1.0, 0.03, 0.001])
@pytest.mark.parametrize("num_clips", [60, 4])
def test_the_fit_equals_newtons_method(num_clips, l2):
    """With four clips and five features the rotation also drops a direction."""
    feature, label = _clusters(num_clips=num_clips, width=5, num_classes=3)
    unseen, _ = _clusters(num_clips=20, width=5, num_classes=3, seed=1)
    standardise = Standardiser.fit(feature.double())
    slow_weight = _slow_fit(standardise(feature.double()).numpy(), label.numpy(), l2)
    expected = _probabilities(standardise(unseen.double()).numpy(), slow_weight)
    model = LogisticRegression(feature.double(), label)
    found = model.logits(model.solve(l2), unseen.double()).softmax(dim=1).numpy()
    # a gradient below 1e-7 over a curvature of at least l2 = 1e-3 leaves weights within 1e-4
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("l2", L2_PATH)
def test_the_gradient_vanishes_at_the_optimum(l2):
    feature, label = _clusters(num_clips=100, width=24, num_classes=4)
    model = LogisticRegression(feature.double(), label)
    _, gradient = model.objective(model.solve(l2), l2)
    assert gradient.abs().max() <= 1e-7


def test_the_gradient_is_that_of_the_value():
    feature, label = _clusters(num_clips=30, width=4, num_classes=3)
    model = LogisticRegression(feature.double(), label)
    weight = torch.randn(5, 3, generator=stream(0, "weight"), dtype=torch.float64)
    _, gradient = model.objective(weight, 0.3)
    for row, column in np.ndindex(5, 3):
        step = torch.zeros_like(weight)
        step[row, column] = 1e-6
        rise = model.objective(weight + step, 0.3)[0] - model.objective(weight - step, 0.3)[0]
        assert rise / 2e-6 == pytest.approx(float(gradient[row, column]), abs=1e-8)


def test_linear_probe_learns_and_chooses_its_penalty():
    train, train_label = _clusters(num_clips=240, width=32, num_classes=4)
    test, test_label = _clusters(num_clips=100, width=32, num_classes=4, seed=1)
    result = linear_probe(train, train_label, test, num_classes=4)
    assert accuracy(result.scores_MC, test_label) > 0.8
    assert result.l2 in L2_PATH
    assert result.scores_MC.dtype == torch.float64
    torch.testing.assert_close(result.scores_MC.sum(dim=1), torch.ones(100).double())


def test_noise_is_penalised_and_signal_is_not():
    label = torch.arange(120) % 3
    noise = torch.randn(120, 40, generator=stream(0, "noise"))
    signal = torch.eye(3)[label] + 0.05 * noise[:, :3]
    assert linear_probe(noise, label, noise, num_classes=3).l2 >= 10
    assert linear_probe(signal, label, signal, num_classes=3).l2 <= 0.01


def test_linear_probe_is_deterministic_and_moves_no_global_generator():
    train, label = _clusters(num_clips=120, width=16, num_classes=4)
    before = (torch.get_rng_state(), repr(np.random.get_state()), random.getstate())  # noqa: NPY002
    first = linear_probe(train, label, train, num_classes=4, seed=3)
    second = linear_probe(train, label, train, num_classes=4, seed=3)
    knn(train, label, train, num_classes=4)
    assert torch.equal(first.scores_MC, second.scores_MC)
    assert first.l2 == second.l2
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == repr(np.random.get_state())  # noqa: NPY002
    assert before[2] == random.getstate()


def test_threads_change_neither_the_result_nor_themselves():
    train, label = _clusters(num_clips=120, width=16, num_classes=4)
    num_threads = torch.get_num_threads()
    try:
        scores = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            scores.append(linear_probe(train, label, train, num_classes=4).scores_MC)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(num_threads)
    assert torch.equal(*scores)


def test_scale_and_offset_of_a_feature_change_nothing():
    train, label = _clusters(num_clips=120, width=16, num_classes=4)
    test, _ = _clusters(num_clips=30, width=16, num_classes=4, seed=1)
    factor = torch.logspace(-3, 3, 16, dtype=torch.float64)
    plain = linear_probe(train.double(), label, test.double(), num_classes=4)
    moved = linear_probe(train * factor + 5, label, test * factor + 5, num_classes=4)
    torch.testing.assert_close(plain.scores_MC, moved.scores_MC, rtol=0, atol=1e-5)


def test_constant_features_have_no_say():
    train, label = _clusters(num_clips=60, width=6, num_classes=3)
    test, _ = _clusters(num_clips=20, width=6, num_classes=3, seed=1)
    constant = torch.full((60, 2), 0.1)
    plain = linear_probe(train, label, test, num_classes=3)
    padded = linear_probe(
        torch.hstack((train, constant)),
        label,
        torch.hstack((test, torch.full((20, 2), 1e6))),
        num_classes=3,
    )
    torch.testing.assert_close(plain.scores_MC, padded.scores_MC, rtol=0, atol=1e-5)


def test_only_constant_features_give_the_class_shares():
    label = torch.tensor([0] * 30 + [1] * 10)
    result = linear_probe(torch.ones(40, 3), label, torch.ones(2, 3), num_classes=2)
    expected = torch.tensor([[0.75, 0.25]] * 2).double()
    torch.testing.assert_close(result.scores_MC, expected, rtol=0, atol=1e-5)


def test_more_features_than_clips():
    train, label = _clusters(num_clips=40, width=300, num_classes=4)
    result = linear_probe(train, label, train, num_classes=4)
    assert accuracy(result.scores_MC, label) > 0.9


def test_a_class_absent_from_training_scores_zero_and_counts_as_wrong():
    train, label = _clusters(num_clips=60, width=8, num_classes=3)
    present = label != 1
    for scores in (
        linear_probe(train[present], label[present], train, num_classes=4).scores_MC,
        knn(train[present], label[present], train, num_classes=4),
    ):
        assert scores.shape == (60, 4)
        assert (scores[:, [1, 3]] == 0).all()
        assert accuracy(scores, label) == pytest.approx(
            accuracy(scores[present], label[present]) * 2 / 3
        )


def test_one_clip_a_class_uses_the_default_penalty():
    train = 3 * torch.eye(4)
    result = linear_probe(train, torch.arange(4), train, num_classes=4)
    assert result.l2 == DEFAULT_L2
    assert accuracy(result.scores_MC, torch.arange(4)) == 1


def test_one_recording_a_class_uses_the_default_penalty():
    train, label = _clusters(num_clips=30, width=8, num_classes=3)
    result = linear_probe(train, label, train, num_classes=3, group_N=label)
    assert result.l2 == DEFAULT_L2


def test_a_class_with_one_clip_among_others_is_learned_too():
    train, label = _clusters(num_clips=61, width=8, num_classes=3)
    label = torch.cat((label[:-1], torch.tensor([3])))
    result = linear_probe(train, label, train, num_classes=4)
    assert result.l2 in L2_PATH
    assert (result.scores_MC[:, 3] > 0).all()


def test_folds_are_stratified_and_keep_groups_whole():
    label = np.repeat(np.arange(5), 24)
    group = np.arange(120) // 3  # eight recordings of three clips a class
    fold = deal_folds(label, group, 0)
    for name in np.unique(group):
        assert len(np.unique(fold[group == name])) == 1
    counts = np.array([[((fold == k) & (label == c)).sum() for c in range(5)] for k in range(4)])
    assert (counts == 6).all()
    assert (deal_folds(label, group, 0) == fold).all()
    assert (deal_folds(label, group, 1) != fold).any()


def test_folds_stay_even_with_uneven_groups():
    rng = numpy_stream(0, "sizes")
    group = np.repeat(np.arange(60), rng.integers(1, 9, 60))
    label = group % 4
    fold = deal_folds(label, group, 0)
    sizes = np.bincount(fold, minlength=4)
    assert sizes.max() - sizes.min() <= 9
    for c in range(4):
        counts = np.bincount(fold[label == c], minlength=4)
        assert counts.max() - counts.min() <= 8


def test_groups_keep_recordings_from_vouching_for_themselves():
    """Clips that repeat their recording make any fit look good, unless they are held together."""
    label = (torch.arange(20) % 2).repeat_interleave(6)
    recording = torch.randn(20, 60, generator=stream(0, "recordings")).repeat_interleave(6, dim=0)
    group = [f"recording-{index}" for index in torch.arange(20).repeat_interleave(6).tolist()]
    naive = linear_probe(recording, label, recording, num_classes=2)
    honest = linear_probe(recording, label, recording, num_classes=2, group_N=group)
    assert honest.l2 > 10 * naive.l2


@pytest.mark.parametrize(
    ("num_clips", "width", "limit_s"),
    [(240, 96, 1.0), pytest.param(2000, 192, 10.0, marks=pytest.mark.slow)],
)
def test_the_whole_path_is_fast_enough_for_every_epoch(num_clips, width, limit_s):
    """An idle core needs less than half of the limit; the rest is for a busy one."""
    train, label = _clusters(num_clips=num_clips, width=width, num_classes=10)
    start = time.thread_time()
    linear_probe(train, label, train, num_classes=10)
    assert time.thread_time() - start < limit_s


def test_knn_equals_its_loop():
    train, label = _clusters(num_clips=40, width=8, num_classes=3)
    test, _ = _clusters(num_clips=10, width=8, num_classes=3, seed=1)
    scores = knn(train, label, test, num_classes=3, k=7, temperature=0.1)
    for m, row in enumerate(test.double()):
        neighbours = []
        for n, other in enumerate(train.double()):
            dot = sum(float(a) * float(b) for a, b in zip(row, other, strict=True))
            norms = math.sqrt(float(row @ row)) * math.sqrt(float(other @ other))
            neighbours.append((dot / norms, int(label[n])))
        votes = [0.0, 0.0, 0.0]
        for similarity, name in sorted(neighbours, reverse=True)[:7]:
            votes[name] += math.exp(similarity / 0.1)
        expected = [vote / sum(votes) for vote in votes]
        assert scores[m].tolist() == pytest.approx(expected, abs=1e-9)


def test_knn_with_one_neighbour_finds_itself_at_any_scale():
    train, label = _clusters(num_clips=40, width=8, num_classes=4)
    scores = knn(train, label, 100 * train, num_classes=4, k=1, temperature=1e-4)
    assert accuracy(scores, label) == 1


def test_knn_is_the_same_in_pieces():
    train, label = _clusters(num_clips=50, width=8, num_classes=4)
    test = train.repeat(50, 1)
    scores = knn(train, label, test, num_classes=4)
    torch.testing.assert_close(scores, knn(train, label, train, num_classes=4).repeat(50, 1))


def test_knn_of_a_zero_vector_is_finite():
    train, label = _clusters(num_clips=40, width=8, num_classes=4)
    scores = knn(train, label, torch.zeros(1, 8), num_classes=4)
    torch.testing.assert_close(scores.sum(), torch.tensor(1.0).double())


@pytest.mark.parametrize("probe", [knn, linear_probe])
def test_probes_refuse_what_does_not_fit(probe):
    train, label = _clusters(num_clips=20, width=4, num_classes=2)
    broken = train.clone()
    broken[3, 1] = math.nan
    broken[7, 0] = math.inf
    with pytest.raises(ValueError, match=r"train_ND must be finite, but 2 of 20 rows.*row 3"):
        probe(broken, label, train, num_classes=2)
    with pytest.raises(ValueError, match=r"test_MD must be finite"):
        probe(train, label, broken, num_classes=2)
    with pytest.raises(ValueError, match=r"train_label must be in \[0, 1\)"):
        probe(train, label, train, num_classes=1)
    with pytest.raises(ValueError, match=r"in \[0, 2\), but got labels from -1"):
        probe(train, label - 1, train, num_classes=2)
    with pytest.raises(ValueError, match="one class a clip must be integer"):
        probe(train, label.float(), train, num_classes=2)
    with pytest.raises(ValueError, match=r"for each of N >= 1 clips, but got \(5,\) for 20"):
        probe(train, label[:5], train, num_classes=2)
    with pytest.raises(ValueError, match="for each of N >= 1 clips"):
        probe(train[:0], label[:0], train, num_classes=2)
    with pytest.raises(ValueError, match="train_ND and test_MD"):
        probe(train, label, train[:, :3], num_classes=2)


def test_linear_probe_needs_two_classes_and_one_group_a_clip():
    train, label = _clusters(num_clips=20, width=4, num_classes=2)
    with pytest.raises(ValueError, match="at least two classes, but got only label 1"):
        linear_probe(train, torch.ones(20, dtype=torch.int64), train, num_classes=2)
    with pytest.raises(ValueError, match="group_N must hold 20 groups, but got 3"):
        linear_probe(train, label, train, num_classes=2, group_N=[1, 2, 3])


def test_knn_needs_enough_neighbours():
    train, label = _clusters(num_clips=8, width=4, num_classes=2)
    for k in (0, 9):
        with pytest.raises(ValueError, match=r"k must be in \[1, 8\]"):
            knn(train, label, train, num_classes=2, k=k)
    with pytest.raises(ValueError, match="temperature must be > 0"):
        knn(train, label, train, num_classes=2, k=3, temperature=0.0)


def test_probes_of_no_test_clip_are_empty():
    train, label = _clusters(num_clips=20, width=4, num_classes=2)
    assert knn(train, label, train[:0], num_classes=2).shape == (0, 2)
    assert linear_probe(train, label, train[:0], num_classes=2).scores_MC.shape == (0, 2)


def test_accuracy_counts_and_refuses():
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    assert accuracy(scores, torch.tensor([0, 0, 0])) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="must not hold NaN"):
        accuracy(scores * math.nan, torch.tensor([0, 0, 0]))
    with pytest.raises(ValueError, match="M >= 1"):
        accuracy(scores[:0], torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"label_M \(M,\)"):
        accuracy(scores, torch.tensor([0, 0]))


def test_log_mel_statistics_equal_their_loop_and_ignore_padding():
    log_mel = 3 * torch.randn(3, 12, 5, generator=stream(0, "log_mel")) - 8
    num_frames = torch.tensor([12, 7, 1])
    log_mel[1, 7:] = -15.9
    log_mel[2, 1:] = 100.0
    found = log_mel_statistics(log_mel, num_frames)
    assert found.shape == (3, 10)
    assert found.dtype == torch.float32
    for row, count in enumerate(num_frames.tolist()):
        for f in range(5):
            values = log_mel[row, :count, f].tolist()
            mean = sum(values) / count
            std = math.sqrt(sum((value - mean) ** 2 for value in values) / count)
            assert float(found[row, f]) == pytest.approx(mean, rel=1e-5)
            assert float(found[row, 5 + f]) == pytest.approx(std, rel=1e-4, abs=1e-6)


def test_log_mel_statistics_take_the_shards_half_floats():
    log_mel = torch.full((1, 3000, 2), -15.94, dtype=torch.float16)
    found = log_mel_statistics(log_mel, torch.tensor([3000]))
    torch.testing.assert_close(found, torch.tensor([[-15.94, -15.94, 0, 0]]), rtol=0, atol=1e-2)


def test_log_mel_statistics_refuse_counts_that_do_not_fit():
    for count in (0, 5):
        with pytest.raises(ValueError, match=r"num_frames_B must be in \[1, 4\]"):
            log_mel_statistics(torch.zeros(1, 4, 2), torch.tensor([count]))
    with pytest.raises(ValueError, match="log_mel_BTF must be"):
        log_mel_statistics(torch.zeros(4, 2), torch.tensor([4]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "mlp"}, "kind must be one of linear, knn, but got 'mlp'"),
        ({"features": "max"}, "features must be one of mean, cls, both, but got 'max'"),
        ({"k": 0}, "k must be >= 1, but got 0"),
        ({"every_epochs": 0}, "every_epochs must be >= 1, but got 0"),
    ],
)
def test_config_names_the_field_that_makes_no_sense(fields, message):
    with pytest.raises(ValueError, match=message):
        ProbeConfig(**fields)
