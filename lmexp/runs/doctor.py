"""`lmexp doctor`: is everything here that a run needs?"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lmexp import __version__
from lmexp.paths import CONF_DIR, default_root

CORE = (
    "torch",
    "pytorch-lightning",
    "hydra-core",
    "omegaconf",
    "torchmetrics",
    "wandb",
    "tokenizers",
    "tiktoken",
    "safetensors",
    "numpy",
    "rich",
)


@dataclass(kw_only=True, slots=True)
class Finding:
    """One line of `lmexp doctor`."""

    what: str
    found: str
    ok: bool = True
    fix: str = ""


def examine() -> Iterator[Finding]:
    """Each finding as it is made."""
    yield Finding(what="lmexp", found=f"{__version__} ({Path(__file__).parents[1]})")
    python_ok = sys.version_info >= (3, 11)
    yield Finding(what="python", found=platform.python_version(), ok=python_ok, fix="install Python 3.11 or newer")
    for package in CORE:
        yield _package(package)
    yield _malicious_lightning()
    yield Finding(what="configs", found=str(CONF_DIR), ok=(CONF_DIR / "train.yaml").is_file(), fix="reinstall lmexp")
    yield _outputs()
    yield _cpu()
    yield from _devices()
    yield _wandb()


def _package(name: str) -> Finding:
    try:
        return Finding(what=name, found=importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(what=name, found="not installed", ok=False, fix=f"pip install {name}")


def _malicious_lightning() -> Finding:
    """PyPI's lightning 2.6.2 and 2.6.3 were malicious (GHSA-w37p-236h-pfx3)."""
    try:
        version = importlib.metadata.version("lightning")
    except importlib.metadata.PackageNotFoundError:
        return Finding(what="lightning", found="absent, as it should be (lmexp uses pytorch-lightning)")
    return Finding(
        what="lightning",
        found=version,
        ok=version not in ("2.6.2", "2.6.3"),
        fix="this version is malicious: pip uninstall lightning, and change every key this machine holds",
    )


def _outputs() -> Finding:
    root = Path(default_root()).absolute()
    existing = next(p for p in [root, *root.parents] if p.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Finding(
            what="outputs",
            found=f"{root}: {error.strerror}",
            ok=False,
            fix="choose a folder with run.root= or LMEXP_OUTPUTS",
        )
    free = shutil.disk_usage(existing).free / 1e9
    return Finding(what="outputs", found=f"{root}, {free:.0f} GB free", ok=free > 1, fix="free some disk space")


def _cpu() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Finding(what="cpu", found=f"{cores} cores, {platform.machine()}")


def _devices() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield Finding(what="torch imports", found=str(error), ok=False, fix="pip install torch")
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            yield Finding(what=f"cuda:{index}", found=f"{facts.name}, {facts.total_memory / 1e9:.0f} GB")
    else:
        built = (
            f"this torch was built for CUDA {torch.version.cuda}" if torch.version.cuda else "this torch is CPU-only"
        )
        yield Finding(what="cuda", found=f"none ({built})")


def _wandb() -> Finding:
    from lmexp.tracking.wandb import logged_in

    url = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    return Finding(
        what="W&B", found="logged in: runs are mirrored" if logged_in(url) else "not logged in: files stay offline"
    )
