"""evaluation/items.json: what the evaluations of files asked when a run began, so that a change is noticed at its end.

Format "lmexp.items", version 1: {"asked": {name of the evaluation: SHA-256 of what it asks}}.
"""

from __future__ import annotations

import json
from pathlib import Path

from lmexp.config.freeze import RunRecord
from lmexp.errors import RunError
from lmexp.evaluation.context import FrozenItems
from lmexp.files import write_atomically
from lmexp.paths import EVALUATION_DIR
from lmexp.reading import read_format
from lmexp.runs.folder import made_here

FORMAT = "lmexp.items"
VERSION = 1
ITEMS_JSON = "items.json"


def write_items(run_dir: Path, asked: dict[str, str]) -> None:
    """Keep the digests of a run; nothing where no evaluation reads files."""
    if asked:
        (run_dir / EVALUATION_DIR).mkdir(exist_ok=True)
        body = {"format": FORMAT, "version": VERSION, "asked": asked}
        write_atomically(run_dir / EVALUATION_DIR / ITEMS_JSON, json.dumps(body, indent=2) + "\n")


def read_items(run_dir: Path, record: RunRecord) -> FrozenItems:
    """What a run that evaluates itself knows of its items; RunError where the digests are damaged."""
    return FrozenItems(asked=_read(run_dir), own=made_here(run_dir, record))


def _read(run_dir: Path) -> dict[str, str]:
    path = run_dir / EVALUATION_DIR / ITEMS_JSON
    try:
        asked = read_format(path, RunError, FORMAT, VERSION).get("asked")
    except FileNotFoundError:
        return {}
    if not isinstance(asked, dict) or not all(isinstance(one, str) for one in asked.values()):
        raise RunError(f"{path}: asked is {repr(asked)[:80]}; expected digests by name; lmexp didn't write this")
    return asked
