"""Clip vectors that queries draw from frozen tokens; the pool of the attentive probe.

Shape legend: N clips, B clips of a chunk, T tokens, H queries, D features, P = H * D pool weights.
"""

import torch
from torch import Tensor

from asit_core.logistic_regression import Standardiser

_MIN_RMS = 1e-6  # of the tokens' deviation: below it clip means differ by rounding only
_MAX_ELEMENTS = 2**22  # read at once in float64: 32 MiB


class TokenPool:
    """Softmax attention over a clip's valid tokens, one block of features per query.

    Queries meet tokens standardised to unit deviation. The clip vectors are scaled by one number
    more, so that means of tokens, which vary less, are of unit size too and the penalties mean what
    they mean for a linear probe.
    """

    def __init__(self, token_NTD: Tensor, valid_NT: Tensor, *, num_queries: int) -> None:
        """Takes finite tokens of any float type, not standardised before `of_clips`."""
        self._token_NTD, self._valid_NT, self._num_queries = token_NTD, valid_NT, num_queries
        _, num_tokens, num_features = token_NTD.shape
        self.num_weights = num_queries * num_features
        self.elements_per_clip = num_tokens * num_features
        identity_D = torch.ones(num_features, dtype=torch.float64)
        self._standardise, self._gain = Standardiser(torch.zeros_like(identity_D), identity_D), 1.0

    def of_clips(self, rows_N: Tensor) -> "TokenPool":
        """The same tokens, standardised by those of some clips."""
        pool = self.over(self._token_NTD, self._valid_NT)
        pool._standardise, pool._gain = self._fit_standardiser(rows_N), 1.0
        even_P = torch.zeros(self.num_weights, dtype=torch.float64)
        squares = [pool(even_P, rows_B).square().sum(dim=0) for rows_B in self._chunks(rows_N)]
        varies_D = pool._standardise.scale > 0
        mean_square_D = torch.stack(squares).sum(dim=0)[varies_D] / len(rows_N)
        rms = float(mean_square_D.mean().sqrt()) if varies_D.any() else 0.0
        pool._gain = 1.0 / rms if rms > _MIN_RMS else 1.0
        return pool

    def over(self, token_NTD: Tensor, valid_NT: Tensor) -> "TokenPool":
        """This pool over the tokens of other clips."""
        pool = TokenPool(token_NTD, valid_NT, num_queries=self._num_queries)
        pool._standardise, pool._gain = self._standardise, self._gain
        return pool

    def __call__(self, weight_P: Tensor, rows_B: Tensor) -> Tensor:
        """Float64 vectors (B, D) of some clips, differentiable by the queries."""
        token_BTD = self._token_NTD[rows_B]
        token_BTD = token_BTD.to(torch.promote_types(token_BTD.dtype, torch.float32))
        # The standardising shift adds one number to all tokens' logits: the softmax drops it.
        query_HD = weight_P.unflatten(0, (self._num_queries, -1)) * self._standardise.scale
        logits_BTH = token_BTD @ query_HD.T.to(token_BTD.dtype)
        hidden_BT1 = ~self._valid_NT[rows_B][:, :, None]
        attention_BTH = torch.softmax(logits_BTH.masked_fill(hidden_BT1, -torch.inf), dim=1)
        # Every query averages all features, of which its block is kept: faster than moving tokens.
        every_BHHE = (attention_BTH.mT @ token_BTD).unflatten(2, (self._num_queries, -1))
        vector_BD = every_BHHE.diagonal(dim1=1, dim2=2).mT.flatten(1)
        return self._gain * self._standardise(vector_BD.double())

    def _fit_standardiser(self, rows_N: Tensor) -> Standardiser:
        """Over the valid tokens, in two passes."""
        num_tokens = int(self._valid_NT[rows_N].sum())
        sums = [self._valid_tokens(rows_B).sum(dim=0) for rows_B in self._chunks(rows_N)]
        mean_D = torch.stack(sums).sum(dim=0) / num_tokens
        squares = [
            (self._valid_tokens(rows_B) - mean_D).square().sum(dim=0)
            for rows_B in self._chunks(rows_N)
        ]
        std_D = (torch.stack(squares).sum(dim=0) / num_tokens).sqrt()
        return Standardiser.of_moments(mean_D, std_D)

    def _valid_tokens(self, rows_B: Tensor) -> Tensor:
        return self._token_NTD[rows_B][self._valid_NT[rows_B]].double()

    def _chunks(self, rows_N: Tensor) -> tuple[Tensor, ...]:
        return rows_N.split(max(1, _MAX_ELEMENTS // self.elements_per_clip))
