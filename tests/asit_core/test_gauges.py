import math

import pytest
import torch

from asit_core.gauges import (
    center_norm,
    collapse_reason,
    distillation_gauges,
    effective_rank,
    embedding_std,
    kl,
    marginal_entropy,
    prototype_use,
    student_entropy,
    teacher_entropy,
)
from asit_core.losses import cross_entropy
from asit_core.seeding import stream


def _probs(*, rows: int = 40, num_prototypes: int = 12, temperature: float = 0.5) -> torch.Tensor:
    logits = torch.randn(rows, num_prototypes, generator=stream(0, "logits"))
    return torch.softmax(logits / temperature, dim=-1)


def _features(*, rows: int = 64, width: int = 24) -> torch.Tensor:
    return torch.randn(rows, width, generator=stream(0, "features"))


def _judge(probs: torch.Tensor, features: torch.Tensor) -> str | None:
    return collapse_reason(
        embedding_std=float(embedding_std(features)),
        effective_rank=float(effective_rank(features)),
        embed_dim=features.shape[1],
        num_clips=len(features),
        teacher_entropy=float(teacher_entropy(probs)),
        marginal_entropy=float(marginal_entropy(probs)),
        num_prototypes=probs.shape[-1],
    )


def test_entropies_equal_their_loops():
    probs = _probs()
    rows = probs.tolist()
    by_row = [-sum(p * math.log(p) for p in row) for row in rows]
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    assert float(teacher_entropy(probs)) == pytest.approx(sum(by_row) / len(rows), rel=1e-5)
    of_mean = -sum(p * math.log(p) for p in mean)
    assert float(marginal_entropy(probs)) == pytest.approx(of_mean, rel=1e-5)
    assert marginal_entropy(probs) >= teacher_entropy(probs)


def test_kl_equals_its_loop_and_completes_the_cross_entropy():
    teacher, student = _probs(temperature=0.3), _probs(temperature=1.0).flip(0)
    total = cross_entropy = 0.0
    for t_row, s_row in zip(teacher.tolist(), student.tolist(), strict=True):
        total += sum(t * (math.log(t) - math.log(s)) for t, s in zip(t_row, s_row, strict=True))
        cross_entropy -= sum(t * math.log(s) for t, s in zip(t_row, s_row, strict=True))
    assert float(kl(teacher, student)) == pytest.approx(total / len(teacher), rel=1e-5)
    parts = float(teacher_entropy(teacher) + kl(teacher, student))
    assert parts == pytest.approx(cross_entropy / len(teacher), rel=1e-5)
    assert float(kl(teacher, teacher)) == pytest.approx(0, abs=1e-6)


def test_one_hot_rows_are_exact_and_finite():
    one_hot = torch.eye(5)
    assert float(teacher_entropy(one_hot)) == 0
    assert float(marginal_entropy(one_hot)) == pytest.approx(math.log(5))
    assert float(prototype_use(one_hot)) == 1
    assert math.isfinite(float(kl(one_hot, one_hot.flip(0))))
    assert float(kl(one_hot, one_hot.flip(0))) > 50


def test_leading_axes_are_rows():
    probs = _probs(rows=40)
    tokens = probs.reshape(5, 8, 12)
    for gauge in (teacher_entropy, marginal_entropy, prototype_use):
        torch.testing.assert_close(gauge(tokens), gauge(probs))


def test_prototype_use_counts_winners():
    probs = torch.tensor([[0.7, 0.2, 0.1, 0.0], [0.6, 0.3, 0.1, 0.0], [0.1, 0.1, 0.8, 0.0]])
    assert float(prototype_use(probs)) == 0.5


def test_embedding_std_equals_its_loop_and_ignores_scale():
    features = _features()
    unit = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in features.tolist()]
    deviations = []
    for column in zip(*unit, strict=True):
        mean = sum(column) / len(column)
        deviations.append(math.sqrt(sum((x - mean) ** 2 for x in column) / len(column)))
    expected = sum(deviations) / len(deviations)
    assert float(embedding_std(features)) == pytest.approx(expected, rel=1e-5)
    assert float(embedding_std(1000 * features)) == pytest.approx(expected, rel=1e-5)
    assert expected == pytest.approx(1 / math.sqrt(24), rel=0.1)


