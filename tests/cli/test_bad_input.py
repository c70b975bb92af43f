"""What a user gets wrong: exit code 2 and a message that says where and how to mend it; nothing half-made is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from lmexp.cli.main import main
from lmexp.runs import folder as run_folder
from tests.end_to_end.command import TINY, command, environment, json_file, lmexp, only_run, write_corpus

SHORTEST = ("trainer.max_steps=1", "evaluation=[]", "launcher.threads_per_process=1")

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with corpus.txt."""
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path)
    return tmp_path


def refused(capsys: Captured, *typed: str) -> str:
    """The message of a command that ends with 2."""
    assert main([*typed]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error:\n  ")
    assert "Traceback" not in captured.err
    return captured.err


def no_run(folder: Path) -> bool:
    """Whether there is nothing below outputs/ but caches."""
    return not [path for path in folder.glob("outputs/*") if path.name != "cache"]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("model.n_layres=3", "did you mean n_layer?"),
        ("model.n_layer=two", "expected a whole number, got 'two'"),
        ("model.n_head=3", "model.d_model (16) must be divisible by model.n_head (3); try model.n_head=2"),
        ("data.batch_size=0", "data.batch_size is 0; expected at least 1"),
        ("trainer.accumulate_grad_batches=3", "try data.batch_size=9"),
        ("data.validation_fraction=0.9", "data.validation_fraction (0.9)"),
        ("callbacks=[early_stopping] data.validation_fraction=0", "leaves nothing to validate on"),
    ],
)
def test_a_wrong_config_leaves_nothing(typed: str, told: str, capsys: Captured) -> None:
    # 0.9 and the default test share are below 1 together: make it impossible
    more = ["data.test_fraction=0.2"] if typed.startswith("data.validation_fraction") else []
    assert told in refused(capsys, "train", *TINY, *typed.split(), *more)
    assert sorted(os.listdir()) == ["corpus.txt"]


CORPORA = {
    "empty.txt": b"",
    "blank.txt": b"\n \n\n",
    "binary.txt": bytes(range(256)),
    "latin1.txt": "déjà vu\n".encode("latin1"),
    "folder/notes.md": b"text",
}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("corpsu.txt", ["data.path=corpsu.txt", "there is no corpsu.txt in", "did you mean corpus.txt?"]),
        ("nowhere/corpus.txt", ["there is no nowhere in"]),
        ("corpus.txt/more", ["corpus.txt is a file, not a folder"]),
        ("*.md", ["data.path=*.md: no file matches this glob"]),
        ("folder", ["no file in this folder matches data.pattern=*.txt", "there are *.md"]),
        ("empty.txt", ["empty.txt", "no text was found"]),
        ("blank.txt", ["no text was found"]),
        ("binary.txt", ["no text was found", "binary.txt, line 1: NUL byte: ", "leave it out"]),
        ("latin1.txt", ["no text was found", "latin1.txt, line 1: not UTF-8: byte 1 is 0xe9", "iconv -f latin1"]),
    ],
)
def test_a_corpus_that_cant_be_read_leaves_nothing(folder: Path, path: str, told: list[str], capsys: Captured) -> None:
    for name, content in CORPORA.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    before = {found for found in folder.rglob("*") if found.is_file()}
    said = refused(capsys, "train", *TINY, f"data.path={path}")
    for part in told:
        assert part in said
    left = {found for found in folder.rglob("*") if found.is_file()} - before
    assert all(found.is_relative_to(folder / "outputs/cache/corpora") for found in left), "what was read is remembered"
    assert no_run(folder)


@pytest.mark.usefixtures("folder")
def test_a_corpus_that_isnt_given(capsys: Captured) -> None:
    assert "data.path is not set; say which text to read, e.g. data.path=" in refused(
        capsys, "train", "data=text_files"
    )
    assert sorted(os.listdir()) == ["corpus.txt"]


def test_a_text_shorter_than_a_window_says_which_length_fits(folder: Path, capsys: Captured) -> None:
    (folder / "short.txt").write_text("hello there\nabc def\nxyz\n" * 3)
    said = refused(capsys, "train", *TINY, "data.path=short.txt")
    fits = said.partition("use data.sequence_length=")[2].split()[0]
    assert "data.sequence_length=16 needs at least 16 training tokens" in said
    assert no_run(folder)
    assert main(["train", *TINY, "data.path=short.txt", f"data.sequence_length={fits}", *SHORTEST]) == 0


def test_short_documents_are_no_error_where_the_text_is_long_enough(folder: Path) -> None:
    (folder / "lines.txt").write_text("".join(f"{i}\n" for i in range(400)))
    assert main(["train", *TINY, "data.path=lines.txt", *SHORTEST]) == 0


