"""Checkpoint folders: whole or absent, found damaged, safe to open."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lmexp.errors import CheckpointError, ConfigError
from lmexp.models.config import GPTConfig
from lmexp.models.gpt import GPT
from lmexp.redaction import learn
from lmexp.runs.folder import remove_unfinished
from lmexp.stopping import StopRequest
from lmexp.training import checkpoints
from lmexp.training.checkpoint_io import CheckpointWriter, FolderCheckpointIO, keep_at_end, plain
from lmexp.training.config import CheckpointConfig

WEIGHTS = {"model.a": torch.arange(6.0).view(2, 3), "model.b": torch.ones(4)}
STATE: dict[str, Any] = {"global_step": 3, "optimizer_states": [{"exp_avg": torch.zeros(2)}], "loops": {"n": 1}}


def save(root: Path, step: int) -> Path:
    """A checkpoint at a step."""
    root.mkdir(exist_ok=True)
    return checkpoints.write(root, step, WEIGHTS, STATE, {"validation/loss": 1.5})


def test_weights_and_state_come_back(tmp_path: Path) -> None:
    folder = save(tmp_path, 3)
    weights = checkpoints.load_weights(folder)
    assert weights.keys() == {"a", "b"}
    assert torch.equal(weights["a"], WEIGHTS["model.a"])
    state = checkpoints.load_state(folder)
    assert torch.equal(state["optimizer_states"][0]["exp_avg"], torch.zeros(2))
    assert checkpoints.verify(folder).metrics == {"validation/loss": 1.5}
    assert checkpoints.find(tmp_path, "latest") == checkpoints.find(tmp_path, "3") == folder


def test_tied_weights_are_stored_once_and_come_back_under_both_names(tmp_path: Path) -> None:
    shared = torch.randn(3, 2)
    folder = checkpoints.write(tmp_path, 1, {"head": shared, "embedding": shared, "own": shared.clone()}, {}, {})
    assert checkpoints.read_manifest(folder).aliases == {"embedding": "head"}
    weights = checkpoints.load_weights(folder)
    assert torch.equal(weights["embedding"], shared)
    assert torch.equal(weights["head"], shared)


@pytest.fixture(scope="module")
def realistic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints of a small GPT with Adam's state, as a run writes them; the second one names metrics too."""
    root = tmp_path_factory.mktemp("realistic")
    model = GPT(GPTConfig(n_layer=2, n_head=2, d_model=16), vocab_size=257, sequence_length=32)
    optimizer = torch.optim.AdamW(model.parameters())
    for step in (1, 2):
        model(torch.randint(257, (2, 32), generator=torch.Generator().manual_seed(step))).square().mean().backward()
        optimizer.step()
        state = {"global_step": step, "optimizer_states": [optimizer.state_dict()], "loops": {"fit_loop": {}}}
        weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        checkpoints.write(root, step, weights, plain(state), {"validation/loss": 1.25 * step, "x": float("nan")})
    return root


N_OFFSETS = 100


@pytest.mark.parametrize("name", [checkpoints.MODEL, checkpoints.STATE, checkpoints.MANIFEST])
def test_every_flipped_bit_and_cut_is_found_and_the_one_before_is_used(realistic: Path, name: str) -> None:
    before, newest = (realistic / checkpoints.folder_name(step) for step in (1, 2))
    whole = (newest / name).read_bytes()
    draw = random.Random(f"offsets of {name}")
    try:
        for offset in draw.sample(range(len(whole)), N_OFFSETS):
            flipped = bytearray(whole)
            flipped[offset] ^= 1 << draw.randrange(8)
            for damaged in (bytes(flipped), whole[:offset]):
                (newest / name).write_bytes(damaged)
                warnings: list[str] = []
                assert checkpoints.latest(realistic, warn=warnings.append) == before, offset
                assert len(warnings) == 1
                assert str(newest) in warnings[0]
                with pytest.raises(CheckpointError, match=newest.name):
                    checkpoints.find(realistic, "2")
    finally:
        (newest / name).write_bytes(whole)
    assert checkpoints.latest(realistic) == newest


