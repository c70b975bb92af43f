import math

import pytest
import torch
from torch import nn

from lmexp.models.layers.feed_forward import FeedForward, SwiGLUFeedForward, make_feed_forward
from lmexp.models.layers.norm import RMSNorm, make_norm

X = torch.randn(2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_gelu_is_exact() -> None:
    layer = make_feed_forward("gelu", 6, 24, bias=True, dropout=0.0).double()
    assert isinstance(layer, FeedForward)
    up = layer.up(X)
    gelu = up * 0.5 * (1 + torch.special.erf(up / math.sqrt(2)))
    torch.testing.assert_close(layer(X), layer.down(gelu))


def test_gelu_tanh_is_gpt2s_approximation() -> None:
    layer = make_feed_forward("gelu_tanh", 6, 24, bias=True, dropout=0.0).double()
    assert isinstance(layer, FeedForward)
    up = layer.up(X)
    approximate = 0.5 * up * (1 + torch.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)))
    torch.testing.assert_close(layer(X), layer.down(approximate))


def test_relu2_squares_what_is_positive() -> None:
    layer = make_feed_forward("relu2", 6, 24, bias=False, dropout=0.0).double()
    assert isinstance(layer, FeedForward)
    up = layer.up(X)
    torch.testing.assert_close(layer(X), layer.down(torch.where(up > 0, up * up, torch.zeros_like(up))))


def test_swiglu_gates() -> None:
    layer = make_feed_forward("swiglu", 6, 16, bias=False, dropout=0.0).double()
    assert isinstance(layer, SwiGLUFeedForward)
    gate = X @ layer.gate.weight.T
    expected = (gate / (1 + (-gate).exp()) * (X @ layer.up.weight.T)) @ layer.down.weight.T
    torch.testing.assert_close(layer(X), expected)


def test_rms_norm_divides_by_the_root_mean_square() -> None:
    norm = RMSNorm(6).double()
    nn.init.normal_(norm.weight)
    expected = X / (X.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * norm.weight
    torch.testing.assert_close(norm(X), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_rms_norm_answers_in_the_weights_precision(dtype: torch.dtype) -> None:
    assert RMSNorm(6).to(dtype)(X.bfloat16()).dtype == dtype


@pytest.mark.parametrize("kind", ["layer_norm", "rms_norm"])
def test_eps_is_added_before_the_root(kind: str) -> None:
    norm = make_norm(kind, 6, bias=False, eps=0.5).double()
    x = X if kind == "rms_norm" else X - X.mean(dim=-1, keepdim=True)
    torch.testing.assert_close(norm(X), x / (x.square().mean(dim=-1, keepdim=True) + 0.5).sqrt())


@pytest.mark.parametrize("bias", [False, True])
def test_layer_norm_has_a_bias_if_asked(bias: bool) -> None:
    norm = make_norm("layer_norm", 6, bias=bias).double()
    assert {name for name, _ in norm.named_parameters()} == ({"weight", "bias"} if bias else {"weight"})
    centred = X - X.mean(dim=-1, keepdim=True)
    torch.testing.assert_close(norm(X), centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt())