def test_effective_rank_counts_equal_directions():
    rotation = torch.linalg.qr(_features(rows=24))[0]
    for rank in (1, 2, 5, 24):
        assert float(effective_rank(rotation[:rank].repeat(3, 1))) == pytest.approx(rank, rel=1e-3)


def test_effective_rank_equals_its_formula():
    features = _features()
    gram = features.double().T @ features.double()
    singular_values = [math.sqrt(value) for value in torch.linalg.eigvalsh(gram).tolist()]
    shares = [value / sum(singular_values) for value in singular_values]
    expected = math.exp(-sum(share * math.log(share) for share in shares))
    assert float(effective_rank(features)) == pytest.approx(expected, rel=1e-4)


def test_a_healthy_model_has_not_collapsed():
    assert _judge(_probs(), _features()) is None


def test_a_sharp_teacher_that_uses_all_prototypes_is_healthy():
    assert _judge(torch.eye(12).repeat(4, 1), _features()) is None


def test_an_untrained_narrow_cone_is_not_yet_a_collapse():
    """A fresh encoder's clip vectors lie close together (cosine 0.99), but they differ."""
    features = 10 * torch.ones(1, 24) + _features()
    cosine = torch.nn.functional.cosine_similarity(features[0], features[1], dim=0)
    assert cosine > 0.98
    assert _judge(_probs(), features) is None


def test_names_uniform_collapse():
    centred = torch.softmax(1e-3 * _features(width=8192) / 0.04, dim=-1)
    reason = _judge(centred, _features())
    assert reason is not None
    assert reason.startswith("uniform collapse: teacher entropy 9.011 is ln K = 9.011")


def test_names_peaked_collapse():
    probs = torch.full((40, 12), 1e-5)
    probs[:, 3] = 1 - 11e-5
    reason = _judge(probs, _features())
    assert reason is not None
    assert reason.startswith("peaked collapse: entropy of the average target is 0.00")


def test_names_dimensional_collapse_of_the_deviation():
    reason = _judge(_probs(), torch.ones(1, 24) + 1e-4 * _features())
    assert reason is not None
    assert reason.startswith("dimensional collapse: embedding std")


def test_names_dimensional_collapse_of_the_rank():
    line = _features(rows=64, width=1) * _features(rows=1, width=24)
    reason = _judge(_probs(), line)
    assert reason == "dimensional collapse: effective rank 1.00 of at most 24 is below 2.0"


@pytest.mark.parametrize("num_clips", [2, 6, 100])
def test_few_clips_of_a_wide_encoder_have_not_collapsed(num_clips):
    """At D = 768 one percent is 7.7 dimensions, which 6 clips cannot reach."""
    assert _judge(_probs(), _features(rows=num_clips, width=768)) is None


def test_the_rank_is_judged_by_what_its_clips_allow():
    plane = _features(rows=400, width=2) @ _features(rows=2, width=768)
    gauges = {
        "embedding_std": float(embedding_std(plane)),
        "effective_rank": float(effective_rank(plane)),
        "embed_dim": 768,
    }
    message = "dimensional collapse: effective rank {:.2f} of at most {} is below {}"
    rank = gauges["effective_rank"]
    assert collapse_reason(**gauges, num_clips=400) == message.format(rank, 400, "4.0")
    assert collapse_reason(**gauges) == message.format(rank, 768, "7.7")
    few = _features(rows=6, width=1) @ _features(rows=1, width=768)
    reason = _judge(_probs(), few)
    assert reason == "dimensional collapse: effective rank 1.00 of at most 6 is below 2.0"


def test_names_what_is_not_finite():
    features = _features()
    features[3, 4] = math.nan
    assert _judge(_probs(), features) == "not finite: embedding std is nan"
    probs = _probs()
    probs[0] = math.nan
    assert _judge(probs, _features()) == "not finite: teacher entropy is nan"


