"""run.json: a config frozen once by the parent, and read by every worker instead of any command line.

Format "lmexp.run", version 3:
    run_id, experiment, created, lmexp (version), cwd, overrides, plugins, wandb_id, data_fingerprints, from_run,
    initial_weights, changes, config
`config` holds each node's `kind`, by which reading finds its dataclass again in SCHEMAS. Values that come from
`${oc.env:NAME}` stay as that text, so that a secret is looked up where it is needed and written nowhere.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lmexp.config.environment import check_secrets
from lmexp.config.overrides import escaped
from lmexp.config.schema import BASES, COMMANDS, DICT_GROUPS, HELD, SCHEMAS
from lmexp.errors import ConfigError, RunError
from lmexp.files import write_atomically
from lmexp.paths import CONFIG_YAML, RUN_FILES, RUN_FOLDERS, RUN_JSON, RUN_LINKS
from lmexp.plugins import did_you_mean, trusted
from lmexp.reading import check_folder, read_format
from lmexp.redaction import redact, secret_variables

FORMAT = "lmexp.run"
VERSION = 3
MOST_REFERENCES = 16
"""Of one value to another in run.json, which are resolved when it is written, but for those beside an environment
variable. Each may double the text; more than a few would fill the memory."""


@dataclass(kw_only=True, slots=True)
class RunRecord:
    """What run.json holds."""

    run_id: str
    experiment: str
    """Folder below the root: the experiment's name, or the run's."""
    name: str
    created: str
    """ISO 8601, UTC."""
    lmexp: str
    """Version that froze it."""
    cwd: str
    """Folder in which the command was typed; relative paths start here."""
    overrides: list[str]
    plugins: list[str]
    """Names given with -p; a record only, never imported from here."""
    wandb_id: str
    data_fingerprints: list[str]
    """Of the token caches that the run has used: the last one counts, those before it were given up with
    --allow-changed-data. Empty for the user's own data."""
    from_run: str | None = None
    """Id of the run whose config it began with, lmexp train from=RUN."""
    initial_weights: dict[str, str] | None = None
    """Where its first weights aren't drawn: path and sha256 of the file, or of the Hugging Face folder, they are in."""
    changes: list[dict[str, Any]] = field(default_factory=list)
    """What `lmexp resume RUN OVERRIDES` has changed: when, step, overrides, changed (key -> [before, after])."""
    config: Any
    """TrainConfig."""


def plain_config(node: DictConfig) -> dict[str, Any]:
    """Plain JSON types, interpolations resolved, except that `${oc.env:...}` stays text."""
    plain = _plain(node)
    assert isinstance(plain, dict)
    return plain


def plain_dataclass(config: Any) -> dict[str, Any]:
    """The same of a typed config, which has no interpolations any more."""
    plain = _map_text(asdict(config), lambda _, text: escaped(text))
    assert isinstance(plain, dict)
    return plain


def without_secrets(plain: dict[str, Any]) -> dict[str, Any]:
    """plain, with the value of every secret environment variable as `${oc.env:NAME}`; ConfigError for other secrets."""
    variables = sorted(secret_variables().items(), key=lambda pair: len(pair[1]), reverse=True)

    def replaced(key: str, text: str) -> str:
        for name, value in variables:
            text = _looked_up(text, name, value)
        rest, last = re.sub(r"\$\{oc\.env:[^}]*\}", "", text), key.rpartition(".")[2]
        if rest and redact({last: rest}, secrets=())[last] != rest:
            raise ConfigError(
                f"{key} holds a secret, and run.json would keep it as plain text; put it into an environment variable "
                f"and write {key}='${{oc.env:MY_SECRET_TOKEN}}'"
            )
        return text

    clean: dict[str, Any] = _map_text(plain, replaced)
    return clean


def _looked_up(text: str, name: str, value: str) -> str:
    """text with an interpolation in place of a value; a backslash before it stays one."""
    return re.sub(rf"(\\*){re.escape(escaped(value))}", lambda found: f"{found[1] * 2}${{oc.env:{name}}}", text)


def write_record(path: Path, record: RunRecord, config: dict[str, Any]) -> None:
    """Write run.json into a new run folder. config: plain data, as from plain_config."""
    body = {
        "format": FORMAT,
        "version": VERSION,
        **{name: getattr(record, name) for name in RunRecord.__slots__ if name != "config"},
        "config": config,
    }
    text = json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False)
    if (path / RUN_JSON).exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path / RUN_JSON))
    write_atomically(path / RUN_JSON, text + "\n")


def add_fingerprint(run_dir: Path, fingerprint: str) -> None:
    """Append to data_fingerprints in run.json."""
    body = read_body(run_dir)
    body["data_fingerprints"].append(fingerprint)
    _replace(run_dir, body)


