"""Reads offline .wandb files, to see what the mirror really wrote.

A file is the 7 bytes b":W&B", u16 0xBEE1, u8 version, then records in blocks of 32 KiB, as LevelDB writes its
log: u32 checksum, u16 length, u8 kind (1 whole, 2 first, 3 middle, 4 last part), payload. The payload is
a protobuf Record.
"""

from __future__ import annotations

import importlib
import json
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32 * 1024
HEADER = struct.Struct("<4sHB")
PART = struct.Struct("<IHB")
WHOLE, LAST = 1, 4
SECONDS = 20.0


@dataclass
class OfflineRun:
    """What one .wandb file holds."""

    id: str = ""
    project: str = ""
    name: str = ""
    group: str = ""
    tags: list[str] = field(default_factory=list)
    resume: bool = False
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    """Rows without wandb's own keys, which begin with an underscore."""
    summary: dict[str, Any] = field(default_factory=dict)
    step_metrics: dict[str, str] = field(default_factory=dict)
    """Metric or pattern -> its x axis."""
    artifacts: list[Artifact] = field(default_factory=list)
    exit_code: int | None = None

    @property
    def tables(self) -> list[Artifact]:
        """Those that wandb makes of each table that is logged."""
        return [artifact for artifact in self.artifacts if artifact.type == "run_table"]


@dataclass
class Artifact:
    """Files that an upload will send together."""

    name: str
    type: str
    files: dict[str, Path]
    """Path in the artifact -> the file that is sent."""


def read_all(folder: Path, *, killed: int = 0) -> list[OfflineRun]:
    """The offline runs in a folder RUN/wandb, oldest first; the first `killed` of them were never finished."""
    paths = sorted(folder.glob("offline-run-*/*.wandb"), key=lambda p: p.stat().st_ctime_ns)
    return [read(path) for path in paths[:killed]] + [read_finished(path) for path in paths[killed:]]


def read_finished(path: Path) -> OfflineRun:
    """The content of the .wandb file of a run that was finished.

    wandb's service writes the last block and closes the file after finish() has returned in our process.
    """
    deadline = time.monotonic() + SECONDS
    while (run := read(path)).exit_code is None:
        assert time.monotonic() < deadline, f"{path} holds no exit record after {SECONDS:g} s"
        time.sleep(0.01)
    return run


def read(path: Path) -> OfflineRun:
    """The content of one .wandb file, as far as it is complete."""
    run = OfflineRun()
    for record in records(path):
        match record.WhichOneof("record_type"):
            case "run":
                proto = record.run
                run.id, run.project, run.name, run.group = (
                    proto.run_id,
                    proto.project,
                    proto.display_name,
                    proto.run_group,
                )
                run.tags, run.resume = list(proto.tags), proto.resume
                run.config |= _values(proto.config.update)
            case "config":
                run.config |= _values(record.config.update)
            case "history":
                row = _values(record.history.item)
                run.history.append({k: v for k, v in row.items() if not k.startswith("_")})
            case "summary":
                run.summary |= _values(record.summary.update)
            case "metric":
                run.step_metrics[record.metric.name or record.metric.glob_name] = record.metric.step_metric
            case "artifact":
                proto = record.artifact
                files = {entry.path: Path(entry.local_path) for entry in proto.manifest.contents}
                run.artifacts.append(Artifact(proto.name, proto.type, files))
            case "exit":
                run.exit_code = record.exit.exit_code
    return run


def _values(items: Any) -> dict[str, Any]:
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def records(path: Path) -> Iterator[Any]:
    """The protobuf records of one .wandb file, as far as it is complete."""
    wandb_internal_pb2: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    content = path.read_bytes()
    magic, number, _ = HEADER.unpack_from(content)
    assert (magic, number) == (b":W&B", 0xBEE1), content[:7]
    position, payload = HEADER.size, b""
    while position + PART.size <= len(content):
        left_in_block = BLOCK - position % BLOCK
        if left_in_block < PART.size:  # padding: too short for the head of a part
            position += left_in_block
            continue
        checksum, length, kind = PART.unpack_from(content, position)
        position += PART.size
        part = content[position : position + length]
        if kind == 0 or zlib.crc32(bytes([kind]) + part) != checksum:  # not written to its end
            return
        payload += part
        position += length
        if kind in (WHOLE, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(payload)
            payload = b""
            yield record
