"""Configs of the launchers."""

from __future__ import annotations

from dataclasses import dataclass

from lmexp.errors import ConfigError


@dataclass(kw_only=True, slots=True)
class LauncherConfig:
    """How the processes of a run are started. Nodes and devices come from `trainer` alone."""

    kind: str = "???"


@dataclass(kw_only=True, slots=True)
class LocalLauncherConfig(LauncherConfig):
    """This machine: one device in this process, several through torchrun."""

    kind: str = "local"
    threads_per_process: int | None = None
    """CPU threads of each process; null divides the cores among the processes."""

    def __post_init__(self) -> None:
        if self.threads_per_process is not None and self.threads_per_process < 1:
            raise ConfigError(f"launcher.threads_per_process is {self.threads_per_process}; expected 1 or more, or null")
