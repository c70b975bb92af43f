"""README.md tells the truth: its commands exist, its errors are the real ones, its tree is the tree."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from omegaconf import OmegaConf

from lmexp.cli.main import COMMANDS
from lmexp.config.compose import compose
from tests.end_to_end.command import ROOT, environment, lmexp, write_corpus

README = (ROOT / "README.md").read_text(encoding="utf-8")


def console() -> dict[str, str]:
    """Command -> output of every `$ ...` line in a console block."""
    blocks = re.findall(r"```console\n\$ (.*?)\n(.*?)```", README, re.DOTALL)
    return {command.removeprefix(".venv/bin/"): output for command, output in blocks}


def test_every_command_is_in_the_readme_and_no_other() -> None:
    assert set(re.findall(r"`lmexp (\w+)", README)) == set(COMMANDS)


def test_the_wrong_options_are_answered_as_shown(tmp_path: Path) -> None:
    ((command, output),) = [(c, o) for c, o in console().items() if "n_layers" in c]
    assert lmexp(tmp_path, *shlex.split(command)[1:], code=2).stderr == output


def test_the_command_of_three_groups_composes(tmp_path: Path) -> None:
    (command,) = [c for c in console() if "my_texts" in c]
    config = compose(shlex.split(command)[2:]).config
    assert (config.model.norm, config.optimizer.kind, config.scheduler.kind) == ("layer_norm", "adam", "constant")


def test_the_options_named_exist() -> None:
    named = re.findall(r"`((?:data|model|optimizer|trainer|run)\.\w+|seed)`", README)
    assert len(named) > 10
    node = compose(["data=text_files", "data.path=x"]).node
    for key in named:
        assert OmegaConf.select(node, key, default="absent") != "absent", key


def test_the_tree_is_the_tree() -> None:
    tree = re.search(r"```\nconf/.*?```", README, re.DOTALL)
    assert tree is not None
    folders = {line.split("/")[0].strip() for line in tree[0].splitlines() if re.match(r"  \w+/", line)}
    real = {p.name for p in (ROOT / "lmexp").iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert folders == real


def test_the_python_example_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    write_corpus(tmp_path, 2000).rename(tmp_path / "input.txt")
    code = code.replace("max_steps=200", "max_steps=2")
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
