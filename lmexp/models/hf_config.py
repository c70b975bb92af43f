"""Settings of our GPT as the config.json of Hugging Face's GPT-2, Llama or Qwen3, and theirs as ours.

Names, defaults and meaning are those of transformers' models/{gpt2,llama,qwen3}/configuration_*.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmexp.errors import ConfigError
from lmexp.models.config import GPTConfig
from lmexp.models.layers.rotary_scaling import LLAMA3_HIGH, LLAMA3_LOW

MODEL_TYPES = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}
"""model_type of a config.json that a GPT of ours can compute -> the class of transformers."""

GPT2_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu2": "relu2"}
"""Ours -> theirs."""
ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu2": "relu2"}
"""Theirs -> ours."""
LLAMA3_FACTORS = {"low_freq_factor": LLAMA3_LOW, "high_freq_factor": LLAMA3_HIGH}
NO_BIAS = "lmexp_no_bias"
"""Key of ours in a config.json: the GPT-2 was written without biases, which are zeros in its file."""


def architecture_of(config: GPTConfig) -> str:
    """The class of transformers that computes what our GPT computes; ConfigError where there is none."""
    if config.positions == "learned":
        name, wanted = "GPT-2", {"norm": ("layer_norm",), "activation": tuple(GPT2_ACTIVATIONS), "qk_norm": (False,)}
        found = "GPT2LMHeadModel"
    elif config.positions == "rotary":
        name, wanted = "Llama", {"norm": ("rms_norm",), "activation": ("swiglu",)}
        found = "LlamaForCausalLM"
        if config.qk_norm:
            name, found = "Qwen3", "Qwen3ForCausalLM"
            wanted["bias"] = (False,)
    else:
        raise ConfigError(
            f"model.positions={config.positions} has no counterpart in Hugging Face's GPT-2 (learned) or Llama (rotary)"
        )
    obstacles = [
        f"model.{key}={_typed(getattr(config, key))} (it has {' or '.join(map(_typed, allowed))})"
        for key, allowed in wanted.items()
        if getattr(config, key) not in allowed
    ]
    if name == "GPT-2" and config.kv_heads != config.n_head:
        obstacles.append(f"model.n_kv_head={config.n_kv_head} (it has as many as n_head, {config.n_head})")
    if obstacles:
        raise ConfigError(
            f"a model with model.positions={config.positions}{' and model.qk_norm=true' if config.qk_norm else ''} "
            f"would be Hugging Face's {name}, which has no {', no '.join(obstacles)}"
        )
    return found


def hf_config_of(config: GPTConfig, vocab_size: int, sequence_length: int) -> dict[str, Any]:
    """The content of config.json; ConfigError where transformers has no model for these settings."""
    architecture = architecture_of(config)
    common = {
        "architectures": [architecture],
        "model_type": next(name for name, value in MODEL_TYPES.items() if value == architecture),
        "vocab_size": vocab_size,
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": config.init_std,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
    }
    if architecture == "GPT2LMHeadModel":
        return common | {
            "n_positions": sequence_length,
            "n_embd": config.d_model,
            "n_layer": config.n_layer,
            "n_head": config.n_head,
            "n_inner": config.d_ff,  # null is 4 * n_embd there too
            "activation_function": GPT2_ACTIVATIONS[config.activation],
            "layer_norm_epsilon": config.norm_eps,
            **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), config.dropout),
            **({} if config.bias else {NO_BIAS: True}),
        }
    found = common | {
        "max_position_embeddings": sequence_length,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.d_head,
        "intermediate_size": config.feed_forward_width,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "attention_bias": config.bias,
        "attention_dropout": config.dropout,
        **_rotary_keys(config),
    }
    return found | ({"mlp_bias": config.bias} if architecture == "LlamaForCausalLM" else {})


def gpt_config_of(hf_config: Mapping[str, Any]) -> tuple[GPTConfig, int, int]:
    """The config, vocab_size and sequence_length of our GPT; ConfigError where it has no such model.

    Of GPT-2's three probabilities of dropout ours is that of the residual stream. Llama's is of attention alone.
    """
    read = _Settings(hf_config)
    if read.model_type not in MODEL_TYPES:
        raise ConfigError(
            f"config.json: model_type is {read.model_type!r}; expected one of {', '.join(MODEL_TYPES)}, which model "
            f"kind gpt can compute"
        )
    read.only("quantization_config", None)
    config = _of_gpt2(read) if read.model_type == "gpt2" else _of_llama(read)
    lengths = "n_positions" if read.model_type == "gpt2" else "max_position_embeddings"
    default = {"gpt2": 1024, "llama": 2048, "qwen3": 32768}[read.model_type]
    return config, read.integer("vocab_size"), read.integer(lengths, default)


def _of_gpt2(read: _Settings) -> GPTConfig:
    read.only("scale_attn_weights", True)
    read.only("scale_attn_by_inverse_layer_idx", False)
    read.only("add_cross_attention", False)
    return GPTConfig(
        n_layer=read.integer("n_layer", 12),
        n_head=read.integer("n_head", 12),
        d_model=read.integer("n_embd", 768),
        d_ff=read.optional_integer("n_inner"),
        norm_eps=read.number("layer_norm_epsilon", 1e-5),
        activation=read.choice("activation_function", ACTIVATIONS, "gelu_new"),
        tie_embeddings=read.boolean("tie_word_embeddings", True),
        bias=not read.boolean(NO_BIAS, False),
        dropout=read.number("resid_pdrop", 0.1),
        init_std=read.number("initializer_range", 0.02),
    )


def _of_llama(read: _Settings) -> GPTConfig:
    qwen3 = read.model_type == "qwen3"
    n_head, d_model = read.integer("num_attention_heads", 32), read.integer("hidden_size", 4096)
    d_head = read.optional_integer("head_dim") or (128 if qwen3 and "head_dim" not in read.hf_config else None)
    if d_head is not None and d_head * n_head != d_model:
        raise ConfigError(
            f"config.json: head_dim is {d_head}, expected hidden_size / num_attention_heads ({d_model} / {n_head}): "
            f"kind gpt has no other heads"
        )
    bias = read.boolean("attention_bias", False)
    if qwen3:
        read.only("use_sliding_window", False)
        read.only("attention_bias", False)
    elif read.boolean("mlp_bias", False) != bias:
        raise ConfigError(
            f"config.json: attention_bias is {_typed(bias)} and mlp_bias {_typed(not bias)}; kind gpt has both or none"
        )
    return GPTConfig(
        n_layer=read.integer("num_hidden_layers", 32),
        n_head=n_head,
        d_model=d_model,
        n_kv_head=read.optional_integer("num_key_value_heads"),
        d_ff=read.integer("intermediate_size"),
        positions="rotary",
        norm="rms_norm",
        norm_eps=read.number("rms_norm_eps", 1e-6),
        activation=read.choice("hidden_act", {"silu": "swiglu", "swish": "swiglu"}, "silu"),
        qk_norm=qwen3,
        tie_embeddings=read.boolean("tie_word_embeddings", False),
        bias=bias,
        dropout=read.number("attention_dropout", 0.0),
        init_std=read.number("initializer_range", 0.02),
        **_rotary_settings(read),
    )


def _rotary_keys(config: GPTConfig) -> dict[str, Any]:
    """rope_parameters, as transformers 5 writes them, and the two keys that older programs read."""
    scaling: dict[str, Any] = {"rope_type": "default"}
    if config.rotary_scaling != "none":
        scaling = {"rope_type": config.rotary_scaling, "factor": config.rotary_factor}
    if config.rotary_original_length is not None:
        scaling["original_max_position_embeddings"] = config.rotary_original_length
    if config.rotary_scaling == "llama3":
        scaling |= LLAMA3_FACTORS
    old = {"rope_theta": config.rotary_base, "rope_scaling": scaling if config.rotary_scaling != "none" else None}
    return {"rope_parameters": {"rope_theta": config.rotary_base, **scaling}, **old}


def _rotary_settings(read: _Settings) -> dict[str, Any]:
    """model.rotary_* of either form: rope_parameters, or rope_theta and rope_scaling."""
    new, old = (read.hf_config.get(key) for key in ("rope_parameters", "rope_scaling"))
    given = new or old or {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"config.json: rope_parameters is {given!r}; expected an object")
    rope = _Settings({"rope_theta": read.hf_config.get("rope_theta", 10000.0), **given}, where="rope_parameters.")
    rope.only("partial_rotary_factor", 1.0)
    settings: dict[str, Any] = {"rotary_base": rope.number("rope_theta", 10000.0)}
    kinds = {kind: kind for kind in ("default", "linear", "llama3", "yarn")}
    kind = rope.choice("rope_type" if "rope_type" in given else "type", kinds, "default")
    if kind == "default":
        return settings
    factor = rope.number("factor", 1.0)
    if factor == 1:  # as if there were none; yarn's temperature is 1 too
        return settings
    if kind == "llama3":
        for key, value in LLAMA3_FACTORS.items():
            rope.only(key, value)
    if kind == "yarn":
        rope.only("beta_fast", 32.0)
        rope.only("beta_slow", 1.0)
        rope.only("truncate", True)
        for key in ("attention_factor", "mscale", "mscale_all_dim"):
            rope.only(key, None)
    settings |= {"rotary_scaling": kind, "rotary_factor": factor}
    if kind != "linear":
        default = read.hf_config.get("max_position_embeddings")
        settings["rotary_original_length"] = rope.integer("original_max_position_embeddings", default)
    return settings


class _Settings:
    """The values of a config.json, each with its type checked: anybody may have written it."""

    def __init__(self, hf_config: Mapping[str, Any], where: str = "") -> None:
        self.hf_config, self.where = hf_config, where
        self.model_type = str(hf_config.get("model_type"))

    def integer(self, key: str, default: Any = None) -> int:
        found = self.hf_config.get(key)
        found = default if found is None else found
        if type(found) is not int or not 0 < found < 2**31:
            raise self._wrong(key, found, "a whole number above 0")
        return found

    def optional_integer(self, key: str) -> int | None:
        return None if self.hf_config.get(key) is None else self.integer(key)

    def number(self, key: str, default: float) -> float:
        found = self.hf_config.get(key)
        found = default if found is None else found
        if type(found) not in (int, float):
            raise self._wrong(key, found, "a number")
        return float(found)

    def boolean(self, key: str, default: bool) -> bool:
        found = self.hf_config.get(key)
        found = default if found is None else found
        if type(found) is not bool:
            raise self._wrong(key, found, "true or false")
        return found

    def choice(self, key: str, allowed: Mapping[str, str], default: str) -> str:
        """What `allowed` says of the value."""
        found = self.hf_config.get(key)
        found = default if found is None else found
        if not isinstance(found, str) or found not in allowed:
            raise self._wrong(key, found, f"one of {', '.join(allowed)}")
        return allowed[found]

    def only(self, key: str, value: Any) -> None:
        """ConfigError unless the value is the one that our GPT has; a missing one is."""
        found = self.hf_config.get(key)
        if found is not None and (isinstance(found, bool) != isinstance(value, bool) or found != value):
            raise self._wrong(key, found, "nothing" if value is None else _typed(value))

    def _wrong(self, key: str, found: Any, expected: str) -> ConfigError:
        shown = "missing" if found is None else _typed(found)
        return ConfigError(f"config.json: {self.where}{key} is {shown}; expected {expected}, as kind gpt has it")


def _typed(value: object) -> str:
    """As it is typed in YAML."""
    return str(value).lower() if isinstance(value, bool) else str(value)[:80]
