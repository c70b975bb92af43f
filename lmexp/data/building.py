"""From surveyed and divided documents to a token cache (format: cache.py).

.<first 16 hex digits of the fingerprint>-<8 of the versions>.partial/ beside the cache to be holds the work that is
shared: the tokenizer, then the tokens of each unit, then the cache as a whole, which is renamed.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmexp import __version__
from lmexp.data import shared_work
from lmexp.data.progress import Progress
from lmexp.data.shared_work import GoneError, Task, partial, remove, share
from lmexp.data.split import SPLIT_NAMES
from lmexp.data.summary import Summary
from lmexp.data.survey import QUARANTINE, ChangedError
from lmexp.data.tokenizing import TOKENIZER_JSON, UNIT_JSON, Divided, TokenizeJob, by_document
from lmexp.data.writing import append_file, json_line, little_endian, map_array, sync_all, token_dtype, write_array
from lmexp.files import sync_folder
from lmexp.plugins import code_digest
from lmexp.redaction import redact
from lmexp.tokenizers.base import Tokenizer
from lmexp.tokenizers.config import TokenizerConfig

FORMAT = "lmexp.cache"
VERSION = 3
CACHE_JSON = "cache.json"

Ints = NDArray[np.int64]
Start = Callable[[TokenizeJob, int], None]
"""Called with a job and its bytes before this process begins with it."""
Units = list[list[tuple[Path, dict[str, Any]]]]
"""For each source: the folder of each unit, and what its unit.json says."""


def fingerprint(summaries: Sequence[Summary], tokenizer: TokenizerConfig) -> str:
    """SHA-256 over all that decides the tokens, as hex: the same for the same documents, wherever they are."""
    sources = [
        [s.name, s.digest, s.split_settings(), {"quarantined": s.survey.n_quarantined, "dropped": s.n_dropped}]
        for s in summaries
    ]
    facts = {"version": VERSION, "sources": sources, "tokenizer": tokenizer.identity()}
    if (code := code_digest(type(tokenizer))) is not None:
        facts["code"] = code
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Build:
    """Making a cache, or waiting until another process has made it."""

    path: Path
    """The cache to be."""
    fingerprint: str
    summaries: Sequence[Summary]
    tokenizer: TokenizerConfig
    progress: Progress
    start: Start

    @property
    def folder(self) -> Path:
        """Where the work is shared, by those who tokenize with the same code."""
        return self.path.with_name(f".{self.path.name}-{_code(self.tokenizer)}.partial")

    def run(self) -> None:
        """Return when the cache is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            if not self.path.exists():
                self._make()
        except ChangedError:
            self.discard()
            for summary in self.summaries:
                remove(summary.survey.path)
                remove(partial(summary.survey.path))
            raise
        except Exception as error:
            # Where the cache is there, another process was faster and has removed the folder under this one.
            if not self.path.exists():
                if not all(path.exists() for path in (self.folder, *(s.survey.path for s in self.summaries))):
                    raise GoneError from error
                raise

    def discard(self) -> None:
        """Remove what was shared. Nobody needs it any more as soon as the cache is there."""
        remove(self.folder)

    def _make(self) -> None:
        sources = [Divided(s.name, s.config, s.survey, s.homes, by_document(s.pieces)) for s in self.summaries]
        job = TokenizeJob(sources, self.tokenizer, self.folder, shared_work.PATIENCE)
        self.start(job, sum(summary.n_bytes for summary in self.summaries))
        counts = {name: sum(summary.n_in(name) for summary in self.summaries) for name in SPLIT_NAMES}
        self.progress.say(f"training tokenizer {self.tokenizer.kind}: {counts['train']:,} documents")
        tokenizer = job.learn()
        wanted = getattr(self.tokenizer, "vocab_size", tokenizer.vocab_size)
        if tokenizer.vocab_size < wanted:
            self.progress.say(
                f"vocabulary: {tokenizer.vocab_size} tokens, not tokenizer.vocab_size={wanted}; "
                f"no other pair occurs tokenizer.min_frequency={getattr(self.tokenizer, 'min_frequency', 1)} times"
            )
        self.progress.say("tokenizing " + ", ".join(f"{name}: {n:,} documents" for name, n in counts.items() if n))
        job.run(_Bytes(job, self.progress))
        assemble = _Assemble(job, self.summaries, self.fingerprint, tokenizer)
        share(self.folder, [Task("cache", self.path, assemble)], patience=job.patience)
        sync_folder(self.path.parent)


def _code(tokenizer: TokenizerConfig) -> str:
    """What tells results of other versions apart: they are not put together with this one's."""
    versions = [__version__, platform.python_version(), *(version(name) for name in ("tiktoken", "tokenizers"))]
    return hashlib.sha256(json.dumps([*versions, code_digest(type(tokenizer))]).encode()).hexdigest()[:8]


class _Bytes:
    """Follows the units of a job as anyone tokenizes them."""

    def __init__(self, job: TokenizeJob, progress: Progress) -> None:
        self._progress = progress
        self._sizes = {task.name: unit.unit.n_bytes for task, unit in job.tasks()}
        self._done, self._total = 0, sum(self._sizes.values())

    def __call__(self, task: Task) -> None:
        self._done += self._sizes[task.name]
        self._progress.advance("tokenizing", self._done, self._total)


