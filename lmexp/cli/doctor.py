"""`lmexp doctor`."""

from __future__ import annotations

from lmexp.cli.arguments import Parser


def run(argv: list[str]) -> int:
    """Print what was found; exit code 1 if something must be mended."""
    Parser(prog="lmexp doctor", description="Check the installation.").parse_args(argv)
    from lmexp.runs.doctor import examine

    healthy = True
    for finding in examine():
        healthy = healthy and finding.ok
        fix = "" if finding.ok else f"  <- {finding.fix}"
        print(f"{'ok  ' if finding.ok else 'MEND'} {finding.what:<18} {finding.found}{fix}", flush=True)
    return 0 if healthy else 1
