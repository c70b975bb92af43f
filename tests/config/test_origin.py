"""`from=RUN`: a run's frozen config is what a command begins with, and everything of Hydra works on top of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore

from lmexp.cli.completion import completions
from lmexp.config.compose import Composed, compose, composer
from lmexp.config.explain import explain
from lmexp.config.freeze import plain_config, to_config
from lmexp.errors import ConfigError, RunError
from tests.config.test_freeze import CUSTOM, EXPERIMENTS, GROUPS, MIXTURE, change, frozen

Write = Callable[[str, str], Path]


def run_with(folder: Path, *overrides: str, cwd: Path | None = None) -> Path:
    """A run folder that holds run.json only."""
    run_dir = folder / "runs" / "20260101-000000-x-abcdef"
    run_dir.mkdir(parents=True)
    frozen(run_dir, *overrides)
    change(run_dir, cwd=str(cwd or Path.cwd()))
    return run_dir


def refused(*overrides: str) -> str:
    """What is wrong with overrides."""
    with pytest.raises((ConfigError, RunError)) as caught:
        compose([*overrides])
    return str(caught.value)


@pytest.mark.parametrize("overrides", [[], CUSTOM, GROUPS, MIXTURE, *EXPERIMENTS], ids=lambda o: (o or ["default"])[0])
def test_without_overrides_the_config_is_the_runs(tmp_path: Path, overrides: list[str]) -> None:
    run_dir = run_with(tmp_path, *overrides, "seed=7", "run.folder=mine")
    before = compose([*overrides, "seed=7", "run.folder=mine"]).config
    before.run.name = "x"  # what the record says
    composed = compose([f"from={run_dir}"])
    assert composed.config == before
    assert composed.from_run == run_dir.name
    assert composed.overrides == [f"from={run_dir}"]
    assert to_config("train", json.loads(json.dumps(plain_config(composed.node)))) == before


def test_values_groups_and_lists_override_a_run(tmp_path: Path) -> None:
    run_dir = run_with(tmp_path, "model=gpt_tiny", "optimizer.weight_decay=0.3", "callbacks=[early_stopping]", "seed=7")
    config = compose(
        [
            f"from={run_dir}",
            "optimizer.lr=1e-4",
            "model=llama_tiny",
            "model.n_layer=2",
            "callbacks.early_stopping.patience=9",
            "evaluation=[perplexity]",
            "trainer=gpu",
        ]
    ).config
    assert (config.optimizer.lr, config.optimizer.weight_decay, config.seed) == (1e-4, 0.3, 7)
    assert (config.model.norm, config.model.n_layer) == ("rms_norm", 2)
    assert config.callbacks["early_stopping"].patience == 9
    assert list(config.evaluation) == ["perplexity"]
    assert config.trainer.precision == "bf16-mixed"
    assert list(compose([f"from={run_dir}", "callbacks=[]"]).config.callbacks) == []


def test_an_experiment_overrides_the_run_and_a_typed_value_both(
    tmp_path: Path, write: Write, compose_with: Callable[..., Composed]
) -> None:
    run_dir = run_with(tmp_path, "model=llama_tiny", "optimizer.lr=0.5", "seed=7")
    write(
        "experiment/x",
        "# @package _global_\ndefaults: [{override /model: gpt_tiny}]\nseed: 9\nmodel: {n_layer: 3}\n"
        "optimizer: {lr: 0.25}\n",
    )
    config = compose_with(f"from={run_dir}", "experiment=x", "model.n_layer=5").config
    assert (config.seed, config.model.norm, config.model.n_layer) == (9, "layer_norm", 5)
    assert config.optimizer.lr == 0.25
    assert (config.run.name, config.run.folder) == ("x", "x")


def test_the_new_run_lies_beside_the_old_one_unless_it_is_named(tmp_path: Path) -> None:
    run_dir = run_with(tmp_path, "run.folder=study", "run.name=x")
    named = compose([f"from={run_dir}", "model=gpt_tiny"]).config.run
    assert (named.name, named.folder) == ("x", "study")
    named = compose([f"from={run_dir}", "run.name=wide"]).config.run
    assert (named.name, named.folder) == ("wide", "study")


def test_parts_of_a_mixture_are_changed_replaced_and_added(tmp_path: Path) -> None:
    run_dir = run_with(tmp_path, *MIXTURE)
    config = compose(
        [
            f"from={run_dir}",
            "data.parts.books.document=line",
            "data@data.parts.code=csv",
            "data.parts.code.path=x.csv",
            "+data@data.parts.more=synthetic",
            "data.weights.more=2",
        ]
    ).config
    kinds = {name: part.kind for name, part in config.data.parts.items()}
    assert kinds == {"code": "csv", "books": "text_files", "more": "synthetic"}
    assert (config.data.parts["books"].document, config.data.parts["books"].path) == ("line", "my books/${x}.txt")
    assert config.data.weights == {"books": 3.0, "more": 2.0}


def test_text_from_the_environment_stays_a_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PLACE", "here")
    run_dir = run_with(tmp_path, "data=text_files", "data.path='${oc.env:MY_PLACE}/x.txt'")
    monkeypatch.setenv("MY_PLACE", "there")
    composed = compose([f"from={run_dir}"])
    assert composed.config.data.path == "there/x.txt"
    assert plain_config(composed.node)["data"]["path"] == "${oc.env:MY_PLACE}/x.txt"


def test_a_relative_path_means_the_same_file_wherever_it_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "${there}"
    run_dir = run_with(
        tmp_path, "data=text_files", "data.path=x.txt", "tokenizer=saved", "tokenizer.path=/t.json", cwd=there
    )
    config = compose([f"from={run_dir}", "data.cache_dir=cache"]).config
    assert (config.data.path, config.tokenizer.path) == (f"{there}/x.txt", "/t.json")
    assert config.data.cache_dir == "cache", "what is typed begins where it is typed"
    there.mkdir()
    monkeypatch.chdir(there)
    assert compose([f"from={run_dir}"]).config.data.path == "x.txt"


def test_a_name_on_the_hub_is_no_path(tmp_path: Path) -> None:
    run_dir = run_with(tmp_path, "data=hf", "data.path=someone/corpus", cwd=tmp_path)
    assert compose([f"from={run_dir}"]).config.data.path == "someone/corpus"
    (tmp_path / "someone/corpus").mkdir(parents=True)
    assert compose([f"from={run_dir}"]).config.data.path == str(tmp_path / "someone/corpus")


def test_every_mistake_is_named_with_the_line_of_run_json_that_it_clashes_with(tmp_path: Path) -> None:
    run_dir = run_with(tmp_path, "model.d_model=32", "model.n_head=4")
    told = refused(
        f"from={run_dir}",
        "model.n_layres=3",
        "optimizer.lr=fast",
        "evaluation=[perplexty]",
        "model.d_model=30",
        "scheduler=cosin",
    )
    for part in (
        "did you mean n_layer?",
        "optimizer.lr=fast: expected a number",
        "did you mean perplexity?",
        "did you mean cosine?",
        "model.d_model (30) must be divisible by model.n_head (4)",
    ):
        assert part in told
    lines = (run_dir / "run.json").read_text().splitlines()
    number = next(n for n, line in enumerate(lines, start=1) if '"n_head": 4' in line)
    assert f"{run_dir / 'run.json'}:{number} sets model.n_head" in told


def test_what_a_choice_takes_away_is_brought_back_by_name(tmp_path: Path) -> None:
    run_dir = run_with(tmp_path, "model.n_layer=3")
    task = ["task=custom", "task.target=my_pkg:Net", "tokenizer=from_run"]
    told = refused(f"from={run_dir}", *task, "model.n_head=2")
    assert told == "model.n_head=2: model is null here, so it has no 'n_head'; choose model=... first"
    model = compose([f"from={run_dir}", *task, "model=from_run", "model.n_head=2"]).config.model
    assert (model.n_layer, model.n_head) == (3, 2)


def test_explain_says_that_a_value_is_the_runs(tmp_path: Path) -> None:
    run_dir = run_with(tmp_path, "model.n_layer=3")
    lines = (run_dir / "run.json").read_text().splitlines()
    number = next(n for n, line in enumerate(lines, start=1) if '"n_layer": 3' in line)
    told = [line.split() for line in explain("model.n_layer", [f"from={run_dir}"]).splitlines()]
    assert told[0] == ["model.n_layer", "=", "3"]
    assert told[-1] == ["file", "3", f"{run_dir / 'run.json'}:{number}"]
    told = [line.split() for line in explain("model.n_layer", [f"from={run_dir}", "model=gpt_tiny"]).splitlines()]
    assert told[-1] == ["typed", "model=gpt_tiny"]
    assert not [words for words in told if words[-1].startswith(str(run_dir))], "the run's model was replaced"


def test_a_run_that_is_none_is_told(tmp_path: Path) -> None:
    run_dir = run_with(tmp_path)
    assert f"did you mean {run_dir.name}?" in refused(f"from={run_dir}x", "seed=1")
    assert "not a run folder, it holds no run.json" in refused(f"from={tmp_path}")
    for wrong in (["from="], [f"+from={run_dir}"], [f"from={run_dir}", f"from={run_dir}"]):
        assert "expected the folder of one run, from=outputs/" in refused(*wrong)


def test_from_is_a_word_of_the_command_line_only(write: Write, compose_with: Callable[..., Composed]) -> None:
    write("experiment/x", "# @package _global_\nfrom: somewhere\n")
    with pytest.raises(ConfigError, match="has no 'from'"):
        compose_with("experiment=x")
    with pytest.raises(ConfigError, match="from=x: there is no 'from'"):
        compose(["run=x", "from=x"], command="evaluate")


def test_packages_are_asked_for_with_the_whole_command(tmp_path: Path) -> None:
    run_dir = run_with(tmp_path)
    change(run_dir, plugins=["my_pkg"])
    assert f"lmexp -p my_pkg train from={run_dir} seed=3" in refused(f"from={run_dir}", "seed=3")


def test_nothing_of_a_run_is_left_behind(tmp_path: Path) -> None:
    run_dir = run_with(tmp_path, *MIXTURE)
    compose([f"from={run_dir}"])
    with pytest.raises(ConfigError):
        compose([f"from={run_dir}", "seed=x"])
    with composer("train") as composing:
        for group in composing.groups():
            assert not [name for name in composing.options(group) if "from_run" in name], group
    store: Any = ConfigStore.instance().repo
    assert "from_run.yaml" not in store


def test_completion_knows_the_run(tmp_path: Path) -> None:
    run_dir = run_with(tmp_path, "data=csv", "data.path=x")
    assert completions(f"lmexp train from={run_dir} data.delim") == ["data.delimiter="]
    assert set(completions(f"lmexp train from={run_dir} optimizer=")) >= {"optimizer=adam", "optimizer=from_run"}
