"""AST's published keys, its logits, and the way back."""

import pytest
import torch

from asit_core.interop import build, from_ast, to_ast

SIZES = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}
NEVER_USED = ("module.v.head.", "module.v.head_dist.")


@pytest.mark.parametrize(
    ("size", "stride", "num_patches"),
    [
        ("tiny", 10, 1212),
        ("small", 10, 1212),
        ("base", 10, 1212),
        ("base", 12, 850),
        ("base", 14, 657),
        ("base", 16, 512),
    ],
)
def test_keys_and_shapes_of_every_size_and_stride(published, size, stride, num_patches):
    width, num_heads = SIZES[size]
    shapes = published.ssast_shapes(width, num_patches=num_patches, num_classes=527)
    weights = from_ast(published.empty(shapes))
    config = weights.encoder
    assert (config.embed_dim, config.depth, config.num_heads) == (width, 12, num_heads)
    assert (config.patch, config.stride) == ((16, 16), (stride, stride))
    assert (weights.input_frames, config.input_bins) == (1024, 128)
    assert (config.num_cls_tokens, weights.pool) == (2, "class_tokens")
    assert (config.token_order, config.position_adaptation) == ("frequency", "ast")
    back = {name: tuple(tensor.shape) for name, tensor in to_ast(weights).items()}
    assert back == {k: v for k, v in shapes.items() if not k.startswith(NEVER_USED)}


@pytest.mark.parametrize(("step", "frames"), [(10, 128), (16, 128), (10, 57)])
def test_logits_equal_the_forward_pass_written_out(published, log_mels, step, frames):
    columns, rows = (frames - 16) // step + 1, (128 - 16) // step + 1
    shapes = published.ssast_shapes(192, depth=2, num_patches=columns * rows, num_classes=4)
    state = published.drawn(shapes)
    loaded = build(from_ast(state, input_frames=frames, stride=(step, step)))
    log_mel = log_mels(frames)
    tokens = published.vit_tokens(
        published.below(state, "module.v."), log_mel.mT[:, None], stride=(step, step)
    )
    pooled = (tokens[:, 0] + tokens[:, 1]) / 2
    expected = published.logits(published.below(state, "module.mlp_head."), pooled)
    assert loaded.classifier is not None
    torch.testing.assert_close(loaded.encoder(log_mel), tokens, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loaded.classifier(log_mel), expected, rtol=1e-5, atol=1e-5)


def test_the_way_back_changes_nothing(published):
    state = published.drawn(published.ssast_shapes(192, depth=2, num_patches=1212, num_classes=3))
    back = to_ast(from_ast(state))
    for name, tensor in back.items():
        assert torch.equal(tensor, state[name]), name
    again = from_ast(back)
    assert again.encoder == from_ast(state).encoder
    assert again.tensors.keys() == from_ast(state).tensors.keys()


def test_what_is_not_an_ast_says_so(published):
    shapes = published.ssast_shapes(192, depth=1, num_patches=1212, num_classes=3)
    state = published.empty(shapes)
    with pytest.raises(ValueError, match=r"AST .* its keys only, but got 'mask_embed'"):
        from_ast({**state, "module.mask_embed": torch.zeros(1, 1, 64)})
    with pytest.raises(ValueError, match=r"below `v.`, must hold 'cls_token', but does not"):
        from_ast({"module.cls_token": torch.zeros(1, 1, 64)})
    colours = torch.empty(192, 3, 16, 16, device="meta")
    with pytest.raises(ValueError, match=r"patch_embed.proj.weight must have one channel, .* 3"):
        from_ast({**state, "module.v.patch_embed.proj.weight": colours})
    del state["module.mlp_head.1.bias"]
    with pytest.raises(ValueError, match=r"head.1.bias must have shape \(3,\), but is missing"):
        from_ast(state)
