"""Kaldi's arithmetic on a block of frames: mean, pre-emphasis, window, FFT, mel filters, logarithm.

Up to the FFT every operation and its order are Kaldi's, so that even the rounding noise is the
same; far below a tone's peak, there is nothing else to agree on.

Shape legend: B clips, T frames, W samples of a frame, H FFT bins, F mel bins, N = B T frames.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchaudio.compliance.kaldi import get_mel_banks

LOG_MEL_EPSILON = torch.finfo(torch.float32).eps

_FILTERS_PER_BAND = 16


class FrameBlock:
    """Computes log-mels of a fixed number of frames, in buffers that are made once."""

    def __init__(
        self,
        size: Sequence[int],
        *,
        window_W: Tensor,
        mel_banks_HF: Tensor,
        bands: Sequence[tuple[slice, slice]],
        fft_samples: int,
        preemphasis: float,
    ) -> None:
        """Make the buffers.

        Args:
            size: B and T.
            window_W: Begins with 0, as Kaldi's windows do.
            mel_banks_HF: Weights of the filters.
            bands: Where they are not zero, from `find_bands`.
            fft_samples: Length to which frames are padded with zeros.
            preemphasis: Coefficient.
        """
        num_bins, num_filters = mel_banks_HF.shape
        self._preemphasis = preemphasis
        self._window = window_W[1:]
        self._mean_BT1 = window_W.new_empty(*size, 1)
        self._frames_BTW = window_W.new_empty(*size, len(window_W))
        self._padded_BTW = window_W.new_zeros(*size, fft_samples)
        self._power_BTH = window_W.new_empty(*size, num_bins)
        self._mel_BTF = window_W.new_empty(*size, num_filters)
        power_NH, mel_NF = self._power_BTH.flatten(0, 1), self._mel_BTF.flatten(0, 1)
        self._bands = [
            (power_NH[:, bins], mel_banks_HF[bins, filters].contiguous(), mel_NF[:, filters])
            for bins, filters in bands
        ]

    def log_mel(self, frames_BTW: Tensor, *, out_BTF: Tensor) -> None:
        """Writes the log-mels of frames, which may overlap in memory, to `out_BTF`."""
        torch.mean(frames_BTW, dim=2, keepdim=True, out=self._mean_BT1)
        torch.sub(frames_BTW, self._mean_BT1, out=self._frames_BTW)
        # Kaldi's first sample has no predecessor in its frame and takes itself for one; the window
        # is zero there, as the padding is.
        emphasised_BTW = self._padded_BTW[..., 1 : self._frames_BTW.shape[2]]
        torch.mul(self._frames_BTW[..., :-1], self._preemphasis, out=emphasised_BTW)
        torch.sub(self._frames_BTW[..., 1:], emphasised_BTW, out=emphasised_BTW)
        emphasised_BTW.mul_(self._window)
        # abs() and pow(2) take a root in between: eight times slower
        squares_BTH2 = torch.view_as_real(torch.fft.rfft(self._padded_BTW)).square_()
        torch.add(squares_BTH2[..., 0], squares_BTH2[..., 1], out=self._power_BTH)
        for power_NH, weight_HF, mel_NF in self._bands:
            torch.mm(power_NH, weight_HF, out=mel_NF)
        torch.log(self._mel_BTF.clamp_min_(LOG_MEL_EPSILON), out=out_BTF)


def make_mel_banks(
    num_mel_bins: int,
    *,
    fft_samples: int,
    sample_rate_hz: int,
    low_freq_hz: float,
    high_freq_hz: float,
) -> Tensor:
    """Kaldi's triangular filters, (H, F); rates and frequencies in Hz.

    Source: `torchaudio.compliance.kaldi.get_mel_banks`.
    """
    banks_FH, _ = get_mel_banks(
        num_mel_bins,
        fft_samples,
        float(sample_rate_hz),
        low_freq_hz,
        high_freq_hz,
        100.0,  # vocal tract warping: unused at a warp factor of 1
        -500.0,
        1.0,
    )
    return pad(banks_FH, (0, 1)).T.contiguous()  # Kaldi ignores the Nyquist bin


def find_bands(mel_banks_HF: Tensor) -> list[tuple[slice, slice]]:
    """Groups of neighbouring filters and the FFT bins they read; all other weights are zero."""
    bands = []
    for first in range(0, mel_banks_HF.shape[1], _FILTERS_PER_BAND):
        filters = slice(first, first + _FILTERS_PER_BAND)
        used = mel_banks_HF[:, filters].any(dim=1).nonzero()[:, 0].tolist()
        bins = slice(used[0], used[-1] + 1) if used else slice(0, 1)
        bands.append((bins, filters))
    return bands
