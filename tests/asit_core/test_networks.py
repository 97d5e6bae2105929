"""Masked tokens, with and without a decoder, against programs that treat clip by clip."""

import dataclasses
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from asit_core.decoder import DecoderConfig
from asit_core.networks import MaskedTokenNetwork, patch_pixels
from asit_core.pretext.patch_discrimination import PatchDiscriminationConfig
from asit_core.pretext.patch_regression import PatchRegressionConfig
from asit_core.pretrainer import PretextConfig, PretrainConfig, Pretrainer
from asit_core.seeding import clip_keys, stream
from asit_core.token_masking import TokenMaskingConfig, TokenMasks, draw_token_masks

DECODER = DecoderConfig(embed_dim=12, depth=2, num_heads=3)


def _config(micro_config: PretrainConfig, *, decoder: DecoderConfig | None) -> PretrainConfig:
    encoder = dataclasses.replace(
        micro_config.encoder, num_cls_tokens=2, token_order="frequency", patch_frames=4
    )
    return dataclasses.replace(
        micro_config,
        encoder=encoder,
        masking=None,
        token_masking=TokenMaskingConfig(num_masked=10, cluster_sizes=(2,)),
        decoder=decoder,
        pretext=PretextConfig(
            patch_discrimination=PatchDiscriminationConfig(),
            patch_regression=PatchRegressionConfig(weight=10.0),
        ),
    )


def _parts(
    config: PretrainConfig,
) -> tuple[Pretrainer, MaskedTokenNetwork, Tensor, TokenMasks]:
    pretrainer = Pretrainer(config, seed=0)
    assert pretrainer.masked_tokens is not None
    assert config.token_masking is not None
    views = torch.randn(3, 32, 16, generator=stream(0, "test_views"))
    keys = clip_keys(0, "token_mask", 0, ["a", "b", "c"], 0)
    masks = draw_token_masks(keys, (8, 2), config.token_masking, token_order="frequency")
    return pretrainer, pretrainer.masked_tokens, views, masks


def _patches(view: Tensor) -> list[Tensor]:
    """Patches of 4 frames and 8 bins, low row first, each flattened frame by frame."""
    return [
        torch.stack([view[4 * t + i, 8 * f + j] for i in range(4) for j in range(8)])
        for f in range(2)
        for t in range(8)
    ]


def _through(blocks: Iterable[nn.Module], norm: nn.Module, rows: list[Tensor]) -> Tensor:
    tokens = torch.stack(rows).unsqueeze(0)
    for block in blocks:
        tokens = block(tokens)
    return norm(tokens)[0]


def test_patch_pixels_by_loops(micro_config):
    config = _config(micro_config, decoder=None)
    views = torch.randn(2, 32, 16, generator=stream(0, "test_views"))
    for view, ours in zip(views, patch_pixels(views, config.encoder), strict=True):
        assert torch.equal(ours, torch.stack(_patches(view)))
    by_time = dataclasses.replace(config.encoder, token_order="time")
    rows = patch_pixels(views, by_time).unflatten(1, (8, 2)).transpose(1, 2).flatten(1, 2)
    assert torch.equal(rows, patch_pixels(views, config.encoder))


def test_mask_embeddings_in_the_encoder_by_loops(micro_config):
    """The embedding takes the masked patch's place before its position is added."""
    pretrainer, network, views, masks = _parts(_config(micro_config, decoder=None))
    encoder = pretrainer.student.encoder
    assert network.mask_embed is not None
    weight, bias = encoder.patch_embed.weight.flatten(1), encoder.patch_embed.bias
    assert bias is not None
    ours = network(encoder, views, masks)
    for clip in range(3):
        masked = masks.masked_BM[clip].tolist()
        rows = [encoder.cls_token[0, c] + encoder.pos_embed[0, c] for c in range(2)]
        for n, pixels in enumerate(_patches(views[clip])):
            embedded = network.mask_embed[0, 0] if n in masked else weight @ pixels + bias
            rows.append(embedded + encoder.pos_embed[0, 2 + n])
        tokens = _through(encoder.blocks, encoder.norm, rows)
        expected = torch.stack([tokens[2 + n] for n in masked])
        torch.testing.assert_close(ours[clip], expected, rtol=1e-4, atol=1e-5)


def test_a_decoder_behind_visible_patches_by_loops(micro_config):
    pretrainer, network, views, masks = _parts(_config(micro_config, decoder=DECODER))
    encoder, decoder = pretrainer.student.encoder, network.decoder
    assert decoder is not None
    weight, bias = encoder.patch_embed.weight.flatten(1), encoder.patch_embed.bias
    assert bias is not None
    ours = network(encoder, views, masks)
    for clip in range(3):
        visible = masks.visible_BU[clip].tolist()
        patches = _patches(views[clip])
        rows = [encoder.cls_token[0, c] + encoder.pos_embed[0, c] for c in range(2)]
        rows += [weight @ patches[n] + bias + encoder.pos_embed[0, 2 + n] for n in visible]
        encoded = _through(encoder.blocks, encoder.norm, rows)
        assert len(encoded) == 2 + 6  # the encoder never saw the others
        rows = [decoder.embed(encoded[c]) for c in range(2)]
        for n in range(16):
            known = n in visible
            rows.append(
                decoder.embed(encoded[2 + visible.index(n)]) if known else decoder.mask_embed[0, 0]
            )
        rows = [row + decoder.pos_embed[0, n] for n, row in enumerate(rows)]
        tokens = _through(decoder.blocks, decoder.norm, rows)
        expected = torch.stack([tokens[2 + n] for n in masks.masked_BM[clip].tolist()])
        torch.testing.assert_close(ours[clip], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("decoder", [None, DECODER])
def test_what_is_masked_is_not_seen(micro_config, decoder):
    pretrainer, network, views, masks = _parts(_config(micro_config, decoder=decoder))
    tokens = network(pretrainer.student.encoder, views, masks)
    changed = views.clone()
    for clip in range(3):
        for n in masks.masked_BM[clip].tolist():
            f, t = divmod(n, 8)
            changed[clip, 4 * t : 4 * t + 4, 8 * f : 8 * f + 8] += 5.0
    assert torch.equal(network(pretrainer.student.encoder, changed, masks), tokens)
    seen = views.clone()
    seen[:, :, :] += 5.0
    assert not torch.allclose(network(pretrainer.student.encoder, seen, masks), tokens, atol=1e-3)


@pytest.mark.parametrize("decoder", [None, DECODER])
def test_stochastic_depth_reaches_the_encoder(micro_config, decoder):
    config = _config(micro_config, decoder=decoder)
    encoder = dataclasses.replace(config.encoder, drop_path_rate=0.5)
    pretrainer, network, views, masks = _parts(dataclasses.replace(config, encoder=encoder))
    keys = clip_keys(0, "drop_path", 0, ["a", "b", "c"], 0)
    dropped = network(pretrainer.student.encoder, views, masks, keys)
    assert not torch.allclose(dropped, network(pretrainer.student.encoder, views, masks), atol=1e-3)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("embed_dim", 0, "embed_dim must be at least 1, but got 0"),
        ("depth", 0, "depth must be at least 1, but got 0"),
        ("num_heads", 5, r"embed_dim must be a multiple of num_heads \(5\), but got 12"),
        ("mlp_ratio", 0.0, "mlp_ratio must be finite and leave at least one.*got 0.0"),
    ],
)
def test_a_bad_decoder_is_named_with_rule_and_value(field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(DECODER, **{field: value})
