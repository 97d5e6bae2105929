"""SSAST's pretext tasks against the released program: every size is read from the reference files.

Tolerances are those of float32 sums taken in another order: 1e-5 of the value.
"""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from asit_core.encoder_config import EncoderConfig
from asit_core.optim import OptimizerConfig
from asit_core.pretext.patch_discrimination import PatchDiscriminationConfig
from asit_core.pretext.patch_regression import PatchRegressionConfig
from asit_core.pretrain_inputs import SHARED_PASS
from asit_core.pretrainer import PretextConfig, PretrainConfig, Pretrainer, PretrainInputs
from asit_core.token_masking import TokenMaskingConfig, TokenMasks
from asit_core.views import ViewsConfig

FILES = ("ssast_patch", "ssast_frame")
_RENAMED = {
    "v.patch_embed.proj.": "student.encoder.patch_embed.",
    "v.": "student.encoder.",
    "cpredlayer.": "patch_discrimination.head.mlp.",
    "gpredlayer.": "patch_regression.head.mlp.",
    "mask_embed": "masked_tokens.mask_embed",
}
_UNUSED = ("v.head.", "v.head_dist.", "p_input_", "v.dist_token")


def _num_heads(meta: dict[str, Any]) -> int:
    found = re.search(r"(\d+) heads", meta["model_size"])
    assert found, f"the reference must say its number of heads, but says {meta['model_size']!r}"
    return int(found[1])


def _config(tensors: dict[str, Tensor], meta: dict[str, Any]) -> PretrainConfig:
    embed_dim, _, patch_bins, patch_frames = tensors["module.v.patch_embed.proj.weight"].shape
    blocks = {key.split(".")[3] for key in tensors if key.startswith("module.v.blocks.")}
    return PretrainConfig(
        encoder=EncoderConfig(
            embed_dim=embed_dim,
            depth=len(blocks),
            num_heads=_num_heads(meta),
            mlp_ratio=tensors["module.v.blocks.0.mlp.fc1.weight"].shape[0] / embed_dim,
            patch_frames=patch_frames,
            patch_bins=patch_bins,
            input_bins=meta["mels"],
            num_cls_tokens=2,
            token_order="frequency",
            drop_path_rate=0.0,
            norm_eps=meta["layernorm_eps"],
        ),
        views=ViewsConfig(num_views=1, crop_frames=meta["input_frames"]),
        masking=None,
        token_masking=TokenMaskingConfig(num_masked=meta["masked"]),
        pretext=PretextConfig(
            patch_discrimination=PatchDiscriminationConfig(softmax_over="predictions"),
            patch_regression=PatchRegressionConfig(weight=10.0),
        ),
        optimizer=OptimizerConfig(),
    )


def _by_frames(value: Tensor, patch: tuple[int, int]) -> Tensor:
    """Rows that stand for a patch's pixels bin by bin, reordered to frame by frame."""
    frames, bins = patch
    return value.unflatten(0, (bins, frames)).transpose(0, 1).flatten(0, 1)


def _pretrainer(tensors: dict[str, Tensor], meta: dict[str, Any]) -> Pretrainer:
    config = _config(tensors, meta)
    state = {}
    for name, value in tensors.items():
        key = name.removeprefix("module.")
        if key == name or key.startswith(_UNUSED):
            continue
        if key == "v.cls_token":
            value = torch.cat([value, tensors["module.v.dist_token"]], dim=1)
        elif key == "v.patch_embed.proj.weight":
            value = value.transpose(2, 3)
        elif key.startswith(("cpredlayer.2", "gpredlayer.2")):
            value = _by_frames(value, config.encoder.patch)
        old = next(old for old in _RENAMED if key.startswith(old))
        state[_RENAMED[old] + key.removeprefix(old)] = value
    pretrainer = Pretrainer(config, seed=0)
    pretrainer.load_state_dict(state)  # strict: every parameter has an official counterpart
    return pretrainer


def _inputs(tensors: dict[str, Tensor], pretrainer: Pretrainer) -> PretrainInputs:
    masked = tensors["mask_index"]
    columns, rows = pretrainer.student.encoder.grid
    visible = [sorted(set(range(columns * rows)) - set(clip)) for clip in masked.tolist()]
    views = tensors["x"].unsqueeze(0)
    masks = TokenMasks(masked, torch.tensor(visible))
    return PretrainInputs(views, views, token_masks={SHARED_PASS: masks})


@pytest.mark.parametrize("name", FILES)
def test_losses_and_accuracy_equal_the_released_program(golden, name):
    tensors, meta = golden(name)
    pretrainer = _pretrainer(tensors, meta)
    report = pretrainer(_inputs(tensors, pretrainer))
    expected = {
        "nce": report.losses["patch_discrimination"],
        "mse": report.losses["patch_regression"],
        "joint": report.total,
    }
    for key, ours in expected.items():
        theirs = tensors[key].item()
        assert ours.item() == pytest.approx(theirs, rel=1e-5), key
    # A count of rows: exact.
    count = tensors["mask_index"].numel()
    accuracy = report.metrics["patch_discrimination/accuracy"].item()
    assert round(accuracy * count) == round(tensors["acc"].item() * count)


@pytest.mark.parametrize("name", FILES)
def test_the_papers_softmax_is_another_one(golden, name):
    tensors, meta = golden(name)
    pretrainer = _pretrainer(tensors, meta)
    assert pretrainer.patch_discrimination is not None
    pretrainer.patch_discrimination.softmax_over = "targets"
    loss = pretrainer(_inputs(tensors, pretrainer)).losses["patch_discrimination"].item()
    assert loss != pytest.approx(tensors["nce"].item(), rel=1e-5)
