from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from asit_platform.validation import InvalidError, near_miss, short, validate


@dataclass(frozen=True, kw_only=True, slots=True)
class Masking:
    __pydantic_config__ = {"extra": "forbid"}

    ratio: float = 0.7
    align: int = 1

    def __post_init__(self):
        if not 0.0 <= self.ratio < 1.0:
            raise ValueError(f"ratio must be in [0, 1), but got {self.ratio}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretrain:
    __pydantic_config__ = {"extra": "forbid"}

    epochs: int
    masking: Masking | None = field(default_factory=Masking)
    weights: Literal["fixed", "uncertainty"] = "fixed"
    folds: tuple[int, ...] = ()
    data: Path = Path()
    named: dict[str, Masking] = field(default_factory=dict)

    def __post_init__(self):
        if self.masking is not None and self.masking.align > self.epochs:
            raise ValueError(f"align must be <= epochs, but got {self.masking.align}")
        if self.epochs == 13:
            raise ValueError("thirteen brings bad luck")


def faults_of(content, path=""):
    with pytest.raises(InvalidError) as caught:
        validate(Pretrain, content, path=path)
    return [(fault.path, fault.line) for fault in caught.value.faults]


def test_plain_data_becomes_the_dataclass():
    config = validate(
        Pretrain, {"epochs": 8, "masking": {"ratio": 0}, "folds": [1, 2], "data": "a/b"}
    )
    assert config == Pretrain(epochs=8, masking=Masking(ratio=0.0), folds=(1, 2), data=Path("a/b"))
    assert config.masking is not None
    assert isinstance(config.masking.ratio, float)


def test_null_makes_a_part_absent():
    assert validate(Pretrain, {"epochs": 8, "masking": None}).masking is None


def test_all_faults_are_found_at_once():
    content = {"epochs": "8", "masking": {"ratoi": 0.5, "ratio": 1.5}, "weights": "fixd", "fold": 1}
    assert sorted(faults_of(content, "trial.pretrain")) == [
        ("trial.pretrain.epochs", "trial.pretrain.epochs must be an integer, but got '8'"),
        (
            "trial.pretrain.fold",
            "unknown key 'trial.pretrain.fold'; did you mean 'folds'?",
        ),
        (
            "trial.pretrain.masking.ratio",
            "trial.pretrain.masking.ratio must be in [0, 1), but got 1.5",
        ),
        (
            "trial.pretrain.masking.ratoi",
            "unknown key 'trial.pretrain.masking.ratoi'; did you mean 'ratio'?",
        ),
        (
            "trial.pretrain.weights",
            "trial.pretrain.weights must be 'fixed' or 'uncertainty', but got 'fixd'; "
            "did you mean 'fixed'?",
        ),
    ]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({}, "epochs is required"),
        ({"epochs": True}, "epochs must be an integer, but got true"),
        ({"epochs": 8.0}, "epochs must be an integer, but got 8.0"),
        ({"epochs": None}, "epochs must be an integer, but got null"),
        ({"epochs": 8, "masking": 3}, "masking must be a mapping of ratio, align, but got 3"),
        ({"epochs": 8, "masking": {"ratio": "x"}}, "masking.ratio must be a number, but got 'x'"),
        ({"epochs": 8, "folds": [1, "a"]}, "folds.1 must be an integer, but got 'a'"),
        ({"epochs": 8, "zzz": 1}, "unknown key 'zzz'"),
        (
            {"epochs": 8, "named": {"a.b": {"ratio": 2}}},
            "named.a.b.ratio must be in [0, 1), but got 2.0",
        ),
        # The message of a parent names a child's field: its path is completed.
        ({"epochs": 1, "masking": {"align": 2}}, "masking.align must be <= epochs, but got 2"),
        ({"epochs": 13}, "thirteen brings bad luck"),
        ([1], "the file must be a mapping of epochs, masking, weights, folds, data, named, "),
    ],
)
def test_each_fault_names_path_rule_and_value(content, line):
    ((_, found),) = faults_of(content)
    assert found.startswith(line)


def test_near_misses_are_close():
    assert near_miss("ratoi", ["ratio", "align"]) == "; did you mean 'ratio'?"
    assert near_miss("colour", ["ratio", "align"]) == ""


def test_long_values_are_shortened():
    assert len(short(list(range(100)))) == 60
    assert short(None) == "null"
