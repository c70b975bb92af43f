"""What a save asks of the kernel, in which order; and kill -9 between any two of its system calls."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.end_to_end.command import TINY, command, environment, only_run, write_corpus
from tests.torture.program import need_strace, torture
from tests.torture.saves import CALLS


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_60_kills_at_a_system_call_leave_whole_files_and_nothing_else() -> None:
    need_strace()
    assert "saves: 60 hits" in torture("saves")


RENAMES = "rename renameat renameat2"
WRITES = "write pwrite64 ftruncate"


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that succeeded: when, which, and the paths that it names."""

    at: int
    name: str
    paths: tuple[str, ...]
    text: str


def read_trace(path: Path) -> list[Call]:
    """The calls in the order in which they ended; those that others interrupted are put together again."""
    begun: dict[str, str] = {}
    found: list[Call] = []
    for line in path.read_text(errors="replace").splitlines():
        process, _, text = line.partition(" ")
        text = text.strip()
        if text.endswith("<unfinished ...>"):
            begun[process] = text.removesuffix("<unfinished ...>")
            continue
        resumed = re.match(r"<\.\.\. \w+ resumed>(.*)", text)
        if resumed is not None:
            text = begun.pop(process, "") + resumed[1]
        call = re.match(r"(\w+)\((.*)\)\s+= (\d+)", text)
        if call is not None:
            paths = re.findall(r'"([^"]*)"|\d<([^>]*)>', call[2])
            found.append(Call(len(found), call[1], tuple(a or b for a, b in paths), text))
    return found


@pytest.mark.slow
def test_a_save_syncs_files_then_renames_then_syncs_the_folder_and_then_moves_latest(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    trace = tmp_path / "trace"
    typed = command("train", *TINY, "checkpoint.keep=all", "logger.log_every_n_steps=1")
    strace = [need_strace(), "-f", "-y", "-s", "500", "-o", str(trace), "-e", f"trace={CALLS}"]
    subprocess.run([*strace, *typed], cwd=tmp_path, env=environment(), check=True, capture_output=True, timeout=300)
    root = only_run(tmp_path / "outputs").absolute() / "checkpoints"
    calls = read_trace(trace)
    saved = [folder for folder in sorted(root.iterdir()) if folder.is_dir()]
    assert [folder.name for folder in saved][-1] == "step-00000012"
    for folder in saved:
        check_order(calls, root, folder)


def check_order(calls: list[Call], root: Path, folder: Path) -> None:
    """A power cut at any time leaves LATEST naming a checkpoint that is whole on the disk."""

    def when(names: str, path: Path, after: int = -1, before: int = len(calls), text: str = "") -> list[int]:
        """When a call named the path as its last, or wrote to it."""
        wanted = names.split()
        within = [c for c in calls[after + 1 : before] if c.name in wanted and text in c.text and c.paths]
        return [c.at for c in within if (c.paths[0] if c.name in WRITES else c.paths[-1]) == str(path)]

    placed = calls[when(RENAMES, folder)[0]]
    building = Path(placed.paths[0])
    assert building.parent == root
    complete = 0
    for name in ("model.safetensors", "state.pt", "manifest.json"):
        moved = when(RENAMES, building / name, before=placed.at)  # a file may be written under another name
        paths = [building / name, *(Path(calls[at].paths[0]) for at in moved)]
        created = [at for path in paths for at in when("openat", path, text="O_CREAT")]
        written = [at for path in paths for at in when(WRITES, path)]
        synced = [at for path in paths for at in when("fsync fdatasync", path, before=placed.at)]
        assert created and written and synced, f"{name} isn't synced before its folder is renamed"
        assert max(synced) > max(written), f"{name} is written to after it is synced"
        complete = max(complete, *created, *moved)
    assert when("fsync", building, complete, placed.at), "the new folder isn't synced before it is renamed"
    in_place = when("fsync", root, placed.at)
    assert in_place, "the folder of the checkpoints isn't synced after the rename"
    latest = calls[when(RENAMES, root / "LATEST", placed.at)[0]]
    pointer = Path(latest.paths[0])
    (begun,) = when("openat", pointer, text="O_CREAT")
    assert in_place[0] < begun, "LATEST is begun before the checkpoint is in its place for good"
    assert when("fsync", pointer, begun, latest.at), "LATEST isn't synced before it is renamed"
    assert when("fsync", root, latest.at), "the folder isn't synced after LATEST has moved"
    rows = root.parent / "metrics.jsonl"
    written = [
        at for at in when(WRITES, rows, before=latest.at) if f'"step\\": {int(folder.name[5:])},' in calls[at].text
    ]
    assert written and when("fsync", rows, max(written), latest.at), "LATEST is younger than rows that aren't synced"
