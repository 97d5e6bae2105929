"""Hugging Face AST folders: `config.json`, `model.safetensors` and `preprocessor_config.json`.

Older folders hold `pytorch_model.bin` instead, and a bare model no preprocessor.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from asit_core.interop.files import read_foreign, tensors_of
from asit_core.interop.huggingface import MODEL_TYPE, from_huggingface, to_huggingface
from asit_core.model_weights import ModelWeights
from asit_core.spectrogram import LogMelConfig


def read_folder(folder: Path) -> ModelWeights:
    """Reads a Hugging Face AST folder.

    Raises:
        ValueError: If a file is missing or damaged, the folder is of another architecture, or its
            tensors do not fit its configuration.
    """
    config = _read_json(folder / "config.json")
    if config.get("model_type") != MODEL_TYPE:
        raise ValueError(
            f"{folder}: model_type must be {MODEL_TYPE!r}, but got {config.get('model_type')!r}"
        )
    names = ("model.safetensors", "pytorch_model.bin")
    path = next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
    extractor_path = folder / "preprocessor_config.json"
    extractor = _read_json(extractor_path) if extractor_path.is_file() else {}
    content = read_foreign(path)
    try:
        return from_huggingface(tensors_of(content), config, extractor)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def write_folder(folder: Path, weights: ModelWeights) -> None:
    """Writes a folder that transformers opens; it appears whole or not at all.

    Raises:
        ValueError: If AST's classes cannot hold the model, or `folder` exists.
        OSError: If it cannot be written.
    """
    state, config = to_huggingface(weights)
    if folder.exists():
        raise ValueError(f"{folder}: must not exist yet; remove it or choose another name")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        tensors = {name: tensor.detach().contiguous().clone() for name, tensor in state.items()}
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        files = {"config.json": config, "preprocessor_config.json": _extractor(weights)}
        for name, content in files.items():
            text = json.dumps(content, indent=2) + "\n"
            (temporary / name).write_text(text, encoding="utf-8")
        temporary.chmod(0o755)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def export_notes(weights: ModelWeights) -> list[str]:
    """What an exported folder does otherwise than the model, one sentence each."""
    notes = []
    if weights.pool is not None and weights.head_norm_eps != weights.encoder.norm_eps:
        notes.append(
            f"the head's LayerNorm takes the encoder's eps {weights.encoder.norm_eps:g} for its "
            f"own {weights.head_norm_eps:g}: a configuration there has one"
        )
    front_end = weights.front_end
    plain = LogMelConfig(
        sample_rate_hz=front_end.sample_rate_hz,
        num_mel_bins=front_end.num_mel_bins,
        subtract_mean=front_end.subtract_mean,
    )
    if weights.pad_value != 0.0:
        notes.append(
            "ASTFeatureExtractor follows a short clip with log-mels of 0, this model's training "
            f"with {weights.pad_value:g}"
        )
    if weights.part("pretext"):
        notes.append("what belongs to its pre-training tasks is left out: AST's classes lack it")
    if front_end.subtract_mean:
        notes.append("ASTFeatureExtractor does not remove the clip's mean first, as this model's")
    if front_end != plain:
        notes.append("ASTFeatureExtractor makes other log-mels than this model's front end")
    return notes


def _extractor(weights: ModelWeights) -> dict[str, Any]:
    return {
        "feature_extractor_type": "ASTFeatureExtractor",
        "feature_size": 1,
        "sampling_rate": weights.front_end.sample_rate_hz,
        "num_mel_bins": weights.front_end.num_mel_bins,
        "max_length": weights.input_frames,
        "padding_side": "right",
        "padding_value": 0.0,
        "do_normalize": True,
        "mean": weights.mean,
        "std": weights.std,
        "return_attention_mask": False,
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: must be a readable JSON file, but: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must be a JSON object, but is a {type(content).__name__}")
    return content
