import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmexp.errors import ConfigError, LmexpError
from lmexp.models.config import GPTConfig
from lmexp.models.decoding.config import DecodingConfig
from lmexp.models.decoding.sampler import sample
from lmexp.models.decoding.sampling import next_token_probabilities

VOCAB, SEQ = 23, 8
LOGITS = torch.tensor([2.0, -1.0, 0.5, 0.5, 3.0, 0.0, -2.0])


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    built = GPTConfig(n_layer=2, d_model=32, init_std=0.5).build(vocab_size=VOCAB, sequence_length=SEQ)
    return built.eval()


def generate(
    model: nn.Module, prompt: list[int], *, seed: int = 0, eos_id: int | None = None, **settings: Any
) -> Iterator[int]:
    """The tokens that continue one prompt; unless settings say otherwise, drawn from all of the distribution."""
    decoding = DecodingConfig(**{"temperature": 1.0, "top_k": None, **settings})
    sampled = sample(model, [prompt], decoding, seeds=[seed], eos_id=eos_id)
    return (token for _, token, _ in sampled)


class FixedLogits(nn.Module):
    """Every token is drawn from the same distribution."""

    max_sequence_length = 4

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.longest = 0

    def forward(self, tokens: Tensor) -> Tensor:
        self.longest = max(self.longest, tokens.shape[1])
        return self.logits.expand(*tokens.shape, -1)


def test_greedy_equals_an_argmax_loop(model: nn.Module) -> None:
    tokens = [3, 1]
    with torch.no_grad():
        for _ in range(20):
            tokens.append(int(model(torch.tensor([tokens[-SEQ:]]))[0, -1].argmax()))
    assert list(generate(model, [3, 1], max_new_tokens=20, temperature=0)) == tokens[2:]
    assert len(set(tokens)) > 3  # the model isn't stuck


def test_top_k_1_and_a_tiny_top_p_are_greedy(model: nn.Module) -> None:
    greedy = list(generate(model, [3], max_new_tokens=12, temperature=0))
    assert list(generate(model, [3], max_new_tokens=12, top_k=1)) == greedy
    assert list(generate(model, [3], max_new_tokens=12, top_p=1e-9)) == greedy
    assert list(generate(model, [3], max_new_tokens=12, temperature=1e-300)) == greedy


def test_same_seed_same_tokens_whatever_the_global_state(model: nn.Module) -> None:
    torch.manual_seed(1)
    first = list(generate(model, [3], max_new_tokens=20, seed=5))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert list(generate(model, [3], max_new_tokens=20, seed=5)) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert list(generate(model, [3], max_new_tokens=20, seed=6)) != first


def test_tokens_come_one_by_one_and_leave_the_model_as_it_was() -> None:
    model = FixedLogits(LOGITS).train()
    stream = sample(model, [[0]], DecodingConfig(max_new_tokens=10), seeds=[0])
    assert model.longest == 0
    next(stream)
    assert model.longest == 1
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    stream.close()  # type: ignore[attr-defined]
    assert model.training


def test_the_context_is_cropped() -> None:
    model = FixedLogits(LOGITS)
    assert len(list(generate(model, [0] * 9, max_new_tokens=3))) == 3
    assert model.longest == 4


def test_eos_ends_the_text() -> None:
    model = FixedLogits(LOGITS)
    endless = list(generate(model, [0], max_new_tokens=30))
    assert list(generate(model, [0], max_new_tokens=30, eos_id=0)) == endless[: endless.index(0) + 1]


def test_samples_follow_the_distribution() -> None:
    settings = {"temperature": 0.7, "top_k": 5, "top_p": 0.95}
    n = 4000
    counts = Counter(generate(FixedLogits(LOGITS), [0], max_new_tokens=n, **settings))
    expected = next_token_probabilities(LOGITS, **settings)  # type: ignore[arg-type]
    assert 1 < len(counts) == int((expected > 0).sum()) < 6
    for token, share in enumerate(expected.tolist()):
        assert abs(counts[token] / n - share) <= 4 * (share * (1 - share) / n) ** 0.5


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_unrestricted_probabilities_are_the_softmax(temperature: float) -> None:
    expected = (LOGITS.double() / temperature).softmax(dim=-1)
    torch.testing.assert_close(next_token_probabilities(LOGITS, temperature=temperature), expected)
    batched = next_token_probabilities(LOGITS.expand(2, 3, -1), temperature=temperature, top_k=7, top_p=1.0)
    torch.testing.assert_close(batched, expected.expand(2, 3, -1))


def test_temperature_0_takes_the_first_of_equals() -> None:
    assert next_token_probabilities(torch.tensor([1.0, 4.0, 4.0]), temperature=0).tolist() == [0, 1, 0]


@pytest.mark.parametrize("k", range(1, 10))
def test_top_k_keeps_exactly_k_and_their_proportions(k: int) -> None:
    kept = next_token_probabilities(LOGITS, top_k=k)
    likeliest = sorted(range(7), key=lambda token: (-LOGITS[token].item(), token))[:k]
    expected = torch.full((7,), float("-inf"), dtype=torch.float64)
    expected[likeliest] = LOGITS[likeliest].double()
    torch.testing.assert_close(kept, expected.softmax(dim=-1))


@pytest.mark.parametrize("top_p", [0.05, 0.3, 0.6, 0.69, 0.9, 0.97, 0.999, 1.0])
def test_top_p_keeps_the_smallest_set(top_p: float) -> None:
    share = LOGITS.double().softmax(dim=-1)
    kept = next_token_probabilities(LOGITS, top_p=top_p).nonzero().flatten().tolist()
    assert share[kept].sum() >= top_p - 1e-12
    smaller = itertools.combinations(range(7), len(kept) - 1)
    assert all(share[list(chosen)].sum() < top_p for chosen in smaller)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1.0; expected at least 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0; expected at least 1"),
        ({"top_p": 0.0}, "top_p is 0.0; expected a share above 0"),
        ({"min_p": -0.1}, "min_p is -0.1; expected a share from 0 to 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0; expected from 0.01 to 100"),
        ({"stop": ["a", ""]}, "stop has an empty text"),
        ({"n_beams": 2, "top_p": 0.5, "temperature": 0}, "top_p=0.5 is for sampling, but n_beams=2"),
        ({"length_penalty": 2.0}, "length_penalty=2.0 is for beam search, but n_beams=1"),
        ({"n_beams": 2, "length_penalty": 99.0}, "length_penalty is 99.0; expected from -10 to 10"),
        ({"early_stopping": "maybe"}, "early_stopping is 'maybe'; expected one of false, true, never"),
        ({"top_p": 1.5}, "top_p is 1.5; expected a share above 0"),
    ],
)
def test_bad_settings_are_refused_before_the_first_token(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        generate(FixedLogits(LOGITS), [0], max_new_tokens=1, **settings)


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ConfigError, match="prompt has no token"):
        generate(FixedLogits(LOGITS), [], max_new_tokens=1)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_diverged_model_is_named(temperature: float) -> None:
    broken = FixedLogits(torch.tensor([1.0, float("nan"), 2.0]))
    with pytest.raises(LmexpError, match="logits are not finite"):
        next(generate(broken, [0], max_new_tokens=1, temperature=temperature))


def test_a_token_ruled_out_by_minus_infinity_is_never_drawn() -> None:
    masked = FixedLogits(torch.tensor([0.0, float("-inf"), 0.0]))
    assert set(generate(masked, [0], max_new_tokens=50)) == {0, 2}
