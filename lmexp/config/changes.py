"""What `lmexp resume RUN OVERRIDES` may change about a run: how far, on which devices, how launched, how logged."""

from __future__ import annotations

import shlex
from pathlib import Path

from omegaconf import DictConfig

from lmexp.config.compose import Composed, compose
from lmexp.config.diagnose import unknown_key
from lmexp.config.origin import read_origin
from lmexp.errors import ConfigError

HORIZON = ("trainer.max_steps", "trainer.max_tokens", "trainer.max_epochs")
"""Keys that say how far a run goes."""
KEYS = (*HORIZON, "trainer.devices", "trainer.num_nodes", "trainer.strategy")
GROUPS = ("launcher", "logger")
ACCEPTED = f"resume accepts {', '.join(KEYS)}, and whatever is of {' and '.join(GROUPS)}"


def change(run_dir: Path, overrides: list[str]) -> Composed:
    """A run's config with overrides on top, checked like a new one; ConfigError names every one that is wrong."""
    origin = read_origin(run_dir, rebase=False)
    frozen = compose([], origin=origin).node
    accepted = [text for text in overrides if _is_accepted(text)]
    unknown = {text: found for text in overrides if text not in accepted and (found := _unknown(frozen, text))}
    refused = [text for text in overrides if text not in accepted and text not in unknown]
    findings = [f"{text}: {found}" for text, found in unknown.items()]
    findings += [f"{text}: this stays as it is while a run goes on" for text in refused]
    try:
        composed = compose(accepted, origin=origin)
    except ConfigError as error:
        findings.append(str(error))
    if refused:
        words = shlex.join([f"from={run_dir}", *(text for text in overrides if text not in unknown)])
        findings.append(f"{ACCEPTED}; anything else is for a new run with the same config: lmexp train {words}")
    elif unknown:
        findings.append(ACCEPTED)
    if findings:
        raise ConfigError("\n".join(findings))
    return composed


def sets_horizon(overrides: list[str]) -> bool:
    """Whether one of them says how far the run goes."""
    return any(_key(text) in HORIZON for text in overrides)


def _is_accepted(text: str) -> bool:
    return _key(text) in KEYS or _key(text).partition(".")[0] in GROUPS


def _key(text: str) -> str:
    return text.lstrip("+~").partition("=")[0]


def _unknown(frozen: DictConfig, text: str) -> str | None:
    """Why an override means nothing, whatever the command; None where it does."""
    if "=" not in text:
        return "can't be read as an override; write key=value, e.g. trainer.max_steps=2000"
    key = _key(text).partition("@")[0]
    return unknown_key(frozen, key) if key != "experiment" else None
