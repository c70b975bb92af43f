"""The configuration of a Hugging Face architecture: put together once, checked, and kept whole by the run.

A config.json chooses among the architectures that transformers has; it never brings code (auto_map), names no kernels
to be fetched and no quantization, and what isn't a setting of the architecture is left out.
"""

from __future__ import annotations

import json
from typing import Any

from lmexp.errors import ConfigError
from lmexp.models import hf_folder
from lmexp.models.config import HFConfig
from lmexp.plugins import did_you_mean

CODE = ("auto_map", "custom_pipelines")
"""Keys that name code beside a config.json."""
LEFT_OUT = (
    "attn_implementation",
    "experts_implementation",
    "fusion_config",
    "id2label",
    "label2id",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "name_or_path",
    "return_dict",
    "output_attentions",
    "output_hidden_states",
)
"""Keys that are no settings of an architecture, or choose what computes it."""


def library() -> Any:
    """transformers; it neither draws progress bars nor warns of what lmexp checks itself."""
    try:
        import transformers
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise ConfigError('model=hf needs transformers: pip install "lmexp[hf]"') from None
    logging: Any = transformers.utils.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return transformers


def resolve(config: HFConfig, *, vocab_size: int, sequence_length: int, eos_id: int | None = None) -> dict[str, Any]:
    """The whole configuration of the architecture that a config asks for, as JSON types.

    vocab_size, eos_id: of the tokenizer; sequence_length: the longest sequence of training. Weights that are drawn anew
    get as many tokens as the tokenizer has and, without model.path, as many positions as training needs.
    """
    folder = hf_folder.find(config)
    where = "model.config" if folder is None else str(folder / hf_folder.CONFIG_JSON)
    values = {} if folder is None else _checked(hf_folder.read_config(folder), where)
    model_type = values.get("model_type", config.config.get("model_type"))
    if config.config.get("model_type", model_type) != model_type:
        raise ConfigError(
            f"model.config.model_type is {config.config['model_type']!r}, but {where} is of type {model_type!r}; leave "
            f"it out, or leave model.path out"
        )
    default = _made({"model_type": model_type}, where)
    names = type(default).attribute_map
    _check_known(config.config, default, str(model_type))
    values |= {names.get(key, key): value for key, value in config.config.items()}
    if not config.starts_from_path:
        size, positions = names.get("vocab_size", "vocab_size"), names.get(_POSITIONS, _POSITIONS)
        if folder is not None and "vocab_size" not in config.config and size not in config.config:
            values[size] = vocab_size
        values.setdefault(size, vocab_size)
        if hasattr(default, positions):
            values.setdefault(positions, sequence_length)
        special = {"bos_token_id": eos_id, "eos_token_id": eos_id, "pad_token_id": None}
        values |= {key: token for key, token in special.items() if key not in config.config}
    made = _made(values, where)
    try:
        resolved: dict[str, Any] = json.loads(json.dumps(_checked(made.to_dict(), where), allow_nan=False))
    except ValueError:
        raise ConfigError(
            f"{where}: a setting of {model_type} is no finite number, which run.json can't keep; set it to a number, "
            f"or choose another architecture"
        ) from None
    return resolved


def make(config: HFConfig, *, vocab_size: int, sequence_length: int) -> Any:
    """transformers' config object; ConfigError where the tokenizer or the sequences don't fit it."""
    values = config.resolved or resolve(config, vocab_size=vocab_size, sequence_length=sequence_length)
    made = _made(_checked(values, "model.resolved"), "model.resolved")
    text = made.get_text_config()
    size, longest = getattr(text, "vocab_size", None), max_positions(made)
    if not isinstance(size, int) or size < vocab_size:
        if config.starts_from_path:
            fix = f"use its own: tokenizer=hf tokenizer.path={config.path}"
        else:
            fix = f"set model.config.vocab_size={vocab_size}, or leave it out"
        raise ConfigError(f"the model has {size} tokens, but the tokenizer has {vocab_size}; {fix}")
    if longest is not None and longest < sequence_length:
        name = type(text).attribute_map.get(_POSITIONS, _POSITIONS)
        other = "" if config.starts_from_path else f", or model.config.{name}={sequence_length}"
        raise ConfigError(
            f"data.sequence_length is {sequence_length}, but the model has {longest} positions; "
            f"try data.sequence_length={longest}{other}"
        )
    return made


def max_positions(made: Any) -> int | None:
    """Tokens that the architecture reads at most; None where it has no bound."""
    found = getattr(made.get_text_config(), _POSITIONS, None)
    return found if isinstance(found, int) and found > 0 else None


def layers(config: HFConfig) -> int:
    """Layers of the architecture that a run has kept; 0 where it doesn't say."""
    kept = [config.resolved, *(value for value in config.resolved.values() if isinstance(value, dict))]
    names = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
    found = [settings.get(name) for settings in kept for name in names]
    return max([number for number in found if isinstance(number, int)], default=0)


_POSITIONS = "max_position_embeddings"


def _made(values: dict[str, Any], where: str) -> Any:
    """transformers' object for settings that _checked() let through."""
    transformers = library()
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KNOWN

    model_type = values.get("model_type")
    if not isinstance(model_type, str) or model_type not in KNOWN:
        raise ConfigError(
            f"{where}: model_type is {str(model_type)[:80]!r}, and transformers {transformers.__version__} has no "
            f"causal language model of that type{did_you_mean(str(model_type), KNOWN)}; code that comes with a model "
            f"is never run"
        )
    methods = {
        name for name in dir(transformers.PreTrainedConfig) if callable(getattr(transformers.PreTrainedConfig, name))
    }
    rest = {name: value for name, value in values.items() if name != "model_type" and name not in methods}
    try:
        return transformers.AutoConfig.for_model(model_type, **rest)
    except Exception as error:  # of many kinds; what they say is for the user
        raise ConfigError(f"{where}: no settings of {model_type}: {' '.join(str(error).split())[:300]}") from None


def _checked(values: dict[str, Any], where: str) -> dict[str, Any]:
    """The settings of an architecture among values, also within others; ConfigError where code is asked for."""
    for key in CODE:
        if values.get(key):
            raise ConfigError(
                f"{where}: {key} asks for code that comes with the model, and lmexp never runs that "
                f"(trust_remote_code is always off); expected an architecture that transformers has itself"
            )
    if values.get("quantization_config"):
        raise ConfigError(
            f"{where}: the weights are quantized (quantization_config), which can't be trained here; expected float "
            f"weights"
        )
    return {
        key: _checked(value, f"{where}: {key}") if isinstance(value, dict) else value
        for key, value in values.items()
        if not str(key).startswith("_") and key not in LEFT_OUT and key != "quantization_config"
    }


def _check_known(given: dict[str, Any], default: Any, model_type: str) -> None:
    """ConfigError for a key of model.config that the architecture doesn't have."""
    known = {*default.to_dict(), *type(default).attribute_map, "model_type"} - {*LEFT_OUT, *CODE}
    for key in given:
        if key not in known or str(key).startswith("_"):
            raise ConfigError(f"model.config has no {key!r}{did_you_mean(str(key), known)}; it is of type {model_type}")
