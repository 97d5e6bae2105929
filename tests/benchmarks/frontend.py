"""Is the batched front end faster than Kaldi's filterbank clip by clip, and equal to it?

    python tests/benchmarks/frontend.py

Both compute the same log-mels of the same clips in one process on one thread, in turn, after one
round that is not counted: whatever else the machine does slows both. The table is printed as JSON:
medians of wall and of processor time, their ratios (`speedup`), and the largest difference.
`plain_batching_s` is the middle way: Kaldi's steps on all frames of the batch at once, its dense
mel matrix, nothing cached.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchaudio.compliance import kaldi

from asit_core.filterbank import make_mel_banks
from asit_core.seeding import stream
from asit_core.spectrogram import LOG_MEL_EPSILON, LogMel, LogMelConfig


def kaldi_fbank(waveform_BS: Tensor, config: LogMelConfig) -> Tensor:
    """What the released loaders call, one clip at a time."""
    return torch.stack(
        [
            kaldi.fbank(
                (waveform_S - waveform_S.mean())[None],
                htk_compat=True,
                use_energy=False,
                dither=0.0,
                window_type=config.window,
                num_mel_bins=config.num_mel_bins,
                sample_frequency=config.sample_rate_hz,
            )
            for waveform_S in waveform_BS
        ]
    )


def plain_batching(waveform_BS: Tensor, config: LogMelConfig) -> Tensor:
    """Kaldi's steps, with a batch dimension and nothing else done about speed."""
    waveform_BS = waveform_BS - waveform_BS.mean(dim=1, keepdim=True)
    frames_BTW = waveform_BS.unfold(1, config.frame_samples, config.hop_samples)
    frames_BTW = frames_BTW - frames_BTW.mean(dim=2, keepdim=True)
    previous_BTW = torch.cat([frames_BTW[..., :1], frames_BTW[..., :-1]], dim=2)
    frames_BTW = frames_BTW - config.preemphasis * previous_BTW
    frames_BTW = frames_BTW * torch.hann_window(config.frame_samples, periodic=False)
    power_BTH = torch.fft.rfft(frames_BTW, n=config.fft_samples).abs().pow(2)
    mel_banks_HF = make_mel_banks(
        config.num_mel_bins,
        fft_samples=config.fft_samples,
        sample_rate_hz=config.sample_rate_hz,
        low_freq_hz=config.low_freq_hz,
        high_freq_hz=config.upper_edge_hz,
    )
    mel_BTF = power_BTH @ mel_banks_HF
    return mel_BTF.clamp_min(LOG_MEL_EPSILON).log()


def compare(*, sample_rate_hz: int, num_clips: int, duration_s: float, repeats: int) -> dict:
    """One row: the programs in turn, `repeats` times."""
    config = LogMelConfig(sample_rate_hz=sample_rate_hz)
    log_mel = LogMel(config)
    num_samples = int(duration_s * sample_rate_hz)
    waveform_BS = 0.1 * torch.randn(num_clips, num_samples, generator=stream(0, "benchmark"))
    programs: dict[str, Callable[[], Tensor]] = {
        "kaldi": lambda: kaldi_fbank(waveform_BS, config),
        "plain_batching": lambda: plain_batching(waveform_BS, config),
        "ours": lambda: log_mel(waveform_BS),
    }
    results = {name: program() for name, program in programs.items()}
    difference = (results["ours"] - results["kaldi"]).abs().max().item()
    wall: dict[str, list[float]] = {name: [] for name in programs}
    cpu: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            program()
            cpu[name].append(time.process_time() - cpu_start)
            wall[name].append(time.perf_counter() - wall_start)
    row: dict[str, float] = {"sample_rate_hz": sample_rate_hz, "max_difference": difference}
    for clock, seconds in (("", wall), ("cpu_", cpu)):
        median = {name: statistics.median(values) for name, values in seconds.items()}
        row |= {f"{clock}{name}_s": round(value, 4) for name, value in median.items()}
        row[f"{clock}speedup"] = round(median["kaldi"] / median["ours"], 2)
    return row


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rates", type=int, nargs="+", default=[16000, 32000])
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--duration", type=float, default=6.0, help="Seconds of a clip.")
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        compare(
            sample_rate_hz=rate,
            num_clips=arguments.clips,
            duration_s=arguments.duration,
            repeats=arguments.repeats,
        )
        for rate in arguments.rates
    ]
    settings = {"clips": arguments.clips, "duration_s": arguments.duration, "threads": 1}
    table = {**settings, "repeats": arguments.repeats, "torch": torch.__version__, "rows": rows}
    print(json.dumps(table, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
