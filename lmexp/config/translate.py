"""Errors of Hydra, OmegaConf and PyYAML in our words: where, what was expected, what was found, and the fix."""

from __future__ import annotations

import re
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf
from yaml import MarkedYAMLError

from lmexp.config.compose import COMPOSE_ERRORS, Composer, LoadedFile, known_keys
from lmexp.config.schema import BASES, COMMANDS, DICT_GROUPS, HELD, SCHEMAS, field_names
from lmexp.plugins import did_you_mean
from lmexp.redaction import secret_fields

TARGET_HINT = """config text never chooses code, so there is no _target_; for a class of your own write
    defaults: [/schema/{group}@_here_: custom, _self_]
    target: my_pkg.module:ClassName
    args: {{...}}
  in a file conf/{group}/mine.yaml, or on the command line
    lmexp -p my_pkg ... {group}=custom {place}.target=my_pkg.module:ClassName"""


def target_hint(key: str) -> str:
    """What to write instead of `_target_`; key: where it stood, e.g. model._target_."""
    group = key.lstrip("+~").partition(".")[0]
    group = group if group in SCHEMAS and "custom" in SCHEMAS[group] else "model"
    return TARGET_HINT.format(group=group, place=f"{group}.custom" if group in DICT_GROUPS else group)


def how_to_hold(place: str, name: str) -> str:
    """What to write so that a place which holds nodes by name holds this one too."""
    if place in HELD:
        group = HELD[place]
        kind = next(iter(SCHEMAS[group]))
        return (
            f"choose it too, +{group}@{place}.{name}={kind}, "
            f"or /{group}@{place.partition('.')[2]}.{name}: {kind} among a file's defaults"
        )
    return f"choose it too, {place}=[...,{name}]"


def from_file(composer: Composer, overrides: list[str], text: str, error: Exception) -> str:
    """The first error of a YAML file, with the file and the line.

    text: the group choice that brought the file in; overrides: it and the good ones before it.
    """
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark
        where = f"{mark.name}:{mark.line + 1}" if mark is not None else text
        return f"{where}: this is not YAML: {error.problem or error}"
    own = _chosen_file(composer, text)
    group = text.lstrip("+").partition("=")[0]
    if group in DICT_GROUPS and own is not None and "@package" not in own.read_text(encoding="utf-8"):
        return f"{own}: {group} holds several by name; its first line must be `# @package {group}.{own.stem}`"
    if isinstance(error, MissingConfigException):
        return _missing_option(own, text, error)
    held = re.fullmatch(r"\+?(\w+)@(([\w.]+)\.(\w+))=.*", text)
    if held and HELD.get(held[3]) == held[1]:
        if re.search(r"Multiple values for|appears more than once", str(error)):
            return f"{text}: {held[2]} is there already; write it without the +"
        if "Key 'parts' not in" in str(error):
            outer, _, inner = held[3].partition(".")
            return f"{text}: {outer} has no {inner!r}; only a mixture does: {outer}=mixture"
    unmatched = re.search(r"Could not override '([^']+)'", str(error))
    if unmatched:
        return _unmatched_override(composer, own, text, unmatched[1])
    whole = "\n".join(str(e) for e in (error, error.__cause__, error.__context__) if e is not None)
    named, key = re.search(r"In '([^']+)'", whole), re.search(r"full_key: (\S+)", whole)
    full_key = key[1] if key else ""
    try:
        files = composer.files(overrides)
    except COMPOSE_ERRORS:  # the defaults lists themselves don't fit together
        return f"{own or text}: {in_words(error)}"
    for loaded in files:
        if loaded.path is not None and named and loaded.config_path == named[1]:
            line = loaded.line(full_key)
            place = f"{loaded.path}{f':{line}' if line else ''}"
            return f"{place}: {_message(loaded, full_key, whole, error)}"
    return f"{text}: {in_words(error)}" if text else in_words(error)


def _message(loaded: LoadedFile, full_key: str, whole: str, error: Exception) -> str:
    """What is wrong with the file that Hydra couldn't merge."""
    group = loaded.config_path.rpartition("/")[0]
    if group == "experiment" and loaded.package == "experiment":
        return "an experiment sets keys from the root; its first line must be `# @package _global_`"
    wrong = re.search(r"Key '([^']+)' not in '(\w+)'", whole)
    if wrong is None:
        got = re.search(r"Value '(.*?)' of type '\w+' could not be converted to (\w+)", whole)
        if got and full_key:
            expected = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}.get(
                got[2], got[2]
            )
            return f"{full_key}: expected {expected}, got {got[1]!r}"
        return f"{full_key}: {in_words(error)}" if full_key else in_words(error)
    name, schema = wrong[1], wrong[2]
    if name == "_target_":
        return f"{full_key}: {target_hint(full_key)}"
    place = full_key.rpartition(".")[0]
    if place.count(".") == 1 and place.partition(".")[0] in DICT_GROUPS and schema in _base_names():
        group, _, held = place.partition(".")
        return f"{full_key} is set, but {group} doesn't hold {held}; choose it too, {group}=[...,{held}]"
    if place.rpartition(".")[0] in HELD and schema in _base_names():
        outer, _, inner = place.rpartition(".")
        return f"{full_key} is set, but {outer} doesn't hold {inner}; {how_to_hold(outer, inner)}"
    if schema in _base_names():
        kinds = [kind for kind, s in SCHEMAS.get(place, {}).items() if name in field_names(s)] or ["KIND"]
        return (
            f"{full_key}: the file doesn't say of which kind it is; begin it with "
            f"`defaults: [/schema/{place or group}@_here_: {kinds[0]}, _self_]`"
        )
    return f"{place or 'the config'} has no {name!r}{known_keys(name, _known_fields(schema))}"


