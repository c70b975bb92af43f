"""A run goes on with more steps, on other devices, and as the beginning of another run."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch

import lmexp
from lmexp.cli.main import main
from lmexp.config.freeze import read_record
from lmexp.training import checkpoints
from tests.end_to_end.command import TINY, command, environment, json_file, only_run, rows, write_corpus
from tests.end_to_end.command import lmexp as run_lmexp
from tests.end_to_end.test_resume import kill_when, same_result

CONSTANT = ("scheduler=constant", "model.dropout=0.2", "launcher.threads_per_process=1")
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run that is done at step 30, of a constant learning rate."""
    folder = tmp_path_factory.mktemp("finished")
    write_corpus(folder)
    run_lmexp(folder, "train", *TINY, *CONSTANT, "trainer.max_steps=30")
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a copy of `finished`."""
    shutil.copytree(finished, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    path = only_run(Path("outputs")) / "run.json"
    path.write_text(path.read_text().replace(f'"cwd": "{finished}"', f'"cwd": "{tmp_path / "here"}"'))
    return tmp_path / "here"


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a run but the lock, which is taken to look at it."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def refused(capsys: Captured, *typed: str) -> str:
    """The message of a command that ends with 2."""
    assert main([*typed]) == 2
    return capsys.readouterr().err


def test_thirty_steps_and_thirty_more_equal_sixty_at_once(folder: Path) -> None:
    """Bit for bit, where step 30 is one that is logged and validated anyway, and the learning rate is constant."""
    run = only_run(folder / "outputs")
    assert main(["train", *TINY, *CONSTANT, "trainer.max_steps=60", "run.root=at-once"]) == 0
    before = json_file(run / "evaluation" / "summary.json"), (run / "report.html").read_bytes()
    assert main(["resume", str(run), "trainer.max_steps=60"]) == 0
    same_result(only_run(folder / "at-once"), run)
    assert json_file(run / "state.json")["state"] == "done"
    assert json_file(run / "evaluation" / "summary.json") != before[0], "it was evaluated anew"
    assert (run / "report.html").read_bytes() != before[1]
    record = read_record(run)
    assert record.config.trainer.max_steps == 60
    (change,) = record.changes
    assert (change["step"], change["overrides"]) == (30, ["trainer.max_steps=60"])
    assert change["changed"] == {"trainer.max_steps": [30, 60]}
    assert "max_steps: 60" in (run / "config.yaml").read_text()


def test_a_step_that_is_logged_only_because_it_was_the_last_stays_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of step 30 are there once more, and the next row of train/loss tells of the steps since; nothing else."""
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path)
    odd = (*TINY, *CONSTANT, "logger.log_every_n_steps=7", "trainer.val_every_n_steps=12", "evaluation=[]")
    assert main(["train", *odd, "trainer.max_steps=60", "run.root=at-once"]) == 0
    assert main(["train", *odd, "trainer.max_steps=30", "run.root=extended"]) == 0
    at_once, extended = only_run(tmp_path / "at-once"), only_run(tmp_path / "extended")
    assert main(["resume", str(extended), "trainer.max_steps=60"]) == 0
    expected, found = rows(at_once / "metrics.jsonl"), rows(extended / "metrics.jsonl")
    assert [row["step"] for row in found if row not in expected] == [30, 35]
    assert [row["step"] for row in expected if row not in found] == [35]
    keys = {"train/learning_rate", "train/grad_norm", "train/tokens"}
    (a,), (b,) = ([row for row in these if row["step"] == 35] for these in (expected, found))
    assert {key: a[key] for key in keys} == {key: b[key] for key in keys}
    weights = [checkpoints.load_weights(checkpoints.find(r / "checkpoints", "latest")) for r in (at_once, extended)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_what_cant_be_gone_on_with_is_said_and_changes_nothing(folder: Path, capsys: Captured) -> None:
    run = only_run(Path("outputs"))
    before = content(run)
    for typed, told in (
        ([], f"the run is done; look at {run}/report.html, or go on to a further horizon: lmexp resume {run} trainer"),
        (["trainer.devices=2"], "the run is done"),
        (
            ["trainer.max_steps=30"],
            f"trainer.max_steps=30: the run is done at step 30; expected a horizon beyond that, e.g. "
            f"lmexp resume {run} trainer.max_steps=60",
        ),
        (["trainer.max_steps=12"], "trainer.max_steps=12: the run is done at step 30"),
        (
            ["trainer.max_steps=null", "trainer.max_tokens=3000"],
            "trainer.max_tokens=3000, 24 steps: the run is done at step 30",
        ),
        (["trainer.max_steps=null", "trainer.max_epochs=1", "trainer.max_tokens=9"], "expected one of"),
        (["trainer.max_steps=60", "trainer.devices=3"], "data.batch_size (8)"),
        (["trainer.max_steps=60", "trainer.num_nodes=2"], "trainer.num_nodes is 2, but launcher=local"),
        (["trainer.max_steps=60", "optimizer.lr=1"], f"lmexp train from={run} trainer.max_steps=60 optimizer.lr=1"),
        (["trainer.max_stepss=60"], "did you mean max_steps?"),
    ):
        assert told in refused(capsys, "resume", str(run), *typed), typed
        assert content(run) == before, typed


def test_a_run_that_kept_no_checkpoint_says_why_it_cant_go_on(folder: Path, capsys: Captured) -> None:
    assert main(["train", *TINY, "trainer.max_steps=4", "checkpoint.keep=none", "run.root=bare"]) == 0
    run = only_run(Path("bare"))
    capsys.readouterr()
    told = refused(capsys, "resume", str(run), "trainer.max_steps=60")
    assert "the run is done, and checkpoint.keep=none removed its checkpoints" in told
    assert f"lmexp train from={run} checkpoint.keep=best trainer.max_steps=60" in told


def test_a_kill_while_the_new_horizon_is_written_leaves_a_run_that_can_be_resumed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = only_run(folder / "outputs")
    metrics = (run / "metrics.jsonl").read_bytes()

    class Killed(BaseException):
        """As sudden as kill -9: nobody catches it."""

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("lmexp.runs.resume.change_config", killed)
        with pytest.raises(Killed):
            lmexp.resume(run, ["trainer.max_steps=60"])
    assert json_file(run / "state.json")["state"] == "interrupted"
    assert read_record(run).config.trainer.max_steps == 30
    assert lmexp.resume(run).state == "done"
    assert (run / "metrics.jsonl").read_bytes() == metrics
    assert lmexp.resume(run, ["trainer.max_steps=36"]).state == "done"
    assert rows(run / "metrics.jsonl")[-1]["step"] == 36


def test_the_learning_rate_of_a_cosine_follows_the_new_horizon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """Steps after the old horizon have the rates of a run that had the new one from the start."""
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path)
    typed = ("train", *TINY, "evaluation=[]", "logger.log_every_n_steps=1")
    assert main([*typed, "run.root=at-once", "trainer.max_steps=18"]) == 0
    assert main([*typed, "run.root=extended"]) == 0
    run = only_run(Path("extended"))
    capsys.readouterr()
    assert main(["resume", str(run), "trainer.max_steps=18"]) == 0
    assert "scheduler=cosine follows the horizon: the learning rate goes on at 0." in capsys.readouterr().out
    rates = [
        {row["step"]: row["train/learning_rate"] for row in rows(r / "metrics.jsonl") if "train/learning_rate" in row}
        for r in (only_run(Path("at-once")), run)
    ]
    assert rates[0] != rates[1]
    assert [rates[0][step] for step in range(13, 19)] == [rates[1][step] for step in range(13, 19)]


