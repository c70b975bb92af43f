"""Checkpoint folders: complete or absent, checked by digest, readable without Lightning and without pickle.

    checkpoints/step-00000100/model.safetensors    the weights; loads alone
                              state.pt             the rest: plain types and tensors, torch.load(weights_only=True)
                              ema.safetensors      their moving average, where the run keeps one
                              manifest.json        format "lmexp.checkpoint", version 2 (3 with an average); step,
                                                   metrics, SHA-256s, also of the manifest itself
    checkpoints/LATEST, BEST                       name of a step folder

A folder is written beside its place, every file fsynced, the manifest last; then renamed, then LATEST moves. So LATEST
names a complete folder whenever the process dies. A damaged one is found by its digests, and the one before is used.

Digests find damage, not malice: whoever makes a checkpoint makes its digests too. So whatever a folder holds, reading
it runs no code, opens regular files of this folder only, and ends in a CheckpointError where something doesn't fit.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickletools
import re
import secrets
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from lmexp.errors import CheckpointError
from lmexp.files import sync_file, sync_folder, write_atomically
from lmexp.reading import check_format, open_file, parse_object, read_bytes

FORMAT = "lmexp.checkpoint"
VERSION, VERSION_WITH_AVERAGE = 2, 3
MODEL = "model.safetensors"
EMA = "ema.safetensors"
STATE = "state.pt"
MANIFEST = "manifest.json"
LATEST = "LATEST"
BEST = "BEST"
PREFIX = "model."

STEP_FOLDER = re.compile(r"step-(\d{8,18})", re.ASCII)
SHA256 = re.compile(r"[0-9a-f]{64}")
MOST_STATE_PICKLE_BYTES = 1 << 28
"""Of state.pt without its tensors."""
STATE_GLOBALS = re.compile(
    r"torch\._utils _rebuild_\w+|torch(\.storage)? \w+Storage|torch (Size|device|bool|u?int\d+|b?float\w+|complex\d+)"
    r"|torch\._tensor _rebuild_from_type_v2|torch\.nn\.parameter Parameter|collections OrderedDict"
    r"|_codecs encode"
)
"""What a pickle of plain types and tensors names; torch would take more."""


T = TypeVar("T")


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


def write(
    root: Path,
    step: int,
    weights: dict[str, Tensor],
    state: dict[str, Any],
    metrics: dict[str, float],
    average: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write checkpoints/step-N and let LATEST name it. All or nothing. average: of the weights, named as they are."""
    target = root / folder_name(step)
    building = root / f".{target.name}.{secrets.token_hex(4)}.tmp"
    building.mkdir()
    try:
        prefix = PREFIX if weights and all(name.startswith(PREFIX) for name in weights) else ""
        unique, aliases = _without_aliases({name.removeprefix(prefix): t for name, t in weights.items()})
        save_file(unique, building / MODEL)
        torch.save(state, building / STATE)
        names = [MODEL, STATE]
        if average:
            averages = {name: average[f"{prefix}{name}"].contiguous() for name in unique}
            save_file(averages, building / EMA)
            names.append(EMA)
        for name in names:
            sync_file(building / name)
        files = {name: sha256(building / name) for name in names}
        manifest = Manifest(step=step, metrics=metrics, prefix=prefix, aliases=aliases, files=files)
        write_atomically(building / MANIFEST, manifest_text(manifest))
        if target.exists():  # the same step saved again after a resume: same content
            remove(target)
        os.rename(building, target)
        sync_folder(root)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    write_atomically(root / LATEST, target.name + "\n")
    return target


