"""What is typed after the command: made readable for Hydra, and parsed."""

from __future__ import annotations

import re

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from lmexp.config.schema import DICT_GROUPS
from lmexp.errors import ConfigError

RAW_TEXT_KEYS = re.compile(
    r"prompt|prompts_file|run|to|model\.(init_from|path)|tokenizer\.(path|eos)|data(\.parts\.\w+)?\.(path|pattern|validation_pattern|test_pattern|field|template|delimiter|quote)"
    r"|evaluation\.\w+\.(path|pattern|shots_path|target_file|prompt|prompts\.\w+|listing|target|delimiter|shot_delimiter"
    r"|unconditional|id|cluster|slice|first|second|text)"
)
"""Keys whose value is taken literally, so that no character of it needs Hydra's quoting."""

ADDED_KEYS = re.compile(
    r"\w[\w.]*\.args(\.[\w.]+)?|model\.config(\.[\w.]+)?|data\.weights\.\w+|evaluation\.\w+\.prompts\.\w+"
)
"""Keys that no schema names; they need no +."""

NULLABLE = ("tokenizer", "model", "optimizer", "scheduler", "experiment")
"""Groups that may be null. Hydra can't choose null on the command line, so each has an empty option called null."""

HYDRA_SETTINGS = ("hydra.searchpath", "hydra.verbose")
"""The settings of Hydra's own that mean something."""


def literal_override(typed: str) -> str:
    """The override as Hydra should read it.

    `+experiment=x`, the habit of lightning-hydra-template, becomes `experiment=x`; text keys are quoted; groups can be
    null; arguments of a user's own class, weights of a mixture and more prompts need no `+`.
    """
    if typed.startswith("+experiment="):
        typed = typed[1:]
    key, equals, value = typed.partition("=")
    if value == "null" and key in NULLABLE:
        return f"{key}='null'"
    if value == "null" and key in DICT_GROUPS:
        return f"{key}=[]"
    if equals and ADDED_KEYS.fullmatch(key):
        key, typed = f"++{key}", f"++{typed}"
    if equals and RAW_TEXT_KEYS.fullmatch(key.lstrip("+")) and value and not _is_quoted(value) and value != "null":
        return f"{key}='{_quoted(escaped(value))}'" if "${oc.env:" not in value else typed
    return typed


def refuse_hydra_settings(overrides: list[str]) -> None:
    """Raise ConfigError for a setting of Hydra's own, which nothing would read here."""
    for text in overrides:
        key = text.lstrip("+~").partition("=")[0]
        if key.startswith(("hydra.", "hydra/")) and key not in HYDRA_SETTINGS:
            raise ConfigError(
                f"{text}: Hydra only composes here and runs nothing, so this would have no effect; "
                f"run.root=... says where runs go, logs lie in each run's folder"
            )


def parse_override(text: str) -> Override:
    """Hydra's parse of one override, or a ConfigError that shows how to quote."""
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        key, _, value = text.partition("=")
        hint = f"quote it: '{key}=\"{value}\"'" if value else "write key=value, e.g. optimizer.lr=3e-4"
        raise ConfigError(f"{text}: can't be read as an override; {hint}") from None


def escaped(text: str) -> str:
    """Literal text as it must stand in a config, where `${` begins an interpolation."""
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", text)


def _quoted(text: str) -> str:
    """Text as it must stand between Hydra's single quotes: backslashes count only before a quote and at the end."""
    return re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text)


def _is_quoted(value: str) -> bool:
    return len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""