def test_a_run_that_stopped_early_goes_on_to_the_next_validation_that_is_no_better(folder: Path) -> None:
    never_better = ("callbacks=[early_stopping]", "callbacks.early_stopping.min_delta=100")
    patience = "callbacks.early_stopping.patience=1"
    assert main(["train", *TINY, *CONSTANT, *never_better, patience, "trainer.max_steps=200", "run.root=stopped"]) == 0
    run = only_run(Path("stopped"))
    assert rows(run / "metrics.jsonl")[-1]["step"] == 10
    assert main(["resume", str(run), "trainer.max_steps=300"]) == 0
    assert json_file(run / "state.json")["state"] == "done"
    assert [row["step"] for row in rows(run / "metrics.jsonl")] == [3, 5, 6, 9, 10, 12, 15, 15]


TOLERANCE = 1e-5
"""Relative. Two processes add the gradients of halves of a batch: the same numbers in another order. One addition in
float32 is off by 6e-8 at most, and 60 steps carry that on; a sample in the wrong place would show as 1e-3 and more."""


def test_one_process_then_two_then_one_follow_the_run_that_had_one(tmp_path: Path) -> None:
    """Killed, resumed on two, asked to stop, resumed on one: same samples in each step, and so the same losses."""
    write_corpus(tmp_path)
    typed = ("train", *TINY, "trainer.max_steps=60", "logger.log_every_n_steps=1", "checkpoint.keep=last")
    run_lmexp(tmp_path, *typed, "run.root=one")
    quiet = {"cwd": tmp_path, "env": environment(), "text": True, "stdout": subprocess.DEVNULL}
    process = subprocess.Popen(command(*typed, "run.root=both"), **quiet)
    kill_when(process, tmp_path / "both", 15, signal.SIGKILL)
    process.wait()
    one, both = only_run(tmp_path / "one"), only_run(tmp_path / "both")
    process = subprocess.Popen(command("resume", str(both), "trainer.devices=2"), **quiet)
    kill_when(process, tmp_path / "both", 35, signal.SIGTERM)
    assert process.wait(timeout=90) == 75
    assert (both / "logs" / "rank-1.log").exists()
    run_lmexp(tmp_path, "resume", str(both), "trainer.devices=1")
    first, second = read_record(both).changes
    assert (first["changed"], second["changed"]) == ({"trainer.devices": [1, 2]}, {"trainer.devices": [2, 1]})
    assert 12 <= first["step"] < 35 <= second["step"] < 60, "each took part"
    expected, found = rows(one / "metrics.jsonl"), rows(both / "metrics.jsonl")
    assert len([row for row in found if "train/loss" in row]) == 60
    for a, b in zip(expected, found, strict=True):
        assert a.keys() == b.keys()
        for key, value in a.items():
            assert b[key] == pytest.approx(value, rel=TOLERANCE), (a["step"], key)


