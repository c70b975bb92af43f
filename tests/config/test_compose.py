"""Configs: defaults, what beats what, and that they are closed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lmexp.config.compose import Composed, compose
from lmexp.config.overrides import literal_override
from lmexp.config.schema import COMMANDS
from lmexp.data.config import StdlibConfig, TextFilesConfig
from lmexp.errors import ConfigError
from lmexp.models.config import GPTConfig
from lmexp.tasks.config import CustomTaskConfig
from lmexp.tokenizers.config import ByteTokenizerConfig, WordTokenizerConfig

Compose = Callable[..., Composed]
Write = Callable[[str, str], object]

WITH_WORDS = "defaults: [/schema/model@_here_: gpt, _self_, override /tokenizer@_global_.tokenizer: word]\n"
NINE = "# @package _global_\nseed: 9\n"


def test_without_arguments_a_small_gpt_learns_the_standard_library() -> None:
    config = compose().config
    assert isinstance(config.data, StdlibConfig)
    assert isinstance(config.model, GPTConfig)
    assert (config.run.name, config.run.folder) == ("stdlib-llama_tiny", "stdlib-llama_tiny")


def test_a_group_and_a_value_typed_in_any_order() -> None:
    before, after = compose(["model=gpt_tiny", "model.n_layer=2"]), compose(["model.n_layer=2", "model=gpt_tiny"])
    assert before.config == after.config
    assert (before.config.model.n_layer, before.config.model.norm) == (2, "layer_norm")


def test_a_models_file_may_choose_its_tokenizer_and_a_typed_tokenizer_beats_it(
    write: Write, compose_with: Compose
) -> None:
    write("model/words", WITH_WORDS)
    assert isinstance(compose_with("model=words").config.tokenizer, WordTokenizerConfig)
    for overrides in (("model=words", "tokenizer=byte"), ("tokenizer=byte", "model=words")):
        assert isinstance(compose_with(*overrides).config.tokenizer, ByteTokenizerConfig)


def test_an_experiments_seed_counts_and_a_typed_seed_beats_it(write: Write, compose_with: Compose) -> None:
    write("experiment/nine", NINE)
    assert compose_with("experiment=nine").config.seed == 9
    assert compose_with("seed=3", "experiment=nine").config.seed == 3


def test_an_experiment_names_the_run_unless_a_name_is_typed(write: Write, compose_with: Compose) -> None:
    write("experiment/nine", NINE)
    named, typed = compose_with("experiment=nine").config.run, compose_with("experiment=nine", "run.name=me").config.run
    assert (named.name, named.folder) == ("nine", "nine")
    assert (typed.name, typed.folder) == ("me", "nine")


def test_an_experiments_groups_are_replaced_by_typed_ones(write: Write, compose_with: Compose) -> None:
    write("experiment/llama", "# @package _global_\ndefaults:\n  - override /model: llama_tiny\n")
    assert compose_with("experiment=llama").choices["model"] == "llama_tiny"
    assert compose_with("experiment=llama", "model=gpt_tiny").choices["model"] == "gpt_tiny"


def test_plus_experiment_is_understood() -> None:
    typed = ["data.path=input.txt"]
    assert (
        compose(["+experiment=shakespeare_char", *typed]).config
        == compose(["experiment=shakespeare_char", *typed]).config
    )


def test_several_evaluations_and_callbacks_or_none() -> None:
    config = compose(["evaluation=[perplexity]", "callbacks=[early_stopping]"]).config
    assert (list(config.evaluation), list(config.callbacks)) == (["perplexity"], ["early_stopping"])
    assert compose(["evaluation=null", "callbacks=null"]).config.evaluation == {}
    assert list(compose(["~evaluation.baselines"]).config.evaluation) == ["perplexity", "samples"]


def test_task_custom_drops_what_only_language_modeling_needs() -> None:
    config = compose(["task=custom", "task.target=my_pkg:Net", "data=custom", "data.target=my_pkg:Data"]).config
    assert isinstance(config.task, CustomTaskConfig)
    assert (config.tokenizer, config.model, config.optimizer, config.scheduler) == (None, None, None, None)
    assert config.evaluation == {}


def test_a_custom_task_may_keep_groups_and_drop_them_again() -> None:
    custom = ["task=custom", "task.target=my_pkg:Net", "data=custom", "data.target=my_pkg:Data"]
    kept = compose([*custom, "optimizer=adamw", "tokenizer=byte"]).config
    assert (kept.optimizer.kind, kept.tokenizer.kind) == ("adamw", "byte")
    assert compose([*custom, "optimizer=null", "model=null"]).config.optimizer is None


def test_arguments_of_a_class_of_ones_own_need_no_plus() -> None:
    custom = ["model=custom", "model.target=my_pkg:Net"]
    for typed in ("model.args.width=3", "+model.args.width=3", "model.args={width: 3}"):
        assert compose([*custom, typed]).config.model.args == {"width": 3}
    assert compose([*custom, "model.args.shape.depth=2"]).config.model.args == {"shape": {"depth": 2}}


@pytest.mark.parametrize(
    "path",
    ["my text.txt", "it's.txt", "a=b,c.txt", "C:\\it's\\", "x\\${y}", "[x]{y}*.txt", "${weird}.txt", "books/**/*.md"],
)
def test_a_path_is_taken_as_it_is_typed(path: str) -> None:
    data = compose(["data=text_files", f"data.path={path}"]).config.data
    assert isinstance(data, TextFilesConfig)
    assert data.path == path


def test_quotes_around_a_path_are_hydras() -> None:
    assert literal_override("data.path='a b'") == "data.path='a b'"


@pytest.mark.parametrize(("typed", "devices", "world"), [("4", 4, 4), ("[0,1]", [0, 1], 2), ("'0,2'", [0, 2], 2)])
def test_devices_are_a_number_or_a_list(typed: str, devices: object, world: int) -> None:
    trainer = compose([f"trainer.devices={typed}"]).config.trainer
    assert (trainer.devices, trainer.world_size()) == (devices, world)


@pytest.mark.parametrize(("typed", "precision"), [("32", "32-true"), ("bf16", "bf16-mixed"), ("64-true", "64-true")])
def test_precision_may_be_short(typed: str, precision: str) -> None:
    assert compose([f"trainer.precision={typed}"]).config.trainer.precision == precision


@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_every_node_is_closed_also_for_keys_with_a_plus(prefix: str) -> None:
    nodes = ("model", "trainer", "evaluation.perplexity", "run", "checkpoint")
    with pytest.raises(ConfigError) as caught:
        compose([f"{prefix}nonsense=1", *(f"{prefix}{node}.nonsense=1" for node in nodes)])
    found = str(caught.value).splitlines()
    assert found[0].startswith(f"{prefix}nonsense=1: there is no 'nonsense'")
    for line, node in zip(found[1:], nodes, strict=True):
        assert line.startswith(f"{prefix}{node}.nonsense=1: {node} has no 'nonsense'; it has ")


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_is_closed(command: str) -> None:
    with pytest.raises(ConfigError, match="nonsense=1: there is no 'nonsense'"):
        compose(["nonsense=1"], command=command)


def test_a_kind_cant_be_changed_apart_from_its_fields(write: Write, compose_with: Compose) -> None:
    with pytest.raises(ConfigError, match=r"model\.kind is 'custom'.*choose a kind by its group, model="):
        compose(["model.kind=custom"])
    write("model/odd", "defaults: [/schema/model@_here_: gpt, _self_]\nkind: custom\n")
    with pytest.raises(ConfigError, match=r"odd\.yaml:2 sets model\.kind"):
        compose_with("model=odd")


def test_config_dirs_extend_the_groups_and_a_missing_one_is_named(write: Write, compose_with: Compose) -> None:
    write("optimizer/hot", "defaults: [/schema/optimizer@_here_: adamw, _self_]\nlr: 0.5\n")
    assert compose_with("optimizer=hot").config.optimizer.lr == 0.5
    with pytest.raises(ConfigError, match="--config-dir nowhere: there is no such folder"):
        compose(config_dirs=["nowhere"])


def test_composing_twice_gives_equal_and_separate_configs() -> None:
    first, second = compose(["model=llama_tiny"]).config, compose(["model=llama_tiny"]).config
    assert first == second
    first.model.n_layer = 99
    assert second.model.n_layer != 99
