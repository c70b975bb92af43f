"""`python -m lmexp.data.worker [-p PACKAGE]...`: helps its parent to prepare a corpus.

Each line of standard input is a job as JSON: the same tasks that the parent does, shared as in shared_work.py. It ends
when its input does, and so with its parent. It says nothing: what goes wrong here goes wrong in the parent too, which
meets the same task. A parent's __main__ is never imported: it may be a notebook or a script without a guard.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from lmexp import plugins
from lmexp.data.config import CorpusConfig
from lmexp.data.sources.base import Unit
from lmexp.data.split import Piece
from lmexp.data.survey import Survey
from lmexp.data.surveying import SurveyJob
from lmexp.data.tokenizing import Divided, TokenizeJob, by_document
from lmexp.data.writing import map_array, write_array
from lmexp.errors import ConfigError

WORKERS_FROM_BYTES = 1 << 25
"""Less text is not worth the start of a process."""
SECONDS_TO_END = 3.0
"""A worker that takes longer to end is killed."""

Job = SurveyJob | TokenizeJob


class Crew:
    """The workers of one parent, started with the first job that is large enough."""

    def __init__(self, data: CorpusConfig) -> None:
        self._n = (data.prepare_workers or len(os.sched_getaffinity(0))) - 1
        self._workers: list[subprocess.Popen[bytes]] = []
        self._inboxes: list[queue.SimpleQueue[bytes | None]] = []

    def help(self, job: Job, n_bytes: int) -> None:
        """Let the workers do the job with the parent, if it is worth it and they can."""
        if self._n < 1 or n_bytes < WORKERS_FROM_BYTES or not sys.executable or not _can_ship(job):
            return
        if not self._workers:
            self._start()
        line = json.dumps(to_plain(job)).encode() + b"\n"
        for inbox in self._inboxes:
            inbox.put(line)

    def _start(self) -> None:
        packages = [argument for name in plugins.trusted() for argument in ("-p", name)]
        for _ in range(self._n):
            try:
                worker = subprocess.Popen(
                    [sys.executable, "-m", "lmexp.data.worker", *packages],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=plugins.child_environment(),
                )
            except OSError:  # no more processes allowed: those that are there do the work
                break
            inbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
            threading.Thread(target=_feed, args=(worker, inbox), daemon=True).start()
            self._workers.append(worker)
            self._inboxes.append(inbox)

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.terminate()
        for worker, inbox in zip(self._workers, self._inboxes, strict=True):
            try:
                worker.wait(SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            inbox.put(None)
        self._workers, self._inboxes = [], []


def _feed(worker: subprocess.Popen[bytes], inbox: queue.SimpleQueue[bytes | None]) -> None:
    """Write jobs to a worker; in a thread, since a pipe that nobody reads stops its writer."""
    assert worker.stdin is not None
    try:
        with worker.stdin as file:
            while (line := inbox.get()) is not None:
                file.write(line)
                file.flush()
    except OSError:
        return  # the worker is no more; the parent does the work


def _can_ship(job: Job) -> bool:
    """Whether a worker will have the same configs: their classes are lmexp's or of a trusted package."""
    configs = [job.config] if isinstance(job, SurveyJob) else [source.config for source in job.sources]
    pairs: list[tuple[str, Any]] = [("data", config) for config in configs]
    if isinstance(job, TokenizeJob):
        pairs.append(("tokenizer", job.tokenizer))
    return all(_same_there(group, config) for group, config in pairs)


def _same_there(group: str, config: Any) -> bool:
    found = type(config)
    try:
        if not found.__module__.startswith("lmexp."):
            plugins.resolve(group, f"{found.__module__}:{found.__qualname__}")
        again = _config(group, json.loads(json.dumps(asdict(config))))
    except (ConfigError, TypeError, ValueError):
        return False
    return type(again) is found and bool(again == config)


def to_plain(job: Job) -> dict[str, Any]:
    """A job as JSON types; where each document goes is left in a file in the job's folder."""
    common = {"folder": str(job.folder.absolute()), "patience": job.patience}
    if isinstance(job, SurveyJob):
        units = [asdict(unit) for unit in job.units]
        return {"job": "survey", "name": job.name, "config": asdict(job.config), "units": units, **common}
    sources = []
    for source in job.sources:
        homes = job.folder / f"homes-{secrets.token_hex(8)}"
        with homes.open("wb") as file:
            write_array(file, source.homes)
        sources.append(
            {
                "name": source.name,
                "config": asdict(source.config),
                "survey": str(source.survey.path.absolute()),
                "homes": str(homes.absolute()),
                "pieces": [asdict(piece) for pieces in source.pieces.values() for piece in pieces],
            }
        )
    return {"job": "tokenize", "sources": sources, "tokenizer": asdict(job.tokenizer), **common}


def from_plain(plain: dict[str, Any]) -> Job:
    """The job of which to_plain() gave plain."""
    folder, patience = Path(plain["folder"]), plain["patience"]
    if plain["job"] == "survey":
        units = [Unit(**unit | {"paths": tuple(unit["paths"])}) for unit in plain["units"]]
        return SurveyJob(plain["name"], _config("data", plain["config"]), units, folder, patience)
    sources = []
    for source in plain["sources"]:
        survey = Survey(Path(source["survey"]))
        homes = map_array(Path(source["homes"]), "uint8", survey.n_documents)
        pieces = by_document(Piece(**piece) for piece in source["pieces"])
        sources.append(Divided(source["name"], _config("data", source["config"]), survey, homes, pieces))
    return TokenizeJob(sources, _config("tokenizer", plain["tokenizer"]), folder, patience)


def _config(group: str, plain: dict[str, Any]) -> Any:
    """The typed config of plain data, found by its kind."""
    from lmexp.config.schema import SCHEMAS

    if plain["kind"] not in SCHEMAS[group]:
        raise ConfigError(f"{group}.kind is {plain['kind']!r}; expected one of {', '.join(SCHEMAS[group])}")
    return SCHEMAS[group][plain["kind"]](**plain)


def main(argv: list[str]) -> None:
    """Do jobs until there is no more input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is the parent's
    signal.signal(signal.SIGTERM, _end)
    parser = argparse.ArgumentParser(prog="python -m lmexp.data.worker")
    parser.add_argument("-p", dest="packages", action="append", default=[])
    arguments = parser.parse_args(argv)
    jobs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    try:
        plugins.trust_entry_points()
        plugins.trust(arguments.packages)
        while True:
            try:
                from_plain(json.loads(jobs.get())).run()
            except Exception:
                continue  # the parent meets the same
    finally:
        os._exit(0)  # at once: the interpreter would wait for the thread that listens


def _end(number: int, frame: FrameType | None) -> None:
    """Leave what is being done, and give its claim back."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(0)


def _listen(jobs: queue.SimpleQueue[bytes]) -> None:
    """Take jobs in; end the process with its input."""
    for line in sys.stdin.buffer:
        jobs.put(line)
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(SECONDS_TO_END)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
