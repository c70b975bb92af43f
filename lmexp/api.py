"""lmexp from Python: the same things the commands do."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmexp import plugins
from lmexp.config import compose as composing
from lmexp.config.schema import TrainConfig
from lmexp.errors import Stopped

if TYPE_CHECKING:
    from lmexp.data.cache import TokenCache
    from lmexp.evaluation.row import Row
    from lmexp.runs.compare import Comparison
    from lmexp.runs.load import LoadedModel

Say = Callable[[str], None]

PATIENCE = 30.0
"""Seconds that a resume waits for what is left of a killed run."""


@dataclass(kw_only=True, slots=True)
class Run:
    """A run folder and what it holds."""

    path: Path

    @property
    def state(self) -> str:
        """created, running, killed, done, failed, preempted or interrupted."""
        from lmexp.runs.folder import state_now

        return state_now(self.path)

    @property
    def config(self) -> TrainConfig:
        """The frozen config."""
        from lmexp.config.freeze import read_record

        config: TrainConfig = read_record(self.path).config
        return config

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl."""
        from lmexp.paths import METRICS_JSONL
        from lmexp.tracking.rows import read_rows

        return read_rows(self.path / METRICS_JSONL)

    def summary(self) -> list[Row]:
        """The rows of the evaluation after training."""
        from lmexp.evaluation.row import read_summary
        from lmexp.paths import EVALUATION_DIR, SUMMARY_JSON

        return read_summary(self.path / EVALUATION_DIR / SUMMARY_JSON).rows

    def load(self, weights: str = "best") -> LoadedModel:
        """The trained model."""
        from lmexp.runs.load import load

        return load(self.path, weights=weights)


def compose(overrides: list[str] | None = None, *, config_dirs: list[str] | None = None) -> TrainConfig:
    """The typed, checked config that `lmexp train OVERRIDES` would run. Raises ConfigError."""
    config: TrainConfig = composing.compose(overrides, config_dirs=config_dirs).config
    return config


def train(config: TrainConfig, *, say: Say = print) -> Run:
    """Train, evaluate and report, as `lmexp train` does. Changes to a config from compose() are checked again."""
    from lmexp.config.freeze import plain_dataclass, to_config, without_secrets

    plain = without_secrets(plain_dataclass(config))
    return start_and_launch(to_config("train", plain), plain, [], say)


def prepare(config: TrainConfig, *, say: Say = print) -> TokenCache:
    """The token cache that train(config) would use, made if need be, as `lmexp prepare` does."""
    from lmexp.config.freeze import plain_dataclass, to_config, without_secrets
    from lmexp.errors import ConfigError
    from lmexp.runs.data import prepare_data
    from lmexp.runs.work_progress import shown

    checked: TrainConfig = to_config("train", without_secrets(plain_dataclass(config)))
    with shown(say) as progress:
        cache = prepare_data(checked, progress)
    if cache is None:
        raise ConfigError(
            f"data={checked.data.kind} is a data module of your own, which makes its own batches: there is nothing to "
            f"prepare; choose a corpus, e.g. data=text_files data.path=FOLDER"
        )
    return cache


def start_and_launch(
    config: TrainConfig, plain: dict[str, Any], overrides: list[str], say: Say, *, from_run: str | None = None
) -> Run:
    """Freeze a new run and bring it to its end. from_run: id of the run whose config it began with."""
    from lmexp.runs.start import start

    run_dir = start(config, plain, overrides, say, from_run=from_run)
    with _telling_how_to_go_on(run_dir):
        say(f"run: {run_dir}")
        return _launch(run_dir, config)


