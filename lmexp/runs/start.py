"""Make a run: check what only running code can check, prepare its data, create its folder and freeze run.json."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmexp import __version__, plugins
from lmexp.config.freeze import RunRecord, plain_dataclass, without_secrets, write_config_yaml, write_record
from lmexp.data.config import CorpusConfig
from lmexp.errors import ConfigError, DataError, RunError
from lmexp.evaluation.benchmarks.config import BenchmarkConfig
from lmexp.evaluation.config import EvaluationConfig
from lmexp.models.config import HFConfig
from lmexp.paths import DATA_CARD_HTML, TOKENIZER_JSON, default_root
from lmexp.redaction import redact_text, secret_variables
from lmexp.runs import folder
from lmexp.runs.data import prepare_data
from lmexp.runs.items import write_items
from lmexp.runs.work_progress import shown
from lmexp.tasks.config import CustomTaskConfig, TaskConfig

if TYPE_CHECKING:
    from lmexp.config.schema import TrainConfig
    from lmexp.data.cache import TokenCache


def start(
    config: TrainConfig,
    plain: dict[str, Any],
    overrides: list[str],
    say: Callable[[str], None],
    *,
    from_run: str | None = None,
) -> Path:
    """A new run folder, ready to be executed. What is wrong with the data is said before there is a folder.

    plain: the config as run.json shall hold it; overrides: what was typed, for the record; from_run: id of the run
    whose config it began with.
    """
    plain = without_secrets(plain)
    check_custom(config)
    check_names(plain)
    check_writable(Path(config.run.root or default_root()))
    config.launcher.check(config.trainer)
    items = check_items(config.evaluation, config.task)
    _check_places(config)
    with shown(say) as progress:
        cache = prepare_data(config, progress)
    if cache is not None:
        say(f"data card: {cache.path / DATA_CARD_HTML}")
    _check_data_of_evaluations(config, cache)
    plain = _with_architecture(config, plain, cache)
    weights = _initial_weights(config, cache)
    assert config.run.name is not None and config.run.folder is not None, "compose names the run"
    run_dir = folder.create(Path(config.run.root or default_root()), config.run.folder, config.run.name)
    record = RunRecord(
        run_id=run_dir.name,
        experiment=run_dir.parent.name,
        name=config.run.name,
        created=folder.now(),
        lmexp=__version__,
        cwd=str(Path.cwd()),
        overrides=[redact_text(o) for o in overrides],
        plugins=plugins.trusted(),
        wandb_id=secrets.token_hex(4),
        data_fingerprints=[] if cache is None else [cache.fingerprint],
        from_run=from_run,
        initial_weights=weights,
        config=config,
    )
    write_config_yaml(run_dir, plain)
    write_items(run_dir, items)
    if cache is not None:
        cache.tokenizer.save(run_dir / TOKENIZER_JSON)
    write_record(run_dir, record, plain)  # the last: a folder that holds it can be resumed
    return run_dir


def _check_places(config: TrainConfig) -> None:
    """An error where the model's files aren't where the config says: said before the data are prepared."""
    if config.model is not None and config.model.init_from is not None:
        from lmexp.training import initial_weights

        initial_weights.check_place(config)
    if isinstance(config.model, HFConfig):
        from lmexp.models import hf_folder

        folder = hf_folder.find(config.model)
        if folder is not None:
            hf_folder.read_config(folder)
            if config.model.starts_from_path:
                hf_folder.weight_files(folder)


def _with_architecture(config: TrainConfig, plain: dict[str, Any], cache: TokenCache | None) -> dict[str, Any]:
    """plain with the whole architecture of a Hugging Face model, which config has too afterwards."""
    if not isinstance(config.model, HFConfig):
        return plain
    if cache is None or not isinstance(config.data, CorpusConfig):
        raise ConfigError(
            "model=hf is for a corpus of lmexp; with data=custom let your LightningModule make its model, model=null"
        )
    from lmexp.models.hf_architecture import resolve

    config.model.resolved = resolve(
        config.model,
        vocab_size=cache.tokenizer.vocab_size,
        sequence_length=config.data.sequence_length,
        eos_id=cache.tokenizer.eos_id,
    )
    resolved = plain_dataclass(config.model)["resolved"]
    return {**plain, "model": {**plain["model"], "resolved": resolved}}


def _initial_weights(config: TrainConfig, cache: TokenCache | None) -> dict[str, str] | None:
    """What run.json keeps of the weights that aren't drawn, which have been found to fit; None where all are.

    Of a Hugging Face model it is also found out here whether it can be trained on these windows.
    """
    if config.model is None or (config.model.init_from is None and not isinstance(config.model, HFConfig)):
        return None
    if cache is None:
        raise ConfigError(
            "model.init_from needs a model that lmexp builds, for a corpus of lmexp; with data=custom let your "
            "LightningModule load its weights"
        )
    from lmexp.training import initial_weights
    from lmexp.training.trainer import build_model

    model = build_model(config, cache.tokenizer.vocab_size)
    weights = None
    if initial_weights.wanted(config, resumed=False):
        weights = initial_weights.check(config, cache.tokenizer, model)
    if isinstance(config.model, HFConfig):
        from lmexp.models.hf import HFModel

        assert isinstance(model, HFModel) and isinstance(config.data, CorpusConfig)
        model.check(packed=config.data.sequence_length if config.data.windows == "packed" else None)
    return weights


def _check_data_of_evaluations(config: TrainConfig, cache: TokenCache | None) -> None:
    """DataError where an evaluation during training would find nothing to measure; at the end a row says so."""
    from lmexp.evaluation.context import choose_split

    during = {name: one for name, one in config.evaluation.items() if one.every_n_steps is not None}
    for name, evaluation in during.items():
        try:
            for split in evaluation.needs():
                choose_split(cache, split)
        except DataError as error:
            raise DataError(
                f"evaluation.{name}.every_n_steps={evaluation.every_n_steps}: there is nothing to evaluate: {error}"
            ) from None
        # check_items looks at benchmarks
        known = evaluation.kind == "custom" or isinstance(evaluation, BenchmarkConfig)
        if not known and hasattr(built := evaluation.build(), "check"):
            built.check(name)


def check_items(evaluations: dict[str, EvaluationConfig], task: TaskConfig) -> dict[str, str]:
    """Digest of what each evaluation of files asks, by name; ConfigError or DataError where it can't be read."""
    found = {}
    for name, node in evaluations.items():
        if isinstance(node, BenchmarkConfig):
            if isinstance(task, CustomTaskConfig):
                raise ConfigError(
                    f"evaluation.{name} needs lmexp's tokenizer and model, and task=custom has its own; leave it out: "
                    f"~evaluation.{name}"
                )
            found[name] = node.build().check(name)
    return found