def test_without_distillation_only_the_features_are_judged():
    healthy = {"embedding_std": 0.2, "effective_rank": 20.0, "embed_dim": 24}
    assert collapse_reason(**healthy) is None
    with pytest.raises(ValueError, match="must be given together"):
        collapse_reason(**healthy, teacher_entropy=1.0)


def test_gauges_build_no_graph():
    features = _features().requires_grad_()
    assert not embedding_std(features).requires_grad
    assert not effective_rank(features).requires_grad


@pytest.mark.parametrize("gauge", [teacher_entropy, marginal_entropy, prototype_use])
def test_refuses_logits(gauge):
    with pytest.raises(ValueError, match="probs must be probabilities, not logits"):
        gauge(torch.randn(4, 8, generator=stream(0, "logits")))
    with pytest.raises(ValueError, match="K >= 2"):
        gauge(torch.ones(4, 1))


def test_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="must have the same shape"):
        kl(_probs(rows=3), _probs(rows=4))
    for gauge in (embedding_std, effective_rank):
        with pytest.raises(ValueError, match="N >= 2"):
            gauge(torch.ones(1, 8))


def _slow_entropy(logits: torch.Tensor, temperature: float) -> float:
    """Mean entropy of softmax rows, in Python's floats."""
    total = 0.0
    for row in logits.tolist():
        exponentials = [math.exp((x - max(row)) / temperature) for x in row]
        shares = [value / sum(exponentials) for value in exponentials]
        total -= sum(p * math.log(p) for p in shares if p > 0)
    return total / len(logits)


def test_entropy_of_the_student_equals_its_loop():
    logits = torch.randn(20, 12, generator=stream(0, "student"))
    found = float(student_entropy(logits, temperature=0.4))
    assert found == pytest.approx(_slow_entropy(logits, 0.4), rel=1e-5)
    assert float(student_entropy(logits.view(4, 5, 12), temperature=0.4)) == pytest.approx(found)


def test_center_norm_equals_its_loop():
    center = torch.randn(30, generator=stream(0, "center"))
    expected = math.sqrt(sum(x * x for x in center.tolist()))
    assert float(center_norm(center)) == pytest.approx(expected, rel=1e-6)


def test_gauges_of_bf16_logits_are_computed_in_fp32():
    """H1: a bf16 softmax or centre would lose the digits that tell a collapse."""
    logits = torch.randn(3, 1024, generator=stream(0, "wide")).bfloat16()
    center = 3 + torch.randn(1024, generator=stream(0, "center"))
    with torch.autocast("cpu", torch.bfloat16):
        found = distillation_gauges(
            logits, logits, center, student_temperature=0.1, teacher_temperature=0.04
        )
    assert {value.dtype for value in found.values()} == {torch.float32}
    expected = {
        "student_entropy": _slow_entropy(logits, 0.1),
        "teacher_entropy": _slow_entropy(logits.double() - center.double(), 0.04),
        "center_norm": math.sqrt(sum(x * x for x in center.tolist())),
    }
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-5)
    in_bf16 = torch.softmax((logits - center.bfloat16()) / 0.04, dim=-1)
    assert in_bf16.dtype == torch.bfloat16
    assert abs(float(teacher_entropy(in_bf16)) - expected["teacher_entropy"]) > 1e-3


def test_gauges_of_a_task_are_those_of_its_probabilities():
    student, teacher = torch.randn(2, 6, 5, 12, generator=stream(0, "both"))
    center = torch.linspace(-1, 1, 12)
    found = distillation_gauges(
        student, teacher, center, student_temperature=0.1, teacher_temperature=0.07
    )
    assert found.keys() == {
        "teacher_entropy",
        "marginal_entropy",
        "student_entropy",
        "kl",
        "prototype_use",
        "center_norm",
    }
    probs = torch.softmax((teacher - center) / 0.07, dim=-1)
    torch.testing.assert_close(found["teacher_entropy"], teacher_entropy(probs))
    torch.testing.assert_close(found["marginal_entropy"], marginal_entropy(probs))
    torch.testing.assert_close(found["prototype_use"], prototype_use(probs))
    torch.testing.assert_close(
        found["student_entropy"], teacher_entropy(torch.softmax(student / 0.1, dim=-1))
    )
    torch.testing.assert_close(found["kl"], kl(probs, torch.softmax(student / 0.1, dim=-1)))
    total = cross_entropy(
        student, teacher, center, student_temperature=0.1, teacher_temperature=0.07
    )
    torch.testing.assert_close(found["kl"] + found["teacher_entropy"], total)


