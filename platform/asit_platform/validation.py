"""Plain mappings -> config dataclasses, with every fault found at once.

The dataclasses check values in `__post_init__`, whose error reaches us with the parent's
path only; so such a message begins with the field's name, and the path is completed here.
"""

import copy
import dataclasses
import difflib
import functools
import json
import math
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar, Union

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")
_UNKNOWN_KEY = "unexpected_keyword_argument"


class Fault(NamedTuple):
    """One thing wrong: the dotted path at fault, and a line that says what is wrong there."""

    path: str
    line: str


class InvalidError(Exception):
    """All faults of one mapping; callers add the file's name and raise `PlatformError`."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(fault.line for fault in faults))
        self.faults = tuple(faults)


def validate(config_type: type[T], content: Any, *, path: str = "") -> T:
    """Build a config dataclass from plain data.

    Types are strict (`"8"` is no number and `true` no 1), as JSON's are: lists become tuples
    and strings become paths. Numbers must be finite.

    Args:
        config_type: A dataclass with `__pydantic_config__ = {"extra": "forbid"}`.
        content: What YAML gave.
        path: Dotted path of `content` in its file.

    Raises:
        InvalidError: With every fault found.
    """
    infinite = list(_faults_of_numbers(content, path))
    if infinite:
        raise InvalidError(infinite)
    adapter = _adapter(config_type)
    try:
        return adapter.validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        details = error.errors(include_url=False)
    unknown = [detail["loc"] for detail in details if detail["type"] == _UNKNOWN_KEY]
    if unknown:
        # `__post_init__` does not run beside an unknown key: look again without it.
        try:
            adapter.validate_json(json.dumps(_without(content, unknown)), strict=True)
        except ValidationError as error:
            details = [detail for detail in details if detail["type"] == _UNKNOWN_KEY]
            details += error.errors(include_url=False)
    raise InvalidError([_fault(config_type, detail, path) for detail in details])


def _faults_of_numbers(content: Any, where: str) -> Iterator[Fault]:
    """Infinities and NaN, which pass every `value > 0` or fail every comparison."""
    if isinstance(content, dict | list | tuple):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in items:
            yield from _faults_of_numbers(value, dotted(where, str(key)))
    elif isinstance(content, float) and not math.isfinite(content):
        yield Fault(where, f"{where} must be finite, but got {short(content)}")


@functools.cache
def _adapter(config_type: type[T]) -> TypeAdapter[T]:
    # Building one takes longer than a hundred validations.
    return TypeAdapter(config_type)


def _without(content: Any, places: Iterable[Sequence[int | str]]) -> Any:
    content = copy.deepcopy(content)
    for *parents, key in places:
        holder = content
        for parent in parents:
            holder = holder[parent]
        del holder[key]
    return content


def near_miss(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'ratio'?` where one of the known words is close, else the empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def dotted(*parts: str) -> str:
    """Join the parts of a path, leaving out empty ones."""
    return ".".join(part for part in parts if part)


def short(value: Any) -> str:
    """A value as an error message shows it."""
    text = "null" if value is None else json.dumps(value, default=str, ensure_ascii=False)
    text = f"'{text[1:-1]}'" if isinstance(value, str) else text
    return text if len(text) <= 60 else f"{text[:57]}..."


def fields_of(config_type: Any) -> dict[str, Any]:
    """Names and types of a dataclass's fields (also of `X | None`); empty for anything else."""
    config_type = without_none(config_type)
    return typing.get_type_hints(config_type) if dataclasses.is_dataclass(config_type) else {}


def without_none(annotation: Any) -> Any:
    """`X` for `X | None`, and anything else unchanged."""
    if typing.get_origin(annotation) not in (Union, types.UnionType):
        return annotation
    present = [part for part in typing.get_args(annotation) if part is not type(None)]
    return present[0] if len(present) == 1 else annotation


def type_at(config_type: Any, parts: Sequence[str]) -> Any:
    """The annotation found by following field names and mapping keys; None if there is none."""
    for part in parts:
        config_type = without_none(config_type)
        fields = fields_of(config_type)
        if part in fields:
            config_type = fields[part]
        elif typing.get_origin(config_type) is dict:
            config_type = typing.get_args(config_type)[1]
        else:
            return None
    return config_type


def _fault(config_type: Any, detail: Any, path: str) -> Fault:
    parts = tuple(str(part) for part in detail["loc"])
    message, value = detail["msg"], detail["input"]
    where = dotted(path, *parts)
    if detail["type"] == "value_error":
        return _own_message(type_at(config_type, parts), str(detail["ctx"]["error"]), where)
    return Fault(where, _line(detail["type"], message, value, config_type, parts, where))


def _line(
    kind: str, message: str, value: Any, config_type: Any, parts: Sequence[str], where: str
) -> str:
    match kind:
        case "unexpected_keyword_argument":
            siblings = fields_of(type_at(config_type, parts[:-1]))
            return f"unknown key '{where}'{near_miss(parts[-1], siblings)}"
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return f"{where} is required"
        case "dataclass_type":
            keys = ", ".join(fields_of(type_at(config_type, parts)))
            return f"{where or 'the file'} must be a mapping of {keys}, but got {short(value)}"
        case "literal_error":
            choices = typing.get_args(without_none(type_at(config_type, parts)))
            hint = near_miss(value, map(str, choices)) if isinstance(value, str) else ""
            rule = message.replace("Input should be", "must be")
            return f"{where} {rule}, but got {short(value)}{hint}"
        case _:
            return f"{where} {_rule(message)}, but got {short(value)}"


def _rule(message: str) -> str:
    """Pydantic's sentence in our words: `must be an integer`."""
    rule = message.replace("Input should be a valid", "must be a").replace("Input should", "must")
    return rule.replace("must be a integer", "must be an integer").replace("an object", "a mapping")


def _own_message(owner: Any, message: str, where: str) -> Fault:
    """Complete the path of a `__post_init__` message that begins with a field's name."""
    name, _, rule = message.partition(" ")
    if where.rpartition(".")[2] == name:
        return Fault(where, f"{where} {rule}")
    found = list(_paths_to(owner, name))
    if len(found) == 1:
        path = dotted(where, found[0])
        return Fault(path, f"{path} {rule}")
    return Fault(where, f"{where}: {message}" if where else message)


def _paths_to(config_type: Any, name: str) -> Iterable[str]:
    """Dotted paths of the fields called `name`: an own one, or else those further down."""
    fields = fields_of(config_type)
    if name in fields:
        yield name
        return
    for field, annotation in fields.items():
        yield from (dotted(field, rest) for rest in _paths_to(annotation, name))
