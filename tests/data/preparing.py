"""`python -m tests.data.preparing JSON`: a process that prepares a corpus of tests/data/pieces.py.

JSON: {"data": settings, "tokenizer": settings with kind, "cache_root": folder, "patience": seconds}. Its workers start
for any amount of text.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmexp import plugins
from lmexp.config.schema import SCHEMAS
from lmexp.data import shared_work, worker
from lmexp.data.cache import prepare

PIECES = "tests.data.pieces"


def start(
    data: Mapping[str, Any], tokenizer: Mapping[str, Any], cache_root: Path, patience: float = 0.5, **options: Any
) -> subprocess.Popen[str]:
    """Start the process; options: of Popen."""
    job = {"data": dict(data), "tokenizer": dict(tokenizer), "cache_root": str(cache_root), "patience": patience}
    command = [sys.executable, "-m", "tests.data.preparing", json.dumps(job)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=Path(__file__).parents[2], **options
    )


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for the process, which must succeed."""
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output


def contents(folder: Path) -> dict[str, bytes]:
    """Path below the folder -> content, of all files but the data card."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("data_card.")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def main(job: dict[str, Any]) -> None:
    plugins.trust([PIECES])
    shared_work.PATIENCE = job["patience"]
    shared_work.HEARTBEAT = job["patience"] / 5
    worker.WORKERS_FROM_BYTES = 0
    tokenizer = SCHEMAS["tokenizer"][job["tokenizer"]["kind"]](**job["tokenizer"])
    data = SCHEMAS["data"]["pieces"](**job["data"])
    print(prepare(data, tokenizer, cache_root=Path(job["cache_root"])).path)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
