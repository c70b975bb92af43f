"""A gpt starts from a folder that transformers saved, or is told which settings stand in the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lmexp.config.compose import compose
from lmexp.errors import UserError
from lmexp.tokenizers.byte import ByteTokenizer
from lmexp.training import initial_weights
from lmexp.training.trainer import build_model

transformers = pytest.importorskip("transformers")

VOCAB, SEQ = ByteTokenizer().vocab_size, 12
GPT2 = ["model=gpt2_small", "model.n_layer=2", "model.n_head=2", "model.d_model=16"]
LLAMA = ["model=llama_tiny", "model.n_layer=2", "model.d_model=16", "model.d_ff=24"]


def configured(*overrides: str, folder: Path, length: int = SEQ) -> Any:
    given = [f"model.init_from={folder}", f"data.sequence_length={length}"]
    return compose([*overrides, "tokenizer=byte", *given]).config


def started(config: Any) -> torch.nn.Module:
    """The model with the weights that training would start from."""
    found = initial_weights.check(config, ByteTokenizer(), build_model(config, VOCAB))
    model = build_model(config, VOCAB)
    initial_weights.load(model, Path(found["path"]), found["sha256"])
    return model.eval()


def refused(config: Any, vocab_size: int = VOCAB) -> str:
    with pytest.raises(UserError) as caught:
        initial_weights.check(config, ByteTokenizer(), build_model(config, vocab_size))
    return str(caught.value)


def refused_early(config: Any) -> str:
    """The same before the data are prepared; it is what is said after, too."""
    with pytest.raises(UserError) as caught:
        initial_weights.check_place(config)
    assert str(caught.value) == refused(config)
    return str(caught.value)


def saved(kind: str, folder: Path, **settings: Any) -> torch.nn.Module:
    """A small model of transformers with random weights, saved to a folder."""
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"vocab_size": VOCAB, "initializer_range": 0.3}
    if kind == "GPT2":
        config = transformers.GPT2Config(n_positions=SEQ, n_embd=16, n_layer=2, n_head=2, **sizes, **settings)
        model = transformers.GPT2LMHeadModel(config)
    else:
        sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 24, "rms_norm_eps": 1e-5}
        config = transformers.LlamaConfig(
            hidden_size=16, num_hidden_layers=2, max_position_embeddings=SEQ, **{**sizes, **settings}
        )
        model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return model.eval()  # type: ignore[no-any-return]


@torch.no_grad()
def assert_same_logits(ours: torch.nn.Module, theirs: Any, length: int) -> None:
    tokens = torch.randint(VOCAB, (2, length), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [SEQ, 5])
def test_gpt2_small_starts_from_a_gpt2_also_with_shorter_sequences(tmp_path: Path, length: int) -> None:
    theirs = saved("GPT2", tmp_path)
    assert_same_logits(started(configured(*GPT2, folder=tmp_path, length=length)), theirs, length)


def test_llama_tiny_starts_from_a_llama_and_may_become_one_for_longer_sequences(tmp_path: Path) -> None:
    theirs = saved("Llama", tmp_path)
    assert_same_logits(started(configured(*LLAMA, folder=tmp_path)), theirs, SEQ)
    longer = ["model.rotary_scaling=linear", "model.rotary_factor=4"]
    assert started(configured(*LLAMA, *longer, folder=tmp_path, length=4 * SEQ)) is not None
    scaled = tmp_path / "scaled"
    saved("Llama", scaled, rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0})
    told = refused(configured(*LLAMA, folder=scaled))
    assert "type them too: model.rotary_scaling=linear model.rotary_factor=2.0 (here rotary_scaling is none" in told


def test_weights_in_several_files_are_read(tmp_path: Path) -> None:
    theirs = saved("Llama", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    theirs.save_pretrained(tmp_path, max_shard_size="5KB")  # type: ignore[operator]
    assert not (tmp_path / "model.safetensors").exists()
    assert_same_logits(started(configured(*LLAMA, folder=tmp_path)), theirs, SEQ)


def test_settings_that_differ_are_told_as_they_are_to_be_typed(tmp_path: Path) -> None:
    saved("GPT2", tmp_path)
    told = refused_early(configured("model=gpt_tiny", folder=tmp_path))
    typed = told.partition("too: ")[2].partition(" (")[0].split()
    assert typed == [
        *("model.n_layer=2", "model.n_head=2", "model.d_model=16", "model.activation=gelu_tanh", "model.bias=true")
    ]
    assert "(here n_layer is 4, n_head is 4, d_model is 128, activation is gelu, bias is false)" in told
    started(fitting := configured("model=gpt_tiny", *typed, folder=tmp_path))
    initial_weights.check_place(fitting)
    saved("Llama", tmp_path / "llama", rms_norm_eps=1e-3)
    assert "too: model.norm_eps=0.001 (here norm_eps is 1e-05)" in refused(
        configured(*LLAMA, folder=tmp_path / "llama")
    )


def test_more_positions_and_other_tokens_are_refused(tmp_path: Path) -> None:
    saved("GPT2", tmp_path)
    assert f"set data.sequence_length={SEQ}, or less" in refused_early(
        configured(*GPT2, folder=tmp_path, length=SEQ + 1)
    )
    other = refused(configured(*GPT2, folder=tmp_path), vocab_size=VOCAB + 3)
    assert f"tell {VOCAB} tokens apart, and the tokenizer of the data makes {VOCAB + 3}" in other
    assert f"tokenizer=hf tokenizer.path={tmp_path}" in other
    tokenizers = pytest.importorskip("tokenizers")
    tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    told = refused(configured(*GPT2, folder=tmp_path))
    assert (
        "another tokenizer, so the rows of their embedding mean other tokens; use that one too: tokenizer=hf " in told
    )


def test_what_no_gpt_can_compute_is_told(tmp_path: Path) -> None:
    saved("GPT2", tmp_path)
    config = configured(*GPT2, folder=tmp_path)
    path = tmp_path / "config.json"
    whole = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**whole, "model_type": "bert"}), "utf-8")
    assert f"model.init_from={tmp_path}: config.json: model_type is 'bert'; expected one of gpt2" in refused_early(
        config
    )
    path.write_text(json.dumps({**whole, "n_layer": 3}), "utf-8")
    assert "the weights lack transformer.h.2.ln_1.weight" in refused(config)
    path.write_text("no JSON", "utf-8")
    assert "config.json: not JSON" in refused(config)


def test_weights_that_have_changed_since_or_are_gone_are_refused(tmp_path: Path) -> None:
    saved("GPT2", tmp_path)
    config = configured(*GPT2, folder=tmp_path)
    model = build_model(config, VOCAB)
    found = initial_weights.check(config, ByteTokenizer(), model)
    path = tmp_path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="the run was made to start from"):
        initial_weights.load(model, Path(found["path"]), found["sha256"])
    path.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors"):
        initial_weights.load(model, Path(found["path"]), found["sha256"])
