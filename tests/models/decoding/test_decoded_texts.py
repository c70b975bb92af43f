"""From tokens to text as it comes, and where it stops."""

import pytest
import torch
from torch import Tensor, nn

from lmexp.models.decoding.config import DecodingConfig
from lmexp.models.decoding.text_stream import TextStream
from lmexp.models.decoding.texts import search_texts, stream_texts
from lmexp.tokenizers.base import Tokenizer
from lmexp.tokenizers.bpe import BPETokenizer
from lmexp.tokenizers.byte import ByteTokenizer
from lmexp.tokenizers.char import CharTokenizer
from lmexp.tokenizers.word import WordTokenizer

TEXT = "Où est-il ? 漢字, 👍🏽 (and more). The END, the end; ENDE."
TOKENIZERS: list[Tokenizer] = [
    ByteTokenizer(),
    CharTokenizer.train([TEXT]),
    WordTokenizer.train([TEXT], min_frequency=1, lowercase=False),
    BPETokenizer.train([TEXT, "the end of the band"] * 3, vocab_size=280, min_frequency=1),
]
every_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda tokenizer: tokenizer.kind)


class Recites(nn.Module):
    """Says one text, whatever the prompt's last token, by looking where in it the prompt stands."""

    max_sequence_length = 1000

    def __init__(self, tokens: list[int], vocab_size: int) -> None:
        super().__init__()
        self.tokens, self.vocab_size = tokens, vocab_size
        self.start: int | None = None

    def forward(self, tokens: Tensor) -> Tensor:
        if self.start is None:
            self.start = tokens.shape[1]
        logits = torch.full((*tokens.shape, self.vocab_size), -9.0)
        logits[:, -1, self.tokens[(tokens.shape[1] - self.start) % len(self.tokens)]] = 9.0
        return logits


def pieces(tokenizer: Tokenizer, text: str, stop: tuple[str, ...] = (), prompt: str = "") -> list[str]:
    stream = TextStream(tokenizer, tokenizer.encode(prompt), stop=stop)
    whole = tokenizer.encode(text)
    return [*(stream.push(token) for token in whole), stream.close()]


@every_tokenizer
def test_the_pieces_are_the_text_and_hold_whole_characters(tokenizer: Tokenizer) -> None:
    found = pieces(tokenizer, TEXT)
    assert "".join(found) == tokenizer.decode(tokenizer.encode(TEXT))
    assert not any("�" in piece for piece in found)
    assert len([piece for piece in found if piece]) > 8


@every_tokenizer
@pytest.mark.parametrize("cut", [4, 12, 20, 30])
def test_prompt_and_pieces_are_the_whole_text(tokenizer: Tokenizer, cut: int) -> None:
    tokens = tokenizer.encode(TEXT)
    cut = min(cut, len(tokens) - 4)
    while "�" in tokenizer.decode(tokens[:cut]):  # a prompt is whole text
        cut += 1
    stream = TextStream(tokenizer, tokens[:cut])
    rest = "".join([*map(stream.push, tokens[cut:]), stream.close()])
    assert tokenizer.decode(tokens[:cut]) + rest == tokenizer.decode(tokens)


@every_tokenizer
@pytest.mark.parametrize(
    ("stop", "kept"),
    [
        (("END",), "The "),
        (("the end", "END"), "The "),
        (("he END", "END"), "T"),
        (("nothing like it",), None),
        ((", the",), "The END"),
        (("T",), ""),
    ],
)
def test_a_stop_string_cuts_the_text_before_it(tokenizer: Tokenizer, stop: tuple[str, ...], kept: str | None) -> None:
    text = "The END, the end; ENDE."
    found = "".join(pieces(tokenizer, text, stop))
    assert found == (tokenizer.decode(tokenizer.encode(text)) if kept is None else kept)


def test_nothing_of_a_stop_string_is_shown_before_it_is_decided() -> None:
    found = pieces(ByteTokenizer(), "a EN, b END c", ("END",))
    assert found == ["a", " ", "", "", "EN,", " ", "b", " ", "", "", "", "", "", ""]
    held = pieces(ByteTokenizer(), "aabaab", ("aabaac",))
    assert held == ["", "", "", "", "", "aab", "aab"]  # it began anew within itself


def test_bytes_that_are_no_character_are_shown_in_the_end() -> None:
    stream = TextStream(ByteTokenizer(), [])
    assert [stream.push(token) for token in b"a\xe6\xbc"] == ["a", "", ""]
    assert stream.close() == "�"
    assert [stream.push(token) for token in b"\xff"] == [""]


@every_tokenizer
@pytest.mark.parametrize("n_beams", [1, 2])
def test_texts_end_at_a_stop_string_or_eos(tokenizer: Tokenizer, n_beams: int) -> None:
    tokens = tokenizer.encode(TEXT)
    eos = [*tokens, tokenizer.eos_id, *tokens]
    settings = {"temperature": 0, "n_beams": n_beams}

    def text(said: list[int], prompt: str, **more: object) -> str:
        model = Recites(said, tokenizer.vocab_size)
        decoding = DecodingConfig(**settings, **more)  # type: ignore[arg-type]
        if n_beams > 1:
            return search_texts(model, tokenizer, prompt, decoding)[0]
        return "".join(piece.text for piece in stream_texts(model, tokenizer, [prompt], decoding, seeds=[0]))

    whole = tokenizer.decode(tokens)
    assert text(eos, "") == whole
    assert text(tokens * 9, "", stop=["END", "xyz"]) == whole[: whole.index("END")]
    assert text(tokens * 9, "", max_new_tokens=4) == tokenizer.decode(tokens[:4])