def change_config(run_dir: Path, config: dict[str, Any], *, when: str, step: int, overrides: list[str]) -> None:
    """Put another config into run.json, and what is other about it into its changes.

    config: plain data, as from plain_config; step: of the checkpoint from which the run goes on with it.
    """
    body = read_body(run_dir)
    before, after = flat(body["config"]), flat(config)
    changed = {
        key: [before.get(key), after.get(key)]
        for key in {**before, **after}
        if key not in before or key not in after or before[key] != after[key]
    }
    if changed:
        body["changes"].append({"when": when, "step": step, "overrides": overrides, "changed": changed})
        body["config"] = config
        _replace(run_dir, body)


def write_config_yaml(run_dir: Path, plain: dict[str, Any]) -> dict[str, Any]:
    """Write a plain config to config.yaml, for people: secrets redacted. Returns what it holds."""
    shown = redact(plain)
    write_atomically(run_dir / CONFIG_YAML, yaml.safe_dump(shown, sort_keys=False, allow_unicode=True))
    return shown


def read_record(run_dir: Path) -> RunRecord:
    """Read a run folder's run.json back into typed configs; RunError if it isn't one."""
    body = read_body(run_dir)
    values = {name: body[name] for name in RunRecord.__slots__ if name != "config"}
    try:
        _check_references(body["config"])
        config = to_config("train", body["config"])
    except ConfigError as error:
        packages = "".join(f"-p {name} " for name in body["plugins"])
        hint = f"; the run was made with lmexp {packages}train" if packages else ""
        raise RunError(f"{run_dir / RUN_JSON}: {error}{hint}") from error
    return RunRecord(**values, config=config)


def require_plugins(run_dir: Path, command: str) -> None:
    """RunError, with the command that works, where the run was made with packages that aren't trusted now.

    command: what was typed after lmexp, e.g. "resume outputs/...".
    """
    missing = [name for name in read_body(run_dir)["plugins"] if name not in trusted()]
    if missing:
        packages = " ".join(f"-p {name}" for name in [*trusted(), *missing])
        raise RunError(
            f"{run_dir}: the run was made with -p {' -p '.join(missing)}, and a run folder never chooses code by "
            f"itself; if you trust it, type\n  lmexp {packages} {command}"
        )


def read_body(run_dir: Path) -> dict[str, Any]:
    """run.json as plain data: its format, version and facts checked, and that nothing of ours leads out of the folder.

    Everything that opens a run begins here, so that it can trust the folder from then on.
    """
    path = run_dir / RUN_JSON
    check_folder(run_dir, RunError, files=RUN_FILES, folders=RUN_FOLDERS, links=RUN_LINKS)
    try:
        body = read_format(path, RunError, FORMAT, VERSION)
    except FileNotFoundError:
        raise RunError(_not_a_run(run_dir)) from None
    missing = [name for name in RunRecord.__slots__ if name not in body]
    if missing:
        raise RunError(f"{path}: lacks {', '.join(missing)}; the file is damaged")
    for name, (fits, expected) in _FACTS.items():
        if not fits(body[name]):
            raise RunError(f"{path}: {name} is {repr(body[name])[:200]}; expected {expected}; lmexp didn't write this")
    return body


