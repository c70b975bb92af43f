import functools
import itertools
import json
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from lmexp.errors import DataError
from lmexp.tokenizers import base
from lmexp.tokenizers.bpe import PRINTABLE_BYTES, BPETokenizer, _ids_tell_the_merges, chunks_of

TEXTS = ["low lower lowest newer newest wider widest " * 5, "naïve 日本語 🙂 " * 5]
BYTES = sorted(PRINTABLE_BYTES, key=PRINTABLE_BYTES.__getitem__)
"""Byte -> the character that stands for it."""
WHITE_SPACE = [chr(c) for c in range(0x3001) if chr(c).isspace() and not 0x1C <= c <= 0x1F]
"""Unicode's; Python adds four control characters."""
TRICKY = st.text(alphabet=[*"ab'sl1.,_", *"éπ字。²½Ⅷ🙂", "\x1c", "\u0301", "\u200b", *WHITE_SPACE])
CONTEXTS = ("a{0}s", "1{0}7", ".{0}!", "'{0}s", " {0} s", "{0}{0}a", "\n{0}\n", "a {0}'")


def train(vocab_size: int = 320) -> BPETokenizer:
    return BPETokenizer.train(TEXTS, vocab_size=vocab_size, min_frequency=2)


def from_merges(merges: Iterable[tuple[str, str]]) -> BPETokenizer:
    merges = list(merges)
    return BPETokenizer([*BYTES, *(left + right for left, right in merges)], merges)


@functools.cache
def trained() -> BPETokenizer:
    """A vocabulary with words of several languages and runs of all kinds."""
    python = [path.read_text(encoding="utf-8") for path in stdlib_files()[::40]]
    runs = [f"{character * n} " for character in "a \n=🙂字9" for n in range(1, 70)]
    return BPETokenizer.train([*python, *runs, *TEXTS], vocab_size=3000, min_frequency=2)


@functools.cache
def border_detector() -> BPETokenizer:
    """Joins some letters, digits, marks and spaces with any byte beside them in the same word."""
    before = itertools.product([BYTES[byte] for byte in b"a1.' \n"], BYTES)
    behind = itertools.product(BYTES, [BYTES[byte] for byte in b"s7! "])
    return from_merges(dict.fromkeys([*before, *behind]))


@functools.cache
def reference(tokenizer: BPETokenizer) -> tokenizers.Tokenizer:
    """The same vocabulary in the library that follows merges."""
    vocab = {token: i for i, token in enumerate(tokenizer.tokens)}
    library = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=tokenizer.merges))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    library.decoder = decoders.ByteLevel()
    return library


def stdlib_files() -> list[Path]:
    return sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))


def assert_equal_to_the_library(tokenizer: BPETokenizer, texts: list[str]) -> None:
    expected = reference(tokenizer).encode_batch_fast(texts, add_special_tokens=False)
    for text, ids, wanted in zip(texts, tokenizer.encode_batch(texts), expected, strict=True):
        assert ids.tolist() == wanted.ids, f"differs in {text[:200]!r}"


@given(text=st.text() | TRICKY)
@settings(deadline=None, max_examples=500)
def test_ids_are_those_of_the_library(text: str) -> None:
    assert_equal_to_the_library(trained(), [text])
    assert_equal_to_the_library(border_detector(), [text])


def code_points_in_contexts(start: int, stop: int, step: int = 1) -> list[str]:
    characters = [chr(c) for c in range(start, stop, step) if not 0xD800 <= c <= 0xDFFF]
    blocks = [characters[i : i + 256] for i in range(0, len(characters), 256)]
    return ["".join(f"{context.format(c)}s7\n" for c in block) for block in blocks for context in CONTEXTS]


def test_both_libraries_split_at_the_same_characters() -> None:
    texts = code_points_in_contexts(0, 0x3400) + code_points_in_contexts(0x3400, 0x110000, 101)
    assert_equal_to_the_library(border_detector(), texts)


@pytest.mark.slow
def test_both_libraries_split_at_the_same_characters_of_all_of_unicode() -> None:
    for start in range(0, 0x110000, 0x10000):
        assert_equal_to_the_library(border_detector(), code_points_in_contexts(start, start + 0x10000))


@pytest.mark.parametrize(("same", "other"), [("aé", "a½"), ("1½", "1é"), (".。", ".é"), ("\n\xa0", "\né")])
def test_the_comparison_above_notices_what_kind_of_character_one_is(same: str, other: str) -> None:
    assert len(border_detector().encode(same)) == len(same.encode()) - 1
    assert len(border_detector().encode(other)) == len(other.encode())


def test_ids_of_the_standard_library_are_those_of_the_library() -> None:
    texts = [path.read_bytes().decode(errors="replace") for path in stdlib_files()[::3]]
    assert_equal_to_the_library(trained(), texts)
    assert [trained().decode(ids) for ids in trained().encode_batch(texts)] == texts


