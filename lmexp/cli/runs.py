"""`lmexp runs [ROOT]`."""

from __future__ import annotations

from pathlib import Path

from lmexp.cli.arguments import Parser
from lmexp.cli.main import printable
from lmexp.paths import default_root


def run(argv: list[str]) -> int:
    """List the runs, newest first."""
    parser = Parser(prog="lmexp runs", description="List the runs, newest first.")
    parser.add_argument("root", nargs="?", type=Path, default=Path(default_root()), help="default: outputs")
    root: Path = parser.parse_args(argv).root
    from lmexp.errors import RunError
    from lmexp.runs.listing import runs

    if not root.is_dir():
        raise RunError(f"{root}: there is no such folder; runs lie in outputs/, LMEXP_OUTPUTS or run.root=...")
    rows = [
        (printable(str(r.path)), r.state, "" if r.step is None else str(r.step), printable(r.result.partition("\n")[0]))
        for r in runs(root)
    ]
    if not rows:
        print(f"no runs in {root}; `lmexp train` makes one")
        return 0
    titles = ("run", "state", "step", "result")
    path, state, step, _ = (max(len(row[i]) for row in [titles, *rows]) for i in range(4))
    for row in [titles, *rows]:  # never cut: the paths are there to be copied
        print(f"{row[0]:<{path}}  {row[1]:<{state}}  {row[2]:>{step}}  {row[3]}")
    return 0
