"""Linear biases are those of BLOOM and MPT in transformers, for any number of heads."""

import importlib

import pytest
import torch

from lmexp.models.layers.alibi import alibi_mask, alibi_slopes
from lmexp.models.layers.attention import CausalSelfAttention, document_mask

HEADS = [1, 2, 3, 4, 5, 6, 8, 12, 16, 25]
SEQ = 9


def test_slopes_of_eight_heads_are_those_of_the_paper() -> None:
    assert alibi_slopes(8, dtype=torch.float64).tolist() == [2.0**-i for i in range(1, 9)]


@pytest.mark.parametrize("n_head", HEADS)
def test_biases_are_those_of_bloom_and_mpt(n_head: int) -> None:
    """Theirs are slope times position of the key, ours less slope times position of the query: a constant per row."""
    pytest.importorskip("transformers")
    bloom = importlib.import_module("transformers.models.bloom.modeling_bloom")
    mpt = importlib.import_module("transformers.models.mpt.modeling_mpt")
    ours = alibi_mask(n_head, torch.arange(SEQ)[None], SEQ, None, torch.float32)  # (1, n_head, SEQ, SEQ)
    causal = torch.ones(SEQ, SEQ, dtype=torch.bool).tril()
    assert torch.equal(torch.isfinite(ours), causal.expand(1, n_head, SEQ, SEQ))
    theirs = bloom.build_alibi_tensor(torch.ones(1, SEQ), n_head, torch.float32).view(1, n_head, 1, SEQ)
    last = ours[:, :, -1:]
    torch.testing.assert_close(last - last[..., :1], theirs)
    torch.testing.assert_close(ours.softmax(dim=-1), theirs.masked_fill(~causal, float("-inf")).softmax(dim=-1))
    if n_head & (n_head - 1) == 0:  # where it isn't a power of two, MPT takes the slopes in another order
        torch.testing.assert_close(last[0], mpt.build_mpt_alibi_tensor(n_head, SEQ))


def test_attention_equals_a_loop_over_heads_and_positions() -> None:
    n_head, d = 3, 4
    torch.manual_seed(0)
    attention = CausalSelfAttention(12, n_head, n_kv_head=n_head, bias=False, dropout=0.0, qk_norm=False).double()
    x = torch.randn(1, SEQ, 12, dtype=torch.float64)
    q, k, v = attention.qkv(x)[0].view(SEQ, 3, n_head, d).unbind(dim=1)  # (SEQ, n_head, d)
    slopes = (2.0**-4, 2.0**-8, 2.0**-2)
    rows = []
    for i in range(SEQ):
        heads = []
        for head, slope in enumerate(slopes):
            logits = [q[i, head] @ k[j, head] / d**0.5 - slope * (i - j) for j in range(i + 1)]
            heads.append(torch.stack(logits).softmax(dim=0) @ v[: i + 1, head])
        rows.append(attention.output(torch.cat(heads)))
    mask = alibi_mask(n_head, torch.arange(SEQ)[None], SEQ, None, torch.float64)
    torch.testing.assert_close(attention(x, mask=mask)[0], torch.stack(rows))


def test_distances_count_within_a_document_and_nothing_crosses_its_border() -> None:
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0, 1]])
    mask = alibi_mask(4, torch.arange(SEQ)[None], SEQ, document_mask(positions), torch.float32)
    for start, length in ((0, 4), (4, 3), (7, 2)):
        span = slice(start, start + length)
        alone = alibi_mask(4, torch.arange(length)[None], length, None, torch.float32)
        assert torch.equal(mask[:, :, span, span], alone)
        outside = torch.ones(SEQ, dtype=torch.bool)
        outside[span] = False
        assert torch.isneginf(mask[:, :, span][..., outside]).all()
