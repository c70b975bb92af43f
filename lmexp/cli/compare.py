"""`lmexp compare RUN RUN ...`, or `lmexp compare RUNS vs RUNS`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from lmexp.cli.arguments import Parser
from lmexp.cli.main import LmexpUsageError

VS = "vs"
EPILOG = """
  lmexp compare A B                       B against A; of three runs or more each against the first
  lmexp compare A1 A2 A3 vs B1 B2 B3      several seeds a side: for other seeds than these, too
  lmexp compare outputs/small outputs/large    a folder of runs is a side with all runs in it
  lmexp compare A B --primary perplexity/bits_per_byte --margin 0.01
A is where it begins, and a difference is always the other side minus A.
"""


def run(argv: list[str]) -> int:
    """Print the comparison, and write it as a page."""
    parser = Parser(
        prog="lmexp compare",
        description="Say which of several runs is better, and how sure that is, sample by sample.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="folders of runs; the word vs between sides of several")
    parser.add_argument("--evaluation", action="append", default=[], metavar="NAME", help="compare only this one")
    parser.add_argument(
        "--primary", action="append", default=[], metavar="FIGURE", help="decide by this one, e.g. csqa/acc or acc"
    )
    parser.add_argument(
        "--margin",
        action="append",
        default=[],
        metavar="[FIGURE=]X",
        help="the largest difference that doesn't matter, of the primary figures or of one",
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="where to write the page; default: outputs/compare-..."
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it as JSON, too")
    parser.add_argument("--seed", type=int, default=0, help="of resampling")
    given = parser.parse_intermixed_args(argv)
    from rich.console import Console

    from lmexp.evaluation.conclusions import declared
    from lmexp.reports.compare_report import write_page, write_text
    from lmexp.reports.compare_text import PIPE_WIDTH, print_comparison
    from lmexp.runs.compare import compare_runs
    from lmexp.runs.work_progress import counted

    wanted = sides(given.runs), declared(given.primary, given.margin)
    with counted() as progress:
        comparison = compare_runs(*wanted, evaluations=given.evaluation, seed=given.seed, progress=progress.advance)
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    print_comparison(comparison, Console(width=None if known else PIPE_WIDTH, highlight=False))
    if given.json:
        write_text(given.json, comparison.to_json())
        print(f"json: {given.json}")
    print(f"report: {write_page(comparison, given.html)}")
    return 0


def sides(words: list[str]) -> list[list[Path]]:
    """
    >>> [len(side) for side in sides(["a", "b"])], [len(side) for side in sides(["a", "b", "vs", "c"])]
    ([1, 1], [2, 1])
    """
    if VS not in words:
        return [[Path(word)] for word in words]
    found: list[list[Path]] = [[]]
    for word in words:
        if word == VS:
            found.append([])
        else:
            found[-1].append(Path(word))
    if not all(found):
        raise LmexpUsageError("lmexp compare: no run stands on one side of vs; e.g. lmexp compare A1 A2 vs B1 B2")
    return found
