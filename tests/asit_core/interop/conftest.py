"""The published layouts, written out: names and shapes of every size, and what they compute."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from asit_core import seeding

Shapes = dict[str, tuple[int, ...]]


def vit_shapes(
    width: int, *, depth: int, kernel: tuple[int, ...], num_patches: int, num_cls: int
) -> Shapes:
    """timm's names; `kernel` is (channels, rows, columns) of the program's image."""
    shapes: Shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, num_patches + num_cls, width),
        "patch_embed.proj.weight": (width, *kernel),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    if num_cls == 2:
        shapes["dist_token"] = (1, 1, width)
    for block in range(depth):
        layers = {
            "attn.qkv": (3 * width, width),
            "attn.proj": (width, width),
            "mlp.fc1": (4 * width, width),
            "mlp.fc2": (width, 4 * width),
        }
        for name, shape in layers.items():
            shapes[f"blocks.{block}.{name}.weight"] = shape
            shapes[f"blocks.{block}.{name}.bias"] = shape[:1]
        for norm in ("norm1", "norm2"):
            shapes[f"blocks.{block}.{norm}.weight"] = (width,)
            shapes[f"blocks.{block}.{norm}.bias"] = (width,)
    return shapes


def ssast_shapes(
    width: int,
    *,
    depth: int = 12,
    patch: tuple[int, int] = (16, 16),
    num_patches: int = 512,
    num_cls: int = 2,
    num_classes: int | None = None,
) -> Shapes:
    """SSAST; `patch` is (frames, bins). Pre-trained, or fine-tuned where there are classes."""
    vit = vit_shapes(
        width, depth=depth, kernel=(1, patch[1], patch[0]), num_patches=num_patches, num_cls=num_cls
    )
    vit |= {"head.weight": (1000, width), "head.bias": (1000,)}
    if num_cls == 2:
        vit |= {"head_dist.weight": (1000, width), "head_dist.bias": (1000,)}
    shapes = {f"module.v.{name}": shape for name, shape in vit.items()}
    if num_classes is not None:
        return shapes | {
            "module.mlp_head.0.weight": (width,),
            "module.mlp_head.0.bias": (width,),
            "module.mlp_head.1.weight": (num_classes, width),
            "module.mlp_head.1.bias": (num_classes,),
        }
    for head in ("cpredlayer", "gpredlayer"):
        shapes |= {
            f"module.{head}.0.weight": (width, width),
            f"module.{head}.0.bias": (width,),
            f"module.{head}.2.weight": (256, width),
            f"module.{head}.2.bias": (256,),
        }
    return shapes | {
        "module.mask_embed": (1, 1, width),
        "module.p_input_fdim": (),
        "module.p_input_tdim": (),
    }


def asit_shapes(width: int, *, depth: int = 12, num_patches: int = 296) -> Shapes:
    """One network of ASiT, deprecated weight norm, without prefix."""
    vit = vit_shapes(width, depth=depth, kernel=(1, 16, 16), num_patches=num_patches, num_cls=1)
    shapes = {f"backbone.{name}": shape for name, shape in vit.items()}
    layers = {
        "head_cls.mlp.0": (2048, width),
        "head_cls.mlp.2": (2048, 2048),
        "head_cls.mlp.4": (256, 2048),
        "head_recons.mlp.0": (768, width),
        "head_recons.mlp.2": (768, 768),
        "head_recons.mlp.4": (128, 768),
    }
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes | {
        "head_cls.cls_layer.weight_g": (8192, 1),
        "head_cls.cls_layer.weight_v": (8192, 256),
        "head_cls.data_layer.weight_g": (1024, 1),
        "head_cls.data_layer.weight_v": (1024, 256),
        "head_recons.convTrans.weight": (128, 1, 16, 16),
        "head_recons.convTrans.bias": (1,),
    }


def huggingface_shapes(width: int, *, depth: int, num_patches: int, num_classes: int) -> Shapes:
    """`ASTForAudioClassification` with 16 x 16 patches, as its files name it."""
    base: Shapes = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.distillation_token": (1, 1, width),
        "embeddings.position_embeddings": (1, num_patches + 2, width),
        "embeddings.patch_embeddings.projection.weight": (width, 1, 16, 16),
        "embeddings.patch_embeddings.projection.bias": (width,),
        "layernorm.weight": (width,),
        "layernorm.bias": (width,),
    }
    for block in range(depth):
        layers = {
            "attention.attention.query": (width, width),
            "attention.attention.key": (width, width),
            "attention.attention.value": (width, width),
            "attention.output.dense": (width, width),
            "intermediate.dense": (4 * width, width),
            "output.dense": (width, 4 * width),
            "layernorm_before": (width,),
            "layernorm_after": (width,),
        }
        for name, shape in layers.items():
            base[f"encoder.layer.{block}.{name}.weight"] = shape
            base[f"encoder.layer.{block}.{name}.bias"] = shape[:1]
    return {f"audio_spectrogram_transformer.{name}": shape for name, shape in base.items()} | {
        "classifier.layernorm.weight": (width,),
        "classifier.layernorm.bias": (width,),
        "classifier.dense.weight": (num_classes, width),
        "classifier.dense.bias": (num_classes,),
    }


def empty(shapes: Shapes, **values: int) -> dict[str, Tensor]:
    """Tensors without memory; whole numbers where given, by the last part of the name."""
    return {
        name: torch.tensor(values[name.split(".")[-1]])
        if name.split(".")[-1] in values
        else torch.empty(shape, device="meta")
        for name, shape in shapes.items()
    }


def drawn(shapes: Shapes, **values: int) -> dict[str, Tensor]:
    """Small random tensors; norms near one, gains one."""
    state = {}
    for name, shape in shapes.items():
        last = name.split(".")[-1]
        noise = torch.randn(shape, generator=seeding.stream(0, "state", name))
        is_norm = "norm" in name or "mlp_head.0" in name
        if last in values:
            state[name] = torch.tensor(values[last])
        elif last == "weight_g":
            state[name] = torch.ones(shape)
        elif last == "weight" and is_norm:
            state[name] = 1.0 + 0.1 * noise
        else:
            state[name] = 0.1 * noise
    return state


def vit_tokens(vit: dict[str, Tensor], images: Tensor, *, stride: tuple[int, int]) -> Tensor:
    """timm's forward pass written out, (B, C, H, W) -> (B, C + N, D), heads 64 wide."""
    patches = functional.conv2d(
        images, vit["patch_embed.proj.weight"], vit["patch_embed.proj.bias"], stride=stride
    )
    cls = [vit[name] for name in ("cls_token", "dist_token") if name in vit]
    cls = [token.expand(len(images), -1, -1) for token in cls]
    x = torch.cat([*cls, patches.flatten(2).transpose(1, 2)], dim=1) + vit["pos_embed"]
    width = x.shape[2]
    for block in range(1 + max(int(name.split(".")[1]) for name in vit if "blocks" in name)):
        own = {k.split(".", 2)[2]: v for k, v in vit.items() if k.startswith(f"blocks.{block}.")}
        normed = functional.layer_norm(x, (width,), own["norm1.weight"], own["norm1.bias"], 1e-6)
        qkv = functional.linear(normed, own["attn.qkv.weight"], own["attn.qkv.bias"])
        query, key, value = qkv.unflatten(2, (3, width // 64, 64)).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(2, 3) / 8.0).softmax(-1)
        mixed = (weights @ value).transpose(1, 2).flatten(2)
        x = x + functional.linear(mixed, own["attn.proj.weight"], own["attn.proj.bias"])
        normed = functional.layer_norm(x, (width,), own["norm2.weight"], own["norm2.bias"], 1e-6)
        hidden = functional.linear(normed, own["mlp.fc1.weight"], own["mlp.fc1.bias"])
        x = x + functional.linear(
            functional.gelu(hidden), own["mlp.fc2.weight"], own["mlp.fc2.bias"]
        )
    return functional.layer_norm(x, (width,), vit["norm.weight"], vit["norm.bias"], 1e-6)


def below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What starts with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def logits(head: dict[str, Tensor], pooled: Tensor) -> Tensor:
    """AST's head: LayerNorm with PyTorch's own eps, then a linear layer."""
    normed = functional.layer_norm(pooled, pooled.shape[1:], head["0.weight"], head["0.bias"], 1e-5)
    return functional.linear(normed, head["1.weight"], head["1.bias"])


class Published:
    """The functions above, for test modules, which cannot import this file."""

    vit_shapes = staticmethod(vit_shapes)
    ssast_shapes = staticmethod(ssast_shapes)
    asit_shapes = staticmethod(asit_shapes)
    huggingface_shapes = staticmethod(huggingface_shapes)
    empty = staticmethod(empty)
    drawn = staticmethod(drawn)
    vit_tokens = staticmethod(vit_tokens)
    below = staticmethod(below)
    logits = staticmethod(logits)


@pytest.fixture(scope="session")
def published() -> type[Published]:
    return Published


@pytest.fixture(scope="session")
def log_mels() -> Callable[..., Tensor]:
    """Normalised log-mels of any shape."""

    def make(frames: int, bins: int = 128, clips: int = 2) -> Tensor:
        return torch.randn(clips, frames, bins, generator=seeding.stream(0, "log_mels", frames))

    return make
