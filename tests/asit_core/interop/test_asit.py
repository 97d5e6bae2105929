"""ASiT training checkpoints: both networks, both weight norms, and the way back."""

import argparse

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from asit_core.interop import build, from_asit, to_asit
from asit_core.presets import create_pretrainer

SIZES = {"small": (384, 6), "base": (768, 12)}  # the program's; it has no tiny one


def _file(published, shapes):
    """What the program writes: `module.` before the student's names only."""
    teacher = published.drawn(shapes)
    return {
        "student": {f"module.{name}": 0.5 * tensor for name, tensor in teacher.items()}
        | {f"module.{k}": v for k, v in teacher.items() if k.endswith("weight_g")},
        "teacher": teacher,
        "optimizer": {"state": {}, "param_groups": []},
        "epoch": 3,
        "args": argparse.Namespace(lr=5e-4, data_path="x"),
        "loss_cls": {"center": torch.full((1, 8192), 0.25)},
        "loss_data": {"center": torch.full((1, 1, 1024), 0.5)},
    }


@pytest.mark.parametrize("size", SIZES)
def test_keys_and_shapes_of_every_size(published, size):
    width, num_heads = SIZES[size]
    shapes = published.asit_shapes(width)
    state = published.empty(shapes)
    weights = from_asit({"teacher": state, "student": {f"module.{k}": v for k, v in state.items()}})
    config = weights.encoder
    assert (config.embed_dim, config.depth, config.num_heads) == (width, 12, num_heads)
    assert (weights.input_frames, config.input_bins, config.patch) == (592, 128, (16, 16))
    assert (config.token_order, config.num_cls_tokens) == ("time", 1)
    assert weights.front_end.sample_rate_hz == 32000
    back = {name: tuple(tensor.shape) for name, tensor in to_asit(weights).items()}
    assert back == shapes


def test_published_parameter_counts(published):
    """Million parameters of ViT-B, its projection with prototypes, and its decoder."""
    weights = from_asit(published.empty(published.asit_shapes(768)))
    counts = {"encoder": 0, "pretext.reconstruction": 0, "pretext.": 0}
    for name, tensor in weights.tensors.items():
        counts[next(part for part in counts if name.startswith(part))] += tensor.numel()
    assert [round(count / 1e6, 2) for count in counts.values()] == [85.48, 1.31, 8.66]


@pytest.mark.parametrize("network", ["teacher", "student"])
def test_tokens_equal_the_forward_pass_written_out(published, log_mels, network):
    """H12: its image is (time, mel), so nothing is exchanged; H5: `module.` is stripped."""
    shapes = published.asit_shapes(192, depth=2, num_patches=3 * 8)
    content = _file(published, shapes)
    weights = from_asit(content, network=network)
    assert weights.source == f"asit_{network}"
    prefix = {"teacher": "", "student": "module."}[network]
    vit = published.below(content[network], f"{prefix}backbone.")
    log_mel = log_mels(48)
    expected = published.vit_tokens(vit, log_mel[:, None], stride=(16, 16))
    encoder = build(weights).encoder
    torch.testing.assert_close(encoder(log_mel), expected, rtol=1e-5, atol=1e-5)


def test_a_one_hot_patch_lands_where_asit_puts_it(published):
    """H12: time counts slowest, and the kernel is (time, mel)."""
    state = published.drawn(published.asit_shapes(192, depth=1, num_patches=3 * 8))
    encoder = build(from_asit(state)).encoder
    silent, _ = encoder.embed_patches(torch.zeros(1, 48, 128))
    for frame, mel in ((0, 0), (5, 3), (17, 120), (47, 127)):
        pixel = torch.zeros(1, 48, 128)
        pixel[0, frame, mel] = 1.0
        changed = (encoder.embed_patches(pixel)[0] - silent)[0]
        at = frame // 16 * 8 + mel // 16
        assert changed.abs().sum(1).nonzero().flatten().tolist() == [at]
        kernel = state["backbone.patch_embed.proj.weight"][:, 0, frame % 16, mel % 16]
        torch.testing.assert_close(changed[at], kernel, rtol=1e-5, atol=1e-6)


def test_both_ways_to_normalise_weights_are_read(published):
    """H4: the deprecated names and those of `parametrizations`."""
    layer = parametrizations.weight_norm(nn.Linear(256, 8192, bias=False))
    names = sorted(layer.state_dict())
    assert names == ["parametrizations.weight.original0", "parametrizations.weight.original1"]
    old = published.drawn(published.asit_shapes(192, depth=1, num_patches=8))
    new = {
        name.replace("weight_g", names[0]).replace("weight_v", names[1]): tensor
        for name, tensor in old.items()
    }
    assert new.keys() != old.keys()
    ours, theirs = from_asit(old).tensors, from_asit(new).tensors
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_centres_and_prototypes_come_along(published):
    """H6: a resumed run needs its centres."""
    content = _file(published, published.asit_shapes(192, depth=1, num_patches=8))
    pretext = from_asit(content).part("pretext")
    assert torch.equal(pretext["clip_distillation.center.value_K"], torch.full((8192,), 0.25))
    assert torch.equal(pretext["patch_distillation.center.value_K"], torch.full((1024,), 0.5))
    teacher = content["teacher"]
    assert torch.equal(pretext["clip_prototypes.direction"], teacher["head_cls.cls_layer.weight_v"])
    back = to_asit(from_asit(content))
    assert back.keys() == teacher.keys()
    assert all(torch.equal(back[name], teacher[name]) for name in back)


def test_both_networks_fill_a_pretrainer(published):
    """All of `asit_code` comes from the file: nothing is left at its initial values."""
    pretrainer = create_pretrainer("asit_code", size="tiny")
    content = _file(published, published.asit_shapes(192))
    state = {}
    for network in ("teacher", "student"):
        weights = from_asit(content, network=network)
        for name, tensor in weights.part("encoder").items():
            state[f"{network}.encoder.{name}"] = tensor
        for name, tensor in weights.part("pretext").items():
            own = name.startswith(("projection.", "clip_prototypes.", "patch_prototypes."))
            state[f"{network}.{name}" if own else name] = tensor
    assert pretrainer.load_state_dict(state, strict=False) == ([], [])  # missing, unexpected


def test_what_is_not_an_asit_says_so(published):
    state = published.drawn(published.asit_shapes(192, depth=1, num_patches=8))
    gain = "head_cls.data_layer.weight_g"
    with pytest.raises(ValueError, match=rf"{gain} must be 1, as ASiT freezes it"):
        from_asit({**state, gain: 2.0 * state[gain]})
    with pytest.raises(ValueError, match=r"must hold its keys only, but got 'mask_embed'"):
        from_asit({**state, "mask_embed": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"network must be in the checkpoint, but got 'student'"):
        from_asit({"teacher": state}, network="student")
    with pytest.raises(ValueError, match=r"one of teacher, student, but got 'ema'"):
        from_asit(state, network="ema")  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        ValueError, match=r"whole columns of 7 patches \(112 bins\), but 1 are left"
    ):
        from_asit(state, input_bins=112)
