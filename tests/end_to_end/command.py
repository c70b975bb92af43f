"""Running lmexp as a user does: the command line, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

TINY = (
    "data=text_files",
    "data.path=corpus.txt",
    "data.document=line",
    "data.batch_size=8",
    "data.sequence_length=16",
    "tokenizer=byte",
    "model.n_layer=2",
    "model.n_head=2",
    "model.d_model=16",
    "scheduler.warmup_steps=2",
    "trainer.max_steps=12",
    "trainer.val_every_n_steps=5",
    "checkpoint.every_n_steps=4",
    "logger=files",
    "logger.log_every_n_steps=3",
    "evaluation=[perplexity]",
)
"""A run of a second: two small blocks on 300 lines of text."""


def write_corpus(folder: Path, n_lines: int = 300) -> Path:
    """corpus.txt: lines with some structure, each different."""
    path = folder / "corpus.txt"
    words = ("the", "cat", "dog", "sat", "ran", "on", "a", "mat", "and", "then", "été", "漢字")
    lines = [" ".join(words[(i * k + k) % len(words)] for k in range(1, 9)) + f" {i}" for i in range(n_lines)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def command(*arguments: str, plugins: tuple[str, ...] = ()) -> list[str]:
    """The argument vector of an lmexp command."""
    return [sys.executable, "-m", "lmexp", *(f"-p{name}" for name in plugins), *arguments]


def environment(**more: str) -> dict[str, str]:
    """An environment in which lmexp is importable from the checkout and nobody is logged in to W&B."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"} | more


def lmexp(
    cwd: Path, *arguments: str, plugins: tuple[str, ...] = (), code: int = 0, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and check its exit code."""
    done = subprocess.run(
        command(*arguments, plugins=plugins),
        cwd=cwd,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, f"exit code {done.returncode}, expected {code}\n{done.stdout}\n{done.stderr}"
    return done


def only_run(root: Path) -> Path:
    """The one run folder below root."""
    found = [path.parent for path in root.glob("*/*/run.json")]
    assert len(found) == 1, found
    return found[0]


def json_file(path: Path) -> Any:
    """Parsed JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def rows(path: Path) -> list[dict[str, Any]]:
    """Parsed JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def kill_when(process: subprocess.Popen[str], run_root: Path, step: int, number: int) -> None:
    """Send a signal once metrics.jsonl reaches a step."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        for path in run_root.glob("*/*/metrics.jsonl"):
            found = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            if found and int(json.loads(found[-1])["step"]) >= step:
                os.kill(process.pid, number)
                return
        time.sleep(0.002)
    raise AssertionError("the run ended before it could be killed")


def same_result(a: Path, b: Path) -> None:
    """Weights, their average, optimizer, loops, callbacks, metrics and evaluation of two runs are equal to the bit.

    The generators are seeded from the step, so their state is no part of a checkpoint; dropout would tell.
    """
    import torch

    from lmexp.evaluation.samples_file import read_samples
    from lmexp.training import checkpoints
    from tests.evaluation.equality import equal_but_for_latency

    roots = [run / "checkpoints" for run in (a, b)]
    kept = [[path.name for path in checkpoints.steps(root)] for root in roots]
    assert kept[0] == kept[1]
    for name in kept[0]:
        manifests = [checkpoints.verify(root / name) for root in roots]
        weights, others = (checkpoints.load_weights(root / name) for root in roots)
        assert weights.keys() == others.keys()
        for key, tensor in weights.items():
            assert torch.equal(tensor, others[key]), f"{name}: {key}"
        first, second = (_leaves(checkpoints.load_state(root / name)) for root in roots)
        assert first == second, f"{name}: the states differ in {[k for k in first if first[k] != second.get(k)]}"
        assert manifests[0].metrics == manifests[1].metrics
        assert manifests[0].files.get(checkpoints.EMA) == manifests[1].files.get(checkpoints.EMA), name
    for pointer in (checkpoints.LATEST, checkpoints.BEST):
        assert [(root / pointer).exists() and (root / pointer).read_bytes() for root in roots[:1]] == [
            (root / pointer).exists() and (root / pointer).read_bytes() for root in roots[1:]
        ], pointer
    for name in ("metrics.jsonl", "losses.f64"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    assert json_file(a / "receipt.json")["losses"] == json_file(b / "receipt.json")["losses"]
    first, second = (json_file(run / "evaluation" / "summary.json") for run in (a, b))
    assert first == second
    tables = [{p.relative_to(run): p for p in (run / "evaluation").glob("*/step-*.parquet")} for run in (a, b)]
    assert tables[0].keys() == tables[1].keys()
    for path, table in tables[0].items():
        assert equal_but_for_latency(read_samples(table), read_samples(tables[1][path])), path
    assert (a / "report.html").exists() == (b / "report.html").exists()


def _leaves(value: Any) -> Any:
    """Tensors as lists, so that == compares what is in them."""
    import torch

    if isinstance(value, torch.Tensor):
        return (str(value.dtype), value.tolist())
    if isinstance(value, dict):
        return {key: _leaves(v) for key, v in value.items()}
    return [_leaves(v) for v in value] if isinstance(value, list | tuple) else value
