"""A run's model as a folder in Hugging Face's format, which transformers, peft and lmexp itself read.

The folder is written beside its place and renamed, so it is whole or not there; nothing is ever overwritten.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from lmexp.config.freeze import read_record
from lmexp.errors import ConfigError, RunError
from lmexp.files import sync_file, sync_folder, write_atomically
from lmexp.models import hf_folder
from lmexp.models.config import GPTConfig, HFConfig
from lmexp.models.gpt import GPT
from lmexp.models.hf import HFModel
from lmexp.models.hf_weights import to_hf
from lmexp.paths import expanded
from lmexp.runs.load import LoadedModel, load
from lmexp.tokenizers import to_hf as tokenizers

if TYPE_CHECKING:
    from lmexp.config.schema import ExportConfig

ADAPTER_WEIGHTS = "adapter_model.safetensors"
PARAMETERS = {"format": "pt"}
"""Of a safetensors file; transformers asks for it."""


def export(run_dir: Path, config: ExportConfig, say: Callable[[str], None]) -> Path:
    """Write config.to, which must not be there, and say what it holds."""
    target = expanded(config.to)
    _check_target(target)
    loaded = load(run_dir, weights=config.weights)
    adapts = isinstance(loaded.model, HFModel) and loaded.model.lora is not None
    if config.merge and not adapts:
        raise ConfigError(
            f"merge=true merges adapters into the weights they belong to, and {run_dir} was trained without any; leave "
            f"it out"
        )
    building = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    building.mkdir()
    try:
        what = _write_model(run_dir, loaded, building, merge=config.merge)
        spoken = tokenizers.write(loaded.tokenizer, building)
        mode = next(building.glob("*.json")).stat().st_mode  # safetensors lets only the owner read
        for path in building.iterdir():
            path.chmod(mode)
            sync_file(path)
        sync_folder(building)
        try:
            os.rename(building, target)
        except OSError:  # somebody else made it meanwhile
            _check_target(target)
            raise
        sync_folder(target.absolute().parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    say(f"{run_dir} at step {loaded.step}: {what}")
    if not spoken:
        say(
            f"the tokenizer ({loaded.tokenizer.kind}) has no counterpart in Hugging Face's library, so it isn't in "
            f"there: encode with lmexp.load({str(run_dir)!r}).tokenizer"
        )
    say(f"exported: {config.to}")
    return target


def _check_target(target: Path) -> None:
    if os.path.lexists(target):
        raise RunError(f"to={target}: it is there already, and nothing is overwritten; choose another folder")
    if not target.absolute().parent.is_dir():
        raise RunError(f"to={target}: there is no folder {target.absolute().parent}; make it first")
    if not os.access(target.absolute().parent, os.W_OK | os.X_OK):
        raise RunError(f"to={target}: {target.absolute().parent} can't be written to; choose another folder")


def _write_model(run_dir: Path, loaded: LoadedModel, folder: Path, *, merge: bool) -> str:
    """Write config.json and the weights, or an adapter's; what was written, for people."""
    model = loaded.model
    config = loaded.config.model
    if type(model) is GPT and type(config) is GPTConfig:  # what is derived from them may compute something else
        return _write_gpt(loaded, config, model, folder)
    if not isinstance(model, HFModel):
        raise ConfigError(
            f"a model of kind {config.kind if config else None!r} has no counterpart in "
            f"Hugging Face's transformers; only model=gpt and model=hf are exported"
        )
    assert isinstance(config, HFConfig)
    if model.lora is not None and not merge:
        return _write_adapter(run_dir, config, model, folder)
    adapted: Any = model.model
    plain: Any = adapted.merge_and_unload() if model.lora is not None else model.plain
    plain.save_pretrained(folder)
    return f"{type(plain).__name__}{', its adapters merged' * (model.lora is not None)}"


def _write_gpt(loaded: LoadedModel, gpt: GPTConfig, model: GPT, folder: Path) -> str:
    """Our GPT as the architecture of transformers that computes the same."""
    config, weights = to_hf(gpt, model.vocab_size, model.max_sequence_length, model.state_dict())
    config |= {"bos_token_id": loaded.tokenizer.eos_id, "eos_token_id": loaded.tokenizer.eos_id}
    write_atomically(folder / hf_folder.CONFIG_JSON, json.dumps(config, indent=2) + "\n")
    save_file(weights, folder / hf_folder.WEIGHTS, metadata=PARAMETERS)
    return str(config["architectures"][0])


def _write_adapter(run_dir: Path, config: HFConfig, model: HFModel, folder: Path) -> str:
    """The adapters alone, as peft writes them; they name the model that they belong to."""
    adapted: Any = model.model
    settings, weights = adapted.peft_config["default"], read_record(run_dir).initial_weights
    assert weights is not None
    settings.base_model_name_or_path = weights["path"] if config.revision is None else config.path
    settings.revision = config.revision
    adapted.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's, of questions without answers
    return f"adapters of {settings.base_model_name_or_path}, without its weights; merge=true writes both as one model"