@pytest.mark.parametrize("root", ["corpus.txt", "corpus.txt/below"])
def test_outputs_that_cant_be_written(
    folder: Path, root: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    for typed in ([f"run.root={root}"], []):
        said = refused(capsys, "train", *TINY, *typed)
        assert f"run.root={root}: expected a folder for runs, but {folder / 'corpus.txt'} is a file" in said
        assert "choose a folder that you can write to with run.root=... or LMEXP_OUTPUTS" in said
        monkeypatch.setenv("LMEXP_OUTPUTS", root)
    assert sorted(os.listdir()) == ["corpus.txt"]


@pytest.mark.usefixtures("folder")
def test_a_cache_that_cant_be_written(capsys: Captured) -> None:
    said = refused(capsys, "train", *TINY, "data.cache_dir=corpus.txt")
    assert "can't write the token cache in corpus.txt" in said
    assert "choose another folder with data.cache_dir=FOLDER" in said
    assert sorted(os.listdir()) == ["corpus.txt"]


def run_argument(name: str, path: str) -> list[str]:
    """The arguments that name a run."""
    return [name, f"run={path}"] if name in ("evaluate", "generate") else [name, path]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ["resume", "evaluate", "generate", "report"])
def test_a_path_that_is_no_run(name: str, capsys: Captured) -> None:
    assert "there is no such run folder; `lmexp runs` lists them" in refused(capsys, *run_argument(name, "nowhere"))
    for path in (".", "corpus.txt"):
        assert "not a run folder, it holds no run.json" in refused(capsys, *run_argument(name, path))
    assert sorted(os.listdir()) == ["corpus.txt"]


def test_a_run_without_a_checkpoint_and_a_step_that_isnt_there(folder: Path, capsys: Captured) -> None:
    lmexp(folder, "train", *TINY, "optimizer.lr=1e30", "logger.log_every_n_steps=1", code=1)
    run = only_run(folder / "outputs")
    assert json_file(run / "state.json")["state"] == "failed"
    assert "diverged" in lmexp(folder, "runs").stdout
    for name in ("evaluate", "generate"):
        assert "checkpoint" in refused(capsys, *run_argument(name, str(run)))
        assert "77" in refused(capsys, *run_argument(name, str(run)), "weights=77")
        said = refused(capsys, *run_argument(name, f"{run}x"))
        assert f"did you mean {run.name}?" in said


def test_a_damaged_run_is_told_by_every_command_and_listed_as_unreadable(folder: Path, capsys: Captured) -> None:
    run = run_folder.create(folder / "outputs", "x", "x")
    (run / "run.json").write_text('{"format": "lmexp.run", "version": 7}')
    for name in ("resume", "evaluate", "generate", "report"):
        assert "run.json: expected format 'lmexp.run' version 3, got 'lmexp.run' version 7" in refused(
            capsys, *run_argument(name, str(run))
        )
    assert main(["runs"]) == 0
    assert "unreadable" in capsys.readouterr().out
    assert json_file(run / "state.json")["state"] == "created"


def started(folder: Path, *typed: str, **more: str) -> subprocess.Popen[str]:
    """A command in its own process, whose output can be read as it comes."""
    return subprocess.Popen(
        command(*typed, plugins=("slow_pkg",) if (folder / "slow_pkg.py").exists() else ()),
        cwd=folder,
        env=environment(PYTHONUNBUFFERED="1", **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    )


def hear_ctrl_c() -> None:
    """Undo what a shell does to its background jobs: they, and so their children, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Read the output up to a line that holds the text."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"{text!r} was never said; {process.communicate()[1]}")


def test_ctrl_c_while_data_is_prepared_leaves_no_run_and_no_half_made_cache(folder: Path) -> None:
    process = started(folder, "train", "tokenizer=word", "logger=files")
    wait_for(process, "training tokenizer word")
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "Traceback" not in said
    assert no_run(folder)
    assert not list(folder.glob("outputs/cache/*/cache.json"))


SLOW_PKG = """
import time
import pytorch_lightning as pl

class Slow(pl.Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 6:
            print("stuck", flush=True)
            time.sleep({seconds})
"""
SLOW = ("callbacks=[custom]", "callbacks.custom.target=slow_pkg:Slow")


def test_ctrl_c_saves_a_second_one_stops_at_once_and_both_can_be_resumed(folder: Path) -> None:
    (folder / "slow_pkg.py").write_text(SLOW_PKG.format(seconds=60))
    process = started(folder, "train", *TINY, *SLOW)
    wait_for(process, "stuck")
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)  # the first one waits for the step to end
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    run = only_run(folder / "outputs")
    assert json_file(run / "state.json")["state"] == "interrupted"
    assert f"stopped; go on with: lmexp -p slow_pkg resume {run.relative_to(folder)}" in output

    (folder / "slow_pkg.py").write_text(SLOW_PKG.format(seconds=0.5))
    process = started(folder, "resume", str(run))
    wait_for(process, "going on from step 5")
    wait_for(process, "stuck")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    state = json_file(run / "state.json")
    assert (state["state"], state["step"]) == ("interrupted", 6)

    (folder / "slow_pkg.py").write_text(SLOW_PKG.format(seconds=0))
    assert "going on from step 6" in lmexp(folder, "resume", str(run), plugins=("slow_pkg",)).stdout
    assert json_file(run / "state.json")["state"] == "done"
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 12
