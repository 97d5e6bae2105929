"""The encoder against timm's own vision transformer and against loops."""

import dataclasses
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from asit_core import seeding
from asit_core.encoder import EncoderConfig, SpectrogramEncoder, patchify, unpatchify
from asit_core.initialization import initialize

CONFIG = EncoderConfig(
    embed_dim=24, depth=3, num_heads=3, patch_frames=8, patch_bins=4, input_bins=16
)
FRAMES = 40


def _encoder(config: EncoderConfig = CONFIG, frames: int = FRAMES) -> SpectrogramEncoder:
    encoder = SpectrogramEncoder(config, input_frames=frames)
    initialize(encoder, seed=0)
    with torch.no_grad():  # initial biases and norms are trivial: make every parameter count
        for index, parameter in enumerate(encoder.parameters()):
            noise = torch.randn(parameter.shape, generator=seeding.stream(index, "test"))
            parameter.add_(0.1 * noise)
    return encoder


def _log_mel(clips: int = 3, frames: int = FRAMES, bins: int = 16) -> Tensor:
    return torch.randn(clips, frames, bins, generator=seeding.stream(0, "test_input"))


def _timm_twin(encoder: SpectrogramEncoder) -> VisionTransformer:
    """timm's model with the same weights; its image is (time, mel)."""
    config = encoder.config
    grid = encoder.grid
    with torch.random.fork_rng(devices=[]):
        twin = VisionTransformer(
            img_size=(grid[0] * config.patch_frames, config.input_bins),
            patch_size=(config.patch_frames, config.patch_bins),  # pyright: ignore[reportArgumentType]
            in_chans=1,
            num_classes=0,
            embed_dim=config.embed_dim,
            depth=config.depth,
            num_heads=config.num_heads,
            mlp_ratio=config.mlp_ratio,
        )
    state = encoder.state_dict()
    for name in ("weight", "bias"):
        state[f"patch_embed.proj.{name}"] = state.pop(f"patch_embed.{name}")
    twin.load_state_dict(state)
    return twin


def test_tokens_and_gradients_equal_timms_vision_transformer():
    encoder, log_mel = _encoder(), _log_mel()
    twin = _timm_twin(encoder)
    ours, theirs = encoder(log_mel), twin.forward_features(log_mel[:, None])
    # float32 sums taken in another order
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)

    direction = torch.randn(ours.shape, generator=seeding.stream(1, "test_direction"))
    (ours * direction).sum().backward()
    (theirs * direction).sum().backward()
    gradients = {name: p.grad for name, p in twin.named_parameters()}
    for name, parameter in encoder.named_parameters():
        twin_name = name.replace("patch_embed.", "patch_embed.proj.")
        torch.testing.assert_close(parameter.grad, gradients[twin_name], rtol=1e-4, atol=1e-4)


