"""The same weights in our GPT and in transformers' GPT-2, Llama and Qwen3 give the same logits, both ways."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lmexp.errors import CheckpointError, ConfigError
from lmexp.models.config import GPTConfig
from lmexp.models.hf_weights import from_hf, to_hf

transformers = pytest.importorskip("transformers")

VOCAB, SEQ = 61, 24
TOLERANCE = 1e-5
LLAMA: dict[str, Any] = {"positions": "rotary", "norm": "rms_norm", "activation": "swiglu", "n_kv_head": 2}
SCALED = {"rotary_factor": 4.0, "rotary_original_length": 12}
OURS: dict[str, dict[str, Any]] = {
    "gpt_tiny": {},
    "gpt2": {"bias": True, "activation": "gelu_tanh", "dropout": 0.1, "init_std": 0.03},
    "gpt2 untied": {"bias": True, "tie_embeddings": False, "d_ff": 40, "norm_eps": 1e-3},
    "gpt2 relu2": {"activation": "relu2", "tie_embeddings": False},
    "llama": {**LLAMA, "tie_embeddings": False},
    "llama 3": {**LLAMA, "rotary_base": 500000.0, "rotary_scaling": "llama3", **SCALED},
    "llama linear": {**LLAMA, "n_kv_head": 1, "rotary_scaling": "linear", "rotary_factor": 2.0},
    "llama yarn": {**LLAMA, "n_kv_head": 4, "rotary_scaling": "yarn", **SCALED},
    "llama biases": {**LLAMA, "bias": True, "norm_eps": 1e-6, "d_ff": 56},
    "qwen3": {**LLAMA, "qk_norm": True, "norm_eps": 1e-2},
}
TINY_GPT2 = {"vocab_size": VOCAB, "n_positions": SEQ, "n_embd": 32, "n_layer": 2, "n_head": 4}
TINY_LLAMA = {
    "vocab_size": VOCAB,
    "max_position_embeddings": SEQ,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 12,
}
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", TINY_GPT2),
    "gpt2 untied": ("GPT2", {**TINY_GPT2, "tie_word_embeddings": False, "activation_function": "gelu", "n_inner": 40}),
    "gpt2 pytorch gelu": (
        "GPT2",
        {**TINY_GPT2, "activation_function": "gelu_pytorch_tanh", "layer_norm_epsilon": 1e-3},
    ),
    "llama": ("Llama", TINY_LLAMA),
    "llama tied 3.2": ("Llama", {**TINY_LLAMA, "tie_word_embeddings": True, "rope_parameters": LLAMA3_ROPE}),
    "llama all biases": ("Llama", {**TINY_LLAMA, "attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4}),
    "qwen3": ("Qwen3", {**TINY_LLAMA, "head_dim": 8, "tie_word_embeddings": True}),
}
ours_and_back = pytest.mark.parametrize("name", OURS)
theirs_and_back = pytest.mark.parametrize("name", THEIRS)


def randomize(model: nn.Module) -> None:
    """Weights of which none may be left out, transposed or swapped unnoticed: biases and norms are random too."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            vector = 1 + 0.3 * values if name.endswith("weight") else 0.3 * values
            parameter.copy_(0.2 * values if parameter.dim() > 1 else vector)


def ours(name: str) -> tuple[GPTConfig, nn.Module]:
    config = GPTConfig(**{"n_layer": 2, "d_model": 32, "n_head": 4, **OURS[name]})
    model = config.build(vocab_size=VOCAB, sequence_length=SEQ)
    randomize(model)
    return config, model.eval()


def built(config: GPTConfig, vocab_size: int, sequence_length: int, state: dict[str, Tensor]) -> nn.Module:
    model = config.build(vocab_size=vocab_size, sequence_length=sequence_length)
    model.load_state_dict(state)
    return model.eval()