def test_the_divergence_is_never_negative_and_exact_where_a_softmax_underflows():
    logits = 3 * torch.randn(40, 64, generator=stream(0, "same"))
    settings = {"student_temperature": 0.1, "teacher_temperature": 0.1}
    same = distillation_gauges(logits, logits, torch.zeros(64), **settings)["kl"]
    assert 0.0 <= float(same) < 1e-5
    student, teacher = torch.tensor([[40.0, 0.0]]), torch.tensor([[0.0, 40.0]])
    apart = distillation_gauges(student, teacher, torch.zeros(2), **settings)["kl"]
    assert float(apart) == pytest.approx(400.0)


_HEALTHY = {
    "embedding_std": 0.2,
    "effective_rank": 20.0,
    "embed_dim": 24,
    "teacher_entropy": 2.0,
    "marginal_entropy": 6.0,
    "num_prototypes": 8192,
}


def test_names_a_loss_that_is_stuck_at_ln_k():
    """H1: 9.011 for 8192 prototypes."""
    reason = collapse_reason(**_HEALTHY, loss=9.0109)
    assert reason is not None
    assert reason.startswith("uniform collapse: loss 9.0109 is ln K = 9.0109")
    assert collapse_reason(**_HEALTHY, loss=8.9) is None
    assert collapse_reason(**_HEALTHY, loss=9.2) is None


def test_names_a_student_that_tells_nothing_apart():
    logits = 1e-3 * torch.randn(40, 8192, generator=stream(0, "flat"))
    entropy = float(student_entropy(logits, temperature=0.1))
    reason = collapse_reason(**_HEALTHY, student_entropy=entropy, loss=9.02)
    assert reason is not None
    assert reason.startswith("uniform collapse: student entropy 9.011 is ln K = 9.011 (loss 9.020)")


def test_a_loss_that_falls_through_ln_k_has_not_collapsed():
    assert collapse_reason(**_HEALTHY, student_entropy=8.5, loss=math.log(8192)) is None


def test_names_a_student_that_is_not_finite():
    assert collapse_reason(**_HEALTHY, student_entropy=math.nan) == (
        "not finite: student entropy is nan"
    )
    assert collapse_reason(**_HEALTHY, loss=math.inf) == "not finite: loss is inf"


def test_refuses_logits_centres_and_temperatures_that_do_not_fit():
    logits = torch.zeros(4, 8)
    temperatures = {"student_temperature": 0.1, "teacher_temperature": 0.04}
    with pytest.raises(ValueError, match="same K, but got 8, 8 and 7"):
        distillation_gauges(logits, logits, torch.zeros(7), **temperatures)
    with pytest.raises(ValueError, match=r"the same rows, but got \(4, 8\) and \(3, 8\)"):
        distillation_gauges(logits, logits[:3], torch.zeros(8), **temperatures)
    with pytest.raises(ValueError, match=r"teacher_temperature must be > 0, but got 0\.0"):
        distillation_gauges(
            logits, logits, torch.zeros(8), student_temperature=0.1, teacher_temperature=0.0
        )
    with pytest.raises(ValueError, match="temperature must be > 0, but got -1"):
        student_entropy(logits, temperature=-1)
    with pytest.raises(ValueError, match=r"student_logits must be \(..., K\)"):
        student_entropy(logits[:0], temperature=0.1)
    with pytest.raises(ValueError, match=r"center_K must be \(K,\)"):
        center_norm(logits)
    healthy = {name: _HEALTHY[name] for name in ("embedding_std", "effective_rank", "embed_dim")}
    with pytest.raises(ValueError, match="with student_entropy or loss"):
        collapse_reason(**healthy, loss=1.0)
