"""Text of unknown origin, made fit to be looked at: nothing hidden, nothing that moves what stands beside it."""

from __future__ import annotations

import unicodedata
from html import escape

KEPT = "\n\t"


def visible(text: str) -> str:
    """text with its control, format and bidi characters, lone surrogates and unassigned ones as [U+202E].

    Joiners stay, since scripts and emoji need them; line breaks and tabs stay too.

    >>> visible("a\\x1b[31mb\\u202ec\\n")
    'a[U+001B][31mb[U+202E]c\\n'
    """
    return "".join(character if _is_shown(character) else f"[U+{ord(character):04X}]" for character in text)


def cut_middle(text: str, most: int) -> tuple[str, int, str]:
    """The beginning and the end of a text, and how many characters were cut between them; 0 where all fits.

    >>> cut_middle("abcdefgh", 4), cut_middle("abc", 4)
    (('ab', 4, 'gh'), ('abc', 0, ''))
    """
    if len(text) <= most:
        return text, 0, ""
    n_end = most // 2
    return text[: most - n_end], len(text) - most, text[len(text) - n_end :]


def _is_shown(character: str) -> bool:
    if character in KEPT or character in "\u200c\u200d":  # joiners
        return True
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp")


def shown(text: str) -> str:
    """text as HTML: visible, and nothing but text."""
    return escape(visible(text))
