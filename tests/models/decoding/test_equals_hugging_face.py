"""The same weights and settings in transformers' generate: the same tokens."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from lmexp.models.decoding.beam_search import beam_search
from lmexp.models.decoding.config import DecodingConfig
from lmexp.models.decoding.sampler import sample
from lmexp.models.decoding.sampling import next_token_probabilities, penalize_repetition
from lmexp.models.gpt import GPT
from lmexp.models.hf_weights import from_hf

transformers = pytest.importorskip("transformers")

VOCAB, SEQ = 61, 48
EOS, NEW = 0, 30
PROMPTS = [[5, 9, 33], [7], [12, 12, 40, 2, 8, 51, 30, 1], [60, 3]]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def pair(request: pytest.FixtureRequest) -> tuple[Any, GPT]:
    """One of theirs with random weights, and our GPT with the same. The logits are far from uniform."""
    torch.manual_seed(0)
    common = {"bos_token_id": EOS, "eos_token_id": EOS, "pad_token_id": EOS, "vocab_size": VOCAB}
    if request.param == "gpt2":
        shape = {"n_positions": SEQ, "n_embd": 32, "n_layer": 2, "n_head": 4}
        theirs: Any = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, **common))
    else:
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": SEQ}
        shape |= {"num_attention_heads": 4, "num_key_value_heads": 2}
        theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape, **common))
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.normal_(0, 0.3) if weight.dim() > 1 else weight.normal_(1, 0.1)
    config, vocab_size, sequence_length, weights = from_hf(theirs.config.to_dict(), theirs.state_dict())
    ours = config.build(vocab_size=vocab_size, sequence_length=sequence_length)
    assert isinstance(ours, GPT)
    ours.load_state_dict(weights)
    return theirs.eval(), ours.eval()


@pytest.fixture(autouse=True)
def _their_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="transformers")
        yield


def theirs(model: Any, prompt: list[int], **settings: Any) -> list[list[int]]:
    """New tokens of each returned sequence, without padding."""
    tokens = torch.tensor([prompt])
    settings = {"max_new_tokens": NEW, **settings}
    found = model.generate(tokens, attention_mask=torch.ones_like(tokens), **settings)[:, len(prompt) :]
    return [_until_eos(row) for row in found.tolist()]


def _until_eos(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens


def ours(model: GPT, prompts: list[list[int]], seeds: list[int] | None = None, **settings: Any) -> list[list[int]]:
    """New tokens of each prompt, all in one batch."""
    found: list[list[int]] = [[] for _ in prompts]
    decoding = DecodingConfig(**{"max_new_tokens": NEW, **settings})
    for row, token, _ in sample(model, prompts, decoding, seeds=seeds or [0] * len(prompts), eos_id=EOS):
        found[row].append(token)
    return found


def test_logits_are_the_same(pair: tuple[Any, GPT]) -> None:
    model, gpt = pair
    tokens = torch.tensor([PROMPTS[2]])
    with torch.no_grad():
        assert gpt(tokens).std() > 0.5
        torch.testing.assert_close(gpt(tokens), model(tokens).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("penalty", [1.0, 1.3, 0.8])
def test_greedy_of_a_batch_equals_theirs_of_each_prompt(pair: tuple[Any, GPT], penalty: float) -> None:
    model, gpt = pair
    expected = [theirs(model, prompt, do_sample=False, repetition_penalty=penalty)[0] for prompt in PROMPTS]
    assert ours(gpt, PROMPTS, temperature=0, repetition_penalty=penalty) == expected


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.0, "top_k": None},
        {"temperature": 0.7, "top_k": 5},
        {"temperature": 1.3, "top_k": None, "top_p": 0.8},
        {"temperature": 1.0, "top_k": None, "min_p": 0.1},
        {"temperature": 1.1, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.2},
    ],
    ids=str,
)
def test_the_same_seed_samples_the_same_tokens(pair: tuple[Any, GPT], settings: dict[str, Any]) -> None:
    model, gpt = pair
    seeds = [3, 11, 4, 3]
    expected = []
    for prompt, seed in zip(PROMPTS, seeds, strict=True):
        torch.manual_seed(seed)
        given = settings | {"top_k": settings["top_k"] or 0}
        expected.append(theirs(model, prompt, do_sample=True, **given)[0])
    assert len({tuple(tokens) for tokens in expected}) == len(expected)
    assert ours(gpt, PROMPTS, seeds, **settings) == expected


@pytest.mark.parametrize("penalty", [1.0, 1.2])
@pytest.mark.parametrize(
    ("n_beams", "length_penalty", "early_stopping"),
    [(2, 1.0, "false"), (4, 1.0, "true"), (4, 0.0, "never"), (5, 2.0, "never"), (3, -1.0, "false"), (4, 2.0, "false")],
)
def test_beam_search_finds_the_same_texts(
    pair: tuple[Any, GPT], n_beams: int, length_penalty: float, early_stopping: str, penalty: float
) -> None:
    model, gpt = pair
    decoding = DecodingConfig(
        max_new_tokens=12,
        n_beams=n_beams,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        repetition_penalty=penalty,
    )
    for prompt in PROMPTS:
        expected = theirs(
            model,
            prompt,
            max_new_tokens=12,
            do_sample=False,
            num_beams=n_beams,
            num_return_sequences=n_beams,
            length_penalty=length_penalty,
            early_stopping={"false": False, "true": True, "never": "never"}[early_stopping],
            repetition_penalty=penalty,
        )
        found = beam_search(gpt, prompt, decoding, eos_id=EOS)
        assert [beam.tokens for beam in found] == expected
        assert [beam.score for beam in found] == sorted((beam.score for beam in found), reverse=True)


def test_scores_of_beams_are_theirs_and_log_probabilities(pair: tuple[Any, GPT]) -> None:
    model, gpt = pair
    found = beam_search(gpt, PROMPTS[0], DecodingConfig(max_new_tokens=8, n_beams=3), eos_id=EOS)
    tokens = torch.tensor([PROMPTS[0]])
    answer = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=8,
        num_beams=3,
        num_return_sequences=3,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
    )
    torch.testing.assert_close(torch.tensor([beam.score for beam in found]), answer.sequences_scores)
    for beam in found:
        text = torch.tensor([[*PROMPTS[0], *beam.tokens]])
        with torch.no_grad():
            each = gpt(text).log_softmax(dim=-1)[0, len(PROMPTS[0]) - 1 : -1].gather(1, text[0, 3:, None])
        assert beam.score == pytest.approx(each.sum().item() / len(beam.tokens), rel=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("top_k", [None, 1, 7, 100])
@pytest.mark.parametrize("top_p", [None, 0.3, 0.9])
@pytest.mark.parametrize("min_p", [None, 0.02, 0.4])
def test_distributions_are_those_of_their_warpers(
    temperature: float, top_k: int | None, top_p: float | None, min_p: float | None
) -> None:
    from transformers.generation.logits_process import (
        LogitsProcessorList,
        MinPLogitsWarper,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    logits = torch.randn(8, VOCAB, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
    text = torch.randint(VOCAB, (8, 10), generator=torch.Generator().manual_seed(1))
    warpers = [RepetitionPenaltyLogitsProcessor(1.3), TemperatureLogitsWarper(temperature)]
    warpers += [] if top_k is None else [TopKLogitsWarper(top_k)]
    warpers += [] if top_p is None else [TopPLogitsWarper(top_p)]
    warpers += [] if min_p is None else [MinPLogitsWarper(min_p)]
    expected: Tensor = LogitsProcessorList(warpers)(text, logits).softmax(dim=-1)
    penalized = torch.stack(
        [penalize_repetition(row, seen.tolist(), 1.3) for row, seen in zip(logits, text, strict=True)]
    )
    found = next_token_probabilities(penalized, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    torch.testing.assert_close(found, expected)
