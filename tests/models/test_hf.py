"""transformers' models as language models of ours: the same logits, causal, packed, cached; adapters saved alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lmexp.errors import CheckpointError, ConfigError
from lmexp.models import hf_folder
from lmexp.models.base import takes_cache, takes_positions
from lmexp.models.config import HFConfig, LoRAConfig
from lmexp.models.hf import CACHED, HFModel
from lmexp.models.hf_architecture import resolve
from lmexp.training.sharding import put_together
from tests.hugging_face import LENGTH, SETTINGS, WIDTHS, write_model

VOCAB = 50
every_architecture = pytest.mark.parametrize("model_type", CACHED)


def built(vocab_size: int = VOCAB, length: int = LENGTH, **config: Any) -> HFModel:
    model = HFConfig(**config).build(vocab_size=vocab_size, sequence_length=length)
    assert isinstance(model, HFModel)
    return model.eval()


def fresh(model_type: str, **config: Any) -> HFModel:
    torch.manual_seed(0)
    return built(config={"model_type": model_type, **SETTINGS.get(model_type, {})}, **config)


def tokens(*shape: int) -> Tensor:
    return torch.randint(VOCAB, shape, generator=torch.Generator().manual_seed(1))


def refused(**config: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        built(**config)
    return str(caught.value)


def test_weights_of_a_folder_give_the_logits_that_transformers_gives(tmp_path: Path) -> None:
    for model_type in ("gpt2", "llama"):
        folder = tmp_path / model_type
        theirs = write_model(folder, model_type)
        ours = built(path=str(folder), vocab_size=theirs.config.vocab_size)
        assert not torch.allclose(ours(tokens(2, 8)), theirs(tokens(2, 8)).logits)
        ours.load_base(hf_folder.read_weights(folder), "here")
        assert torch.equal(ours(tokens(2, 8)), theirs(tokens(2, 8)).logits)


@every_architecture
@torch.no_grad()
def test_it_is_causal_and_keeps_packed_documents_apart(model_type: str) -> None:
    model, given = fresh(model_type), tokens(2, 12)
    model.check(packed=LENGTH)
    assert takes_positions(model)
    whole = model(given)
    assert whole.shape == (2, 12, VOCAB)
    torch.testing.assert_close(model(given[:, :7]), whole[:, :7], atol=1e-5, rtol=1e-5)
    positions = torch.tensor([[*range(5), *range(7)], [*range(9), *range(3)]])
    packed = model(given, positions)
    for row, cut in enumerate((5, 9)):
        apart = torch.cat([model(given[row : row + 1, :cut]), model(given[row : row + 1, cut:])], dim=1)
        torch.testing.assert_close(packed[row : row + 1], apart, atol=1e-5, rtol=1e-5)


@every_architecture
@torch.no_grad()
def test_going_on_from_a_cache_equals_the_whole_text(model_type: str) -> None:
    model, given = fresh(model_type), tokens(2, 12)
    assert takes_cache(model)
    whole = model(given)
    cache = model.new_cache(2, 12)  # type: ignore[operator]
    torch.testing.assert_close(model(given[:, :5], cache=cache), whole[:, :5], atol=1e-5, rtol=1e-5)
    cache.crop([5, 3])  # rows of different lengths from here on
    found = model(torch.stack([given[0, 5:8], given[1, 3:6]]), cache=cache)
    torch.testing.assert_close(found, torch.stack([whole[0, 5:8], whole[1, 3:6]]), atol=1e-5, rtol=1e-5)
    cache.reorder([1, 1])
    found = model(torch.tensor([[7], [9]]), cache=cache)
    for row, token in enumerate((7, 9)):
        expected = model(torch.cat([given[1, :6], torch.tensor([token])])[None])[0, -1]
        torch.testing.assert_close(found[row, 0], expected, atol=1e-5, rtol=1e-5)


def test_what_cant_be_kept_apart_or_looks_ahead_is_refused() -> None:
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    with pytest.raises(ConfigError, match=r"BertLMHeadModel looks ahead.*is_decoder=true"):
        built(config={"model_type": "bert", **small}).check(packed=None)
    bloom = built(config={"model_type": "bloom", "hidden_size": 32, "n_layer": 1, "n_head": 2})
    bloom.check(packed=None)
    assert not takes_cache(bloom)
    with pytest.raises(ConfigError, match=r"BloomForCausalLM can't be told to keep them apart"):
        bloom.check(packed=LENGTH)
    windowed = built(config={"model_type": "mistral", **WIDTHS, "sliding_window": 8})
    assert not takes_cache(windowed)
    with pytest.raises(ConfigError, match="keep them apart"):
        windowed.check(packed=LENGTH)


def test_a_described_architecture_gets_the_tokens_and_positions_of_the_training() -> None:
    model = fresh("gpt2")
    assert model.plain.config.vocab_size == VOCAB
    assert model.max_sequence_length == model.plain.config.n_positions == LENGTH
    assert fresh("gpt2").state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(fresh("gpt2").parameters(), model.parameters(), strict=True))
    assert built(config={"model_type": "gpt2", "n_positions": 99, "n_layer": 1}).max_sequence_length == 99


def test_the_resolved_architecture_needs_no_folder(tmp_path: Path) -> None:
    theirs = write_model(tmp_path / "there", "llama", rope_parameters={"rope_theta": 5e3, "rope_type": "default"})
    config = HFConfig(path=str(tmp_path / "there"))
    config.resolved = resolve(config, vocab_size=300, sequence_length=LENGTH)
    (tmp_path / "there").rename(tmp_path / "elsewhere")
    ours = config.build(vocab_size=theirs.config.vocab_size, sequence_length=LENGTH)
    assert isinstance(ours, HFModel)
    ours.load_base(hf_folder.read_weights(tmp_path / "elsewhere"), "here")
    assert torch.equal(ours.eval()(tokens(1, 9)), theirs(tokens(1, 9)).logits)
    assert not any(key.startswith("_") or key == "transformers_version" for key in config.resolved)


def test_room_for_more_tokens_than_the_tokenizer_has_is_left_out(tmp_path: Path) -> None:
    theirs = write_model(tmp_path, vocab_size=320)
    ours = built(path=str(tmp_path), vocab_size=300)
    ours.load_base(hf_folder.read_weights(tmp_path), "here")
    assert torch.equal(ours(tokens(1, 5)), theirs(tokens(1, 5)).logits[..., :300])


def test_what_doesnt_fit_is_told_with_the_fix(tmp_path: Path) -> None:
    theirs = write_model(tmp_path)
    path, size = str(tmp_path), theirs.config.vocab_size
    assert f"the model has {size} tokens, but the tokenizer has 999; use its own: tokenizer=hf" in refused(
        path=path, vocab_size=999
    )
    assert f"try data.sequence_length={LENGTH}" in refused(path=path, length=99)
    assert "model.config has no 'n_embed'; did you mean n_embd?" in refused(config={"model_type": "gpt2", "n_embed": 3})
    assert "has no causal language model of that type; did you mean llama?" in refused(config={"model_type": "lama"})
    assert "no settings of gpt2" in refused(config={"model_type": "gpt2", "n_embd": "wide"})
    assert "is of type 'gpt2'; leave it out" in refused(path=path, config={"model_type": "llama"})
    assert built(path=path, pretrained=False, vocab_size=60).plain.config.vocab_size == 60


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs an architecture; give a folder"),
        ({"config": {"n_embd": 3}}, "needs an architecture"),
        ({"path": "x", "pretrained": False, "lora": LoRAConfig()}, "model.lora trains adapters on top of weights"),
        ({"config": {"model_type": "gpt2"}, "lora": LoRAConfig()}, "model.lora trains adapters on top of weights"),
        ({"path": "x", "init_from": "y", "lora": LoRAConfig()}, "model.init_from has no place"),
        ({"config": {"model_type": "gpt2"}, "revision": "a" * 40}, "leave it out"),
        ({"path": ""}, "model.path is empty"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HFConfig(**settings)


def test_weights_that_dont_fit_are_named(tmp_path: Path) -> None:
    write_model(tmp_path)
    weights, model = hf_folder.read_weights(tmp_path), built(path=str(tmp_path))
    bare = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}  # as gpt2's on the hub
    model.load_base(bare, "here")
    first = "transformer.h.0.attn.c_attn.weight"
    for changed, message in (
        ({name: tensor for name, tensor in weights.items() if name != first}, f"missing: {first}"),
        (weights | {"extra": torch.zeros(1)}, "unexpected: extra"),
        (weights | {first: torch.zeros(2, 2)}, f"of another shape: {first} \\(expected"),
    ):
        with pytest.raises(CheckpointError, match=message):
            model.load_base(changed, "here")


def test_adapters_alone_are_trained_and_saved_and_add_nothing_at_first(tmp_path: Path) -> None:
    theirs = write_model(tmp_path, "llama")
    model = built(path=str(tmp_path), lora=LoRAConfig(r=2), vocab_size=theirs.config.vocab_size)
    model.load_base(hf_folder.read_weights(tmp_path), "here")
    assert torch.equal(model(tokens(1, 9)), theirs(tokens(1, 9)).logits)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == model.state_dict().keys()
    assert len(trained) == 8  # A and B of q and v in two layers
    assert all(".lora_" in name for name in trained)
    changed = {name: torch.randn_like(tensor) for name, tensor in model.state_dict().items()}
    model.load_state_dict(changed)
    assert not torch.allclose(model(tokens(1, 9)), theirs(tokens(1, 9)).logits)
    cache = model.new_cache(1, 9)  # type: ignore[operator]
    torch.testing.assert_close(model(tokens(1, 9), cache=cache), model(tokens(1, 9)), atol=1e-5, rtol=1e-5)
    del changed[min(changed)]
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict(changed)


def test_layers_that_arent_there_get_no_adapter(tmp_path: Path) -> None:
    write_model(tmp_path)
    message = refused(path=str(tmp_path), lora=LoRAConfig(target_modules=["q_proj"]))
    assert "model.lora.target_modules is ['q_proj']" in message
    assert "the linear layers of this model are c_attn, c_fc, c_proj" in message
    assert "lm_head" not in message  # tied


@pytest.mark.parametrize("layer", ["lm_head", "wte"])
def test_a_tied_matrix_gets_no_adapter(tmp_path: Path, layer: str) -> None:
    write_model(tmp_path)
    message = refused(path=str(tmp_path), lora=LoRAConfig(target_modules=[layer]))
    assert f"{layer} shares its matrix with another layer (tied embeddings)" in message
    theirs = write_model(tmp_path / "untied", tie_word_embeddings=False)
    built(path=str(tmp_path / "untied"), lora=LoRAConfig(target_modules=[layer]), vocab_size=theirs.config.vocab_size)


def test_a_twin_of_a_model_with_adapters_has_its_base_too(tmp_path: Path) -> None:
    theirs = write_model(tmp_path, "llama")
    models = [built(path=str(tmp_path), lora=LoRAConfig(r=2), vocab_size=theirs.config.vocab_size) for _ in range(2)]
    models[0].load_base(hf_folder.read_weights(tmp_path), "here")
    put_together(models[1], models[0])
    assert torch.equal(models[1](tokens(1, 9)), theirs(tokens(1, 9)).logits)


def test_keys_that_turn_with_the_length_of_the_text_are_not_kept() -> None:
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 12}
    rope |= {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    long = built(config={"model_type": "phi3", **SETTINGS["phi3"], "rope_parameters": rope})
    assert not takes_cache(long)
    assert takes_cache(fresh("phi3"))


def test_weights_that_are_no_numbers_are_told(tmp_path: Path) -> None:
    model = fresh("gpt2")
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(CheckpointError, match="logits are not finite"):
        model.check(packed=None)
    built(length=1, config={"model_type": "gpt2", **SETTINGS["gpt2"]}).check(packed=None)


def test_settings_that_run_json_cant_keep_are_refused() -> None:
    config = HFConfig(config={"model_type": "mamba2"})
    with pytest.raises(ConfigError, match="no finite number"):
        resolve(config, vocab_size=VOCAB, sequence_length=LENGTH)
