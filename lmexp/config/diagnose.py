"""Say everything that is wrong with a command's overrides and files, each once, each with its fix.

Group choices are composed one after the other (about 40 ms each), then each value is set on top of the good choices,
then each node is asked for its own check on top of all that was good.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lmexp.config.compose import COMPOSE_ERRORS, Composer, LoadedFile, check_shape, to_typed
from lmexp.config.environment import check_secrets
from lmexp.config.overrides import parse_override, refuse_hydra_settings
from lmexp.config.schema import DICT_GROUPS, HELD, SCHEMAS, field_names
from lmexp.config.translate import from_file, how_to_hold, in_words, one_line, target_hint, type_error
from lmexp.errors import ConfigError
from lmexp.plugins import did_you_mean

NODE_ERRORS = (ConfigError, OmegaConfBaseException, AttributeError)


def diagnose(composer: Composer, overrides: list[str], error: Exception) -> list[str]:
    """Every finding as one message. error: what composing stopped at, told where nothing else can be pinned down."""
    findings: list[str] = []
    choices: list[Override] = []
    values: list[Override] = []
    groups = composer.groups()
    for text in overrides:
        try:
            refuse_hydra_settings([text])
            override = parse_override(text)
        except ConfigError as refused:
            findings.append(str(refused))
            continue
        is_choice = override.key_or_group in groups and not isinstance(override.value(), dict)
        if override.is_sweep_override():
            findings.append(
                f"{text}: several values make a sweep, and this command runs one config; give one value, or quote it"
            )
        elif is_choice or override.is_hydra_override():
            choices.append(override)
        else:
            values.append(override)
    chosen = _check_choices(composer, choices, findings)
    try:
        base, names = composer.compose(chosen)
    except COMPOSE_ERRORS as broken:
        return [*findings, from_file(composer, chosen, "", broken)]
    composer.name_run(base, names)
    good: list[Override] = []
    for override in values:
        finding = _check_value(base, override)
        if finding is None:
            good.append(override)
        else:
            findings.append(finding)
    findings += _check_nodes(base, good, lambda: composer.files(chosen))
    return list(dict.fromkeys(findings)) or [one_line(error)]


def _check_choices(composer: Composer, choices: list[Override], findings: list[str]) -> list[str]:
    """The choices that compose; what is wrong with the others goes to findings."""
    plausible: list[str] = []
    for override in choices:
        finding = None if override.is_hydra_override() else _check_choice(composer, override)
        if finding is None:
            plausible.append(override.input_line or "")
        else:
            findings.append(finding)
    good: list[str] = []
    while len(good) < len(plausible):
        rest = plausible[len(good) :]
        if _composes(composer, plausible) is None:
            return plausible
        for text in rest:
            error = _composes(composer, [*good, text])
            if error is None:
                good.append(text)
            else:
                findings.append(from_file(composer, [*good, text], text, error))
                plausible.remove(text)
                break
    return good


def _composes(composer: Composer, choices: list[str]) -> Exception | None:
    """The error that Hydra stops at, or None."""
    try:
        composer.compose(choices)
    except COMPOSE_ERRORS as error:
        return error
    return None


def _check_choice(composer: Composer, override: Override) -> str | None:
    """What is wrong with one choice before any file is read, or None."""
    group, text, value = override.key_or_group, override.input_line or "", override.value()
    held = _is_held(override)
    if override.package is not None and not held:
        place = next((f"+{group}@{p}.NAME" for p, g in HELD.items() if g == group and override.package != group), group)
        return f"{text}: the place of a group is fixed; write {place}={value}"
    if override.is_add() and not held:
        return f"{text}: {group} is there already; write {group}={value}, without the +"
    if override.is_delete():
        return None
    options = composer.options(group)
    wanted = [str(v) for v in value] if isinstance(value, list) else [str(value)]
    unknown = [name for name in wanted if name not in options]
    if value is None:
        return f"{text}: {group} can't be null; expected one of {', '.join(options)}"
    if unknown:
        near = did_you_mean(unknown[0], options)
        return f"{text}: there is no {group}={unknown[0]}; expected one of {', '.join(options)}{near}"
    if isinstance(value, list) and group not in DICT_GROUPS:
        return f"{text}: {group} takes one option, got a list; several at once only in {' and '.join(DICT_GROUPS)}"
    return None


def _is_held(override: Override) -> bool:
    """Whether it chooses one of several nodes held by name, as in +data@data.parts.NAME=OPTION."""
    place, _, name = (override.package or "").rpartition(".")
    return bool(name) and HELD.get(place) == override.key_or_group


def _check_value(base: DictConfig, override: Override) -> str | None:
    """What is wrong with one value override on its own, or None."""
    key, text = override.key_or_group, override.input_line or ""
    if key.rpartition(".")[2] == "_target_":
        return f"{text}: {target_hint(key)}"
    unknown = unknown_key(base, key)
    if unknown is not None:
        return f"{text}: {unknown}"
    if override.is_delete():
        if key.rpartition(".")[0] in (*DICT_GROUPS, "data.weights"):
            return None
        return f"{text}: a setting can't be taken away; give it another value, {key}=..."
    if override.is_add() and not override.is_force_add() and not _is_free(key):
        return f"{text}: {key} is there already; write it without the +"
    try:
        _with(base, [override])
    except (OmegaConfBaseException, AttributeError) as error:
        return f"{text}: {type_error(base, key, text, error)}"
    return None


def _with(base: DictConfig, overrides: list[Override]) -> DictConfig:
    """A copy of base with values set; no compose, so that dozens of combinations can be tried."""
    node = copy.deepcopy(base)
    for override in overrides:
        if not override.is_delete():
            add = override.is_add() or override.is_force_add()
            OmegaConf.update(node, override.key_or_group, override.value(), merge=True, force_add=add)
    return node


def _check_nodes(base: DictConfig, overrides: list[Override], files: Callable[[], list[LoadedFile]]) -> list[str]:
    """The failed checks of every node; where all nodes pass, those of the whole config.

    A node tells its first failure only; so the override that caused it is taken away, and the node is asked again.
    """
    findings: list[str] = []
    remaining = list(overrides)
    without = _failures(base)
    owners = [place.partition(".")[0] for place in HELD]  # asked once what they hold is mended
    for where in dict.fromkeys([*_failures(_with(base, remaining)), *owners, ""]):
        for _ in range(len(overrides) + 1):
            failure = _failures(_with(base, remaining)).get(where)
            if failure is None:
                break
            findings.append(failure + _origins(failure, remaining, files()))
            culprit = _culprit(base, remaining, where, failure)
            if culprit is None:
                break
            remaining.remove(culprit)
            if _failures(_with(base, remaining)).get(where) == without.get(where):
                break  # what is left is the default's own failure, which the override hid
    return findings


def _culprit(base: DictConfig, overrides: list[Override], where: str, failure: str) -> Override | None:
    """The override without which the node doesn't fail in this way."""
    for override in reversed(overrides):
        fewer = [o for o in overrides if o is not override]
        if _failures(_with(base, fewer)).get(where) != failure:
            return override
    return None


