"""Configs of the loggers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmexp.checks import at_least, not_empty, one_of
from lmexp.errors import ConfigError

if TYPE_CHECKING:
    from lmexp.tracking.tracker import Tracker

SYNC = ("auto", "off")


@dataclass(kw_only=True, slots=True)
class LoggerConfig:
    """Where figures go. Every logger writes metrics.jsonl and timings.jsonl in the run folder."""

    kind: str = "???"
    log_every_n_steps: int = 10
    """Optimizer steps between two rows of training figures."""

    def __post_init__(self) -> None:
        at_least("logger.log_every_n_steps", self.log_every_n_steps, 1)

    def build(self, folder: Path, *, run_id: str, name: str, run_config: Mapping[str, Any]) -> Tracker:
        """A Tracker that appends to the rows in folder.

        run_id: kept by the run from its first step on, so that a resumed run goes on under the same one;
        name: what people see; run_config: resolved plain data, without secrets.
        """
        raise NotImplementedError


@dataclass(kw_only=True, slots=True)
class FilesLoggerConfig(LoggerConfig):
    """The run's own files only."""

    kind: str = "files"

    def build(self, folder: Path, *, run_id: str, name: str, run_config: Mapping[str, Any]) -> Tracker:
        from lmexp.tracking.tracker import Tracker

        return Tracker(folder)


@dataclass(kw_only=True, slots=True)
class WandbLoggerConfig(LoggerConfig):
    """The run's own files, mirrored to Weights & Biases."""

    kind: str = "wandb"
    project: str = "lmexp"
    """W&B project."""
    entity: str | None = None
    """W&B user or team; null is your default there."""
    group: str | None = None
    """Runs of one group lie together on W&B."""
    tags: list[str] = field(default_factory=list)
    """W&B tags, of 1 to 64 characters each."""
    sync: str = "auto"
    """auto uploads during training where you are logged in to W&B; off leaves the files in RUN/wandb."""

    def __post_init__(self) -> None:
        LoggerConfig.__post_init__(self)
        one_of("logger.sync", self.sync, SYNC)
        for name in ("entity", "group"):
            not_empty(f"logger.{name}", getattr(self, name), "null")
        if not self.project:
            raise ConfigError("logger.project is empty; expected the name of a W&B project, such as lmexp")
        for tag in self.tags:
            if not 1 <= len(tag) <= 64:
                raise ConfigError(f"logger.tags holds {tag!r} of {len(tag)} characters; W&B takes 1 to 64")

    def build(self, folder: Path, *, run_id: str, name: str, run_config: Mapping[str, Any]) -> Tracker:
        from lmexp.tracking.tracker import Tracker, start_mirror
        from lmexp.tracking.wandb import WandbMirror

        return Tracker(
            folder,
            start_mirror(lambda: WandbMirror(self, folder, run_id=run_id, name=name, run_config=run_config)),
        )