def resume(path: str | Path, overrides: list[str] | None = None, *, allow_changed_data: bool = False) -> Run:
    """Go on with a run where it stopped, or with one that is done to a further horizon.

    overrides: of horizon, devices, nodes, launcher and logger, e.g. ["trainer.max_steps=2000"].
    allow_changed_data: read the corpus as it is now, and go on with it even where it has changed.
    """
    from lmexp.config.changes import change
    from lmexp.config.freeze import read_record, require_plugins
    from lmexp.runs.data import accept_changed_data, reopen_data
    from lmexp.runs.execute import finish
    from lmexp.runs.folder import lock, read_state, stand_where_made
    from lmexp.runs.ranks import Ranks
    from lmexp.runs.resume import change_run, refuse_done
    from lmexp.runs.start import check_custom
    from lmexp.runs.work_progress import shown

    run_dir, changes = Path(path).absolute(), [*(overrides or [])]
    flags = ["--allow-changed-data"] if allow_changed_data else []
    require_plugins(run_dir, shlex.join(["resume", str(path), *changes, *flags]))
    record = read_record(run_dir)
    composed = change(Path(path), changes) if changes else None
    config: TrainConfig = composed.config if composed is not None else record.config
    check_custom(config)
    config.launcher.check(config.trainer)
    state = read_state(run_dir)
    lacks_report = (state.state, state.phase) == ("done", "evaluating")
    if changes or not lacks_report:
        refuse_done(Path(path), config, changes)
    stand_where_made(run_dir, record)
    with _telling_how_to_go_on(run_dir):
        if lacks_report and not changes:
            with lock(run_dir, patience=PATIENCE):
                finish(run_dir, record)
            return Run(path=run_dir)
        # What is wrong with the data is said before processes are started.
        with lock(run_dir, patience=PATIENCE), shown(print) as progress:
            if allow_changed_data:
                record = accept_changed_data(run_dir, record, progress)
            cache = reopen_data(run_dir, record, Ranks(), progress)
            if composed is not None:
                change_run(run_dir, record, composed, cache, changes, typed=Path(path), say=progress.say)
        return _launch(run_dir, config)


def evaluate(run: str | Path, overrides: list[str] | None = None) -> list[Row]:
    """Measure a run's model again, as `lmexp evaluate run=RUN OVERRIDES` does."""
    return evaluate_composed(composing.compose([f"run={run}", *(overrides or [])], command="evaluate"))


def evaluate_composed(composed: composing.Composed) -> list[Row]:
    """Freeze the request, have it worked on, and read its rows."""
    from lmexp.evaluation.row import read_summary
    from lmexp.runs import requests

    config = composed.config
    config.launcher.check(config.trainer)
    request = requests.freeze_evaluation(composed)
    config.launcher.launch(request, Path(config.run), config.trainer.world_size(), requests.work)
    return read_summary(request.with_name(request.name.replace(".request.json", ".json"))).rows


def compare(
    *sides: str | Path | Sequence[str | Path],
    evaluations: Sequence[str] = (),
    primary: Sequence[str] = (),
    margin: float | None = None,
    margins: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare runs sample by sample, as `lmexp compare` does: each side with the first.

    A side is a run, a folder of runs, or a list of these: several seeds of one config.
    evaluations: those to compare, by default all that every run has. primary: figures to decide by, such as "acc" or
    "csqa/acc", by default the first of each evaluation. margin: the largest difference of a primary figure that
    doesn't matter; margins: the same of figures by name. Without one, "no difference" is never concluded.
    """
    from lmexp.evaluation.conclusions import Declared
    from lmexp.runs.compare import compare_runs

    paths = [[Path(side)] if isinstance(side, str | Path) else [Path(path) for path in side] for side in sides]
    declared = Declared(primary=tuple(primary), margin=margin, margins=dict(margins or {}))
    return compare_runs(paths, declared, evaluations=evaluations, seed=seed)


def trust(packages: list[str]) -> None:
    """What -p does on the command line: import these packages and allow their classes in configs."""
    plugins.trust(packages)


def _launch(run_dir: Path, config: TrainConfig) -> Run:
    from lmexp.runs import requests

    config.launcher.launch(run_dir, run_dir, config.trainer.world_size(), requests.work)
    return Run(path=run_dir)


@contextmanager
def _telling_how_to_go_on(run_dir: Path) -> Iterator[None]:
    """Print the command that goes on with a run where a signal stops it."""
    try:
        yield
    except (Stopped, KeyboardInterrupt) as stopped:
        packages = "".join(f"-p {name} " for name in plugins.trusted())
        print(f"{str(stopped) or 'stopped'}; go on with: lmexp {packages}resume {run_dir}", flush=True)
        raise