def _failures(node: DictConfig) -> dict[str, str]:
    """Node -> the first check that it doesn't pass; "" -> the whole config's, asked only where all nodes pass."""
    parts = [(f"{place}.{name}", inner) for place in HELD for name, inner in _held(node, place)]
    parts += _children(node)
    parts += [(f"{group}.{name}", inner) for group in DICT_GROUPS for name, inner in _held(node, group)]
    failures: dict[str, str] = {}
    for key, child in parts:
        if key in DICT_GROUPS or any(failed.startswith(f"{key}.") for failed in failures):
            continue
        failure = _failure(child, key)
        if failure is not None:
            failures[key] = _with_name(failure, key)
    if not failures:
        try:
            to_typed(node)
        except NODE_ERRORS as error:
            failures[""] = in_words(error)
    return failures


def _children(node: DictConfig) -> list[tuple[str, DictConfig]]:
    """The nodes below, by key; not null ones."""
    found = node.items_ex(resolve=False)
    return [(str(key), child) for key, child in found if isinstance(child, DictConfig) and not child._is_none()]


def _held(node: DictConfig, place: str) -> list[tuple[str, DictConfig]]:
    """The nodes that a place holds by name."""
    found: Any = node
    for part in place.split("."):
        found = found._get_node(part) if isinstance(found, DictConfig) and part in found else None
    return _children(found) if isinstance(found, DictConfig) else []


