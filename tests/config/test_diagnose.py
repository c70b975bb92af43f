"""What a wrong config is told: the key, what was expected, what was given, and how to mend it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lmexp.config.compose import Composed, compose
from lmexp.errors import ConfigError
from tests.end_to_end.command import command, environment

Compose = Callable[..., Composed]
Write = Callable[[str, str], Path]


def message(*overrides: str, command: str = "train") -> str:
    """What compose says to them."""
    with pytest.raises(ConfigError) as caught:
        compose([*overrides], command=command)
    return str(caught.value)


VALUES = {
    "model.n_layres=3": ["model has no 'n_layres'", "n_layer, n_head", "did you mean n_layer?"],
    "+model.n_heads=3": ["model has no 'n_heads'", "did you mean n_head?"],
    "modle.n_layer=3": ["there is no 'modle'", "did you mean model.n_layer?"],
    "optimizer.n_layer=3": ["optimizer has no 'n_layer'", "did you mean model.n_layer?"],
    "tokenizer.lowercase=true": ["tokenizer has no 'lowercase'", "tokenizer=word has it"],
    "task.target=a:b": ["task has no 'target'", "task=custom has it"],
    "callbacks.early_stopping.patience=3": ["callbacks holds nothing", "write callbacks=[early_stopping]"],
    "seed.x=1": ["seed is a single value"],
    "seed=x": ["expected a whole number, got 'x', e.g. seed=1234"],
    "model.n_layer=null": ["expected a whole number, got 'null', e.g. model.n_layer=4"],
    "trainer.max_steps=1.5": ["expected a whole number or null, got '1.5'"],
    "model.tie_embeddings=maybe": ["expected true or false, got 'maybe', e.g. model.tie_embeddings=true"],
    "optimizer.lr=fast": ["expected a number, got 'fast'"],
    "logger.tags=5": ["expected a list such as [a,b], got '5'"],
    "+seed=3": ["seed is there already", "without the +"],
    "~model.n_layer": ["can't be taken away", "model.n_layer=..."],
    "model@other=llama_tiny": ["write model=llama_tiny"],
    "seed=[1": ["can't be read as an override", "quote it"],
    "seed": ["can't be read as an override", "write key=value"],
    "optimizer.lr=1e-3,1e-4": ["several values make a sweep", "give one value"],
    "scheduler=cosine,constant": ["several values make a sweep"],
    "hydra.run.dir=x": ["would have no effect", "run.root=..."],
    "optimizer=rprop": ["there is no optimizer=rprop", "adamw"],
    "model=gtp_tiny": ["there is no model=gtp_tiny", "llama_tiny", "did you mean gpt_tiny?"],
    "evaluation=[perplexity,perplexty]": ["there is no evaluation=perplexty", "did you mean perplexity?"],
    "data=null": ["data can't be null; expected one of", "stdlib"],
    "task=[language_modeling,custom]": ["task takes one option", "only in callbacks and evaluation"],
    "+tokenizer=byte": ["write tokenizer=byte, without the +"],
}


def test_every_wrong_override_is_told_on_a_line_of_its_own_with_its_fix() -> None:
    said = message(*VALUES).splitlines()
    assert len(said) == len(VALUES)
    for typed, told in VALUES.items():
        (line,) = [line for line in said if line.startswith(f"{typed}: ")]
        for part in told:
            assert part in line


CHECKS = {
    "model.n_head=5": ["model.d_model (128) must be divisible by model.n_head (5)", "try model.n_head=4"],
    "evaluation.perplexity.split=tets": ["evaluation.perplexity.split is 'tets'", "did you mean test?"],
    "trainer.max_tokens=9": ["trainer.max_steps=500", "add trainer.max_steps=null"],
    "run.name=a/b": ["run.name is 'a/b'", "letters, digits"],
    "logger.sync=${oc.env:NO_SUCH_VARIABLE}": ["logger.sync: the environment variable NO_SUCH_VARIABLE is not set"],
    "optimizer.lr=${nosuch}": ["optimizer.lr: ${nosuch} names no key"],
    "scheduler=custom": ["scheduler.target is not set", "my_pkg.module:ClassName", "-p my_pkg"],
}


def test_every_nodes_failed_check_is_told() -> None:
    said = message(*CHECKS).splitlines()
    assert len(said) == len(CHECKS)
    for told in CHECKS.values():
        assert any(all(part in line for part in told) for line in said)


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("checkpoint.monitor=validation/los", "validation/accuracy; did you mean validation/loss?"),
        ("model=null", "task=language_modeling needs a model, got model=null; choose one, e.g. model=gpt_tiny"),
        ("trainer.accumulate_grad_batches=3", "try data.batch_size=9"),
    ],
)
def test_an_impossible_combination_is_told_with_its_fix(typed: str, told: str) -> None:
    assert told in message(typed)


def test_an_override_is_shown_as_it_was_typed() -> None:
    assert message("data.path=it's").startswith("data.path=it's: data has no 'path'")
    assert "data=text_files and data=json_lines" in message("data.path=it's")


@pytest.mark.parametrize("typed", ["model._target_=torch.nn.Linear", "+model._target_=torch.nn.Linear"])
def test_target_in_an_override_shows_the_custom_node(typed: str) -> None:
    said = message(typed)
    assert said.startswith(f"{typed}: config text never chooses code")
    assert "defaults: [/schema/model@_here_: custom, _self_]" in said
    assert "lmexp -p my_pkg ... model=custom model.target=my_pkg.module:ClassName" in said


def test_every_error_is_named_once_and_the_sound_overrides_are_not() -> None:
    said = message(
        "model=gtp_tiny", "optimizer.lr=fast", "seed=7", "+trainer.max_stepz=3", "data.batch_size=0", "scheduler=cosine"
    ).splitlines()
    assert [line.split(" ")[0] for line in said] == [
        "model=gtp_tiny:",
        "optimizer.lr=fast:",
        "+trainer.max_stepz=3:",
        "data.batch_size",
    ]


def test_two_failed_checks_of_one_node_are_both_told() -> None:
    said = message("data.batch_size=0", "data.sequence_length=0", "model.n_head=5").splitlines()
    assert sorted(line.partition(" ")[0] for line in said) == [
        "data.batch_size",
        "data.sequence_length",
        "model.d_model",
    ]


def test_a_wrong_target_is_told_once_not_also_as_missing() -> None:
    assert len(message("model=custom", "model.target=nonsense").splitlines()) == 1


def test_other_commands_say_what_they_lack() -> None:
    assert "run is not set" in message(command="evaluate")
    assert message("run=x", "model=gpt_tiny", command="generate").startswith("model=gpt_tiny: there is no 'model'")
    assert "expected best, latest or the number of a step" in message("run=x", "weights=bst", command="evaluate")


SCHEMA = "defaults: [/schema/model@_here_: gpt, _self_]\n"


@pytest.mark.parametrize(
    ("option", "text", "line", "told"),
    [
        ("model/x", f"# mine\n{SCHEMA}n_layer: 2\nn_layres: 3\n", 4, "model has no 'n_layres'"),
        ("model/x", f"{SCHEMA}\nn_layer: two\n", 3, "model.n_layer: expected a whole number, got 'two'"),
        ("model/x", f"{SCHEMA}n_layer: [2\nn_head: 3\n", 3, "this is not YAML"),
        ("model/x", f"{SCHEMA}_target_: torch.nn.Linear\n", 2, "defaults: [/schema/model@_here_: custom, _self_]"),
        ("model/x", "_target_: torch.nn.Linear\n", 1, "config text never chooses code"),
        ("model/x", "n_layer: 2\n", 1, "begin it with `defaults: [/schema/model@_here_: gpt, _self_]`"),
        ("model/x", "# mine\ndefaults: [/schema/model@_here_: gtp, _self_]\n", 2, "did you mean gpt?"),
        ("model/x", f"{SCHEMA[:-2]}, override /tokenizer: word]\n", 1, "override /tokenizer@_global_.tokenizer:"),
        ("model/x", f"{SCHEMA}d_model: 64\nn_head: 5\n", 2, "model.d_model (64) must be divisible by model.n_head (5)"),
        ("model/x", f"{SCHEMA}n_layer: ${{oc.env:NO_SUCH}}\n", 2, "the environment variable NO_SUCH is not set"),
        ("experiment/x", "# @package _global_\nsede: 3\n", 2, "did you mean seed?"),
        ("experiment/x", "# @package _global_\noptimizer:\n  lrr: 3\n", 3, "optimizer has no 'lrr'"),
        (
            "experiment/x",
            "# @package _global_\ndefaults:\n  - override /model: lama_tiny\n",
            3,
            "did you mean llama_tiny?",
        ),
        ("experiment/x", "# @package _global_\ndefaults:\n  - override /modle: gpt_tiny\n", 3, "did you mean model?"),
        ("experiment/x", "seed: 3\n", None, "its first line must be `# @package _global_`"),
    ],
    ids=[
        "unknown key",
        "wrong type",
        "not YAML",
        "_target_",
        "_target_ alone",
        "no kind",
        "unknown kind",
        "override without its place",
        "impossible combination",
        "missing variable",
        "unknown root key",
        "unknown inner key",
        "unknown option",
        "unknown group",
        "no package line",
    ],
)
def test_an_error_in_a_users_file_names_file_line_and_key(
    write: Write, compose_with: Compose, option: str, text: str, line: int | None, told: str
) -> None:
    path = write(option, text)
    with pytest.raises(ConfigError) as caught:
        compose_with(option.replace("/", "="))
    said = str(caught.value)
    assert told in said
    assert f"{path}:{line}" in said if line else f"{path}:" in said


def test_an_experiment_that_sets_a_field_of_a_dropped_evaluation_is_explained(
    write: Write, compose_with: Compose
) -> None:
    for number, field in enumerate(("split: validation", "batch_size: 3")):
        path = write(f"experiment/x{number}", f"# @package _global_\nevaluation:\n  perplexity:\n    {field}\n")
        with pytest.raises(ConfigError) as caught:
            compose_with(f"experiment=x{number}", "evaluation=[baselines]")
        key = f"evaluation.perplexity.{field.partition(':')[0]}"
        assert f"{key} is set, but evaluation doesn't hold perplexity" in str(caught.value)
        assert f"{path}:4" in str(caught.value)


def test_an_evaluation_file_without_its_package_line_is_explained(write: Write, compose_with: Compose) -> None:
    path = write("evaluation/mine", "defaults: [/schema/evaluation@_here_: perplexity, _self_]\nsplit: validation\n")
    with pytest.raises(ConfigError) as caught:
        compose_with("evaluation=[mine]")
    assert str(caught.value).startswith(f"{path}: evaluation holds several by name")
    assert "`# @package evaluation.mine`" in str(caught.value)


def test_errors_of_several_files_and_overrides_come_together(write: Write, compose_with: Compose) -> None:
    first = write("model/x", f"{SCHEMA}n_layres: 3\n")
    second = write("experiment/y", "# @package _global_\noptimizer:\n  lrr: 3\n")
    with pytest.raises(ConfigError) as caught:
        compose_with("model=x", "experiment=y", "seed=z")
    said = str(caught.value).splitlines()
    assert [line.partition(": ")[0] for line in said] == [f"{first}:2", f"{second}:3", "seed=z"]


EIGHT = {
    "model=gtp_tiny": "did you mean gpt_tiny?",
    "optimizer.lrr=3e-4": "did you mean lr?",
    "+scheduler.warmup=3": "did you mean warmup_steps?",
    "seed=x": "expected a whole number, got 'x'",
    "data.batch_size=0": "data.batch_size is 0; expected at least 1",
    "model.n_head=5": "model.n_head (5)",
    "trainer.precision=8": "trainer.precision is '8'; expected one of 32",
    "evaluation=[perplexty]": "did you mean perplexity?",
}


def test_eight_planted_errors_come_in_one_message_quickly_and_without_torch(tmp_path: Path) -> None:
    """Two seconds are promised; benchmarks/startup.py measures, this only catches an import of torch or worse."""
    begin = time.monotonic()
    done = subprocess.run(
        command("train", *EIGHT), cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60
    )
    seconds = time.monotonic() - begin
    print(f"eight planted errors named in {seconds:.2f} s")
    assert done.returncode == 2
    for told in EIGHT.values():
        assert done.stderr.count(told) == 1
    assert len(done.stderr.splitlines()) == 1 + len(EIGHT)
    assert list(tmp_path.iterdir()) == []
    assert seconds < 5


def test_no_error_path_imports_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from lmexp.cli.main import main; "
        f"code = main(['train', *{list(EIGHT)}]); sys.exit(code if 'torch' not in sys.modules else 99)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL)
    assert done.returncode == 2
