"""`load`: a model file -> a model with its front end.

Two of our formats hold a model: what `asit convert` and fine-tuning write (kind `encoder` or
`classifier`), and pre-training checkpoints (kind `pretrain`). Files of other programs are named and
refused: `asit convert` turns them into ours, once, in the open.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from asit_core.checkpoint import load_checkpoint
from asit_core.embedding import SpectrogramModel
from asit_core.encoder import EncoderConfig, SpectrogramEncoder
from asit_core.foreign_files import describe_foreign_file
from asit_core.spectrogram import LOG_MEL_FLOOR, LogMelConfig

ConfigT = TypeVar("ConfigT", EncoderConfig, LogMelConfig)

# The teacher's where there is one: what is evaluated during pre-training too.
_PRETRAINED = ("model.teacher.encoder.", "model.student.encoder.")


class _Parts(NamedTuple):
    """What both formats hold, under one name each."""

    encoder: Mapping[str, Any]
    input_frames: int
    pad_value: float
    prefixes: tuple[str, ...]  # of the encoder's weights; the first one present counts


def load(
    path: str | Path,
    *,
    front_end: LogMelConfig | None = None,
    device: torch.device | str = "cpu",
) -> SpectrogramModel:
    """Opens a model with the front end it was trained with.

    Args:
        path: A model file of ours, or a pre-training checkpoint: of that the teacher's encoder, or
            the student's where no teacher was trained. Of a classifier the encoder is taken.
        front_end: Only for a file that does not hold its own: what its log-mels were made with.
        device: Where the model shall live.

    Returns:
        The model in evaluation mode; its weights still require gradients.

    Raises:
        ValueError: If the file is missing, damaged or of another program (the message says which
            it looks like and which command converts it); if it holds no front end and none is
            given; if one is given and the file holds another.
    """
    path = Path(path)
    foreign = describe_foreign_file(path)
    if foreign is not None:
        raise ValueError(
            f"{path}: must be an asit model file, but looks like {foreign}; "
            f"convert it: `asit convert {path} MODEL.safetensors --to asit`"
        )
    tensors, meta = load_checkpoint(path, device=device)
    try:
        parts = _parts(path, meta)
        mean, std = meta["normalization"]["mean"], meta["normalization"]["std"]
    except KeyError as error:
        raise ValueError(f"{path}: metadata must hold {error}, but does not") from error
    config = _config(path, "encoder", EncoderConfig, parts.encoder)
    front_end = _front_end(path, meta.get("front_end"), front_end)
    try:
        # Layers draw initial weights from the global generator; it is put back as it was.
        with torch.random.fork_rng(devices=[]):
            encoder = SpectrogramEncoder(config, input_frames=parts.input_frames)
        model = SpectrogramModel(
            encoder, front_end=front_end, mean=mean, std=std, pad_value=parts.pad_value
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    model.encoder.load_state_dict(_weights(path, tensors, parts.prefixes, model.encoder))
    return model.to(device)


def _parts(path: Path, meta: Mapping[str, Any]) -> _Parts:
    match meta.get("kind"):
        case "encoder" | "classifier":
            pad_value = meta.get("pad_value", LOG_MEL_FLOOR)
            return _Parts(meta["encoder"], meta["input_frames"], pad_value, ("encoder.",))
        case "pretrain":
            encoder, views = meta["config"]["encoder"], meta["config"]["views"]
            pad_value = 0.0 if views.get("padding") == "zero" else LOG_MEL_FLOOR
            return _Parts(encoder, views["crop_frames"], pad_value, _PRETRAINED)
        case kind:
            raise ValueError(
                f"{path}: kind must be encoder, classifier or pretrain, but got {kind!r}"
            )


def _front_end(
    path: Path, fields: Mapping[str, Any] | None, given: LogMelConfig | None
) -> LogMelConfig:
    if fields is None:
        if given is None:
            raise ValueError(
                f"{path}: holds no front end; pass front_end=LogMelConfig(...) as its log-mels "
                "were made"
            )
        return given
    held = _config(path, "front_end", LogMelConfig, fields)
    if given is not None and given != held:
        differences = ", ".join(
            f"{field.name} {getattr(given, field.name)} for {getattr(held, field.name)}"
            for field in dataclasses.fields(LogMelConfig)
            if getattr(given, field.name) != getattr(held, field.name)
        )
        raise ValueError(
            f"{path}: front_end must be the file's own or None, but got {differences}; leave it out"
        )
    return held


def _config(
    path: Path, name: str, config_class: type[ConfigT], fields: Mapping[str, Any]
) -> ConfigT:
    known = {field.name for field in dataclasses.fields(config_class)}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise ValueError(
            f"{path}: {name} must hold known keys only, but got {unknown[0]!r}; upgrade asit"
        )
    try:
        return config_class(**fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {name}: {error}") from error


def _weights(
    path: Path, tensors: Mapping[str, Tensor], prefixes: tuple[str, ...], model: SpectrogramEncoder
) -> dict[str, Tensor]:
    """The encoder's tensors under its own names."""
    prefix = next((p for p in prefixes if any(name.startswith(p) for name in tensors)), prefixes[0])
    found = {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
    for name, value in model.state_dict().items():
        shape = tuple(found[name].shape) if name in found else None
        if shape != tuple(value.shape):
            raise ValueError(
                f"{path}: {prefix}{name} must have shape {tuple(value.shape)}, "
                f"but {'is missing' if shape is None else f'has {shape}'}"
            )
    unknown = sorted(set(found) - set(model.state_dict()))
    if unknown:
        raise ValueError(
            f"{path}: must hold the weights of its encoder only, but got {prefix}{unknown[0]}"
        )
    return found
