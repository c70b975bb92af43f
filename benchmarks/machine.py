"""What every measurement must tell: the machine, the versions and the day; and where the text lies."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "pytorch-lightning", "hydra-core", "wandb", "numpy")


def machine() -> str:
    """One line: day, processor and cores (no names of hosts), memory, Python and packages.

    Installed versions are read, nothing is imported: some benchmarks measure imports.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{datetime.date.today()}; {_processor()}, {cores} cores, {gib:.0f} GiB, {platform.system()}; "
        f"Python {platform.python_version()}, {versions}"
    )


def tinyshakespeare(given: Path | None) -> Path:
    """The file that was given, else that of LMEXP_SHARED_DATA."""
    folder = os.environ.get("LMEXP_SHARED_DATA")
    if given is None and folder:
        given = Path(folder) / "tinyshakespeare" / "input.txt"
    if given is None or not given.is_file():
        raise SystemExit(
            f"expected tinyshakespeare's input.txt, got {given}; "
            f"give its path, or set LMEXP_SHARED_DATA to the folder that has tinyshakespeare/input.txt"
        )
    return given.absolute()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