def remove(folder: Path) -> None:
    """Delete a checkpoint in such a way that no half of it is ever taken for a whole."""
    doomed = folder.with_name(f".{folder.name}.removed.tmp")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def manifest_text(manifest: Manifest) -> str:
    """The content of manifest.json."""
    version = VERSION_WITH_AVERAGE if EMA in manifest.files else VERSION
    body = {"format": FORMAT, "version": version, **{name: getattr(manifest, name) for name in Manifest.__slots__}}
    digest = hashlib.sha256(json.dumps(body).encode()).hexdigest()
    return json.dumps({**body, "sha256": digest}, indent=2) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """manifest.json; CheckpointError where it is missing, damaged or unknown."""
    path = folder / MANIFEST
    if folder.is_symlink():
        raise CheckpointError(f"{folder}: it is a symbolic link; expected a folder: put a copy in its place")
    try:
        content = read_bytes(path, CheckpointError)
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: not a checkpoint, it holds no {MANIFEST}") from None
    body = parse_object(content, path, CheckpointError)
    version = VERSION_WITH_AVERAGE if body.get("version") == VERSION_WITH_AVERAGE else VERSION
    check_format(body, path, CheckpointError, FORMAT, version)
    try:
        manifest = Manifest(**{name: body[name] for name in Manifest.__slots__})
    except KeyError as error:
        raise CheckpointError(f"{path}: lacks {error}; the checkpoint is damaged") from None
    _check_manifest(path, manifest)
    if content.decode() != manifest_text(manifest):
        raise CheckpointError(f"{path}: its content doesn't have its SHA-256; the checkpoint is damaged")
    return manifest


def verify(folder: Path) -> Manifest:
    """The manifest, every file's digest having been compared with it."""
    manifest = read_manifest(folder)
    if folder.name != folder_name(manifest.step):
        raise CheckpointError(f"{folder}: its manifest is of step {manifest.step}; it isn't this checkpoint's")
    for name, expected in manifest.files.items():
        path = folder / name
        try:
            found = sha256(path)
        except FileNotFoundError:
            found = "no file"
        if found != expected:
            raise CheckpointError(f"{path}: SHA-256 is {found}, the manifest says {expected}; the file is damaged")
    return manifest


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights, as load_weights() would name them; reads no tensor."""
    path, aliases = folder / MODEL, read_manifest(folder).aliases
    open_file(path, CheckpointError).close()
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no dict
    except (SafetensorError, OSError, ValueError) as error:
        raise _not_safetensors(path, error) from None
    return _with_aliases(path, found, aliases)


def load_weights(folder: Path, name: str = MODEL) -> dict[str, Tensor]:
    """The weights under the model's own names (without `prefix`), tied ones under each of their names.

    name: MODEL, or EMA for their moving average in a checkpoint that holds one.
    """
    path, aliases = folder / name, read_manifest(folder).aliases
    open_file(path, CheckpointError).close()
    try:
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _not_safetensors(path, error) from None
    return _with_aliases(path, weights, aliases)


def load_state(folder: Path) -> dict[str, Any]:
    """Everything but the weights. Never unpickles anything but plain types and tensors."""
    path = folder / STATE
    try:
        _check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # torch, zipfile and pickle have many for what they don't understand
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path}: expected plain types and tensors as torch.save writes them, and it isn't that ({reason}); "
            f"nothing else is ever unpickled"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise CheckpointError(f"{path}: expected a dict with text as keys; lmexp didn't write this file")
    return state


def steps(root: Path) -> list[Path]:
    """Step folders, oldest first."""
    found = [p for p in root.glob("step-*") if STEP_FOLDER.fullmatch(p.name) and p.is_dir() and not p.is_symlink()]
    return sorted(found, key=step_of)


def step_of(folder: Path) -> int:
    """The step in the name of a step folder."""
    return int(folder.name.removeprefix("step-"))


def latest(root: Path, *, warn: Any = None) -> Path | None:
    """The newest undamaged checkpoint, or None. warn(message) hears of each damaged one, and of a damaged LATEST."""
    there = steps(root)
    try:
        newest = read_pointer(root, LATEST)
        if newest is None:
            return None
        if newest in there:
            there = there[: there.index(newest) + 1]
        elif warn is not None:
            warn(f"{root / LATEST}: there is no {newest.name}; using the newest checkpoint there is")
    except CheckpointError as error:
        if warn is None:
            raise
        warn(f"{error}; using the newest checkpoint there is")
    for folder in reversed(there):
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


def read_pointer(root: Path, name: str) -> Path | None:
    """The step folder that LATEST or BEST names, be it there or not; None where there is no pointer."""
    path = root / name
    try:
        text = read_bytes(path, CheckpointError, most=1 << 10).decode(errors="replace").strip()
    except FileNotFoundError:
        return None
    if not STEP_FOLDER.fullmatch(text):
        raise CheckpointError(f"{path}: expected the name of a step folder beside it, got {text[:80]!r}")
    return root / text


def find(root: Path, which: str) -> Path:
    """The checkpoint that `best`, `latest` or a step's number names, its digests checked."""
    pointed = read_pointer(root, BEST) if which == "best" else None
    if pointed is None and which in ("best", "latest"):
        found = latest(root)
        if found is not None:
            return found
    else:
        found = root / folder_name(int(which)) if pointed is None else pointed
        if found in steps(root):
            verify(found)
            return found
    listed = ", ".join(p.name for p in steps(root)) or "none yet"
    raise CheckpointError(f"{root}: there is no checkpoint {which!r}; available: {listed}")


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with open_file(path, CheckpointError) as file:
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


