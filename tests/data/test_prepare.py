"""Several processes prepare a corpus: they help each other, and whoever is killed harms nobody."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmexp.data import building, shared_work, worker
from lmexp.data.cache import TokenCache, prepare
from lmexp.data.config import MixtureConfig
from lmexp.tokenizers.config import ByteTokenizerConfig, CharTokenizerConfig, WordTokenizerConfig
from tests.data.preparing import contents, finish, start

TOKENIZER = {"kind": "word", "min_frequency": 1}
"""Learns from all of the text, and its tokens don't tell their bytes: every kind of file is written."""


@pytest.fixture
def corpus(write_pieces) -> dict[str, Any]:
    """Settings of a corpus with all that a cache can hold."""
    documents: list[Any] = [f"document {i} {'naïve ' * (i % 5)}" for i in range(60)]
    documents[7:7] = [{"bad": "odd: seven"}, documents[3], {"bad": "empty"}, "x"]
    return {
        "path": write_pieces(documents, validation=[f"held out {i}" for i in range(9)]),
        "split": "tail",
        "test_fraction": 0.1,
        "min_characters": 2,
        "drop_duplicates": True,
        "sequence_length": 4,
        "windows": "packed",
    }


@pytest.fixture
def undisturbed(corpus, prepare_pieces, tmp_path: Path) -> dict[str, bytes]:
    """The files of the cache, made by one process in one go."""
    settings = corpus | {"unit_lines": 1000, "prepare_workers": 1, "cache_dir": str(tmp_path / "undisturbed")}
    return contents(prepare_pieces(corpus["path"], WordTokenizerConfig(min_frequency=1), **settings).path)


def assert_complete(root: Path, expected: dict[str, bytes]) -> None:
    """The cache is the expected one, and nothing else was left but the survey."""
    (path,) = [path for path in root.iterdir() if path.name != "corpora"]
    assert contents(path) == expected
    assert TokenCache(path).fingerprint[:16] == path.name
    assert [len(path.name) for path in (root / "corpora").iterdir()] == [16]


@pytest.mark.parametrize(("n_workers", "unit_lines"), [(1, 1), (2, 3), (3, 7), (2, 64)])
def test_workers_and_units_make_no_difference(
    corpus, undisturbed, tmp_path: Path, n_workers: int, unit_lines: int
) -> None:
    changes = {"prepare_workers": n_workers, "unit_lines": unit_lines}
    finish(start(corpus | changes, TOKENIZER, tmp_path / "cache"))
    assert_complete(tmp_path / "cache", undisturbed)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("n", [2, 3])
def test_processes_at_the_same_time_end_with_one_cache(
    corpus, undisturbed, tmp_path: Path, n: int, known: bool
) -> None:
    settings = corpus | {"prepare_workers": 1, "unit_lines": 2, "seconds": 0.002, "known": known}
    for process in [start(settings, TOKENIZER, tmp_path / "cache", patience=10) for _ in range(n)]:
        finish(process)
    if known:
        assert_complete(tmp_path / "cache", undisturbed)
    else:
        assert [path.name for path in (tmp_path / "cache" / "corpora").iterdir()] == []


def test_the_same_documents_in_other_files_share_the_work(corpus, undisturbed, write_pieces, tmp_path: Path) -> None:
    """A process with the same documents in other units joins in: the results bear the names of the documents."""
    settings = corpus | {"prepare_workers": 1, "seconds": 0.002}
    processes = [start(settings | {"unit_lines": n}, TOKENIZER, tmp_path / "cache", patience=10) for n in (2, 3)]
    for process in processes:
        finish(process)
    (path,) = [path for path in (tmp_path / "cache").iterdir() if path.name != "corpora"]
    assert contents(path) == undisturbed


def kill_and_finish(
    settings: dict[str, Any], root: Path, kill: Callable[[subprocess.Popen[str]], None], rng: random.Random, times: int
) -> None:
    """Start to prepare and kill it after a random time, several times; then let one finish."""
    for _ in range(times):
        process = start(settings, TOKENIZER, root, start_new_session=True)
        time.sleep(rng.uniform(0.3, 1.5))
        kill(process)
        process.communicate()
    finish(start(settings, TOKENIZER, root))


def kill_all(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)


