"""`lmexp runs [ROOT]`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lmexp.paths import default_root


def run(argv: list[str]) -> int:
    """List the runs, newest first."""
    parser = argparse.ArgumentParser(prog="lmexp runs", description="List the runs, newest first.")
    parser.add_argument("root", nargs="?", type=Path, default=Path(default_root()), help="default: outputs")
    root: Path = parser.parse_args(argv).root
    from lmexp.errors import RunError
    from lmexp.runs.listing import runs

    if not root.is_dir():
        raise RunError(f"{root}: there is no such folder; runs lie in outputs/, LMEXP_OUTPUTS or run.root=...")
    table = Table("run", "state", "step", "result", box=None)
    for listed in runs(root):
        step = "" if listed.step is None else str(listed.step)
        table.add_row(str(listed.path), listed.state, step, listed.result)
    if not table.rows:
        print(f"no runs in {root}; `lmexp train` makes one")
    else:
        Console(soft_wrap=True, width=None).print(table)
    return 0