@pytest.mark.parametrize("name", [checkpoints.LATEST, checkpoints.BEST])
def test_every_damaged_pointer_is_told_or_names_a_whole_checkpoint(realistic: Path, name: str) -> None:
    """A bit may turn one step into another: that one is whole too, or not there."""
    pointer, newest = realistic / name, realistic / checkpoints.folder_name(2)
    whole = (newest.name + "\n").encode()
    try:
        for position in range(len(whole) * 8):
            flipped = bytearray(whole)
            flipped[position // 8] ^= 1 << position % 8
            for damaged in (bytes(flipped), whole[: position // 8]):
                pointer.write_bytes(damaged)
                warnings: list[str] = []
                found = checkpoints.latest(realistic, warn=warnings.append)
                assert found in checkpoints.steps(realistic)
                if name == checkpoints.LATEST:
                    assert len(warnings) == (damaged.decode(errors="replace").strip() != found.name)
                with contextlib.suppress(CheckpointError):
                    assert checkpoints.find(realistic, "best") in checkpoints.steps(realistic)
    finally:
        (realistic / checkpoints.BEST).unlink(missing_ok=True)
        (realistic / checkpoints.LATEST).write_bytes(whole)


def test_all_damaged_is_an_error(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    (folder / checkpoints.MODEL).unlink()
    with pytest.raises(CheckpointError, match="every checkpoint is damaged"):
        checkpoints.latest(tmp_path)


@pytest.mark.parametrize("call", ["rename", "replace", "fsync"])
@pytest.mark.parametrize("nth", range(1, 9))
def test_a_failed_write_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, nth: int
) -> None:
    """The nth call that touches the disk fails, as on a full disk; LATEST names a whole checkpoint, nothing is left."""
    old = save(tmp_path, 1)
    calls = 0
    real = getattr(os, call)

    def failing(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise OSError(28, "No space left on device")
        return real(*args)

    with monkeypatch.context() as patched:
        patched.setattr(os, call, failing)
        with contextlib.suppress(OSError):
            save(tmp_path, 2)
    found = checkpoints.latest(tmp_path)
    assert found in (old, tmp_path / checkpoints.folder_name(2))
    remove_unfinished(tmp_path)
    assert not list(tmp_path.glob(".*"))
    assert checkpoints.latest(tmp_path) == found
    assert save(tmp_path, 3) == checkpoints.latest(tmp_path)


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> Any:
            return (Path.touch, (marker,))

    (folder / checkpoints.STATE).write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(CheckpointError, match=r"state\.pt: "):
        checkpoints.load_state(folder)
    torch.save({"x": Payload()}, folder / checkpoints.STATE)
    with pytest.raises(CheckpointError, match=r"state\.pt: its pickle asks for .* nothing was run"):
        checkpoints.load_state(folder)
    assert not marker.exists()


@pytest.mark.parametrize(("key", "value"), [("version", 1), ("version", True), ("format", "other")])
def test_an_unknown_format_is_refused(tmp_path: Path, key: str, value: object) -> None:
    folder = save(tmp_path, 1)
    path = folder / checkpoints.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(CheckpointError, match=r"expected format 'lmexp.checkpoint' version 2"):
        checkpoints.read_manifest(folder)


def test_a_missing_checkpoint_names_those_that_are_there(tmp_path: Path) -> None:
    save(tmp_path, 7)
    with pytest.raises(CheckpointError, match=r"there is no checkpoint '9'; available: step-00000007"):
        checkpoints.find(tmp_path, "9")


@pytest.mark.parametrize(("keep", "left"), [("all", {1, 2, 3}), ("best", {2, 3}), ("last", {3}), ("none", set())])
def test_keep_decides_what_stays(tmp_path: Path, keep: str, left: set[int]) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    (tmp_path / checkpoints.BEST).write_text(checkpoints.folder_name(2) + "\n")
    keep_at_end(tmp_path, CheckpointConfig(keep=keep))
    assert {path.name for path in checkpoints.steps(tmp_path)} == {checkpoints.folder_name(step) for step in left}
    if keep == "best":
        assert checkpoints.find(tmp_path, "best").name == checkpoints.folder_name(2)


def make_writer(root: Path, **settings: Any) -> CheckpointWriter:
    """The callback of a run of nine steps."""
    config = CheckpointConfig(every_n_steps=1, **settings)
    return CheckpointWriter(root, config, io=FolderCheckpointIO(), total_steps=9, stop=StopRequest(), background=True)


def test_every_nth_checkpoint_is_kept_for_good(tmp_path: Path) -> None:
    writer = make_writer(tmp_path, keep_every_n_steps=3)
    for step in range(1, 9):
        save(tmp_path, step)
        writer._remove_old(step)
    (tmp_path / checkpoints.BEST).write_text(checkpoints.folder_name(8) + "\n")
    assert [checkpoints.step_of(folder) for folder in checkpoints.steps(tmp_path)] == [3, 6, 8]
    keep_at_end(tmp_path, writer.config)
    assert [checkpoints.step_of(folder) for folder in checkpoints.steps(tmp_path)] == [3, 6, 8]
    with pytest.raises(ConfigError, match=r"multiple of checkpoint\.every_n_steps \(4\); try .*=8"):
        CheckpointConfig(every_n_steps=4, keep_every_n_steps=9)


def test_a_damaged_later_checkpoint_does_not_push_out_the_one_just_saved(tmp_path: Path) -> None:
    for step in (1, 2, 4):
        save(tmp_path, step)
    (tmp_path / checkpoints.folder_name(4) / checkpoints.MODEL).write_bytes(b"damaged")
    just_saved = save(tmp_path, 3)
    make_writer(tmp_path, keep_last=1)._remove_old(3)
    assert checkpoints.steps(tmp_path) == [just_saved]
    assert checkpoints.latest(tmp_path) == just_saved


def test_a_monitor_that_is_nan_is_never_the_best(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    improved = []
    for step, value in enumerate((float("nan"), 2.0, float("nan"), 1.0, 3.0)):
        trainer: Any = SimpleNamespace(callback_metrics={"validation/loss": torch.tensor(value)}, global_step=step)
        improved.append(writer._improved(trainer))
    assert improved == [False, True, False, True, False]
    assert (writer.best_value, writer.best_step) == (1.0, 3)


def test_only_plain_types_go_into_a_checkpoint() -> None:
    value = {"a": [1, (2.0, "x")], "b": torch.ones(1), "c": None}
    assert plain(value) == value
    with pytest.raises(CheckpointError, match=r"checkpoint\.hyper_parameters\.path is a pathlib"):
        plain({"hyper_parameters": {"path": Path("x")}})


def test_a_secret_in_hyperparameters_is_redacted_and_elsewhere_refused() -> None:
    learn("INNOCENT", "correct horse")
    checkpoint = {"hyper_parameters": {"x": ["a correct horse"], "n": 3}, "callbacks": {"Mine": {"n": 1}}}
    assert plain(checkpoint)["hyper_parameters"] == {"x": ["a [redacted]"], "n": 3}
    assert checkpoint["hyper_parameters"] == {"x": ["a correct horse"], "n": 3}
    with pytest.raises(CheckpointError, match=r"checkpoint\.callbacks\.Mine\.x holds a secret.*state_dict") as caught:
        plain({"callbacks": {"Mine": {"x": "a correct horse"}}})
    assert "horse" not in str(caught.value)
