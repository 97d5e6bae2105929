"""Presets that learn from masked tokens, without a teacher: SSAST, MAE-AST and MaskSpec."""

import dataclasses
from typing import Any

from asit_core.decoder import DecoderConfig
from asit_core.optim import OptimizerConfig
from asit_core.pretext.patch_discrimination import PatchDiscriminationConfig
from asit_core.pretext.patch_regression import PatchRegressionConfig
from asit_core.pretrain_config import NormalizationConfig, PretextConfig, PretrainConfig
from asit_core.sizes import NANO_CROP_FRAMES, NANO_RUN, encoder_config, nano_optimizer
from asit_core.token_masking import TokenMaskingConfig
from asit_core.views import ViewsConfig

_SSAST_BATCH = {"nano": 32, "tiny": 120, "small": 60, "base": 24}


def ssast_patch(size: str) -> PretrainConfig:
    """SSAST on patches of 16 x 16, as released: 400 of 512 masked in clusters, biased as it is.

    Source: SSAST (arXiv:2110.09784), and its repository. There the learning rate is halved when
    the accuracy on AudioSet's evaluation clips has not risen for some time; here it stays. The
    batch at `small` is not published and lies between the others.
    """
    masking = TokenMaskingConfig(
        num_masked=400, shape="cluster", sampler="official", shared_pass=False
    )
    return _ssast(size, masking)


def ssast_frame(size: str) -> PretrainConfig:
    """SSAST on patches of two frames and all 128 bins, 400 of 512 masked one by one.

    Source: as `ssast_patch`.
    """
    masking = TokenMaskingConfig(
        num_masked=400, shape="random", sampler="official", shared_pass=False
    )
    return _ssast(size, masking, patch_frames=2, patch_bins=128)


def mae_ast(size: str) -> PretrainConfig:
    """MAE-AST on patches: a quarter of them encoded, a decoder of two blocks.

    Source: MAE-AST (arXiv:2203.16691), and its repository. There is no class token, positions are
    fixed sines, blocks are post-norm with dropout; here they are as in all our encoders.
    """
    encoder = encoder_config(size, drop_path_rate=0.0)
    config = PretrainConfig(
        encoder=encoder,
        views=ViewsConfig(num_views=1, crop_frames=1024, roll_probability=0.0),
        masking=None,
        token_masking=TokenMaskingConfig(ratio=0.75, shape="random"),
        decoder=DecoderConfig(embed_dim=encoder.embed_dim, depth=2, num_heads=encoder.num_heads),
        pretext=PretextConfig(
            patch_discrimination=PatchDiscriminationConfig(num_layers=1),
            patch_regression=PatchRegressionConfig(weight=10.0, num_layers=1),
        ),
        optimizer=OptimizerConfig(
            lr_per_256=1e-4 * 256 / 52,
            min_lr=0.0,
            schedule="linear",
            warmup_ratio=0.08,
            weight_decay=0.01,
            final_weight_decay=0.01,
            decay_on="all",
            beta2=0.98,
            epsilon=1e-6,
            clip_grad=10.0,
            clip_norm_of="all",
        ),
        epochs=15,
        batch_size=52,
        donor_group=2,
    )
    return _nano(config) if size == "nano" else config


def maskspec(size: str) -> PretrainConfig:
    """MaskSpec: a masked autoencoder with 512 x 8 decoder, whose target is each patch normalised.

    Source: MaskSpec (arXiv:2204.12768), and its repository. There positions are fixed sines, and
    the front end is not Kaldi's.
    """
    config = PretrainConfig(
        encoder=encoder_config(size, token_order="frequency", drop_path_rate=0.0),
        views=ViewsConfig(num_views=1, crop_frames=992, roll_probability=0.0),
        masking=None,
        token_masking=TokenMaskingConfig(ratio=0.75, shape="random"),
        decoder=DecoderConfig(embed_dim=512, depth=8, num_heads=16),
        pretext=PretextConfig(
            patch_regression=PatchRegressionConfig(normalize_target=True, num_layers=1)
        ),
        optimizer=OptimizerConfig(
            lr_per_256=1e-3,
            min_lr=0.0,
            weight_decay=0.05,
            final_weight_decay=0.05,
            beta2=0.95,
            clip_grad=None,
        ),
        weight_init="xavier",
        epochs=400,
        batch_size=512,
        donor_group=2,
    )
    return _nano(config) if size == "nano" else config


def _ssast(size: str, masking: TokenMaskingConfig, **patch: Any) -> PretrainConfig:
    config = PretrainConfig(
        encoder=encoder_config(
            size,
            num_cls_tokens=2,
            token_order="frequency",
            position_adaptation="ssast",
            drop_path_rate=0.0,
            **patch,
        ),
        views=ViewsConfig(num_views=1, crop_frames=1024, roll_probability=0.0, padding="zero"),
        masking=None,
        token_masking=masking,
        pretext=PretextConfig(
            patch_discrimination=PatchDiscriminationConfig(softmax_over="predictions"),
            patch_regression=PatchRegressionConfig(weight=10.0),
        ),
        optimizer=OptimizerConfig(
            algorithm="adam",
            # 1e-4 at 24 clips (base), 5e-4 at 120 (tiny)
            lr_per_256=1e-4 * 256 / 24,
            schedule="constant",
            # 1000 steps at every size, the learning rate set every 50: of 800,000 at 24 clips
            warmup_ratio=0.00125 * _SSAST_BATCH[size] / 24,
            warmup_stairs=20,
            weight_decay=5e-7,
            final_weight_decay=5e-7,
            decay_on="all",
            beta1=0.95,
            clip_grad=None,
        ),
        normalization=NormalizationConfig(mean=-4.2677393, std=4.5689974),
        epochs=10,
        batch_size=_SSAST_BATCH[size],
        donor_group=2,
        precision="fp32",
    )
    return _nano(config) if size == "nano" else config


def _nano(config: PretrainConfig) -> PretrainConfig:
    """Widths for a laptop, and a recipe for runs of minutes rather than days."""
    masking, decoder = config.token_masking, config.decoder
    assert masking is not None, "all presets here mask tokens"
    if masking.num_masked is not None:
        # As large a share of 64 patches as 400 are of 512.
        masking = dataclasses.replace(masking, num_masked=50)
    if decoder is not None:
        decoder = DecoderConfig(embed_dim=96, depth=2, num_heads=3)
    return dataclasses.replace(
        config,
        views=dataclasses.replace(config.views, crop_frames=NANO_CROP_FRAMES),
        token_masking=masking,
        decoder=decoder,
        optimizer=nano_optimizer(),
        **NANO_RUN,
    )
