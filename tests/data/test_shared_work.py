import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from lmexp.data import shared_work
from lmexp.data.shared_work import GoneError, Task, share


def tasks(folder: Path, n: int, made: Counter[str], seconds: float = 0.0) -> list[Task]:
    """n tasks, each of which counts how often it is done."""

    def task(name: str) -> Task:
        def work(beside: Path) -> None:
            made[name] += 1
            time.sleep(seconds)
            (beside / "content").write_text(name)

        return Task(name, folder / name, work)

    return [task(f"task-{i}") for i in range(n)]


def test_each_task_is_done_and_told_once(tmp_path: Path) -> None:
    made: Counter[str] = Counter()
    told: list[str] = []
    for _ in range(2):
        share(tmp_path, tasks(tmp_path, 5, made), patience=1, done=lambda task: told.append(task.name))
    assert made == {f"task-{i}": 1 for i in range(5)}
    assert told == 2 * [f"task-{i}" for i in range(5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(made)  # no claims, nothing temporary
    assert (tmp_path / "task-3" / "content").read_text() == "task-3"


def test_several_share_the_tasks(tmp_path: Path) -> None:
    made: Counter[str] = Counter()
    told: list[list[str]] = [[] for _ in range(4)]

    def run(names: list[str]) -> None:
        share(tmp_path, tasks(tmp_path, 20, made, 0.01), patience=10, done=lambda task: names.append(task.name))

    threads = [threading.Thread(target=run, args=(names,)) for names in told]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == {f"task-{i}": 1 for i in range(20)}
    assert all(sorted(names) == sorted(made) for names in told)


def test_a_claim_that_stands_still_is_taken_over(tmp_path: Path) -> None:
    made: Counter[str] = Counter()
    (tmp_path / "task-1.claim").write_bytes(b"a process that was killed")
    (tmp_path / "task-2.claim").touch()  # killed before it wrote a byte
    start = time.monotonic()
    share(tmp_path, tasks(tmp_path, 3, made), patience=0.3)
    assert time.monotonic() - start >= 0.3
    assert made == {f"task-{i}": 1 for i in range(3)}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(made)


def test_a_living_claim_is_not_taken_over(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shared_work, "HEARTBEAT", 0.05)
    made: Counter[str] = Counter()
    slow = threading.Thread(target=share, args=(tmp_path, tasks(tmp_path, 1, made, 1.5)), kwargs={"patience": 0.5})
    slow.start()
    while not (tmp_path / "task-0.claim").exists():
        time.sleep(0.01)
    share(tmp_path, tasks(tmp_path, 1, made), patience=0.5)
    slow.join()
    assert made == {"task-0": 1}


def test_an_error_gives_the_claim_back(tmp_path: Path) -> None:
    def fail(beside: Path) -> None:
        (beside / "half").touch()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        share(tmp_path, [Task("task-0", tmp_path / "task-0", fail)], patience=1)
    assert list(tmp_path.iterdir()) == []


def test_a_result_that_another_made_meanwhile_is_kept(tmp_path: Path) -> None:
    result = tmp_path / "task-0"

    def slower(beside: Path) -> None:
        (beside / "mine").touch()
        result.mkdir()
        (result / "other").touch()

    share(tmp_path, [Task("task-0", result, slower)], patience=1)
    assert [path.name for path in tmp_path.iterdir()] == ["task-0"]
    assert [path.name for path in result.iterdir()] == ["other"]


def test_a_folder_that_was_removed_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    with pytest.raises(GoneError):
        share(folder, tasks(folder, 1, Counter()), patience=1)
    folder.mkdir()
    (folder / "task-0.claim").touch()
    threading.Timer(0.2, lambda: ((folder / "task-0.claim").unlink(), folder.rmdir())).start()
    with pytest.raises(GoneError):
        share(folder, tasks(folder, 1, Counter()), patience=10)
