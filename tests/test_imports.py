"""What only reads or composes configs stays light: no command loads torch before it has something to do with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = (
    *("torch", "pytorch_lightning", "torchmetrics", "numpy", "wandb", "tokenizers", "safetensors"),
    *("transformers", "peft", "huggingface_hub"),
)

WRAPPER = """
import json, sys
from lmexp.cli.main import main
answer, *arguments = sys.argv[1:]
try:
    code = main(arguments)
except SystemExit as left:  # Hydra's own options end the process
    code = left.code or 0
with open(answer, "w") as file:
    json.dump({"code": code, "modules": sorted(sys.modules)}, file)
"""


def loaded(folder: Path, *arguments: str, code: int) -> list[str]:
    """The heavy packages in memory after a command that must end with this exit code."""
    answer = folder / "answer.json"
    done = subprocess.run(
        [sys.executable, "-c", WRAPPER, str(answer), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.exists(), done.stderr
    found = json.loads(answer.read_text(encoding="utf-8"))
    assert found["code"] == code, done.stderr
    assert "lmexp.cli.main" in found["modules"]
    return [name for name in HEAVY if name in found["modules"]]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["train", "--cfg", "job"], 0),
        (["train", "--explain", "model.n_layer"], 0),
        (["prepare", "--cfg", "job"], 0),
        (["train", "model.n_layres=3", "optimizer=adamm", "model.n_head=7"], 2),
        (["evaluate"], 2),
    ],
    ids=["help", "cfg", "explain", "prepare", "planted errors", "no run"],
)
def test_commands_that_only_read_configs_load_no_heavy_package(arguments: list[str], code: int, tmp_path: Path) -> None:
    assert loaded(tmp_path, *arguments, code=code) == []


def test_preparing_a_corpus_loads_no_torch(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("".join(f"line {i}\n" for i in range(500)), encoding="utf-8")
    typed = ["data=text_files", f"data.path={tmp_path}/corpus.txt", "data.document=line", f"run.root={tmp_path}"]
    found = loaded(tmp_path, "prepare", *typed, "data.sequence_length=16", "data.windows=packed", code=0)
    assert not {"torch", "pytorch_lightning", "torchmetrics", "wandb", "safetensors"} & set(found)


def test_import_lmexp_loads_no_heavy_package() -> None:
    code = "import lmexp, sys; print(*(set(sys.modules) & set(sys.argv[1:])))"
    done = subprocess.run(
        [sys.executable, "-c", code, *HEAVY, "hydra", "omegaconf"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == []
