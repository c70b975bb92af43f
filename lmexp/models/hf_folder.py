"""A Hugging Face model on disk: config.json, and safetensors in one file or several.

Weights are read from safetensors alone. A folder may come from anybody: config.json is bounded JSON, weights are
regular files that lie in the folder, and nothing in it is run. Files may be symbolic links, as in the hub's cache.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmexp.errors import CheckpointError, ConfigError
from lmexp.hub import folder_of
from lmexp.paths import RUN_JSON
from lmexp.reading import open_file, read_object

if TYPE_CHECKING:
    from torch import Tensor

    from lmexp.models.config import HFConfig

CONFIG_JSON = "config.json"
WEIGHTS = "model.safetensors"
INDEX_JSON = "model.safetensors.index.json"
ADAPTER_JSON = "adapter_config.json"
NEEDED = (CONFIG_JSON, WEIGHTS, INDEX_JSON, "model-*-of-*.safetensors")
"""Of a repository on the hub."""

SHARD = re.compile(r"[\w-][\w.-]*\.safetensors")


def find(config: HFConfig) -> Path | None:
    """The folder that model.path names, fetched from the hub if need be; None without a path."""
    if config.path is None:
        return None
    return folder_of("model.path", config.path, config.revision, NEEDED)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json; ConfigError where it is missing or no JSON object."""
    path = folder / CONFIG_JSON
    try:
        body: dict[str, Any] = read_object(path, ConfigError, follow=True)
    except FileNotFoundError:
        if (folder / ADAPTER_JSON).exists():
            raise ConfigError(
                f"{folder}: it holds an adapter ({ADAPTER_JSON}), not a model; expected the model that it belongs to, "
                f"or both merged into one: lmexp export run=RUN merge=true to=FOLDER"
            ) from None
        if (folder / RUN_JSON).exists():
            raise ConfigError(
                f"{folder}: it is a run of lmexp, not a Hugging Face model; start from its weights with "
                f"model.init_from={folder}, or write it as a model first: lmexp export run={folder} to=FOLDER"
            ) from None
        raise ConfigError(f"{folder}: it holds no {CONFIG_JSON}; expected a Hugging Face model") from None
    return body


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model; CheckpointError where there are none, or they aren't all there."""
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    try:
        weight_map = read_object(folder / INDEX_JSON, CheckpointError, follow=True).get("weight_map")
    except FileNotFoundError:
        raise CheckpointError(_no_weights(folder)) from None
    names = sorted(set(weight_map.values())) if _is_weight_map(weight_map) else []
    if not names:
        raise CheckpointError(
            f"{folder / INDEX_JSON}: expected a weight_map from names of tensors to names of safetensors files in this "
            f"folder; the file is damaged"
        )
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise CheckpointError(f"{folder}: {INDEX_JSON} names {missing[0]}, which isn't there; get the model again")
    return [folder / name for name in names]


def digest(folder: Path) -> str:
    """SHA-256 of the weights: of their one file, or of the names and SHA-256s of several."""
    files = weight_files(folder)
    if len(files) == 1:
        return _sha256(files[0])
    listing = "".join(f"{_sha256(path)}  {path.name}\n" for path in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Name -> tensor, as they are named on disk."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    weights: dict[str, Tensor] = {}
    for path in weight_files(folder):
        open_file(path, CheckpointError, follow=True).close()
        try:
            weights |= load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{path}: not a safetensors file ({error}); the file is damaged") from None
    return weights


def _sha256(path: Path) -> str:
    with open_file(path, CheckpointError, follow=True) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_weight_map(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) and SHARD.fullmatch(name) for name in value.values())


def _no_weights(folder: Path) -> str:
    pickled = next((p.name for p in sorted(folder.iterdir()) if p.suffix in (".bin", ".pt", ".pth", ".ckpt")), None)
    if pickled is None:
        return f"{folder}: it holds no {WEIGHTS}; expected weights, or model.pretrained=false to draw new ones"
    return (
        f"{folder}: its weights are in {pickled}, a pickle, which may run code when it is opened; expected {WEIGHTS}. "
        f"If you trust the file, convert it yourself: AutoModelForCausalLM.from_pretrained({str(folder)!r})"
        f".save_pretrained(NEW_FOLDER)"
    )