@dataclass(frozen=True)
class _Assemble:
    """The task of putting the units' tokens end to end."""

    job: TokenizeJob
    summaries: Sequence[Summary]
    fingerprint: str
    tokenizer: Tokenizer

    def __call__(self, folder: Path) -> None:
        """Write the whole cache, cache.json last."""
        shutil.copyfile(self.job.folder / "tokenizer" / TOKENIZER_JSON, folder / TOKENIZER_JSON)
        found = self._units()
        present = [name for name in SPLIT_NAMES if any(name in facts for units in found for _, facts in units)]
        splits = {name: self._split(folder, name, found) for name in present}
        with (folder / QUARANTINE).open("wb") as file:
            for summary in self.summaries:
                with (summary.survey.path / QUARANTINE).open(encoding="utf-8") as lines:
                    for line in lines:
                        file.write(json_line({"source": summary.name, **json.loads(line)}))
        facts = {
            "format": FORMAT,
            "version": VERSION,
            "fingerprint": self.fingerprint,
            "dtype": token_dtype(self.tokenizer).name,
            "tokenizer": redact(self.job.tokenizer.identity()),
            "sources": {summary.name: _source_facts(summary) for summary in self.summaries},
            "splits": splits,
        }
        (folder / CACHE_JSON).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        sync_all(folder)

    def _units(self) -> Units:
        return [
            [(task.result, json.loads((task.result / UNIT_JSON).read_text())) for task, _ in self.job.tasks_of(number)]
            for number in range(len(self.job.sources))
        ]

    def _split(self, folder: Path, name: str, found: Units) -> dict[str, Any]:
        """Write the files of one split; returns its entry in cache.json."""
        dtypes = {facts[name]["n_bytes_dtype"] for units in found for _, facts in units if name in facts}
        bytes_dtype = max(dtypes, key=lambda dtype: np.dtype(dtype).itemsize) if None not in dtypes else None
        position, n_documents, sources = 1, 0, {}
        with (folder / f"{name}.tokens").open("wb") as tokens, (folder / f"{name}.documents").open("wb") as starts:
            write_array(tokens, np.array([self.tokenizer.eos_id], little_endian(token_dtype(self.tokenizer))))
            for source, units in zip(self.job.sources, found, strict=True):
                first, start, n_bytes = n_documents, position, 0
                for path, every in units:
                    if name not in every:
                        continue
                    facts = every[name]
                    append_file(tokens, path / f"{name}.tokens")
                    lengths = map_array(path / f"{name}.lengths", "int64", facts["n_documents"])
                    ends = position + np.cumsum(lengths)
                    write_array(starts, (ends - lengths).astype("<i8"))
                    position = int(ends[-1])
                    n_documents += facts["n_documents"]
                    n_bytes += facts["n_bytes"]
                sources[source.name] = {
                    "first_document": first,
                    "n_documents": n_documents - first,
                    "start": start,
                    "stop": position,
                    "n_bytes": n_bytes,
                }
            write_array(starts, np.array([position], "<i8"))
        if bytes_dtype is not None:
            self._bytes(folder / f"{name}.bytes", name, bytes_dtype, found)
        return {
            "n_documents": n_documents,
            "n_tokens": position - 1,
            "n_bytes": sum(source["n_bytes"] for source in sources.values()),
            "n_bytes_dtype": bytes_dtype,
            "documents_digest": self._documents_digest(name),
            "sources": sources,
        }

    def _documents_digest(self, split: str) -> str:
        """SHA-256 of the documents of a split, whatever the tokenizer and the other splits are."""
        sha = hashlib.sha256()
        for summary in self.summaries:
            if summary.n_in(split):
                sha.update(f"{summary.name}:{summary.documents_digest(split)};".encode())
        return sha.hexdigest()

    @staticmethod
    def _bytes(out: Path, name: str, dtype: str, found: Units) -> None:
        """Write the bytes of each token of a split."""
        with out.open("wb") as file:
            write_array(file, np.zeros(1, little_endian(dtype)))
            for units in found:
                for path, every in units:
                    if name not in every:
                        continue
                    if every[name]["n_bytes_dtype"] == dtype:
                        append_file(file, path / f"{name}.bytes")
                    else:
                        narrow = map_array(path / f"{name}.bytes", "uint16", every[name]["n_tokens"])
                        write_array(file, narrow.astype(little_endian(dtype)))


def _source_facts(summary: Summary) -> dict[str, Any]:
    """A source's entry in cache.json."""
    return {
        "split": summary.split_settings(),
        "cleaning": summary.cleaning_settings(),
        "n_read": summary.survey.n_read,
        "n_documents": summary.n_documents,
        "n_bytes": summary.n_bytes,
        "n_duplicates": summary.n_duplicates,
        "n_dropped": summary.n_dropped,
        "n_quarantined": summary.survey.n_quarantined,
        "documents_digest": summary.digest,
    }
