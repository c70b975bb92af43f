import math

import pytest
import torch

from lmexp.errors import DataError
from lmexp.metrics.functional import IGNORE, accuracy, bits_per_byte, perplexity, token_nats


def test_uniform_logits_have_the_perplexity_of_the_vocabulary() -> None:
    for vocab in (2, 65, 50257):
        nats = token_nats(torch.full((3, 4, vocab), 7.5), torch.full((3, 4), vocab - 1))
        assert nats.shape == (3, 4)
        assert perplexity(nats.double().sum(), torch.tensor(12)).item() == pytest.approx(vocab, rel=1e-6)


def test_equals_the_definition_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 3, 11, dtype=torch.float64, generator=generator) * 30
    targets = torch.randint(11, (5, 3), generator=generator)
    for i in range(5):
        for j in range(3):
            row = [math.exp(value) for value in (logits[i, j] - logits[i, j].max()).tolist()]
            expected = -math.log(row[targets[i, j]] / sum(row)) if row[targets[i, j]] else math.inf
            assert token_nats(logits, targets)[i, j].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_widened_before_the_softmax(dtype: torch.dtype) -> None:
    logits = torch.tensor([[60.0, 0.0, -60.0]], dtype=dtype)
    nats = token_nats(logits, torch.tensor([2]))  # exp(-120) is 0 in fp16 and fp32 alike
    assert nats.dtype == torch.float32
    assert nats.item() == pytest.approx(120.0)


def test_float64_stays_float64_under_autocast() -> None:
    logits = torch.randn(4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        nats = token_nats(logits, targets)
    assert torch.equal(nats, token_nats(logits, targets))
    assert nats.dtype == torch.float64


@pytest.mark.parametrize("wrong", [-1, 5, 10**9, -99])
def test_a_target_outside_the_vocabulary_is_an_error(wrong: int) -> None:
    with pytest.raises(DataError, match=f"targets holds {wrong}; expected token ids from 0 to 4"):
        token_nats(torch.zeros(2, 5), torch.tensor([0, wrong]))


def test_ignored_targets_count_nothing() -> None:
    nats = token_nats(torch.zeros(2, 5, requires_grad=True), torch.tensor([IGNORE, 2]))
    assert nats[0] == 0
    assert nats[1].item() == pytest.approx(math.log(5))


def test_gradients_are_softmax_minus_one_hot() -> None:
    logits = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = torch.tensor([0, 1, 2, 3, 4, IGNORE])
    token_nats(logits, targets).sum().backward()  # type: ignore[no-untyped-call]
    expected = logits.detach().softmax(dim=-1)
    expected[torch.arange(5), targets[:5]] -= 1
    expected[5] = 0
    torch.testing.assert_close(logits.grad, expected)


def test_perplexity_is_of_the_sums_not_the_mean_of_perplexities() -> None:
    nats, n_tokens = torch.tensor([1.0, 30.0], dtype=torch.float64), torch.tensor([1, 10])
    assert perplexity(nats.sum(), n_tokens.sum()).item() == pytest.approx(math.exp(31 / 11))


def test_bits_per_byte_of_a_fair_coin_for_each_bit() -> None:
    assert bits_per_byte(torch.tensor(80 * math.log(2)), torch.tensor(10)).item() == pytest.approx(8.0)


def test_accuracy_is_a_share() -> None:
    assert accuracy(torch.tensor(1), torch.tensor(8)).item() == 0.125
