"""SSAST's published keys, its forward pass, and the grid of checkpoints that do not say it."""

import re

import pytest
import torch

from asit_core.encoder import patch_grid
from asit_core.interop import build, from_ssast, to_ast, to_ssast
from asit_core.presets import create_pretrainer

SIZES = {"tiny": (192, 3, 2), "small": (384, 6, 2), "base": (768, 12, 2), "base_nokd": (768, 12, 1)}
NEVER_USED = ("module.v.head.", "module.v.head_dist.")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("patch", [(16, 16), (2, 128)])
def test_keys_and_shapes_of_every_released_size(published, size, patch):
    width, num_heads, num_cls = SIZES[size]
    shapes = published.ssast_shapes(width, patch=patch, num_cls=num_cls)
    state = published.empty(shapes, p_input_fdim=128, p_input_tdim=1024)
    weights = from_ssast(state)
    config = weights.encoder
    assert (config.embed_dim, config.depth, config.num_heads) == (width, 12, num_heads)
    assert (config.patch, config.stride, config.num_cls_tokens) == (patch, patch, num_cls)
    assert (weights.input_frames, config.input_bins) == (1024, 128)
    assert (config.token_order, config.position_adaptation) == ("frequency", "ssast")
    assert (weights.front_end.sample_rate_hz, weights.pool) == (16000, None)
    back = {name: tuple(tensor.shape) for name, tensor in to_ssast(weights).items()}
    assert back == {k: v for k, v in shapes.items() if not k.startswith(NEVER_USED)}


@pytest.mark.parametrize("size", SIZES)
def test_keys_and_shapes_of_fine_tuned_ones(published, size):
    """H15, and what the released loader refuses: no `p_input_*`."""
    width, _, num_cls = SIZES[size]
    shapes = published.ssast_shapes(width, num_patches=1212, num_cls=num_cls, num_classes=527)
    weights = from_ssast(published.empty(shapes))
    assert weights.encoder.stride == (10, 10)
    assert weights.input_frames == 1024
    assert weights.pool == "mean"
    assert weights.tensors["head.1.weight"].shape == (527, width)
    back = {name: tuple(tensor.shape) for name, tensor in to_ssast(weights).items()}
    assert back == {k: v for k, v in shapes.items() if not k.startswith(NEVER_USED)}


