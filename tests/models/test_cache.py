"""A model that goes on from what it has seen gives the logits of the whole text."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from lmexp.models.base import takes_cache
from lmexp.models.config import GPTConfig
from lmexp.models.gpt import GPT

VOCAB, SEQ = 29, 24
VARIATIONS = [
    {"positions": positions, "n_kv_head": n_kv_head, "qk_norm": qk_norm}
    for positions, n_kv_head, qk_norm in itertools.product(("learned", "rotary"), (4, 2, 1), (False, True))
]
VARIATIONS += [
    {"positions": "alibi"},
    {"positions": "alibi", "n_head": 6, "n_kv_head": 2, "d_model": 36},
    {"positions": "rotary", "rotary_scaling": "yarn", "rotary_factor": 4.0, "rotary_original_length": 8},
]
every_variation = pytest.mark.parametrize("settings", VARIATIONS, ids=str)


def build(**settings: object) -> GPT:
    torch.manual_seed(0)
    config = GPTConfig(**{"n_layer": 2, "d_model": 32, **settings})  # type: ignore[arg-type]
    model = config.build(vocab_size=VOCAB, sequence_length=SEQ)
    assert isinstance(model, GPT)
    for parameter in model.parameters():  # so that attention is far from uniform
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.3)
    return model.eval().double()


def some_tokens(batch: int = 3, seq: int = SEQ) -> Tensor:
    return torch.randint(VOCAB, (batch, seq), generator=torch.Generator().manual_seed(1))


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@every_variation
@pytest.mark.parametrize("steps", [[1] * SEQ, [7, 1, 1, 1, 14], [5, 10, 9], [SEQ]], ids=str)
@torch.no_grad()
def test_logits_step_by_step_equal_those_of_the_whole(settings: dict[str, object], steps: list[int]) -> None:
    model, tokens = build(**settings), some_tokens()
    cache = model.new_cache(3, SEQ)
    found = [model(part, cache=cache) for part in tokens.split(steps, dim=1)]
    assert_same(torch.cat(found, dim=1), model(tokens))


@every_variation
@torch.no_grad()
def test_rows_of_different_lengths_equal_each_row_alone(settings: dict[str, object]) -> None:
    model, tokens, lengths = build(**settings), some_tokens(), [6, 1, 13]
    cache = model.new_cache(3, SEQ)
    model(tokens[:, :13], cache=cache)  # the shorter prompts with what must be forgotten behind them
    cache.crop(lengths)
    for _ in range(8):
        new = torch.stack([tokens[row, length : length + 1] for row, length in enumerate(lengths)])
        logits = model(new, cache=cache)  # (3, 1, VOCAB)
        lengths = [length + 1 for length in lengths]
        for row, length in enumerate(lengths):
            assert_same(logits[row, -1], model(tokens[row : row + 1, :length])[0, -1])
    several = torch.stack([tokens[row, length : length + 3] for row, length in enumerate(lengths)])
    logits = model(several, cache=cache)  # (3, 3, VOCAB)
    for row, length in enumerate(lengths):
        assert_same(logits[row], model(tokens[row : row + 1, : length + 3])[0, -3:])


@every_variation
@torch.no_grad()
def test_rows_may_change_places_be_copied_and_forgotten(settings: dict[str, object]) -> None:
    model, tokens = build(**settings), some_tokens()
    cache = model.new_cache(3, SEQ)
    model(tokens[:, :9], cache=cache)
    cache.crop([9, 4, 7])
    for rows in ([2, 2, 0, 1], [3, 0], [1, 1, 1], [0, 1, 2]):
        seen = [cache.lengths[row] for row in rows]
        cache.reorder(rows)
        assert cache.lengths == seen
    texts = [tokens[2, :7].tolist() for _ in range(3)]
    logits = model(torch.tensor([[3], [4], [5]]), cache=cache)
    for row, text in enumerate(texts):
        assert_same(logits[row, -1], model(torch.tensor([[*text, 3 + row]]))[0, -1])


@torch.no_grad()
def test_the_first_tokens_are_computed_bit_for_bit_as_without_a_cache() -> None:
    for settings in ({}, {"positions": "rotary", "n_kv_head": 2}):
        model, tokens = build(**settings).float(), some_tokens()
        assert torch.equal(model(tokens, cache=model.new_cache(3, SEQ)), model(tokens))


@torch.no_grad()
def test_keys_and_values_are_kept_in_the_precision_they_are_made_in() -> None:
    model, tokens = build(positions="rotary").float(), some_tokens()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cache = model.new_cache(3, SEQ)
        found = torch.cat([model(part, cache=cache) for part in tokens.split(4, dim=1)], dim=1)
    exact = model(tokens)
    assert ((found.float() - exact).norm() / exact.norm()).item() < 0.02


def test_what_does_not_fit_is_refused() -> None:
    model, tokens = build(), some_tokens()
    with pytest.raises(ValueError, match=f"max_length is {SEQ + 1}, but this model takes {SEQ} tokens"):
        model.new_cache(1, SEQ + 1)
    cache = model.new_cache(3, 10)
    model(tokens[:, :8], cache=cache)
    with pytest.raises(ValueError, match="made for 10 tokens, but a row would have 11"):
        model(tokens[:, 8:11], cache=cache)
    with pytest.raises(ValueError, match="either positions or a cache"):
        model(tokens[:, 8:9], torch.zeros(3, 1, dtype=torch.int64), cache)


def test_only_a_model_with_both_parts_takes_a_cache() -> None:
    class Plain(nn.Module):
        max_sequence_length = 4

        def forward(self, tokens: Tensor) -> Tensor:
            return tokens

    class Half(Plain):
        def new_cache(self, batch_size: int, max_length: int) -> None:
            """A method of the user's with the same name by chance."""

    assert takes_cache(build())
    assert not takes_cache(Plain())
    assert not takes_cache(Half())