def test_ids_of_tinyshakespeare_are_those_of_the_library(shared_data: Path) -> None:
    text = (shared_data / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
    tokenizer = BPETokenizer.train([text], vocab_size=1024, min_frequency=2)
    assert tokenizer._encoding is not None
    assert_equal_to_the_library(tokenizer, [text, *text.split("\n\n")])


@given(ids=st.lists(st.integers(0, 2998)))
@settings(deadline=None)
def test_any_ids_decode_as_in_the_library(ids: list[int]) -> None:
    assert trained().decode(ids) == reference(trained()).decode(ids, skip_special_tokens=False)


@given(text=st.text() | TRICKY, size=st.integers(1, 6))
@settings(deadline=None, max_examples=500)
def test_a_text_may_be_encoded_in_chunks(text: str, size: int) -> None:
    chunks = list(chunks_of(text, size))
    assert "".join(chunks) == text
    for tokenizer in (trained(), border_detector()):
        ids = [token for chunk in chunks for token in tokenizer.encode(chunk)]
        assert ids == reference(tokenizer).encode(text).ids


def test_chunks_end_at_borders_of_words_whatever_the_character() -> None:
    tokenizer = border_detector()
    for text in code_points_in_contexts(0, 0x3400) + code_points_in_contexts(0x3400, 0x110000, 101):
        chunks = list(chunks_of(text, 1))
        assert len(chunks) > 1
        assert np.concatenate(tokenizer.encode_batch(chunks)).tolist() == tokenizer.encode(text)


@pytest.mark.parametrize("space", WHITE_SPACE)
def test_a_chunk_ends_at_every_white_space(space: str) -> None:
    assert list(chunks_of(f"a{space}b", 1)) == ["a", f"{space}b"]
    assert list(chunks_of(f"a{space * 9}b", 2)) == [f"a{space * 8}", f"{space}b"]


def test_a_long_document_has_small_chunks_and_the_same_ids() -> None:
    text = "".join(path.read_bytes().decode(errors="replace") for path in stdlib_files()[:60])
    chinese = "学而时习之，不亦说乎？有朋自远方来。" * 2000  # noqa: RUF001
    for document in (text, chinese):
        sizes = [len(chunk) for chunk in chunks_of(document, 1000)]
        assert max(sizes) < 1300
    assert len(text) > 1 << 20
    assert_equal_to_the_library(trained(), [text])


@pytest.mark.parametrize("end", ["", "x", " x"])
@pytest.mark.parametrize("character", ["a", " ", "\n", "🙂", "字", "\u3000", "7", "=", "\u0301"])
def test_a_megabyte_of_one_character_takes_time_in_proportion(character: str, end: str) -> None:
    text = character * ((1 << 20) // len(character.encode())) + end
    start = time.perf_counter()
    ids, n_bytes = trained().encode_with_bytes(text)
    assert time.perf_counter() - start < 30  # a quadratic algorithm takes hours
    assert n_bytes.sum() == len(text.encode())
    assert trained().decode(ids) == text
    assert_equal_to_the_library(trained(), [text[-50_000:]])


def test_long_runs_within_a_text_have_the_ids_of_the_library() -> None:
    texts = [f"a{' ' * n}b{space * n}c\n{'d' * n}" for n in (1000, 300_000) for space in "\n\u3000"]
    assert_equal_to_the_library(trained(), texts)


def follow_merges(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """BPE as it is defined: the merge that stands first, at its leftmost place, again and again."""
    ranks = {pair: i for i, pair in enumerate(merges)}
    parts = list(word)
    while True:
        pairs = [(ranks.get(pair, len(merges)), i) for i, pair in enumerate(itertools.pairwise(parts))]
        rank, i = min(pairs, default=(len(merges), 0))
        if rank == len(merges):
            return parts
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


@given(choices=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=12), data=st.data())
@settings(deadline=None, max_examples=600)
def test_any_merges_are_followed_whatever_encodes(choices: list[tuple[int, int]], data: st.DataObject) -> None:
    letters, merges = ["a", "b", "c"], []
    for i, j in choices:
        pair = (letters[i % len(letters)], letters[j % len(letters)])
        if "".join(pair) not in letters:
            merges.append(pair)
            letters.append("".join(pair))
    tokenizer = from_merges(merges)
    assert _ids_tell_the_merges(tokenizer.tokens, merges) == all(follow_merges(t, merges) == [t] for t in letters)
    words = data.draw(st.lists(st.text(alphabet="abc", min_size=1, max_size=30), min_size=1))
    for word in [*words, *letters]:
        assert [tokenizer.tokens[token] for token in tokenizer.encode(word)] == follow_merges(word, merges)


def test_a_token_that_no_text_becomes_is_left_to_the_library() -> None:
    tokenizer = from_merges([("b", "c"), ("a", "b"), ("ab", "c")])
    assert tokenizer._encoding is None
    assert [tokenizer.tokens[token] for token in tokenizer.encode("abc ab")] == ["a", "bc", "Ġ", "ab"]


def test_ids_in_another_order_are_left_to_the_library() -> None:
    merges = train().merges
    tokens = [*reversed(train().tokens)]
    shuffled = BPETokenizer(tokens, merges)
    assert shuffled._encoding is None
    assert_equal_to_the_library(shuffled, [*TEXTS, "lowest of all"])
    assert [shuffled.tokens[token] for token in shuffled.encode(TEXTS[0])] == [
        train().tokens[token] for token in train().encode(TEXTS[0])
    ]


def test_every_trained_vocabulary_is_encoded_by_tiktoken() -> None:
    for texts in (TEXTS, ["a" * 1000 + " " * 1000 + "ab" * 1000], ["abcabcbcbcaab" * 50]):
        assert BPETokenizer.train(texts, vocab_size=400, min_frequency=1)._encoding is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": BYTES[1:], "merges": []}, "lacks 1 of the 256 bytes, e.g. 0x00"),
        ({"tokens": [*BYTES, "a"], "merges": []}, "a token stands in the vocabulary twice"),
        ({"tokens": BYTES, "merges": [["a", "b"]]}, "the merge of 'a' and 'b' is not in the vocabulary"),
        ({"tokens": [*BYTES, "a b"], "merges": []}, "KeyError"),
        ({"tokens": BYTES, "merges": [["a"]]}, "ValueError"),
    ],
)
def test_damaged_vocabularies_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match="damaged bpe tokenizer") as caught:
        base.from_dict(train().to_dict() | change)
    assert message in str(caught.value)