def _chosen_file(composer: Composer, text: str) -> Path | None:
    """The YAML file that an override group=option brings in."""
    group, _, option = text.lstrip("+").partition("=")
    group = group.partition("@")[0]
    options = [o.strip() for o in option.strip("[]'\"").split(",")]
    files = [composer.file(f"{group}/{o}") for o in options]
    return next((path for path in reversed(files) if path is not None), None)


def _missing_option(own: Path | None, text: str, error: MissingConfigException) -> str:
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    known = [str(o) for o in error.options or ()]
    place = _place(own, option) or text
    return f"{place}: there is no {group}={option}; expected one of {', '.join(known)}{did_you_mean(option, known)}"


def _unmatched_override(composer: Composer, own: Path | None, text: str, key: str) -> str:
    """A defaults list overrides a group that isn't there, or one in a place where it isn't."""
    group, _, package = key.partition("@")
    place, groups = _place(own, group) or text, composer.groups()
    if HELD.get(package.rpartition(".")[0]) == group:
        return f"{text}: {package.rpartition('.')[0]} has no {package.rpartition('.')[2]!r}; to add it, write +{text}"
    if package and group in groups:
        return f"{place}: from within a group's file say where: `override /{group}@_global_.{group}: ...`"
    return f"{place}: there is no group {group!r}; expected one of {', '.join(groups)}{did_you_mean(group, groups)}"


def _place(path: Path | None, word: str) -> str | None:
    """path:line of the first line that holds the word."""
    if path is None:
        return None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if re.search(rf"\b{re.escape(word)}\b", line.partition("#")[0]):
            return f"{path}:{number}"
    return str(path)


def type_error(base: DictConfig, key: str, text: str, error: Exception) -> str:
    """Expected and got, in the words of the dataclass."""
    parent_key, _, name = key.rpartition(".")
    parent = OmegaConf.select(base, parent_key) if parent_key else base
    schema = OmegaConf.get_type(parent) if parent is not None else None
    if isinstance(parent, DictConfig) and parent._metadata.element_type is float:
        return f"expected a number, got {text.partition('=')[2]!r}"
    if schema is None or not is_dataclass(schema):
        return in_words(error)
    found: Field[Any] | None = next((f for f in fields(schema) if f.name == name), None)
    if found is None:
        return in_words(error)
    if name in secret_fields(schema):
        return f"expected an environment variable, {key}='${{oc.env:MY_SECRET_TOKEN}}', as it is a secret"
    default = "" if found.default is MISSING else f", e.g. {key}={_typed(found.default)}"
    return f"expected {_type_name(str(found.type))}, got {text.partition('=')[2]!r}{default}"


def _typed(value: object) -> str:
    """A default as one types it."""
    return (
        {None: "null", True: "true", False: "false"}.get(value, str(value))
        if value in (None, True, False)
        else str(value)
    )


def _type_name(annotation: str) -> str:
    words = {
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "str": "text",
        "None": "null",
        "list[str]": "a list such as [a,b]",
        "list[int]": "a list of whole numbers such as [10,20]",
        "dict[str, Any]": "a mapping such as {a: 1}",
    }
    parts = [words.get(part.strip(), part.strip()) for part in annotation.split("|")]
    return " or ".join(parts)


def in_words(error: BaseException) -> str:
    """An error's message; interpolations that can't be resolved are explained."""
    text = str(error)
    key = re.search(r"full_key: (\S+)", text)
    place = f"{key[1]}: " if key else ""
    unset = re.search(r"Environment variable '(\w+)' not found", text)
    if unset:
        return (
            f"{place}the environment variable {unset[1]} is not set; set it, or give a default: "
            f"${{oc.env:{unset[1]},DEFAULT}}"
        )
    unknown = re.search(r"Interpolation key '([^']+)' not found", text)
    if unknown:
        return f"{place}${{{unknown[1]}}} names no key of the config; expected one such as ${{data.sequence_length}}"
    return one_line(error)


def one_line(error: BaseException) -> str:
    """The message without Hydra's and OmegaConf's appendix."""
    lines = [line.strip() for line in str(error).splitlines()]
    kept = [x for x in lines if x and not x.startswith(("full_key:", "reference_type=", "object_type=", "Set the env"))]
    return "; ".join(kept) or type(error).__name__


def _base_names() -> list[str]:
    return [base.__name__ for base in BASES.values()]


def _known_fields(class_name: str) -> list[str]:
    everything: list[Any] = [
        *COMMANDS.values(),
        *BASES.values(),
        *(s for kinds in SCHEMAS.values() for s in kinds.values()),
    ]
    for root in COMMANDS.values():
        everything += [f.default_factory for f in fields(root) if isinstance(f.default_factory, type)]
    return next((field_names(schema) for schema in everything if schema.__name__ == class_name), [])
