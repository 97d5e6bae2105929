"""The encoder against timm's own vision transformer and against loops."""

import dataclasses
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from asit_core import seeding
from asit_core.encoder import (
    EncoderConfig,
    SpectrogramEncoder,
    frame_embeddings,
    patch_grid,
    patchify,
    unpatchify,
)
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
        ("input_bins", 3, r"input_bins must be at least patch_bins \(4\), but got 3"),
        ("stride_frames", 9, r"stride_frames must be in \[1, 8\] \(patch_frames\), but got 9"),
        ("stride_bins", 0, r"stride_bins must be in \[1, 4\] \(patch_bins\), but got 0"),
        ("num_cls_tokens", 3, "num_cls_tokens must be one of 1, 2, but got 3"),
        ("token_order", "mel", "token_order must be one of time, frequency, but got 'mel'"),
        (
            "position_adaptation",
            "cut",
            "position_adaptation must be one of interpolate, ast, ssast, but got 'cut'",
        ),
        ("norm_eps", 0.0, r"norm_eps must be in \(0, 1\), but got 0.0"),
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
    with pytest.raises(ValueError, match=r"16 mel bins and at least 8 frames.*\(40, 16\)"):
        encoder(torch.zeros(40, 16))
    with pytest.raises(ValueError, match=r"input_frames must be at least patch_frames \(8\)"):
        SpectrogramEncoder(CONFIG, input_frames=7)
    with pytest.raises(
        ValueError, match=r"num_frames must be at least patch_frames \(8\), but got 7"
    ):
        encoder.grid_of(7)


OVERLAPPING = dataclasses.replace(
    CONFIG, stride_frames=5, stride_bins=3, num_cls_tokens=2, drop_path_rate=0.0
)


def _silenced(encoder: SpectrogramEncoder) -> SpectrogramEncoder:
    """Residuals of zero: a token sees its own patch alone."""
    for name, parameter in encoder.named_parameters():
        if ".attn.proj." in name or ".mlp.fc2." in name:
            nn.init.zeros_(parameter)
    return encoder


@pytest.mark.parametrize("order", ["time", "frequency"])
def test_each_overlapping_token_reads_its_own_patch(order):
    """H12: one pixel is on; the tokens that change are those whose patch covers it."""
    encoder = _silenced(_encoder(dataclasses.replace(OVERLAPPING, token_order=order)))
    columns, rows = encoder.grid
    assert (columns, rows) == ((40 - 8) // 5 + 1, (16 - 4) // 3 + 1)
    silent = encoder(torch.zeros(1, FRAMES, 16))
    for frame, mel in ((0, 0), (7, 4), (12, 9), (38, 15), (39, 0)):
        pixel = torch.zeros(1, FRAMES, 16)
        pixel[0, frame, mel] = 1.0
        changed = ((encoder(pixel) - silent).abs().sum(-1)[0] > 0).nonzero().flatten().tolist()
        covering = [
            2 + (t * rows + f if order == "time" else f * columns + t)
            for t in range(columns)
            for f in range(rows)
            if 5 * t <= frame < 5 * t + 8 and 3 * f <= mel < 3 * f + 4
        ]
        assert changed == sorted(covering)


@pytest.mark.parametrize(
    ("patch", "stride"),
    [((8, 4), (None, None)), ((2, 16), (None, None)), ((2, 16), (1, None)), ((3, 5), (1, 2))],
)
def test_patch_embedding_equals_the_convolution(patch, stride):
    config = dataclasses.replace(
        CONFIG,
        patch_frames=patch[0],
        patch_bins=patch[1],
        stride_frames=stride[0],
        stride_bins=stride[1],
    )
    encoder, log_mel = _encoder(config), _log_mel()
    embedded, grid = encoder.embed_patches(log_mel)
    expected_BDtf = encoder.patch_embed(log_mel[:, None])
    assert grid == tuple(expected_BDtf.shape[2:])
    expected = expected_BDtf.flatten(2).transpose(1, 2)
    torch.testing.assert_close(embedded, expected, rtol=1e-5, atol=1e-5)


def test_both_orders_are_one_model():
    """Tokens are a set: with kernel and positions moved along, only their order differs."""
    by_time = _encoder(OVERLAPPING)
    by_frequency = SpectrogramEncoder(
        dataclasses.replace(OVERLAPPING, token_order="frequency"), input_frames=FRAMES
    )
    columns, rows = by_time.grid
    state = by_time.state_dict()
    order = [t * rows + f for f in range(rows) for t in range(columns)]
    state["pos_embed"] = torch.cat(
        [state["pos_embed"][:, :2], state["pos_embed"][:, 2:][:, order]], 1
    )
    by_frequency.load_state_dict(state)
    # Another length too: adapting positions must know the order.
    for frames in (FRAMES, FRAMES + 13, FRAMES - 11):
        log_mel = _log_mel(frames=frames)
        grid = by_time.grid_of(frames)
        ours, theirs = by_time(log_mel), by_frequency(log_mel)
        torch.testing.assert_close(ours[:, :2], theirs[:, :2], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            patch_grid(ours[:, 2:], grid, "time"),
            patch_grid(theirs[:, 2:], grid, "frequency"),
            rtol=1e-5,
            atol=1e-5,
        )
        torch.testing.assert_close(
            frame_embeddings(ours[:, 2:], grid, "time"),
            frame_embeddings(theirs[:, 2:], grid, "frequency"),
            rtol=1e-5,
            atol=1e-5,
        )


def test_frame_embeddings_are_means_over_frequency():
    tokens, grid = _log_mel(frames=6, bins=5), (3, 2)
    frames = frame_embeddings(tokens, grid)
    assert frames.shape == (3, 3, 5)
    for t in range(3):
        torch.testing.assert_close(frames[:, t], (tokens[:, 2 * t] + tokens[:, 2 * t + 1]) / 2)


def test_layers_end_where_the_encoder_does():
    encoder, log_mel = _encoder(OVERLAPPING), _log_mel()
    layers = encoder.layers(log_mel)
    assert len(layers) == 3
    assert torch.equal(encoder.norm(layers[-1]), encoder(log_mel))
    first: Any = encoder.blocks[0]
    embedded, grid = encoder.embed_patches(log_mel)
    cls = encoder.cls_token.expand(3, -1, -1)
    torch.testing.assert_close(
        layers[0], first(torch.cat([cls, embedded], 1) + encoder.positions(grid))
    )


def test_attention_maps_are_the_weights_that_make_the_tokens():
    encoder, log_mel = _encoder(OVERLAPPING), _log_mel()
    maps = encoder.attention_maps(log_mel)
    num_tokens = 2 + encoder.grid[0] * encoder.grid[1]
    assert maps.shape == (3, 3, 3, num_tokens, num_tokens)
    torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]))
    before, layers = encoder.layers(log_mel)[1], encoder.layers(log_mel)
    block: Any = encoder.blocks[2]
    value = block.attn.qkv(block.norm1(before)).unflatten(2, (3, 3, -1))[:, :, 2].transpose(1, 2)
    attended = block.attn.proj((maps[2] @ value).transpose(1, 2).flatten(2))
    tokens = before + attended
    torch.testing.assert_close(
        tokens + block.mlp(block.norm2(tokens)), layers[2], rtol=1e-5, atol=1e-5
    )


