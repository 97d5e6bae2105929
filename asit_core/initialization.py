"""Initial weights that depend on the seed and each parameter's name, and on nothing else.

Cells of an ablation that share a seed share every initial weight whose name and shape they share,
whatever else is present: differences between them are paired.
"""

import math
from typing import Literal

import torch
from torch import nn

from asit_core.decoder import Decoder
from asit_core.heads import Prototypes
from asit_core.seeding import stream

WeightInit = Literal["normal", "xavier"]


def initialize(module: nn.Module, *, seed: int, weight_init: WeightInit = "normal") -> None:
    """Draw every weight of a model from a stream of its own.

    Tokens and positions: normal with deviation 0.02; a mask embedding in the encoder's input, as
    in SSAST's released program: 1 / sqrt(width). Convolutions and prototypes: PyTorch's default,
    uniform within 1 / sqrt(fan in). Norms: one and zero; biases of linear layers: zero. Heads are
    linear layers like any others, where SSAST's start from PyTorch's default.

    Args:
        module: Model to initialise in place.
        seed: The trial's.
        weight_init: Of linear layers: `normal` with deviation 0.02, as ViT, DINO and the released
            ASiT do, or `xavier` uniform, as MAE does (arXiv:2111.06377, App. A). A narrow encoder
            needs the latter: at width 96, 0.02 is a fifth of what keeps a signal's variance.
    """
    for layer_name, layer in module.named_modules():
        for name, parameter in layer.named_parameters(recurse=False):
            generator = stream(seed, "init", f"{layer_name}.{name}")
            _initialize_parameter(layer, name, parameter, generator, weight_init)


@torch.no_grad()
def _initialize_parameter(
    layer: nn.Module,
    name: str,
    parameter: nn.Parameter,
    generator: torch.Generator,
    weight_init: WeightInit,
) -> None:
    match layer:
        case nn.LayerNorm():
            parameter.fill_(1.0 if name == "weight" else 0.0)
        case nn.Linear() if name == "bias":
            parameter.zero_()
        case nn.Linear() if weight_init == "xavier":
            nn.init.xavier_uniform_(parameter, generator=generator)
        case nn.Conv2d() | nn.ConvTranspose2d():
            # As PyTorch counts it: the second dimension of the weight times the kernel's area.
            fan_in = math.prod(layer.weight.shape[1:])
            parameter.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator)
        case Prototypes():
            bound = parameter.shape[1] ** -0.5
            parameter.uniform_(-bound, bound, generator=generator)
        case _ if name == "mask_embed" and not isinstance(layer, Decoder):
            parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)
        case _:
            parameter.normal_(std=0.02, generator=generator)
