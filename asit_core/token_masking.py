"""Which patch tokens of a clip are masked, as SSAST, MAE-AST and MaskSpec do it.

Every clip of a batch has the same number of masked tokens, so that they can be gathered. They are
drawn one by one (`random`) or as square clusters of neighbours (`cluster`). The released SSAST
program draws clusters with a bias, kept as `official`: see `draw_token_masks`.

Shapes: `B` clips (views count as clips), `N` patches, `M` masked ones, `U` visible ones, `K`
clusters. A grid of patches is (t, f): columns in time, rows in frequency.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from asit_core.checks import check_one_of
from asit_core.encoder_config import TokenOrder
from asit_core.seeding import uniform

_CLUSTERS_PER_ROUND = 64
_NEVER = 2**31


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenMaskingConfig:
    """How many tokens are masked, and how they lie.

    Padding is not spared: what follows a short clip's end is masked, and stays visible, like any
    other patch. Of a clip much shorter than the crop most masked patches are padding, which is
    predicted without listening and looks alike to patch discrimination, and all of the clip may be
    masked, so that nothing but padding stays visible. Choose `views.crop_frames` near the clips'
    length.

    Attributes:
        num_masked: Tokens masked in each clip; null where `ratio` is given.
        ratio: Share of the tokens instead, rounded up.
        shape: `cluster`: squares of neighbouring patches; `random`: patches one by one.
        sampler: `uniform`: every patch is as likely to be masked; `official`: clusters as the
            released SSAST program draws them, which seldom masks low rows and never patch 0.
            Without clusters the two are the same.
        cluster_sizes: Sides a clip's clusters may have, in patches; one is drawn for each clip.
        shared_pass: One mask and one forward pass for all tasks that read masked tokens, or, as in
            the released program, one each.
    """

    __pydantic_config__ = {"extra": "forbid"}

    num_masked: int | None = None
    ratio: float | None = None
    shape: Literal["cluster", "random"] = "cluster"
    sampler: Literal["official", "uniform"] = "uniform"
    cluster_sizes: tuple[int, ...] = (3, 4, 5)
    shared_pass: bool = True

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        if (self.num_masked is None) == (self.ratio is None):
            raise ValueError(
                "num_masked must be given, or ratio in its stead, but got "
                f"num_masked {self.num_masked} and ratio {self.ratio}"
            )
        if self.num_masked is not None and self.num_masked < 1:
            raise ValueError(f"num_masked must be at least 1, but got {self.num_masked}")
        if self.ratio is not None and not 0.0 < self.ratio < 1.0:
            raise ValueError(f"ratio must be in (0, 1), but got {self.ratio}")
        check_one_of("shape", self.shape, ("cluster", "random"))
        check_one_of("sampler", self.sampler, ("official", "uniform"))
        if not self.cluster_sizes or min(self.cluster_sizes) < 1:
            raise ValueError(
                "cluster_sizes must be one or more whole numbers above 0, but got "
                f"{list(self.cluster_sizes)}"
            )

    def count(self, num_tokens: int) -> int:
        """Tokens masked of a clip's `num_tokens`."""
        if self.num_masked is not None:
            return self.num_masked
        assert self.ratio is not None, "checked on construction"
        # 0.8 * 10 is 8.000000000000002 for some: a rounding error is no ninth token.
        return math.ceil(round(self.ratio * num_tokens, 6))

    def check_fits(self, num_tokens: int) -> None:
        """Raise ValueError if a clip of so many tokens cannot lose that many."""
        # The program covers one token more than it masks, and can never cover the first.
        official = self.shape == "cluster" and self.sampler == "official"
        highest = num_tokens - (2 if official else 1)
        if self.count(num_tokens) > highest:
            name = "num_masked" if self.ratio is None else "ratio"
            raise ValueError(
                f"{name} must mask at most {highest} of a view's {num_tokens} patches, "
                f"but got {getattr(self, name)}"
            )


class TokenMasks(NamedTuple):
    """Indices (int64, ascending, in the encoder's token order) of masked and of visible patches."""

    masked_BM: Tensor
    visible_BU: Tensor