def kill_parent(process: subprocess.Popen[str]) -> None:
    process.kill()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_kill_at_a_random_moment_leaves_no_trace(corpus, undisturbed, tmp_path: Path, seed: int) -> None:
    settings = corpus | {"prepare_workers": 2, "unit_lines": 2, "seconds": 0.004}
    kill_and_finish(settings, tmp_path / "cache", kill_all, random.Random(seed), times=5)
    assert_complete(tmp_path / "cache", undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kill", [kill_all, kill_parent])
def test_fifty_kills_leave_no_trace(corpus, undisturbed, tmp_path: Path, kill) -> None:
    rng = random.Random(0)
    for i in range(50):
        settings = corpus | {"prepare_workers": rng.choice([1, 2, 3]), "unit_lines": 2, "seconds": 0.004}
        root = tmp_path / f"cache-{i}"
        kill_and_finish(settings, root, kill, rng, times=1)
        assert_complete(root, undisturbed)


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def eventually(found: Callable[[], Any]) -> Any:
    """What found() gives as soon as it gives something."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(0.01)
    raise AssertionError("it never came about")


def test_a_killed_worker_is_no_loss(corpus, undisturbed, tmp_path: Path) -> None:
    settings = corpus | {"prepare_workers": 3, "unit_lines": 1, "seconds": 0.02}
    process = start(settings, TOKENIZER, tmp_path / "cache")
    first, second = eventually(lambda: (found := children(process.pid)) and len(found) == 2 and found)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: list(tmp_path.glob("cache/corpora/.*/*.claim")))
    os.kill(second, signal.SIGSTOP)  # as good as dead: its claim stands still, and it reads nothing more
    finish(process)
    assert_complete(tmp_path / "cache", undisturbed)
    assert not Path(f"/proc/{second}").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent(corpus, tmp_path: Path, number: signal.Signals) -> None:
    process = start(corpus | {"prepare_workers": 3, "seconds": 0.2}, TOKENIZER, tmp_path / "cache")
    workers = eventually(lambda: (found := children(process.pid)) and len(found) == 2 and found)
    process.send_signal(number)
    process.communicate(timeout=30)
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def test_workers_do_their_share_with_a_kind_of_a_trusted_package(corpus, pieces, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(worker, "WORKERS_FROM_BYTES", 0)
    settings = corpus | {"unit_lines": 2, "seconds": 0.02}
    config = pieces.PiecesConfig(**settings | {"prepare_workers": 3})
    prepare(config, ByteTokenizerConfig(), cache_root=tmp_path / "cache")
    alone = len(pieces.PiecesConfig(**settings).source().units())
    assert 0 < len(pieces.reads) < 2 * alone  # this process's share of the survey and of the tokens


def test_workers_share_a_mixture(corpus, write_pieces, pieces, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(worker, "WORKERS_FROM_BYTES", 0)
    other = write_pieces([f"another {i}" for i in range(50)], "other")
    source = {name: value for name, value in corpus.items() if name not in ("sequence_length", "windows")}
    parts = {
        "one": pieces.PiecesConfig(**source | {"seconds": 0.005}),
        "two": pieces.PiecesConfig(path=other, validation_fraction=0.2, test_fraction=0.2, seconds=0.005),
    }
    found = []
    for n in (1, 3):
        pieces.reads.clear()
        config = MixtureConfig(parts=parts, sequence_length=4, prepare_workers=n)
        cache = prepare(config, WordTokenizerConfig(min_frequency=1), cache_root=tmp_path / str(n))
        found.append((len(pieces.reads), contents(cache.path)))
    assert found[0][1] == found[1][1]
    assert found[0][0] > found[1][0]


def test_workers_are_not_started_where_they_would_be_of_no_use(corpus, pieces, tmp_path: Path, monkeypatch) -> None:
    def refuse(crew: object) -> None:
        raise AssertionError("a worker is started")

    monkeypatch.setattr(worker.Crew, "_start", refuse)
    prepare(pieces.PiecesConfig(**corpus), ByteTokenizerConfig(), cache_root=tmp_path / "little text")
    monkeypatch.setattr(worker, "WORKERS_FROM_BYTES", 0)
    one = pieces.PiecesConfig(**corpus | {"prepare_workers": 1})
    prepare(one, ByteTokenizerConfig(), cache_root=tmp_path / "one process")
    many = pieces.PiecesConfig(**corpus | {"prepare_workers": 4})
    with monkeypatch.context() as patch:
        patch.setattr(worker.plugins, "_trusted", {})
        prepare(many, ByteTokenizerConfig(), cache_root=tmp_path / "class that a worker wouldn't find")


def test_a_script_without_a_guard_can_prepare(tmp_path: Path, lines_file: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from lmexp.data import worker\n"
        "from lmexp.data.cache import prepare\n"
        "from lmexp.data.config import TextFilesConfig\n"
        "from lmexp.tokenizers.config import ByteTokenizerConfig\n"
        "print('begins', flush=True)\n"
        "worker.WORKERS_FROM_BYTES = 0\n"
        f"data = TextFilesConfig(path={str(lines_file)!r}, document='line', prepare_workers=3, sequence_length=4)\n"
        f"prepare(data, ByteTokenizerConfig(), cache_root=Path({str(tmp_path / 'cache')!r}))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "begins\n", "")


def test_a_worker_needs_no_torch_and_no_hydra() -> None:
    code = "import sys, lmexp.data.worker; print([m for m in ('torch', 'hydra', 'omegaconf') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_what_a_process_left_that_was_killed_just_after_the_last_rename_is_removed(
    corpus, undisturbed, prepare_pieces, tmp_path: Path
) -> None:
    prepare_pieces(corpus["path"], WordTokenizerConfig(min_frequency=1), **corpus)
    root = tmp_path / "cache"
    code = building._code(WordTokenizerConfig(min_frequency=1))
    for path, more in [
        *((path, f"-{code}") for path in root.iterdir()),
        *((p, "") for p in (root / "corpora").iterdir()),
    ]:
        if len(path.name) == 16:
            (path.with_name(f".{path.name}{more}.partial") / "0-0-4").mkdir(parents=True)
    prepare_pieces(corpus["path"], WordTokenizerConfig(min_frequency=1), **corpus)
    assert_complete(root, undisturbed)


def test_what_others_left_unfinished_long_ago_is_removed(corpus, prepare_pieces, tmp_path: Path) -> None:
    old = [tmp_path / "cache" / ".0123456789abcdef.partial", tmp_path / "cache" / "corpora" / ".89abcdef01234567.gone"]
    new = tmp_path / "cache" / ".aaaaaaaaaaaaaaaa-bbbbbbbb.partial"
    not_ours = tmp_path / "cache" / ".git"  # data.cache_dir may be any folder
    for path in (*old, new, not_ours):
        path.mkdir(parents=True)
        (path / "task.claim").touch()
    for path in (*old, not_ours):
        os.utime(path / "task.claim", (1_000_000_000, 1_000_000_000))
        os.utime(path, (1_000_000_000, 1_000_000_000))
    prepare_pieces(corpus["path"])
    assert not any(path.exists() for path in old)
    assert new.exists()
    assert (not_ours / "task.claim").exists()


def test_a_folder_that_is_removed_again_and_again_is_told(corpus, prepare_pieces, monkeypatch) -> None:
    def gone(*args: object, **options: object) -> None:
        raise shared_work.GoneError

    monkeypatch.setattr("lmexp.data.surveying.share", gone)
    with pytest.raises(ValueError, match="was removed again and again while it was made"):
        prepare_pieces(corpus["path"], CharTokenizerConfig())


MEASURED = """
import sys
from pathlib import Path
from lmexp.data.cache import prepare
from lmexp.data.config import JsonLinesConfig
from lmexp.data.config import MixtureConfig
from lmexp.tokenizers.config import BPETokenizerConfig

data = JsonLinesConfig(path=sys.argv[1], prepare_workers=2)
prepare(data, BPETokenizerConfig(vocab_size=2048), cache_root=Path(sys.argv[2]))
"""


def family(pid: int) -> list[int]:
    return [pid, *(found for child in children(pid) for found in family(child))]


def resident(pid: int) -> int:
    """Bytes of resident memory, that of files and shared memory included."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """The peak of all processes together, while the tokenizer learns from all it asks for in both cases."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(5000)]
    lines = ['{"text": "' + " ".join(rng.choices(words, k=rng.randint(5, 400))) + '"}\n' for _ in range(1000)]
    peaks = []
    for megabytes in (150, 600):
        path = tmp_path / f"{megabytes}.jsonl"
        with path.open("w") as file:
            while file.tell() < megabytes * 1e6:
                rng.shuffle(lines)
                file.write("".join(line[:10] + str(rng.random()) + line[10:] for line in lines))
        command = [sys.executable, "-c", MEASURED, str(path), str(tmp_path / f"cache-{megabytes}")]
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
        peak = 0
        while process.poll() is None:
            peak = max(peak, sum(resident(pid) for pid in family(process.pid)))
            time.sleep(0.02)
        assert process.returncode == 0
        peaks.append(peak)
        path.unlink()
    assert peaks[1] < 1.5e9
    assert peaks[1] < 1.2 * peaks[0]
