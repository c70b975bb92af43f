"""Logits of the next token of texts that grow: from the model's cache where it has one, else computed anew."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from lmexp.errors import LmexpError
from lmexp.models.base import Cache, as_language_model, takes_cache

MOST_TOKENS = 2048
"""Tokens for which logits are computed at once: with 50,000 tokens in the vocabulary they take 400 MB."""


class NextLogits:
    """A batch of texts, which may be of different lengths, and the logits of what comes next in each.

    A text sees itself alone. Where it outgrows the model, the model sees its last max_sequence_length tokens: all
    positions then change with each token, so nothing can be kept, and each step computes the whole window.
    """

    def __init__(self, model: nn.Module, texts: Sequence[Sequence[int]], *, max_new_tokens: int) -> None:
        self.model = as_language_model(model)
        self.texts = [list(text) for text in texts]
        self._device = next((t.device for t in chain(model.parameters(), model.buffers())), torch.device("cpu"))
        self._window = self.model.max_sequence_length
        self._context = min(self._window, getattr(model, "context_length", self._window))
        """Tokens that what comes next depends on."""
        self._longest = min(self._window, max(map(len, texts)) + max_new_tokens)
        self._cache: Cache | None = None
        self._cached: list[int] = []
        """Row of the cache -> text that it belongs to."""

    def extend(self, tokens: Sequence[int]) -> None:
        """Add one token to each text."""
        for text, token in zip(self.texts, tokens, strict=True):
            text.append(token)

    def reorder(self, rows: Sequence[int]) -> None:
        """Text i is from now on a copy of what text rows[i] was; those not named are forgotten."""
        self.texts = [list(self.texts[row]) for row in rows]
        if self._cache is not None:
            place = {text: row for row, text in enumerate(self._cached)}
            self._keep([(new, place[old]) for new, old in enumerate(rows) if old in place])

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """(texts, vocab) in float32 or wider, on the CPU: there a seed draws the same everywhere.

        With a cache, each text must have grown by one token since the last call.
        """
        fitting = {row for row, text in enumerate(self.texts) if len(text) <= self._window}
        if not takes_cache(self.model):
            found = self._anew(range(len(self.texts)))
        else:
            found = self._anew([row for row in range(len(self.texts)) if row not in fitting])
            if self._cache is None:
                found |= self._first(sorted(fitting))
            else:
                self._keep([(text, row) for row, text in enumerate(self._cached) if text in fitting])
                found |= self._step()
        logits = torch.stack([found[row] for row in range(len(self.texts))]).cpu()
        if not bool(torch.isfinite(logits.amax(dim=-1)).all()):  # the largest is nan where any is nan
            raise LmexpError("the model's logits are not finite: its weights are damaged or its training diverged")
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _anew(self, rows: Sequence[int]) -> dict[int, Tensor]:
        """Row -> (vocab,) logits from the whole window, padded on the right, where no token before can see it."""
        found: dict[int, Tensor] = {}
        windows = {row: self.texts[row][-self._context :] for row in rows}
        at_once = max(1, MOST_TOKENS // max(map(len, windows.values()), default=1))
        for start in range(0, len(rows), at_once):
            part = rows[start : start + at_once]
            logits = self.model(self._padded([windows[row] for row in part]))  # (rows, seq, vocab)
            found |= {row: logits[i, len(windows[row]) - 1] for i, row in enumerate(part)}
        return found

    def _first(self, rows: Sequence[int]) -> dict[int, Tensor]:
        """Row -> (vocab,) logits; the cache has seen the texts afterwards. Equal texts are computed once."""
        assert takes_cache(self.model)
        different = list(dict.fromkeys(tuple(self.texts[row]) for row in rows))
        if not different:
            return {}
        lengths = [len(text) for text in different]
        cache = self.model.new_cache(len(different), self._longest)
        last: dict[int, Tensor] = {}
        start = 0
        for part in torch.split(self._padded(different), max(1, MOST_TOKENS // len(different)), dim=1):
            logits = self.model(part, cache=cache)  # (different, part, vocab)
            end = start + part.shape[1]
            last |= {i: logits[i, n - 1 - start] for i, n in enumerate(lengths) if start < n <= end}
            start = end
        cache.crop(lengths)
        self._cache, self._cached = cache, list(rows)
        which = {text: i for i, text in enumerate(different)}
        places = [which[tuple(self.texts[row])] for row in rows]
        cache.reorder(places)
        return {row: last[place] for row, place in zip(rows, places, strict=True)}

    def _step(self) -> dict[int, Tensor]:
        if self._cache is None:
            return {}
        assert takes_cache(self.model)
        new = torch.tensor([[self.texts[text][-1]] for text in self._cached], device=self._device)
        logits = self.model(new, cache=self._cache)[:, -1]  # (cached, vocab)
        return {text: logits[row] for row, text in enumerate(self._cached)}

    def _keep(self, pairs: list[tuple[int, int]]) -> None:
        """The cache of text t becomes its present row r, for each (t, r)."""
        assert self._cache is not None
        if pairs:
            self._cache.reorder([row for _, row in pairs])
        else:
            self._cache = None
        self._cached = [text for text, _ in pairs]

    def _padded(self, texts: Sequence[Sequence[int]]) -> Tensor:
        longest = max(map(len, texts))
        return torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts], device=self._device)
