import math

import pytest
import torch
from torch import Tensor, nn

from lmexp.models.layers.attention import CausalSelfAttention
from lmexp.models.layers.rotary import Rotary

D_MODEL, N_HEAD, SEQ = 24, 4, 7


def make(n_kv_head: int = N_HEAD, *, bias: bool = False, qk_norm: bool = False) -> CausalSelfAttention:
    torch.manual_seed(0)
    options = {"n_kv_head": n_kv_head, "bias": bias, "dropout": 0.0, "qk_norm": qk_norm}
    return CausalSelfAttention(D_MODEL, N_HEAD, **options).double()  # type: ignore[arg-type]


def some_input() -> Tensor:
    return torch.randn(3, SEQ, D_MODEL, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bias", [False, True])
def test_equals_torchs_multihead_attention(bias: bool) -> None:
    ours, x = make(bias=bias), some_input()
    theirs = nn.MultiheadAttention(D_MODEL, N_HEAD, bias=bias, batch_first=True, dtype=torch.float64)
    names = {"qkv.weight": "in_proj_weight", "qkv.bias": "in_proj_bias"}
    theirs.load_state_dict(
        {names.get(name, name.replace("output", "out_proj")): value for name, value in ours.state_dict().items()}
    )
    mask = nn.Transformer.generate_square_subsequent_mask(SEQ, dtype=torch.float64)
    expected, _ = theirs(x, x, x, attn_mask=mask, need_weights=False)
    torch.testing.assert_close(ours(x), expected)


@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("rotated", [False, True])
def test_equals_a_loop_over_heads_and_positions(n_kv_head: int, qk_norm: bool, rotated: bool) -> None:
    attention, x = make(n_kv_head, qk_norm=qk_norm), some_input()
    d = D_MODEL // N_HEAD
    weight_q, weight_k, weight_v = torch.split(attention.qkv.weight, [N_HEAD * d, n_kv_head * d, n_kv_head * d])

    def head(weight: Tensor, index: int, position: int, *, prepared: bool) -> Tensor:
        vector = x[0, position] @ weight[index * d : (index + 1) * d].T
        if prepared and qk_norm:
            vector = vector / (vector.square().mean() + 1e-5).sqrt()
        if prepared and rotated:
            pairs = torch.complex(vector[: d // 2], vector[d // 2 :])
            angles = torch.tensor([position / 10000.0 ** (2 * i / d) for i in range(d // 2)], dtype=torch.float64)
            pairs = pairs * torch.polar(torch.ones_like(angles), angles)
            vector = torch.cat((pairs.real, pairs.imag))
        return vector

    expected = []
    for position in range(SEQ):
        heads = []
        for index in range(N_HEAD):
            shared = index // (N_HEAD // n_kv_head)
            q = head(weight_q, index, position, prepared=True)
            keys = [head(weight_k, shared, past, prepared=True) for past in range(position + 1)]
            values = [head(weight_v, shared, past, prepared=False) for past in range(position + 1)]
            shares = torch.stack([q @ k / math.sqrt(d) for k in keys]).softmax(dim=0)
            heads.append(shares @ torch.stack(values))
        expected.append(attention.output(torch.cat(heads)))
    rotation = Rotary(d, SEQ).double()(SEQ) if rotated else None
    torch.testing.assert_close(attention(x, rotation)[0], torch.stack(expected))


def test_grouped_queries_equal_multi_head_with_repeated_keys_and_values() -> None:
    grouped, full, x = make(2), make(4), some_input()
    d = D_MODEL // N_HEAD
    q, k, v = torch.split(grouped.qkv.weight.detach(), [4 * d, 2 * d, 2 * d])
    repeated = [part.view(2, d, D_MODEL).repeat_interleave(2, dim=0).reshape(4 * d, D_MODEL) for part in (k, v)]
    full.load_state_dict({"qkv.weight": torch.cat((q, *repeated)), "output.weight": grouped.output.weight})
    torch.testing.assert_close(grouped(x), full(x))


def test_dropped_attention_keeps_the_mean() -> None:
    attention, x = make(), some_input()
    attention.dropout = 0.3
    torch.manual_seed(0)
    mean = torch.stack([attention(x) for _ in range(2000)]).mean(dim=0)
    torch.testing.assert_close(mean, attention.eval()(x), rtol=0, atol=0.03)
