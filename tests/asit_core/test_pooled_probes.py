"""The layer-weighted and the attentive probe, and the regression on a pool that both are."""

import math
import time

import numpy as np
import pytest
import torch

from asit_core.logistic_regression import LogisticRegression, Standardiser
from asit_core.probe import accuracy, attentive_probe, layer_probe, linear_probe
from asit_core.probe.layers import LayerPool
from asit_core.probe.pooled import PooledRegression
from asit_core.probe.token_pool import TokenPool
from asit_core.seeding import stream


def _layers(
    *, num_clips: int, num_layers: int = 4, informative: int = 2, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """One layer that tells three classes apart, among larger ones that do not."""
    label = torch.arange(num_clips) % 3
    layers = 10 * torch.randn(num_clips, num_layers, 6, generator=stream(seed, "layers"))
    centers = 2 * torch.randn(3, 6, generator=stream(0, "centers"))
    layers[:, informative] = 0.1 * (centers[label] + layers[:, informative] / 10)
    return layers, label


def _needles(
    *, num_clips: int, num_tokens: int = 10, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """A clip's class is written on one flagged token; loud tokens drown it in the mean."""
    generator = stream(seed, "needles")
    label = torch.arange(num_clips) % 3
    tokens = 2 * torch.randn(num_clips, num_tokens, 8, generator=generator)
    tokens[:, :, 0] = 0.1 * tokens[:, :, 0]
    place = torch.randint(num_tokens, (num_clips,), generator=generator)
    clip = torch.arange(num_clips)
    tokens[clip, place, 0] = 3.0
    tokens[clip, place, 4:7] = 4 * torch.eye(3)[label]
    return tokens, label


def _slow_attention(
    tokens: torch.Tensor, query: torch.Tensor, valid: torch.Tensor
) -> list[list[float]]:
    """Vectors of tokens already standardised, written out."""
    num_queries, width = query.shape
    block = width // num_queries
    vectors = []
    for clip, is_valid in zip(tokens.tolist(), valid.tolist(), strict=True):
        heard = [token for token, kept in zip(clip, is_valid, strict=True) if kept]
        vector = []
        for head, row in enumerate(query.tolist()):
            logits = [sum(q * x for q, x in zip(row, token, strict=True)) for token in heard]
            total = sum(math.exp(logit) for logit in logits)
            for feature in range(head * block, (head + 1) * block):
                shares = [math.exp(logit) / total for logit in logits]
                vector.append(
                    sum(share * token[feature] for share, token in zip(shares, heard, strict=True))
                )
        vectors.append(vector)
    return vectors


def _padded(*, num_clips: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = 3 * torch.randn(num_clips, 5, 4, generator=stream(0, "padded")).double() + 7
    valid = torch.ones(num_clips, 5, dtype=torch.bool)
    valid[0, 3:] = valid[2, :2] = False
    return tokens, valid


def test_queries_weigh_valid_tokens_as_written_out():
    tokens, valid = _padded()
    pool = TokenPool(tokens, valid, num_queries=2).of_clips(torch.arange(6))
    query = torch.randn(2, 4, generator=stream(0, "query"), dtype=torch.float64)
    heard = tokens[valid].double()
    mean, std = heard.mean(dim=0), heard.std(dim=0, correction=0)
    unit = (tokens.double() - mean) / std
    means = np.array(_slow_attention(unit, torch.zeros(2, 4), valid))
    gain = 1 / math.sqrt((means**2).mean())
    expected = gain * np.array(_slow_attention(unit, query, valid))
    found = pool(query.flatten(), torch.arange(6))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-10)


def test_layers_are_averaged_as_written_out():
    layers, _ = _layers(num_clips=8)
    layers = layers.double()
    weight = torch.tensor([0.3, -1.0, 2.0, 0.0], dtype=torch.float64)
    pool = LayerPool(layers, Standardiser.fit(layers)).of_clips(torch.arange(8))
    total = sum(math.exp(value) for value in weight.tolist())
    expected = np.zeros((8, 6))
    for index, value in enumerate(weight.tolist()):
        values = layers[:, index].numpy()
        unit = (values - values.mean(axis=0)) / values.std(axis=0)
        expected += math.exp(value) / total * unit
    np.testing.assert_allclose(pool(weight, torch.arange(8)).numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("several", [False, True])
def test_value_and_gradient_are_those_of_the_equation(several, monkeypatch):
    """In chunks of two clips, so that their sum is tested too."""
    monkeypatch.setattr("asit_core.probe.pooled._MAX_ELEMENTS", 2 * 5 * 4)
    tokens, valid = _padded()
    label = torch.tensor([0, 1, 2, 0, 1, 1])
    if several:
        label = torch.eye(3).bool()[label] | torch.eye(3).bool()[label.flip(0)]
    model = PooledRegression(
        TokenPool(tokens, valid, num_queries=2), label, torch.arange(6), max_steps=1
    )
    weight = torch.randn(8 + 5 * 3, generator=stream(0, "weight"), dtype=torch.float64)
    value, gradient = model.objective(weight, 0.3)
    vectors = model.pool(weight[:8], torch.arange(6))
    # the penalty is the same in any basis: here the features' own
    classifier = weight[8:].view(5, 3)
    logits = (model._rotate(vectors) @ classifier).tolist()
    expected = 0.15 * sum(entry**2 for entry in weight[:-3].tolist())
    for row, target in zip(logits, label.tolist(), strict=True):
        if several:
            for logit, truth in zip(row, target, strict=True):
                probability = 1 / (1 + math.exp(-logit))
                expected -= math.log(probability if truth else 1 - probability) / 6
        else:
            expected -= math.log(math.exp(row[target]) / sum(math.exp(x) for x in row)) / 6
    assert value == pytest.approx(expected, rel=1e-12)
    for index in range(len(weight)):
        step = torch.zeros_like(weight)
        step[index] = 1e-6
        rise = model.objective(weight + step, 0.3)[0] - model.objective(weight - step, 0.3)[0]
        assert rise / 2e-6 == pytest.approx(float(gradient[index]), abs=1e-8)


def test_equal_tokens_make_the_attentive_probe_a_linear_one():
    """Where attention has nothing to choose, the fit is that of the vectors themselves."""
    vectors, label = _layers(num_clips=60)
    vectors = vectors[:, 2]
    tokens = vectors[:, None].expand(-1, 3, -1)
    attentive = attentive_probe(tokens, label, tokens, num_classes=3, num_queries=2)
    model = LogisticRegression(vectors.double(), label)
    linear = model.logits(model.solve(attentive.l2), vectors.double()).softmax(dim=1)
    # gradients of 1e-4 leave weights and with them probabilities this far from the optimum
    torch.testing.assert_close(attentive.scores_MC, linear, rtol=0, atol=1e-2)
    assert attentive.l2 == linear_probe(vectors, label, vectors, num_classes=3).l2


def test_attention_finds_the_token_that_the_mean_drowns():
    train, label = _needles(num_clips=180)
    test, truth = _needles(num_clips=90, seed=1)
    attentive = attentive_probe(train, label, test, num_classes=3, num_queries=2).scores_MC
    mean = linear_probe(train.mean(1), label, test.mean(1), num_classes=3).scores_MC
    assert accuracy(attentive, truth) > 0.95
    assert accuracy(mean, truth) < 0.8


def test_padding_has_no_say():
    train, label = _needles(num_clips=60)
    padding = torch.full((60, 2, 8), 50.0)
    valid = torch.ones(60, 12, dtype=torch.bool)
    valid[:, 10:] = False
    plain = attentive_probe(train, label, train, num_classes=3)
    padded = attentive_probe(
        torch.cat((train, padding), dim=1),
        label,
        torch.cat((train, -padding), dim=1),
        num_classes=3,
        train_valid_NT=valid,
        test_valid_MT=valid,
    )
    assert padded.l2 == plain.l2
    torch.testing.assert_close(padded.scores_MC, plain.scores_MC, rtol=0, atol=1e-6)


def test_the_informative_layer_gets_the_weight_however_small_it_is():
    train, label = _layers(num_clips=120)
    test, truth = _layers(num_clips=60, seed=1)
    result = layer_probe(train, label, test, num_classes=3)
    assert float(result.layer_weight_L.sum()) == pytest.approx(1)
    assert int(result.layer_weight_L.argmax()) == 2
    assert float(result.layer_weight_L[2]) > 0.5
    assert accuracy(result.scores_MC, truth) > 0.9


def test_the_order_of_the_layers_does_not_matter():
    train, label = _layers(num_clips=90)
    order = torch.tensor([2, 0, 3, 1])
    plain = layer_probe(train, label, train, num_classes=3)
    moved = layer_probe(train[:, order], label, train[:, order], num_classes=3)
    assert moved.l2 == plain.l2
    torch.testing.assert_close(moved.layer_weight_L, plain.layer_weight_L[order], atol=1e-6, rtol=0)


def test_one_layer_is_the_linear_probe():
    train, label = _layers(num_clips=60, num_layers=1, informative=0)
    layered = layer_probe(train, label, train, num_classes=3)
    linear = linear_probe(train[:, 0], label, train[:, 0], num_classes=3)
    assert layered.l2 == linear.l2
    torch.testing.assert_close(layered.scores_MC, linear.scores_MC, rtol=0, atol=1e-2)


@pytest.mark.parametrize(("probe", "make"), [(layer_probe, _layers), (attentive_probe, _needles)])
def test_several_classes_a_clip_are_learned_too(probe, make):
    train, label = make(num_clips=120)
    options = {"num_queries": 2} if probe is attentive_probe else {}
    tags = torch.stack((label == 0, label != 1), dim=1)
    scores = probe(train, tags, train, num_classes=2, **options).scores_MC
    assert ((scores > 0.5) == tags).double().mean() > 0.95


@pytest.mark.parametrize(("probe", "make"), [(layer_probe, _layers), (attentive_probe, _needles)])
def test_probes_are_deterministic_and_move_no_global_generator(probe, make):
    train, label = make(num_clips=45)
    before = torch.get_rng_state()
    options = {"num_queries": 2} if probe is attentive_probe else {}
    first, second = (probe(train, label, train, num_classes=3, seed=3, **options) for _ in range(2))
    assert torch.equal(first.scores_MC, second.scores_MC)
    assert torch.equal(before, torch.get_rng_state())
    assert probe(train, label, train[:0], num_classes=3, **options).scores_MC.shape == (0, 3)


@pytest.mark.parametrize(("probe", "make"), [(layer_probe, _layers), (attentive_probe, _needles)])
def test_probes_refuse_what_does_not_fit(probe, make):
    train, label = make(num_clips=9)
    broken = train.clone()
    broken[3, 1, 2] = math.nan
    with pytest.raises(ValueError, match=r"must be finite, but 1 of 9 rows are not.*row 3"):
        probe(broken, label, train, num_classes=3)
    with pytest.raises(ValueError, match=r"must be \(N, ., D\) and \(M, ., D\)"):
        probe(train, label, train[:, 0], num_classes=3)
    with pytest.raises(ValueError, match="at least two classes, but got only label 0"):
        probe(train, torch.zeros(9, dtype=torch.int64), train, num_classes=3)
    with pytest.raises(ValueError, match="group_N must hold 9 groups, but got 1"):
        probe(train, label, train, num_classes=3, group_N=["one"])


def test_attentive_probe_refuses_queries_and_padding_that_do_not_fit():
    train, label = _needles(num_clips=9)
    with pytest.raises(ValueError, match="num_queries must divide the 8 features, but got 3"):
        attentive_probe(train, label, train, num_classes=3, num_queries=3)
    valid = torch.ones(9, 10, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"train_valid_NT must be boolean \(9, 10\)"):
        attentive_probe(train, label, train, num_classes=3, train_valid_NT=valid[:, :4])
    valid[5] = False
    with pytest.raises(ValueError, match="every clip a token, but row 5 has none"):
        attentive_probe(train, label, train, num_classes=3, test_valid_MT=valid)


@pytest.mark.slow
def test_the_attentive_probe_of_an_encoder_is_fast_enough():
    """Tokens as correlated as a transformer's; an idle core needs a third of the limit."""
    generator = stream(0, "large")
    mixing = torch.randn(96, 96, generator=generator) * torch.logspace(0, -3, 96)[:, None]
    tokens = torch.randn(200, 100, 96, generator=generator) @ mixing
    label = torch.arange(200) % 5
    tokens[torch.arange(200), :, :5] += 2 * torch.eye(5)[label][:, None]
    start = time.thread_time()
    result = attentive_probe(tokens, label, tokens, num_classes=5)
    assert accuracy(result.scores_MC, label) > 0.95
    assert time.thread_time() - start < 30
