"""Weights of timm's own image models, seen as spectrogram models."""

import pytest
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer

from asit_core import seeding
from asit_core.interop import build, from_imagenet


def _timm(kind, **given):
    options = {"patch_size": 16, **given}
    with torch.random.fork_rng(devices=[]):
        model = kind(img_size=48, embed_dim=192, depth=2, num_heads=3, **options)
    for index, parameter in enumerate(model.parameters()):
        noise = torch.randn(parameter.shape, generator=seeding.stream(index, "timm"))
        parameter.data.add_(0.1 * noise)
    return model.eval()


@pytest.mark.parametrize(
    ("kind", "num_cls"), [(VisionTransformer, 1), (VisionTransformerDistilled, 2)]
)
def test_a_grey_picture_gives_timms_own_tokens(kind, num_cls, log_mels):
    """H12, H14: a picture's columns are time; colours of one value add up."""
    model = _timm(kind)
    weights = from_imagenet(
        model.state_dict(), input_frames=48, stride=(16, 16), input_bins=48, channels="sum"
    )
    assert weights.encoder.num_cls_tokens == num_cls
    log_mel = log_mels(48, bins=48)
    picture = log_mel.mT[:, None].expand(-1, 3, -1, -1)
    encoder = build(weights).encoder
    torch.testing.assert_close(
        encoder(log_mel), model.forward_features(picture), rtol=1e-5, atol=1e-5
    )


def test_the_papers_mean_is_a_third_of_the_programs_sum():
    state = _timm(VisionTransformer).state_dict()
    name = "encoder.patch_embed.weight"
    summed, mean = (from_imagenet(state, channels=how).tensors[name] for how in ("sum", "mean"))
    torch.testing.assert_close(summed, 3.0 * mean)
    kernel = state["patch_embed.proj.weight"]
    torch.testing.assert_close(summed[:, 0], (kernel[:, 0] + kernel[:, 1] + kernel[:, 2]).mT)


def test_the_default_is_asts_own_input():
    weights = from_imagenet(_timm(VisionTransformerDistilled).state_dict())
    assert (weights.input_frames, weights.encoder.stride) == (1024, (10, 10))
    assert weights.encoder.grid_of(1024) == (101, 12)
    assert weights.tensors["encoder.pos_embed"].shape == (1, 2 + 1212, 192)
    assert weights.pool is None


def test_what_is_not_a_square_picture_says_so():
    state = _timm(VisionTransformer).state_dict()
    with pytest.raises(ValueError, match=r"square grid, but got 8 patches of 16 x 16 pixels"):
        from_imagenet({**state, "pos_embed": state["pos_embed"][:, 1:]})
    with pytest.raises(ValueError, match=r"channels must be one of sum, mean, but got 'max'"):
        from_imagenet(state, channels="max")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"ImageNet weights must hold 'cls_token', but does not"):
        from_imagenet({})


def test_small_patches_do_not_leave_gaps():
    """Patches of 8 are shorter than AST's stride of 10."""
    weights = from_imagenet(_timm(VisionTransformer, patch_size=8).state_dict())
    assert (weights.encoder.patch, weights.encoder.stride) == ((8, 8), (8, 8))
