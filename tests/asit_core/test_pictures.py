"""What a picture shows, read back from the pixels."""

import dataclasses

import pytest
import torch

from asit_core.decoder import DecoderConfig
from asit_core.networks import patch_pixels
from asit_core.pictures import picture
from asit_core.pretext.patch_discrimination import PatchDiscriminationConfig
from asit_core.pretext.patch_regression import PatchRegressionConfig
from asit_core.pretrain_inputs import draw_inputs
from asit_core.pretrainer import PretextConfig, PretrainConfig, Pretrainer, PretrainInputs
from asit_core.seeding import stream
from asit_core.token_losses import patch_mse
from asit_core.token_masking import TokenMaskingConfig


def _inputs(config: PretrainConfig) -> PretrainInputs:
    log_mel = torch.randn(4, 50, 16, generator=stream(0, "test_input"))
    frames, ids = torch.full((4,), 50), ["a", "b", "c", "d"]
    return draw_inputs(config, log_mel, frames, ids, mean=0.0, std=0.5, seed=0, epoch=0)


def _tokens_config(micro_config: PretrainConfig, pretext: PretextConfig) -> PretrainConfig:
    return dataclasses.replace(
        micro_config,
        encoder=dataclasses.replace(micro_config.encoder, token_order="frequency"),
        masking=None,
        token_masking=TokenMaskingConfig(num_masked=4, shared_pass=False),
        decoder=DecoderConfig(embed_dim=8, depth=1, num_heads=2),
        pretext=pretext,
    )


def test_corrupted_pixels_and_their_reconstruction(micro_config):
    pretrainer, inputs = Pretrainer(micro_config, seed=0), _inputs(micro_config)
    drawn = picture(pretrainer, inputs)
    assert torch.equal(drawn.corrupted_BTF, inputs.corrupted_VBTF[0])
    assert torch.equal(drawn.mask_BTF, inputs.mask_VBTF[0])  # pyright: ignore[reportOptionalSubscript]
    assert pretrainer.reconstruction is not None
    tokens = pretrainer.student.encoder(inputs.corrupted_VBTF[0])[:, 1:]
    expected = pretrainer.reconstruction.reconstruct(tokens)
    assert torch.equal(drawn.reconstructed_BTF, expected)  # pyright: ignore[reportArgumentType]


def test_without_corruption_nothing_is_marked_and_without_a_drawing_task_nothing_drawn(
    micro_config,
):
    pretext = PretextConfig(clip_distillation=micro_config.pretext.clip_distillation)
    config = dataclasses.replace(micro_config, masking=None, pretext=pretext)
    inputs = _inputs(config)
    drawn = picture(Pretrainer(config, seed=0), inputs)
    assert torch.equal(drawn.corrupted_BTF, inputs.clean_VBTF[0])
    assert not drawn.mask_BTF.any()
    assert drawn.reconstructed_BTF is None


@pytest.mark.parametrize("normalize_target", [False, True])
def test_masked_patches_and_what_is_drawn_in_their_place(micro_config, normalize_target):
    pretext = PretextConfig(
        patch_discrimination=PatchDiscriminationConfig(),
        patch_regression=PatchRegressionConfig(normalize_target=normalize_target),
    )
    config = _tokens_config(micro_config, pretext)
    pretrainer, inputs = Pretrainer(config, seed=0), _inputs(config)
    drawn, clean = picture(pretrainer, inputs), inputs.clean_VBTF[0]
    assert drawn.mask_BTF.double().mean().item() == 0.5  # 4 of 8 patches
    assert torch.equal(drawn.corrupted_BTF, clean.masked_fill(drawn.mask_BTF, 0.0))
    assert drawn.reconstructed_BTF is not None
    assert torch.equal(drawn.reconstructed_BTF[~drawn.mask_BTF], clean[~drawn.mask_BTF])
    masked = inputs.token_masks["patch_regression"].masked_BM[:4]
    is_masked = patch_pixels(drawn.mask_BTF.float(), config.encoder).all(dim=2)
    assert torch.equal(is_masked.nonzero()[:, 1].unflatten(0, (4, 4)), masked)
    if not normalize_target:
        hidden = drawn.reconstructed_BTF[drawn.mask_BTF] - clean[drawn.mask_BTF]
        first_view = inputs._replace(clean_VBTF=inputs.clean_VBTF[:1])
        masks = inputs.token_masks["patch_regression"]
        masks = type(masks)(masks.masked_BM[:4], masks.visible_BU[:4])
        tokens, pixels = pretrainer.masked_patches(first_view, masks)
        assert pretrainer.patch_regression is not None
        loss = patch_mse(pretrainer.patch_regression.head(tokens), pixels)
        torch.testing.assert_close(hidden.square().mean(), loss.detach(), rtol=1e-5, atol=1e-6)


def test_normalised_targets_are_drawn_at_the_patchs_own_level(micro_config):
    """A head that predicts zeros draws each masked patch as its mean."""
    pretext = PretextConfig(patch_regression=PatchRegressionConfig(normalize_target=True))
    config = _tokens_config(micro_config, pretext)
    pretrainer, inputs = Pretrainer(config, seed=0), _inputs(config)
    assert pretrainer.patch_regression is not None
    with torch.no_grad():
        for parameter in pretrainer.patch_regression.head.parameters():
            parameter.zero_()
    drawn = picture(pretrainer, inputs)
    assert drawn.reconstructed_BTF is not None
    patches = patch_pixels(drawn.reconstructed_BTF, config.encoder)
    true = patch_pixels(inputs.clean_VBTF[0], config.encoder)
    masked = patch_pixels(drawn.mask_BTF.float(), config.encoder).all(dim=2)
    expected = true.mean(dim=2, keepdim=True).expand_as(true)
    torch.testing.assert_close(patches[masked], expected[masked])


def test_a_task_that_only_discriminates_draws_nothing(micro_config):
    pretext = PretextConfig(patch_discrimination=PatchDiscriminationConfig())
    config = _tokens_config(micro_config, pretext)
    drawn = picture(Pretrainer(config, seed=0), _inputs(config))
    assert drawn.mask_BTF.any()
    assert drawn.reconstructed_BTF is None
