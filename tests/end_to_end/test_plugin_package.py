"""A package outside the repository, with plain Lightning classes: it trains, resumes, and is never smuggled in."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from lmexp.cli.main import main
from lmexp.training import checkpoints
from tests.end_to_end.command import command, environment, json_file, lmexp, only_run, rows

MY_PKG = """
import os, pathlib, signal
import pytorch_lightning as pl, torch
from torch.utils.data import DataLoader
pathlib.Path(__file__).with_name("imported").touch()

class Net(pl.LightningModule):
    def __init__(self, width=4):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Tanh(), torch.nn.Linear(width, 1))
    def training_step(self, batch, index):
        loss = (self.net(batch) - batch.sum(1, keepdim=True)).square().mean()
        self.log("train/error", loss)
        return loss
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)

class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(torch.randn(32, 4, generator=torch.Generator().manual_seed(0)), batch_size=8)

class Beep(pl.Callback):
    def on_train_batch_end(self, trainer, *_):
        print("beep", trainer.global_step)
        if os.environ.get("DIE_AT") == str(trainer.global_step):
            os.kill(os.getpid(), signal.SIGKILL)
"""

NODES = ("task=custom", "task.target=my_pkg:Net", "data=custom", "data.target=my_pkg:Data")
ARGUMENTS = (
    "train",
    *NODES,
    "task.args.width=16",
    "callbacks=[custom]",
    "callbacks.custom.target=my_pkg:Beep",
    "trainer.max_steps=20",
    "logger=files",
    "logger.log_every_n_steps=5",
    "checkpoint.every_n_steps=4",  # an epoch: Lightning's DataLoader starts anew within one, so only its ends are exact
    "checkpoint.keep=last",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with my_pkg.py."""
    (tmp_path / "my_pkg.py").write_text(MY_PKG)
    return tmp_path


def imported(folder: Path) -> bool:
    """Whether my_pkg was imported since the last call."""
    marker = folder / "imported"
    found = marker.exists()
    marker.unlink(missing_ok=True)
    return found


def test_it_trains_and_after_kill_9_resumes_to_the_same_weights(folder: Path) -> None:
    done = lmexp(folder, *ARGUMENTS, "run.root=whole", plugins=("my_pkg",))
    assert done.stdout.count("beep") == 20
    whole = only_run(folder / "whole")
    errors = [(row["step"], row["train/error"]) for row in rows(whole / "metrics.jsonl") if "train/error" in row]
    assert [step for step, _ in errors] == [5, 10, 15, 20]
    assert errors[-1][1] < errors[0][1]
    assert "not guaranteed" in json_file(whole / "receipt.json")["exact_data_order"]

    killed = subprocess.run(
        command(*ARGUMENTS, plugins=("my_pkg",)),
        cwd=folder,
        env=environment(DIE_AT="14"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL
    run = only_run(folder / "outputs")
    assert [line.split()[1] for line in lmexp(folder, "runs").stdout.splitlines()[1:]] == ["killed"]

    imported(folder)
    refused = lmexp(folder, "resume", str(run.relative_to(folder)), code=2).stderr
    works = f"lmexp -p my_pkg resume {run.relative_to(folder)}"
    assert works in refused
    assert not imported(folder)
    assert json_file(run / "state.json")["state"] == "running", "a refusal changes nothing"

    resumed = lmexp(folder, *works.split()[3:], plugins=("my_pkg",))
    assert "going on from step 12" in resumed.stdout
    assert resumed.stdout.count("beep") == 8
    last = [checkpoints.find(path / "checkpoints", "latest") for path in (whole, run)]
    assert last[0].name == last[1].name == "step-00000020"
    weights = [checkpoints.load_weights(path) for path in last]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert (whole / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()

    listed = lmexp(folder, "runs").stdout.splitlines()
    assert len(listed) == 2
    assert listed[1].split()[:3] == [str(run.relative_to(folder)), "done", "20"]
    assert "train/error" in listed[1]


def test_yaml_alone_is_refused_and_imports_nothing(folder: Path) -> None:
    (folder / "conf" / "experiment").mkdir(parents=True)
    (folder / "conf" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\n"
        "defaults:\n  - override /task: custom\n  - override /data: custom\n"
        "task:\n  target: my_pkg:Net\ndata:\n  target: my_pkg:Data\n"
        "trainer:\n  max_steps: 2\nlogger:\n  log_every_n_steps: 1\n"
    )
    with_yaml = ("train", "--config-dir=conf", "experiment=mine")
    for typed in (with_yaml, ("train", *NODES)):
        said = lmexp(folder, *typed, code=2).stderr
        assert "the package my_pkg is not trusted (nothing is trusted now)" in said
        assert "lmexp -p my_pkg ..." in said
        assert not imported(folder)
        assert not (folder / "outputs").exists()
    lmexp(folder, *with_yaml, "logger=files", plugins=("my_pkg",))
    assert imported(folder)


def test_an_edited_run_json_is_refused_and_imports_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    died = subprocess.run(
        command(*ARGUMENTS, plugins=("my_pkg",)),
        cwd=folder,
        env=environment(DIE_AT="5"),
        capture_output=True,
        timeout=120,
    )
    assert died.returncode == -signal.SIGKILL
    run = only_run(folder / "outputs")
    path = run / "run.json"
    body = json.loads(path.read_text())
    imported(folder)

    path.write_text(json.dumps(body | {"plugins": []}))
    said = lmexp(folder, "resume", str(run), code=2).stderr
    assert "the package my_pkg is not trusted" in said
    assert not imported(folder)

    monkeypatch.chdir(folder)
    task = body["config"]["task"]
    for target, told in {
        "os:system": "the package os is not trusted",
        "my_pkg:os.system": "expected a class defined in my_pkg",
        "my_pkg:torch.nn.Linear": "a class defined in torch.nn",
        "my_pkg:Nett": "did you mean Net?",
    }.items():
        path.write_text(json.dumps(body | {"config": body["config"] | {"task": task | {"target": target}}}))
        assert main(["-p", "my_pkg", "resume", str(run)]) == 2
        assert told in capsys.readouterr().err
    path.write_text(json.dumps(body | {"config": body["config"] | {"task": {**task, "_target_": "os.system"}}}))
    assert main(["-p", "my_pkg", "resume", str(run)]) == 2
    assert "_target_" in capsys.readouterr().err
    assert json_file(run / "state.json")["state"] == "running"


def test_a_wrong_argument_of_ones_own_class_is_told_before_there_is_a_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    for typed, told in {
        "task.args.widht=3": "task.args.widht is not a parameter of Net(width); did you mean width?",
        "optimizer=adamw": "my_pkg:Net has no parameter 'optimizer' and would ignore it; add the parameter, or drop it "
        "with optimizer=null",
        "task.args.password=abc": "task.args.password holds a secret",
    }.items():
        assert main(["-p", "my_pkg", *ARGUMENTS, typed]) == 2
        assert told in capsys.readouterr().err
    assert not (folder / "outputs").exists()
