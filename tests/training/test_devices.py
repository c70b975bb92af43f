"""What this machine can't do is said before a run folder is made."""

from __future__ import annotations

import pytest
import torch

from lmexp.errors import ConfigError
from lmexp.launch.config import LocalLauncherConfig
from lmexp.training.config import HardwareConfig
from lmexp.training.devices import accelerator, check_devices

cpu_only = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a CUDA device")


@cpu_only
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accelerator": "cuda"}, "finds no CUDA device; use cpu or auto"),
        ({"devices": [0, 7]}, r"give the number of processes, trainer\.devices=2"),
        ({"precision": "16"}, "use bf16-mixed or 32-true"),
    ],
)
def test_what_a_cpu_cannot_do_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_devices(HardwareConfig(**settings))  # type: ignore[arg-type]


def test_a_device_beyond_the_last_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_devices(HardwareConfig(devices=2))
    check_devices(HardwareConfig(devices="1"))
    assert accelerator("auto") == "cuda"
    assert accelerator("cpu") == "cpu"
    with pytest.raises(ConfigError, match="asks for CUDA device 2, but this machine has 2"):
        check_devices(HardwareConfig(devices=3))


def test_several_machines_need_another_launcher() -> None:
    with pytest.raises(ConfigError, match=r"set trainer\.num_nodes=1"):
        LocalLauncherConfig().check(HardwareConfig(num_nodes=2))
