"""An n-gram model: counted in one pass (ngram_counts), smoothed (ngram_smoothing), and a model like any other.

It looks back at most order - 1 tokens within its window and, unless across_documents, no further than to an <eos>.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lmexp.models.config import NGramConfig
from lmexp.models.ngram_counts import Counts, count_ngrams
from lmexp.models.ngram_smoothing import Probabilities, smooth

AT_ONCE = 1 << 22
"""Probabilities that are computed at once: positions times vocabulary."""


class NGram(nn.Module):
    """Token ids to log-probabilities of each next token.

    Its buffers are the Probabilities of ngram_smoothing, base (vocab,), and for each order n from 2 on codes_n,
    shares_n (one for each n-gram) and weights_n (one for each context); and cut, the <eos> beyond which it doesn't
    look back, or -1. Before fit() or load_state_dict() it knows of no n-gram, and all tokens are equally likely.
    """

    base: Tensor
    cut: Tensor

    def __init__(self, config: NGramConfig, *, vocab_size: int, sequence_length: int = 1 << 30) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.max_sequence_length = sequence_length
        self.order = config.order
        self.context_length = max(1, config.order - 1)
        self._choices: list[Tensor] = []
        """Made when they are asked for: see _first_choices."""
        self.register_buffer("base", torch.full((vocab_size,), 1 / vocab_size, dtype=torch.float64))
        self.register_buffer("cut", torch.tensor(-1))
        for n in range(2, self.order + 1):
            self.register_buffer(f"codes_{n}", torch.empty(0, dtype=torch.int64))
            self.register_buffer(f"shares_{n}", torch.empty(0, dtype=torch.float64))
            self.register_buffer(f"weights_{n}", torch.ones(vocab_size if n == 2 else 0, dtype=torch.float64))

    def fit(
        self, tokens: NDArray[np.integer], *, eos_id: int, progress: Callable[[int], None] = lambda counted: None
    ) -> tuple[Counts, Probabilities]:
        """Count a stream of tokens, of which the first is given, and take the probabilities that follow."""
        cut_at = None if self.config.across_documents else eos_id
        counts = count_ngrams(tokens, self.order, self.vocab_size, cut_at=cut_at, progress=progress)
        found = smooth(counts, self.config.smoothing, k=self.config.k)
        self._choices = []
        self.base, self.cut = torch.from_numpy(found.base), torch.tensor(-1 if cut_at is None else cut_at)
        for n, parts in enumerate(zip(found.codes, found.shares, found.weights, strict=True), start=2):
            for name, values in zip(("codes", "shares", "weights"), parts, strict=True):
                setattr(self, f"{name}_{n}", torch.from_numpy(values))
        return counts, found

    def forward(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """tokens (batch, seq) -> log-probabilities (batch, seq, vocab) in float32, -inf where there is none.

        positions: (batch, seq) of each token in its own document, where a sequence holds several; none sees another.
        """
        levels = [(n, contexts.flatten()) for n, contexts in self._contexts(tokens, positions)]
        out = torch.empty((tokens.numel(), self.vocab_size), dtype=torch.float32, device=tokens.device)
        at_once = max(1, AT_ONCE // self.vocab_size)
        for start in range(0, len(out), at_once):
            part = slice(start, start + at_once)
            self._fill(out[part], [(n, contexts[part]) for n, contexts in levels])
        return out.log_().view(*tokens.shape, self.vocab_size)

    def target_log_probabilities(self, tokens: Tensor, targets: Tensor, positions: Tensor | None = None) -> Tensor:
        """Of the target after each token alone, (batch, seq) in float64."""
        found = torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)
        left = torch.ones_like(found)
        for n, contexts in self._contexts(tokens, positions):
            place = self._find(n, contexts, targets)
            if len(shares := self._of("shares", n)):
                found += left * torch.where(place >= 0, shares[place.clamp(min=0)], 0)
            left *= self._left(n, contexts)
        return (found + left * self.base[targets]).log()

    def score_targets(self, tokens: Tensor, targets: Tensor, positions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Log-probability in float64 of the target after each token, and whether it is the likeliest: (batch, seq)."""
        if not self._choices or self._choices[0].device != tokens.device:
            self._choices = self._first_choices()
        choice = self.base.argmax().expand_as(targets)
        for n, contexts in reversed(self._contexts(tokens, positions)):
            if len(choices := self._choices[n - 2]):
                choice = torch.where(contexts >= 0, choices[contexts.clamp(min=0)], choice)
        return self.target_log_probabilities(tokens, targets, positions), choice == targets

    def _contexts(self, tokens: Tensor, positions: Tensor | None) -> list[tuple[int, Tensor]]:
        """For each order n from the highest to 2, id of the n - 1 tokens up to each, (batch, seq): -1 where they were
        never seen, or reach out of the window or the document, or aren't to be used."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        reach = (places.expand_as(tokens) if positions is None else positions) + 1  # tokens up to each, itself included
        last_cut = torch.where(tokens == self.cut, places, -1).cummax(dim=1).values
        reach = torch.where(last_cut >= 0, torch.minimum(reach, places - last_cut + 1), reach)
        ids, found = tokens, []
        for n in range(2, self.order + 1):
            if n > 2:
                before = torch.nn.functional.pad(ids[:, :-1], (1, 0), value=-1)
                ids = self._find(n - 1, before, tokens).masked_fill(reach < n - 1, -1)
            longest = (reach == n - 1) if n < self.order else (reach >= n - 1)
            used = ids if self.config.interpolated else ids.masked_fill(~longest, -1)
            found.append((n, used))
        return found[::-1]

    def _fill(self, out: Tensor, levels: list[tuple[int, Tensor]]) -> None:
        """Put the probabilities after each context, (positions, vocab), into out."""
        left = torch.ones(len(out), dtype=torch.float64, device=out.device)
        rows = torch.arange(len(out), device=out.device)
        added = []
        for n, contexts in levels:
            codes, known = self._of("codes", n), contexts >= 0
            first = contexts.clamp(min=0) * self.vocab_size
            starts = torch.searchsorted(codes, first)  # of the n-grams that begin with each context
            lengths = (torch.searchsorted(codes, first + self.vocab_size) - starts) * known
            place = (starts - lengths.cumsum(0) + lengths).repeat_interleave(lengths)  # (n-grams,)
            place += torch.arange(len(place), device=out.device)
            cells = (rows * self.vocab_size - first).repeat_interleave(lengths) + codes[place]
            added.append((cells, self._of("shares", n)[place].float() * left.float().repeat_interleave(lengths)))
            left = left * self._left(n, contexts)
        torch.mul(left[:, None].float(), self.base.float(), out=out)
        flat = out.view(-1)
        for cells, shares in added:  # none of them twice
            flat[cells] = flat[cells] + shares

    def _first_choices(self) -> list[Tensor]:
        """For each order from 2 on the likeliest token after each of its contexts, by id; of equal ones the first.

        That of a context is the likeliest of those seen after it, or that of the context without its first token: the
        others have less there too, and nothing is added to them here.
        """
        choices: list[Tensor] = []
        lower, top, choice = self.base, self.base.max().expand(1), self.base.argmax().expand(1)
        shorter = torch.zeros_like(self.base, dtype=torch.int64)  # id of each context without its first token
        for n in range(2, self.order + 1):
            codes, weights = self._of("codes", n), self._of("weights", n)
            contexts = codes // self.vocab_size
            tokens = codes - contexts * self.vocab_size
            without_first = tokens if n == 2 else self._find(n - 1, shorter[contexts], tokens)
            if self.config.interpolated:
                below, top, choice = lower[without_first], top[shorter], choice[shorter]
            else:
                below = self.base[tokens]
                top, choice = self.base.max().expand_as(weights), self.base.argmax().expand_as(weights)
            p = self._of("shares", n) + weights[contexts] * below
            inherited = weights * top
            top = inherited.scatter_reduce(0, contexts, p, "amax")
            choice = torch.where(inherited == top, choice, self.vocab_size)
            choice = choice.scatter_reduce(0, contexts, tokens.where(p == top[contexts], self.vocab_size), "amin")
            choices.append(choice)
            lower, shorter = p, without_first
        return choices

    def _left(self, n: int, contexts: Tensor) -> Tensor:
        """The weight that each context leaves to the next shorter one."""
        weights = self._of("weights", n)
        if not len(weights):
            return torch.ones_like(contexts, dtype=torch.float64)
        return torch.where(contexts >= 0, weights[contexts.clamp(min=0)], 1)

    def _find(self, n: int, contexts: Tensor, tokens: Tensor) -> Tensor:
        """Id of each n-gram that a token makes with the context before it; -1 where it was never seen."""
        codes = self._of("codes", n)
        if not len(codes):
            return torch.full_like(tokens, -1)
        wanted = torch.where(contexts >= 0, contexts * self.vocab_size + tokens, -1)
        place = torch.searchsorted(codes, wanted).clamp(max=len(codes) - 1)
        return place.where(codes[place] == wanted, -1)

    def _of(self, name: str, n: int) -> Tensor:
        return self.get_buffer(f"{name}_{n}")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Buffers get the sizes of those that are loaded, once these have been found to be a trie's."""
        given = {name: state_dict[f"{prefix}{name}"] for name in self._buffers if f"{prefix}{name}" in state_dict}
        if given.keys() == self._buffers.keys():
            wrong = self._wrong(given)
            if wrong:
                args[-1].append(f"{wrong}; they are no n-gram model's")
                return
            self._choices = []
            for name, tensor in given.items():
                setattr(self, name, torch.empty_like(tensor, device=self.base.device))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _wrong(self, given: dict[str, Tensor]) -> str:
        """What keeps tensors from being these buffers, "" where nothing does: with wrong ones, forward() would read
        beyond their ends."""
        for name, tensor in given.items():
            own = self.get_buffer(name)
            if tensor.dtype != own.dtype or tensor.dim() != own.dim():
                return f"{name} is {tensor.dtype} with {tensor.dim()} dimensions"
            probabilities = tensor.dtype == torch.float64
            if probabilities and not bool(((tensor >= 0) & (tensor <= 1 + 1e-9)).all()):
                return f"{name} holds what isn't a probability"
        if len(given["base"]) != self.vocab_size or not -1 <= int(given["cut"]) < self.vocab_size:
            return f"base or cut isn't of {self.vocab_size} tokens"
        n_contexts = self.vocab_size
        for n in range(2, self.order + 1):
            codes = given[f"codes_{n}"]
            if (len(given[f"shares_{n}"]), len(given[f"weights_{n}"])) != (len(codes), n_contexts):
                return f"shares_{n} or weights_{n} isn't of the length of codes"
            if len(codes) and not (
                int(codes[0]) >= 0
                and int(codes[-1]) < n_contexts * self.vocab_size
                and bool((codes[1:] > codes[:-1]).all())
            ):
                return f"codes_{n} isn't sorted, or out of range"
            n_contexts = len(codes)
        return ""
