"""Who gets weight decay, Muon, and which learning rate."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lmexp.errors import ConfigError
from lmexp.models.config import GPTConfig
from lmexp.optim.groups import decay_groups, layer_scales, takes_muon


def names(model: nn.Module, weight_decay: float = 0.1) -> dict[float, list[str]]:
    groups = decay_groups(model.named_parameters(), weight_decay=weight_decay, lr=1.0)
    return {group["weight_decay"]: [name for name, _ in group["params"]] for group in groups}


def test_matrices_decay_and_vectors_do_not() -> None:
    model = GPTConfig(n_layer=1, bias=True, qk_norm=True).build(vocab_size=11, sequence_length=8)
    assert names(model) == {
        0.1: [
            "token_embedding.weight",
            "position_embedding.weight",
            "blocks.0.attention.qkv.weight",
            "blocks.0.attention.output.weight",
            "blocks.0.feed_forward.up.weight",
            "blocks.0.feed_forward.down.weight",
        ],
        0.0: [
            "blocks.0.attention_norm.weight",
            "blocks.0.attention_norm.bias",
            "blocks.0.attention.qkv.bias",
            "blocks.0.attention.output.bias",
            "blocks.0.attention.q_norm.weight",
            "blocks.0.attention.k_norm.weight",
            "blocks.0.feed_forward_norm.weight",
            "blocks.0.feed_forward_norm.bias",
            "blocks.0.feed_forward.up.bias",
            "blocks.0.feed_forward.down.bias",
            "final_norm.weight",
            "final_norm.bias",
        ],
    }


def test_frozen_parameters_and_empty_groups_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    assert names(model) == {0.1: ["1.weight"], 0.0: ["1.bias"]}
    assert names(nn.Linear(2, 2, bias=False)) == {0.1: ["weight"]}


def test_a_shared_parameter_is_trained_once() -> None:
    weight = nn.Parameter(torch.zeros(2, 2))
    groups = decay_groups([("embedding", weight), ("head", weight)], weight_decay=0.1, lr=1.0)
    assert [name for name, _ in groups[0]["params"]] == ["embedding"]


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no parameter to train"):
        decay_groups(nn.ReLU().named_parameters(), weight_decay=0.1, lr=1.0)


def muon_names(named: list[tuple[str, nn.Parameter]]) -> list[str]:
    """Of the parameters that take Muon."""
    muon, _ = takes_muon(decay_groups(named, weight_decay=0.1, lr=1.0))
    return [name for group in muon for name, _ in group["params"]]


@pytest.mark.parametrize("tied", [True, False])
def test_muon_is_for_the_matrices_of_the_blocks(tied: bool) -> None:
    config = GPTConfig(n_layer=2, bias=True, qk_norm=True, tie_embeddings=tied, activation="swiglu")
    named = list(config.build(vocab_size=11, sequence_length=8).named_parameters())
    of_a_block = ("attention.qkv", "attention.output", "feed_forward.gate", "feed_forward.up", "feed_forward.down")
    assert muon_names(named) == [f"blocks.{i}.{name}.weight" for i in range(2) for name in of_a_block]
    groups = decay_groups(named, weight_decay=0.1, lr=1.0)
    muon, others = takes_muon(groups)
    count = sum(len(group["params"]) for group in groups)
    assert sum(len(group["params"]) for group in [*muon, *others]) == count
    assert [group["weight_decay"] for group in muon] == [0.1]
    assert [group["weight_decay"] for group in others] == [0.1, 0.0]


NAMES_ELSEWHERE = {
    "transformer.wte.weight": False,
    "transformer.wpe.weight": False,
    "transformer.h.0.attn.c_attn.weight": True,
    "model.embed_tokens.weight": False,
    "model.layers.3.self_attn.q_proj.weight": True,
    "model.layers.3.mlp.down_proj.weight": True,
    "lm_head.weight": False,
    "encoder.layers.0.multihead_attn.in_proj_weight": True,
    "bert.embeddings.word_embeddings.weight": False,
    "classifier.weight": False,
}
"""Of GPT-2, Llama, torch's and BERT's modules: whether Muon is for them."""


def test_embeddings_and_heads_are_known_by_the_names_that_others_give_them() -> None:
    named = [(name, nn.Parameter(torch.zeros(3, 4))) for name in NAMES_ELSEWHERE]
    assert muon_names(named) == [name for name, hidden in NAMES_ELSEWHERE.items() if hidden]


def test_a_convolution_does_not_take_muon() -> None:
    kernel, matrix = nn.Parameter(torch.zeros(2, 3, 3)), nn.Parameter(torch.zeros(2, 3))
    assert muon_names([("convolution.weight", kernel), ("up.weight", matrix)]) == ["up.weight"]


def test_a_model_without_hidden_matrices_is_told_to_take_another_optimizer() -> None:
    with pytest.raises(ConfigError, match=r"optimizer=muon is for hidden matrices.*use optimizer=adamw"):
        takes_muon(decay_groups(nn.Embedding(3, 2).named_parameters("embedding"), weight_decay=0.1, lr=1.0))


def beit_scale(name: str, depth: int, decay: float) -> float:
    """LayerDecayValueAssigner and get_num_layer_for_vit of BEiT's optim_factory.py, with our names."""
    if name.startswith(("token_embedding", "position_embedding")):
        layer = 0
    elif name.startswith("blocks"):
        layer = int(name.split(".")[1]) + 1
    else:
        layer = depth + 1
    return decay ** (depth + 1 - layer)


def test_layer_scales_are_those_of_beit() -> None:
    model = GPTConfig(n_layer=3, bias=True, tie_embeddings=False).build(vocab_size=11, sequence_length=8)
    names = [name for name, _ in model.named_parameters()]
    expected = {name: beit_scale(name, 3, 0.75) for name in names}
    assert layer_scales(names, 0.75) == pytest.approx(expected)
    groups = decay_groups(model.named_parameters(), weight_decay=0.1, lr=0.5, layer_decay=0.75)
    for group in groups:
        for name, parameter in group["params"]:
            assert group["lr"] == pytest.approx(0.5 * expected[name])
            assert group["weight_decay"] == (0.1 if parameter.dim() >= 2 else 0.0)
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_two_stacks_have_a_depth_each() -> None:
    names = [f"{stack}.layers.{i}.up.weight" for stack, n in (("encoder", 3), ("decoder", 2)) for i in range(n)]
    found = layer_scales([*names, "shared_embedding.weight", "head.weight"], 0.5)
    assert list(found.values()) == [0.125, 0.25, 0.5, 0.25, 0.5, 0.0625, 1.0]


def test_layer_decay_needs_layers() -> None:
    with pytest.raises(
        ConfigError, match=r"optimizer\.layer_decay is 0\.5, and the model has no layers.*\(weight, bias"
    ):
        decay_groups(nn.Linear(2, 2).named_parameters(), weight_decay=0.1, lr=1.0, layer_decay=0.5)
    assert layer_scales(["weight"], 1.0) == {"weight": 1.0}
