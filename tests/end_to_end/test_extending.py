"""docs/extending.md, followed word for word."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.end_to_end.command import ROOT, json_file, lmexp, only_run, rows

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


def write_files(folder: Path) -> None:
    """Every code block that follows a line naming its file."""
    for name, _, code in re.findall(r"`([\w/]+\.(?:py|yaml))`[^`\n]*:?\n\n```(python|yaml)\n(.*?)```", PAGE, re.DOTALL):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")


def commands() -> list[list[str]]:
    """The arguments of every `$ lmexp ...` line."""
    return [shlex.split(line)[1:] for line in re.findall(r"^\$ (lmexp .*)$", PAGE, re.MULTILINE)]


def test_plain_lightning_code_trains(tmp_path: Path) -> None:
    write_files(tmp_path)
    done = lmexp(tmp_path, *commands()[0])
    assert "announced at step 40" in done.stdout
    run = only_run(tmp_path / "outputs")
    losses = [row["train/mse"] for row in rows(run / "metrics.jsonl")]
    assert losses[-1] < losses[0] / 10
    assert run.name in lmexp(tmp_path, "runs").stdout.replace("\n", "")


def test_a_source_of_ones_own_is_prepared_and_trained_on(tmp_path: Path) -> None:
    write_files(tmp_path)
    package, command, *typed = commands()[2][1:]
    said = lmexp(tmp_path, "prepare", *typed, plugins=(package,)).stdout
    assert "quarantined: 61, see " in said
    assert said.count("boring sum: nothing is added") == 3
    assert "tokens: found in" in lmexp(tmp_path, command, *typed, plugins=(package,)).stdout
    facts = json_file(next(tmp_path.glob("outputs/cache/*/data_card.json")))
    counted = sum(split["n_documents"] for split in facts["splits"].values())
    assert (counted, facts["sources"][""]["n_duplicates"]) == (61 * 60, 0)
    mixed = ("data=mixture", "+data@data.parts.sums=sums", "+data@data.parts.code=stdlib", "data.parts.sums.largest=60")
    lmexp(tmp_path, "prepare", *mixed, "tokenizer=byte", plugins=(package,))


def test_a_registered_kind_trains_and_a_preset_of_it_composes(tmp_path: Path) -> None:
    write_files(tmp_path)
    lmexp(tmp_path, *commands()[1])
    assert (only_run(tmp_path / "outputs") / "report.html").exists()
    assert len(commands()) == 3
    show = ("train", "--config-dir=my_conf", "model=bag_wide", "--cfg=job")
    assert "width: 256" in lmexp(tmp_path, *show, plugins=("my_model",)).stdout
