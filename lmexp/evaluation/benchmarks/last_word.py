"""Texts whose last word is asked for, as in LAMBADA (Paperno et al. 2016, arXiv:1606.06031).

The figures are those of lm-eval's lambada_openai: the word with the space before it follows the rest of the text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lmexp.errors import DataError
from lmexp.evaluation.benchmarks.benchmark import Asked, Benchmark, Item
from lmexp.evaluation.benchmarks.config import LastWordConfig
from lmexp.evaluation.samples import Figure
from lmexp.evaluation.scoring import Likelihoods
from lmexp.evaluation.templates import Template

FIGURES = (
    Figure(
        name="acc",
        definition="share of texts where every token of the last word, given those before it, was the model's first "
        "choice",
        numerator="score",
        binary=True,
        higher_is_better=True,
    ),
    Figure(
        name="perplexity",
        definition="exp of the mean over texts of the negative log-probability of the last word",
        numerator="logprob",
        scale=-1.0,
        exp=True,
        higher_is_better=False,
    ),
    Figure(
        name="bits_per_byte",
        definition="negative log-probability of the last words / (their UTF-8 bytes, with the space before, x ln 2)",
        numerator="logprob",
        denominator="n_bytes",
        scale=-1.0 / math.log(2),
        unit="bits per byte",
        higher_is_better=False,
    ),
)


class LastWord(Benchmark):
    """Scores the last word of every text, after the rest."""

    what = "text"
    config: LastWordConfig

    def ask(self, name: str, items: list[Item]) -> list[Asked]:
        template = Template(f"evaluation.{name}.text", self.config.text)
        return [_asked(item, template.one(item.record)) for item in items]

    def figures(self) -> tuple[Figure, ...]:
        return FIGURES

    def definition(self, n_items: int) -> str:
        return f"{self.source(n_items)}; the last word is what follows the last space"

    def columns(self, asked: Sequence[Asked], found: Likelihoods) -> tuple[dict[str, Any], dict[str, Any]]:
        score = np.where(np.isnan(found.logprob), np.nan, found.n_first == found.n_tokens)
        return {
            "prediction": [
                one.choices[0] if right == 1 else "" for one, right in zip(asked, score.tolist(), strict=True)
            ],
            "target": [one.choices[0] for one in asked],
            "score": score,
            "logprob": found.logprob,
            "logprobs": [one.tolist() for one in found.logprobs],
            "n_tokens": found.n_tokens,
            "n_bytes": [len(one.pairs[0][1].encode()) for one in asked],
        }, {}


def _asked(item: Item, text: str) -> Asked:
    before, space, word = text.rpartition(" ")
    if not space or not before or not word:
        raise DataError(f"{item.record.where}: {text[-80:]!r} has no last word after a space; expected some words")
    return Asked(item=item, input=before, pairs=((before, f" {word}"),), choices=(word,), target=0)
