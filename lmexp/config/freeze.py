"""run.json: a config frozen once by the parent, and read by every worker instead of any command line.

Format "lmexp.run", version 2:
    run_id, experiment, created, lmexp (version), cwd, overrides, plugins, wandb_id, data_fingerprints, config
`config` holds each node's `kind`, by which reading finds its dataclass again in SCHEMAS. Values that come from
`${oc.env:NAME}` stay as that text, so that a secret is looked up where it is needed and written nowhere.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lmexp.config.environment import check_secrets
from lmexp.config.overrides import escaped
from lmexp.config.schema import BASES, COMMANDS, DICT_GROUPS, HELD, SCHEMAS
from lmexp.errors import ConfigError, RunError
from lmexp.files import write_atomically
from lmexp.paths import RUN_JSON
from lmexp.plugins import did_you_mean, trusted
from lmexp.redaction import redact, secret_variables

FORMAT = "lmexp.run"
VERSION = 2


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
    with open(path / RUN_JSON, "x", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def add_fingerprint(run_dir: Path, fingerprint: str) -> None:
    """Append to data_fingerprints in run.json; the one thing that ever changes there."""
    body = read_body(run_dir)
    body["data_fingerprints"].append(fingerprint)
    write_atomically(run_dir / RUN_JSON, json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_record(run_dir: Path) -> RunRecord:
    """Read a run folder's run.json back into typed configs; RunError if it isn't one."""
    body = read_body(run_dir)
    missing = [name for name in RunRecord.__slots__ if name not in body]
    if missing:
        raise RunError(f"{run_dir / RUN_JSON}: lacks {', '.join(missing)}; the file is damaged")
    values = {name: body[name] for name in RunRecord.__slots__ if name != "config"}
    try:
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
    missing = [name for name in read_body(run_dir).get("plugins", []) if name not in trusted()]
    if missing:
        packages = " ".join(f"-p {name}" for name in [*trusted(), *missing])
        raise RunError(
            f"{run_dir}: the run was made with -p {' -p '.join(missing)}, and a run folder never chooses code by "
            f"itself; if you trust it, type\n  lmexp {packages} {command}"
        )


def read_body(run_dir: Path) -> dict[str, Any]:
    """run.json as plain data, its format and version checked."""
    path = run_dir / RUN_JSON
    if not path.is_file():
        raise RunError(_not_a_run(run_dir))
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunError(f"{path}: not JSON ({error}); the file is damaged") from None
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise RunError(f"{path}: expected a file of format {FORMAT}")
    if body.get("version") != VERSION:
        raise RunError(f"{path}: version {body.get('version')}; this lmexp reads version {VERSION}")
    return body


def to_config(command: str, plain: dict[str, Any]) -> Any:
    """The typed config of a command from plain data, every node found by its kind in SCHEMAS."""
    root = OmegaConf.structured(COMMANDS[command])
    for group in BASES:
        if group in plain and plain[group] is not None:
            if group in DICT_GROUPS:
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
    except (OmegaConfBaseException, AttributeError) as error:
        from lmexp.config.translate import in_words

        raise ConfigError(in_words(error)) from error


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


def _not_a_run(run_dir: Path) -> str:
    if not run_dir.exists():
        siblings = [p.name for p in run_dir.parent.iterdir()] if run_dir.parent.is_dir() else []
        return f"{run_dir}: there is no such run folder{did_you_mean(run_dir.name, siblings)}; `lmexp runs` lists them"
    return f"{run_dir}: not a run folder, it holds no {RUN_JSON}; `lmexp runs` lists the runs"
