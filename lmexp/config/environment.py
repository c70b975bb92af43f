"""What a config takes from the environment: `${oc.env:NAME}`, and fields of the type Secret.

Every value that OmegaConf reads with `oc.env` in this process is made known to lmexp.redaction, whatever its variable
is called, so that it can be taken out of logs and errors. Three kinds of values are settings and no secrets: shorter
than eight characters; the path of a place that exists; and what names the run or its place in W&B (NAMING).
"""

from __future__ import annotations

import os
import re
from dataclasses import is_dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, Node, OmegaConf
from omegaconf.resolvers import oc

from lmexp import redaction
from lmexp.errors import ConfigError

NAMING = ("run.name", "run.folder", "run.root", "logger.project", "logger.entity", "logger.group", "logger.tags")
"""Keys whose value is shown on purpose."""

_VARIABLE = re.compile(r"\$\{oc\.env:\s*(\w+)\s*(?:,\s*null\s*)?\}")


def check_secrets(node: Any, where: str = "") -> None:
    """Raise ConfigError for a Secret that isn't `${oc.env:NAME}`, or is too short to be found in text again."""
    if not isinstance(node, DictConfig) or node._is_none() or node._is_interpolation() or node._is_missing():
        return
    schema = OmegaConf.get_type(node)
    secret = redaction.secret_fields(schema) if schema is not None and is_dataclass(schema) else ()
    for key, child in node.items_ex(resolve=False):
        full_key = f"{where}.{key!s}" if where else str(key)
        if key in secret:
            _check_secret(node._get_node(key), full_key)
        else:
            check_secrets(child, full_key)


def _check_secret(node: Any, key: str) -> None:
    if isinstance(node, DictConfig | ListConfig) and not node._is_none() and not node._is_interpolation():
        parts: Any = node
        for inner in parts if isinstance(node, DictConfig) else range(len(node)):
            _check_secret(parts._get_node(inner), f"{key}.{inner}")
        return
    raw = node._value()
    if raw is None or raw in ("", "???"):
        return
    name = _VARIABLE.fullmatch(raw) if isinstance(raw, str) else None
    if name is None:
        raise ConfigError(
            f"{key} is a secret, and run.json would keep it as plain text; expected an environment variable: put it "
            f"into one and write {key}='${{oc.env:MY_SECRET_TOKEN}}'"
        )
    value = os.environ.get(name[1], "")
    if 0 < len(value) < redaction.SHORTEST_SECRET:
        raise ConfigError(
            f"{key} is a secret of {len(value)} characters (of the environment variable {name[1]}); expected at least "
            f"{redaction.SHORTEST_SECRET}: a shorter one can't be told from ordinary words in logs; use a longer one"
        )
    redaction.learn(name[1], value)


def _env(key: str, *default: Any, _node_: Node) -> str | None:
    """OmegaConf's own oc.env, except that redaction learns the value."""
    value = os.environ.get(key)
    full_key = _node_._get_full_key(None)
    if value is not None and not _is_place(value) and not re.match(rf"({'|'.join(NAMING)})\b", full_key):
        redaction.learn(key, value)
    found: str | None = oc.env(key, *default)
    return found


def _is_place(value: str) -> bool:
    """Whether this is the path of something that exists, or lies in a folder at the root that does."""
    try:
        top = re.match(r"/[^/]+(?=/|$)", value)
        return os.path.exists(value) or (top is not None and os.path.exists(top[0]))
    except ValueError:  # a null byte
        return False


OmegaConf.register_new_resolver("oc.env", _env, replace=True)
