import ast
import math
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import asit_core
from asit_core.metrics import average_precision, d_prime, log_loss, measure, roc_auc
from asit_core.protocol import Protocol
from asit_core.seeding import stream


def _scored(*, num_clips: int = 40, num_classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of one decimal, so that many are tied, and labels they have something to say about."""
    generator = stream(0, "scores")
    scores = (10 * torch.rand(num_clips, num_classes, generator=generator)).round() / 10
    return scores, scores + torch.rand(num_clips, num_classes, generator=generator) > 1.1


def _slow_average_precision(scores: list[float], labels: list[bool]) -> float:
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = [label for score, label in zip(scores, labels, strict=True) if score >= threshold]
        recall = sum(chosen) / sum(labels)
        total += (recall - recall_before) * sum(chosen) / len(chosen)
        recall_before = recall
    return total


def _slow_auc(scores: list[float], labels: list[bool]) -> float:
    pairs = [
        1.0 if positive > negative else 0.5 if positive == negative else 0.0
        for positive, is_positive in zip(scores, labels, strict=True)
        for negative, is_negative in zip(scores, labels, strict=True)
        if is_positive and not is_negative
    ]
    return sum(pairs) / len(pairs)


def _normal_cdf(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


@pytest.mark.parametrize(
    ("metric", "slow"), [(average_precision, _slow_average_precision), (roc_auc, _slow_auc)]
)
def test_metrics_equal_their_loops(metric, slow):
    scores, labels = _scored()
    result = metric(scores, labels)
    expected = [slow(scores[:, c].tolist(), labels[:, c].tolist()) for c in range(5)]
    assert result.by_class_C.tolist() == pytest.approx(expected, abs=1e-12)
    assert result.mean == pytest.approx(sum(expected) / 5, abs=1e-12)
    assert result.left_out == ()


@pytest.mark.parametrize("metric", [average_precision, roc_auc])
def test_absent_classes_are_left_out_counted_and_said(metric):
    """H16: no NaN and no zero enters the mean."""
    scores, labels = _scored()
    whole = metric(scores, labels)
    labels = labels.clone()
    labels[:, [1, 3]] = False
    result = metric(scores, labels)
    assert result.left_out == (1, 3)
    assert result.by_class_C.isnan().nonzero()[:, 0].tolist() == [1, 3]
    assert result.mean == pytest.approx(float(whole.by_class_C[[0, 2, 4]].mean()), abs=1e-12)
    assert str(result) == f"{result.mean:.4f} over 3 of 5 classes (left out: 1, 3)"


def test_a_class_of_every_clip_has_a_precision_and_no_auc():
    scores, labels = _scored()
    labels = labels.clone()
    labels[:, 0] = True
    assert float(average_precision(scores, labels).by_class_C[0]) == pytest.approx(1)
    assert roc_auc(scores, labels).left_out == (0,)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), num_clips=st.integers(2, 12))
def test_only_the_ranking_counts(seed, num_clips):
    """H16: one sigmoid, or none, gives the same figures."""
    generator = stream(seed, "ranking")
    logits = torch.randn(num_clips, 2, generator=generator, dtype=torch.float64)
    labels = torch.rand(num_clips, 2, generator=generator) > 0.5
    assume((labels.any(dim=0) & ~labels.all(dim=0)).any())
    order = torch.randperm(num_clips, generator=generator)
    for metric in (average_precision, roc_auc):
        plain = metric(logits, labels)
        moved = metric(torch.sigmoid(logits)[order], labels[order])
        torch.testing.assert_close(plain.by_class_C, moved.by_class_C, equal_nan=True)
        assert 0 <= plain.mean <= 1
    mirrored = roc_auc(-logits, labels)
    assert mirrored.mean == pytest.approx(1 - roc_auc(logits, labels).mean)


@pytest.mark.parametrize("z", [-2.0, -0.3, 0.0, 0.7, 1.5])
def test_d_prime_undoes_the_normal_distribution(z):
    assert d_prime(_normal_cdf(z)) == pytest.approx(math.sqrt(2) * z, abs=1e-9)


def test_d_prime_at_its_ends():
    assert d_prime(1.0) == math.inf
    assert d_prime(0.0) == -math.inf
    for auc in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"auc must be in \[0, 1\], but got"):
            d_prime(auc)


def test_log_loss_equals_its_loop_and_tells_good_from_bad():
    """H16: a second sigmoid holds the loss of a perfect model at about 0.5."""
    scores, labels = _scored()
    scores = scores.clamp(0.05, 0.95)
    expected = [
        -math.log(p if truth else 1 - p)
        for row, truths in zip(scores.tolist(), labels.tolist(), strict=True)
        for p, truth in zip(row, truths, strict=True)
    ]
    assert log_loss(scores, labels) == pytest.approx(sum(expected) / len(expected), rel=1e-6)
    assert log_loss(labels.double(), labels) == 0
    assert log_loss((~labels).double(), labels) == math.inf
    assert log_loss(torch.sigmoid(labels.double()), labels) > 0.3
    with pytest.raises(ValueError, match=r"apply the sigmoid, once.*from -3 to 0.95"):
        log_loss(torch.where(scores > 0.5, scores, -3.0), labels)


def _protocol(metric: str, **changes: object) -> Protocol:
    fields = {
        "dataset": "audioset",
        "split_hash": "0123",
        "num_clips": 40,
        "num_classes": 5,
        "encoder": "frozen",
        "readout": "linear",
        "metric": metric,
    }
    return Protocol(**(fields | changes))  # pyright: ignore[reportArgumentType]


def test_a_measurement_is_what_its_protocol_names():
    scores, labels = _scored()
    labels = labels.clone()
    labels[:, 2] = False
    auc = roc_auc(scores, labels).mean
    expected = {"mAP": average_precision(scores, labels).mean, "AUC": auc, "d-prime": d_prime(auc)}
    for metric, value in expected.items():
        measurement = measure(scores, labels, _protocol(metric))
        assert measurement.value == value
        assert measurement.left_out == (2,)
    assert str(measure(scores, labels, _protocol("AUC"))).endswith("5 classes (1 left out)")
    right = measure(scores, scores.argmax(dim=1), _protocol("accuracy"))
    assert right.value == 1
    assert right.left_out == ()


@pytest.mark.parametrize("name", ["num_clips", "num_classes"])
def test_a_protocol_must_count_what_is_scored(name):
    scores, labels = _scored()
    with pytest.raises(ValueError, match=f"{name} of the protocol must be .*but got 7"):
        measure(scores, labels, _protocol("mAP", **{name: 7}))


@pytest.mark.parametrize("metric", [average_precision, roc_auc, log_loss])
def test_refuses_what_cannot_be_scored(metric):
    scores, labels = _scored()
    with pytest.raises(ValueError, match=r"must be \(M, C\).*\(40, 5\) and \(40, 4\)"):
        metric(scores, labels[:, :4])
    with pytest.raises(ValueError, match=r"label_MC must be boolean, but got torch\.int64"):
        metric(scores, labels.long())
    with pytest.raises(ValueError, match="scores must be finite"):
        metric(scores * math.nan, labels)


@pytest.mark.parametrize("metric", [average_precision, roc_auc])
def test_refuses_labels_without_a_class_to_score(metric):
    scores, labels = _scored()
    with pytest.raises(ValueError, match="at least one of 5 classes be scored"):
        metric(scores, torch.zeros_like(labels))


def test_scikit_learn_is_imported_here_alone_and_this_module_by_none():
    root = Path(str(asit_core.__file__)).parent
    importers = {}
    for path in root.rglob("*.py"):
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        importers[path.relative_to(root).as_posix()] = names
    assert [
        p for p, names in importers.items() if any(n.split(".")[0] == "sklearn" for n in names)
    ] == ["metrics.py"]
    assert not [path for path, names in importers.items() if "asit_core.metrics" in names]
