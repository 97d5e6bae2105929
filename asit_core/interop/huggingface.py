"""Tensors and configurations of Hugging Face's `ASTModel` and `ASTForAudioClassification`.

Files carry the published names in every version of transformers, whatever its modules are called
in memory.

Source: `audio-spectrogram-transformer` in transformers; AST (arXiv:2104.01778).
"""

import math
from typing import Any

import torch
from torch import Tensor

from asit_core.encoder_config import EncoderConfig, patch_fields
from asit_core.interop.timm_names import (
    below,
    check_vit,
    encoder_from_timm,
    require,
    timm_from_encoder,
)
from asit_core.model_weights import AUDIOSET_MEAN, AUDIOSET_STD, ModelWeights
from asit_core.spectrogram import LogMelConfig

MODEL_TYPE = "audio-spectrogram-transformer"

_BASE = "audio_spectrogram_transformer."
_TOP = {
    "cls_token": "embeddings.cls_token",
    "dist_token": "embeddings.distillation_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
_BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_QKV = ("query", "key", "value")
_HEAD = {"0": "classifier.layernorm", "1": "classifier.dense"}
DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "patch_size": 16,
    "qkv_bias": True,
    "frequency_stride": 10,
    "time_stride": 10,
    "max_length": 1024,
    "num_mel_bins": 128,
}
"""What a key that is absent from `config.json` means."""

_EXTRACTOR_DEFAULTS = {
    "sampling_rate": 16000,
    "mean": AUDIOSET_MEAN,
    "std": AUDIOSET_STD,
    "do_normalize": True,
}


def from_huggingface(
    state: dict[str, Tensor], config: dict[str, Any], extractor: dict[str, Any] | None = None
) -> ModelWeights:
    """Reads the tensors of an `ASTModel` or an `ASTForAudioClassification`.

    Args:
        state: Under the published names.
        config: Content of `config.json`; absent keys have transformers' defaults.
        extractor: Content of `preprocessor_config.json`; None: the extractor's defaults.

    Raises:
        ValueError: If a value is of another kind, names or shapes do not fit the configuration, or
            the activation is not GELU.
    """
    labels = _labels(config)
    config, extractor = _filled(DEFAULTS, config), _filled(_EXTRACTOR_DEFAULTS, extractor or {})
    if config["hidden_act"] != "gelu":
        raise ValueError(f"hidden_act must be 'gelu', but got {config['hidden_act']!r}")
    head = {
        f"head.{ours}.{kind}": state[f"{theirs}.{kind}"]
        for ours, theirs in _HEAD.items()
        for kind in ("weight", "bias")
        if f"{theirs}.{kind}" in state
    }
    names = [labels.get(str(index)) for index in range(_num_classes(head))]
    is_named = all(names) and names != [f"LABEL_{index}" for index in range(len(names))]
    bins, patch = config["num_mel_bins"], config["patch_size"]
    return ModelWeights(
        tensors={**encoder_from_timm(_timm_names(state, config), image="mel_time"), **head},
        encoder=EncoderConfig(
            embed_dim=config["hidden_size"],
            depth=config["num_hidden_layers"],
            num_heads=config["num_attention_heads"],
            mlp_ratio=config["intermediate_size"] / config["hidden_size"],
            **patch_fields((patch, patch), (config["time_stride"], config["frequency_stride"])),
            input_bins=bins,
            num_cls_tokens=2,
            token_order="frequency",
            position_adaptation="ast",
            drop_path_rate=0.0,
            norm_eps=config["layer_norm_eps"],
        ),
        input_frames=config["max_length"],
        # The extractor cuts and windows as AST's loader does, but leaves the clip's mean in.
        front_end=LogMelConfig(
            sample_rate_hz=extractor["sampling_rate"],
            num_mel_bins=bins,
            subtract_mean=False,
        ),
        mean=extractor["mean"] if extractor["do_normalize"] else 0.0,
        std=extractor["std"] if extractor["do_normalize"] else 0.5,
        pad_value=0.0,
        pool="class_tokens" if head else None,
        head_norm_eps=config["layer_norm_eps"],
        label_names=tuple(map(str, names)) if head and is_named else None,
        source="huggingface",
    )


def to_huggingface(weights: ModelWeights) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict and `config.json` of a model; undoes `from_huggingface`.

    Raises:
        ValueError: If AST's classes cannot hold the model: they have square patches, two class
            tokens, and a head on the mean of these.
    """
    encoder = weights.encoder
    if encoder.num_cls_tokens != 2:
        raise ValueError(
            f"num_cls_tokens must be 2 for Hugging Face's AST, but got {encoder.num_cls_tokens}"
        )
    if encoder.patch_frames != encoder.patch_bins:
        raise ValueError(
            "patch must be square for Hugging Face's AST, but got "
            f"{encoder.patch_frames} frames x {encoder.patch_bins} bins"
        )
    if weights.pool not in (None, "class_tokens"):
        raise ValueError(
            f"pool must be 'class_tokens' for Hugging Face's AST, but got {weights.pool!r}; "
            "leave the head out"
        )
    prefix = "" if weights.pool is None else _BASE
    state = {f"{prefix}{name}": tensor for name, tensor in _published_names(weights).items()}
    for name, tensor in weights.part("head").items():
        state[f"{_HEAD[name[0]]}{name[1:]}"] = tensor
    return state, _config(weights)


def _filled(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The keys of `defaults` with what is given.

    Raises:
        ValueError: If a value is not of its default's kind.
    """
    filled = {name: given.get(name, default) for name, default in defaults.items()}
    for name, value in filled.items():
        kind = type(defaults[name])
        if kind is bool and type(value) is not bool:
            rule = "true or false"
        elif kind is int and (type(value) is not int or value < 1):
            rule = "a whole number of at least 1"
        elif kind is float and type(value) not in (int, float):
            rule = "a number"
        else:
            continue
        raise ValueError(f"{name} must be {rule}, but got {value!r}")
    return filled


