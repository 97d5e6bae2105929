"""Initial weights that depend on the seed and each parameter's name, and on nothing else.

Cells of an ablation that share a seed share every initial weight whose name and shape they share,
whatever else is present: differences between them are paired.
"""

import math

import torch
from torch import nn

from asit_core.heads import Prototypes
from asit_core.seeding import stream


def initialize(module: nn.Module, *, seed: int) -> None:
    """Draw every weight of a model from a stream of its own.

    Linear layers and tokens: normal with deviation 0.02, cut at two deviations, biases zero (ViT).
    Convolutions and
    prototypes: PyTorch's default, uniform within 1 / sqrt(fan in). Norms: one and zero.
    """
    for layer_name, layer in module.named_modules():
        for name, parameter in layer.named_parameters(recurse=False):
            generator = stream(seed, "init", f"{layer_name}.{name}")
            _initialize_parameter(layer, name, parameter, generator)


@torch.no_grad()
def _initialize_parameter(
    layer: nn.Module, name: str, parameter: nn.Parameter, generator: torch.Generator
) -> None:
    match layer:
        case nn.LayerNorm():
            parameter.fill_(1.0 if name == "weight" else 0.0)
        case nn.Linear() if name == "bias":
            parameter.zero_()
        case nn.Conv2d() | nn.ConvTranspose2d():
            # As PyTorch counts it: the second dimension of the weight times the kernel's area.
            fan_in = math.prod(layer.weight.shape[1:])
            parameter.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator)
        case Prototypes():
            bound = parameter.shape[1] ** -0.5
            parameter.uniform_(-bound, bound, generator=generator)
        case _:
            nn.init.trunc_normal_(parameter, std=0.02, a=-0.04, b=0.04, generator=generator)
