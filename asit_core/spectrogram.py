"""The front end: waveforms to Kaldi-compatible log-mel spectrograms, batched, on any device.

Equal to `torchaudio.compliance.kaldi.fbank(htk_compat=True, use_energy=False, dither=0)`, which
AST, SSAST and ASiT call one clip at a time. Here the window and the mel matrix are built once, and
frames go through `filterbank.py` in blocks of the size that suits the device, so that an hour of
sound needs no more working memory than half a minute.

Shape legend: B clips, S samples, T frames, W samples of a frame, H FFT bins, F mel bins.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from asit_core.filterbank import LOG_MEL_EPSILON, FrameBlock, find_bands, make_mel_banks

LOG_MEL_FLOOR = math.log(LOG_MEL_EPSILON)
"""Log-mel value of digital silence, about -15.942385."""

_CPU_BLOCK = 1 << 20  # padded samples that are worked on at once: 20 MB of working memory
_GPU_BLOCK = 1 << 25  # 600 MB
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
        mel_banks_HF = make_mel_banks(
            config.num_mel_bins,
            fft_samples=config.fft_samples,
            sample_rate_hz=config.sample_rate_hz,
            low_freq_hz=config.low_freq_hz,
            high_freq_hz=config.upper_edge_hz,
        )
        self.register_buffer("mel_banks", mel_banks_HF, persistent=False)
        self._bands = find_bands(mel_banks_HF)

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
            reach past a clip's valid samples hold `LOG_MEL_FLOOR`. On a GPU, PyTorch's own setting
            `torch.set_float32_matmul_precision("high")` leaves three digits of them.

        Raises:
            ValueError: If the input is not (B, S) floating point, shorter than one frame, or
                `num_samples_B` does not fit it.
        """
        self._check(waveform_BS, num_samples_B)
        valid_B = num_samples_B
        if valid_B is None:
            valid_B = torch.full(waveform_BS.shape[:1], waveform_BS.shape[1])
        shape = (len(waveform_BS), self.num_frames(waveform_BS.shape[1]), self.config.num_mel_bins)
        log_mel_BTF = self.mel_banks.new_empty(shape)
        clips_a_block, frames_a_block = self._block_size(waveform_BS.device, shape[1])
        blocks: dict[torch.Size, FrameBlock] = {}
        # Autocast would turn the mel product into bfloat16, three digits too few for 1e-4.
        with torch.autocast(waveform_BS.device.type, enabled=False):
            clips = (x.split(clips_a_block) for x in (waveform_BS, valid_B, log_mel_BTF))
            for clips_BS, clips_valid_B, out_BTF in zip(*clips, strict=True):
                frames_BTW = self._frames(clips_BS, clips_valid_B)
                frames = (x.split(frames_a_block, dim=1) for x in (frames_BTW, out_BTF))
                for block_BTW, block_BTF in zip(*frames, strict=True):
                    size = block_BTW.shape[:2]
                    if size not in blocks:
                        blocks[size] = self._block(size)
                    blocks[size].log_mel(block_BTW, out_BTF=block_BTF)
        if num_samples_B is not None:
            past_end_BT = self._past_end(num_samples_B, shape[1]).to(log_mel_BTF.device)
            log_mel_BTF.masked_fill_(past_end_BT[:, :, None], LOG_MEL_FLOOR)
        return log_mel_BTF

    def _block_size(self, device: torch.device, num_frames: int) -> tuple[int, int]:
        """Clips and frames that are worked on at once."""
        on_cpu = device.type == "cpu"
        block = max(1, (_CPU_BLOCK if on_cpu else _GPU_BLOCK) // self.config.fft_samples)
        return (1 if on_cpu else max(1, block // num_frames)), min(block, num_frames)

    def _block(self, size: torch.Size) -> FrameBlock:
        return FrameBlock(
            size,
            window_W=self.window,
            mel_banks_HF=self.mel_banks,
            bands=self._bands,
            fft_samples=self.config.fft_samples,
            preemphasis=self.config.preemphasis,
        )

    def _past_end(self, num_samples_B: Tensor, num_frames: int) -> Tensor:
        """Marks the frames (B, T) that reach past a clip's valid samples."""
        start_T = torch.arange(num_frames, device=num_samples_B.device) * self.config.hop_samples
        return start_T + self.config.frame_samples > num_samples_B[:, None]

    def _frames(self, waveform_BS: Tensor, num_samples_B: Tensor) -> Tensor:
        """Overlapping frames (B, T, W), a view of the samples."""
        waveform_BS = waveform_BS.float()
        if self.config.subtract_mean:
            waveform_BS = _remove_clip_mean(waveform_BS, num_samples_B)
        return waveform_BS.unfold(1, self.config.frame_samples, self.config.hop_samples)

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


def _remove_clip_mean(waveform_BS: Tensor, num_samples_B: Tensor) -> Tensor:
    # Clip by clip: a batched mean sums in another order, and one unit in the last place of it moves
    # the emptiest mel bins by 1e-4. So a clip's spectrogram does not depend on its batch.
    out_BS = torch.empty_like(waveform_BS)
    for clip_S, length, out_S in zip(waveform_BS, num_samples_B.tolist(), out_BS, strict=True):
        torch.sub(clip_S, clip_S[:length].mean(), out=out_S)
    return out_BS
