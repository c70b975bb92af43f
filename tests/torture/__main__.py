"""`python -m tests.torture [LINE]... [--cases N] [--journal FILE]`: runs that are killed, stopped, and killed again.

A case is one run that is hurt several times; its number says what happens to it. The journal keeps which cases have
passed with this code: they are not done again. Those that failed are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.torture import warm

if TYPE_CHECKING:
    from tests.torture.runs import Arena

ROOT = Path(__file__).parents[2]
THREADS = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # of pyarrow's allocator
}


@dataclass(kw_only=True, slots=True)
class Line:
    """One kind of torture."""

    told: str
    variants: tuple[str, ...]
    hits: int
    """In a case."""
    short: int
    """Cases that CI does."""
    long: int
    """Cases that `make torture` does."""


LINES = {
    "kills": Line(
        told="kill -9 at random moments, one process",
        variants=("plain", "accumulation", "bf16"),
        hits=5,
        short=8,
        long=200,
    ),
    "kills-two": Line(told="kill -9 at random moments, two processes", variants=("two",), hits=5, short=2, long=40),
    "saves": Line(
        told="kill -9 at a system call that writes",
        variants=("accumulation", "bf16"),
        hits=6,
        short=10,
        long=167,
    ),
    "signals": Line(
        told="a signal to any process at random moments", variants=("plain", "two"), hits=4, short=5, long=50
    ),
}


def main() -> int:
    """Do what is not done yet; 1 where a case failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__.partition("\n\n")[2])
    parser.add_argument("lines", nargs="*", metavar="LINE", help=f"{', '.join(LINES)}; all by default")
    parser.add_argument("--cases", type=int, help="cases of each line; thousands of hits by default")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--short", action="store_true", help="as many cases as CI does")
    parser.add_argument("--journal", type=Path, help="file of the cases that are done; none by default")
    parser.add_argument("--keep", type=Path, help="folder for the runs of cases that fail")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the cases")
    parser.add_argument("--job", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := set(given.lines) - set(LINES):
        parser.error(f"there is no line {', '.join(sorted(unknown))}; expected {', '.join(LINES)}")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="torture-journal-") as folder:
        journal = given.journal or Path(folder) / "journal.jsonl"
        for name in given.lines or LINES:
            n_cases = given.cases or (LINES[name].short if given.short else LINES[name].long)
            cases = range(given.first, given.first + n_cases)
            if given.job is not None:  # one of several, for one line
                return do_line(name, list(cases)[given.job :: given.jobs], journal, given.keep)
            failed += share_line(name, cases, journal, given.jobs)
    return int(failed > 0)


def share_line(name: str, cases: range, journal: Path, n_jobs: int) -> int:
    """Have processes do the cases of a line, and say how it went; how many failed or weren't done."""
    version = code_version()
    before = read_journal(journal, name, version)
    n_before = sum(case in before for case in cases)
    say(f"{name}: {LINES[name].told}; {len(cases)} cases, {n_before} of them done before")
    started = time.monotonic()
    command = [sys.executable, "-m", "tests.torture", name, *sys.argv[1:], f"--cases={len(cases)}"]
    command = [*command[:4], *(word for word in command[4:] if word not in LINES)]
    shared = [f"--journal={journal}", f"--jobs={n_jobs}"]
    jobs = [subprocess.Popen([*command, *shared, f"--job={job}"]) for job in range(n_jobs)]
    for job in jobs:
        job.wait()
    passed = {case: spread for case, spread in read_journal(journal, name, version).items() if case in cases}
    tally: Counter[str] = sum(passed.values(), Counter())
    spread = ", ".join(f"{what} {count}" for what, count in sorted(tally.items(), key=lambda item: -item[1]))
    say(
        f"{name}: {tally['cold'] + tally['forked']} hits in {len(passed)} of {len(cases)} cases passed, "
        f"{time.monotonic() - started:.0f} s: {spread}"
    )
    return len(cases) - len(passed)


def do_line(name: str, cases: list[int], journal: Path, keep: Path | None) -> int:
    """Do those of the cases that are not done; 1 where one failed."""
    from tests.torture.runs import Arena

    warm.warm_up()
    version = code_version()
    passed = read_journal(journal, name, version)
    todo, failed, started = [case for case in cases if case not in passed], 0, time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix=f"torture-{name}-"))
    try:
        do_case = player(name, Arena(folder))
        for done, case in enumerate(todo, start=1):
            begun = time.monotonic()
            error, spread = "", Counter[str]()
            try:
                spread = do_case(case)
            except Exception:
                error = traceback.format_exc()
                failed += 1
                say(f"{name} case {case} FAILED\n{error}")
                if keep is not None:
                    shutil.copytree(folder, keep / f"{name}-{case}", dirs_exist_ok=True)
            seconds = round(time.monotonic() - begun, 1)
            record = {"line": name, "case": case, "version": version, "error": error, "spread": spread}
            append(journal, record | {"seconds": seconds})
            for path in folder.glob(f"{name}-{case:05d}-*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            eta = (time.monotonic() - started) / done * (len(todo) - done) / 60
            say(f"{name} case {case} {'FAILED' if error else 'passed'} in {seconds:.0f} s  ETA {eta:.0f} min")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return int(failed > 0)


def player(name: str, arena: Arena) -> Callable[[int], Counter[str]]:
    """What does a case of a line."""
    from tests.torture import kills, saves, stops

    line = LINES[name]
    tracer = saves.Tracer() if name == "saves" else None

    def do(case: int) -> Counter[str]:
        variant = line.variants[case % len(line.variants)]
        two = variant == "two"
        if tracer is not None:
            return kills.play(arena, variant, name, case, line.hits, tracer.strike, tracer.begin)
        if name == "signals":
            return kills.play(arena, variant, name, case, line.hits, stops.stop_two if two else stops.stop_one)
        return kills.play(arena, variant, name, case, line.hits, kills.kill_two if two else kills.kill_one)

    return do


def code_version() -> str:
    """Digest of all that decides how a case ends."""
    digest = hashlib.sha256()
    for folder in ("lmexp", "conf", "tests/torture"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".yaml", ".css"):
                digest.update(f"{path.relative_to(ROOT)} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def read_journal(path: Path, line: str, version: str) -> dict[int, Counter[str]]:
    """Cases of a line that passed with this version -> what they hit."""
    if not path.exists():
        return {}
    found = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(text)
        except json.JSONDecodeError:  # we were killed while writing it
            continue
        if (record["line"], record["version"]) == (line, version) and not record["error"]:
            found[record["case"]] = Counter(record["spread"])
    return found


def append(path: Path, record: dict[str, object]) -> None:
    """Add a line to the journal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as file:
        file.seek(0, os.SEEK_END)
        torn = file.tell() > 0 and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"
        file.write((b"\n" if torn else b"") + json.dumps(record).encode() + b"\n")


def say(message: str) -> None:
    """A line now."""
    print(message, flush=True)


if __name__ == "__main__":
    if any(os.environ.get(name) != value for name, value in THREADS.items()):  # read by torch when it is imported
        os.environ.update(THREADS)
        os.execv(sys.executable, [sys.executable, "-m", "tests.torture", *sys.argv[1:]])
    sys.exit(main())
