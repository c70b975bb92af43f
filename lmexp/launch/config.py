"""Configs of the launchers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lmexp.checks import at_least
from lmexp.errors import ConfigError
from lmexp.training.config import HardwareConfig


@dataclass(kw_only=True, slots=True)
class LauncherConfig:
    """How the processes of a run are started. Nodes and devices come from `trainer` alone."""

    kind: str = "???"

    def check(self, hardware: HardwareConfig) -> None:
        """Raise ConfigError where the machines can't do what is asked; called before there is a run folder."""

    def launch(self, work: Path, run_dir: Path, world_size: int, run_here: Callable[[Path], None]) -> None:
        """Have `work` (a run folder or a request) done by world_size processes; returns at its end.

        run_here: what a single process calls. Raises what went wrong, or Stopped when a signal ended the run.
        """
        raise NotImplementedError


@dataclass(kw_only=True, slots=True)
class LocalLauncherConfig(LauncherConfig):
    """This machine: one device in this process, several through torchrun."""

    kind: str = "local"
    threads_per_process: int | None = None
    """CPU threads of each process; null divides the cores among the processes."""

    def __post_init__(self) -> None:
        at_least("launcher.threads_per_process", self.threads_per_process, 1)

    def check(self, hardware: HardwareConfig) -> None:
        from lmexp.training.devices import check_devices

        if hardware.num_nodes > 1:
            raise ConfigError(
                f"trainer.num_nodes is {hardware.num_nodes}, but launcher=local starts processes on this machine only; "
                f"set trainer.num_nodes=1"
            )
        check_devices(hardware)

    def launch(self, work: Path, run_dir: Path, world_size: int, run_here: Callable[[Path], None]) -> None:
        from lmexp.launch.local import launch

        launch(work, run_dir, self.threads_per_process, world_size, run_here)
