"""Reading a source for its survey (survey.py): found where it was read before, else made together with others."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lmexp import __version__
from lmexp.data import shared_work
from lmexp.data.config import CorpusConfig
from lmexp.data.progress import Progress
from lmexp.data.shared_work import Done, GoneError, Task, partial, remove, share
from lmexp.data.sources.base import Bad, Source, Unit
from lmexp.data.survey import (
    FORMAT,
    N_REASONS,
    QUARANTINE,
    SURVEY_JSON,
    VERSION,
    ChangedError,
    Survey,
    digest,
    quarantined,
    read,
    reasons,
)
from lmexp.data.writing import append_file, json_line, sync_all, write_array
from lmexp.errors import DataError
from lmexp.plugins import code_digest
from lmexp.redaction import secret_fields

CORPORA = "corpora"
RACY_SECONDS = 2.0
FLUSH_DOCUMENTS = 1 << 14

Start = Callable[["SurveyJob", int], None]
"""Called with a job and its bytes before this process begins with it."""


@dataclass(frozen=True)
class SurveyJob:
    """Reading the units of a source: what a parent and its workers do together."""

    name: str
    """Of the source in its corpus."""
    config: CorpusConfig
    units: list[Unit]
    folder: Path
    """Of the claims and the units' results."""
    patience: float

    def run(self, done: Done = shared_work.ignore) -> None:
        """Do the tasks that nobody else does."""
        share(self.folder, self.tasks(), patience=self.patience, done=done)

    def tasks(self) -> list[Task]:
        """A task for each unit; equal units share one."""
        source = self.config.source()
        return [Task(name, self.folder / name, Read(self, source, unit)) for name, unit in self.named_units().items()]

    def named_units(self) -> dict[str, Unit]:
        """Name of the result -> unit."""
        return {unit_name(unit): unit for unit in self.units}

    def too_many(self, quarantine: Sequence[dict[str, Any]]) -> DataError:
        """The error where the limit is passed."""
        option = f"data.parts.{self.name}.max_quarantined" if self.name else "data.max_quarantined"
        limit = self.config.max_quarantined
        return DataError(
            f"{self.config.source().where}: more than {option}={limit} documents are bad. The first:"
            f"{reasons(quarantine)}\nrepair them, or allow more with {option}=N (null is no limit)"
        )