def check_names(plain: dict[str, Any]) -> None:
    """Raise ConfigError where a secret would name the run; plain: without secrets."""
    for key, value in plain["run"].items():
        for variable in secret_variables():
            if isinstance(value, str) and f"oc.env:{variable}}}" in value:
                raise ConfigError(
                    f"run.{key} holds the secret of the environment variable {variable}, and it would be shown as the "
                    f"name of a folder; give another name, e.g. run.{key}=my_run"
                )


def check_writable(root: Path) -> None:
    """Raise RunError where no run folder could be made; makes nothing itself."""
    above = root.absolute()
    while not above.exists():
        above = above.parent
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        what = "can't be written to" if above.is_dir() else "is a file"
        raise RunError(
            f"run.root={root}: expected a folder for runs, but {above} {what}; "
            f"choose a folder that you can write to with run.root=... or LMEXP_OUTPUTS"
        )


def check_custom(config: TrainConfig) -> None:
    """Resolve every custom node now, so that a wrong name fails here and not on a cluster."""
    nodes = {name: getattr(config, name) for name in ("data", "tokenizer", "model", "task", "optimizer", "scheduler")}
    nodes |= {f"callbacks.{name}": node for name, node in config.callbacks.items()}
    check_targets(nodes | {f"evaluation.{name}": node for name, node in config.evaluation.items()})
    if not isinstance(config.task, CustomTaskConfig):
        return
    if config.trainer.max_tokens is not None and not isinstance(config.data, CorpusConfig):
        raise ConfigError("trainer.max_tokens needs a corpus of lmexp; with data=custom use trainer.max_steps")
    if config.trainer.compile:
        raise ConfigError(
            "trainer.compile=true compiles lmexp's own models only; compile yours in its __init__, or leave it out"
        )
    for group in ("model", "optimizer", "scheduler"):
        if getattr(config, group) is not None and not plugins.takes("task", config.task.target, group):
            raise ConfigError(
                f"{group} is chosen, but {config.task.target} has no parameter {group!r} and would ignore it; "
                f"add the parameter, or drop it with {group}=null"
            )


def check_targets(nodes: dict[str, Any]) -> None:
    """Raise ConfigError unless every custom node names a class of a trusted package and only arguments that it has."""
    for where, node in nodes.items():
        if node is not None and node.kind == "custom":
            plugins.check_names(where, plugins.resolve(where, node.target), node.args)
