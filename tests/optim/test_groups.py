import pytest
import torch
from torch import nn

from lmexp.errors import ConfigError
from lmexp.models.config import GPTConfig
from lmexp.optim.groups import decay_groups


def names(model: nn.Module, weight_decay: float = 0.1) -> dict[float, list[str]]:
    groups = decay_groups(model.named_parameters(), weight_decay=weight_decay)
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
    groups = decay_groups([("embedding", weight), ("head", weight)], weight_decay=0.1)
    assert [name for name, _ in groups[0]["params"]] == ["embedding"]


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no parameter to train"):
        decay_groups(nn.ReLU().named_parameters(), weight_decay=0.1)
