"""Which device a process uses, and whether this machine has what the config asks for."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from lmexp.errors import ConfigError
from lmexp.training.config import HardwareConfig


def accelerator(wanted: str) -> str:
    """cuda or cpu; auto is CUDA where there is a device."""
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def autocast(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """Makes the context manager in which a forward pass is computed, outside Lightning."""
    types = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    if precision not in types:
        return nullcontext
    return lambda: torch.autocast(device.type, dtype=types[precision])


def set_determinism(wanted: bool) -> None:
    """Let torch use only operations that give the same bits each time (trainer.deterministic), or any.

    Call it before the first CUDA call: cuBLAS reads its part from the environment then.
    """
    torch.use_deterministic_algorithms(wanted)
    # Deterministic mode fills all new memory with NaN, which helps to find bugs and costs time in every step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if wanted:
        torch.backends.cudnn.benchmark = False
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def check_devices(settings: HardwareConfig) -> None:
    """Raise ConfigError where this machine can't do what is asked, with what it can."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if settings.accelerator == "cuda" and not found:
        raise ConfigError(
            "trainer.accelerator is cuda, but torch finds no CUDA device; use cpu or auto (see lmexp doctor)"
        )
    if accelerator(settings.accelerator) == "cpu":
        if isinstance(settings.devices, list):
            raise ConfigError(
                f"trainer.devices names devices {settings.devices}, but this runs on the CPU, which has none to name; "
                f"give the number of processes, trainer.devices={len(settings.devices)}"
            )
        if settings.precision == "16-mixed":
            raise ConfigError("trainer.precision is 16-mixed, which a CPU can't do; use bf16-mixed or 32-true")
        return
    wanted = settings.devices if isinstance(settings.devices, list) else list(range(settings.devices))
    if wrong := [index for index in wanted if index >= found]:
        raise ConfigError(
            f"trainer.devices asks for CUDA device {wrong[0]}, but this machine has {found} (from 0 on); "
            f"set trainer.devices={found}"
        )
