"""Hydra's own options and the command line around the commands, in this process: nothing is run by them."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import lmexp
from lmexp.cli.completion import completions
from lmexp.cli.main import COMMANDS, main
from lmexp.config.freeze import to_config
from lmexp.errors import ConfigError
from tests.end_to_end.command import ROOT, environment

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Hydra's --info sets the root logger up, for a process that ends soon."""
    loggers = [logging.getLogger(name) for name in (None, "hydra")]
    before = [(logger, logger.level, [*logger.handlers]) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


def test_help_lists_every_command(capsys: Captured) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, text in COMMANDS.items():
        assert f"{name:<10} {text}" in shown
    assert main([]) == 2, "nothing was asked for"


def test_version(capsys: Captured) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == lmexp.__version__


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert f"usage: lmexp {command}" in capsys.readouterr().out


def test_cfg_job_prints_the_config_as_yaml_that_reads_back(capsys: Captured) -> None:
    assert main(["train", "model=llama_tiny", "--cfg", "job", "seed=3"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    config = to_config("train", printed)
    assert (config.seed, config.model.norm) == (3, "rms_norm")


def test_cfg_may_be_narrowed_and_resolved(capsys: Captured) -> None:
    assert main(["train", "--cfg", "job", "--package", "optimizer", "optimizer.weight_decay=${model.dropout}"]) == 0
    assert "weight_decay: ${model.dropout}" in capsys.readouterr().out
    assert (
        main(["train", "--cfg=job", "--package=optimizer", "--resolve", "optimizer.weight_decay=${model.dropout}"]) == 0
    )
    assert "weight_decay: 0.0" in capsys.readouterr().out


def test_cfg_and_info_check_first(capsys: Captured) -> None:
    for option in ("--cfg=job", "--info=defaults"):
        assert main(["train", option, "model.n_layres=3"]) == 2
        captured = capsys.readouterr()
        assert "did you mean n_layer?" in captured.err
        assert captured.out == ""


def test_info_tells_where_configs_come_from(tmp_path: Path, capsys: Captured) -> None:
    assert main(["train", "--info", "searchpath", "--config-dir", str(tmp_path)]) == 0
    assert str(tmp_path) in capsys.readouterr().out
    assert main(["train", "model=llama_tiny", "--info", "defaults"]) == 0
    assert "model/llama_tiny" in capsys.readouterr().out


def test_several_config_dirs(tmp_path: Path, capsys: Captured) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "experiment").mkdir(parents=True)
        (tmp_path / name / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\nrun:\n  name: {name}\n")
        folders = [f"--config-dir={tmp_path / folder}" for folder in ("a", "b") if (tmp_path / folder).exists()]
        assert main(["train", *folders, f"experiment={name}", "--cfg=job"]) == 0
        assert f"name: {name}\n" in capsys.readouterr().out


def test_explain_says_where_a_value_is_from(capsys: Captured) -> None:
    assert main(["train", "--explain", "model.norm", "model=llama_tiny"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("model.norm = rms_norm\n")
    assert "llama_tiny.yaml:" in shown


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ([], None),
        (["trian"], "there is no command 'trian'; did you mean train?"),
        (["train", "--confg-dir", "x"], "did you mean --config-dir?"),
        (["train", "-p", "my_pkg"], "-p stands before the command: lmexp -p my_pkg train"),
        (["train", "--info=nonsense"], "'defaults-tree'"),
        (["train", "--resolve"], "--resolve and --package go with --cfg"),
        (["train", "-m", "seed=1,2"], "sweeps are not part of this version"),
        (["train", "--config-dir", "nowhere"], "--config-dir nowhere: there is no such folder"),
        (["-p"], "-p needs the name of a package"),
        (["-p", "no_such_package", "train"], "-p no_such_package: no such package was found"),
        (["resume"], "lmexp resume: the following arguments are required: run"),
        (["resume", "a", "--b"], "unrecognized arguments: --b"),
        (["report", "--htlm", "a"], "unrecognized arguments: --htlm"),
        (["runs", "nowhere"], "nowhere: there is no such folder"),
        (["runs", "--cost"], "unrecognized arguments: --cost"),
        (["doctor", "--fix"], "unrecognized arguments: --fix"),
        (["evaluate"], "run is not set; say which: lmexp evaluate run=outputs/"),
        (["generate", "prompt=hello"], "run is not set; say which: lmexp generate run=outputs/"),
        (["--shell-completion", "install=ksh"], "one of bash, fish, zsh"),
        (["--shell-completion"], "expected install=SHELL"),
    ],
)
def test_what_isnt_understood_ends_with_2_and_a_hint(
    typed: list[str], told: str | None, capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(typed) == 2
    captured = capsys.readouterr()
    if told is not None:
        assert captured.err.startswith("error:\n  ")
        assert told in captured.err
        assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_the_traceback_of_a_user_error_is_shown_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMEXP_TRACEBACK", "1")
    with pytest.raises(ConfigError):
        main(["train", "nonsense=1"])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lmexp ", set(COMMANDS)),
        ("lmexp ev", {"evaluate"}),
        ("lmexp -p lmexp tr", {"train"}),
        ("lmexp train mod", {"model.", "model="}),
        (
            "lmexp train tokenizer=",
            {f"tokenizer={name}" for name in ("bpe", "byte", "char", "hf", "null", "saved", "word")},
        ),
        ("lmexp prep", {"prepare"}),
        ("lmexp prepare tokenizer=by", {"tokenizer=byte"}),
        ("lmexp train model=llama_tiny model.n_h", {"model.n_head="}),
        ("lmexp evaluate weig", {"weights="}),
        ("lmexp train --con", {"--config-dir"}),
        ("lmexp train fr", {"from="}),
        ("lmexp prepare fro", {"from="}),
        ("lmexp evaluate fro", set()),
        ("lmexp resume outp", set()),
        ("lmexp train model=[", set()),
    ],
)
def test_completion(line: str, expected: set[str]) -> None:
    assert set(completions(line)) == expected


def test_completion_knows_config_dirs_and_hides_schemas(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("defaults: [/schema/model@_here_: gpt, _self_]\n")
    assert completions(f"lmexp train --config-dir {tmp_path} model=mi") == ["model=mine"]
    everything = completions("lmexp train ")
    assert {"experiment=", "seed=", "trainer."} <= set(everything)
    assert not [choice for choice in everything if choice.startswith(("schema", "hydra"))]


def test_a_query_never_complains(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    for line in (
        "lmexp -p no_such_package train mod",
        "lmexp train model=x[ seed",
        "",
        "lmexp train --config-dir nowhere ",
    ):
        monkeypatch.setenv("COMP_LINE", line)
        assert main(["-sc", "query=bash"]) == 0
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize("typed", [["--shell-completion"], ["-sc"], ["train", "--shell-completion"]])
def test_the_script_completes_lmexp_and_nothing_else(typed: list[str], capsys: Captured) -> None:
    assert main([*typed, "install=bash"]) == 0
    script = capsys.readouterr().out.rstrip()
    assert script.endswith("complete -o nospace -o default -F hydra_bash_completion lmexp")
    assert main([*typed, "install=fish"]) == 0
    assert "complete -c lmexp -x -a '(hydra_fish_completion)'" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_tab_in_a_real_bash(tmp_path: Path) -> None:
    program = tmp_path / "lmexp"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m lmexp "$@"\n')
    program.chmod(0o755)
    typed = 'eval "$(lmexp --shell-completion install=bash)"; COMP_LINE="lmexp train model=llama_t"; COMP_CWORD=2; '
    done = subprocess.run(
        ["bash", "-c", f'{typed} hydra_bash_completion; echo "${{COMPREPLY[@]}}"'],
        env=environment(PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["model=llama_tiny"], done.stderr