def loaded_by_transformers(folder: Path, hf_config: dict[str, Any], hf_state: dict[str, Tensor]) -> nn.Module:
    """As transformers reads the folder, having found every tensor that it looked for and no other."""
    (folder / "config.json").write_text(json.dumps(hf_config), encoding="utf-8")
    save_file(hf_state, folder / "model.safetensors", metadata={"format": "pt"})
    kind = getattr(transformers, hf_config["architectures"][0])
    model, report = kind.from_pretrained(folder, output_loading_info=True, local_files_only=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    return model.eval()  # type: ignore[no-any-return]


def theirs(name: str, folder: Path) -> tuple[nn.Module, dict[str, Any], dict[str, Tensor]]:
    """A model of transformers, and the config.json and tensors that it saves."""
    family, settings = THEIRS[name]
    config = getattr(transformers, f"{family}Config")(**settings)
    architecture = {"GPT2": "GPT2LMHeadModel"}.get(family, f"{family}ForCausalLM")
    model = getattr(transformers, architecture)(config).eval()
    randomize(model)
    model.save_pretrained(folder)
    return model, json.loads((folder / "config.json").read_text("utf-8")), load_file(folder / "model.safetensors")


def assert_same_logits(one: nn.Module, other: nn.Module) -> None:
    """The largest difference of fp32 logits is below TOLERANCE, and the logits aren't trivial."""
    tokens = torch.randint(VOCAB, (3, SEQ), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, expected = ((out if isinstance(out := model(tokens), Tensor) else out.logits) for model in (one, other))
    assert found.dtype == expected.dtype == torch.float32
    assert expected.std() > 0.5
    assert (found - expected).abs().max().item() < TOLERANCE


@ours_and_back
def test_transformers_computes_our_logits_from_what_we_write(name: str, tmp_path: Path) -> None:
    config, model = ours(name)
    hf_config, hf_state = to_hf(config, VOCAB, SEQ, model.state_dict())
    assert_same_logits(loaded_by_transformers(tmp_path, hf_config, hf_state), model)


@theirs_and_back
def test_our_gpt_computes_their_logits_from_what_transformers_writes(name: str, tmp_path: Path) -> None:
    model, hf_config, hf_state = theirs(name, tmp_path)
    assert_same_logits(built(*from_hf(hf_config, hf_state)), model)


@ours_and_back
def test_there_and_back_our_config_and_tensors_are_the_same(name: str) -> None:
    config, model = ours(name)
    state = model.state_dict()
    hf_config, hf_state = to_hf(config, VOCAB, SEQ, state)
    found, vocab_size, sequence_length, back = from_hf(json.loads(json.dumps(hf_config)), hf_state)
    assert (vocab_size, sequence_length) == (VOCAB, SEQ)
    assert found.feed_forward_width == config.feed_forward_width
    assert dataclasses.replace(found, d_ff=config.d_ff) == config
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in state.items())
    tokens = torch.arange(SEQ)[None]
    assert torch.equal(built(found, vocab_size, sequence_length, back)(tokens), model(tokens))


@theirs_and_back
def test_there_and_back_their_tensors_are_the_same(name: str, tmp_path: Path) -> None:
    _, hf_config, hf_state = theirs(name, tmp_path)
    again, back = to_hf(*from_hf(hf_config, hf_state))
    assert back.keys() == hf_state.keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in hf_state.items())
    assert from_hf(again, back)[:3] == from_hf(hf_config, hf_state)[:3]


def test_a_gpt2_without_biases_comes_back_without_and_after_training_elsewhere_with() -> None:
    config, model = ours("gpt_tiny")
    hf_config, hf_state = to_hf(config, VOCAB, SEQ, model.state_dict())
    biases = [name for name in hf_state if name.endswith(".bias")]
    assert len(biases) == 2 * 6 + 1
    assert not any(hf_state[name].any() for name in biases)
    assert not from_hf(hf_config, hf_state)[0].bias
    hf_state[biases[0]] += 1
    trained, _, _, state = from_hf(hf_config, hf_state)
    assert trained.bias
    assert any(tensor.any() for name, tensor in state.items() if name.endswith(".bias"))


def test_files_of_the_bare_gpt2_and_with_old_tables_are_read(tmp_path: Path) -> None:
    """As the file of gpt2 on the hub: names of GPT2Model, and the causal mask of each block."""
    model, hf_config, hf_state = theirs("gpt2", tmp_path)
    bare = {name.removeprefix("transformer."): tensor for name, tensor in hf_state.items()}
    bare |= {f"h.{i}.attn.bias": torch.ones(1, 1, SEQ, SEQ).tril() for i in range(2)}
    minimal = {key: hf_config[key] for key in ("model_type", "vocab_size", *TINY_GPT2)}
    assert_same_logits(built(*from_hf(minimal, bare)), model)


