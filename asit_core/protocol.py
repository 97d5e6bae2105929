"""What a result was measured under, and the refusal to compare what was not measured alike.

An accuracy on 12 classes is no better than one on 35, nor a fine-tuned model's than a frozen one's.
Every measurement carries its `Protocol`; comparing two whose protocols differ raises.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

_CHOICES = {
    "encoder": ("frozen", "fine-tuned"),
    "metric": ("accuracy", "mAP", "AUC", "d-prime"),
    "label_set": ("raw", "enhanced"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """The key of a result: two results may be compared if and only if their keys are equal.

    Attributes:
        dataset: Name and version, such as `speech_commands_v2`.
        split_hash: Which clips were trained on and which scored, from `split_hash`.
        num_clips: Clips scored; downloads of AudioSet differ by thousands.
        num_classes: All classes of the task, such as 12 or 35.
        encoder: `frozen` or `fine-tuned`.
        readout: What turned features into scores, with every setting that moves the number, such as
            `knn(features=mean, k=10)`, `linear(features=both)`, `attentive(num_queries=2)`,
            `layers` or `classifier`.
        metric: `accuracy`, `mAP`, `AUC` or `d-prime`; higher is better for each.
        label_set: `raw`, or `enhanced` for labels mended after release.
    """

    dataset: str
    split_hash: str
    num_clips: int
    num_classes: int
    encoder: Literal["frozen", "fine-tuned"]
    readout: str
    metric: Literal["accuracy", "mAP", "AUC", "d-prime"]
    label_set: Literal["raw", "enhanced"] = "raw"

    def __post_init__(self) -> None:
        for name in ("dataset", "split_hash", "readout"):
            if not getattr(self, name):
                raise ValueError(f"{name} must not be empty")
        for name, least in (("num_clips", 1), ("num_classes", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be >= {least}, but got {getattr(self, name)}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}, but got {getattr(self, name)!r}"
                )

    def difference(self, other: "Protocol") -> str:
        """Fields that differ, such as `num_classes (12 and 35), metric (mAP and AUC)`; or ''."""
        pairs = {
            field.name: (getattr(self, field.name), getattr(other, field.name))
            for field in fields(self)
        }
        return ", ".join(
            f"{name} ({ours} and {theirs})"
            for name, (ours, theirs) in pairs.items()
            if ours != theirs
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """A number with its protocol. `<`, `<=`, `>`, `>=`, `-`, `max` and `sorted` refuse to mix keys.

    Attributes:
        value: Higher is better.
        protocol: What it was measured under.
        left_out: Classes that the mean leaves out, since they cannot be scored.
    """

    value: float
    protocol: Protocol
    left_out: tuple[int, ...] = ()

    def __lt__(self, other: "Measurement") -> bool:
        self._check_comparable(other)
        return self.value < other.value

    def __le__(self, other: "Measurement") -> bool:
        self._check_comparable(other)
        return self.value <= other.value

    def __sub__(self, other: "Measurement") -> float:
        """How much better this is.

        Raises:
            ValueError: If the protocols differ; so do the comparisons.
        """
        self._check_comparable(other)
        return self.value - other.value

    def __str__(self) -> str:
        key = self.protocol
        text = (
            f"{key.metric} {self.value:.4f} on {key.dataset}, {key.num_clips} clips, "
            f"{key.num_classes} classes"
        )
        return f"{text} ({len(self.left_out)} left out)" if self.left_out else text

    def _check_comparable(self, other: "Measurement") -> None:
        difference = self.protocol.difference(other.protocol)
        if difference:
            raise ValueError(
                f"results must share one protocol to be compared, but differ in {difference}"
            )


class Fold(NamedTuple):
    """Ids of the clips of one training run, validation included, and of those scored after it."""

    trained: Iterable[str]
    scored: Iterable[str]


def split_hash(folds: Sequence[Fold]) -> str:
    """Sixteen hex digits that tell which clips were trained on and which scored.

    Args:
        folds: One for a single split; of a cross-validation, such as ESC-50's, all of them. Their
            order does not matter, nor that of their clips.

    Raises:
        ValueError: If there is no fold, or a fold names a clip twice or trains on and scores it.
    """
    if not folds:
        raise ValueError("folds must hold at least one fold, but got none")
    text = "\x1d".join(sorted(_fold_text(*fold) for fold in folds))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _fold_text(trained: Iterable[str], scored: Iterable[str]) -> str:
    trained_ids, scored_ids = sorted(trained), sorted(scored)
    everything = trained_ids + scored_ids
    twice = sorted(name for name, count in Counter(everything).items() if count > 1)
    if twice:
        raise ValueError(
            "a clip must be named once in a fold, trained or scored, but "
            f"{len(twice)} are named twice (first: {twice[0]!r})"
        )
    return "\x1e".join("\x1f".join(names) for names in (trained_ids, scored_ids))
