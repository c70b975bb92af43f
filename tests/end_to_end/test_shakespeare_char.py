"""A published figure: nanoGPT's README CPU run on tinyshakespeare's characters."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.command import command, environment, json_file, only_run


@pytest.mark.slow
@pytest.mark.timeout(1200)  # some three minutes on a core of its own; CI machines share theirs
def test_shakespeare_char_reaches_nanogpts_loss_on_the_whole_validation_split(
    shared_data: Path, tmp_path: Path
) -> None:
    # One seed. benchmarks/shakespeare_char.py compares the mean of three, wanted at most 1.93, with a nanoGPT loop.
    text = shared_data / "tinyshakespeare" / "input.txt"
    arguments = ("experiment=shakespeare_char", f"data.path={text}", "seed=1", "logger=files")
    arguments += ("trainer.val_every_n_steps=2000", "evaluation=[perplexity]")  # fewer validations, same training
    done = subprocess.run(command("train", *arguments), cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path / "outputs")
    summary = json_file(run / "evaluation" / "summary.json")
    (loss,) = (row for row in summary["rows"] if row["name"] == "perplexity/loss")
    n_characters = len(text.read_text(encoding="utf-8"))
    assert loss["split"] == "validation"
    assert loss["n"] == n_characters - int(0.9 * n_characters) + 1  # every character, and <eos>
    assert loss["estimate"] <= 1.95
