"""Say everything that is wrong with a command's overrides and files, each once, each with its fix.

Group choices are composed one after the other (about 40 ms each), then each value is set on top of the good choices,
then each node is asked for its own check on top of all that was good.
"""

from __future__ import annotations

import copy
import re
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lmexp.config.compose import COMPOSE_ERRORS, Composer, name_run, parse_override, to_typed
from lmexp.config.lines import line_of
from lmexp.config.schema import DICT_GROUPS
from lmexp.errors import ConfigError
from lmexp.plugins import did_you_mean

TARGET_HINT = """{key}: config text never chooses code, so there is no _target_; for code of your own write
    {group}:
      kind: custom
      target: my_pkg.module:ClassName
      args: {{...}}
  or on the command line: lmexp -p my_pkg ... {group}=custom {group}.target=my_pkg.module:ClassName"""


def diagnose(composer: Composer, overrides: list[str]) -> list[str]:
    """Every finding as one message; empty when nothing could be pinned down."""
    findings: list[str] = []
    parsed: list[Override] = []
    for text in overrides:
        try:
            parsed.append(parse_override(text))
        except ConfigError as error:
            findings.append(str(error))
    groups = set(composer.groups())
    chosen = _check_choices(composer, [o for o in parsed if o.key_or_group in groups], findings)
    try:
        base, choices = composer.compose(chosen)
    except COMPOSE_ERRORS as error:
        return [*findings, _from_file(composer, chosen, error)]
    if composer.command == "train":
        name_run(base, choices)
    good: list[Override] = []
    for override in parsed:
        if override.key_or_group not in groups and not override.is_hydra_override():
            finding = _check_value(base, override)
            if finding is None:
                good.append(override)
            else:
                findings.append(finding)
    findings += _check_nodes(base, good)
    return list(dict.fromkeys(findings))


def _check_choices(composer: Composer, choices: list[Override], findings: list[str]) -> list[str]:
    """The choices that compose; what is wrong with the others goes to findings."""
    good: list[str] = []
    for override in choices:
        group, text = override.key_or_group, override.input_line or ""
        options = composer.options(group)
        value = override.value()
        wanted = [str(v) for v in value] if isinstance(value, list) else [] if value is None else [str(value)]
        unknown = [name for name in wanted if name not in options]
        if isinstance(value, dict):
            findings.append(f"{text}: {group} is a group; expected one of {', '.join(options)}")
        elif unknown:
            findings.append(
                f"{text}: there is no {group}={unknown[0]}{did_you_mean(unknown[0], options)}; "
                f"expected one of {', '.join(options)}"
            )
        elif isinstance(value, list) and group not in DICT_GROUPS:
            findings.append(f"{text}: {group} takes one option, got a list; several at once only in {DICT_GROUPS}")
        else:
            try:
                composer.compose([*good, text])
                good.append(text)
            except COMPOSE_ERRORS as error:
                findings.append(_from_file(composer, [*good, text], error))
    return good


def _check_value(base: DictConfig, override: Override) -> str | None:
    """What is wrong with one value override on its own, or None."""
    key, text = override.key_or_group, override.input_line or ""
    if key.rpartition(".")[2] == "_target_":
        return TARGET_HINT.format(key=text, group=key.partition(".")[0])
    unknown = unknown_key(base, key)
    if unknown is not None:
        return f"{text}: {unknown}"
    if override.is_sweep_override():
        return f"{text}: several values make a sweep, and this command runs one config; give one value, or quote it"
    try:
        _with(base, [override])
    except (OmegaConfBaseException, AttributeError) as error:
        return f"{text}: {_type_error(base, key, error)}"
    return None


def _with(base: DictConfig, overrides: list[Override]) -> DictConfig:
    """A copy of base with values set; no compose, so that dozens of combinations can be tried."""
    node = copy.deepcopy(base)
    for override in overrides:
        if not override.is_delete():
            OmegaConf.update(node, override.key_or_group, override.value(), merge=True, force_add=override.is_add())
    return node


def _check_nodes(base: DictConfig, overrides: list[Override]) -> list[str]:
    """The failed checks of the nodes, else those of the whole config.

    A node tells its first failure only; so the override that caused it is taken away, and the node is asked again.
    """
    findings: list[str] = []
    remaining = list(overrides)
    while (failure := _first_failure(_with(base, remaining))) is not None:
        findings.append(failure)
        for culprit in reversed(remaining):
            fewer = [override for override in remaining if override is not culprit]
            if _first_failure(_with(base, fewer)) != failure:
                remaining = fewer
                break
        else:
            break
    return findings


def _first_failure(node: DictConfig) -> str | None:
    """The first node that doesn't pass its check, or the whole config's check; None when all is well."""
    for key in sorted(OmegaConf.missing_keys(node)):
        return f"{key} must be given, e.g. {key}=..."
    parts = [(str(key), child) for key, child in node.items() if isinstance(child, DictConfig)]
    parts += [(f"{key}.{name!s}", inner) for key, child in parts for name, inner in child.items() if key in DICT_GROUPS]
    for key, child in parts:
        try:
            OmegaConf.to_object(child)
        except (ConfigError, OmegaConfBaseException, AttributeError) as error:
            return _node_error(key, child, error)
    try:
        to_typed(node)
    except (ConfigError, OmegaConfBaseException, AttributeError) as error:
        return _one_line(error)
    return None


def unknown_key(base: DictConfig, key: str) -> str | None:
    """Why key is not in the config, with the nearest known one; None when it is there."""
    node: Any = base
    parts = key.split(".")
    for depth, part in enumerate(parts):
        if isinstance(node, DictConfig):
            if part == "args" or (depth and parts[depth - 1] == "args"):
                return None  # free-form: checked against the class's signature
            if part in node:
                node = node._get_node(part)
                continue
            here = ".".join(parts[:depth])
            known = [str(k) for k in node]
            if depth == 0:
                return f"there is no {part!r}{_elsewhere(base, parts, known)}"
            if depth == 1 and here in DICT_GROUPS:
                both = ",".join([*known, part])
                return f"{here} holds {', '.join(known) or 'nothing'}; to have {part!r} too, write {here}=[{both}]"
            hint = did_you_mean(part, known) or _elsewhere(base, parts, known)
            return f"{here} has no {part!r}{hint}; it has {', '.join(known)}"
        if node is None or (isinstance(node, DictConfig | ListConfig) and node._is_none()):
            return f"{'.'.join(parts[:depth])} is null here, so it has no {part!r}; choose {parts[0]}=... first"
        if not isinstance(node, ListConfig):
            return f"{'.'.join(parts[:depth])} is a single value, it has no {part!r}"
    return None


def _elsewhere(base: DictConfig, parts: list[str], siblings: list[str]) -> str:
    """'; did you mean optimizer.lr?' for a key that exists in another place, or a near sibling."""
    for group, child in base.items():
        if isinstance(child, DictConfig) and parts[-1] in child:
            return f"; did you mean {group!s}.{parts[-1]}?"
    return did_you_mean(parts[-1], siblings)


def _type_error(base: DictConfig, key: str, error: Exception) -> str:
    """Expected and got, in the words of the dataclass."""
    parent_key, _, name = key.rpartition(".")
    parent = OmegaConf.select(base, parent_key) if parent_key else base
    schema = OmegaConf.get_type(parent) if parent is not None else None
    if schema is None or not is_dataclass(schema):
        return _one_line(error)
    found: Field[Any] | None = next((f for f in fields(schema) if f.name == name), None)
    if found is None:
        return _one_line(error)
    default = "" if found.default is MISSING else f", e.g. {key}={found.default}"
    got = re.search(r"Value '(.*?)' of type '(\w+)'", str(error))
    given = f", got {got[1]!r}" if got else ""
    return f"expected {_type_name(str(found.type))}{given}{default}"


def _type_name(annotation: str) -> str:
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "None": "null"}
    parts = [words.get(part.strip(), part.strip()) for part in annotation.split("|")]
    return " or ".join(parts)


def _node_error(key: str, node: DictConfig, error: Exception) -> str:
    if isinstance(error, AttributeError) and "object has no attribute" in str(error):
        schema = OmegaConf.get_type(node)
        known = [f.name for f in fields(schema)] if schema is not None and is_dataclass(schema) else []
        extra = [str(k) for k in node if k not in known]
        if extra:
            return f"{key} has no {extra[0]!r}{did_you_mean(extra[0], known)}; it has {', '.join(known)}"
    return _one_line(error)


def _from_file(composer: Composer, overrides: list[str], error: Exception) -> str:
    """The first error of a YAML file, with the file and the line."""
    text = str(error)
    for cause in (error.__cause__, error.__context__):
        text += f"\n{cause}" if cause is not None else ""
    named = re.search(r"In '([^']+)'", text)
    key = re.search(r"full_key: (\S+)", text)
    message = _one_line(error)
    wrong = re.search(r"Key '([^']+)' not in '(\w+)'", text)
    if wrong:
        message = f"there is no key {wrong[1]!r} in {wrong[2]}"
        if wrong[1] == "_target_" and key:
            message = TARGET_HINT.format(key=key[1], group=key[1].partition(".")[0])
        elif known := _known_fields(wrong[2]):
            message += f"{did_you_mean(wrong[1], known)}; it has {', '.join(known)}"
            if "path" not in known and wrong[2] == "EvaluationConfig":
                message += "; the file sets a field of an evaluation that is not chosen"
    for loaded in composer.files(overrides):
        if loaded.path is not None and named and loaded.config_path == named[1]:
            full = f"{loaded.package}.{wrong[1]}" if wrong else key[1] if key else ""
            line = line_of(loaded.path, loaded.package, key[1] if key else full)
            return f"{loaded.path}{f':{line}' if line else ''}: {message}"
    return message


def _known_fields(class_name: str) -> list[str]:
    from lmexp.config.schema import BASES, COMMANDS, SCHEMAS

    everything: list[Any] = [*COMMANDS.values(), *BASES.values()]
    everything += [schema for kinds in SCHEMAS.values() for schema in kinds.values()]
    for root in COMMANDS.values():
        everything += [f.default_factory for f in fields(root) if isinstance(f.default_factory, type)]
    for schema in everything:
        if schema.__name__ == class_name and is_dataclass(schema):
            return [f.name for f in fields(schema)]
    return []


def _one_line(error: BaseException) -> str:
    """The message without Hydra's and OmegaConf's appendix."""
    lines = [line.strip() for line in str(error).splitlines()]
    kept = [x for x in lines if x and not x.startswith(("full_key:", "reference_type=", "object_type=", "Set the env"))]
    return "; ".join(kept) or type(error).__name__
