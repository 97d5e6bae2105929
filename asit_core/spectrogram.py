"""The front end: waveforms to Kaldi-compatible log-mel spectrograms, batched, on any device.

Equal to `torchaudio.compliance.kaldi.fbank(htk_compat=True, use_energy=False, dither=0)`, which
AST, SSAST and ASiT call one clip at a time; here the window and the mel matrix are built once and a
whole batch goes through one FFT.

Shape legend: B clips, S samples, T frames, W samples of a frame, H FFT bins,
F mel bins.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torchaudio.compliance.kaldi import get_mel_banks

LOG_MEL_EPSILON = torch.finfo(torch.float32).eps
LOG_MEL_FLOOR = math.log(LOG_MEL_EPSILON)
"""Log-mel value of digital silence, about -15.942385."""

_FILTERS_PER_BAND = 16
_WINDOWS = ("hanning", "povey")
_MIN_MEL_BINS = 4  # the fewest that Kaldi's filterbank in torchaudio accepts


@dataclass(frozen=True, kw_only=True, slots=True)
class LogMelConfig:
    """What a log-mel value depends on; two equal configs give equal spectrograms.

    Many mel bins at a low sample rate leave filters without an FFT bin (128 bins at 8 kHz): they
    stay at `LOG_MEL_FLOOR`, as in Kaldi.

    Attributes:
        sample_rate_hz: Rate of the waveforms, in Hz.
        num_mel_bins: Triangular filters, at least 4.
        frame_length_ms: Window length; zero-padded to a power of two before the FFT.
        hop_ms: Distance between frames.
        window: `hanning` (AST, SSAST, ASiT) or `povey` (Kaldi's default); both non-periodic.
        subtract_mean: Remove the mean of the waveform first, as the AST and ASiT loaders do.
        low_freq_hz: Lower edge of the lowest filter.
        high_freq_hz: Upper edge of the highest filter; None means the Nyquist frequency.
        preemphasis: Coefficient in [0, 1]; 0 turns it off.
    """

    __pydantic_config__ = {"extra": "forbid"}

    sample_rate_hz: int = 32000
    num_mel_bins: int = 128
    frame_length_ms: float = 25.0
    hop_ms: float = 10.0
    window: Literal["hanning", "povey"] = "hanning"
    subtract_mean: bool = True
    low_freq_hz: float = 20.0
    high_freq_hz: float | None = None
    preemphasis: float = 0.97

    def __post_init__(self) -> None:
        if not self.sample_rate_hz > 0:
            raise ValueError(f"sample_rate_hz must be > 0, but got {self.sample_rate_hz}")
        if self.num_mel_bins < _MIN_MEL_BINS:
            raise ValueError(
                f"num_mel_bins must be >= {_MIN_MEL_BINS}, but got {self.num_mel_bins}"
            )
        self._check_frames()
        if self.window not in _WINDOWS:
            raise ValueError(
                f"window must be one of {', '.join(_WINDOWS)}, but got {self.window!r}"
            )
        self._check_frequencies()
        if not 0 <= self.preemphasis <= 1:
            raise ValueError(f"preemphasis must be in [0, 1], but got {self.preemphasis}")

    def _check_frames(self) -> None:
        for name, smallest in (("frame_length_ms", 2), ("hop_ms", 1)):
            duration_ms = getattr(self, name)
            if not (
                math.isfinite(duration_ms)
                and _to_samples(self.sample_rate_hz, duration_ms) >= smallest
            ):
                raise ValueError(
                    f"{name} must be finite and last at least {smallest} samples at "
                    f"{self.sample_rate_hz} Hz, but got {duration_ms}"
                )

    def _check_frequencies(self) -> None:
        nyquist_hz = self.sample_rate_hz / 2
        if self.high_freq_hz is not None and not 0 < self.high_freq_hz <= nyquist_hz:
            raise ValueError(
                f"high_freq_hz must be in (0, {nyquist_hz:g}] (half of sample_rate_hz), "
                f"but got {self.high_freq_hz}"
            )
        if not 0 <= self.low_freq_hz < self.upper_edge_hz:
            raise ValueError(
                f"low_freq_hz must be in [0, {self.upper_edge_hz:g}) (below high_freq_hz), "
                f"but got {self.low_freq_hz}"
            )

    @property
    def frame_samples(self) -> int:
        """Samples of one frame."""
        return _to_samples(self.sample_rate_hz, self.frame_length_ms)

    @property
    def hop_samples(self) -> int:
        """Samples between the starts of two frames."""
        return _to_samples(self.sample_rate_hz, self.hop_ms)

    @property
    def fft_samples(self) -> int:
        """FFT length: the frame's length rounded up to a power of two."""
        return 1 << (self.frame_samples - 1).bit_length()

    @property
    def upper_edge_hz(self) -> float:
        """Upper edge of the highest filter, with the default filled in."""
        return self.sample_rate_hz / 2 if self.high_freq_hz is None else self.high_freq_hz


class LogMel(nn.Module):
    """Log-mel spectrograms of a batch of waveforms; no parameters, no state to save.

    Source: Kaldi's compute-fbank-feats as in `torchaudio.compliance.kaldi.fbank`; AST
    (arXiv:2104.01778), Sec. 2.1; ASiT (arXiv:2211.13189), Sec. IV.
    """

    window: Tensor  # (W,)
    mel_banks: Tensor  # (H, F)

    def __init__(self, config: LogMelConfig) -> None:
        super().__init__()
        self.config = config
        window_W = torch.hann_window(config.frame_samples, periodic=False)
        if config.window == "povey":
            window_W = window_W.pow(0.85)
        self.register_buffer("window", window_W, persistent=False)
        self.register_buffer("mel_banks", _mel_banks(config), persistent=False)
        self._bands = _bands(self.mel_banks)

    def num_frames(self, num_samples: int) -> int:
        """Counts the frames that fit into `num_samples` entirely (Kaldi's snip_edges); may be 0."""
        if num_samples < self.config.frame_samples:
            return 0
        return 1 + (num_samples - self.config.frame_samples) // self.config.hop_samples

    @torch.no_grad()
    def forward(self, waveform_BS: Tensor, num_samples_B: Tensor | None = None) -> Tensor:
        """Computes log-mel spectrograms.

        Args:
            waveform_BS: Float waveforms in [-1, 1] at `config.sample_rate_hz`, on the module's
                device; with `num_samples_B`, padded at the end with anything finite.
            num_samples_B: Valid samples of each clip; None if all S are valid.

        Returns:
            Natural-log mel energies, float32, (B, T, F) with T = `num_frames(S)`. Frames that
            reach past a clip's valid samples hold `LOG_MEL_FLOOR`.

        Raises:
            ValueError: If the input is not (B, S) floating point, shorter than one frame, or
                `num_samples_B` does not fit it.
        """
        self._check(waveform_BS, num_samples_B)
        if num_samples_B is None:
            num_samples_B = torch.full(waveform_BS.shape[:1], waveform_BS.shape[1])
        # One clip's frames fit a CPU's cache, a batch's do not: all at once is five times slower.
        chunk = 1 if waveform_BS.device.type == "cpu" else len(waveform_BS)
        # Autocast would turn the mel product into bfloat16, three digits too few for 1e-4.
        with torch.autocast(waveform_BS.device.type, enabled=False):
            chunks = zip(waveform_BS.split(chunk), num_samples_B.split(chunk), strict=True)
            log_mel_BTF = torch.cat([self._log_mel(clips, valid) for clips, valid in chunks])
        past_end_BT = self._past_end(num_samples_B, log_mel_BTF.shape[1]).to(log_mel_BTF.device)
        return log_mel_BTF.masked_fill_(past_end_BT[:, :, None], LOG_MEL_FLOOR)

    def _past_end(self, num_samples_B: Tensor, num_frames: int) -> Tensor:
        """Marks the frames (B, T) that reach past a clip's valid samples."""
        start_T = torch.arange(num_frames, device=num_samples_B.device) * self.config.hop_samples
        return start_T + self.config.frame_samples > num_samples_B[:, None]

    def _log_mel(self, waveform_BS: Tensor, num_samples_B: Tensor) -> Tensor:
        waveform_BS = waveform_BS.float()
        if self.config.subtract_mean:
            waveform_BS = _remove_clip_mean(waveform_BS, num_samples_B)
        frames_BTW = waveform_BS.unfold(1, self.config.frame_samples, self.config.hop_samples)
        frames_BTW = frames_BTW - frames_BTW.mean(dim=2, keepdim=True)
        spectrum_BTH = torch.fft.rfft(self._emphasise(frames_BTW))
        # twice as fast as abs() and pow(2), which take a root in between
        power_BTH = torch.addcmul(spectrum_BTH.real.square(), spectrum_BTH.imag, spectrum_BTH.imag)
        mel_BTF = power_BTH.new_empty((*power_BTH.shape[:2], self.config.num_mel_bins))
        for bins, filters in self._bands:
            mel_BTF[..., filters] = power_BTH[..., bins] @ self.mel_banks[bins, filters]
        return mel_BTF.clamp_min_(LOG_MEL_EPSILON).log_()

    def _emphasise(self, frames_BTW: Tensor) -> Tensor:
        """Pre-emphasised, windowed frames, zero-padded to the FFT's length."""
        padded = frames_BTW.new_zeros((*frames_BTW.shape[:2], self.config.fft_samples))
        # Kaldi's first sample has no predecessor in its frame and takes itself for one.
        emphasised_BTW = padded[..., : self.config.frame_samples]
        for current, previous in ((slice(0, 1), slice(0, 1)), (slice(1, None), slice(0, -1))):
            out = emphasised_BTW[..., current]
            torch.mul(frames_BTW[..., previous], self.config.preemphasis, out=out)
            torch.sub(frames_BTW[..., current], out, out=out)
        emphasised_BTW.mul_(self.window)
        return padded

    def _check(self, waveform_BS: Tensor, num_samples_B: Tensor | None) -> None:
        if waveform_BS.ndim != 2 or not len(waveform_BS) or not waveform_BS.is_floating_point():
            raise ValueError(
                "waveform_BS must be floating point of shape (B, S) with B >= 1, but got "
                f"{waveform_BS.dtype} of shape {tuple(waveform_BS.shape)}"
            )
        num_samples = waveform_BS.shape[1]
        if num_samples < self.config.frame_samples:
            raise ValueError(
                f"waveform_BS must hold at least one frame ({self.config.frame_samples} samples, "
                f"{self.config.frame_length_ms:g} ms), but got {num_samples} samples; pad the clip"
            )
        if num_samples_B is None:
            return
        if num_samples_B.shape != waveform_BS.shape[:1]:
            raise ValueError(
                f"num_samples_B must have shape ({waveform_BS.shape[0]},), but got "
                f"{tuple(num_samples_B.shape)}"
            )
        if ((num_samples_B < 1) | (num_samples_B > num_samples)).any():
            raise ValueError(
                f"num_samples_B must be in [1, {num_samples}], but got {num_samples_B.tolist()}"
            )


def _to_samples(sample_rate_hz: int, duration_ms: float) -> int:
    # The order of the product is Kaldi's in torchaudio, so that rounding falls the same way.
    return int(sample_rate_hz * duration_ms * 0.001)


def _mel_banks(config: LogMelConfig) -> Tensor:
    banks_FH, _ = get_mel_banks(
        config.num_mel_bins,
        config.fft_samples,
        float(config.sample_rate_hz),
        config.low_freq_hz,
        config.upper_edge_hz,
        100.0,  # vocal tract warping: unused at a warp factor of 1
        -500.0,
        1.0,
    )
    return pad(banks_FH, (0, 1)).T.contiguous()  # Kaldi ignores the Nyquist bin


def _bands(mel_banks_HF: Tensor) -> list[tuple[slice, slice]]:
    """Groups of neighbouring filters and the FFT bins they read; all other weights are zero."""
    bands = []
    for first in range(0, mel_banks_HF.shape[1], _FILTERS_PER_BAND):
        filters = slice(first, first + _FILTERS_PER_BAND)
        used = mel_banks_HF[:, filters].any(dim=1).nonzero()[:, 0].tolist()
        bins = slice(used[0], used[-1] + 1) if used else slice(0, 1)
        bands.append((bins, filters))
    return bands


def _remove_clip_mean(waveform_BS: Tensor, num_samples_B: Tensor) -> Tensor:
    # Clip by clip: a batched mean sums in another order, and one unit in the last place of it moves
    # the emptiest mel bins by 1e-4. So a clip's spectrogram does not depend on its batch.
    clips = zip(waveform_BS.unbind(), num_samples_B.tolist(), strict=True)
    return torch.stack([clip - clip[:length].mean() for clip, length in clips])
