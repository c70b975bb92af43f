"""Checkpoint folders: complete or absent, checked by digest, readable without Lightning and without pickle.

    checkpoints/step-00000100/model.safetensors    the weights; loads alone
                              state.pt             the rest: plain types and tensors, torch.load(weights_only=True)
                              manifest.json        format "lmexp.checkpoint", version 1; step, metrics, SHA-256s
    checkpoints/LATEST, BEST                       name of a step folder

A folder is written beside its place, every file fsynced, the manifest last; then renamed, then LATEST moves. So LATEST
names a complete folder whenever the process dies. A damaged one is found by its digests, and the one before is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lmexp.errors import CheckpointError
from lmexp.files import sync_file, sync_folder, write_atomically

FORMAT = "lmexp.checkpoint"
VERSION = 1
MODEL = "model.safetensors"
STATE = "state.pt"
MANIFEST = "manifest.json"
LATEST = "LATEST"
BEST = "BEST"
PREFIX = "model."


@dataclass(kw_only=True, slots=True)
class Manifest:
    """What manifest.json says."""

    step: int
    metrics: dict[str, float]
    """Last validation metrics at the time of saving."""
    prefix: str
    """Taken off the names of the weights when they were written, e.g. "model." ."""
    aliases: dict[str, str]
    """Names that share another name's tensor (tied weights)."""
    files: dict[str, str]
    """File -> SHA-256."""


def folder_name(step: int) -> str:
    """step-00000100."""
    return f"step-{step:08d}"


def write(root: Path, step: int, weights: dict[str, Tensor], state: dict[str, Any], metrics: dict[str, float]) -> Path:
    """Write checkpoints/step-N and let LATEST name it. All or nothing."""
    target = root / folder_name(step)
    building = root / f".{target.name}.{secrets.token_hex(4)}.tmp"
    building.mkdir()
    try:
        prefix = PREFIX if weights and all(name.startswith(PREFIX) for name in weights) else ""
        unique, aliases = _without_aliases({name.removeprefix(prefix): t for name, t in weights.items()})
        save_file(unique, building / MODEL)
        torch.save(state, building / STATE)
        for name in (MODEL, STATE):
            sync_file(building / name)
        files = {name: sha256(building / name) for name in (MODEL, STATE)}
        body = {
            "format": FORMAT,
            "version": VERSION,
            "step": step,
            "metrics": metrics,
            "prefix": prefix,
            "aliases": aliases,
            "files": files,
        }
        write_atomically(building / MANIFEST, json.dumps(body, indent=2, allow_nan=True) + "\n")
        if target.exists():  # the same step saved again after a resume: same content
            remove(target)
        os.rename(building, target)
        sync_folder(root)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    write_atomically(root / LATEST, target.name + "\n")
    return target


def step_of(folder: Path) -> int:
    """The step in the name of a step's folder."""
    return int(folder.name.removeprefix("step-"))


def remove(folder: Path) -> None:
    """Delete a checkpoint in such a way that no half of it is ever taken for a whole."""
    doomed = folder.with_name(f".{folder.name}.removed.tmp")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def read_manifest(folder: Path) -> Manifest:
    """manifest.json; CheckpointError where it is missing, damaged or unknown."""
    path = folder / MANIFEST
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: not a checkpoint, it holds no {MANIFEST}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: not JSON ({error}); the checkpoint is damaged") from None
    if not isinstance(body, dict) or body.get("format") != FORMAT or body.get("version") != VERSION:
        raise CheckpointError(f"{path}: expected format {FORMAT}, version {VERSION}")
    try:
        return Manifest(**{name: body[name] for name in Manifest.__slots__})
    except KeyError as error:
        raise CheckpointError(f"{path}: lacks {error}; the checkpoint is damaged") from None


def verify(folder: Path) -> Manifest:
    """The manifest, every file's digest having been compared with it."""
    manifest = read_manifest(folder)
    for name in (MODEL, STATE):
        path = folder / name
        expected = manifest.files.get(name)
        found = sha256(path) if path.is_file() else "no file"
        if found != expected:
            raise CheckpointError(f"{path}: SHA-256 is {found}, the manifest says {expected}; the file is damaged")
    return manifest


def load_weights(folder: Path) -> dict[str, Tensor]:
    """The weights under the model's own names (without `prefix`), tied ones under each of their names."""
    manifest = read_manifest(folder)
    weights = load_file(folder / MODEL)
    return weights | {alias: weights[name] for alias, name in manifest.aliases.items()}


def load_state(folder: Path) -> dict[str, Any]:
    """Everything but the weights. Never unpickles anything but plain types and tensors."""
    state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    return state


def steps(root: Path) -> list[Path]:
    """Step folders, oldest first."""
    return sorted(p for p in root.glob("step-*") if p.is_dir())


def latest(root: Path, *, warn: Any = None) -> Path | None:
    """The newest undamaged checkpoint, or None. warn(message) hears of each damaged one."""
    pointer = root / LATEST
    if not pointer.exists():
        return None
    newest = pointer.read_text(encoding="utf-8").strip()
    for folder in reversed([p for p in steps(root) if p.name <= newest]):
        try:
            verify(folder)
        except CheckpointError as error:
            if warn is not None:
                warn(f"{error}; using the checkpoint before it")
            continue
        return folder
    raise CheckpointError(
        f"{root}: every checkpoint is damaged; start anew with the same config: lmexp train from={root.parent}"
    )


def find(root: Path, which: str) -> Path:
    """The checkpoint that `best`, `latest` or a step's number names, its digests checked."""
    available = [p.name for p in steps(root)]
    if which == "latest":
        found = latest(root)
    elif which == "best":
        pointer = root / BEST
        found = root / pointer.read_text(encoding="utf-8").strip() if pointer.exists() else latest(root)
    else:
        found = root / folder_name(int(which))
    if found is None or not found.is_dir():
        listed = ", ".join(available) or "none yet"
        raise CheckpointError(f"{root}: there is no checkpoint {which!r}; available: {listed}")
    verify(found)
    return found


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _without_aliases(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors that share memory are kept once, under their first name."""
    kept: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    for name, tensor in weights.items():
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if tensor.numel() and key in first:
            aliases[name] = first[key]
        else:
            first[key] = name
            kept[name] = tensor.contiguous()
    return kept, aliases
