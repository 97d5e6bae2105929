"""One trial's settings: a base, overrides on it, and the config they make.

Settings are plain nested mappings in the words of the config dataclasses; a base is a preset at
a size, a YAML file, or the best trial of a finished study.
"""

import copy
import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asit_core.presets import PRESETS, SIZES, create_config
from asit_core.pretrainer import PretrainConfig
from asit_core.probe import ProbeConfig
from asit_platform.errors import PlatformError
from asit_platform.study.store import best_config
from asit_platform.validation import InvalidError, fields_of, near_miss, short, validate
from asit_platform.yaml_file import read_yaml

Settings = dict[str, Any]
_STUDY_BEST = re.compile(r"study:(?P<name>.+)/best")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialConfig:
    """The stages of one trial, in order.

    Attributes:
        pretrain: The pre-training.
        probe: How its frozen encoder is measured.
    """

    __pydantic_config__ = {"extra": "forbid"}

    pretrain: PretrainConfig
    probe: ProbeConfig = field(default_factory=ProbeConfig)


def to_plain(config: Any) -> Settings:
    """A config dataclass as JSON-able settings; `validate` turns them back."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def read_base(base: str, *, folder: Path, results_dir: Path) -> Settings:
    """Read the settings a trial starts from.

    Args:
        base: PRESET/SIZE, a YAML file in the words of `trial` (and `base`), or `study:NAME/best`.
        folder: What a relative file name starts from.
        results_dir: Where studies lie.

    Raises:
        PlatformError: If the base is unknown or its file is at fault.
    """
    return _read_base(base, folder=folder, results_dir=results_dir, seen=())


def merge(settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> Settings:
    """Settings with the overrides on top, mapping by mapping; `null` makes a part absent."""
    merged = dict(settings)
    for key, value in overrides.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = merge(below, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def with_parameters(settings: Settings, parameters: Mapping[str, Any]) -> Settings:
    """A copy of the settings with a value set at each dotted path.

    Raises:
        KeyError: With the parameter's path, if a part of it is absent from the settings.
    """
    changed = copy.deepcopy(settings)
    for path, value in parameters.items():
        *parents, name = path.split(".")
        holder: Any = changed
        for parent in parents:
            holder = holder.get(parent) if isinstance(holder, dict) else None
        if not isinstance(holder, dict) or name not in holder:
            raise KeyError(path)
        holder[name] = copy.deepcopy(value)
    return changed


def leaf_paths(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted paths of everything that is not a mapping."""
    paths: list[str] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            paths += leaf_paths(value, f"{prefix}{key}.")
        else:
            paths.append(f"{prefix}{key}")
    return paths


def _read_base(base: str, *, folder: Path, results_dir: Path, seen: tuple[Path, ...]) -> Settings:
    study = _STUDY_BEST.fullmatch(base)
    if study is not None:
        settings = best_config(results_dir, study["name"])
        return {stage: settings[stage] for stage in fields_of(TrialConfig) if stage in settings}
    if base.endswith((".yaml", ".yml")):
        return _read_base_file(folder / base, results_dir=results_dir, seen=seen)
    known = [f"{preset}/{size}" for preset in PRESETS for size in SIZES]
    if base not in known:
        raise PlatformError(
            f"base must be PRESET/SIZE ({'|'.join(PRESETS)}/{'|'.join(SIZES)}), a YAML file or "
            f"study:NAME/best, but got {short(base)}{near_miss(base, known)}"
        )
    preset, size = base.split("/")
    return to_plain(TrialConfig(pretrain=create_config(preset, size=size)))


def _read_base_file(path: Path, *, results_dir: Path, seen: tuple[Path, ...]) -> Settings:
    if path.resolve() in seen:
        raise PlatformError(f"{path}: base leads back to this file")
    content = read_yaml(path)
    base = content.pop("base", None)
    if not isinstance(base, str | None):
        raise PlatformError(f"{path}: base must be a string, but got {short(base)}")
    if base is not None:
        below = (*seen, path.resolve())
        settings = _read_base(base, folder=path.parent, results_dir=results_dir, seen=below)
        content = merge(settings, content)
    try:
        return to_plain(validate(TrialConfig, content))
    except InvalidError as error:
        lines = [f"{path}: {fault.line}" for fault in error.faults]
        raise PlatformError("\n".join(lines)) from None