def _replace(run_dir: Path, body: dict[str, Any]) -> None:
    write_atomically(run_dir / RUN_JSON, json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def flat(plain: Any, key: str = "") -> dict[str, Any]:
    """Key from the root -> value; an empty mapping is a value."""
    if not isinstance(plain, dict) or (key and not plain):
        return {key: plain}
    return {k: v for name, value in plain.items() for k, v in flat(value, f"{key}.{name}" if key else name).items()}


def to_config(command: str, plain: dict[str, Any]) -> Any:
    """The typed config of a command from plain data, every node found by its kind in SCHEMAS."""
    root = OmegaConf.structured(COMMANDS[command])
    for group in BASES:
        if group in plain and plain[group] is not None:
            if group in DICT_GROUPS:
                if not isinstance(plain[group], dict):
                    raise ConfigError(f"{group} is a {type(plain[group]).__name__}; expected nodes by name")
                for name, node in plain[group].items():
                    root[group][name] = _schema(f"{group}.{name}", group, node)
            else:
                root[group] = _schema(group, group, plain[group])
    for place, group in HELD.items():
        outer, _, inner = place.partition(".")
        held = plain[outer].get(inner) if isinstance(plain.get(outer), dict) else None
        for name, node in held.items() if isinstance(held, dict) and inner in root[outer] else ():
            root[outer][inner][name] = _schema(f"{place}.{name}", group, node)
    try:
        merged = OmegaConf.merge(root, plain)
        check_secrets(merged)
        return OmegaConf.to_object(merged)
    except ConfigError:
        raise
    except (OmegaConfBaseException, AttributeError) as error:
        from lmexp.config.translate import in_words

        raise ConfigError(in_words(error)) from error
    except (ArithmeticError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ConfigError(f"the values don't fit each other ({type(error).__name__}: {error})") from error


def _schema(where: str, group: str, node: Any) -> DictConfig:
    kind = node.get("kind") if isinstance(node, dict) else None
    if kind not in SCHEMAS[group]:
        raise ConfigError(
            f"{where}.kind is {kind!r}; expected one of {', '.join(SCHEMAS[group])}"
            f"{did_you_mean(str(kind), SCHEMAS[group])}; a kind of your own needs its package, lmexp -p my_pkg ..."
        )
    schema: DictConfig = OmegaConf.structured(SCHEMAS[group][kind])
    return schema


def _plain(node: Any) -> Any:
    """Nested plain data of a node."""
    if isinstance(node, DictConfig):
        if node._is_none():
            return None
        return {str(key): _child(node, key) for key in node}
    if isinstance(node, ListConfig):
        return None if node._is_none() else [_child(node, i) for i in range(len(node))]
    return node


def _child(parent: DictConfig | ListConfig, key: Any) -> Any:
    raw = parent._get_node(key)
    value = raw._value() if raw is not None and not isinstance(raw, list) else None
    if isinstance(value, str) and "${oc.env:" in value:
        return value
    resolved = _plain(parent[key])
    return escaped(resolved) if isinstance(resolved, str) else resolved


def _map_text(plain: Any, change: Callable[[str, str], str], key: str = "") -> Any:
    """Nested plain data with change(key, text) in place of every text."""
    if isinstance(plain, dict):
        return {name: _map_text(value, change, f"{key}.{name}" if key else name) for name, value in plain.items()}
    if isinstance(plain, list | tuple):
        return [_map_text(value, change, f"{key}.{i}") for i, value in enumerate(plain)]
    return change(key, plain) if isinstance(plain, str) else plain


def _check_references(config: dict[str, Any]) -> None:
    """ConfigError where values refer to others so often that resolving them could fill the memory."""
    n_references = 0

    def count(key: str, text: str) -> str:
        nonlocal n_references
        n_references += len(re.findall(r"(?<!\\)\$\{(?!oc\.env:)", text))
        if n_references > MOST_REFERENCES:
            raise ConfigError(
                f"{key}: more than {MOST_REFERENCES} values refer to others with ${{...}}; run.json holds them resolved"
            )
        return text

    _map_text(config, count)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\w[\w.+-]{0,254}", value) is not None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are(one: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(one(item) for item in value)


_NAME = (_is_name, "letters, digits and any of _ . + - (it names a file or folder)")
_FACTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "run_id": _NAME,
    "experiment": _NAME,
    "name": _NAME,
    "wandb_id": _NAME,
    "created": (_is_text, "text"),
    "lmexp": (_is_text, "text"),
    "cwd": (lambda value: _is_text(value) and os.path.isabs(value) and "\0" not in value, "an absolute path"),
    "overrides": (_are(_is_text), "a list of text"),
    "plugins": (
        _are(lambda value: _is_text(value) and all(part.isidentifier() for part in value.split("."))),
        "names of packages",
    ),
    "data_fingerprints": (
        _are(lambda value: _is_text(value) and re.fullmatch("[0-9a-f]{64}", value) is not None),
        "SHA-256s in hex",
    ),
    "from_run": (lambda value: value is None or _NAME[0](value), "a name or null"),
    "initial_weights": (
        lambda value: (
            value is None
            or (isinstance(value, dict) and value.keys() == {"path", "sha256"} and all(map(_is_text, value.values())))
        ),
        "path and sha256, or null",
    ),
    "changes": (
        _are(lambda value: isinstance(value, dict) and value.keys() == {"when", "step", "overrides", "changed"}),
        "a list of objects with when, step, overrides and changed",
    ),
    "config": (lambda value: isinstance(value, dict), "an object"),
}
"""Fact of run.json -> whether a value is one, and what it should be."""


def _not_a_run(run_dir: Path) -> str:
    if not run_dir.exists():
        siblings = [p.name for p in run_dir.parent.iterdir()] if run_dir.parent.is_dir() else []
        return f"{run_dir}: there is no such run folder{did_you_mean(run_dir.name, siblings)}; `lmexp runs` lists them"
    return f"{run_dir}: not a run folder, it holds no {RUN_JSON}; `lmexp runs` lists the runs"
