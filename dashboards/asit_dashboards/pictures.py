"""The pictures of a trial: the same eight clips as input, corrupted and reconstructed.

The pre-training stage writes the arrays (`pictures.npz`); here they are made small enough for a
page that also travels by mail: frames averaged in pairs or more, values rounded to 8 bits.

Shapes: B clips, T frames, F mel bins.
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NUM_CLIPS = 8
MAX_FRAMES = 256
PANELS = ("input", "corrupted")
# Not there where the configuration has no reconstruction task.
OPTIONAL_PANEL = "reconstructed"
LEVELS = 255


@dataclass(frozen=True)
class Pictures:
    """Pictures in 8-bit levels between `low` and `high`.

    Attributes:
        names: What each panel shows.
        panels: One array of levels a panel, (B, F, T).
        frames_per_column: How many frames of the front end were averaged into one column.
        hop_ms: Step between frames, where the arrays say it.
        masked_error: Mean absolute error over each clip's masked values, where there are any.
    """

    clip_ids: list[str]
    labels: list[str]
    names: list[str]
    panels: list[np.ndarray]
    low: float
    high: float
    frames_per_column: int
    hop_ms: float | None
    masked_error: list[float | None]


def read_pictures(folder: Path, label_names: Sequence[str] = ()) -> Pictures | str:
    """Read a trial's pictures, or say in a sentence why there are none.

    Args:
        folder: The trial's folder.
        label_names: Names by label; numbers are shown where they are missing.
    """
    path = folder / "pictures.npz"
    if not path.is_file():
        return "The best trial has written no pictures."
    try:
        # A trial may be writing this file right now: whatever is half there is not drawn.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return "The best trial's pictures cannot be read (half written or damaged)."
    missing = sorted({"clip_id", "label", *PANELS} - set(arrays))
    if missing:
        return f"The best trial's pictures lack {', '.join(missing)}."
    return _pictures(arrays, label_names)


def _pictures(arrays: dict[str, np.ndarray], label_names: Sequence[str]) -> Pictures:
    names = [name for name in (*PANELS, OPTIONAL_PANEL) if name in arrays]
    panels_BTF = [arrays[name][:NUM_CLIPS].astype(np.float32) for name in names]
    reconstructed_BTF = panels_BTF[2] if OPTIONAL_PANEL in names else None
    finite = panels_BTF[0][np.isfinite(panels_BTF[0])]
    # The input sets the scale; its far ends (a click, digital silence) would grey out the rest.
    low, high = np.quantile(finite, [0.01, 0.99]).tolist() if finite.size else (0.0, 1.0)
    high = max(high, low + 1e-6)
    step = -(-panels_BTF[0].shape[1] // MAX_FRAMES)
    hop_ms = arrays.get("hop_ms")
    return Pictures(
        clip_ids=[str(clip_id) for clip_id in arrays["clip_id"][:NUM_CLIPS]],
        labels=[_label(int(label), label_names) for label in arrays["label"][:NUM_CLIPS]],
        names=names,
        panels=[_levels(_thin(each_BTF, step), low, high) for each_BTF in panels_BTF],
        low=low,
        high=high,
        frames_per_column=step,
        hop_ms=None if hop_ms is None else float(hop_ms),
        masked_error=_masked_error(panels_BTF[0], reconstructed_BTF, arrays.get("mask")),
    )


def _thin(panel_BTF: np.ndarray, step: int) -> np.ndarray:
    """Average `step` frames into one; a rest too short for a column is dropped."""
    if step <= 1:
        return panel_BTF
    num_columns = panel_BTF.shape[1] // step
    B, _, F = panel_BTF.shape
    return panel_BTF[:, : num_columns * step].reshape(B, num_columns, step, F).mean(axis=2)


def _levels(panel_BTF: np.ndarray, low: float, high: float) -> np.ndarray:
    filled = np.nan_to_num(panel_BTF, nan=low, posinf=high, neginf=low)
    scaled = np.clip((filled - low) / (high - low), 0, 1) * LEVELS
    return np.rint(scaled).astype(np.uint8).transpose(0, 2, 1)  # (B, T, F) -> (B, F, T)


def _masked_error(
    input_BTF: np.ndarray, reconstructed_BTF: np.ndarray | None, mask: np.ndarray | None
) -> list[float | None]:
    if reconstructed_BTF is None or mask is None or mask.shape[1:] != input_BTF.shape[1:]:
        return [None] * len(input_BTF)
    errors: list[float | None] = []
    for clip, other, where in zip(input_BTF, reconstructed_BTF, mask.astype(bool), strict=False):
        error = np.abs(clip - other)[where]
        errors.append(float(error.mean()) if error.size and np.isfinite(error).all() else None)
    return errors


def _label(label: int, label_names: Sequence[str]) -> str:
    return label_names[label] if 0 <= label < len(label_names) else f"label {label}"
