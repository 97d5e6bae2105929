"""A model as tensors and what describes them: what every importer makes and every exporter takes.

It is also what our model file holds: tensors `encoder.*` and, of a classifier, `head.*`, under the
names of `SpectrogramEncoder` and `Classifier`. Parts of a pre-training program that are neither
(its prediction heads, its prototypes) follow as `pretext.*`; each importer lists its own.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asit_core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from asit_core.classifier import Classifier, Pool
from asit_core.encoder import EncoderConfig, SpectrogramEncoder
from asit_core.spectrogram import LOG_MEL_FLOOR, LogMelConfig

AUDIOSET_MEAN = -4.2677393
AUDIOSET_STD = 4.5689974
"""Log-mel statistics of AudioSet at 16 kHz, which AST, SSAST and ASiT normalise with."""

HEAD_NORM_EPS = 1e-5  # PyTorch's default, which AST's and SSAST's heads keep


@dataclass(frozen=True, kw_only=True)
class ModelWeights:
    """A model that has not been built.

    Attributes:
        tensors: `encoder.*`, `head.*`, `pretext.*`.
        encoder: Size and patches.
        input_frames: Length its positions fit.
        front_end: What its log-mels are made with.
        mean: Of the log-mels it was trained on.
        std: Their deviation; the encoder sees (x - mean) / (2 std).
        pad_value: Log-mel after the end of a short clip.
        pool: How a classifier makes one vector of its tokens; None: there is no head.
        head_norm_eps: Added to the variance in the head's LayerNorm.
        label_names: Of the classes, where known.
        source: Which layout it was read from.
    """

    tensors: dict[str, Tensor] = field(repr=False)
    encoder: EncoderConfig
    input_frames: int
    front_end: LogMelConfig
    mean: float = AUDIOSET_MEAN
    std: float = AUDIOSET_STD
    pad_value: float = LOG_MEL_FLOOR
    pool: Pool | None = None
    head_norm_eps: float = HEAD_NORM_EPS
    label_names: tuple[str, ...] | None = None
    source: str

    def __post_init__(self) -> None:
        """Check that the tensors are those of this model, no more and no less.

        Raises:
            ValueError: If one is missing, unknown or of another shape, or the front end or its
                statistics do not fit.
        """
        if self.front_end.num_mel_bins != self.encoder.input_bins:
            raise ValueError(
                f"num_mel_bins must be {self.encoder.input_bins}, the encoder's input_bins, "
                f"but got {self.front_end.num_mel_bins}"
            )
        if not (math.isfinite(self.mean) and 0.0 < self.std < math.inf):
            raise ValueError(
                f"mean must be finite and std finite and above 0, but got {self.mean}, {self.std}"
            )
        expected = {f"encoder.{name}": shape for name, shape in self._encoder_shapes().items()}
        if self.pool is not None:
            num_classes = self._head("head.1.weight", 2)[0]
            width = self.encoder.embed_dim
            expected |= {"head.0.weight": (width,), "head.0.bias": (width,)}
            expected |= {"head.1.weight": (num_classes, width), "head.1.bias": (num_classes,)}
            if self.label_names is not None and len(self.label_names) != num_classes:
                raise ValueError(
                    f"label_names must name {num_classes} classes, but got {len(self.label_names)}"
                )
        found = {
            name: tuple(tensor.shape)
            for name, tensor in self.tensors.items()
            if not name.startswith("pretext.")
        }
        for name, shape in expected.items():
            if found.get(name) != shape:
                got = f"has {found[name]}" if name in found else "is missing"
                raise ValueError(f"{name} must have shape {shape}, but {got}")
        unknown = sorted(set(found) - set(expected))
        if unknown:
            raise ValueError(f"weights must be the model's only, but got {unknown[0]!r}")

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors below a prefix such as `encoder`, without it."""
        start = f"{prefix}."
        return {
            name.removeprefix(start): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(start)
        }

    def _head(self, name: str, ndim: int) -> tuple[int, ...]:
        if name not in self.tensors or self.tensors[name].ndim != ndim:
            raise ValueError(f"{name} must have {ndim} dimensions, but is missing or has others")
        return tuple(self.tensors[name].shape)

    def _encoder_shapes(self) -> dict[str, tuple[int, ...]]:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            encoder = SpectrogramEncoder(self.encoder, input_frames=self.input_frames)
        return {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}


class LoadedModel(NamedTuple):
    """A model, built, with its front end."""

    encoder: SpectrogramEncoder
    classifier: Classifier | None  # holds a copy of the encoder
    front_end: LogMelConfig
    mean: float
    std: float
    label_names: tuple[str, ...] | None
    pad_value: float


def build(weights: ModelWeights) -> LoadedModel:
    """Modules in evaluation mode, made of weights."""
    with torch.random.fork_rng(devices=[]):
        encoder = SpectrogramEncoder(weights.encoder, input_frames=weights.input_frames)
    encoder.load_state_dict(weights.part("encoder"))
    return LoadedModel(
        encoder.eval(),
        _build_classifier(encoder, weights),
        weights.front_end,
        weights.mean,
        weights.std,
        weights.label_names,
        weights.pad_value,
    )


def _build_classifier(encoder: SpectrogramEncoder, weights: ModelWeights) -> Classifier | None:
    if weights.pool is None:
        return None
    head = weights.part("head")
    classifier = Classifier(
        encoder, num_classes=len(head["1.weight"]), seed=0, pool=weights.pool
    ).eval()
    classifier.head.load_state_dict(head)
    norm = classifier.head[0]
    assert isinstance(norm, nn.LayerNorm), "a head without a projector begins with a norm"
    norm.eps = weights.head_norm_eps
    return classifier


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


def read_model(path: Path) -> ModelWeights:
    """Reads our model file.

    Raises:
        ValueError: If it is not one, is damaged, or lacks something.
    """
    tensors, meta = load_checkpoint(path)
    kind = meta.get("kind")
    if kind not in ("encoder", "classifier"):
        raise ValueError(f"{path}: kind must be encoder or classifier, but got {kind!r}")
    try:
        return _from_meta(tensors, meta)
    except KeyError as error:
        raise ValueError(f"{path}: metadata must hold {error}, but does not") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _from_meta(tensors: dict[str, Tensor], meta: dict[str, Any]) -> ModelWeights:
    names = meta.get("label_names")
    return ModelWeights(
        tensors=tensors,
        encoder=EncoderConfig(**meta["encoder"]),
        input_frames=meta["input_frames"],
        front_end=LogMelConfig(**meta["front_end"]),
        mean=meta["normalization"]["mean"],
        std=meta["normalization"]["std"],
        pad_value=meta.get("pad_value", LOG_MEL_FLOOR),
        pool=meta.get("pool", "mean") if meta["kind"] == "classifier" else None,
        head_norm_eps=meta.get("head_norm_eps", HEAD_NORM_EPS),
        label_names=None if names is None else tuple(names),
        source=meta.get("source", "asit"),
    )