def test_encoding_imports_only_what_it_needs() -> None:
    script = (
        "import json, sys\n"
        "from lmexp.tokenizers import base\n"
        "tokenizer = base.from_dict(json.load(sys.stdin))\n"
        "assert tokenizer.decode(tokenizer.encode('low lower')) == 'low lower'\n"
        "assert 'tokenizers' not in sys.modules and 'torch' not in sys.modules\n"
    )
    state = json.dumps(train().to_dict())
    done = subprocess.run([sys.executable, "-c", script], input=state, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_ids_have_the_smallest_type_that_holds_the_vocabulary() -> None:
    assert train().encode_batch(["low"])[0].dtype == np.uint16
    pairs = itertools.islice(itertools.product(BYTES, BYTES), (1 << 16) - 256)
    assert from_merges(pairs).encode_batch(["low"])[0].dtype == np.uint32


def test_vocabulary_has_the_size_asked_for() -> None:
    assert train(280).vocab_size == 280
    assert train(257).vocab_size == 257


def test_vocabulary_stays_small_where_nothing_is_frequent() -> None:
    assert BPETokenizer.train(["abc"], vocab_size=1000, min_frequency=2).vocab_size == 257


def test_frequent_words_become_one_token() -> None:
    tokenizer = train()
    assert len(tokenizer.encode("lowest")) < len("lowest")
    assert len(tokenizer.encode(" lowest lower")) < len(" lowest lower") / 3


def test_bytes_of_each_token_are_those_it_decodes_to() -> None:
    tokenizer = train()
    table = tokenizer.token_bytes()
    for token in range(tokenizer.eos_id):
        text = tokenizer.decode([token])
        if "\ufffd" not in text:
            assert table[token] == len(text.encode())
    assert sorted(table[:256]) == [1] * 256


def test_every_byte_is_known() -> None:
    tokenizer = BPETokenizer.train(["a"], vocab_size=257, min_frequency=2)
    text = "".join(map(chr, range(0x300))) + "🙂"
    assert tokenizer.encode_with_bytes(text)[1].sum() == len(text.encode()) == len(tokenizer.encode(text))
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_literal_eos_is_ordinary_text() -> None:
    tokenizer = BPETokenizer.train(["<eos> <eos>" * 50], vocab_size=300, min_frequency=2)
    ids = tokenizer.encode("<eos>")
    assert tokenizer.eos_id not in ids
    assert tokenizer.decode(ids) == "<eos>"


def test_a_fork_after_encoding_is_silent_and_works() -> None:
    script = (
        "import os\n"
        "from lmexp.tokenizers.bpe import BPETokenizer\n"
        "t = BPETokenizer.train(['ab ' * 99], vocab_size=260, min_frequency=2)\n"
        "ids = [list(i) for i in t.encode_batch(['ab ab'] * 64)]\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    os._exit(0 if [list(i) for i in t.encode_batch(['ab ab'] * 64)] == ids else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
