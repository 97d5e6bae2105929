"""How the parts of a pre-training configuration must fit together, and what each refusal says."""

import dataclasses
from typing import Any

import pytest

from asit_core.decoder import DecoderConfig
from asit_core.masking import MaskingConfig
from asit_core.pretext.patch_discrimination import PatchDiscriminationConfig
from asit_core.pretext.patch_distillation import PatchDistillationConfig
from asit_core.pretext.patch_regression import PatchRegressionConfig
from asit_core.pretext.reconstruction import ReconstructionConfig
from asit_core.pretrain_config import NormalizationConfig, PretextConfig, PretrainConfig
from asit_core.token_masking import TokenMaskingConfig

DISCRIMINATION = PretextConfig(patch_discrimination=PatchDiscriminationConfig())
REGRESSION = PretextConfig(patch_regression=PatchRegressionConfig())
RECONSTRUCTION = PretextConfig(reconstruction=ReconstructionConfig())
DECODER = DecoderConfig(embed_dim=8, depth=1, num_heads=2)
TOKENS = TokenMaskingConfig(num_masked=4)


@pytest.fixture
def with_tokens(micro_config: PretrainConfig) -> PretrainConfig:
    """A task on 8 patch tokens, and nothing else."""
    return dataclasses.replace(
        micro_config,
        masking=None,
        token_masking=TOKENS,
        pretext=REGRESSION,
        projection_head=None,
        teacher=None,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher": None}, "teacher must be given for patch_distillation, clip_distillation, but"),
        ({"projection_head": None}, "projection_head must be given for patch_distillation.*null"),
        ({"token_masking": TOKENS}, "token_masking must be null without patch_discrimination or"),
        ({"decoder": DECODER}, "decoder must be null without token_masking, but is given"),
        (
            {"masking": MaskingConfig(ratio=0.0, alien_ratio=0.0)},
            "^ratio or alien_ratio must be above 0 for reconstruction, which learns from what is "
            "hidden, or masking null, but got 0.0 and 0.0",
        ),
        (
            {"masking": MaskingConfig(alien_probability=1.0, alien_ratio=0.0)},
            "^alien_ratio must be above 0 for reconstruction, .* but got 0.0$",
        ),
        (
            {
                "masking": MaskingConfig(ratio=0.0, alien_probability=0.0),
                "pretext": PretextConfig(patch_distillation=PatchDistillationConfig(tokens="half")),
            },
            "^ratio must be above 0 for patch_distillation, .* or masking null, but got 0.0$",
        ),
    ],
)
def test_tasks_on_pixels_that_could_learn_nothing_are_refused(micro_config, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(micro_config, **change)


FULL = PretextConfig(patch_distillation=PatchDistillationConfig(tokens="full"))


@pytest.mark.parametrize(
    ("block_max", "align", "largest"),
    [
        (0.3, 1, "8 x 3"),  # too narrow for a patch of 8 x 8
        (0.5, 1, "15 x 7"),  # sides stay below block_max: 8 of 16 bins are never drawn
        (0.5, 5, "15 x 5"),
    ],
)
def test_whole_patches_that_no_rectangle_hides_are_refused(micro_config, block_max, align, largest):
    masking = MaskingConfig(ratio=0.4, block_max=block_max, align=align)
    message = rf"tokens must be all, any or half .*{largest}.* patch of 8 x 8, but got 'full'"
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(micro_config, masking=masking, pretext=FULL)


@pytest.mark.parametrize(("block_max", "align"), [(0.6, 1), (0.6, 8)])
def test_whole_patches_that_a_rectangle_hides_are_distilled(micro_config, block_max, align):
    masking = MaskingConfig(ratio=0.4, block_max=block_max, align=align)
    for allowed in (masking, None):
        config = dataclasses.replace(micro_config, masking=allowed, pretext=FULL)
        assert (config.masking, config.pretext) == (allowed, FULL)


def test_one_pixel_has_no_deviation_to_normalize(with_tokens):
    pixels = dataclasses.replace(with_tokens.encoder, patch_frames=1, patch_bins=1)
    pretext = PretextConfig(patch_regression=PatchRegressionConfig(normalize_target=True))
    with pytest.raises(ValueError, match="normalize_target must be false for patches of 1 x 1"):
        dataclasses.replace(with_tokens, encoder=pixels, pretext=pretext)
    dataclasses.replace(with_tokens, encoder=pixels)
    rows = dataclasses.replace(pixels, patch_bins=2)
    dataclasses.replace(with_tokens, encoder=rows, pretext=pretext)


def test_patch_distillation_over_all_tokens_needs_no_corruption(micro_config):
    masking = MaskingConfig(ratio=0.0, alien_ratio=0.0)
    pretext = PretextConfig(patch_distillation=PatchDistillationConfig())
    config = dataclasses.replace(micro_config, masking=masking, pretext=pretext)
    assert config.masking is not None
    assert config.masking.hides_nothing


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token_masking": None}, "token_masking must be given for patch_regression, but got null"),
        (
            {"token_masking": None, "pretext": DISCRIMINATION},
            "token_masking must be given for patch_discrimination, but got null",
        ),
        ({"masking": MaskingConfig()}, "masking must be null without reconstruction, patch_dist.*"),
        (
            {"pretext": RECONSTRUCTION},
            "token_masking must be null without patch_discrimination or patch_regression",
        ),
        (
            {"token_masking": TokenMaskingConfig(num_masked=8)},
            "num_masked must mask at most 7 of a view's 8 patches, but got 8",
        ),
        (
            {"token_masking": TokenMaskingConfig(num_masked=1), "pretext": DISCRIMINATION},
            "num_masked must mask at least 2 patches for patch_discrimination.*but got 1",
        ),
        (
            {"token_masking": TokenMaskingConfig(ratio=0.1), "pretext": DISCRIMINATION},
            "ratio must mask at least 2 patches for patch_discrimination.*but got 0.1",
        ),
    ],
)
def test_tasks_on_tokens_that_could_learn_nothing_are_refused(with_tokens, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(with_tokens, **change)


@pytest.mark.parametrize(
    ("encoder", "pretext", "message"),
    [
        (
            {"stride_frames": 4},
            RECONSTRUCTION,
            r"stride_frames must be null or 8 \(patch_frames\) for reconstruction.*but got 4",
        ),
        (
            {"stride_bins": 2},
            REGRESSION,
            r"stride_bins must be null or 8 \(patch_bins\) for patch_regression.*but got 2",
        ),
    ],
)
def test_patches_that_overlap_cannot_be_drawn(with_tokens, encoder, pretext, message):
    changes: dict[str, Any] = {"encoder": dataclasses.replace(with_tokens.encoder, **encoder)}
    if pretext is RECONSTRUCTION:
        changes["token_masking"] = None
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(with_tokens, **changes, pretext=pretext)


def test_patches_that_overlap_can_be_distilled(micro_config):
    encoder = dataclasses.replace(micro_config.encoder, stride_frames=5, stride_bins=3)
    pretext = PretextConfig(patch_distillation=PatchDistillationConfig(tokens="any"))
    dataclasses.replace(micro_config, encoder=encoder, pretext=pretext)
    views = dataclasses.replace(micro_config.views, crop_frames=7)
    with pytest.raises(ValueError, match=r"crop_frames must be at least patch_frames \(8\).*got 7"):
        dataclasses.replace(micro_config, encoder=encoder, pretext=pretext, views=views)


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (PatchDistillationConfig, {"tokens": "some"}, "tokens must be one of all, any, half, full"),
        (
            PatchDiscriminationConfig,
            {"softmax_over": "rows"},
            "softmax_over must be one of predictions, targets, but got 'rows'",
        ),
        (PatchDiscriminationConfig, {"num_layers": 3}, "num_layers must be one of 1, 2, but got 3"),
        (PatchDiscriminationConfig, {"weight": -1.0}, "weight must be finite and at least 0"),
        (PatchRegressionConfig, {"num_layers": 0}, "num_layers must be one of 1, 2, but got 0"),
        (PatchRegressionConfig, {"weight": float("nan")}, "weight must be finite and at least 0"),
        (NormalizationConfig, {"mean": 0.0, "std": 0.0}, "std must be above 0, but got 0.0"),
    ],
)
def test_a_bad_field_is_named_with_rule_and_value(config, fields, message):
    with pytest.raises(ValueError, match=message):
        config(**fields)