def test_token_order_is_time_major():
    encoder = _encoder()
    for name, parameter in encoder.named_parameters():
        if ".attn.proj." in name or ".mlp.fc2." in name:
            nn.init.zeros_(parameter)  # residuals of zero: a token sees its own patch alone
    silent = encoder(torch.zeros(1, FRAMES, 16))
    for column in range(FRAMES // 8):
        for row in range(16 // 4):
            one_hot = torch.zeros(1, FRAMES, 16)
            one_hot[0, 8 * column : 8 * column + 8, 4 * row : 4 * row + 4] = 1.0
            differs = (encoder(one_hot) - silent).abs().sum(-1)[0] > 0
            assert differs.nonzero().flatten().tolist() == [1 + column * 4 + row]


def test_patches_by_loops_and_back():
    pixels = _log_mel()
    patches = patchify(pixels, (5, 4))
    for column in range(5):
        for row in range(4):
            for t in range(8):
                for f in range(4):
                    assert torch.equal(
                        patches[:, column * 4 + row, t * 4 + f],
                        pixels[:, column * 8 + t, row * 4 + f],
                    )
    assert torch.equal(unpatchify(patches, (5, 4), (8, 4)), pixels)


def _blocks_by_loops(encoder: SpectrogramEncoder, log_mel: Tensor, keys: Tensor) -> Tensor:
    """Stochastic depth clip by clip: a residual is skipped or divided by its keep probability."""
    twin = _timm_twin(encoder)
    outputs = []
    for clip, key in zip(log_mel, keys, strict=True):
        tokens = twin._pos_embed(twin.patch_embed(clip[None, None]))
        draws = iter(seeding.uniform(key, 2 * encoder.config.depth).tolist())
        blocks: Any = twin.blocks
        for layer, block in enumerate(blocks):
            rate = encoder.config.drop_path_rate * layer / max(1, encoder.config.depth - 1)
            if next(draws) < 1 - rate:
                tokens = tokens + block.attn(block.norm1(tokens)) / (1 - rate)
            if next(draws) < 1 - rate:
                tokens = tokens + block.mlp(block.norm2(tokens)) / (1 - rate)
        outputs.append(twin.norm(tokens))
    return torch.cat(outputs)


@pytest.mark.parametrize("depth", [1, 3])
def test_drop_path_equals_a_loop_over_clips_and_blocks(depth):
    encoder = _encoder(dataclasses.replace(CONFIG, drop_path_rate=0.6, depth=depth))
    log_mel = _log_mel(16)
    keys = seeding.clip_keys(0, "drop_path", 3, [f"clip-{i}" for i in range(16)], 1)
    dropped = encoder(log_mel, keys)
    expected = _blocks_by_loops(encoder, log_mel, keys)
    torch.testing.assert_close(dropped, expected, rtol=1e-5, atol=1e-5)
    if depth > 1:
        assert not torch.allclose(dropped, encoder(log_mel))
    torch.testing.assert_close(encoder(log_mel[4:6], keys[4:6]), dropped[4:6], rtol=0, atol=1e-5)


def test_residuals_are_kept_at_the_linear_rates_and_keep_their_mean():
    """Read off the outputs: with residuals of known size a token counts what was kept."""
    depth, rate, clips = 4, 0.3, 4000
    config = EncoderConfig(
        embed_dim=2 * depth,
        depth=depth,
        num_heads=1,
        patch_frames=1,
        patch_bins=1,
        input_bins=1,
        drop_path_rate=rate,
    )
    encoder = SpectrogramEncoder(config, input_frames=1)
    for parameter in encoder.parameters():
        nn.init.zeros_(parameter)
    encoder.norm = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    parameters = dict(encoder.named_parameters())
    for layer in range(depth):
        for index, name in enumerate(("attn.proj", "mlp.fc2")):
            parameters[f"blocks.{layer}.{name}.bias"].data[2 * layer + index] = 1.0
    keys = seeding.clip_keys(0, "drop_path", 0, [f"clip-{i}" for i in range(clips)])
    scales = encoder(torch.zeros(clips, 1, 1), keys)[:, 0].detach()
    for residual in range(2 * depth):
        keep = 1 - rate * (residual // 2) / (depth - 1)
        values = scales[:, residual].unique()
        torch.testing.assert_close(
            values, torch.tensor([1.0] if keep == 1 else [0.0, 1 / keep], dtype=torch.float32)
        )
        kept = (scales[:, residual] > 0).float().mean().item()
        assert kept == pytest.approx(keep, abs=4 * (keep * (1 - keep) / clips) ** 0.5 + 1e-9)


def test_stochastic_depth_is_off_without_keys_or_without_a_rate():
    log_mel = _log_mel()
    keys = seeding.clip_keys(0, "drop_path", 0, ["a", "b", "c"])
    with_rate = _encoder(dataclasses.replace(CONFIG, drop_path_rate=0.5)).train()
    without = _encoder(dataclasses.replace(CONFIG, drop_path_rate=0.0)).train()
    assert torch.equal(with_rate(log_mel), without(log_mel))
    assert torch.equal(without(log_mel, keys), without(log_mel))
    assert torch.equal(without.eval()(log_mel), without.train()(log_mel))


def _bilinear(grid_values: Tensor, size: tuple[int, int]) -> Tensor:
    """(t, f, D) to another size by loops: pixel centres lie at halves, edges repeat."""
    old = grid_values.shape[:2]
    resized = torch.zeros(*size, grid_values.shape[2])
    for t in range(size[0]):
        for f in range(size[1]):
            at_t = min(max((t + 0.5) * old[0] / size[0] - 0.5, 0.0), old[0] - 1.0)
            at_f = min(max((f + 0.5) * old[1] / size[1] - 0.5, 0.0), old[1] - 1.0)
            for near_t in range(old[0]):
                for near_f in range(old[1]):
                    weight = max(0.0, 1 - abs(at_t - near_t)) * max(0.0, 1 - abs(at_f - near_f))
                    resized[t, f] += weight * grid_values[near_t, near_f]
    return resized


@pytest.mark.parametrize("frames", [8, 24, 88])
def test_positions_are_resized_to_another_length(frames):
    encoder = _encoder()
    grid = (frames // 8, 4)
    expected = _bilinear(encoder.pos_embed[0, 1:].detach().unflatten(0, encoder.grid), grid)
    positions = encoder.positions(grid)[0]
    assert torch.equal(positions[0], encoder.pos_embed[0, 0])
    torch.testing.assert_close(positions[1:], expected.flatten(0, 1), rtol=1e-5, atol=1e-6)
    assert encoder(_log_mel(frames=frames)).shape == (3, 1 + grid[0] * grid[1], 24)


def test_the_trained_length_uses_the_positions_as_they_are():
    encoder = _encoder()
    assert encoder.positions(encoder.grid) is encoder.pos_embed


def test_frames_past_the_last_whole_patch_are_cut_off():
    encoder, log_mel = _encoder(), _log_mel(frames=FRAMES + 7)
    assert torch.equal(encoder(log_mel), encoder(log_mel[:, :FRAMES]))


def test_bf16_stays_near_fp32_and_fp32_is_fused_again_afterwards():
    encoder, log_mel = _encoder(), _log_mel()
    exact = encoder(log_mel)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = encoder(log_mel)
    # Three blocks of bf16 products (8 bits of mantissa) under a norm that makes values of order 1.
    assert (rounded - exact).abs().max() < 0.1
    assert torch.equal(encoder(log_mel), exact)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("embed_dim", 0, "embed_dim must be at least 1, but got 0"),
        ("depth", 0, "depth must be at least 1, but got 0"),
        ("num_heads", -1, "num_heads must be at least 1, but got -1"),
        ("num_heads", 5, r"embed_dim must be a multiple of num_heads \(5\), but got 24"),
        ("mlp_ratio", 0.0, "mlp_ratio must be finite and leave at least one hidden.*got 0.0"),
        (
            "mlp_ratio",
            float("nan"),
            "mlp_ratio must be finite and leave at least one hidden.*got nan",
        ),
        ("patch_frames", 0, "patch_frames must be at least 1, but got 0"),
        ("patch_bins", 5, r"input_bins must be a multiple of patch_bins \(5\), but got 16"),
        ("drop_path_rate", 1.0, r"drop_path_rate must be in \[0, 1\), but got 1.0"),
        ("drop_path_rate", -0.1, r"drop_path_rate must be in \[0, 1\), but got -0.1"),
    ],
)
def test_a_bad_field_is_named_with_rule_and_value(field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **{field: value})


def test_bad_input_is_named_with_its_shape():
    encoder = _encoder()
    with pytest.raises(ValueError, match=r"16 mel bins and at least 8 frames.*\(2, 40, 8\)"):
        encoder(torch.zeros(2, 40, 8))
    with pytest.raises(ValueError, match=r"16 mel bins and at least 8 frames.*\(2, 7, 16\)"):
        encoder(torch.zeros(2, 7, 16))
    with pytest.raises(ValueError, match=r"input_frames must be at least patch_frames \(8\)"):
        SpectrogramEncoder(CONFIG, input_frames=7)
