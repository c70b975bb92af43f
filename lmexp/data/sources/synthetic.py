"""Documents made by a rule, so that it is known what a model could learn of them.

Document i is a function of the settings and i alone. It comes from numpy's Philox, a generator that counts: key and
counter are the seed and i, and its raw numbers are the same in every version of numpy.
"""

from __future__ import annotations

import functools
import itertools
import math
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmexp.data.config import SyntheticConfig
from lmexp.data.sources import base
from lmexp.data.sources.base import ALL, Bad, Source, Unit

LETTERS = "abcdefghijklmnopqrstuvwxyz"
DOCUMENTS, CHAIN = 0, 1
"""Which sequence of numbers of a seed: those of the documents, and those of the chain."""

Floats = NDArray[np.float64]


class SyntheticSource(Source):
    """As many documents of a rule as are asked for. A unit is a range of them."""

    def __init__(self, config: SyntheticConfig) -> None:
        self.config = config
        self.where = f"data=synthetic data.rule={config.rule}"

    def units(self) -> list[Unit]:
        n_documents, n_bytes = self.config.n_documents, self._bytes_per_document()
        step = max(1, int(base.UNIT_BYTES / n_bytes))
        ranges = [(start, min(start + step, n_documents)) for start in range(0, n_documents, step)]
        return [Unit(ALL, (), start, stop, round((stop - start) * n_bytes)) for start, stop in ranges]

    def read(self, unit: Unit) -> Iterator[str | Bad]:
        most = self.config.max_document_bytes
        for i in range(unit.start, self.config.n_documents if unit.stop is None else unit.stop):
            text = self.document(i)
            if len(text) > most:
                reason = f"too long: {len(text):,} bytes, more than data.max_document_bytes={most}; raise that"
                yield Bad(reason, self.where, i + 1)
            else:
                yield text

    def identity(self) -> Any:
        config = self.config
        return [config.rule, config.generator_seed, config.n_documents, *self._lengths(), config.n_symbols]

    def facts(self) -> dict[str, Any]:
        """Entropies in bits, exact but for rounding.

        bits_per_document: of the whole document, its end included: what <eos> costs is what the length tells.
        bits_per_byte: the same by the mean length, the least that any model can reach on average.
        markov also has entropy_rate, which bits_per_byte nears as documents become long, since a symbol is a byte; and
        what stands beside it in a document: first_symbol_bits instead of one entropy_rate, and length_bits, once.
        """
        bits, n_bytes = self._bits_per_document(), self._bytes_per_document()
        facts = {"bits_per_document": bits, "bytes_per_document": n_bytes, "bits_per_byte": bits / n_bytes}
        if self.config.rule == "markov":
            chain = self._chain
            facts["entropy_rate"] = chain.entropy_rate
            facts |= {"first_symbol_bits": _entropy(chain.stationary), "length_bits": self._length_bits()}
        return facts

    def document(self, i: int) -> str:
        """Document number i, from 0."""
        config = self.config
        numbers = _numbers(config.generator_seed, DOCUMENTS, i)
        if config.rule == "commands":
            commands = all_commands()
            return commands[int(next(numbers) * len(commands))]
        shortest, longest = self._lengths()
        length = shortest + int(next(numbers) * (longest - shortest + 1))
        if config.rule == "markov":
            return self._chain.sample(itertools.islice(numbers, length))
        text = "".join(LETTERS[int(u * config.n_symbols)] for u in itertools.islice(numbers, length))
        return f"{text}|{text if config.rule == 'copy' else text[::-1]}"

    @functools.cached_property
    def _chain(self) -> Chain:
        return Chain.draw(self.config.n_symbols, self.config.generator_seed)

    def _lengths(self) -> tuple[int, int]:
        return self.config.min_length, self.config.max_length

    def _length_bits(self) -> float:
        shortest, longest = self._lengths()
        return math.log2(longest - shortest + 1)

    def _bits_per_document(self) -> float:
        mean = sum(self._lengths()) / 2
        if self.config.rule == "commands":
            return math.log2(len(all_commands()))
        if self.config.rule == "markov":
            chain = self._chain
            return self._length_bits() + _entropy(chain.stationary) + (mean - 1) * chain.entropy_rate
        return self._length_bits() + mean * math.log2(self.config.n_symbols)

    def _bytes_per_document(self) -> float:
        mean = sum(self._lengths()) / 2
        if self.config.rule == "commands":
            return sum(map(len, all_commands())) / len(all_commands())
        return mean if self.config.rule == "markov" else 2 * mean + 1


