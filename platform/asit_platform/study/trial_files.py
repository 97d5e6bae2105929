"""What a trial leaves on disk, each file written whole."""

import dataclasses
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from asit_core.pictures import picture
from asit_core.pretrain_inputs import draw_inputs
from asit_core.pretrainer import Pretrainer
from asit_platform.cluster import ResourceSpec
from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.stream import ClipBatch
from asit_platform.sections import SplitSpec
from asit_platform.training.features import ClipVectors
from asit_platform.training.worker import Metrics, Normalization
from asit_platform.trial_config import TrialConfig, to_plain
from asit_platform.whole_files import replacing, write_whole
from asit_platform.yaml_file import format_yaml

NUM_PICTURES = 8
_PACKAGES = ("asit", "torch", "torchaudio", "timm", "numpy", "ray", "optuna", "pyarrow", "scipy")


def write_config(
    folder: Path,
    config: TrialConfig,
    *,
    seed: int,
    split: SplitSpec,
    transductive: bool,
    evaluate_on: str,
) -> None:
    """The resolved configuration, enough to run the trial again."""
    values = {
        "trial": to_plain(config),
        "seed": seed,
        "split": dataclasses.asdict(split),
        "transductive": transductive,
        "evaluate_on": evaluate_on,
    }
    write_whole(folder / "config.yaml", format_yaml(values))


def write_environment(folder: Path, info: DatasetInfo) -> None:
    """Package versions, git commit, machine and data."""
    values = {**environment(), "data": {"name": info.name, "fingerprint": info.fingerprint}}
    write_whole(folder / "environment.json", json.dumps(values, indent=2))


@cache
def environment() -> dict[str, Any]:
    """What the numbers of this process depend on beside the configuration."""
    return {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "git": _git(),
        "machine": {
            "processor": platform.machine(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "avx512_bf16": bool(torch.cpu._is_avx512_bf16_supported()),
            "gpus": [
                torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
            ],
        },
    }


def _git() -> dict[str, Any] | None:
    """Commit of the source tree this package runs from, None where it is installed without one."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    try:
        # An installed copy may lie inside somebody else's repository.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def write_predictions(folder: Path, name: str, clips: ClipVectors, scores_MC: Tensor) -> None:
    """Per-clip predictions of one evaluation."""
    table = pa.table(
        {
            "clip_id": clips.clip_ids,
            "fold": pa.array(clips.fold_N.numpy(), pa.int32()),
            "label": pa.array(clips.label_N.numpy(), pa.int32()),
            "scores": list(scores_MC.float().numpy()),
        }
    )
    (folder / "predictions").mkdir(exist_ok=True)
    with replacing(folder / "predictions" / f"{name}.parquet") as temporary:
        pq.write_table(table, temporary)


def write_cost(
    folder: Path, history: Sequence[Metrics], resources: ResourceSpec, *, num_clips: int
) -> None:
    """What the trial's epochs took, over all its resumptions."""
    seconds = sum(metrics["epoch_s"] + metrics.get("evaluate_s", 0.0) for metrics in history)
    values = {
        "wall_s": seconds,
        "cpu_s": seconds * resources.num_workers * resources.cpus_per_worker,
        "gpu_s": seconds * resources.num_workers * resources.gpus_per_worker,
        "clips": num_clips * len(history),
    }
    write_whole(folder / "cost.json", json.dumps(values, indent=2))


@torch.no_grad()
def write_pictures(
    folder: Path,
    pretrainer: Pretrainer,
    batches: Iterable[ClipBatch],
    *,
    normalization: Normalization,
    seed: int,
    hop_ms: float,
) -> None:
    """Eight clips of one view as input, corrupted and, if the task is present, reconstructed.

    The clips are evenly spaced in the order given and the draws are those of epoch 0, so that
    trials of one seed show the same crops.
    """
    batch = _spaced(list(batches), NUM_PICTURES)
    if len(batch.clip_ids) < 2:
        return  # an alien needs another clip
    device = pretrainer.student.encoder.cls_token.device
    inputs = draw_inputs(
        pretrainer.config,
        batch.log_mel_BTF.to(device),
        batch.num_frames_B,
        batch.clip_ids,
        **normalization._asdict(),
        seed=seed,
        epoch=0,
        donor_group=len(batch.clip_ids),
    )
    drawn = picture(pretrainer, inputs)
    arrays = {
        "clip_id": np.array(batch.clip_ids),
        "hop_ms": np.array(hop_ms),
        "label": batch.label_B.numpy(),
        "input": inputs.clean_VBTF[0].cpu().numpy().astype(np.float16),
        "corrupted": drawn.corrupted_BTF.cpu().numpy().astype(np.float16),
        "mask": drawn.mask_BTF.cpu().numpy(),
    }
    if drawn.reconstructed_BTF is not None:
        arrays["reconstructed"] = drawn.reconstructed_BTF.cpu().numpy().astype(np.float16)
    # A file, not a name: NumPy would add its own ending to that.
    with replacing(folder / "pictures.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _spaced(batches: list[ClipBatch], count: int) -> ClipBatch:
    """`count` clips evenly spaced over all of them."""
    clip_ids = [clip_id for batch in batches for clip_id in batch.clip_ids]
    chosen = np.linspace(0, len(clip_ids) - 1, min(count, len(clip_ids))).round().astype(int)
    index = torch.from_numpy(chosen)
    return ClipBatch(
        [clip_ids[i] for i in chosen],
        log_mel_BTF=torch.cat([batch.log_mel_BTF for batch in batches])[index],
        num_frames_B=torch.cat([batch.num_frames_B for batch in batches])[index],
        label_B=torch.cat([batch.label_B for batch in batches])[index],
        fold_B=torch.cat([batch.fold_B for batch in batches])[index],
    )