def test_a_missing_unknown_or_misshapen_key_is_named(published):
    state = published.empty(
        published.ssast_shapes(192, depth=2), p_input_fdim=128, p_input_tdim=1024
    )
    for name in state:
        if name.startswith(NEVER_USED):
            continue
        shown = name.removeprefix("module.v.").removeprefix("module.")
        shown = re.escape(shown.replace("patch_embed.proj.b", "patch_embed.b"))
        # Without its second class token a model has one, and a position too many.
        fault = "513 positions .* must fill a grid" if shown == "dist_token" else shown
        with pytest.raises(ValueError, match=rf"{fault}.*(must|is missing|but)"):
            from_ssast({key: value for key, value in state.items() if key != name})
    with pytest.raises(ValueError, match=r"its keys only, but got 'decoder.weight'"):
        from_ssast({**state, "module.decoder.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"must be the model's only, but got 'encoder.extra'"):
        from_ssast({**state, "module.v.extra": torch.zeros(1)})
    name = "module.v.blocks.1.attn.proj.weight"
    with pytest.raises(ValueError, match=r"blocks.1.attn.proj.weight must have shape \(192, 192\)"):
        from_ssast({**state, name: torch.zeros(192, 191)})


@pytest.mark.parametrize("prefix", ["module.", "", "_orig_mod.module."])
@pytest.mark.parametrize(("patch", "frames"), [((16, 16), 48), ((2, 128), 20)])
def test_tokens_equal_the_forward_pass_written_out(published, log_mels, prefix, patch, frames):
    """H12: their image is (mel, time), ours (time, mel)."""
    num_patches = (frames // patch[0]) * (128 // patch[1])
    shapes = published.ssast_shapes(192, depth=2, patch=patch, num_patches=num_patches)
    state = published.drawn(shapes, p_input_fdim=128, p_input_tdim=frames)
    vit = published.below(state, "module.v.")
    log_mel = log_mels(frames)
    expected = published.vit_tokens(vit, log_mel.mT[:, None], stride=patch[::-1])
    renamed = {prefix + k.removeprefix("module."): v for k, v in state.items()}
    encoder = build(from_ssast(renamed)).encoder
    torch.testing.assert_close(encoder(log_mel), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("patch", [(16, 16), (2, 128)])
def test_a_one_hot_patch_lands_where_ssast_puts_it(published, patch):
    """H12: frequency counts slowest, and the kernel's axes are exchanged."""
    frames, rows = 48, 128 // patch[1]
    columns = frames // patch[0]
    shapes = published.ssast_shapes(192, depth=1, patch=patch, num_patches=columns * rows)
    state = published.drawn(shapes, p_input_fdim=128, p_input_tdim=frames)
    encoder = build(from_ssast(state)).encoder
    kernel = state["module.v.patch_embed.proj.weight"]
    silent, _ = encoder.embed_patches(torch.zeros(1, frames, 128))
    for frame, mel in ((0, 0), (5, 3), (17, 120), (47, 127), (30, 64)):
        pixel = torch.zeros(1, frames, 128)
        pixel[0, frame, mel] = 1.0
        embedded, grid = encoder.embed_patches(pixel)
        changed = (embedded - silent)[0]
        column, row = frame // patch[0], mel // patch[1]
        assert changed.abs().sum(1).nonzero().flatten().tolist() == [row * columns + column]
        torch.testing.assert_close(
            changed[row * columns + column],
            kernel[:, 0, mel % patch[1], frame % patch[0]],
            rtol=1e-5,
            atol=1e-6,
        )
        on_grid = patch_grid(embedded - silent, grid, "frequency")[0]
        assert on_grid[column, row].abs().sum() > 0


def test_a_fine_tuned_one_gives_its_logits(published, log_mels):
    shapes = published.ssast_shapes(192, depth=2, num_patches=12 * 11, num_classes=5)
    state = published.drawn(shapes)
    loaded = build(from_ssast(state, input_frames=120))
    log_mel = log_mels(120)
    vit = published.below(state, "module.v.")
    tokens = published.vit_tokens(vit, log_mel.mT[:, None], stride=(10, 10))
    head = published.below(state, "module.mlp_head.")
    expected = published.logits(head, tokens[:, 2:].mean(1))
    assert loaded.classifier is not None
    torch.testing.assert_close(loaded.classifier(log_mel), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_cls", [1, 2])
def test_class_tokens_are_pooled_when_told(published, log_mels, num_cls):
    shapes = published.ssast_shapes(
        192, depth=1, num_patches=12 * 11, num_cls=num_cls, num_classes=5
    )
    state = published.drawn(shapes)
    weights = from_ssast(state, input_frames=120, pool="class_tokens")
    classifier = build(weights).classifier
    assert classifier is not None
    vit = published.below(state, "module.v.")
    tokens = published.vit_tokens(vit, log_mels(120).mT[:, None], stride=(10, 10))
    head = published.below(state, "module.mlp_head.")
    expected = published.logits(head, tokens[:, :num_cls].mean(1))
    torch.testing.assert_close(classifier(log_mels(120)), expected, rtol=1e-5, atol=1e-5)
    back = to_ssast(weights)
    assert all(torch.equal(back[name], state[name]) for name in back)


def test_pool_is_for_heads(published):
    state = published.empty(
        published.ssast_shapes(192, depth=1), p_input_fdim=128, p_input_tdim=1024
    )
    with pytest.raises(ValueError, match=r"pool must be left out for a model without a head"):
        from_ssast(state, pool="mean")
    with pytest.raises(ValueError, match=r"pool must be one of mean, class_tokens, .* 'max'"):
        from_ssast(state, pool="max")  # pyright: ignore[reportArgumentType]


def test_what_a_pretrained_one_says_cannot_be_said_again(published):
    state = published.empty(
        published.ssast_shapes(192, depth=1), p_input_fdim=128, p_input_tdim=1024
    )
    with pytest.raises(ValueError, match=r"input_frames must be left out, .* but got 512"):
        from_ssast(state, input_frames=512)
    with pytest.raises(ValueError, match=r"none fits clips of 998 frames"):
        from_ssast({**state, "module.p_input_tdim": torch.tensor(998)})


def test_heads_that_weights_do_not_show(published):
    state = published.empty(
        published.ssast_shapes(96, depth=1), p_input_fdim=128, p_input_tdim=1024
    )
    with pytest.raises(ValueError, match=r"give num_heads: .* embed_dim is 96, none of the publ"):
        from_ssast(state)
    eight = published.empty(
        published.ssast_shapes(512, depth=1), p_input_fdim=128, p_input_tdim=1024
    )
    with pytest.raises(ValueError, match=r"give num_heads: .* embed_dim is 512"):
        from_ssast(eight)
    assert from_ssast(state, num_heads=3).encoder.num_heads == 3


def test_only_an_ssast_goes_back(published):
    weights = from_ssast(
        published.empty(published.ssast_shapes(192, depth=1, num_patches=1212, num_classes=3))
    )
    with pytest.raises(ValueError, match=r"pool must be class_tokens or class_token .* got 'mean'"):
        to_ast(weights)


@pytest.mark.parametrize(
    ("patch", "preset"), [((16, 16), "ssast_patch"), ((2, 128), "ssast_frame")]
)
def test_the_pretext_heads_are_a_pretrainers(published, patch, preset):
    """All that `Pretrainer` has to learn comes from the file, under its own names."""
    pretrainer = create_pretrainer(preset, size="tiny")
    shapes = published.ssast_shapes(192, patch=patch)
    weights = from_ssast(published.drawn(shapes, p_input_fdim=128, p_input_tdim=1024))
    found = {f"student.encoder.{name}": tensor for name, tensor in weights.part("encoder").items()}
    found |= weights.part("pretext")
    pretrainer.load_state_dict(found)
    row = pretrainer.get_parameter("patch_regression.head.mlp.2.weight")[3]  # frame 0, bin 3
    name = "module.gpredlayer.2.weight"
    assert torch.equal(row, published.drawn({name: shapes[name]})[name][3 * patch[0]])
