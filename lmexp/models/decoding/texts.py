"""From prompts to continuations, as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import nn

from lmexp.errors import ConfigError
from lmexp.models.decoding.beam_search import beam_search
from lmexp.models.decoding.config import DecodingConfig
from lmexp.models.decoding.sampler import sample
from lmexp.models.decoding.text_stream import TextStream
from lmexp.tokenizers.base import Tokenizer


class Piece(NamedTuple):
    """Some more text of one continuation."""

    row: int
    """Of which prompt."""
    text: str
    is_last: bool


def stream_texts(
    model: nn.Module, tokenizer: Tokenizer, prompts: Sequence[str], decoding: DecodingConfig, *, seeds: Sequence[int]
) -> Iterator[Piece]:
    """The continuations of all prompts at once, each without its prompt, in pieces as they come.

    An empty prompt starts a document. seeds: of each prompt; beam search takes none and gives a text in one piece.
    """
    if decoding.n_beams > 1:
        for row, prompt in enumerate(prompts):
            yield Piece(row, search_texts(model, tokenizer, prompt, decoding)[0], is_last=True)
        return
    tokens = [_encode(tokenizer, prompt) for prompt in prompts]
    streams = [TextStream(tokenizer, prompt, stop=decoding.stop) for prompt in tokens]
    decided = [""] * len(prompts)

    def ends(row: int, token: int) -> bool:
        decided[row] = streams[row].push(token)
        return streams[row].has_ended

    for row, _, is_last in sample(model, tokens, decoding, seeds=seeds, eos_id=tokenizer.eos_id, ends=ends):
        yield Piece(row, decided[row] + (streams[row].close() if is_last else ""), is_last)


def search_texts(model: nn.Module, tokenizer: Tokenizer, prompt: str, decoding: DecodingConfig) -> list[str]:
    """The n_beams best continuations that beam search finds, best first."""
    tokens = _encode(tokenizer, prompt)
    beams = beam_search(
        model,
        tokens,
        decoding,
        eos_id=tokenizer.eos_id,
        has_ended=(lambda text: _text(tokenizer, tokens, text, decoding)[1]) if decoding.stop else None,
    )
    return [_text(tokenizer, tokens, beam.tokens, decoding)[0] for beam in beams]


def _text(
    tokenizer: Tokenizer, prompt: Sequence[int], continuation: Sequence[int], decoding: DecodingConfig
) -> tuple[str, bool]:
    """A continuation cut before its first stop string, and whether it has one."""
    stream = TextStream(tokenizer, prompt, stop=decoding.stop)
    pieces = [stream.push(token) for token in continuation]
    return "".join([*pieces, stream.close()]), stream.has_ended


def check_text(prompt: str) -> None:
    """A ConfigError for a prompt of which some bytes are no text."""
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"prompt is {prompt!r}, which has bytes that are no UTF-8 text; expected text") from None


def _encode(tokenizer: Tokenizer, prompt: str) -> list[int]:
    check_text(prompt)
    return tokenizer.encode(prompt) or [tokenizer.eos_id]
