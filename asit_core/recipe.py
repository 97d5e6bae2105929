"""What a fine-tuning recipe is: a plain config that says what its authors published.

A field that is None because its value is not known is listed in `open_fields` with the reason, and
is never guessed; `missing` tells which are still to be filled before the recipe can be followed.
The presets are in `recipes.py`.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from asit_core.augment import AugmentConfig, Padding
from asit_core.classifier import Pool
from asit_core.finetune_optim import FinetuneOptimizerConfig
from asit_core.targets import LossKind

Metric = Literal["mAP", "accuracy"]

NOT_KNOWN = "not known"
"""A reason for an open field: neither paper nor released program was found to say."""


class Statistics(NamedTuple):
    """Mean and standard deviation of a data set's log-mels at 16 kHz."""

    mean: float
    std: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How a model was fine-tuned on a data set.

    Attributes:
        source: Where the values come from.
        dataset: Its usual name.
        num_classes: Classes of the data set.
        metric: What is reported.
        input_frames: Frames that the model sees; hop 10 ms.
        padding: What follows a shorter clip.
        mean: Mean of the log-mels, subtracted from the input.
        std: Their deviation; the input is divided by twice this.
        epochs: Length of the run, or None where it is counted in `updates`.
        updates: The same in optimizer steps.
        clips_per_epoch: Clips of an epoch where that is not the training set's size.
        batch_size: Clips of a forward and backward pass.
        accumulation: Passes per update.
        loss: Which loss.
        label_smoothing: Share of each target spread over all classes.
        pool: Which tokens make a clip's vector.
        projector_dim: Width of SUPERB's head; None: LayerNorm and a linear layer.
        stride_frames: Stride of the patches in time; None: the encoder's own.
        stride_bins: The same in frequency.
        drop_path_rate: Stochastic depth of the last block; None: none.
        augment: What happens to training clips.
        balanced_sampling: Clips are drawn by `sampling.balanced_weights`, else each once an epoch.
        average_epochs: First and last epoch (counted from 1) whose weights are averaged at the end.
        optimizer: What updates the weights.
        open_fields: Dotted name of each field that is None because its value is not known, and why.
        notes: What the released program does beyond these fields.
    """

    __pydantic_config__ = {"extra": "forbid"}

    source: str
    dataset: str
    num_classes: int
    metric: Metric
    input_frames: int | None
    padding: Padding | None
    mean: float | None
    std: float | None
    epochs: int | None = None
    updates: int | None = None
    clips_per_epoch: int | None = None
    batch_size: int | None
    accumulation: int = 1
    loss: LossKind | None
    label_smoothing: float = 0.0
    pool: Pool | None
    projector_dim: int | None = None
    stride_frames: int | None = None
    stride_bins: int | None = None
    drop_path_rate: float | None = None
    augment: AugmentConfig
    balanced_sampling: bool = False
    average_epochs: tuple[int, int] | None = None
    optimizer: FinetuneOptimizerConfig
    open_fields: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        if self.epochs is not None and self.updates is not None:
            raise ValueError(f"updates must be null beside epochs, but got {self.updates}")
        for name in ("input_frames", "epochs", "updates", "batch_size", "accumulation"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, but got {value}")
        if self.std is not None and not self.std > 0.0:
            raise ValueError(f"std must be above 0, but got {self.std}")
        if self.average_epochs is not None:
            first, last = self.average_epochs
            if not 1 <= first <= last <= (self.epochs or last):
                raise ValueError(
                    f"average_epochs must lie in the run's {self.epochs} epochs, "
                    f"but got {self.average_epochs}"
                )
        for name in self.open_fields:
            _field(self, name)

    @property
    def missing(self) -> dict[str, str]:
        """The open fields that nobody has filled yet, and why they are open."""
        return {name: why for name, why in self.open_fields.items() if _field(self, name) is None}

    def check_complete(self) -> None:
        """Refuse to be followed while something is missing.

        Raises:
            ValueError: Naming every missing field with the reason.
        """
        if self.missing:
            open_list = "; ".join(f"{name} ({why})" for name, why in self.missing.items())
            raise ValueError(
                f"recipe must be complete, but leaves open {open_list}: "
                f"set them with dataclasses.replace"
            )


def _field(recipe: Recipe, dotted_name: str) -> object:
    value: object = recipe
    for name in dotted_name.split("."):
        if not hasattr(value, name):
            raise ValueError(f"open_fields must name fields of the recipe, but got {dotted_name!r}")
        value = getattr(value, name)
    return value
