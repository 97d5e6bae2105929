"""A model as tensors and what describes them: what `model_file` reads and writes.

It is also what every importer makes and every exporter takes. Its tensors are `encoder.*` and, of a
classifier, `head.*`, under the names of `SpectrogramEncoder` and `Classifier`. Parts of a
pre-training program that are neither (its prediction heads, its prototypes) follow as `pretext.*`;
each importer lists its own.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

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
        notes: What was guessed in reading it, one sentence each; not kept in files.
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
    notes: tuple[str, ...] = ()
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
        is_finite = math.isfinite(self.mean) and math.isfinite(self.pad_value)
        if not (is_finite and 0.0 < self.std < math.inf):
            raise ValueError(
                "mean and pad_value must be finite and std finite and above 0, "
                f"but got {self.mean}, {self.pad_value} and {self.std}"
            )
        expected = {f"encoder.{name}": shape for name, shape in self._encoder_shapes().items()}
        if self.pool is not None:
            num_classes = self.num_classes
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

    @property
    def num_classes(self) -> int:
        """Outputs of the head; 0 where there is none.

        Raises:
            ValueError: If the head lacks its last layer.
        """
        if self.pool is None:
            return 0
        weight = self.tensors.get("head.1.weight")
        if weight is None or weight.ndim != 2:
            got = "is missing" if weight is None else f"has shape {tuple(weight.shape)}"
            raise ValueError(f"head.1.weight must have 2 dimensions, but {got}")
        return len(weight)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors below a prefix such as `encoder`, without it."""
        start = f"{prefix}."
        return {
            name.removeprefix(start): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(start)
        }

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
    encoder = build_encoder(weights)
    return LoadedModel(
        encoder,
        _build_classifier(encoder, weights),
        weights.front_end,
        weights.mean,
        weights.std,
        weights.label_names,
        weights.pad_value,
    )


def build_encoder(weights: ModelWeights) -> SpectrogramEncoder:
    """The encoder alone, in evaluation mode."""
    # Layers draw initial weights from the global generator; it is put back as it was.
    with torch.random.fork_rng(devices=[]):
        encoder = SpectrogramEncoder(weights.encoder, input_frames=weights.input_frames)
    encoder.load_state_dict(weights.part("encoder"))
    return encoder.eval()


def _build_classifier(encoder: SpectrogramEncoder, weights: ModelWeights) -> Classifier | None:
    if weights.pool is None:
        return None
    classifier = Classifier(
        encoder, num_classes=weights.num_classes, seed=0, pool=weights.pool
    ).eval()
    classifier.head.load_state_dict(weights.part("head"))
    norm = classifier.head[0]
    assert isinstance(norm, nn.LayerNorm), "a head without a projector begins with a norm"
    norm.eps = weights.head_norm_eps
    return classifier
