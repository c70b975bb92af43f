"""Tokens to text as they come: whole characters only, and nothing that may be the beginning of a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from lmexp.tokenizers.base import Tokenizer

CONTEXT = 5
"""Tokens of the prompt that the first new token is decoded with: some tokenizers put the space between words."""
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """The text of one continuation, piece by piece. All pieces together are the text, cut before the first stop string.

    >>> from lmexp.tokenizers.byte import ByteTokenizer
    >>> stream = TextStream(ByteTokenizer(), [], stop=["END"])
    >>> [stream.push(token) for token in b"cafE END"]
    ['c', 'a', 'f', '', 'E ', '', '', '']
    >>> stream.has_ended
    True
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], *, stop: Sequence[str] = ()) -> None:
        self.has_ended = False
        """Whether a stop string was found: nothing comes any more."""
        self._tokenizer = tokenizer
        self._stop = stop
        self._tokens = list(prompt[-CONTEXT:])
        self._known = len(self._tokens)  # of these, the text was given already
        self._held = ""

    def push(self, token: int) -> str:
        """The text that is decided with one more token."""
        self._tokens.append(token)
        text = self._new_text()
        if text.endswith(REPLACEMENT):  # half a character so far
            return ""
        self._tokens, self._known = self._tokens[self._known :], len(self._tokens) - self._known
        return self._release(text)

    def close(self) -> str:
        """What was held back, when no token comes any more."""
        rest = self._release(self._new_text())
        rest, self._held = rest + self._held, ""
        return rest

    def _new_text(self) -> str:
        """Of the tokens not given yet. They are decoded together with some before, since a space may lie between."""
        before = self._tokenizer.decode(self._tokens[: self._known])
        return self._tokenizer.decode(self._tokens)[len(before) :]

    def _release(self, text: str) -> str:
        if self.has_ended:
            return ""
        text = self._held + text
        places = [place for place in (text.find(stop) for stop in self._stop) if place >= 0]
        if places:
            self.has_ended, self._held = True, ""
            return text[: min(places)]
        held = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of text that stop begins with."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
