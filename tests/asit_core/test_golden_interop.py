"""AST and SSAST against their released programs' own numbers: every size is read from the files.

Tolerance: 1e-5 of a tensor's largest value, that of float32 sums taken in another order.
"""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from asit_core.classifier import pool_tokens
from asit_core.encoder import SpectrogramEncoder
from asit_core.interop import ModelWeights, build, from_imagenet, from_ssast, to_ssast


def _close(ours: Tensor, theirs: Tensor) -> None:
    tolerance = 1e-5 * theirs.abs().max().item()
    torch.testing.assert_close(ours.reshape(theirs.shape), theirs, rtol=0.0, atol=tolerance)


def _num_heads(text: str) -> int:
    found = re.search(r"(\d+) heads", text)
    assert found, f"the reference must say its number of heads, but says {text!r}"
    return int(found[1])


def _encoder(weights: ModelWeights, meta: dict[str, Any]) -> SpectrogramEncoder:
    assert weights.encoder.norm_eps == meta["layernorm_eps"]
    return build(weights).encoder


def _lengths(tensors: dict[str, Tensor], letters: str) -> list[int]:
    found = {re.fullmatch(rf"{letters}(\d+)\.x", name) for name in tensors}
    return sorted(int(match[1]) for match in found if match)


def _logits(
    encoder: SpectrogramEncoder, tensors: dict[str, Tensor], case: str, pool: str
) -> Tensor:
    """LayerNorm with PyTorch's own eps and a linear layer, from the file; no norm: as it begins."""
    head = {name: tensors.get(f"{case}.mlp_head.{name}") for name in ("0.weight", "0.bias")}
    with torch.no_grad():
        tokens = encoder(tensors[f"{case}.x"])
        pooled = pool_tokens(tokens, num_cls_tokens=encoder.num_cls_tokens, pool=pool)  # pyright: ignore[reportArgumentType]
        normed = torch.nn.functional.layer_norm(
            pooled, pooled.shape[1:], head["0.weight"], head["0.bias"]
        )
        weight, bias = (tensors[f"{case}.mlp_head.1.{name}"] for name in ("weight", "bias"))
        return torch.nn.functional.linear(normed, weight, bias)


@pytest.mark.parametrize("name", ["ssast_patch", "ssast_frame"])
def test_ssast_fine_tunes_at_any_length_as_released(golden, name):
    """H13, H15: positions adapted as released; `module.` and the whole-number parameters."""
    tensors, meta = golden(name)
    state = {key: value for key, value in tensors.items() if key.startswith("module.")}
    weights = from_ssast(state, num_heads=_num_heads(meta["model_size"]))
    assert weights.input_frames == meta["input_frames"]
    assert weights.encoder.input_bins == meta["mels"]
    pretrained = _encoder(weights, meta)
    recipe = meta["finetune"]
    assert weights.encoder.patch == (recipe["tshape"], recipe["fshape"])
    lengths = _lengths(tensors, "ft")
    assert lengths
    for frames in lengths:
        case = f"ft{frames}"
        encoder = pretrained.refitted(
            input_frames=frames, stride=(recipe["tstride"], recipe["fstride"])
        ).eval()
        _close(encoder.pos_embed.detach(), tensors[f"{case}.pos_embed"])
        _close(_logits(encoder, tensors, case, "mean"), tensors[f"{case}.logits_avgtok"])
        _close(_logits(encoder, tensors, case, "class_tokens"), tensors[f"{case}.logits_cls"])


@pytest.mark.parametrize("name", ["ssast_patch", "ssast_frame"])
@pytest.mark.parametrize(("pool", "logits"), [("mean", "avgtok"), ("class_tokens", "cls")])
def test_a_fine_tuned_ssast_is_read_with_either_pool(golden, name, pool, logits):
    tensors, meta = golden(name)
    recipe = meta["finetune"]
    for frames in _lengths(tensors, "ft"):
        case = f"ft{frames}"
        state = {key: value for key, value in tensors.items() if key.startswith("module.v.")}
        width = state["module.v.norm.weight"].shape
        # The norm of a head that was not trained is as it began.
        state |= {"mlp_head.0.weight": torch.ones(width), "mlp_head.0.bias": torch.zeros(width)}
        head = f"{case}.mlp_head."
        state |= {k.removeprefix(f"{case}."): v for k, v in tensors.items() if k.startswith(head)}
        state["module.v.pos_embed"] = tensors[f"{case}.pos_embed"]
        weights = from_ssast(
            state,
            num_heads=_num_heads(meta["model_size"]),
            input_frames=frames,
            stride=(recipe["tstride"], recipe["fstride"]),
            input_bins=meta["mels"],
            pool=pool,
        )
        classifier = build(weights).classifier
        assert classifier is not None
        with torch.no_grad():
            _close(classifier(tensors[f"{case}.x"]), tensors[f"{case}.logits_{logits}"])


@pytest.mark.parametrize("name", ["ssast_patch", "ssast_frame"])
def test_ssast_goes_back_to_the_published_keys(golden, name):
    tensors, meta = golden(name)
    state = {key: value for key, value in tensors.items() if key.startswith("module.")}
    back = to_ssast(from_ssast(state, num_heads=_num_heads(meta["model_size"])))
    never_used = ("module.v.head.", "module.v.head_dist.")
    assert set(back) == {key for key in state if not key.startswith(never_used)}
    for key, value in back.items():
        assert torch.equal(value, state[key]), key


def test_imagenet_weights_become_an_ast_as_released(golden):
    """H13: cut at the middle or interpolated, both class tokens kept, colours summed."""
    tensors, meta = golden("ast_imagenet_init")
    state = {
        key.removeprefix("imagenet."): value
        for key, value in tensors.items()
        if key.startswith("imagenet.")
    }
    lengths = _lengths(tensors, "t")
    assert lengths
    for frames in lengths:
        weights = from_imagenet(
            state,
            input_frames=frames,
            stride=(meta["tstride"], meta["fstride"]),
            input_bins=meta["mels"],
            num_heads=_num_heads(meta["model"]),
        )
        assert weights.encoder.patch == (meta["patch"], meta["patch"])
        encoder = _encoder(weights, meta)
        case = f"t{frames}"
        _close(encoder.pos_embed.detach(), tensors[f"{case}.pos_embed"])
        _close(_logits(encoder, tensors, case, "class_tokens"), tensors[f"{case}.logits"])
