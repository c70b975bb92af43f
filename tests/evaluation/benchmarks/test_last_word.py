from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lmexp.errors import DataError
from lmexp.evaluation.benchmarks.config import LastWordConfig
from lmexp.evaluation.benchmarks.last_word import LastWord
from tests.evaluation.asking import VOCAB, Uniform, context, run, write


class Next(nn.Module):
    """Sure that t is followed by t + 1, and a space by b."""

    max_sequence_length = 100

    def forward(self, tokens: Tensor) -> Tensor:
        following = torch.where(tokens == ord(" "), ord("b"), (tokens + 1) % VOCAB)
        following = torch.where(tokens == ord("!"), ord(" "), following)
        return 9.0 * nn.functional.one_hot(following, VOCAB)


def test_a_word_counts_where_every_token_was_the_first_choice(tmp_path: Path) -> None:
    texts = ["x! bcd", "x! bcx", "x! xcd", "x? bcd"]
    rows, samples = run(LastWordConfig(path=write(tmp_path, [{"text": text} for text in texts])), context(Next()))
    assert samples.values("score") == [1, 0, 0, 0]  # in the last one the space itself was not
    assert samples.values("prediction") == ["bcd", "", "", ""]
    assert samples.values("target") == ["bcd", "bcx", "xcd", "bcd"]
    assert samples.values("input") == ["x!", "x!", "x!", "x?"]
    assert rows["acc"].estimate == 0.25 and rows["acc"].method == "Wilson over 4 texts"


def test_perplexity_and_bits_per_byte_of_a_uniform_model_are_known(tmp_path: Path) -> None:
    texts = ["one two", "one été", "a b c"]  # with the space 4, 6 and 2 bytes
    rows, samples = run(LastWordConfig(path=write(tmp_path, [{"text": text} for text in texts])), context(Uniform()))
    assert samples.values("n_bytes") == samples.values("n_tokens") == [4, 6, 2]
    assert rows["perplexity"].estimate == pytest.approx(math.exp(4 * math.log(VOCAB)), rel=1e-6)
    assert rows["bits_per_byte"].estimate == pytest.approx(math.log2(VOCAB), rel=1e-6)
    assert rows["perplexity"].n == 3 and rows["bits_per_byte"].n == 12
    assert [len(one) for one in samples.values("logprobs")] == [4, 6, 2]


@pytest.mark.parametrize("text", ["word", "ends with space ", " word", ""])
def test_a_text_without_a_last_word_is_refused_with_file_and_line(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, [{"text": "two words"}, {"text": text}])
    with pytest.raises(DataError, match=r"items\.jsonl:2: .*has no last word after a space"):
        LastWord(LastWordConfig(path=path)).check("it")
