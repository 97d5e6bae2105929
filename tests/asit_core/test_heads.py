import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from asit_core.heads import (
    PatchHead,
    ProjectionHead,
    ProjectionHeadConfig,
    Prototypes,
    ReconstructionHead,
)
from asit_core.initialization import initialize
from asit_core.seeding import stream


def _tokens(*shape: int) -> Tensor:
    return torch.randn(shape, generator=stream(0, "test"))


def _draw(module: nn.Module) -> None:
    """Weights of order one, so that each counts in the comparisons."""
    initialize(module, seed=0)
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=stream(index, "test")))


def _linear(row: list[float], layer: nn.Linear) -> list[float]:
    weights, biases = layer.weight.tolist(), layer.bias.tolist()
    return [
        sum(w * x for w, x in zip(weight, row, strict=True)) + bias
        for weight, bias in zip(weights, biases, strict=True)
    ]


def _gelu(row: list[float]) -> list[float]:
    return [0.5 * x * (1 + math.erf(x / 2**0.5)) for x in row]


def test_projection_by_hand():
    head = ProjectionHead(6, ProjectionHeadConfig(hidden_dim=5, bottleneck_dim=4))
    _draw(head)
    tokens = _tokens(2, 3, 6)
    projected = head(tokens)
    layers = [layer for layer in head.mlp if isinstance(layer, nn.Linear)]
    for row, ours in zip(tokens.flatten(0, 1).tolist(), projected.flatten(0, 1), strict=True):
        hidden = _gelu(_linear(_gelu(_linear(row, layers[0])), layers[1]))
        output = _linear(hidden, layers[2])
        norm = math.sqrt(sum(x * x for x in output))
        assert ours.tolist() == pytest.approx([x / norm for x in output], rel=1e-4, abs=1e-6)


def test_projection_of_bf16_tokens_is_normalised_in_fp32():
    head = ProjectionHead(6, ProjectionHeadConfig(hidden_dim=5, bottleneck_dim=4))
    _draw(head)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        projected = head(_tokens(10, 6))
    assert projected.dtype == torch.float32
    torch.testing.assert_close(projected.norm(dim=-1), torch.ones(10))


def test_prototypes_equal_a_weight_normalised_layer_of_gain_one():
    prototypes = Prototypes(4, 7)
    _draw(prototypes)
    with torch.random.fork_rng(devices=[]):
        layer = parametrizations.weight_norm(nn.Linear(4, 7, bias=False))
    gain, direction = layer.parameters()
    with torch.no_grad():
        gain.fill_(1.0)
        direction.copy_(prototypes.direction)
    projected = nn.functional.normalize(_tokens(9, 4), dim=-1)
    ours, theirs = prototypes(projected), layer(projected)
    torch.testing.assert_close(ours, theirs)
    assert ours.abs().max() <= 1 + 1e-6
    ours.square().sum().backward()
    theirs.square().sum().backward()
    gradient = prototypes.direction.grad
    assert gradient is not None
    torch.testing.assert_close(gradient, direction.grad, rtol=1e-4, atol=1e-6)
    # Length does not count: no gradient along a direction.
    along = (gradient * prototypes.direction).sum(-1)
    torch.testing.assert_close(along, torch.zeros(7), rtol=0, atol=1e-5)


def test_prototypes_are_cosines_by_hand():
    prototypes = Prototypes(3, 5)
    _draw(prototypes)
    projected = nn.functional.normalize(_tokens(4, 3), dim=-1)
    logits = prototypes(projected)
    for row in range(4):
        for k, direction in enumerate(prototypes.direction.tolist()):
            norm = math.sqrt(sum(x * x for x in direction))
            cosine = sum(x * y for x, y in zip(projected[row].tolist(), direction, strict=True))
            assert logits[row, k].item() == pytest.approx(cosine / norm, rel=1e-5, abs=1e-6)


def test_reconstruction_equals_its_transposed_convolution():
    head = ReconstructionHead(6, hidden_dim=5, bottleneck_dim=4, patch=(8, 2))
    _draw(head)
    grid = (3, 4)
    tokens = _tokens(2, 12, 6)
    ours = head(tokens, grid)
    assert ours.shape == (2, 24, 8)
    maps = head.mlp(tokens).transpose(1, 2).unflatten(2, grid)
    theirs = head.to_pixels(maps)[:, 0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)

    parameters = list(head.parameters())
    direction = _tokens(2, 24, 8)
    for mine, reference in zip(
        torch.autograd.grad((ours * direction).sum(), parameters, retain_graph=True),
        torch.autograd.grad((theirs * direction).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-5)


def test_reconstruction_puts_each_token_in_its_own_patch():
    head = ReconstructionHead(6, hidden_dim=5, bottleneck_dim=4, patch=(8, 2))
    _draw(head)
    tokens = _tokens(1, 12, 6)
    changed = tokens.clone()
    changed[0, 7] += 1.0  # column 1, row 3 of a grid of 3 x 4
    differs = (head(changed, (3, 4)) != head(tokens, (3, 4)))[0]
    inside = torch.zeros_like(differs)
    inside[8:16, 6:8] = True
    assert not differs[~inside].any()
    assert differs[inside].any()


def test_the_decoders_bottleneck_has_its_own_gelu():
    head = ReconstructionHead(6, hidden_dim=5, bottleneck_dim=4, patch=(8, 2))
    kinds = [type(layer).__name__ for layer in head.mlp]
    assert kinds == ["Linear", "GELU"] * 3
    assert head.mlp(_tokens(50, 6)).min() >= -0.17  # GELU's minimum


@pytest.mark.parametrize("field", ["hidden_dim", "bottleneck_dim"])
def test_a_bad_width_is_named(field):
    widths: dict[str, Any] = {field: 0}
    with pytest.raises(ValueError, match=f"{field} must be at least 1, but got 0"):
        ProjectionHeadConfig(**widths)


def test_the_papers_decoder_has_a_linear_bottleneck():
    head = ReconstructionHead(
        6, hidden_dim=5, bottleneck_dim=4, patch=(8, 2), bottleneck_gelu=False
    )
    _draw(head)
    layers = [layer for layer in head.mlp if isinstance(layer, nn.Linear)]
    for row, ours in zip(_tokens(3, 6).tolist(), head.mlp(_tokens(3, 6)), strict=True):
        hidden = _gelu(_linear(_gelu(_linear(row, layers[0])), layers[1]))
        assert ours.tolist() == pytest.approx(_linear(hidden, layers[2]), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_patch_head_by_hand(num_layers):
    head = PatchHead(6, num_pixels=8, num_layers=num_layers)
    _draw(head)
    layers = [layer for layer in head.mlp if isinstance(layer, nn.Linear)]
    assert len(layers) == num_layers
    for row, ours in zip(_tokens(3, 6).tolist(), head(_tokens(3, 6)), strict=True):
        if num_layers == 2:
            row = [max(x, 0.0) for x in _linear(row, layers[0])]
        assert ours.tolist() == pytest.approx(_linear(row, layers[-1]), rel=1e-4, abs=1e-6)
