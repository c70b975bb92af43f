"""What is drawn for an item: solved items to show before it, and orders of its choices.

Everything follows from hashes of seed and id, so it is the same for any order of the items, and in every process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lmexp.errors import DataError
from lmexp.evaluation.benchmarks.benchmark import hash_of


@dataclass(frozen=True, slots=True)
class Shot:
    """A solved item, as each prompt writes it."""

    id: str
    question: str
    """What tells the same item apart in another file: its prompt."""
    texts: dict[str, str]
    """Name of the prompt -> prompt and answer."""


class Shots:
    """Solved items to draw from."""

    def __init__(self, option: str, shots: Sequence[Shot]) -> None:
        self.option = option
        """What an error calls their number, e.g. evaluation.csqa.n_shots."""
        self._shots = sorted(shots, key=lambda shot: shot.id)  # so that their order in the file doesn't matter

    def draw(self, n: int, *, seed: int, sample_id: str, question: str) -> list[Shot]:
        """n different ones for an item, never one that asks the same question."""
        found: dict[int, Shot] = {}
        tried: set[int] = set()
        attempt = 0
        while len(found) < n:
            if len(tried) == len(self._shots):
                raise DataError(
                    f"{self.option}={n}: for the item {sample_id} there are only {len(found)} others to show; lower it"
                )
            number = hash_of("shot", seed, sample_id, attempt) % len(self._shots)
            attempt += 1
            if number not in tried:
                tried.add(number)
                if self._shots[number].question != question:
                    found[number] = self._shots[number]
        return list(found.values())


def orders(n_choices: int, n_orders: int, sample_id: str, option: str) -> list[tuple[int, ...]]:
    """Different orders of the choices of an item: which of them stands at each place. The first is the given one."""
    if n_orders > math.factorial(n_choices):
        raise DataError(
            f"{option}={n_orders}: the item {sample_id} has {n_choices} choices, which have only "
            f"{math.factorial(n_choices)} orders; lower it"
        )
    found = [tuple(range(n_choices))]
    attempt = 0
    while len(found) < n_orders:
        key = attempt
        order = tuple(sorted(range(n_choices), key=lambda i: hash_of("order", sample_id, key, i)))
        attempt += 1
        if order not in found:
            found.append(order)
    return found
