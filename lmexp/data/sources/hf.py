"""Data sets of Hugging Face's `datasets`: folders on disk, and commits of repositories on the hub; a document a row.

Nothing of a data set is executed: `datasets` runs no scripts since version 4, and this is at least version 5.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmexp.data.config import HFConfig
from lmexp.data.sources import base
from lmexp.data.sources.base import ALL, Bad, Source, Unit
from lmexp.data.sources.columns import ColumnText, rows_per_batch
from lmexp.errors import DataError
from lmexp.paths import expanded
from lmexp.plugins import did_you_mean

HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
COMMIT = re.compile("[0-9a-f]{40}")
SAVED = ("dataset_dict.json", "state.json")
"""Files by which a folder of save_to_disk is known: of several splits, or of one."""


class HFSource(Source):
    """Rows of a data set. A unit is a range of them."""

    def __init__(self, config: HFConfig) -> None:
        self.config = config
        self.where = f"data.path={config.path}"
        self._text = ColumnText(config.field, config.template, config.max_document_bytes)
        self._folder = self._local_folder()
        self._loaded: Any = None

    def units(self) -> list[Unit]:
        paths = tuple(path for path, *_ in self._files())
        units = []
        for part, split in self._splits().items():
            rows = self._rows(split)
            n_bytes, n_rows = rows.data.nbytes, len(rows)
            step = max(1, base.UNIT_BYTES * n_rows // max(1, n_bytes))
            for start in range(0, n_rows, step):
                stop = min(start + step, n_rows)
                units.append(Unit(part, paths, start, stop, n_bytes * (stop - start) // n_rows))
        if not units:
            raise DataError(f"{self.where}: the data set has no rows")
        return units

    def read(self, unit: Unit) -> Iterator[str | Bad]:
        split = self._splits()[unit.part]
        rows = self._rows(split)
        columns = self._text.columns(rows.data.schema, f"{self.where}, split {split}")
        stop = len(rows) if unit.stop is None else unit.stop
        step = rows_per_batch(rows.data.nbytes, len(rows))
        table = rows.with_format("arrow")
        for start in range(unit.start, stop, step):
            batches = table[start : min(start + step, stop)].to_batches()
            yield from self._text.documents(batches, columns, f"{self.config.path}:{split}", start + 1)

    def identity(self) -> Any:
        given = [self.config.subset, self._splits()]
        if self._folder is None:
            return {"hub": self.config.path, "revision": self.config.revision, "splits": given}
        return {"folder": str(self._folder.absolute()), "files": self._files(), "splits": given}

    def _local_folder(self) -> Path | None:
        """The folder that data.path is, or None for a commit on the hub."""
        given, revision = self.config.path, self.config.revision
        if not given:
            raise DataError(
                "data.path is not set; say which data set: a name on the hub, e.g. data.path=wikitext, or a folder"
            )
        folder = expanded(given)
        if folder.is_dir():
            if revision is not None:
                raise DataError(f"{self.where} is a folder, so it has no data.revision; leave that out")
            if self.config.subset is not None and any((folder / name).exists() for name in SAVED):
                raise DataError(f"{self.where} was written by save_to_disk, without subsets; leave data.subset out")
            return folder
        if folder.exists():
            raise DataError(
                f"{self.where} is a file; expected a folder, or a name on the hub. Files are read by data=json_lines, "
                f"csv, parquet and text_files"
            )
        if not HUB_NAME.fullmatch(given):
            siblings = os.listdir(folder.parent) if folder.parent.is_dir() else []
            raise DataError(f"{self.where}: there is no such folder{did_you_mean(folder.name, siblings)}")
        if revision is None or not COMMIT.fullmatch(revision):
            found = "not set" if revision is None else f"{revision!r}, which may stand for other data tomorrow"
            raise DataError(
                f"{self.where} is no folder here, so it is a name on the hub, and data.revision is {found}; expected "
                f"the 40 hex digits of a commit. See https://huggingface.co/datasets/{given}/commits/main, or type "
                f"git ls-remote https://huggingface.co/datasets/{given} HEAD"
            )
        return None

    def _files(self) -> list[list[Any]]:
        """[path, bytes, time of change] of every file in the folder; empty for the hub."""
        if self._folder is None:
            return []
        found = sorted(path for path in self._folder.rglob("*") if path.is_file())
        return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in found]

    def _splits(self) -> dict[str, str]:
        """Part of the corpus -> name of the split that it is."""
        config = self.config
        given = {ALL: config.train_split, "validation": config.validation_split, "test": config.test_split}
        splits = {part: split for part, split in given.items() if split is not None}
        for part, split in splits.items():
            other = next(name for name, same in splits.items() if same == split)
            if other != part:
                raise DataError(
                    f"{self.where}: {_option(other)} and {_option(part)} are both {split}; expected different splits"
                )
        return splits

    def _rows(self, split: str) -> Any:
        """The rows of a split, in the columns that are needed."""
        if self._loaded is None:
            self._loaded = self._load()
        if split not in self._loaded:
            option = next(_option(part) for part, name in self._splits().items() if name == split)
            raise DataError(
                f"{self.where}: there is no split {split} ({option}); the data set has {', '.join(self._loaded)}"
                f"{did_you_mean(split, self._loaded)}"
            )
        rows = self._loaded[split]
        columns = self._text.columns(rows.data.schema, f"{self.where}, split {split}")
        return rows.select_columns(list(dict.fromkeys(column.path[0] for column in columns)))

    def _load(self) -> dict[str, Any]:
        """Name -> rows of each split."""
        datasets = _library()
        folder = self._folder
        try:
            if folder is not None and any((folder / name).exists() for name in SAVED):
                found = datasets.load_from_disk(str(folder))
            else:
                path = self.config.path if folder is None else str(folder)
                found = datasets.load_dataset(path, self.config.subset, revision=self.config.revision)
        except Exception as error:  # of many kinds; what they say is for the user
            text = " ".join(str(error).split())
            offline = isinstance(error, ConnectionError) or "Offline" in type(error).__name__
            fix = "is the hub within reach? What was loaded before is read without it: HF_HUB_OFFLINE=1"
            raise DataError(
                f"{self.where}: datasets can't load it: {type(error).__name__}: {text}{f'; {fix}' if offline else ''}"
            ) from error
        return dict(found) if isinstance(found, dict) else {str(found.split or "train"): found}


def _option(part: str) -> str:
    return f"data.{'train' if part == ALL else part}_split"


def _library() -> Any:
    """Hugging Face's datasets; it neither draws progress bars nor reports to anyone."""
    for name in ("HF_HUB_DISABLE_TELEMETRY", "HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")
    try:
        import datasets  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        raise DataError('data=hf needs datasets: pip install "lmexp[hf]"') from None
    datasets.disable_progress_bars()
    return datasets
