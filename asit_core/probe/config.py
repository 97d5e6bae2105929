"""How the platform probes an encoder between epochs."""

from dataclasses import dataclass
from typing import Literal

_KINDS = ("linear", "knn")
_FEATURES = ("mean", "cls", "both")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeConfig:
    """How a frozen encoder is measured.

    Attributes:
        kind: `linear` (see `linear_probe`) or `knn` (see `knn`).
        features: Clip vector: `mean` of the patch tokens, `cls` token, or `both` side by side.
        k: Neighbours that vote; read by `knn` only.
        every_epochs: Epochs between two evaluations; the last epoch is always evaluated.
    """

    __pydantic_config__ = {"extra": "forbid"}

    kind: Literal["linear", "knn"] = "linear"
    features: Literal["mean", "cls", "both"] = "mean"
    k: int = 10
    every_epochs: int = 1

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"kind must be one of {', '.join(_KINDS)}, but got {self.kind!r}")
        if self.features not in _FEATURES:
            raise ValueError(
                f"features must be one of {', '.join(_FEATURES)}, but got {self.features!r}"
            )
        if self.k < 1:
            raise ValueError(f"k must be >= 1, but got {self.k}")
        if self.every_epochs < 1:
            raise ValueError(f"every_epochs must be >= 1, but got {self.every_epochs}")
