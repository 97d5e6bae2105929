"""Fixtures of the model library's tests."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from torch import Tensor

from asit_core.encoder import EncoderConfig
from asit_core.heads import ProjectionHeadConfig
from asit_core.masking import MaskingConfig
from asit_core.optim import OptimizerConfig
from asit_core.pretext.clip_distillation import ClipDistillationConfig
from asit_core.pretext.patch_distillation import PatchDistillationConfig
from asit_core.pretext.reconstruction import ReconstructionConfig
from asit_core.pretrainer import PretextConfig, PretrainConfig
from asit_core.teacher import TeacherConfig
from asit_core.views import ViewsConfig

_BESIDE_THE_CHECKOUT = Path(__file__).parents[3] / "shared" / "golden"


@pytest.fixture(scope="session")
def golden() -> Callable[[str], tuple[dict[str, Tensor], dict[str, Any]]]:
    """Reads a reference file by name: its tensors and its metadata; skips where it is missing."""
    folder = Path(os.environ.get("ASIT_GOLDEN") or _BESIDE_THE_CHECKOUT)

    def read(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        path = folder / f"{name}.safetensors"
        if not path.is_file():
            pytest.skip(f"no reference vectors at {path}; set ASIT_GOLDEN to their folder")
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}
            meta = json.loads((file.metadata() or {}).get("meta", "{}"))
        return tensors, meta

    return read


@pytest.fixture(scope="session")
def micro_config() -> PretrainConfig:
    """All three tasks on views of 32 frames and 16 bins: a step takes milliseconds."""
    return PretrainConfig(
        encoder=EncoderConfig(
            embed_dim=16,
            depth=2,
            num_heads=2,
            patch_frames=8,
            patch_bins=8,
            input_bins=16,
            drop_path_rate=0.0,
        ),
        views=ViewsConfig(crop_frames=32),
        masking=MaskingConfig(),
        pretext=PretextConfig(
            reconstruction=ReconstructionConfig(weight=2.0, hidden_dim=24, bottleneck_dim=8),
            patch_distillation=PatchDistillationConfig(weight=0.5, num_prototypes=12),
            clip_distillation=ClipDistillationConfig(weight=0.25, num_prototypes=10),
        ),
        projection_head=ProjectionHeadConfig(hidden_dim=24, bottleneck_dim=8),
        teacher=TeacherConfig(),
        optimizer=OptimizerConfig(),
        epochs=2,
        batch_size=4,
        donor_group=2,
        precision="fp32",
    )