def unit_name(unit: Unit) -> str:
    """A file name that tells a unit from all others."""
    return hashlib.sha256(json.dumps(asdict(unit), sort_keys=True).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Read:
    """The task of reading one unit."""

    job: SurveyJob
    source: Source
    unit: Unit

    def __call__(self, folder: Path) -> None:
        """Write what is to be known of the unit's documents."""
        digests, characters, sizes = bytearray(), list[int](), list[int]()
        n_documents = n_bytes = n_characters = 0
        kinds: Counter[str] = Counter()
        first_bad: list[dict[str, Any]] = []
        limit = self.job.config.max_quarantined
        with (
            (folder / "documents.digests").open("wb") as digest_file,
            (folder / "documents.characters").open("wb") as character_file,
            (folder / "documents.bytes").open("wb") as byte_file,
            (folder / QUARANTINE).open("wb") as quarantine,
        ):

            def flush() -> None:
                digest_file.write(digests)
                write_array(character_file, np.array(characters, "<i8"))
                write_array(byte_file, np.array(sizes, "<i8"))
                digests.clear()
                characters.clear()
                sizes.clear()

            for item in read(self.source, self.unit):
                if isinstance(item, Bad):
                    entry = {"file": item.file, "line": item.line, "reason": item.reason}
                    quarantine.write(json_line(entry))
                    kinds[item.kind] += 1
                    if len(first_bad) < N_REASONS:
                        first_bad.append(entry)
                    if limit is not None and kinds.total() > limit:
                        raise self.job.too_many(first_bad)
                    continue
                text, raw = item
                digests += digest(raw)
                characters.append(len(text))
                sizes.append(len(raw))
                n_documents += 1
                n_characters += len(text)
                n_bytes += len(raw)
                if len(sizes) == FLUSH_DOCUMENTS:
                    flush()
            flush()
        facts = {
            "n_documents": n_documents,
            "n_characters": n_characters,
            "n_bytes": n_bytes,
            "n_quarantined": dict(sorted(kinds.items())),
        }
        (folder / SURVEY_JSON).write_text(json.dumps(facts), encoding="utf-8")
        sync_all(folder)


def corpus_key(config: CorpusConfig, identity: Any) -> str:
    """What a survey is found by: SHA-256 as hex."""
    common = {f.name for f in fields(CorpusConfig)} - {"kind", "max_document_bytes"} | {*secret_fields(type(config))}
    settings = {name: value for name, value in asdict(config).items() if name not in common}
    facts = {"format": FORMAT, "version": VERSION, "lmexp": __version__, "settings": settings, "identity": identity}
    facts["code"] = [code_digest(type(config)), code_digest(type(config.source()))]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def recently_changed(units: Sequence[Unit]) -> bool:
    """Whether a file is so new that it could change again and look the same."""
    newest = time.time() - RACY_SECONDS
    paths = {path for unit in units for path in unit.paths}
    return any(Path(path).stat().st_mtime > newest for path in paths)


class Surveyor:
    """Surveys of the sources of a corpus: found, or made together with others."""

    def __init__(self, cache_root: Path, progress: Progress, start: Start) -> None:
        self.root = cache_root / CORPORA
        self._progress = progress
        self._start = start
        self._passing: list[Path] = []
        self._kept: list[Path] = []

    def survey(self, name: str, config: CorpusConfig) -> Survey:
        """The survey of a source."""
        source = config.source()
        with _told(source):
            identity = source.identity()
            key = secrets.token_hex(32) if identity is None else corpus_key(config, identity)
        found = self._open(self.root / key[:16], key)
        if found is not None:
            self._kept.append(found.path)
            return self._checked(found, SurveyJob(name, config, [], self.root, 0))
        with _told(source):
            units = source.units()
            keep = identity is not None and not recently_changed(units)
        if not keep:
            key = secrets.token_hex(32)
        path = self.root / (key[:16] if keep else f".{key[:16]}.once")
        (self._kept if keep else self._passing).append(path)
        self._make(path, key, name, config, units, identity)
        survey = self._open(path, key)
        if survey is None:
            raise DataError(f"{path}: the survey of {source.where} was removed while it was made; run it again")
        return self._checked(survey, SurveyJob(name, config, units, path, 0))

    def _checked(self, survey: Survey, job: SurveyJob) -> Survey:
        """The survey; DataError where too much of it is bad."""
        limit = job.config.max_quarantined
        if limit is not None and sum(survey.n_quarantined.values()) > limit:
            raise job.too_many(survey.first_bad())
        return survey

    def forget(self) -> None:
        """Remove what is not to be used again. Not before the workers have ended: they may look for work there."""
        for path in self._passing:
            remove(path)
            remove(partial(path))
        for path in self._kept:
            if path.exists():
                remove(partial(path))

    def _open(self, path: Path, key: str) -> Survey | None:
        """The survey in a folder; a damaged one is removed."""
        try:
            survey = Survey(path)
            if survey.key == key:
                return survey
        except FileNotFoundError:
            if not path.exists():
                return None
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        remove(path)
        return None

    def _make(self, path: Path, key: str, name: str, config: CorpusConfig, units: list[Unit], identity: Any) -> None:
        folder = partial(path)
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            return  # made in the meantime
        job = SurveyJob(name, config, units, folder, shared_work.PATIENCE)
        total = sum(unit.n_bytes for unit in job.named_units().values())
        watch = _Watch(job, total, self._progress)
        try:
            self._start(job, total)
            job.run(watch)
            merge = Task("survey", path, lambda beside: _merge(beside, key, job, identity))
            share(folder, [merge], patience=job.patience)
        except ChangedError:
            remove(folder)
            raise
        except Exception as error:
            # Where the survey is there, another process was faster and has removed the folder under this one.
            if not path.exists():
                if not folder.exists():
                    raise GoneError from error
                raise


@contextmanager
def _told(source: Source) -> Iterator[None]:
    """Say what can't be read of a source."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{source.where}: can't read {error.filename}: {error.strerror or error}") from error


class _Watch:
    """Follows the units of a job as anyone reads them; raises when too many documents are bad."""

    def __init__(self, job: SurveyJob, total: int, progress: Progress) -> None:
        self._job, self._total, self._progress = job, total, progress
        self._units = job.named_units()
        self._n_bad = self._done = 0

    def __call__(self, task: Task) -> None:
        self._done += self._units[task.name].n_bytes
        self._progress.advance("reading", self._done, self._total)
        facts = json.loads((task.result / SURVEY_JSON).read_text(encoding="utf-8"))
        self._n_bad += sum(facts["n_quarantined"].values())
        limit = self._job.config.max_quarantined
        if limit is not None and self._n_bad > limit:
            found: list[dict[str, Any]] = []
            for name in self._units:
                path = self._job.folder / name / QUARANTINE
                if len(found) < N_REASONS and path.exists():
                    found += quarantined(path, N_REASONS - len(found))
            raise self._job.too_many(found)


def _merge(folder: Path, key: str, job: SurveyJob, identity: Any) -> None:
    """Put the units' results end to end."""
    source = job.config.source()
    try:
        changed = source.identity() != identity
    except OSError:
        changed = True
    if changed:
        raise ChangedError(source.where)
    names = ("documents.digests", "documents.characters", "documents.bytes", QUARANTINE)
    files: dict[str, BinaryIO] = {name: (folder / name).open("wb") for name in names}
    totals: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    units = []
    try:
        for unit in job.units:
            found = job.folder / unit_name(unit)
            for name, file in files.items():
                append_file(file, found / name)
            facts = json.loads((found / SURVEY_JSON).read_text(encoding="utf-8"))
            kinds.update(facts.pop("n_quarantined"))
            totals.update(facts)
            units.append({"unit": asdict(unit), "n_documents": facts["n_documents"]})
    finally:
        for file in files.values():
            file.close()
    survey = {
        "format": FORMAT,
        "version": VERSION,
        "key": key,
        "n_documents": totals["n_documents"],
        "n_read": totals["n_documents"] + kinds.total(),
        "n_characters": totals["n_characters"],
        "n_bytes": totals["n_bytes"],
        "n_quarantined": dict(sorted(kinds.items())),
        "units": units,
    }
    (folder / SURVEY_JSON).write_text(json.dumps(survey, indent=1) + "\n", encoding="utf-8")
    sync_all(folder)
