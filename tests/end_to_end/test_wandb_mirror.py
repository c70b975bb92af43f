"""The offline W&B files of a real run hold its config and every figure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.end_to_end.command import TINY, command, environment, kill_when, lmexp, only_run, rows, write_corpus
from tests.tracking.read_wandb import read_finished

WANDB = tuple(o for o in TINY if o != "logger=files")


def history(run: Path) -> list[dict[str, Any]]:
    """The rows of all W&B files of the run."""
    return [row for path in sorted(run.glob("wandb/offline-run-*/*.wandb")) for row in read_finished(path).history]


def missing(run: Path) -> list[tuple[int, str, Any]]:
    """Values of both files of rows that W&B lacks."""
    mirrored = {(row["step"], key, value) for row in history(run) for key, value in row.items()}
    wanted = [
        (row["step"], key, value)
        for name in ("metrics.jsonl", "timings.jsonl")
        for row in rows(run / name)
        for key, value in row.items()
    ]
    assert len(wanted) > 20
    return [value for value in wanted if value not in mirrored]


def test_the_offline_files_hold_the_config_and_every_value(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    lmexp(tmp_path, "train", *WANDB, "run.name=mirrored", "logger.tags=[a,b]")
    run = only_run(tmp_path / "outputs")
    (path,) = run.glob("wandb/offline-run-*/*.wandb")
    found = read_finished(path)
    assert missing(run) == []
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert {key: found.config[key] for key in config} == config
    assert found.exit_code == 0
    for row in json.loads((run / "report.json").read_text(encoding="utf-8"))["rows"]:
        assert found.summary[f"{row['split']}/{row['name']}"] == row["estimate"]
        key = f"evaluation/{row['name']}"
        assert [found.summary[key + end] for end in ("", "/low", "/high", "/n")] == [
            row[name] for name in ("estimate", "low", "high", "n")
        ]


def test_a_resumed_run_keeps_its_id_and_loses_no_value(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    process = subprocess.Popen(
        command("train", *WANDB, "trainer.max_steps=60"),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        text=True,
    )
    kill_when(process, tmp_path / "outputs", 30, signal.SIGTERM)
    assert process.wait(timeout=60) == 75
    run = only_run(tmp_path / "outputs")
    lmexp(tmp_path, "resume", str(run))
    names = {path.name for path in run.glob("wandb/offline-run-*/*.wandb")}
    assert len(names) == 1
    assert missing(run) == []


def test_a_dead_address_loses_nothing(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    dead = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}
    lmexp(tmp_path, "train", *WANDB, **dead)
    run = only_run(tmp_path / "outputs")
    assert missing(run) == []
    everything = b"".join(path.read_bytes() for path in run.rglob("*") if path.is_file())
    assert dead["WANDB_API_KEY"].encode() not in everything
    assert not os.environ.get("WANDB_API_KEY")
