"""Checks that configs share; their messages begin with the field."""

from collections.abc import Sequence


def check_one_of(name: str, value: object, known: Sequence[object]) -> None:
    """Raise ValueError unless the value of the field `name` is a known one."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(str, known))}, but got {value!r}")
