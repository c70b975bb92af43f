import pytest

from lmexp.data.sources.documents import NoDocument, checked, decode


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"abc\0def", "NUL byte: byte 3 is NUL, as in a binary file or UTF-16 text; .* iconv -f utf16 -t utf8"),
        ("text".encode("utf-16"), "NUL byte: byte 3"),
        (b"fine caf\xe9", r"not UTF-8: byte 8 is 0xe9 \(unexpected end of data\); .* iconv -f latin1 -t utf8"),
        (b"\xed\xa0\x80", "not UTF-8: byte 0 is 0xed"),
    ],
)
def test_bytes_that_are_no_text_say_where_and_what_to_do(raw: bytes, reason: str) -> None:
    with pytest.raises(NoDocument, match=f"^{reason}"):
        decode(raw)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty document: "),
        (" \n\t\u3000", "empty document: "),
        ("ab\0", "NUL byte: character 2 of the text is NUL"),
        ("aé\ud800b", r"lone surrogate: character 2 of the text is \\ud800"),
    ],
)
def test_texts_that_are_no_documents_are_told(text: str, reason: str) -> None:
    with pytest.raises(NoDocument, match=f"^{reason}"):
        checked(text)


def test_a_document_stays_as_it_is() -> None:
    for text in (" a\r\n", "詩\U0001f600", "a" * 1000):
        assert checked(text) is text
        assert decode(text.encode()) == text