def test_from_makes_a_new_run_with_the_config_of_another(folder: Path, capsys: Captured) -> None:
    old = only_run(Path("outputs"))
    before = content(old)
    assert main(["train", f"from={old}", "optimizer.lr=1e-4", "trainer.max_steps=6", "model=gpt_tiny"]) == 0
    assert content(old) == before
    (new,) = (path.parent for path in old.parent.glob("*/run.json") if path.parent.name != old.name)
    record, parent = read_record(new), read_record(old)
    assert (record.from_run, parent.from_run) == (old.name, None)
    assert record.overrides[0] == f"from={old}"
    assert record.run_id != parent.run_id
    assert record.wandb_id != parent.wandb_id
    assert record.data_fingerprints == parent.data_fingerprints
    assert (record.config.optimizer.lr, record.config.trainer.max_steps, record.config.model.norm) == (
        1e-4,
        6,
        "layer_norm",
    )
    assert record.config.data == parent.config.data
    assert record.config.scheduler == parent.config.scheduler
    assert main(["train", f"from={old}", "run.root=same"]) == 0
    same_result(old, only_run(Path("same")))
    capsys.readouterr()
    assert main(["prepare", f"from={old}"]) == 0
    assert parent.data_fingerprints[0][:16] in capsys.readouterr().out