class Chain:
    """A Markov chain of letters: each depends on the one before it, the first has the stationary distribution.

    transitions: (symbols, symbols) probability of each letter after each.
    """

    def __init__(self, transitions: Floats) -> None:
        n = len(transitions)
        self.transitions = transitions
        # The stationary distribution: unchanged by a step, which is n equations of rank n - 1, and its sum is 1.
        equations = np.vstack([transitions.T - np.eye(n), np.ones(n)])
        self.stationary: Floats = np.linalg.lstsq(equations, np.append(np.zeros(n), 1.0), rcond=None)[0]
        self.entropy_rate = float(sum(p * _entropy(row) for p, row in zip(self.stationary, transitions, strict=True)))
        """Bits per symbol that a long text has."""
        self._first = _borders(self.stationary)
        self._next = [_borders(row) for row in transitions]

    @classmethod
    def draw(cls, n_symbols: int, seed: int) -> Chain:
        """Each letter's successors are drawn from all distributions alike, Dirichlet(1, ..., 1): the gaps between
        sorted uniform numbers have it."""
        rows = []
        for symbol in range(n_symbols):
            cuts = sorted(itertools.islice(_numbers(seed, CHAIN, symbol), n_symbols - 1))
            rows.append(np.diff([0.0, *cuts, 1.0]))
        return cls(np.array(rows))

    def sample(self, numbers: Iterator[float]) -> str:
        """A letter for each uniform number."""
        borders, letters = self._first, []
        for u in numbers:
            symbol = bisect_right(borders, u)
            letters.append(LETTERS[symbol])
            borders = self._next[symbol]
        return "".join(letters)


def _borders(probabilities: Floats) -> list[float]:
    """Where the share of each symbol but the last ends in 0 to 1."""
    borders: list[float] = np.cumsum(probabilities)[:-1].tolist()
    return borders


def _entropy(probabilities: Floats) -> float:
    """In bits."""
    positive = probabilities[probabilities > 0]
    return float(-(positive * np.log2(positive)).sum())


def _numbers(seed: int, sequence: int, i: int) -> Iterator[float]:
    """Uniform numbers from 0 to below 1: those of document, or letter, i of a seed's sequence."""
    key = np.array([seed % (1 << 64), sequence], dtype=np.uint64)
    generator = np.random.Philox(key=key, counter=np.array([0, i, 0, 0], dtype=np.uint64))
    while True:
        yield from ((generator.random_raw(32) >> np.uint64(11)) * 2.0**-53).tolist()


@functools.cache
def all_commands() -> list[str]:
    """Every command of SCAN and its actions, by the grammar of Lake and Baroni (2018), appendix: 20,910."""
    phrases = [
        (f"{words}{suffix}", actions * times)
        for words, actions in _simple_commands()
        for suffix, times in (("", 1), (" twice", 2), (" thrice", 3))
    ]
    commands = [*phrases]
    for (first, actions), (second, more) in itertools.product(phrases, repeat=2):
        commands += [(f"{first} and {second}", actions + more), (f"{first} after {second}", more + actions)]
    return [f"{words} = {' '.join(actions)}" for words, actions in commands]


def _simple_commands() -> Iterator[tuple[str, list[str]]]:
    """Commands without twice, thrice, and, after."""
    for verb in ("walk", "look", "run", "jump", "turn"):
        action = [] if verb == "turn" else [verb.upper()]
        if action:
            yield verb, action
        for side, turn in (("left", "LTURN"), ("right", "RTURN")):
            yield f"{verb} {side}", [turn, *action]
            yield f"{verb} opposite {side}", [turn, turn, *action]
            yield f"{verb} around {side}", [turn, *action] * 4
