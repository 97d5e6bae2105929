"""How long do two crops and their GMML masks take, for a batch of 64 clips on one core?

    python tests/benchmarks/masks.py

One line of JSON. `ms_a_mask` is processor time of crops and masks together, divided by the number
of masks (two a clip): what a core spends on a view before the encoder sees it. `crops_ms_a_view`
and `masks_ms_a_mask` are its two parts; `loop_ms_a_mask` is a loop that places the same rectangles
one by one, as the released program does. Medians over rounds in which all take turns, after one
that is not counted: whatever else the machine does slows all.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from asit_core.masking import MaskingConfig, gmml_masks
from asit_core.seeding import clip_keys, stream, uniform
from asit_core.views import ViewsConfig, make_views

FRAMES, BINS = 998, 128
MASKING = MaskingConfig()
VIEWS = ViewsConfig()


def shares(keys_B: Tensor) -> Tensor:
    """The share each view is to lose: half of them zeros, half aliens, as `corrupt` draws it."""
    coin_B, share_B = uniform(keys_B, 2).unbind(-1)
    zeros_B = MASKING.min_ratio + share_B * (MASKING.ratio - MASKING.min_ratio)
    return torch.where(coin_B < MASKING.alien_probability, MASKING.alien_ratio, zeros_B)


def loop_masks(keys_B: Tensor, target_B: Tensor) -> np.ndarray:
    """The same rectangles placed one by one, in NumPy."""
    frames, bins = VIEWS.crop_frames, BINS
    masks_BTF = np.zeros((len(keys_B), frames, bins), dtype=bool)
    draws_BMN = uniform(keys_B, 4 * 500, skip=3).unflatten(1, (-1, 4)).numpy()
    for mask_TF, draws_MN, target in zip(masks_BTF, draws_BMN, target_B.tolist(), strict=True):
        for draw_N in draws_MN:
            if mask_TF.sum() >= target * frames * bins:
                break
            top, left = int(draw_N[0] * (frames - 1)), int(draw_N[1] * (bins - 1))
            height = 1 + int(draw_N[2] * (int(frames * MASKING.block_max) - 1))
            width = 1 + int(draw_N[3] * (int(bins * MASKING.block_max) - 1))
            mask_TF[top : top + height, left : left + width] = True
    return masks_BTF


def measure(programs: dict[str, Callable[[], object]], *, repeats: int) -> dict[str, float]:
    """Median processor seconds of each, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(repeats + 1):
        for name, program in programs.items():
            start = time.process_time()
            program()
            if turn > 0:
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Print the line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clip_ids = [f"clip-{number}" for number in range(arguments.clips)]
    log_mel_BTF = torch.randn(arguments.clips, FRAMES, BINS, generator=stream(0, "benchmark"))
    log_mel_BTF = log_mel_BTF.half()
    num_frames_B = torch.full((arguments.clips,), FRAMES)

    def keys() -> Tensor:
        return torch.cat([clip_keys(0, "mask", 0, clip_ids, view) for view in range(2)])

    def crops() -> Tensor:
        return make_views(log_mel_BTF, num_frames_B, clip_ids, VIEWS, seed=0, epoch=0)

    def masks() -> Tensor:
        keys_B = keys()
        return gmml_masks(
            keys_B, shares(keys_B), frames=VIEWS.crop_frames, bins=BINS, config=MASKING
        )

    def loop() -> np.ndarray:
        return loop_masks(keys(), shares(keys()))

    assert np.array_equal(masks().numpy(), loop()), "both must hide the same pixels"
    median = measure({"crops": crops, "masks": masks, "loop": loop}, repeats=arguments.repeats)
    num_masks = 2 * arguments.clips
    line = {
        "benchmark": "masks",
        "clips": arguments.clips,
        "threads": 1,
        "repeats": arguments.repeats,
        "ms_a_mask": 1e3 * (median["crops"] + median["masks"]) / num_masks,
        "crops_ms_a_view": 1e3 * median["crops"] / num_masks,
        "masks_ms_a_mask": 1e3 * median["masks"] / num_masks,
        "loop_ms_a_mask": 1e3 * median["loop"] / num_masks,
    }
    rounded = {
        key: round(value, 4) if key.endswith(("mask", "view")) else value
        for key, value in line.items()
    }
    print(json.dumps(rounded))  # noqa: T201


if __name__ == "__main__":
    main()
