import pytest

from lmexp.errors import DataError
from lmexp.tokenizers import base
from lmexp.tokenizers.char import CharTokenizer
from lmexp.tokenizers.word import WordTokenizer

SENTENCE = 'He said: "don’t (ever) go, please!"'  # noqa: RUF001


def test_unseen_characters_are_unknown_and_keep_their_bytes() -> None:
    tokenizer = CharTokenizer("ab")
    ids, n_bytes = tokenizer.encode_with_bytes("aéb日🙂")
    assert ids.tolist() == [2, 1, 3, 1, 1]
    assert n_bytes.tolist() == [1, 2, 1, 3, 4]
    assert tokenizer.decode(ids) == "a\ufffdb\ufffd\ufffd"


def test_an_empty_alphabet_makes_everything_unknown() -> None:
    assert CharTokenizer("").encode("ab") == [1, 1]


def test_words_are_numbered_by_frequency() -> None:
    tokenizer = WordTokenizer.train(["b b b a a c c d"], min_frequency=2, lowercase=False)
    assert tokenizer.words == ["b", "a", "c"]
    assert tokenizer.encode("a b c d") == [3, 2, 4, 1]
    assert tokenizer.decode([3, 2, 1]) == "a b <unk>"


def test_white_space_belongs_to_the_next_word_and_at_the_end_to_the_last() -> None:
    tokenizer = WordTokenizer(["a", "bé", "."])
    ids, n_bytes = tokenizer.encode_with_bytes(" a\n\nbé.  ")
    assert ids.tolist() == [2, 3, 4]
    assert n_bytes.tolist() == [2, 5, 3]


def test_white_space_alone_is_one_unknown_word() -> None:
    ids, n_bytes = WordTokenizer(["a"]).encode_with_bytes(" \n")
    assert (ids.tolist(), n_bytes.tolist()) == ([1], [2])


def test_decoded_words_read_well() -> None:
    tokenizer = WordTokenizer.train([SENTENCE], min_frequency=1, lowercase=False)
    assert tokenizer.decode(tokenizer.encode(SENTENCE)) == 'He said: " don’t (ever) go, please! "'  # noqa: RUF001


def test_text_that_is_split_already_keeps_its_tokens_and_its_unknown_words() -> None:
    tokenizer = WordTokenizer.train([" a <unk> @-@ <unk> don't"], min_frequency=1, lowercase=False, split="whitespace")
    assert tokenizer.words == ["@-@", "a", "don't"]
    ids, n_bytes = tokenizer.encode_with_bytes(" a <unk> @-@  new")
    assert (ids.tolist(), n_bytes.tolist()) == ([3, 1, 2, 1], [2, 6, 4, 5])
    again = base.from_dict(tokenizer.to_dict())
    assert again.encode(again.decode([3, 1, 2, 4])) == [3, 1, 2, 4]


def test_a_saved_tokenizer_of_unknown_splitting_is_refused() -> None:
    state = WordTokenizer(["a"], split="whitespace").to_dict() | {"split": "magic"}
    with pytest.raises(DataError, match="damaged word tokenizer"):
        base.from_dict(state)


def test_lower_case_merges_words_even_where_it_changes_their_length() -> None:
    tokenizer = WordTokenizer.train(["The THE the İx İx"], min_frequency=2, lowercase=True)
    assert len(set(tokenizer.encode("The the THE"))) == 1
    assert tokenizer.encode_with_bytes("İx")[1].tolist() == [3]


def test_no_frequent_word_is_an_error_with_the_fix() -> None:
    with pytest.raises(DataError, match=r"none of the 2 words .* try tokenizer\.min_frequency=1"):
        WordTokenizer.train(["a b"], min_frequency=2, lowercase=False)