def draw_token_masks(
    keys_B: Tensor, grid: tuple[int, int], config: TokenMaskingConfig, *, token_order: TokenOrder
) -> TokenMasks:
    """Draw the masked patches of each clip.

    Clusters are squares of `size` x `size` patches, thrown until enough patches are covered.
    `uniform` throws them on a torus, so that all patches are alike, and takes back at random what
    the last square covers too much. `official` numbers patches along time, row by row from the
    lowest mel band, adds `size` runs of `size` numbers from a random start (so that squares run
    over the end of a row into the next), stops once more than enough are covered, leaves out
    number 0, and keeps the lowest numbers.

    Args:
        keys_B: Keys from `seeding.clip_keys`.
        grid: Columns and rows of patches.
        config: How many, and how.
        token_order: The encoder's. It changes how patches are numbered, not which are masked.

    Returns:
        M = `config.count(N)` masked and N - M visible patches of each clip.

    Source: SSAST (arXiv:2110.09784), Sec. 3.2, with its released program's law where `official`;
    MAE (arXiv:2111.06377), Sec. 3, for `random`.
    """
    num_tokens = grid[0] * grid[1]
    config.check_fits(num_tokens)
    num_masked = config.count(num_tokens)
    # Draw 0 is the cluster's size, the next N order patches that are otherwise equal.
    draws_BN = uniform(keys_B, num_tokens, skip=1)
    if config.shape == "random":
        rank_BN = draws_BN
    elif config.sampler == "uniform":
        rank_BN = _first_clusters(keys_B, grid, config, goal=num_masked) + draws_BN
    else:
        first_BN = _first_clusters(keys_B, grid, config, goal=num_masked + 1)
        last_B1 = first_BN.sort(dim=1).values[:, num_masked : num_masked + 1]
        number_N = torch.arange(num_tokens, device=keys_B.device)
        rank_BN = torch.where(first_BN <= last_B1, number_N, number_N + num_tokens)
    order_BN = _renumber(rank_BN.argsort(dim=1), grid, token_order)
    return TokenMasks(
        order_BN[:, :num_masked].sort(dim=1).values, order_BN[:, num_masked:].sort(dim=1).values
    )


def _first_clusters(
    keys_B: Tensor, grid: tuple[int, int], config: TokenMaskingConfig, *, goal: int
) -> Tensor:
    """Index (B, N) of the first cluster on each patch, until each clip has `goal` patches covered.

    Patches are numbered along time, row by row. Clusters drawn beyond a clip's need, because
    another clip needs more, have higher indices than all it needs.
    """
    columns, rows = grid
    num_tokens = columns * rows
    sizes = torch.tensor(config.cluster_sizes, device=keys_B.device)
    choice_B1 = (uniform(keys_B, 1) * len(config.cluster_sizes)).long()
    offset = torch.arange(max(config.cluster_sizes), device=keys_B.device)
    inside_Bi = offset < sizes[choice_B1]
    inside_B1ij = (inside_Bi[:, :, None] & inside_Bi[:, None, :]).unsqueeze(1)
    # What falls outside lands on one patch more, which is cut off.
    shape = (len(keys_B), num_tokens + 1)
    first_BN = torch.full(shape, _NEVER, dtype=torch.int64, device=keys_B.device)
    for num_round in itertools.count():
        skip = 1 + num_tokens + num_round * _CLUSTERS_PER_ROUND
        draws_BK = uniform(keys_B, _CLUSTERS_PER_ROUND, skip=skip)
        start_BK11 = (draws_BK * num_tokens).long()[..., None, None]
        if config.sampler == "official":
            patch_BKij = start_BK11 + columns * offset[:, None] + offset
            falls_BKij = inside_B1ij & (patch_BKij > 0) & (patch_BKij < num_tokens)
        else:
            row_BKi1 = (start_BK11 // columns + offset[:, None]) % rows
            patch_BKij = row_BKi1 * columns + (start_BK11 % columns + offset) % columns
            falls_BKij = inside_B1ij
        patch_BKij = torch.where(falls_BKij, patch_BKij, num_tokens)
        index_K = torch.arange(_CLUSTERS_PER_ROUND, device=keys_B.device)
        index_K11 = (index_K + num_round * _CLUSTERS_PER_ROUND)[:, None, None]
        index_BKij = index_K11.expand_as(patch_BKij)
        first_BN.scatter_reduce_(1, patch_BKij.flatten(1), index_BKij.flatten(1), "amin")
        if bool(((first_BN[:, :-1] < _NEVER).sum(dim=1) >= goal).all()):
            break
    return first_BN[:, :-1]


def _renumber(number_BN: Tensor, grid: tuple[int, int], token_order: TokenOrder) -> Tensor:
    """Patches numbered along time, row by row, as the encoder numbers them."""
    if token_order == "frequency":
        return number_BN
    columns, rows = grid
    return number_BN % columns * rows + number_BN // columns
