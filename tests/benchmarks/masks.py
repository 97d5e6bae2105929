"""How long do two crops and their GMML masks take, for a batch of 64 clips on one core?

    python tests/benchmarks/masks.py
    python tests/benchmarks/masks.py --device cuda

One line of JSON. `ms_a_mask` is processor time of crops and masks together, divided by the number
of masks (two a clip): what a core spends on a view before the encoder sees it. `crops_ms_a_view`
and `masks_ms_a_mask` are its two parts; `loop_ms_a_mask` is a loop that places the same rectangles
one by one, as the released program does, its draws made beforehand. Medians over rounds in which
all take turns, after one that is not counted: whatever else the machine does slows all.

On a GPU, wall-clock time of what `draw_inputs` does for a batch (crops, masks and what fills them)
and of an ASiT step with a ViT-B that reads it, each to its end; `share` is the first of their sum.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asit_core.masking import MaskingConfig, gmml_masks
from asit_core.optim import clip_gradients, make_optimizer
from asit_core.precision import autocast, autocast_dtype
from asit_core.presets import create_config
from asit_core.pretrain_inputs import PretrainInputs, draw_inputs
from asit_core.pretrainer import Pretrainer
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


def loop_masks(draws_BMN: np.ndarray, targets: list[float]) -> np.ndarray:
    """The same rectangles placed one by one, in NumPy."""
    frames, bins = VIEWS.crop_frames, BINS
    masks_BTF = np.zeros((len(targets), frames, bins), dtype=bool)
    for mask_TF, draws_MN, target in zip(masks_BTF, draws_BMN, targets, strict=True):
        for draw_N in draws_MN:
            if mask_TF.sum() >= target * frames * bins:
                break
            top, left = int(draw_N[0] * (frames - 1)), int(draw_N[1] * (bins - 1))
            height = 1 + int(draw_N[2] * (int(frames * MASKING.block_max) - 1))
            width = 1 + int(draw_N[3] * (int(bins * MASKING.block_max) - 1))
            mask_TF[top : top + height, left : left + width] = True
    return masks_BTF


def measure(
    programs: dict[str, Callable[[], object]],
    *,
    repeats: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Median seconds of each, in turn; processor time by default."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(repeats + 1):
        for name, program in programs.items():
            start = clock()
            program()
            if turn > 0:
                seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def clips(num: int) -> tuple[Tensor, Tensor, list[str]]:
    """Log-mels of noise, their lengths and names."""
    log_mel_BTF = torch.randn(num, FRAMES, BINS, generator=stream(0, "benchmark")).half()
    return log_mel_BTF, torch.full((num,), FRAMES), [f"clip-{number}" for number in range(num)]


def on_core(num_clips: int, *, repeats: int) -> dict[str, Any]:
    """The line of one core."""
    torch.set_num_threads(1)
    log_mel_BTF, num_frames_B, clip_ids = clips(num_clips)

    def keys() -> Tensor:
        return torch.cat([clip_keys(0, "mask", 0, clip_ids, view) for view in range(2)])

    def crops() -> Tensor:
        return make_views(log_mel_BTF, num_frames_B, clip_ids, VIEWS, seed=0, epoch=0)

    def masks() -> Tensor:
        keys_B = keys()
        return gmml_masks(
            keys_B, shares(keys_B), frames=VIEWS.crop_frames, bins=BINS, config=MASKING
        )

    draws_BMN = uniform(keys(), 4 * 500, skip=3).unflatten(1, (-1, 4)).numpy()
    targets = shares(keys()).tolist()

    def loop() -> np.ndarray:
        return loop_masks(draws_BMN, targets)

    assert np.array_equal(masks().numpy(), loop()), "both must hide the same pixels"
    median = measure({"crops": crops, "masks": masks, "loop": loop}, repeats=repeats)
    num_masks = 2 * num_clips
    return {
        "threads": 1,
        "ms_a_mask": 1e3 * (median["crops"] + median["masks"]) / num_masks,
        "crops_ms_a_view": 1e3 * median["crops"] / num_masks,
        "masks_ms_a_mask": 1e3 * median["masks"] / num_masks,
        "loop_ms_a_mask": 1e3 * median["loop"] / num_masks,
    }


def beside_a_step(
    device: torch.device, num_clips: int, *, size: str, repeats: int
) -> dict[str, Any]:
    """The line of a GPU: what is drawn for a step, and the step."""
    config = create_config("asit", size=size)
    model = Pretrainer(config, seed=0).to(device)
    optimizer = make_optimizer(model, config.optimizer)
    dtype = autocast_dtype(config.precision, device)
    log_mel_BTF, num_frames_B, clip_ids = clips(num_clips)
    log_mel_BTF = log_mel_BTF.to(device)

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def draw() -> PretrainInputs:
        inputs = draw_inputs(
            config, log_mel_BTF, num_frames_B, clip_ids, mean=0.0, std=1.0, seed=0, epoch=0
        )
        wait()
        return inputs

    inputs = draw()

    def step() -> None:
        with autocast(device, dtype):
            report = model(inputs, teacher_temperature=0.04)
        optimizer.zero_grad(set_to_none=True)
        report.total.backward()
        clip_gradients([p for p in model.parameters() if p.requires_grad], config.optimizer)
        optimizer.step()
        model.after_step(report.teacher_logits, momentum=0.996)
        wait()

    median = measure({"draw": draw, "step": step}, repeats=repeats, clock=time.perf_counter)
    return {
        "size": size,
        "draw_ms": 1e3 * median["draw"],
        "step_ms": 1e3 * median["step"],
        "share": median["draw"] / (median["draw"] + median["step"]),
    }


def main() -> None:
    """Print the line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    num_clips, repeats = arguments.clips, arguments.repeats
    if arguments.device == "cpu":
        found = on_core(num_clips, repeats=repeats)
    else:
        found = beside_a_step(torch.device("cuda"), num_clips, size="base", repeats=repeats)
    rounded = {
        key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()
    }
    head = {
        "benchmark": "masks",
        "device": arguments.device,
        "clips": num_clips,
        "repeats": repeats,
    }
    print(json.dumps({**head, **rounded}))  # noqa: T201


if __name__ == "__main__":
    main()