def _labels(config: dict[str, Any]) -> dict[str, Any]:
    labels = config.get("id2label", {})
    if not isinstance(labels, dict):
        raise ValueError(f"id2label must map numbers to names, but got {labels!r}")
    return labels


def _timm_names(state: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
    """The encoder's tensors under timm's names.

    Raises:
        ValueError: If one is missing or unknown.
    """
    base = below(state, _BASE) or {n: t for n, t in state.items() if not n.startswith("classifier")}
    names = dict(_TOP)
    for index in range(config["num_hidden_layers"]):
        for ours, theirs in _BLOCK.items():
            for kind in ("weight", "bias"):
                name = f"encoder.layer.{index}.{theirs}.{kind}"
                names[f"blocks.{index}.{ours}.{kind}"] = name
    require(base, names.values(), what="a Hugging Face AST")
    vit = {ours: base[theirs] for ours, theirs in names.items()}
    check_vit(vit, what="a Hugging Face AST")
    width = config["hidden_size"]
    used = set(names.values())
    for index in range(config["num_hidden_layers"]):
        for kind in ("weight", "bias") if config["qkv_bias"] else ("weight",):
            parts = [f"encoder.layer.{index}.attention.attention.{name}.{kind}" for name in _QKV]
            require(base, parts, what="a Hugging Face AST")
            shape = (width, width)[: 2 if kind == "weight" else 1]
            for name in parts:
                if tuple(base[name].shape) != shape:
                    raise ValueError(
                        f"{name} must have shape {shape}, but has {tuple(base[name].shape)}"
                    )
            vit[f"blocks.{index}.attn.qkv.{kind}"] = torch.cat([base[name] for name in parts])
            used |= set(parts)
        weight = vit[f"blocks.{index}.attn.qkv.weight"]
        vit.setdefault(f"blocks.{index}.attn.qkv.bias", weight.new_zeros(len(weight)))
    unknown = sorted(set(base) - used)
    if unknown:
        raise ValueError(f"a Hugging Face AST must hold its keys only, but got {unknown[0]!r}")
    return vit


def _published_names(weights: ModelWeights) -> dict[str, Tensor]:
    vit = timm_from_encoder(weights.part("encoder"), image="mel_time")
    if weights.encoder.token_order == "time":
        grid = weights.encoder.grid_of(weights.input_frames)
        cls, patches = vit["pos_embed"].split([2, math.prod(grid)], dim=1)
        # Attention does not mind the order of its tokens, as long as positions follow.
        patches = patches.unflatten(1, grid).transpose(1, 2).flatten(1, 2)
        vit["pos_embed"] = torch.cat([cls, patches], dim=1)
    state = {}
    for name, tensor in vit.items():
        if name in _TOP:
            state[_TOP[name]] = tensor
            continue
        _, index, part = name.split(".", 2)
        layer, kind = part.rsplit(".", 1)
        if layer == "attn.qkv":
            for theirs, chunk in zip(_QKV, tensor.chunk(3), strict=True):
                state[f"encoder.layer.{index}.attention.attention.{theirs}.{kind}"] = chunk
        else:
            state[f"encoder.layer.{index}.{_BLOCK[layer]}.{kind}"] = tensor
    return state


def _config(weights: ModelWeights) -> dict[str, Any]:
    encoder = weights.encoder
    config: dict[str, Any] = {
        "architectures": ["ASTModel" if weights.pool is None else "ASTForAudioClassification"],
        "model_type": MODEL_TYPE,
        "hidden_size": encoder.embed_dim,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.num_heads,
        "intermediate_size": len(weights.tensors["encoder.blocks.0.mlp.fc1.bias"]),
        "hidden_act": "gelu",
        "layer_norm_eps": encoder.norm_eps,
        "patch_size": encoder.patch_bins,
        "qkv_bias": True,
        "frequency_stride": encoder.stride[1],
        "time_stride": encoder.stride[0],
        "max_length": weights.input_frames,
        "num_mel_bins": encoder.input_bins,
    }
    if weights.pool is not None:
        num_classes = _num_classes(weights.tensors)
        names = weights.label_names or [f"LABEL_{index}" for index in range(num_classes)]
        config["id2label"] = {str(index): name for index, name in enumerate(names)}
        config["label2id"] = {name: index for index, name in enumerate(names)}
    return config


def _num_classes(tensors: dict[str, Tensor]) -> int:
    return len(tensors["head.1.bias"]) if "head.1.bias" in tensors else 0
