"""`lmexp report RUN`."""

from __future__ import annotations

from pathlib import Path

from lmexp.cli.arguments import Parser


def run(argv: list[str]) -> int:
    """Write report.html and report.json anew, or print the report card."""
    parser = Parser(prog="lmexp report", description="Write a run's report.html and report.json again.")
    parser.add_argument("run", type=Path, help="folder of the run, as `lmexp runs` shows it")
    parser.add_argument("--text", action="store_true", help="print the report card, and write nothing")
    options = parser.parse_args(argv)
    from lmexp.config.freeze import read_body

    read_body(options.run)
    if options.text:
        from lmexp.reports.terminal import print_report

        print_report(options.run)
        return 0
    from lmexp.paths import REPORT_JSON
    from lmexp.reports.run_report import write_report

    path = write_report(options.run)
    print(f"report: {path}\nrows: {path.with_name(REPORT_JSON)}")
    return 0
