"""Shell completion: `eval "$(lmexp --shell-completion install=bash)"`, then `lmexp train mod<TAB>`.

Hydra's scripts call `lmexp -sc query=SHELL` with the typed line in COMP_LINE. The first word is completed here; the
overrides of a composed command are Hydra's.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys

from lmexp import plugins
from lmexp.cli.main import COMMANDS, LmexpUsageError, packages_and_rest
from lmexp.config.compose import composer
from lmexp.config.origin import FROM, Origin, split_origin
from lmexp.config.schema import COMMANDS as COMPOSED
from lmexp.config.schema import SAME_CONFIG

SHELLS = ("bash", "fish", "zsh")
OPTIONS = ("--cfg", "--config-dir", "--explain", "--help", "--info", "--package", "--resolve", "--shell-completion")


def run(arguments: list[str]) -> int:
    """Print a shell's script, or completions. arguments: install=SHELL, uninstall=SHELL or query=SHELL."""
    verb, _, shell = arguments[0].partition("=") if len(arguments) == 1 else ("", "", "")
    if verb not in ("install", "uninstall", "query") or shell not in SHELLS:
        raise LmexpUsageError(
            f"--shell-completion {' '.join(arguments)}: expected install=SHELL or uninstall=SHELL, SHELL being one of "
            f'{", ".join(SHELLS)}; in your shell: eval "$(lmexp --shell-completion install=bash)"'
        )
    if verb == "query":
        with contextlib.suppress(Exception):  # whatever is half typed, a completion never complains
            print(("\n" if shell == "fish" else " ").join(completions(os.environ.get("COMP_LINE", ""), shell)))
        return 0
    sys.argv[0] = "lmexp"  # the name that the script completes
    print(_hydra(f"{verb}={shell}", "train", []), end="")
    return 0


def completions(line: str, shell: str = "bash") -> list[str]:
    """What the last word of a typed line may become."""
    packages, words = packages_and_rest(line.split()[1:])
    word = "" if line.endswith(" ") or not words else words[-1]
    if not words or words == [word]:
        return [name for name in COMMANDS if name.startswith(word)]
    command, *typed = words
    command = SAME_CONFIG.get(command, command)
    if command not in COMPOSED:
        return []
    if word.startswith("-"):
        return [option for option in OPTIONS if option.startswith(word)]
    plugins.trust_entry_points()
    plugins.trust(packages)
    folders, overrides = _config_dirs(typed)
    origin, overrides = split_origin(overrides) if command == "train" else (None, overrides)
    os.environ["COMP_LINE"] = " ".join(["lmexp", *overrides]) + (" " if not word else "")
    found = _hydra(f"query={shell}", command, folders, origin).split()
    known = [choice for choice in found if not choice.startswith(("schema/", "hydra"))]
    if command == "train" and origin is None and FROM.startswith(word):
        known.append(FROM)
    return known


def _config_dirs(words: list[str]) -> tuple[list[str], list[str]]:
    """Folders named by --config-dir, and the overrides."""
    folders, rest = [], list(words)
    while "--config-dir" in rest[:-1]:
        at = rest.index("--config-dir")
        folders.append(rest[at + 1])
        del rest[at : at + 2]
    return folders, rest


def _hydra(verb: str, command: str, config_dirs: list[str], origin: Origin | None = None) -> str:
    """What Hydra's completion prints."""
    printed = io.StringIO()
    with composer(command, config_dirs, origin) as composing:
        if config_dirs and verb.startswith("query"):
            line = os.environ["COMP_LINE"].removeprefix("lmexp")
            os.environ["COMP_LINE"] = f"lmexp {composing.search_path[0]}{line}"
        with contextlib.redirect_stdout(printed):
            composing.hydra.shell_completion(config_name=composing.primary, overrides=[verb])
    return printed.getvalue()
