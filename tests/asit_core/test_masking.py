"""GMML against a loop that places the same rectangles, and the law of the fill."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asit_core.masking import Corruption, MaskingConfig, corrupt, gmml_masks
from asit_core.seeding import clip_keys, stream, uniform

FRAMES, BINS = 48, 24


def _place(key: Tensor, target: float, config: MaskingConfig) -> tuple[Tensor, Tensor]:
    """Rectangles one by one until enough is hidden: the mask, and the mask without the last one."""
    draws = iter(uniform(key, 40_000)[3:].tolist())
    mask = torch.zeros(FRAMES, BINS, dtype=torch.bool)
    before = mask
    while int(mask.sum()) < target * FRAMES * BINS:
        start, length = [], []
        for size in (FRAMES, BINS):
            at = int(next(draws) * (size - config.align))
            start.append(at // config.align * config.align)
        for size, at in zip((FRAMES, BINS), start, strict=True):
            longest = int(size * config.block_max)
            drawn = config.align + int(next(draws) * (longest - config.align))
            drawn = min(drawn, size - at)
            length.append(round(drawn / config.align) * config.align)
        before = mask.clone()
        mask[start[0] : start[0] + length[0], start[1] : start[1] + length[1]] = True
    return mask, before


@pytest.mark.parametrize(
    ("config", "target"),
    [
        (MaskingConfig(), 0.7),
        (MaskingConfig(), 0.3),
        (MaskingConfig(ratio=0.95, block_max=0.2), 0.95),  # hundreds of rectangles: several rounds
        (MaskingConfig(ratio=0.95, block_max=1.0), 0.95),
        (MaskingConfig(align=4), 0.7),
        (MaskingConfig(align=4, ratio=0.95, block_max=0.5), 0.95),
        (MaskingConfig(align=5, block_max=0.5), 0.6),  # neither side is a multiple
    ],
)
def test_masks_equal_a_loop_that_places_the_same_rectangles(config, target):
    keys = clip_keys(3, "mask", 1, [f"clip-{i}" for i in range(12)])
    targets = torch.full((12,), target, dtype=torch.float64)
    masks = gmml_masks(keys, targets, frames=FRAMES, bins=BINS, config=config)
    for mask, key in zip(masks, keys, strict=True):
        expected, without_the_last = _place(key, target, config)
        assert torch.equal(mask, expected)
        # Reached, and by as few rectangles as could do.
        assert without_the_last.sum() < target * FRAMES * BINS <= mask.sum()


def test_each_view_of_a_batch_has_its_own_target():
    keys = clip_keys(0, "mask", 0, ["a", "b", "c", "d"])
    targets = torch.tensor([0.0, 0.2, 0.9, 0.5], dtype=torch.float64)
    config = MaskingConfig(ratio=0.95, block_max=0.15)
    masks = gmml_masks(keys, targets, frames=FRAMES, bins=BINS, config=config)
    assert not masks[0].any()
    for mask, key, target in zip(masks[1:], keys[1:], targets[1:], strict=True):
        assert torch.equal(mask, _place(key, target.item(), config)[0])


def test_aligned_masks_hide_whole_cells():
    keys = clip_keys(0, "mask", 0, [f"clip-{i}" for i in range(20)])
    masks = gmml_masks(
        keys,
        torch.full((20,), 0.5, dtype=torch.float64),
        frames=FRAMES,
        bins=BINS,
        config=MaskingConfig(align=4),
    )
    cells = masks.unflatten(2, (-1, 4)).unflatten(1, (-1, 4)).transpose(2, 3).flatten(3)
    assert torch.equal(cells.any(3), cells.all(3))


def _clean(clips: int = 8, views: int = 2) -> Tensor:
    return torch.randn(views, clips, FRAMES, BINS, generator=stream(0, "test_views"))


def _ids(clips: int = 8) -> list[str]:
    return [f"clip-{i}" for i in range(clips)]


def _corrupt(
    clean: Tensor, ids: list[str], config: MaskingConfig, *, epoch: int = 0, donor_group: int = 4
) -> Corruption:
    return corrupt(clean, ids, config, seed=5, epoch=epoch, donor_group=donor_group)


@pytest.mark.parametrize("self_alien", [False, True])
@pytest.mark.parametrize("config", [MaskingConfig(), MaskingConfig(min_ratio=0.1, alien_ratio=0.4)])
def test_corruption_equals_a_loop_over_views_and_clips(config, self_alien):
    config = dataclasses.replace(config, self_alien=self_alien)
    clean, ids, group = _clean(), _ids(), 4
    corrupted, mask, is_alien = _corrupt(clean, ids, config)
    for view in range(2):
        for clip in range(8):
            key = clip_keys(5, "mask", 0, [ids[clip]], view)[0]
            coin, share, donor = uniform(key, 3).tolist()
            assert bool(is_alien[view, clip]) == (coin < config.alien_probability)
            highest = config.alien_ratio if is_alien[view, clip] else config.ratio
            lowest = min(config.min_ratio, highest)
            expected_mask, _ = _place(key, lowest + share * (highest - lowest), config)
            assert torch.equal(mask[view, clip], expected_mask)
            first = clip // group * group
            others = [first + (clip - first + step) % group for step in range(group)]
            choices = others if self_alien else others[1:]
            expected = clean[view, clip].clone()  # an alien too starts from the clean view
            fill = clean[view, choices[int(donor * len(choices))]]
            for t, f in expected_mask.nonzero().tolist():
                expected[t, f] = fill[t, f] if is_alien[view, clip] else 0.0
            assert torch.equal(corrupted[view, clip], expected)


def test_zeros_are_zeros_and_the_rest_is_untouched():
    clean = _clean()
    corrupted, mask, is_alien = _corrupt(clean, _ids(), MaskingConfig(alien_probability=0.0))
    assert not is_alien.any()
    assert (corrupted[mask] == 0.0).all()
    assert torch.equal(corrupted[~mask], clean[~mask])
    share = mask.flatten(2).float().mean(2)
    assert ((share >= 0.5) & (share < 0.8)).all()


def test_padding_is_neither_hidden_nor_changed_unless_the_config_says_so():
    clean, ids = _clean(), _ids()
    num_frames = torch.tensor([48, 1, 20, 33, 48, 7, 47, 100])
    config = MaskingConfig()
    whole = _corrupt(clean, ids, config)
    arguments = {"seed": 5, "epoch": 0, "donor_group": 4, "num_frames_B": num_frames}
    spared = corrupt(clean, ids, config, **arguments)
    is_valid = torch.arange(FRAMES)[None, :, None] < num_frames[:, None, None]
    assert torch.equal(spared.mask_VBTF, whole.mask_VBTF & is_valid)
    outside = ~is_valid.expand(2, -1, -1, BINS)
    assert torch.equal(spared.corrupted_VBTF[outside], clean[outside])
    released = dataclasses.replace(config, spare_padding=False)
    assert torch.equal(corrupt(clean, ids, released, **arguments).mask_VBTF, whole.mask_VBTF)


@settings(deadline=None, max_examples=25)
@given(
    frames=st.integers(24, 64),
    bins=st.integers(24, 40),
    align=st.integers(1, 5),
    block_max=st.floats(0.3, 1.0),
    ratio=st.floats(0.0, 0.5),
    alien_ratio=st.floats(0.0, 0.5),
    self_alien=st.booleans(),
    lengths=st.lists(st.integers(1, 70), min_size=6, max_size=6),
    order=st.permutations(range(3)),
    seed=st.integers(0, 1000),
)
def test_properties_of_corruption(
    frames, bins, align, block_max, ratio, alien_ratio, self_alien, lengths, order, seed
):
    """H7: coverage, blocks, aliens, draws under any order, mask and padding disjoint."""
    config = MaskingConfig(
        ratio=ratio,
        min_ratio=0.2,
        alien_ratio=alien_ratio,
        block_max=block_max,
        align=align,
        self_alien=self_alien,
    )
    config.check_fits(frames, bins)
    ids, num_frames = _ids(6), torch.tensor(lengths)
    # Each clip holds its own number: what hides it is read off the pixels.
    clean = torch.arange(1.0, 7.0)[None, :, None, None].expand(2, 6, frames, bins)
    arguments = {"seed": seed, "epoch": 0, "donor_group": 2}
    whole = corrupt(clean, ids, config, **arguments)
    share = whole.mask_VBTF.flatten(2).double().mean(2)
    largest_block = (int(frames * block_max) + align) * (int(bins * block_max) + align)
    highest = torch.where(whole.is_alien_VB, alien_ratio, ratio)
    # Reached, and overshot by less than one rectangle.
    assert (share >= highest.clamp(max=0.2) - 1e-9).all()
    assert (share <= highest + largest_block / (frames * bins)).all()
    fill = whole.corrupted_VBTF[whole.mask_VBTF]
    own = clean[whole.mask_VBTF]
    is_alien = whole.is_alien_VB[..., None, None].expand_as(clean)[whole.mask_VBTF]
    assert (fill[~is_alien] == 0.0).all()
    partner = own + torch.where(own % 2 == 1, 1.0, -1.0)  # the other of its donor group
    alien = fill[is_alien]
    assert ((alien == partner[is_alien]) | (self_alien & (alien == own[is_alien]))).all()

    # As little as can be asked for takes one rectangle.
    keys = clip_keys(seed, "mask", 0, ids)
    least = torch.full((6,), 1e-6, dtype=torch.float64)
    for block in gmml_masks(keys, least, frames=frames, bins=bins, config=config):
        for inside, size in ((block.any(1), frames), (block.any(0), bins)):
            places = inside.nonzero().flatten()
            length = int(places[-1] - places[0]) + 1
            assert int(places[0]) % align == 0
            assert length == len(places)
            assert length <= int(size * block_max) + align / 2
            assert length >= min(align, size - int(places[0]))
        assert int(block.sum()) == int(block.any(1).sum()) * int(block.any(0).sum())

    spared = corrupt(clean, ids, config, **arguments, num_frames_B=num_frames)
    is_padding = torch.arange(frames)[None, :, None] >= num_frames[:, None, None]
    assert not (spared.mask_VBTF & is_padding).any()
    assert torch.equal(spared.mask_VBTF, whole.mask_VBTF & ~is_padding)

    moved = [clip for group in order for clip in (2 * group, 2 * group + 1)]
    other = corrupt(clean[:, moved], [ids[i] for i in moved], config, **arguments)
    assert torch.equal(other.mask_VBTF, whole.mask_VBTF[:, moved])
    assert torch.equal(other.corrupted_VBTF, whole.corrupted_VBTF[:, moved])


def test_the_realised_share_of_pixels_and_tokens_is_the_published_one():
    """H7, H8: 61 % of pixels by zeros and 31.5 % by aliens; of patches any, half and all."""
    keys = clip_keys(0, "mask", 0, _ids(150))
    share = 0.5 + 0.2 * uniform(keys, 2)[:, 1]
    masks = gmml_masks(keys, share, frames=592, bins=128, config=MaskingConfig())
    assert masks.double().mean().item() == pytest.approx(0.607, abs=0.02)
    hidden = masks.unflatten(2, (8, 16)).unflatten(1, (37, 16)).double().mean((2, 4))
    rules = [(hidden > 0).double(), (hidden >= 0.5).double(), (hidden == 1).double()]
    measured = [rule.mean().item() for rule in rules]
    assert measured == pytest.approx([0.845, 0.634, 0.313], abs=0.03)
    aliens = gmml_masks(
        keys,
        torch.full((150,), 0.3, dtype=torch.float64),
        frames=592,
        bins=128,
        config=MaskingConfig(),
    )
    assert aliens.double().mean().item() == pytest.approx(0.315, abs=0.01)


@pytest.mark.parametrize(
    ("fields", "nothing"),
    [
        ({}, False),
        ({"ratio": 0.0}, False),
        ({"ratio": 0.0, "alien_ratio": 0.0}, True),
        ({"ratio": 0.0, "alien_probability": 0.0}, True),
        ({"alien_ratio": 0.0, "alien_probability": 1.0}, True),
        ({"alien_ratio": 0.0, "alien_probability": 0.5}, False),
    ],
)
def test_what_hides_nothing(fields, nothing):
    assert MaskingConfig(**fields).hides_nothing == nothing


def test_an_alien_is_never_the_clip_itself_and_comes_from_its_group():
    ids = _ids(16)
    clean = torch.arange(16.0)[None, :, None, None].expand(2, 16, FRAMES, BINS)
    config = MaskingConfig(alien_probability=1.0)
    met: dict[int, set[int]] = {clip: set() for clip in range(16)}
    for epoch in range(30):
        corrupted, mask, is_alien = _corrupt(clean, ids, config, epoch=epoch)
        assert is_alien.all()
        for view in range(2):
            for clip in range(16):
                donors = corrupted[view, clip][mask[view, clip]].unique().tolist()
                assert len(donors) == 1  # one clip's content in all rectangles
                met[clip].add(int(donors[0]))
    for clip, donors in met.items():
        first = clip // 4 * 4
        assert donors == set(range(first, first + 4)) - {clip}


def test_with_self_alien_a_clip_may_be_its_own_donor():
    clean = torch.arange(8.0)[None, :, None, None].expand(2, 8, FRAMES, BINS)
    config = MaskingConfig(alien_probability=1.0, self_alien=True)
    corrupted, mask, _ = _corrupt(clean, _ids(), config)
    own = [(corrupted[v, c][mask[v, c]] == c).all() for v in range(2) for c in range(8)]
    assert any(own)
    assert not all(own)


def test_draws_depend_neither_on_how_groups_are_dealt_nor_on_their_order():
    clean, ids, config = _clean(), _ids(), MaskingConfig()
    whole = _corrupt(clean, ids, config)
    for first in (0, 4):  # one group to each of two workers
        part = _corrupt(clean[:, first : first + 4], ids[first : first + 4], config)
        for ours, theirs in zip(part, whole, strict=True):
            assert torch.equal(ours, theirs[:, first : first + 4])
    swapped = [4, 5, 6, 7, 0, 1, 2, 3]
    other = _corrupt(clean[:, swapped], [ids[i] for i in swapped], config)
    for ours, theirs in zip(other, whole, strict=True):
        assert torch.equal(ours, theirs[:, swapped])


def test_masks_do_not_depend_on_the_order_of_the_batch():
    clean, ids, config = _clean(), _ids(), MaskingConfig()
    order = [3, 6, 0, 7, 1, 5, 2, 4]
    whole = _corrupt(clean, ids, config)
    shuffled = _corrupt(clean[:, order], [ids[i] for i in order], config)
    assert torch.equal(shuffled.mask_VBTF, whole.mask_VBTF[:, order])
    assert torch.equal(shuffled.is_alien_VB, whole.is_alien_VB[:, order])


def test_views_epochs_and_seeds_are_masked_differently():
    clean, ids, config = _clean(), _ids(), MaskingConfig()
    first = _corrupt(clean, ids, config).mask_VBTF
    assert (first[0] != first[1]).any(dim=(1, 2)).all()
    assert (first != _corrupt(clean, ids, config, epoch=1).mask_VBTF).any(dim=(2, 3)).all()
    other_seed = corrupt(clean, ids, config, seed=6, epoch=0, donor_group=4)
    assert (first != other_seed.mask_VBTF).any(dim=(2, 3)).all()
    assert torch.equal(first, _corrupt(clean, ids, config).mask_VBTF)


def test_a_batch_that_splits_a_group_is_refused():
    with pytest.raises(ValueError, match="whole donor groups of 4 clips, but got 6"):
        _corrupt(_clean(6), _ids(6), MaskingConfig())
    with pytest.raises(ValueError, match="donor_group must be at least 2 for aliens, but got 1"):
        _corrupt(_clean(), _ids(), MaskingConfig(), donor_group=1)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("ratio", 1.5, r"ratio must be in \[0, 1\), but got 1.5"),
        ("ratio", float("nan"), r"ratio must be in \[0, 1\), but got nan"),
        ("min_ratio", -0.1, r"min_ratio must be in \[0, 1\), but got -0.1"),
        ("alien_ratio", 1.0, r"alien_ratio must be in \[0, 1\), but got 1.0"),
        ("alien_probability", 1.1, r"alien_probability must be in \[0, 1\], but got 1.1"),
        ("block_max", 0.0, r"block_max must be in \(0, 1\], but got 0.0"),
        ("align", 0, "align must be at least 1, but got 0"),
    ],
)
def test_a_bad_field_is_named_with_rule_and_value(field, value, message):
    with pytest.raises(ValueError, match=message):
        MaskingConfig(**{field: value})


def test_rectangles_that_cannot_be_drawn_are_refused():
    with pytest.raises(ValueError, match=r"block_max must allow.*align \(16\).*128 x 32.*got 0.3"):
        MaskingConfig(align=16).check_fits(128, 32)


def test_a_share_that_rectangles_cannot_reach_is_refused_instead_of_sought_forever():
    # With these sizes every rectangle is one cell of 16, and none starts in the last row or column.
    config = MaskingConfig(ratio=0.8, align=16, block_max=0.18)
    with pytest.raises(ValueError, match=r"ratio must be at most 0.766, all that .* but got 0.8"):
        config.check_fits(128, 128)
    dataclasses.replace(config, ratio=0.76).check_fits(128, 128)
    with pytest.raises(ValueError, match=r"alien_ratio must be at most 0.766.* but got 0.9"):
        dataclasses.replace(config, ratio=0.7, alien_ratio=0.9).check_fits(128, 128)


@pytest.mark.parametrize(
    ("align", "block_max"), [(1, 0.3), (1, 0.09), (4, 0.3), (4, 0.25), (5, 0.5), (7, 0.34)]
)
def test_the_highest_share_allowed_is_the_one_that_can_be_reached(align, block_max):
    config = MaskingConfig(align=align, block_max=block_max, ratio=0.0, alien_ratio=0.0)
    reach = []
    for size in (FRAMES, BINS):
        ends = set()
        for at in range(size - align):  # every start and length the draws can give
            start = at // align * align
            for length in range(align, int(size * block_max)):
                ends.add(start + round(min(length, size - start) / align) * align)
        reach.append(min(size, max(ends)))
    highest = reach[0] * reach[1] / (FRAMES * BINS)
    if highest < 1.0:
        dataclasses.replace(config, ratio=highest).check_fits(FRAMES, BINS)
        with pytest.raises(ValueError, match="ratio must be at most"):
            dataclasses.replace(config, ratio=highest + 1e-6).check_fits(FRAMES, BINS)
    else:
        dataclasses.replace(config, ratio=1.0 - 1e-9).check_fits(FRAMES, BINS)


@pytest.mark.gpu
def test_a_gpu_draws_the_same_masks(monkeypatch):
    # Powers of two and ones: exact in TF32 too.
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    clean, ids, config = _clean(), _ids(), MaskingConfig(ratio=0.95, min_ratio=0.9)
    on_gpu = _corrupt(clean.cuda(), ids, config)
    for ours, theirs in zip(on_gpu, _corrupt(clean, ids, config), strict=True):
        assert torch.equal(ours.cpu(), theirs)
