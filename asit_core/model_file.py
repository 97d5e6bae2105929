"""Our model files: written by `save_model`, read by `read_model`, opened by `load`.

Two of our formats hold a model: what `asit convert` writes (kind `encoder` or `classifier`), and
pre-training checkpoints (kind `pretrain`). Files of other programs are named and refused:
`asit convert` turns them into ours, once, in the open.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import torch
from torch import Tensor

from asit_core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from asit_core.classifier import Pool
from asit_core.embedding import SpectrogramModel
from asit_core.encoder import EncoderConfig
from asit_core.foreign_files import describe_foreign_file
from asit_core.model_weights import HEAD_NORM_EPS, ModelWeights, build_encoder
from asit_core.spectrogram import LOG_MEL_FLOOR, LogMelConfig

ConfigT = TypeVar("ConfigT", EncoderConfig, LogMelConfig)

# The teacher's where there is one: what is evaluated during pre-training too.
_PRETRAINED = ("model.teacher.encoder.", "model.student.encoder.")


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
    weights = read_model(path, front_end=front_end)
    model = SpectrogramModel(
        build_encoder(weights),
        front_end=weights.front_end,
        mean=weights.mean,
        std=weights.std,
        pad_value=weights.pad_value,
    )
    return model.to(device)


def read_model(path: Path, *, front_end: LogMelConfig | None = None) -> ModelWeights:
    """Reads a model file of ours, or the evaluated encoder of a pre-training checkpoint.

    Args:
        path: The file.
        front_end: As of `load`.

    Raises:
        ValueError: If it is neither, is damaged, or lacks something; as `load` for the front end.
    """
    tensors, meta = load_checkpoint(path)
    try:
        match meta.get("kind"):
            case "encoder" | "classifier":
                return _model(tensors, meta, front_end)
            case "pretrain":
                return _pretrained(tensors, meta, front_end)
            case kind:
                raise ValueError(f"kind must be encoder, classifier or pretrain, but got {kind!r}")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def save_model(path: Path, weights: ModelWeights) -> None:
    """Writes our model file.

    Raises:
        OSError: If it cannot be written.
    """
    save_checkpoint(
        path,
        Checkpoint(
            weights.tensors,
            {
                "kind": "encoder" if weights.pool is None else "classifier",
                "encoder": dataclasses.asdict(weights.encoder),
                "input_frames": weights.input_frames,
                "front_end": dataclasses.asdict(weights.front_end),
                "normalization": {"mean": weights.mean, "std": weights.std},
                "pad_value": weights.pad_value,
                "pool": weights.pool,
                "head_norm_eps": weights.head_norm_eps,
                "label_names": weights.label_names,
                "source": weights.source,
            },
        ),
    )


def _model(
    tensors: dict[str, Tensor], meta: Mapping[str, Any], front_end: LogMelConfig | None
) -> ModelWeights:
    normalization = _section(meta, "normalization")
    pool = meta.get("pool", "mean") if meta["kind"] == "classifier" else None
    if pool is not None and pool not in get_args(Pool):
        raise ValueError(f"pool must be one of {', '.join(get_args(Pool))}, but got {pool!r}")
    names = meta.get("label_names")
    if not isinstance(names, list | None):
        raise ValueError(f"label_names must be a list or null, but got {names!r}")
    return ModelWeights(
        tensors=tensors,
        encoder=_config("encoder", EncoderConfig, _section(meta, "encoder")),
        input_frames=_whole_number(meta, "input_frames"),
        front_end=_front_end(meta, front_end),
        mean=_number(normalization, "mean"),
        std=_number(normalization, "std"),
        pad_value=_number({"pad_value": LOG_MEL_FLOOR, **meta}, "pad_value"),
        pool=pool,
        head_norm_eps=_number({"head_norm_eps": HEAD_NORM_EPS, **meta}, "head_norm_eps"),
        label_names=None if names is None else tuple(map(str, names)),
        source=str(meta.get("source", "asit")),
    )


def _pretrained(
    tensors: dict[str, Tensor], meta: Mapping[str, Any], front_end: LogMelConfig | None
) -> ModelWeights:
    config, normalization = _section(meta, "config"), _section(meta, "normalization")
    views = _section(config, "views")
    held = (p for p in _PRETRAINED if any(name.startswith(p) for name in tensors))
    prefix = next(held, _PRETRAINED[0])
    return ModelWeights(
        tensors={
            f"encoder.{name.removeprefix(prefix)}": tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        },
        encoder=_config("encoder", EncoderConfig, _section(config, "encoder")),
        input_frames=_whole_number(views, "crop_frames"),
        front_end=_front_end(meta, front_end),
        mean=_number(normalization, "mean"),
        std=_number(normalization, "std"),
        pad_value=0.0 if views.get("padding") == "zero" else LOG_MEL_FLOOR,
        source="asit_pretrain",
    )


def _front_end(meta: Mapping[str, Any], given: LogMelConfig | None) -> LogMelConfig:
    if meta.get("front_end") is None:
        if given is None:
            raise ValueError(
                "holds no front end; pass front_end=LogMelConfig(...) as its log-mels were made"
            )
        return given
    held = _config("front_end", LogMelConfig, _section(meta, "front_end"))
    if given is not None and given != held:
        differences = ", ".join(
            f"{field.name} {getattr(given, field.name)} for {getattr(held, field.name)}"
            for field in dataclasses.fields(LogMelConfig)
            if getattr(given, field.name) != getattr(held, field.name)
        )
        raise ValueError(
            f"front_end must be the file's own or None, but got {differences}; leave it out"
        )
    return held


def _config(name: str, config_class: type[ConfigT], fields: Mapping[str, Any]) -> ConfigT:
    hints = get_type_hints(config_class)
    for key, value in fields.items():
        if key not in hints or key.startswith("__"):
            raise ValueError(f"{name} must hold known keys only, but got {key!r}; upgrade asit")
        kinds = get_args(hints[key]) or (hints[key],)
        # The other kinds are the values of a Literal, which the class checks itself.
        if all(isinstance(kind, type) for kind in kinds) and not _is_one_of(value, kinds):
            raise ValueError(f"{name}: {key} must be {hints[key]}, but got {value!r}")
    try:
        return config_class(**fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


def _is_one_of(value: object, kinds: tuple[Any, ...]) -> bool:
    return type(value) in kinds or (float in kinds and type(value) is int)


def _get(fields: Mapping[str, Any], name: str) -> Any:
    if name not in fields:
        raise ValueError(f"metadata must hold {name!r}, but does not")
    return fields[name]


def _section(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = _get(fields, name)
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be an object, but got {value!r}")
    return value


def _whole_number(fields: Mapping[str, Any], name: str) -> int:
    value = _get(fields, name)
    if type(value) is not int:
        raise ValueError(f"{name} must be a whole number, but got {value!r}")
    return value


def _number(fields: Mapping[str, Any], name: str) -> float:
    value = _get(fields, name)
    if type(value) not in (int, float):
        raise ValueError(f"{name} must be a number, but got {value!r}")
    return value
