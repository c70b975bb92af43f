"""Every experiment on the data it is for: a few steps by default, and what it reaches where that is cheap."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from lmexp.cli.main import main
from lmexp.config.compose import compose
from lmexp.evaluation.generated import texts_of
from lmexp.evaluation.samples_file import read_samples
from lmexp.paths import CONF_DIR
from tests.end_to_end.command import json_file, only_run, rows

DATA = {
    "chinese_poetry": "chinese-poetry",
    "names": "names/names.txt",
    "shakespeare_char": "tinyshakespeare/input.txt",
    "stdlib_gpt": None,
    "wikitext2_gpt": "wikitext-2",
}
"""Experiment -> where its data are; None where every installation has them."""
LONG = ("stdlib_gpt", "wikitext2_gpt")
"""A tokenizer is trained on megabytes first."""
ELSEWHERE = ("wikitext2_kneser_ney",)
"""Experiments with tests of their own."""


def test_every_experiment_is_tried() -> None:
    found = {path.stem for path in (CONF_DIR / "experiment").glob("*.yaml")}
    assert found - set(ELSEWHERE) == set(DATA)


def test_stdlib_gpt_is_the_default() -> None:
    default, spelled_out = (asdict(compose(typed).config) for typed in ([], ["experiment=stdlib_gpt"]))
    names = [one.pop("run") for one in (default, spelled_out)]
    assert spelled_out == default
    assert names[0] != names[1], "the run is named after the experiment"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else []) for name in DATA]
)
def test_an_experiment_trains_on_its_data_and_writes_text(
    name: str, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = DATA[name]
    typed = [f"data.path={shared_data / path}"] if path else []
    typed += ["trainer.max_steps=4", "trainer.val_every_n_steps=4", "trainer.limit_val_batches=2"]
    typed += ["checkpoint.every_n_steps=4", "logger=files", "logger.log_every_n_steps=1"]
    typed += ["evaluation=[perplexity,samples]", "evaluation.perplexity.max_tokens=500"]
    typed += ["evaluation.samples.every_n_steps=2", "evaluation.samples.max_new_tokens=8"]
    typed += ["evaluation.samples.n_samples=1", "scheduler.warmup_steps=2"]
    assert main(["train", f"experiment={name}", *typed]) == 0
    run = only_run(tmp_path / "outputs")
    losses = [row["train/loss"] for row in rows(run / "metrics.jsonl") if "train/loss" in row]
    assert losses[-1] < losses[0]
    folder = run / "evaluation" / "samples"
    for table in ("step-00000002.parquet", "step-00000004.parquet", "samples.parquet"):
        ((prompt, seed, text),) = texts_of(read_samples(folder / table))
        assert (prompt, seed) == ("", 0)
        assert len(text) > 0
    assert "step 2</dt>" in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_names_come_close_to_makemores_transformer(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """makemore's bigram has 2.454 nats a character, its Transformer 1.92 after a longer training."""
    monkeypatch.chdir(tmp_path)
    path = shared_data / "names" / "names.txt"
    typed = [f"data.path={path}", "seed=1", "logger=files", "trainer.val_every_n_steps=1000"]
    assert main(["train", "experiment=names", *typed, "evaluation=[perplexity,samples]"]) == 0
    summary = json_file(only_run(tmp_path / "outputs") / "evaluation" / "summary.json")
    (loss,) = (row for row in summary["rows"] if row["name"] == "perplexity/loss")
    assert loss["split"] == "test"
    assert loss["estimate"] <= 2.1