def _failure(node: DictConfig, key: str) -> str | None:
    place, _, name = key.rpartition(".")
    if name and OmegaConf.is_missing(node, "kind"):
        touched = next((f"{key}.{k!s}" for k in node if not OmegaConf.is_missing(node, k)), key)
        return f"{touched} is set, but {place} doesn't hold {name}; {how_to_hold(place, name)}, or leave this out"
    try:
        check_shape(node, key)
        check_secrets(node, key)
        OmegaConf.to_object(node)
    except NODE_ERRORS as error:
        return in_words(error)
    return None


def _with_name(failure: str, key: str) -> str:
    """A check of one of several says `evaluation.split`; this makes it `evaluation.perplexity.split`."""
    group, _, name = key.partition(".")
    if name and not failure.startswith(f"{key}."):
        return re.sub(rf"\b{group}\.(?=\w)", f"{key}.", failure)
    return failure


def _origins(failure: str, typed: list[Override], files: list[LoadedFile]) -> str:
    """' (file:line sets x)' for the keys of a message that a file of the user's sets."""
    said = []
    for key in dict.fromkeys(re.findall(r"\b(?:[a-z_]\w*\.)+[a-z_]\w*", failure)):
        if any(override.key_or_group == key for override in typed):
            continue
        lines = [(f.path, f.line(key)) for f in files]
        found = [(path, line) for path, line in lines if line is not None]
        if found:
            said.append(f"{found[-1][0]}:{found[-1][1]} sets {key}")
    return f" ({', '.join(said)})" if said else ""


def unknown_key(base: DictConfig, key: str) -> str | None:
    """Why key is not in the config, with the nearest known one; None when it is there."""
    node: Any = base
    parts = key.split(".")
    for depth, part in enumerate(parts):
        here = ".".join(parts[:depth])
        if isinstance(node, DictConfig) and not node._is_none():
            if part in node:
                node = node._get_node(part)
                if part == "args" or parts[: depth + 1] == ["data", "weights"]:
                    return None  # free-form: checked by the class's signature, or by the node itself
                continue
            known = [str(k) for k in node]
            if depth == 0:
                known += ["experiment"] if "task" in known else []
                return f"there is no {part!r}{_elsewhere(base, parts, known)}"
            if here in DICT_GROUPS:
                chosen = ",".join([*known, part])
                return f"{here} holds {', '.join(known) or 'nothing'}; to have {part!r} too, write {here}=[{chosen}]"
            if here in HELD:
                near = did_you_mean(part, known) or f"; {how_to_hold(here, part)}"
                return f"{here} has no {part!r}; it has {', '.join(known) or 'nothing'}{near}"
            return f"{here} has no {part!r}; it has {', '.join(known)}{_nearest(base, parts, known)}"
        if node is None or (isinstance(node, DictConfig | ListConfig) and node._is_none()):
            return f"{here} is null here, so it has no {part!r}; choose {parts[0]}=... first"
        if not isinstance(node, ListConfig):
            return f"{here} is a single value, it has no {part!r}"
    return None


def _is_free(key: str) -> bool:
    """Whether any key may be added here: below args."""
    return ".args." in f"{key}."


def _nearest(base: DictConfig, parts: list[str], known: list[str]) -> str:
    """Where the key may have been meant: a near sibling, another option of the group, or another group."""
    near = did_you_mean(parts[-1], known)
    place = ".".join(parts[:-1])
    group = HELD.get(place.rpartition(".")[0], place)
    kinds = SCHEMAS.get(group, {}) if not near else {}
    having = [kind for kind, schema in kinds.items() if parts[-1] in field_names(schema)]
    if having:
        return f"; {' and '.join(f'{group}={kind}' for kind in having)} {'have' if having[1:] else 'has'} it"
    return near or _elsewhere(base, parts, known)


def _elsewhere(base: DictConfig, parts: list[str], siblings: list[str]) -> str:
    """'; did you mean optimizer.lr?' for a key that exists in another place, or a near sibling."""
    for group, child in _children(base):
        if parts[-1] in child:
            return f"; did you mean {group}.{parts[-1]}?"
    return did_you_mean(parts[-1], siblings)
