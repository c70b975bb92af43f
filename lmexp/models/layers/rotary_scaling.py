"""Rotary frequencies for sequences longer than those that a model was first trained on.

linear: position interpolation (Chen et al. 2023, arXiv:2306.15595), all wavelengths are stretched.
llama3: long wavelengths are stretched and short ones kept, as Llama 3.1 has it (arXiv:2407.21783; the constants are
    those of its code, the same in every release).
yarn: NTK-by-parts and a temperature of attention (Peng et al. 2023, arXiv:2309.00071), with the paper's constants.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

LLAMA3_LOW, LLAMA3_HIGH = 1.0, 4.0
"""A wavelength that fits fewer times than this into the original length is stretched; more often, kept."""
YARN_SLOW, YARN_FAST = 1.0, 32.0
"""Turns within the original length: features with fewer are stretched, with more kept."""


class RotaryScaling(NamedTuple):
    """How frequencies are stretched."""

    kind: str
    """linear, llama3 or yarn."""
    factor: float
    """How many times as long the sequences become."""
    original_length: int | None
    """Longest sequence of the first training, in tokens; linear doesn't read it."""


def frequencies(d_head: int, base: float, scaling: RotaryScaling | None = None) -> tuple[Tensor, float]:
    """Angle per position of each pair of features, (d_head / 2,) in float64 on the CPU; and what cosines and sines
    are multiplied by."""
    exponents = torch.arange(0, d_head, 2, dtype=torch.float64, device="cpu") / d_head
    plain = base**-exponents
    if scaling is None:
        return plain, 1.0
    stretched = plain / scaling.factor
    if scaling.kind == "linear":
        return stretched, 1.0
    assert scaling.original_length is not None
    if scaling.kind == "llama3":
        turns = scaling.original_length * plain / (2 * math.pi)
        kept = ((turns - LLAMA3_LOW) / (LLAMA3_HIGH - LLAMA3_LOW)).clamp(0, 1)
        return kept * plain + (1 - kept) * stretched, 1.0
    low, high = (_pair_with_turns(turns, d_head, base, scaling.original_length) for turns in (YARN_FAST, YARN_SLOW))
    first, last = max(math.floor(low), 0), min(math.ceil(high), d_head - 1)
    pairs = torch.arange(d_head // 2, dtype=torch.float64, device="cpu")
    kept = 1 - ((pairs - first) / max(last - first, 0.001)).clamp(0, 1)
    return kept * plain + (1 - kept) * stretched, 0.1 * math.log(scaling.factor) + 1


def _pair_with_turns(turns: float, d_head: int, base: float, length: int) -> float:
    """Which pair of features turns this often within a length; between two pairs, a fraction."""
    return d_head * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(base))
