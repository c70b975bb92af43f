"""A hundred commands of the same name, started in the same instant: a hundred whole run folders."""

from __future__ import annotations

import multiprocessing
import os
from datetime import datetime
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from lmexp.config.compose import Composed, compose
from lmexp.config.freeze import plain_config, read_record
from lmexp.runs import folder
from lmexp.runs.start import start
from tests.end_to_end.command import TINY, json_file, write_corpus

PARENTS = 100
NOON = datetime(2026, 1, 1, 12, 0, 0)
SECONDS = 240.0


class Noon(datetime):
    """A clock that stands still, so that all parents have the same second."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return NOON if tz is None else NOON.replace(tzinfo=tz)


def parent(composed: Composed, barrier: Barrier) -> None:
    """What `lmexp train` does up to the frozen run.json, once all others are as far."""
    barrier.wait(SECONDS)
    begin(composed)


def begin(composed: Composed) -> None:
    """Make a run."""
    start(composed.config, plain_config(composed.node), composed.overrides, lambda _: None)


def everything(root: Path) -> set[str]:
    """Files and folders, by their path below root."""
    return {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_hundred_parents_make_a_hundred_run_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.utime(write_corpus(tmp_path), (NOON.timestamp(), NOON.timestamp()))  # what has just changed is read each time
    composed = compose([*TINY, "run.name=same"])
    first = compose([*TINY, "run.root=first", "data.cache_dir=outputs/cache"])
    begin(first)  # so that the cache is made and everything imported
    cache = everything(tmp_path / "outputs" / "cache")
    monkeypatch.setattr(folder, "datetime", Noon)
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(PARENTS)
    processes = [fork.Process(target=parent, args=(composed, barrier)) for _ in range(PARENTS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
    assert [process.exitcode for process in processes] == [0] * PARENTS

    runs = sorted((tmp_path / "outputs" / "same").iterdir())
    assert len(runs) == PARENTS
    records = [read_record(run) for run in runs]
    assert [record.run_id for record in records] == [run.name for run in runs]
    assert {run.name[:21] for run in runs} == {"20260101-120000-same-"}
    assert len({record.wandb_id for record in records}) == PARENTS
    assert all(record.config == composed.config for record in records)
    assert len({tuple(record.data_fingerprints) for record in records}) == 1
    whole = {"run.json", "config.yaml", "state.json", "tokenizer.json", "logs", "checkpoints", "evaluation"}
    for run in runs:
        assert everything(run) == whole
        assert json_file(run / "state.json")["state"] == "created"
    assert sorted(os.listdir(tmp_path / "outputs")) == ["cache", "same"]
    assert everything(tmp_path / "outputs" / "cache") == cache


def test_a_folder_of_the_same_random_name_is_not_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in 16 million: the second one draws again."""
    drawn = iter(["aaaaaa", "aaaaaa", "bbbbbb"])
    monkeypatch.setattr(folder, "datetime", Noon)
    token_hex = folder.secrets.token_hex
    monkeypatch.setattr(folder.secrets, "token_hex", lambda n: next(drawn) if n == 3 else token_hex(n))
    made = [folder.create(tmp_path, "same", "same").name for _ in range(2)]
    assert made == ["20260101-120000-same-aaaaaa", "20260101-120000-same-bbbbbb"]