def test_older_config_files_are_read(tmp_path: Path) -> None:
    """rope_theta and rope_scaling at the top, as transformers 4 wrote them."""
    model, hf_config, hf_state = theirs("llama tied 3.2", tmp_path)
    rope = hf_config.pop("rope_parameters")
    old = hf_config | {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    assert_same_logits(built(*from_hf(old, hf_state)), model)
    config = from_hf({**old, "rope_scaling": None}, hf_state)[0]
    assert (config.rotary_base, config.rotary_scaling) == (500000.0, "none")


def test_bf16_stays_bf16() -> None:
    config, model = ours("llama")
    hf_config, hf_state = to_hf(config, VOCAB, SEQ, model.bfloat16().state_dict())
    assert hf_config["dtype"] == "bfloat16"
    assert {tensor.dtype for tensor in from_hf(hf_config, hf_state)[3].values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "rms_norm"}, r"positions=learned would be .* GPT-2, which has no model.norm=rms_norm \(it has layer"),
        ({"activation": "swiglu"}, r"GPT-2, which has no model.activation=swiglu \(it has gelu or gelu_tanh or relu2"),
        ({"n_kv_head": 2, "qk_norm": True}, r"no model.qk_norm=true \(it has false\), no model.n_kv_head=2"),
        ({**LLAMA, "norm": "layer_norm"}, r"positions=rotary would be .* Llama, which has no model.norm=layer_norm"),
        ({**LLAMA, "activation": "gelu"}, r"Llama, which has no model.activation=gelu \(it has swiglu\)"),
        ({**LLAMA, "qk_norm": True, "bias": True}, r"Qwen3, which has no model.bias=true"),
    ],
)
def test_what_transformers_lacks_is_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        to_hf(GPTConfig(**settings), VOCAB, SEQ, {})


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("gpt2", {"model_type": "bert"}, "model_type is 'bert'; expected one of gpt2, llama, qwen3"),
        ("gpt2", {"n_layer": "2"}, "n_layer is 2; expected a whole number above 0"),
        ("gpt2", {"n_embd": True}, "n_embd is true; expected a whole number"),
        ("gpt2", {"vocab_size": None}, "vocab_size is missing; expected a whole number"),
        ("gpt2", {"activation_function": "silu"}, "activation_function is silu; expected one of gelu, gelu_new"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights is false; expected true"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "by_inverse_layer_idx is true; expected false"),
        ("gpt2", {"layer_norm_epsilon": "small"}, "layer_norm_epsilon is small; expected a number"),
        ("gpt2", {"n_head": 5}, r"model.d_model \(32\) must be divisible by model.n_head \(5\)"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config is .*; expected nothing"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act is gelu; expected one of silu"),
        ("llama", {"mlp_bias": True}, "attention_bias is false and mlp_bias true; kind gpt has both or none"),
        ("llama", {"head_dim": 16}, "head_dim is 16, expected hidden_size / num_attention_heads"),
        ("llama", {"rope_parameters": {"rope_type": "longrope"}}, "rope_type is longrope; expected one of default, li"),
        ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5; expected 1.0"),
        ("llama", {"rope_parameters": [1]}, r"rope_parameters is \[1\]; expected an object"),
        ("llama", {"rope_parameters": {**LLAMA3_ROPE, "low_freq_factor": 2.0}}, "low_freq_factor is 2.0; expected 1.0"),
        ("qwen3", {"use_sliding_window": True}, "use_sliding_window is true; expected false"),
        ("qwen3", {"head_dim": None, "hidden_size": 33}, "model.d_model"),
    ],
)
def test_what_our_gpt_lacks_is_told(name: str, changed: dict[str, Any], message: str) -> None:
    family, settings = THEIRS[name]
    with pytest.raises(ConfigError, match=message):
        from_hf({"model_type": family.lower(), **settings, **changed}, {})


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    _, hf_config, hf_state = theirs("gpt2", tmp_path)
    norm = "transformer.h.1.ln_2.weight"
    with pytest.raises(CheckpointError, match=f"the weights lack {norm}, expected with shape \\[32\\]"):
        from_hf(hf_config, {name: tensor for name, tensor in hf_state.items() if name != norm})
    with pytest.raises(CheckpointError, match=r"ln_2.weight has shape \[31\], expected \[32\] by the config"):
        from_hf(hf_config, {**hf_state, norm: torch.ones(31)})
    with pytest.raises(CheckpointError, match=r"transformer.h.2.x is a tensor .* doesn't have, and so are 1 more"):
        from_hf(hf_config, {**hf_state, "transformer.h.2.x": torch.ones(1), "transformer.h.2.y": torch.ones(1)})
    same = {**hf_state, "lm_head.weight": hf_state["transformer.wte.weight"].clone()}
    assert "head.weight" not in from_hf(hf_config, same)[3]
    with pytest.raises(CheckpointError, match="tie_word_embeddings=true; set it to false there"):
        from_hf(hf_config, {**same, "lm_head.weight": torch.zeros(VOCAB, 32)})
    with pytest.raises(
        CheckpointError, match=r"the weights lack transformer\.h\.2"
    ):  # a depth that no file has ends soon
        from_hf({**hf_config, "n_layer": 10**9}, hf_state)
    config, model = ours("gpt2")
    with pytest.raises(CheckpointError, match=r"blocks.1.* is a tensor that a GPT with this config doesn't have"):
        to_hf(dataclasses.replace(config, n_layer=1), VOCAB, SEQ, model.state_dict())
