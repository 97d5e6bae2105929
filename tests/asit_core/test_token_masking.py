"""Token masks against loops that throw the same clusters, their law, and their properties."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asit_core.seeding import clip_keys, uniform
from asit_core.token_masking import TokenMaskingConfig, TokenMasks, draw_token_masks

GRID = (9, 4)  # columns in time, rows in frequency
NUM = 36


def _ids(count: int) -> list[str]:
    return [f"clip-{i}" for i in range(count)]


def _keys(count: int, *, seed: int = 0) -> Tensor:
    return clip_keys(seed, "token_mask", 0, _ids(count), 0)


def _draw(config: TokenMaskingConfig, keys: Tensor, grid: tuple[int, int] = GRID) -> TokenMasks:
    return draw_token_masks(keys, grid, config, token_order="frequency")


def _by_loops(key: Tensor, config: TokenMaskingConfig) -> set[int]:
    """One clip's masked patches, numbered along time, row by row."""
    columns, rows = GRID
    draws = uniform(key, 20_000).tolist()
    size = config.cluster_sizes[int(draws[0] * len(config.cluster_sizes))]
    order, starts = draws[1 : 1 + NUM], iter(draws[1 + NUM :])
    count = config.count(NUM)
    if config.shape == "random":
        return set(sorted(range(NUM), key=lambda n: order[n])[:count])
    if config.sampler == "official":
        covered: set[int] = set()
        while len(covered) <= count:
            start = int(next(starts) * NUM)
            runs = [start + columns * i + j for i in range(size) for j in range(size)]
            covered |= {n for n in runs if 0 < n < NUM}
        return set(sorted(covered)[:count])
    covered = set()
    while True:
        start = int(next(starts) * NUM)
        square = {
            (start // columns + i) % rows * columns + (start % columns + j) % columns
            for i in range(size)
            for j in range(size)
        }
        if len(covered | square) >= count:
            new = sorted(square - covered, key=lambda n: order[n])
            return covered | set(new[: count - len(covered)])
        covered |= square


@pytest.mark.parametrize("num_masked", [1, 10, 28, 34])
@pytest.mark.parametrize(
    ("shape", "sampler"), [("cluster", "uniform"), ("cluster", "official"), ("random", "uniform")]
)
def test_masks_equal_a_loop_that_throws_the_same_clusters(shape, sampler, num_masked):
    config = TokenMaskingConfig(num_masked=num_masked, shape=shape, sampler=sampler)
    keys = _keys(12)
    masked, visible = _draw(config, keys)
    for clip in range(12):
        assert set(masked[clip].tolist()) == _by_loops(keys[clip], config)
        assert sorted(masked[clip].tolist() + visible[clip].tolist()) == list(range(NUM))


def test_without_clusters_the_samplers_are_the_same():
    official = TokenMaskingConfig(num_masked=9, shape="random", sampler="official")
    plain = dataclasses.replace(official, sampler="uniform")
    assert torch.equal(_draw(official, _keys(5)).masked_BM, _draw(plain, _keys(5)).masked_BM)


def _share_by_row(config: TokenMaskingConfig, clips: int) -> Tensor:
    """Share of masked patches in each of SSAST's 8 mel rows, low to high, on its 64 x 8 patches."""
    masked = _draw(config, _keys(clips), (64, 8)).masked_BM
    is_masked = torch.zeros(clips, 512).scatter(1, masked, 1.0)
    return is_masked.unflatten(1, (8, 64)).mean((0, 2))


def test_the_official_sampler_has_the_released_bias():
    config = TokenMaskingConfig(num_masked=400, sampler="official")
    measured = torch.tensor([0.42, 0.67, 0.81, 0.87, 0.89, 0.89, 0.88, 0.82])
    # 600 clips: a row's share has a deviation of about 0.004; the figures have two digits.
    torch.testing.assert_close(_share_by_row(config, 600), measured, rtol=0, atol=0.02)
    assert not (_draw(config, _keys(600), (64, 8)).masked_BM == 0).any()


@pytest.mark.parametrize("shape", ["cluster", "random"])
def test_the_uniform_samplers_mask_every_patch_alike(shape):
    config = TokenMaskingConfig(num_masked=400, shape=shape)
    share = _share_by_row(config, 600)
    torch.testing.assert_close(share, torch.full((8,), 400 / 512), rtol=0, atol=0.02)


def test_uniform_clusters_mask_every_patch_of_a_small_grid_alike():
    """By patch: a share's deviation is sqrt(.25 * .75 / 4000) = 0.007."""
    config = TokenMaskingConfig(num_masked=9, cluster_sizes=(2, 3))
    masked = _draw(config, _keys(4000)).masked_BM
    share = torch.zeros(4000, NUM).scatter(1, masked, 1.0).mean(0)
    torch.testing.assert_close(share, torch.full((NUM,), 0.25), rtol=0, atol=0.035)


def test_clusters_lie_together_and_single_patches_do_not():
    def neighbours(config: TokenMaskingConfig) -> float:
        masked = _draw(config, _keys(200), (64, 8)).masked_BM
        is_masked = torch.zeros(200, 512).scatter(1, masked, 1.0).unflatten(1, (8, 64))
        pairs = (is_masked[:, :, 1:] * is_masked[:, :, :-1]).sum()
        return (pairs / is_masked.sum()).item()

    cluster = neighbours(TokenMaskingConfig(num_masked=100))
    random = neighbours(TokenMaskingConfig(num_masked=100, shape="random"))
    assert random == pytest.approx(100 / 512, abs=0.03)
    assert cluster > 0.6


def test_the_token_order_renumbers_the_same_patches():
    config = TokenMaskingConfig(num_masked=10)
    by_frequency = _draw(config, _keys(6)).masked_BM
    by_time = draw_token_masks(_keys(6), GRID, config, token_order="time").masked_BM
    columns, rows = GRID
    for clip in range(6):
        cells = {(n % columns, n // columns) for n in by_frequency[clip].tolist()}
        assert cells == {(n // rows, n % rows) for n in by_time[clip].tolist()}


@settings(deadline=None, max_examples=30)
@given(
    columns=st.integers(2, 12),
    rows=st.integers(1, 9),
    share=st.floats(0.0, 1.0),
    shape=st.sampled_from(["cluster", "random"]),
    sampler=st.sampled_from(["official", "uniform"]),
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    token_order=st.sampled_from(["time", "frequency"]),
    seed=st.integers(0, 1000),
)
def test_masked_and_visible_patches_make_up_the_grid_under_any_order_of_the_batch(
    columns, rows, share, shape, sampler, sizes, token_order, seed
):
    number = columns * rows
    highest = number - (2 if (shape, sampler) == ("cluster", "official") else 1)
    if highest < 1:
        return
    config = TokenMaskingConfig(
        num_masked=max(1, round(share * highest)),
        shape=shape,
        sampler=sampler,
        cluster_sizes=tuple(sizes),
    )
    keys = _keys(5, seed=seed)
    masked, visible = draw_token_masks(keys, (columns, rows), config, token_order=token_order)
    assert masked.shape == (5, config.num_masked)
    every = torch.cat([masked, visible], dim=1).sort(dim=1).values
    assert torch.equal(every, torch.arange(number).expand(5, -1))
    order = [3, 0, 4, 2]  # another order, and one clip fewer
    shuffled = draw_token_masks(keys[order], (columns, rows), config, token_order=token_order)
    assert torch.equal(shuffled.masked_BM, masked[order])


@pytest.mark.parametrize(
    ("ratio", "num_tokens", "count"), [(0.75, 512, 384), (0.8, 10, 8), (0.75, 10, 8), (0.3, 10, 3)]
)
def test_a_ratio_is_rounded_up(ratio, num_tokens, count):
    assert TokenMaskingConfig(ratio=ratio).count(num_tokens) == count


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "num_masked must be given, or ratio in its stead.*None and ratio None"),
        ({"num_masked": 3, "ratio": 0.5}, "num_masked must be given, or ratio.*3 and ratio 0.5"),
        ({"num_masked": 0}, "num_masked must be at least 1, but got 0"),
        ({"ratio": 1.0}, r"ratio must be in \(0, 1\), but got 1.0"),
        ({"ratio": float("nan")}, r"ratio must be in \(0, 1\), but got nan"),
        ({"num_masked": 3, "shape": "block"}, "shape must be one of cluster, random, but got 'blo"),
        ({"num_masked": 3, "sampler": "fair"}, "sampler must be one of official, uniform, but got"),
        ({"num_masked": 3, "cluster_sizes": ()}, r"cluster_sizes must be one or more.*got \[\]"),
        ({"num_masked": 3, "cluster_sizes": (3, 0)}, r"cluster_sizes must be .*got \[3, 0\]"),
    ],
)
def test_a_bad_field_is_named_with_rule_and_value(fields, message):
    with pytest.raises(ValueError, match=message):
        TokenMaskingConfig(**fields)


def test_more_than_there_is_cannot_be_masked():
    with pytest.raises(ValueError, match=r"num_masked must mask at most 35 .* 36 patches.* got 36"):
        _draw(TokenMaskingConfig(num_masked=36), _keys(2))
    with pytest.raises(ValueError, match=r"num_masked must mask at most 34 .* but got 35"):
        _draw(TokenMaskingConfig(num_masked=35, sampler="official"), _keys(2))
    with pytest.raises(ValueError, match=r"ratio must mask at most 35 .* but got 0.99"):
        _draw(TokenMaskingConfig(ratio=0.99), _keys(2))


@pytest.mark.gpu
def test_a_gpu_draws_the_same_masks():
    for sampler in ("official", "uniform"):
        config = TokenMaskingConfig(num_masked=20, sampler=sampler)
        on_gpu = _draw(config, _keys(9).cuda())
        assert torch.equal(on_gpu.masked_BM.cpu(), _draw(config, _keys(9)).masked_BM)
