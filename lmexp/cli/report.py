"""`lmexp report RUN`."""

from __future__ import annotations

from lmexp.cli.arguments import parse_path


def run(argv: list[str]) -> int:
    """Write report.html anew."""
    path = parse_path("report", "Write a run's report.html again.", argv)
    from lmexp.config.freeze import read_body
    from lmexp.reports.run_report import write_report

    read_body(path)
    print(f"report: {write_report(path)}")
    return 0
