"""Weights that training starts from: `model.init_from=RUN` or a folder that holds model.safetensors, or those of the
Hugging Face model in `model.path`. A gpt starts from a folder of Hugging Face's too, see from_hugging_face.

Weights only: the step starts at 0, the optimizer is fresh. Every tensor of the model must be in the file, under its
name and with its shape, and nothing else may be; and the tokens must mean the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lmexp.checks import findings, typed
from lmexp.config.freeze import read_body
from lmexp.data.config import CorpusConfig
from lmexp.errors import CheckpointError, ConfigError
from lmexp.models import hf_folder
from lmexp.models.config import GPTConfig, HFConfig
from lmexp.models.gpt import GPT
from lmexp.models.hf import HFModel
from lmexp.paths import CHECKPOINTS_DIR, RUN_JSON, TOKENIZER_JSON, expanded
from lmexp.plugins import did_you_mean
from lmexp.tokenizers.to_hf import same_tokens
from lmexp.training import checkpoints, from_hugging_face

if TYPE_CHECKING:
    from lmexp.config.schema import TrainConfig
    from lmexp.tokenizers.base import Tokenizer


@dataclass(kw_only=True, slots=True)
class WeightsFile:
    """A model.safetensors, and the run it is of."""

    path: Path
    run_dir: Path | None
    """None where the file lies in no run folder."""
    hugging_face: bool = False
    """Whether path is a folder as transformers saves it."""


def find(given: str) -> WeightsFile:
    """The weights that model.init_from names: a run's best checkpoint, else its latest, or those in a folder."""
    path = expanded(given).absolute()
    if (path / RUN_JSON).is_file():
        try:
            return WeightsFile(path=checkpoints.find(path / CHECKPOINTS_DIR, "best") / checkpoints.MODEL, run_dir=path)
        except CheckpointError as error:
            raise CheckpointError(f"model.init_from={given}: {error}") from None
    if from_hugging_face.is_hugging_face(path):
        hf_folder.weight_files(path)
        return WeightsFile(path=path, run_dir=None, hugging_face=True)
    if (path / checkpoints.MODEL).is_file():
        run_dir = path.parent.parent if (path.parent.parent / RUN_JSON).is_file() else None
        return WeightsFile(path=path / checkpoints.MODEL, run_dir=run_dir)
    if not path.exists():
        near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
        raise CheckpointError(f"model.init_from={given}: there is no such folder{near}; `lmexp runs` lists the runs")
    raise CheckpointError(
        f"model.init_from={given}: expected a run, or a folder that holds {checkpoints.MODEL}; this "
        f"{'folder holds neither that nor ' + RUN_JSON if path.is_dir() else 'is a file'}"
    )


def check_place(config: TrainConfig) -> None:
    """An error where model.init_from names no weights, or a Hugging Face model of other settings; reads no weights."""
    assert config.model is not None and config.model.init_from is not None
    given = config.model.init_from
    file = find(given)
    if file.hugging_face and isinstance(config.model, GPTConfig) and isinstance(config.data, CorpusConfig):
        from_hugging_face.check_settings(given, file.path, config.model, config.data.sequence_length)


def wanted(config: TrainConfig, *, resumed: bool) -> bool:
    """Whether weights are read from such a file: at the beginning, and always where checkpoints hold adapters alone."""
    if isinstance(config.model, HFConfig) and config.model.starts_from_path:
        return not resumed or config.model.lora is not None
    return config.model is not None and config.model.init_from is not None and not resumed


def check(config: TrainConfig, tokenizer: Tokenizer | None, model: nn.Module) -> dict[str, str]:
    """What run.json keeps of the weights that a config starts from; an error where they don't fit the model.

    tokenizer: of the data; model: as the config builds it.
    """
    assert config.model is not None
    if isinstance(config.model, HFConfig) and config.model.starts_from_path:
        return _check_hugging_face(config.model, tokenizer, model)
    assert config.model.init_from is not None
    given = config.model.init_from
    file = find(given)
    _check_tokenizer(given, file, tokenizer)
    if file.hugging_face:
        if type(config.model) is not GPTConfig or not isinstance(model, GPT):
            raise ConfigError(
                f"model.init_from={given}: this folder holds a Hugging Face model ({hf_folder.CONFIG_JSON}), from "
                f"which kind gpt can start; with model=hf write model.path={given}; for a class of yours put "
                f"{checkpoints.MODEL} into a folder of its own"
            )
        from_hugging_face.check(given, file.path, config.model, model.vocab_size, model.max_sequence_length)
        return {"path": str(file.path), "sha256": hf_folder.digest(file.path)}
    sha256 = checkpoints.sha256(file.path)
    _check_fit(given, file, config, model, _read(file.path, sha256))
    return {"path": str(file.path), "sha256": sha256}


