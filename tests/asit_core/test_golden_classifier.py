"""Whole classifiers against the released programs' logits: every size is read from the files.

Tolerance: 1e-5 of the largest logit, that of float32 sums taken in another order.
"""

import re

import pytest
import torch
from torch import Tensor

from asit_core.classifier import Classifier, Pool
from asit_core.encoder import SpectrogramEncoder
from asit_core.interop import build, from_imagenet, from_ssast


def _cases(tensors: dict[str, Tensor], letters: str) -> dict[str, int]:
    """Name of each length's tensors, and the length in frames."""
    matches = (re.fullmatch(rf"({letters}(\d+))\.x", name) for name in tensors)
    cases = {match[1]: int(match[2]) for match in matches if match}
    assert cases
    return cases


def _check(
    encoder: SpectrogramEncoder, tensors: dict[str, Tensor], case: str, pool: Pool, name: str
) -> None:
    expected = tensors[f"{case}.{name}"]
    classifier = Classifier(encoder, num_classes=expected.shape[1], seed=0, pool=pool).eval()
    head = {
        key.removeprefix(f"{case}.mlp_head."): value
        for key, value in tensors.items()
        if key.startswith(f"{case}.mlp_head.")
    }
    # A norm that the file does not hold is as it began, one and zero.
    classifier.head.load_state_dict({**classifier.head.state_dict(), **head})
    log_mel = tensors[f"{case}.x"]
    every_patch = torch.arange(encoder.pos_embed.shape[1] - encoder.num_cls_tokens)
    tolerance = 1e-5 * expected.abs().max().item()
    for visible in (None, every_patch.expand(len(log_mel), -1)):
        with torch.no_grad():
            logits = classifier(log_mel, visible_BM=visible)
        torch.testing.assert_close(logits, expected, rtol=0.0, atol=tolerance)


@pytest.mark.parametrize("name", ["ssast_patch", "ssast_frame"])
def test_ssast_classifies_as_released(golden, name):
    tensors, meta = golden(name)
    state = {key: value for key, value in tensors.items() if key.startswith("module.")}
    pretrained = build(from_ssast(state)).encoder
    stride = (meta["finetune"]["tstride"], meta["finetune"]["fstride"])
    for case, frames in _cases(tensors, "ft").items():
        encoder = pretrained.refitted(input_frames=frames, stride=stride)
        _check(encoder, tensors, case, "mean", "logits_avgtok")
        _check(encoder, tensors, case, "class_tokens", "logits_cls")


def test_ast_classifies_as_released(golden):
    tensors, meta = golden("ast_imagenet_init")
    prefix = "imagenet."
    state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    for case, frames in _cases(tensors, "t").items():
        weights = from_imagenet(
            state,
            input_frames=frames,
            stride=(meta["tstride"], meta["fstride"]),
            input_bins=meta["mels"],
        )
        _check(build(weights).encoder, tensors, case, "class_tokens", "logits")