def test_weights_of_a_run_are_a_beginning_that_is_needed_once(folder: Path) -> None:
    """Step 0 and a fresh optimizer on a run's best weights; after a kill the checkpoint is enough, and to load too."""
    old = only_run(Path("outputs"))
    typed = ("train", f"from={old}", f"model.init_from={old}", "run.root=new", "checkpoint.keep=last")
    process = subprocess.Popen(
        command(*typed, "trainer.max_steps=60"), cwd=folder, env=environment(), stdout=subprocess.DEVNULL
    )
    kill_when(process, folder / "new", 15, signal.SIGKILL)  # type: ignore[arg-type]
    process.wait()
    run = only_run(folder / "new")
    best = checkpoints.find(old / "checkpoints", "best")
    kept = read_record(run).initial_weights
    assert kept == {
        "path": str(best.absolute() / "model.safetensors"),
        "sha256": checkpoints.sha256(best / "model.safetensors"),
    }
    last_loss = [row["train/loss"] for row in rows(old / "metrics.jsonl") if "train/loss" in row][-1]
    first = rows(run / "metrics.jsonl")[0]
    assert first["step"] == 3
    assert first["train/loss"] == pytest.approx(last_loss, abs=0.3), "it begins where the other one ended"
    old.rename(folder / "elsewhere")
    assert main(["resume", str(run)]) == 0
    assert lmexp.load(run, weights="latest").step == 60
    assert lmexp.evaluate(run, ["evaluation=[perplexity]"])
    (folder / "elsewhere").rename(old)
    assert main([*typed[:-2], "trainer.max_steps=60", "run.root=at-once", "checkpoint.keep=last"]) == 0
    same_result(only_run(folder / "at-once"), run)


NET = """
import pytorch_lightning as pl, torch

class Net(pl.LightningModule):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.model(batch.tokens).flatten(0, 1), batch.targets.flatten())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)
"""


def test_a_module_of_the_users_gets_the_model_with_the_weights_and_its_run_asks_for_its_package(folder: Path) -> None:
    """With a learning rate of 0 they are the weights in the end, too."""
    (folder / "init_pkg.py").write_text(NET, encoding="utf-8")
    old = only_run(Path("outputs"))
    task = ("task=custom", "task.target=init_pkg:Net", "tokenizer=from_run", "model=from_run", "checkpoint.keep=last")
    typed = ("train", f"from={old}", f"model.init_from={old}", *task, "trainer.max_steps=2")
    run_lmexp(folder, *typed, "run.root=new", plugins=("init_pkg",))
    run = only_run(folder / "new")
    expected = checkpoints.load_weights(checkpoints.find(old / "checkpoints", "best"))
    found = checkpoints.load_weights(checkpoints.find(run / "checkpoints", "latest"))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    for words in (["train", f"from={run}", "--cfg=job", "seed=3"], ["resume", str(run), "trainer.max_steps=4"]):
        assert f"lmexp -p init_pkg {' '.join(words)}" in run_lmexp(folder, *words, code=2).stderr
    run_lmexp(folder, "resume", str(run), "trainer.max_steps=4", plugins=("init_pkg",))
    assert lmexp.Run(path=run).state == "done"
    assert checkpoints.read_manifest(checkpoints.find(run / "checkpoints", "latest")).step == 4


def test_weights_that_dont_fit_are_told_before_there_is_a_run(folder: Path, capsys: Captured) -> None:
    old = only_run(Path("outputs"))
    for typed, told in (
        (["model.n_layer=3"], "missing: blocks.2."),
        (["tokenizer=char"], f"tokenizer=saved tokenizer.path={old}"),
        (["model.init_from=nowhere"], "model.init_from=nowhere: there is no such folder"),
    ):
        init = [] if typed[0].startswith("model.init_from") else [f"model.init_from={old}"]
        assert told in refused(capsys, "train", f"from={old}", "run.root=new", "data.cache_dir=cache", *init, *typed)
    assert not Path("new").exists()
