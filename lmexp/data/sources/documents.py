"""What makes a text a document: it is UTF-8, not blank, and has neither NUL bytes nor lone surrogates."""

from __future__ import annotations


class NoDocument(Exception):  # noqa: N818 - not an error: the reader sets it aside and goes on
    """Why something is no document: the reason of a Bad."""


def decode(raw: bytes) -> str:
    """raw as text, blank or not. NoDocument where it isn't text."""
    if b"\0" in raw:
        raise NoDocument(
            f"NUL byte: byte {raw.index(0):,} is NUL, as in a binary file or UTF-16 text; leave it out (data.path, "
            f"data.pattern) or convert it: iconv -f utf16 -t utf8"
        )
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise NoDocument(
            f"not UTF-8: byte {error.start:,} is 0x{raw[error.start]:02x} ({error.reason}); leave it out "
            f"(data.path, data.pattern) or convert it: iconv -f latin1 -t utf8"
        ) from None


def checked(text: str) -> str:
    """text itself. NoDocument where it is blank or can't be written as UTF-8."""
    if not text or text.isspace():
        raise NoDocument("empty document: there is no text, or only spaces")
    if "\0" in text:
        raise NoDocument(f"NUL byte: character {text.index(chr(0)):,} of the text is NUL")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise NoDocument(
                f"lone surrogate: character {error.start:,} of the text is \\u{ord(text[error.start]):04x}, "
                f"half of a pair: no text has that"
            ) from None
    return text
