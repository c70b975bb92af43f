"""`lmexp train --explain KEY`: which default, file or override set a value."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lmexp.config.compose import Composer, compose, composer
from lmexp.config.diagnose import unknown_key
from lmexp.config.origin import split_origin
from lmexp.config.overrides import literal_override, parse_override
from lmexp.errors import ConfigError


def explain(key: str, overrides: list[str], *, command: str = "train", config_dirs: list[str] | None = None) -> str:
    """The value of key and everything that set it, in order; the last one counts."""
    composed = compose(overrides, command=command, config_dirs=config_dirs)
    unknown = unknown_key(composed.node, key)
    if unknown is not None:
        raise ConfigError(f"--explain {key}: {unknown}")
    value = OmegaConf.select(composed.node, key)
    shown = OmegaConf.to_yaml(value).rstrip().replace("\n", "\n  ") if isinstance(value, DictConfig) else value
    lines = [f"{key} = {shown}" if not isinstance(value, DictConfig) else f"{key}:\n  {shown}"]
    origin, own = split_origin(overrides) if command == "train" else (None, overrides)
    typed = [literal_override(o) for o in own]
    with composer(command, config_dirs, origin) as composing:
        origins = [*_default(composed.node, key), *_files(composing, typed, key), *_overrides(own, key)]
    return "\n".join([*lines, *(f"  {origin}" for origin in origins)])


def _default(node: DictConfig, key: str) -> list[str]:
    """The dataclass field's default."""
    parent_key, _, name = key.rpartition(".")
    parent: Any = OmegaConf.select(node, parent_key) if parent_key else node
    schema = OmegaConf.get_type(parent) if isinstance(parent, DictConfig) else None
    if schema is None or not is_dataclass(schema):
        return []
    for found in fields(schema):
        if found.name == name and found.default is not MISSING:
            return [f"default {found.default!r:<24} {schema.__module__}.{schema.__name__}"]
    return []


def _files(composing: Composer, overrides: list[str], key: str) -> list[str]:
    """The YAML files that set it, in the order in which they are merged."""
    origins = []
    files = composing.files(overrides)
    if key in composing.groups():
        root_first = sorted(files, key=lambda loaded: loaded.config_path != composing.command)
        origins += [line for loaded in root_first if loaded.path is not None for line in _choices_in(loaded.path, key)]
    for loaded in files:
        line = loaded.line(key)
        if loaded.path is not None and line is not None:
            package, inner = ("", f"config.{key}") if loaded.owns else (loaded.package, key)
            value = _value_in(loaded.path, package, inner)
            if isinstance(value, dict):  # a whole node of a run
                value = value.get("kind", "...")
            origins.append(f"file    {value!r:<24} {loaded.path}:{line}")
    return origins


def _choices_in(path: Path, group: str) -> list[str]:
    """Where the file's defaults list chooses the group's option."""
    wanted = re.compile(rf"(?:- |override /){group}(?:@[\w.]+)?: *(\[[^\]]*\]|[\w.-]+)")
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [(number, wanted.search(line)) for number, line in enumerate(lines, start=1)]
    return [f"file    {f'{group}={match[1]}':<24} {path}:{number}" for number, match in found if match]


def _value_in(path: Path, package: str, key: str) -> Any:
    value: Any = OmegaConf.to_container(OmegaConf.load(path))
    inner = key if package in ("", "_global_") else key[len(package) + 1 :]
    for part in inner.split("."):
        value = value[part]
    return value


def _overrides(overrides: list[str], key: str) -> list[str]:
    """The overrides that set it or choose its group."""
    origins = []
    for text in overrides:
        override = parse_override(literal_override(text))
        sets = override.package or override.key_or_group
        if sets == key or key.startswith(f"{sets}."):
            origins.append(f"typed   {text}")
    return origins
