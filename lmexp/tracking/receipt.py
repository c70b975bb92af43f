"""receipt.json: what a run ran on: code with uncommitted changes, packages, machine, determinism.

Format "lmexp.receipt", version 2. It holds neither argv nor the environment, and known secrets are
redacted from the patch. What is missing here (no git, no GPU, no Linux /proc) is null. `losses` is the digest of
losses.f64, of the loss of every step, once training is done. A run that went on, maybe elsewhere, has an entry in
`earlier` for each time before: its last step that counts, and what was other than the time after.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import socket
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lmexp.errors import RunError
from lmexp.files import write_atomically
from lmexp.paths import PACKAGE_DIR
from lmexp.reading import read_format
from lmexp.redaction import redact

FORMAT = "lmexp.receipt"
VERSION = 2
MOST_PATCH_BYTES = 1_000_000
MOST_UNTRACKED = 200
GIT_SECONDS = 20.0
_OF_THE_RUN = {"format", "version", "created", "earlier", "losses"}


def receipt(extra: Mapping[str, Any] | None = None, *, folder: Path | None = None) -> dict[str, Any]:
    """The receipt of this process.

    extra: further entries, such as the fingerprint of the data; folder: whose repository is recorded, by
    default the current one. lmexp's own is recorded too where it is a checkout of another repository.
    """
    here = repository(Path.cwd() if folder is None else folder)
    ours = _own_repository()
    body: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": {
            "current_folder": here,
            "lmexp": None if here and ours and here["root"] == ours["root"] else ours,
        },
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": packages(),
        "os": platform.platform(),
        "host": socket.gethostname(),
        "cpu": cpu(),
        "memory_bytes": _memory_bytes(),
        **_torch_facts(),
        **(extra or {}),
        "earlier": [],
        "losses": None,
    }
    return redact(body)


def going_on(before: Mapping[str, Any], now: Mapping[str, Any], *, step: int) -> dict[str, Any]:
    """The receipt of now, for a run that goes on from a step, and what was other before."""
    others = {key: value for key, value in before.items() if key not in _OF_THE_RUN and now.get(key) != value}
    earlier = {"created": before["created"], "until_step": step, "others": others}
    return {**now, "earlier": [*before["earlier"], earlier]}


def add_losses(path: Path, digest: Mapping[str, Any] | None) -> None:
    """Note in receipt.json the digest of the losses of a training that is done."""
    write_receipt(path, read_receipt(path) | {"losses": digest})


def write_receipt(path: Path, content: Mapping[str, Any]) -> None:
    """Write receipt.json, complete or not at all."""
    write_atomically(path, json.dumps(content, indent=2) + "\n")


def read_receipt(path: Path) -> dict[str, Any]:
    """The content of receipt.json; RunError where it is missing, damaged or of another format or version."""
    try:
        body = read_format(path, RunError, FORMAT, VERSION)
    except FileNotFoundError:
        raise RunError(f"{path}: missing; is {path.parent} a run folder?") from None
    if not isinstance(body.get("created"), str) or not isinstance(body.get("earlier"), list):
        raise RunError(f"{path}: expected text in `created` and a list in `earlier`; the file is damaged")
    return body


def repository(folder: Path) -> dict[str, Any] | None:
    """Commit and uncommitted changes of the git repository around a folder; None where there is none.

    patch applies to commit with `git apply`; it is null where it is longer than MOST_PATCH_BYTES.
    Untracked files are named only.
    """
    root = _git(folder, "rev-parse", "--show-toplevel")
    if root is None:
        return None
    root = root.rstrip("\n")
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    diff = ("diff", "--binary", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD")
    patch = None if commit is None else _git(Path(root), *diff)
    untracked = (_git(Path(root), "ls-files", "--others", "--exclude-standard", "-z") or "").split("\0")[:-1]
    patch_bytes = None if patch is None else len(patch.encode("utf-8", errors="surrogateescape"))
    return {
        "root": root,
        "commit": commit.strip() if commit else None,
        "dirty": bool(patch) or bool(untracked),
        "patch": patch if patch_bytes is not None and patch_bytes <= MOST_PATCH_BYTES else None,
        "patch_bytes": patch_bytes,
        "untracked": untracked[:MOST_UNTRACKED],
        "n_untracked": len(untracked),
    }


def packages() -> list[str]:
    """name==version of all installed distributions, sorted."""
    found = {(d.metadata["Name"], d.version) for d in importlib.metadata.distributions() if d.metadata["Name"]}
    return [f"{name}=={version}" for name, version in sorted(found, key=lambda pair: pair[0].lower())]


def cpu() -> dict[str, Any]:
    """Model, physical cores, hardware threads, and how many of these this process may use."""
    text = _read("/proc/cpuinfo") or ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    pairs = re.findall(r"^physical id\s*:\s*(\d+)$.*?^core id\s*:\s*(\d+)$", text, re.MULTILINE | re.DOTALL)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "model": model.group(1) if model else platform.processor() or platform.machine(),
        "cores": len(set(pairs)) or None,
        "threads": os.cpu_count(),
        "usable_threads": usable,
    }


def gpu_driver(text: str) -> str | None:
    """The version of NVIDIA's driver in the text of /proc/driver/nvidia/version."""
    found = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", text)
    return found.group(1) if found else None


def _own_repository() -> dict[str, Any] | None:
    """The repository that lmexp is a checkout of; None where lmexp was installed as a package."""
    tracked = _git(PACKAGE_DIR, "ls-files", "--error-unmatch", "errors.py")
    return repository(PACKAGE_DIR) if tracked else None


def _git(folder: Path, *arguments: str) -> str | None:
    """What a git command prints; None where it fails or there is no git."""
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=GIT_SECONDS,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", errors="surrogateescape") if done.returncode == 0 else None


def _torch_facts() -> dict[str, Any]:
    """Version and build of torch, GPUs and their driver, and the settings that decide about determinism."""
    try:
        import torch
    except ImportError:
        return {"torch": None, "gpus": [], "gpu_driver": None, "determinism": None}
    gpus = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            gpus.append({"name": properties.name, "memory_bytes": properties.total_memory})
    cudnn: Any = torch.backends.cudnn
    return {
        "torch": {
            "version": str(torch.__version__),
            "git_version": torch.version.git_version,
            "cuda": torch.version.cuda,
            "cudnn": cudnn.version() if cudnn.is_available() else None,
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
        },
        "gpus": gpus,
        "gpu_driver": gpu_driver(_read("/proc/driver/nvidia/version") or ""),
        "determinism": {
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
            "cudnn_deterministic": cudnn.deterministic,
            "cudnn_benchmark": cudnn.benchmark,
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "cublas_workspace_config": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
            "python_hash_seed": os.environ.get("PYTHONHASHSEED"),
        },
    }


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
