"""From values to places: linear and logarithmic scales, round ticks, and numbers as text."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

Point = tuple[float, float]
SMALLEST_RANGE = 1e-300


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values between low and high to pixels between start and stop."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False
    """Whether equal factors lie equally far apart."""

    def __call__(self, value: float) -> float:
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        return self.start + ((math.log(value) if self.log else value) - low) / (high - low) * (self.stop - self.start)


def covering(values: Iterable[float], start: float, stop: float, *, log: bool = False) -> tuple[Scale, list[float]]:
    """A scale with a little room around all values, and its ticks."""
    low, high = extent(values)
    if log:
        if not high / low > 1.001:
            low, high = low / 2, high * 2
        room = (high / low) ** 0.04
        low, high = low / room, high * room
        return Scale(low, high, start, stop, log=True), log_ticks(low, high)
    ticks = round_ticks(*padded(low, high), cover=True)
    return Scale(ticks[0], ticks[-1], start, stop), ticks


def extent(values: Iterable[float]) -> Point:
    """The smallest and the largest value."""
    known = list(values)
    return min(known), max(known)


def padded(low: float, high: float, *, pad_ends: bool = True) -> Point:
    """low and high, moved apart where they are (nearly) equal."""
    if high - low > max(1e-9 * max(abs(low), abs(high)), SMALLEST_RANGE):
        return low, high
    half = abs(low) * 0.1 if abs(low) > SMALLEST_RANGE * 100 else 1.0
    return (low - half, high + half) if pad_ends else (low, low + max(1.0, half))


def round_ticks(low: float, high: float, *, n: int = 5, cover: bool = False) -> list[float]:
    """About n round numbers (1, 2 or 5 times a power of ten apart) from low to high; ArithmeticError where they are too
    large for that.

    cover: the first lies at low or below and the last at high or above; otherwise all lie inside.

    >>> round_ticks(0, 2000), round_ticks(1.43, 5.6, cover=True)
    ([0.0, 500.0, 1000.0, 1500.0, 2000.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    """
    raw = (high - low) / n
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if raw <= power * factor * (1 + 1e-9))
    slack = 1e-9
    if cover:
        first, last = math.floor(low / step + slack), math.ceil(high / step - slack)
    else:
        first, last = math.ceil(low / step - slack), math.floor(high / step + slack)
    digits = max(0, -math.floor(math.log10(step)))
    return [round(index * step, digits) + 0.0 for index in range(first, last + 1)]


def power_ticks(low: float, high: float, *, n: int = 6) -> list[float]:
    """At most n powers of ten from low to high; of two where there are fewer than three of these.

    >>> power_ticks(1, 1e6), power_ticks(30, 300)
    ([1.0, 10.0, 100.0, 1000.0, 10000.0, 100000.0, 1000000.0], [32.0, 64.0, 128.0, 256.0])
    """
    for base in (10.0, 2.0):
        first = math.ceil(math.log(low) / math.log(base) - 1e-9)
        last = math.floor(math.log(high) / math.log(base) + 1e-9)
        if last - first >= 2:
            break
    every = max(1, math.ceil((last - first) / n))
    return [base**power for power in range(first, last + 1, every)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers from low to high for a logarithmic scale: 1, 2 and 5 times powers of ten, more of them where that
    is fewer than three, and powers alone where it is more than eight.

    >>> log_ticks(0.8, 45), log_ticks(1.5, 4.3), log_ticks(1e-3, 1e3)
    ([1.0, 2.0, 5.0, 10.0, 20.0], [1.5, 2.0, 2.5, 3.0, 3.5, 4.0], [0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0])
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found = [float(f"{digit}e{power}") for power in range(first, last + 1) for digit in (1, 2, 5)]
    found = [tick for tick in found if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
    if len(found) > 8:
        return power_ticks(low, high)
    return found if len(found) > 3 else round_ticks(low, high, n=8)


def number_text(value: float) -> str:
    """A number for a tick or a label.

    >>> [number_text(value) for value in (2500.0, 1_500_000.0, 0.0003, 2e-7, 1.52345)]
    ['2,500', '1.5M', '0.0003', '2e-07', '1.523']
    """
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if suffix == 'k' else limit):.4g}{suffix}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
