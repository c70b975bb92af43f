"""Texts that grow together: each as if it were alone, with a cache as without, also where it outgrows the model."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmexp.models.base import takes_cache
from lmexp.models.config import GPTConfig
from lmexp.models.decoding.beam_search import beam_search
from lmexp.models.decoding.config import DecodingConfig
from lmexp.models.decoding.next_logits import NextLogits
from lmexp.models.decoding.sampler import sample

VOCAB, SEQ = 31, 20
LLAMA = {"positions": "rotary", "norm": "rms_norm", "activation": "swiglu", "n_kv_head": 2, "qk_norm": True}
PROMPTS = [[3, 1, 4], [7], [5] * 12, [3, 1, 4], [*range(25)], [2, 30]]
"""Two are equal, one is longer than the model takes."""


class Anew(nn.Module):
    """The same model without its cache, counting what it computes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.max_sequence_length = SEQ

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.model(tokens)
        return logits


@pytest.fixture(scope="module", params=[{}, LLAMA, {"positions": "alibi"}], ids=["gpt", "llama", "alibi"])
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    built = GPTConfig(n_layer=2, d_model=32, init_std=0.4, **request.param).build(vocab_size=VOCAB, sequence_length=SEQ)
    return built.eval()


def continue_all(
    model: nn.Module, prompts: list[list[int]], seeds: list[int], eos_id: int | None = None, **settings: Any
) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in prompts]
    for row, token, _ in sample(model, prompts, DecodingConfig(**settings), seeds=seeds, eos_id=eos_id):
        found[row].append(token)
    return found


@torch.no_grad()
def window_logits(model: nn.Module, text: list[int]) -> Tensor:
    logits: Tensor = model(torch.tensor([text[-SEQ:]]))[0, -1]
    return logits


def test_logits_of_a_batch_are_those_of_each_text_alone(model: nn.Module) -> None:
    assert takes_cache(model)
    following = NextLogits(model, PROMPTS, max_new_tokens=30)
    texts = [list(prompt) for prompt in PROMPTS]
    generator = torch.Generator().manual_seed(0)
    for step in range(30):
        logits = following()
        for text, found in zip(texts, logits, strict=True):
            torch.testing.assert_close(found, window_logits(model, text), rtol=1e-5, atol=1e-5)
        if step in (4, 15):  # some end, one is doubled, all change places
            rows = [3, 0, 5, 4, 4, 2][: len(texts)]
            following.reorder(rows)
            texts = [list(texts[row]) for row in rows]
        new = torch.randint(VOCAB, (len(texts),), generator=generator).tolist()
        following.extend(new)
        for text, token in zip(texts, new, strict=True):
            text.append(token)
    assert max(map(len, texts)) > 2 * SEQ


@pytest.mark.parametrize(
    "settings", [{"temperature": 0}, {"temperature": 1.0, "top_p": 0.9}], ids=["greedy", "sampled"]
)
def test_a_batch_equals_each_prompt_alone_with_and_without_a_cache(model: nn.Module, settings: dict[str, Any]) -> None:
    seeds = [1, 2, 3, 4, 5, 6]
    settings = {**settings, "max_new_tokens": 30}
    endless = continue_all(model, PROMPTS, seeds, **settings)
    eos = endless[0][10]
    together = continue_all(model, PROMPTS, seeds, eos_id=eos, **settings)
    assert together == [tokens[: tokens.index(eos) + 1] if eos in tokens else tokens for tokens in endless]
    assert len({len(tokens) for tokens in together}) > 1
    alone = [continue_all(model, [p], [s], eos_id=eos, **settings)[0] for p, s in zip(PROMPTS, seeds, strict=True)]
    assert together == alone
    assert together == continue_all(Anew(model), PROMPTS, seeds, eos_id=eos, **settings)
    assert together == continue_all(model, PROMPTS[::-1], seeds[::-1], eos_id=eos, **settings)[::-1]
    if settings["temperature"]:
        assert together[0] != together[3]  # one prompt, two seeds


def test_beam_search_is_the_same_with_and_without_a_cache_and_past_the_window(model: nn.Module) -> None:
    decoding = DecodingConfig(n_beams=3, max_new_tokens=SEQ + 4)
    for prompt in ([3, 1, 4], [*range(25)]):
        found = beam_search(model, prompt, decoding, eos_id=2)
        again = beam_search(Anew(model), prompt, decoding, eos_id=2)
        assert [beam.tokens for beam in found] == [beam.tokens for beam in again]
        assert [beam.score for beam in found] == pytest.approx([beam.score for beam in again], rel=1e-5)


def test_beam_search_of_a_small_model_finds_the_likeliest_of_all_texts() -> None:
    """With as many beams as there are texts of one token less, nothing is lost."""
    torch.manual_seed(0)
    model = GPTConfig(n_layer=1, d_model=32, init_std=0.5).build(vocab_size=5, sequence_length=8).eval()
    found = beam_search(model, [1], DecodingConfig(n_beams=25, max_new_tokens=3, length_penalty=0.0))
    every = torch.cartesian_prod(*[torch.arange(5)] * 3)  # (125, 3)
    with torch.no_grad():
        each = model(torch.cat((torch.ones(125, 1, dtype=torch.int64), every), dim=1)).log_softmax(dim=-1)
    total = each[:, :-1].gather(2, every[:, :, None]).sum(dim=(1, 2))
    assert found[0].tokens == every[total.argmax()].tolist()
    assert found[0].score == pytest.approx(total.max().item(), rel=1e-5)


def test_a_token_costs_one_step_and_equal_prompts_are_computed_once(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []
    forward = model.forward

    def counting(tokens: Tensor, positions: Tensor | None = None, cache: Any = None) -> Tensor:
        shapes.append(tuple(tokens.shape))
        logits: Tensor = forward(tokens, positions, cache)
        return logits

    monkeypatch.setattr(model, "forward", counting)
    continue_all(model, [[3, 1, 4]] * 4, [0, 1, 2, 3], max_new_tokens=5)
    assert shapes == [(1, 3), (4, 1), (4, 1), (4, 1), (4, 1)]
    shapes.clear()
    continue_all(model, [[1] * SEQ], [0], max_new_tokens=3)
    assert shapes == [(1, SEQ), (1, SEQ), (1, SEQ)]


def test_long_prompts_are_computed_in_parts(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = continue_all(model, PROMPTS, [0] * 6, max_new_tokens=8)
    monkeypatch.setattr("lmexp.models.decoding.next_logits.MOST_TOKENS", 12)
    assert continue_all(model, PROMPTS, [0] * 6, max_new_tokens=8) == expected


def test_beam_search_neither_reads_nor_moves_the_global_random_state(model: nn.Module) -> None:
    state = torch.get_rng_state()
    model.train()
    beam_search(model, [3], DecodingConfig(n_beams=2, max_new_tokens=4))
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    model.eval()