def test_visible_patches_keep_their_positions():
    encoder, log_mel = _encoder(OVERLAPPING), _log_mel(clips=2)
    patches, grid = encoder.embed_patches(log_mel)
    every = torch.arange(patches.shape[1]).expand(2, -1)
    torch.testing.assert_close(
        encoder.encode(patches, grid, visible_BM=every), encoder(log_mel), rtol=1e-5, atol=1e-5
    )
    visible = torch.tensor([[3, 0, 7], [1, 2, 30]])
    tokens = encoder.encode(patches, grid, visible_BM=visible)
    assert tokens.shape == (2, 2 + 3, 24)
    for clip in range(2):
        positions = encoder.positions(grid)[0]
        own = torch.stack([patches[clip, i] + positions[2 + i] for i in visible[clip]])
        expected = torch.cat([encoder.cls_token[0] + positions[:2], own])[None]
        for block in encoder.blocks:
            expected = block(expected)
        torch.testing.assert_close(tokens[clip], encoder.norm(expected)[0], rtol=1e-5, atol=1e-5)
    hidden = log_mel.clone()
    hidden[0, 39] = 9.0  # the last columns, which clip 0 does not see
    patches, _ = encoder.embed_patches(hidden)
    torch.testing.assert_close(encoder.encode(patches, grid, visible_BM=visible), tokens)


@pytest.mark.parametrize("how", ["interpolate", "ast"])
def test_refitting_adapts_positions_once(how):
    encoder = _encoder(dataclasses.replace(OVERLAPPING, position_adaptation=how))
    log_mel = _log_mel(frames=57)
    refitted = encoder.refitted(input_frames=57)
    assert refitted.grid == encoder.grid_of(57)
    torch.testing.assert_close(refitted(log_mel), encoder(log_mel))
    denser = encoder.refitted(input_frames=57, stride=(2, 4), input_bins=20)
    assert denser.config.stride == (2, 4)
    assert denser.config.stride_bins is None  # as high as a patch
    assert denser.grid == ((57 - 8) // 2 + 1, 20 // 4)
    assert denser(_log_mel(frames=57, bins=20)).shape == (3, 2 + 25 * 5, 24)
    assert torch.equal(denser.patch_embed.weight, encoder.patch_embed.weight)


@pytest.mark.parametrize(("frames", "bins"), [(16, 32), (16, 256), (3000, 32), (257, 128)])
def test_any_length_and_any_number_of_bins(frames, bins):
    config = EncoderConfig(embed_dim=8, depth=1, num_heads=2, input_bins=bins, num_cls_tokens=2)
    encoder = SpectrogramEncoder(config, input_frames=64).eval()
    initialize(encoder, seed=0)
    tokens = encoder(_log_mel(clips=1, frames=frames, bins=bins))
    assert tokens.shape == (1, 2 + (frames // 16) * (bins // 16), 8)
    assert tokens.isfinite().all()


def test_five_minutes_in_one_piece():
    config = EncoderConfig(embed_dim=8, depth=1, num_heads=2)
    encoder = SpectrogramEncoder(config, input_frames=592).eval()
    initialize(encoder, seed=0)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert encoder(_log_mel(clips=1, frames=30_000, bins=128)).shape == (1, 1 + 1875 * 8, 8)
