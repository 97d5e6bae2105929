"""YAML as people expect it: version 1.2's plain scalars, keys that are strings, and none twice.

PyYAML follows YAML 1.1, where `1e-5` is a string, `on` and `no` are booleans, `010` is
eight and `12:30` is 750, and where the second of two equal keys silently wins.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from asit_platform.errors import PlatformError
from asit_platform.validation import dotted, short

_SCALARS: tuple[tuple[str, str, str], ...] = (
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+0123456789.",
    ),
    ("merge", r"^(?:<<)$", "<"),
)
_TAGS = (None, *(f"tag:yaml.org,2002:{name}" for name in "null bool int float str seq map".split()))


class _Loader(yaml.SafeLoader):
    """Only mappings, lists and the scalars above; duplicate keys are an error."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node))
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key_node.value}' appears twice", key_node.start_mark
                )
            seen.add(str(key_node.value))
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Quotes every string that `_Loader` or a YAML 1.1 reader would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Loader.yaml_constructors = {tag: _Loader.yaml_constructors[tag] for tag in _TAGS}
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
for _name, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_name}", re.compile(_pattern), [c.strip("\0") for c in _first]
        )


def parse_yaml(text: str, *, source: str) -> Any:
    """Parse one YAML document; `source` names it in errors.

    Raises:
        PlatformError: If it is not YAML, or holds a key twice, a key that is no string, an alias
            of what it is part of, or a tag we do not read.
    """
    try:
        content = yaml.load(text, Loader=_Loader)
        _check_tree(content, source=source)
    except RecursionError:
        raise PlatformError(f"{source}: is nested too deeply; write fewer levels") from None
    except yaml.YAMLError as error:
        raise PlatformError(f"{source}{_place(error)}: {_problem(error)}") from None
    except ValueError as error:
        # An explicit tag on a scalar that is no such thing: `!!int x`.
        raise PlatformError(f"{source}: {error}") from None
    return content


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping.

    Raises:
        PlatformError: If the file cannot be read or is not such YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PlatformError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PlatformError(f"{path}: cannot be read as text: {error}") from None
    content = parse_yaml(text, source=str(path))
    if not isinstance(content, dict):
        raise PlatformError(
            f"{path}: must be a mapping of keys to values, but got {short(content)}"
        )
    return content


def format_yaml(content: Mapping[str, Any]) -> str:
    """Write a mapping so that `parse_yaml` reads back the same values."""
    return yaml.dump(dict(content), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _place(error: yaml.YAMLError) -> str:
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""


def _problem(error: yaml.YAMLError) -> str:
    problem = error.problem if isinstance(error, yaml.MarkedYAMLError) else None
    return " ".join((problem or str(error)).split())


def _check_tree(content: Any, *, source: str) -> None:
    """Refuse keys that are no strings, and aliases that lead back to what they are part of."""
    finished: set[int] = set()  # An alias is one object in many places: look at it once.

    def check(value: Any, where: str, holders: frozenset[int]) -> None:
        if not isinstance(value, dict | list) or id(value) in finished:
            return
        place = f"{source}: {where}" if where else source
        if id(value) in holders:
            raise PlatformError(f"{place}: an alias must not stand for what it is part of")
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, below in items:
            if isinstance(value, dict) and not isinstance(key, str):
                raise PlatformError(
                    f"{place}: keys must be strings, but got {short(key)}; quote it or correct it"
                )
            check(below, dotted(where, str(key)), holders | {id(value)})
        finished.add(id(value))

    check(content, "", frozenset())
