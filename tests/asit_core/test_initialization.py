import dataclasses

import pytest
import torch
from torch import nn

from asit_core.decoder import Decoder, DecoderConfig
from asit_core.encoder import EncoderConfig, SpectrogramEncoder
from asit_core.heads import Prototypes, ReconstructionHead
from asit_core.initialization import initialize
from asit_core.seeding import stream


class _Model(nn.Module):
    """One layer of each kind, in an order of choice."""

    def __init__(self, *, reverse: bool = False) -> None:
        super().__init__()
        layers = {
            "linear": nn.Linear(60, 80),
            "norm": nn.LayerNorm(60),
            "patch_embed": nn.Conv2d(1, 50, (16, 8), stride=(16, 8)),
            "to_pixels": nn.ConvTranspose2d(40, 1, (16, 8), stride=(16, 8)),
            "prototypes": Prototypes(25, 90),
        }
        for name in sorted(layers, reverse=reverse):
            self.add_module(name, layers[name])
        self.cls_token = nn.Parameter(torch.empty(1, 1, 3000))


def _initialized(seed: int = 0, *, reverse: bool = False, **options: str) -> _Model:
    model = _Model(reverse=reverse)
    initialize(model, seed=seed, **options)  # pyright: ignore[reportArgumentType]
    return model


def test_weights_depend_on_seed_and_name_alone():
    first, second = _initialized(), _initialized(reverse=True)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    other = _initialized(seed=1).state_dict()
    drawn = {n for n, v in first.state_dict().items() if not torch.equal(v, other[n])}
    assert drawn == {
        "linear.weight",
        "patch_embed.weight",
        "patch_embed.bias",
        "to_pixels.weight",
        "to_pixels.bias",
        "prototypes.direction",
        "cls_token",
    }


def test_two_names_are_two_draws():
    model = nn.ModuleDict({"a": nn.Linear(8, 8), "b": nn.Linear(8, 8)})
    initialize(model, seed=0)
    assert not torch.equal(model["a"].weight, model["b"].weight)  # pyright: ignore[reportArgumentType]


def test_norms_and_biases_are_trivial():
    weights = _initialized().state_dict()
    assert torch.equal(weights["norm.weight"], torch.ones(60))
    assert not weights["norm.bias"].any()
    assert not weights["linear.bias"].any()


@pytest.mark.parametrize("name", ["linear.weight", "cls_token"])
def test_linear_layers_and_tokens_are_normal(name):
    values = _initialized().state_dict()[name].flatten()
    # A deviation of n samples is known to within 1 / sqrt(2 n): four of those.
    assert values.std().item() == pytest.approx(0.02, rel=4 / (2 * len(values)) ** 0.5)
    assert abs(values.mean().item()) < 4 * 0.02 / len(values) ** 0.5
    within = (values.abs() < 0.02).float().mean().item()
    assert within == pytest.approx(0.6827, abs=4 * (0.25 / len(values)) ** 0.5)


@pytest.mark.parametrize(
    ("name", "bound", "options"),
    [
        ("patch_embed.weight", 128**-0.5, {}),
        ("patch_embed.bias", 128**-0.5, {}),
        ("to_pixels.weight", 128**-0.5, {}),  # PyTorch counts a transposed kernel's outputs
        ("prototypes.direction", 25**-0.5, {}),
        ("linear.weight", (6 / 140) ** 0.5, {"weight_init": "xavier"}),
    ],
)
def test_uniform_weights_fill_their_bound(name, bound, options):
    values = _initialized(**options).state_dict()[name]
    assert values.abs().max().item() <= bound
    if values.numel() > 1000:
        assert values.abs().max().item() > 0.98 * bound
        assert values.std().item() == pytest.approx(bound / 3**0.5, rel=0.06)


def test_the_transposed_convolutions_bound_is_pytorchs_own():
    head = ReconstructionHead(6, hidden_dim=5, bottleneck_dim=400, patch=(4, 4))
    theirs = head.to_pixels.weight.abs().max().item()  # PyTorch's constructor drew it
    initialize(head, seed=0)
    assert theirs == pytest.approx(head.to_pixels.weight.abs().max().item(), rel=0.02)


def test_a_mask_embedding_starts_as_in_ssast_and_in_a_decoder_as_in_mae():
    config = EncoderConfig(embed_dim=1024, depth=1, num_heads=1, input_bins=16)
    model = nn.Module()
    model.mask_embed = nn.Parameter(torch.zeros(1, 1, 1024))
    encoder = SpectrogramEncoder(config, input_frames=16)
    model.decoder = Decoder(
        DecoderConfig(embed_dim=1024, depth=1, num_heads=1, mlp_ratio=0.01), encoder
    )
    initialize(model, seed=0)
    within = 4 / (2 * 1024) ** 0.5
    theirs = nn.init.xavier_normal_(torch.zeros(1, 1, 1024), generator=stream(0, "test")).std()
    assert model.mask_embed.std().item() == pytest.approx(1024**-0.5, rel=within)
    assert theirs.item() == pytest.approx(1024**-0.5, rel=within)
    assert model.decoder.mask_embed.std().item() == pytest.approx(0.02, rel=within)


def test_a_wider_encoder_shares_the_names_it_can():
    config = EncoderConfig(embed_dim=12, depth=1, num_heads=2, input_bins=16)
    shallow = SpectrogramEncoder(config, input_frames=32)
    deep = SpectrogramEncoder(dataclasses.replace(config, depth=3), input_frames=32)
    initialize(shallow, seed=0)
    initialize(deep, seed=0)
    for name, value in shallow.state_dict().items():
        assert torch.equal(value, deep.state_dict()[name])


def test_no_global_generator_moves():
    model = _Model()
    before = torch.get_rng_state()
    initialize(model, seed=0)
    initialize(model, seed=0, weight_init="xavier")
    assert torch.equal(before, torch.get_rng_state())
