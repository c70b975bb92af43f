"""Folders in Hugging Face's format: on this machine, or a commit of a repository on the hub.

Of the hub only a full commit is taken, since a branch or a tag may stand for other files tomorrow, and of it only the
files that are asked for by name: JSON and safetensors, never a pickle, never code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from lmexp.errors import ConfigError, UserError
from lmexp.paths import expanded
from lmexp.plugins import did_you_mean

HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
COMMIT = re.compile("[0-9a-f]{40}")


def folder_of(
    option: str, given: str, revision: str | None, patterns: Sequence[str], error: type[UserError] = ConfigError
) -> Path:
    """The folder that an option names; for a name on the hub that of the commit, which is fetched if need be.

    option: e.g. model.path; its revision is the option beside it. patterns: which files of a repository are needed.
    """
    where, folder = f"{option}={given}", expanded(given)
    pinned = f"{option.rpartition('.')[0]}.revision"
    if folder.is_dir():
        if revision is not None:
            raise error(f"{where} is a folder, so it has no {pinned}; leave that out")
        return folder.absolute()
    if folder.exists():
        raise error(f"{where} is a file; expected a folder, or a name on the hub")
    near = did_you_mean(folder.name, os.listdir(folder.parent) if folder.parent.is_dir() else [])
    if not HUB_NAME.fullmatch(given) or given.startswith("."):
        raise error(f"{where}: there is no such folder{near}")
    if revision is None or not COMMIT.fullmatch(revision):
        found = "not set" if revision is None else f"{revision!r}, which may stand for other files tomorrow"
        raise error(
            f"{where} is no folder here{near.replace(';', ',')}, so it is a name on the hub, and {pinned} is {found}; "
            f"expected the 40 hex digits of a commit. See https://huggingface.co/{given}/commits/main, or type "
            f"git ls-remote https://huggingface.co/{given} HEAD"
        )
    return _fetched(where, given, revision, patterns, error)


def _fetched(where: str, name: str, revision: str, patterns: Sequence[str], error: type[UserError]) -> Path:
    for variable in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(variable, "1")
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as missing:
        if missing.name != "huggingface_hub":
            raise
        raise error(f'{where}: the hub needs huggingface_hub: pip install "lmexp[hf]"') from None
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except Exception as failed:  # of many kinds; what they say is for the user
        text = " ".join(str(failed).split())
        raise error(
            f"{where}: the hub gives no commit {revision}: {type(failed).__name__}: {text}; is it within reach? What "
            f"was fetched before is read without it: HF_HUB_OFFLINE=1"
        ) from failed