def load(model: nn.Module, path: Path, sha256: str) -> None:
    """Give the model the weights of a file that check() has seen; CheckpointError where it has changed since.

    path: of a Hugging Face model, its folder.
    """
    adapts = isinstance(model, HFModel) and model.lora is not None
    why = "and its checkpoints hold adapters alone" if adapts else "and has no checkpoint of its own yet"
    whole = path.is_dir()
    try:
        found = hf_folder.digest(path) if whole else checkpoints.sha256(path)
    except OSError as error:
        raise CheckpointError(
            f"{path}: can't be read ({error.strerror}), but the run starts from these weights {why}; restore the "
            f"{'folder' if whole or isinstance(model, HFModel) else 'file'}, or start a run anew"
        ) from None
    if found != sha256:
        raise CheckpointError(
            f"{path}: SHA-256 is {found}, but the run was made to start from {sha256} {why}; restore the file, or "
            f"start a run anew"
        )
    if isinstance(model, HFModel) and whole:
        model.load_base(hf_folder.read_weights(path), str(path))
        return
    weights = from_hugging_face.weights(path, model) if whole else _read(path, sha256)
    own = model.state_dict()
    with torch.no_grad():
        for name, tensor in weights.items():
            own[name].copy_(tensor)


def _check_hugging_face(config: HFConfig, tokenizer: Tokenizer | None, model: nn.Module) -> dict[str, str]:
    """The same of the weights in model.path, which the model has afterwards."""
    folder = hf_folder.find(config)
    assert folder is not None and isinstance(model, HFModel)
    if tokenizer is not None and same_tokens(folder, tokenizer) is False:
        raise ConfigError(
            f"model.path={config.path}: these weights were trained with another tokenizer, so the rows of their "
            f"embedding mean other tokens; use that one too: tokenizer=hf tokenizer.path={config.path}"
            + (f" tokenizer.revision={config.revision}" if config.revision is not None else "")
        )
    found = {"path": str(folder), "sha256": hf_folder.digest(folder)}
    load(model, folder, found["sha256"])
    return found


def _read(path: Path, sha256: str) -> dict[str, Tensor]:
    """Name -> tensor, tied ones under each of their names where a manifest lies beside."""
    folder = path.parent
    try:
        if not (folder / checkpoints.MANIFEST).is_file():
            return dict(load_file(path))
        expected = checkpoints.read_manifest(folder).files.get(checkpoints.MODEL)
        if expected != sha256:
            raise CheckpointError(f"{path}: SHA-256 is {sha256}, the manifest says {expected}; the file is damaged")
        return checkpoints.load_weights(folder)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a safetensors file ({error}); the file is damaged") from None


def _check_tokenizer(given: str, file: WeightsFile, tokenizer: Tokenizer | None) -> None:
    """An error where the rows of the embedding belong to other tokens."""
    beside = file.path if file.hugging_face else file.path.parent
    folders = [folder for folder in (file.run_dir, beside) if folder is not None]
    saved = next((folder / TOKENIZER_JSON for folder in folders if (folder / TOKENIZER_JSON).is_file()), None)
    if saved is None or tokenizer is None or same_tokens(saved.parent, tokenizer):
        return
    where = given if saved.parent == file.run_dir == expanded(given).absolute() else str(saved)
    fix = f"tokenizer=hf tokenizer.path={given}" if file.hugging_face else f"tokenizer=saved tokenizer.path={where}"
    raise ConfigError(
        f"model.init_from={given}: these weights were trained with another tokenizer, so the rows of their embedding "
        f"mean other tokens; use that one too: {fix}"
    )


def _check_fit(
    given: str, file: WeightsFile, config: TrainConfig, model: nn.Module, weights: dict[str, Tensor]
) -> None:
    """An error that names the first tensors which are missing, too many, or of another shape."""
    own = model.state_dict()
    tied = _tied(own)
    missing = [n for n in own if not any(alias in weights for alias in tied[n])]
    unexpected = [name for name in weights if name not in own]
    both = [(name, list(tensor.shape), list(weights[name].shape)) for name, tensor in own.items() if name in weights]
    shapes = [f"{name} (expected {expected}, found {found})" for name, expected, found in both if expected != found]
    untied = [
        f"{name} and {other}"
        for name in weights
        for other in tied.get(name, ())
        if name < other and other in weights and not torch.equal(weights[name], weights[other])
    ]
    found = findings(
        (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
            ("one tensor in the model, two in the file", untied),
        )
    )
    if found:
        lines = [f"model.init_from={given}: {file.path} doesn't fit the model:", *found, *_fix(file, config)]
        raise CheckpointError("\n".join(lines))


def _tied(own: dict[str, Tensor]) -> dict[str, list[str]]:
    """Name -> all names of the same tensor."""
    places: dict[tuple[Any, ...], list[str]] = {}
    for name, tensor in own.items():
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride()) if tensor.numel() else (name,)
        places.setdefault(key, []).append(name)
    return {name: names for names in places.values() for name in names}


def _fix(file: WeightsFile, config: TrainConfig) -> Iterator[str]:
    """Which settings differ from the run's, and how to take its model."""
    if file.run_dir is None:
        yield "  set the model.* options to what the weights were trained with"
        return
    theirs = read_body(file.run_dir)["config"]
    pairs = {"data.sequence_length": ("data", "sequence_length")}
    pairs |= {f"model.{name}": ("model", name) for name in theirs.get("model") or {} if name != "init_from"}
    differing = []
    for key, (group, name) in pairs.items():
        there, here = (theirs.get(group) or {}).get(name), getattr(getattr(config, group), name, None)
        if there != here:
            differing.append(f"{key}={typed(there)} there, {typed(here)} here")
    if differing:
        yield f"  settings that differ: {'; '.join(differing)}"
    yield f"  with the model of that run: lmexp train from={file.run_dir} model.init_from={file.run_dir}"
