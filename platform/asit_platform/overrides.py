"""`-S dotted.key=value`: changes to a YAML file from the command line."""

from typing import Any, NamedTuple

from asit_platform.errors import PlatformError
from asit_platform.sections import ParameterSpec
from asit_platform.validation import fields_of, short
from asit_platform.yaml_file import parse_yaml

_PARAMETERS = ["search", "parameters"]


class Override(NamedTuple):
    """One `-S` option: the key, its value, and the text as it was typed."""

    path: str
    value: Any
    text: str


def parse_override(text: str) -> Override:
    """Split `dotted.key=value` and read the value as YAML.

    Raises:
        PlatformError: If there is no key, no `=`, or the value is not YAML.
    """
    path, equals, value = text.partition("=")
    path = path.strip()
    if not equals or not all(path.split(".")):
        raise PlatformError(f"-S {text}: must be dotted.key=value")
    return Override(path, parse_yaml(value, source=f"-S {text}"), text)


def apply_override(content: dict[str, Any], override: Override) -> None:
    """Set the value in place, making the mappings on the way to it.

    Raises:
        PlatformError: If something on the way is not a mapping.
    """
    *parents, name = _keys(override.path)
    holder = content
    for depth, parent in enumerate(parents, start=1):
        if holder.get(parent) is None:
            holder[parent] = {}
        holder = holder[parent]
        if not isinstance(holder, dict):
            where = ".".join(parents[:depth])
            raise PlatformError(
                f"-S {override.text}: {where} must be a mapping, but got {short(holder)}"
            )
    holder[name] = override.value


def _keys(path: str) -> list[str]:
    """The keys of a path; a parameter's own name has dots and is one key."""
    keys = path.split(".")
    if keys[:2] != _PARAMETERS or len(keys) < 3:
        return keys
    if keys[-1] in fields_of(ParameterSpec) and len(keys) > 3:
        return [*_PARAMETERS, ".".join(keys[2:-1]), keys[-1]]
    return [*_PARAMETERS, ".".join(keys[2:])]
