"""`--explain KEY`: everything that set a value, in order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lmexp.config.explain import explain
from lmexp.errors import ConfigError
from lmexp.paths import CONF_DIR

Write = Callable[[str, str], Path]


def origins(key: str, *overrides: str, config_dir: Path | None = None) -> tuple[str, list[list[str]]]:
    """The line with the value, and each origin's words."""
    told = explain(key, [*overrides], config_dirs=[str(config_dir)] if config_dir else None).splitlines()
    return told[0], [line.split() for line in told if line.startswith(("  default", "  file", "  typed"))]


def test_a_value_that_nobody_set_has_its_dataclass_default() -> None:
    assert origins("optimizer.beta2") == (
        "optimizer.beta2 = 0.95",
        [["default", "0.95", "lmexp.optim.config.AdamWConfig"]],
    )


def test_default_files_and_override_are_told_in_order_and_the_last_counts(write: Write, tmp_path: Path) -> None:
    model = write("model/mine", "defaults: [/schema/model@_here_: gpt, _self_]\nn_layer: 3\n")
    experiment = write("experiment/x", "# @package _global_\nmodel:\n  n_head: 2\n  n_layer: 5\n")
    value, found = origins(
        "model.n_layer", "model.n_layer=7", "model=mine", "experiment=x", config_dir=tmp_path / "conf"
    )
    assert value == "model.n_layer = 7"
    assert found[0][:2] == ["default", "4"]
    assert found[1:3] == [["file", "3", f"{model}:2"], ["file", "5", f"{experiment}:4"]]
    assert ["typed", "model.n_layer=7"] in found[3:]


def test_files_of_ones_own_are_told_with_their_line(write: Write, tmp_path: Path) -> None:
    path = write("model/mine", "# mine\ndefaults: [/schema/model@_here_: gpt, _self_]\nn_layer: 3\n")
    value, found = origins("model.n_layer", "model=mine", config_dir=tmp_path / "conf")
    assert value == "model.n_layer = 3"
    assert found[1:] == [["file", "3", f"{path}:3"], ["typed", "model=mine"]]


def test_a_group_tells_which_file_chose_it(write: Write, tmp_path: Path) -> None:
    path = write(
        "model/words", "defaults: [/schema/model@_here_: gpt, _self_, override /tokenizer@_global_.tokenizer: word]\n"
    )
    value, found = origins("tokenizer", "model=words", config_dir=tmp_path / "conf")
    number = (CONF_DIR / "train.yaml").read_text().splitlines().index("  - tokenizer: bpe") + 1
    assert value == "tokenizer:"
    assert found[1:] == [
        ["file", "tokenizer=bpe", f"{CONF_DIR / 'train.yaml'}:{number}"],
        ["file", "tokenizer=word", f"{path}:1"],
    ]


def test_an_override_is_shown_as_it_was_typed() -> None:
    value, found = origins("data.path", "data=text_files", "data.path=it's.txt")
    assert value == "data.path = it's.txt"
    assert found[-1] == ["typed", "data.path=it's.txt"]


def test_an_unknown_key_is_told_like_any_other() -> None:
    with pytest.raises(ConfigError, match=r"--explain model\.n_layr: model has no 'n_layr'.*did you mean n_layer"):
        explain("model.n_layr", [])