def _check_manifest(path: Path, manifest: Manifest) -> None:
    """CheckpointError where a value is none that write() would write."""
    fits = {
        "step": type(manifest.step) is int and 0 <= manifest.step < 10**18,
        "metrics": _is_table(manifest.metrics, int | float),
        "prefix": manifest.prefix in ("", PREFIX),
        "aliases": _is_table(manifest.aliases, str),
        "files": _is_table(manifest.files, str)
        and manifest.files.keys() - {EMA} == {MODEL, STATE}
        and all(SHA256.fullmatch(digest) for digest in manifest.files.values()),
    }
    for name, well in fits.items():
        if not well:
            raise CheckpointError(
                f"{path}: {name} is {str(getattr(manifest, name))[:200]!r}, which lmexp doesn't write; "
                f"the checkpoint is damaged"
            )


def _is_table(value: Any, kind: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, kind) for one in value.values())


def _with_aliases(path: Path, weights: Mapping[str, T], aliases: dict[str, str]) -> dict[str, T]:
    """The weights, tied ones under each of their names."""
    for alias, name in aliases.items():
        if alias in weights or name not in weights:
            raise CheckpointError(
                f"{path}: the manifest calls {alias!r} another name of {name!r}, which doesn't fit it"
            )
    return {**weights, **{alias: weights[name] for alias, name in aliases.items()}}


def _not_safetensors(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path}: not a safetensors file ({error}); lmexp didn't write it")


def _check_archive(path: Path) -> None:
    """CheckpointError unless a file is an archive of torch.save that unpacks to its own size and names nothing but
    tensors and plain types.

    A second fence: torch.load(weights_only=True) has been got around before (CVE-2025-32434, CVE-2026-24747), and
    takes constructors that fill the memory, such as bytearray.
    """
    with open_file(path, CheckpointError) as file, zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise CheckpointError(f"{path}: it is compressed, which torch.save never does; lmexp didn't write it")
        if sum(entry.file_size for entry in entries) > os.fstat(file.fileno()).st_size:
            raise CheckpointError(f"{path}: it unpacks to more than it holds; lmexp didn't write it")
        pickles = [entry for entry in entries if entry.filename.endswith(".pkl")]
        if [entry.filename.partition("/")[2] for entry in pickles] != ["data.pkl"]:
            raise CheckpointError(f"{path}: expected one data.pkl in it; lmexp didn't write it")
        if pickles[0].file_size > MOST_STATE_PICKLE_BYTES:
            raise CheckpointError(f"{path}: its data.pkl has {pickles[0].file_size:,} bytes; lmexp didn't write it")
        content = archive.read(pickles[0])
    for code, argument, _ in pickletools.genops(content):
        if code.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4") or (
            code.name == "GLOBAL" and not STATE_GLOBALS.fullmatch(str(argument))
        ):
            named = argument if code.name in ("GLOBAL", "INST") else code.name
            raise CheckpointError(
                f"{path}: its pickle asks for {str(named)[:80]!r}, and lmexp writes plain types and tensors only; "
                f"nothing was run"
            )
