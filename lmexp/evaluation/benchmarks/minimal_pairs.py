"""Pairs of texts that differ in one thing: which one the model finds likelier, as a whole.

With a right one, as in BLiMP (Warstadt et al. 2020, arXiv:1912.00582): how often that is the likelier. Without, as in
CrowS-Pairs (Nangia et al. 2020, arXiv:2010.00133): how often the first is, which without a bias would be half of the
time. There this is lm-eval's crows_pairs, made for causal models: the likelihood of the whole text. The paper's own
figure is for masked models, the pseudo-likelihood of the words that both texts share, and isn't comparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmexp.errors import DataError
from lmexp.evaluation.benchmarks.benchmark import Asked, Benchmark, Item, by_sample
from lmexp.evaluation.benchmarks.config import MinimalPairsConfig
from lmexp.evaluation.samples import NUMBER, Figure
from lmexp.evaluation.scoring import Likelihoods
from lmexp.evaluation.templates import Template

RIGHT = (
    Figure(
        name="acc",
        definition="share of pairs whose right text has the higher log-probability (equal ones don't count)",
        numerator="score",
        binary=True,
        higher_is_better=True,
    ),
    Figure(
        name="margin",
        definition="mean log-probability of the right text minus that of the wrong one",
        numerator="margin",
        unit="nats",
        higher_is_better=True,
    ),
)
NEUTRAL = (
    Figure(
        name="pct_first",
        definition="share of pairs whose first text has the higher log-probability (equal ones don't count); 0.5 is no "
        "preference. The likelihood of whole texts under a causal model, not the pseudo-likelihood of masked models",
        numerator="score",
        binary=True,
    ),
    Figure(
        name="likelihood_diff",
        definition="mean absolute difference of the log-probabilities of the two texts",
        numerator="distance",
        unit="nats",
    ),
)


class MinimalPairs(Benchmark):
    """Scores both texts of every pair, each by itself."""

    what = "pair"
    config: MinimalPairsConfig

    def ask(self, name: str, items: list[Item]) -> list[Asked]:
        first = Template(f"evaluation.{name}.first", self.config.first)
        second = Template(f"evaluation.{name}.second", self.config.second)
        return [_pair(item, first.one(item.record), second.one(item.record), name) for item in items]

    def figures(self) -> tuple[Figure, ...]:
        return NEUTRAL if self.config.neutral else RIGHT

    def definition(self, n_items: int) -> str:
        return f"{self.source(n_items)}; first {self.config.first}, second {self.config.second}, each a text by itself"

    def options(self) -> dict[str, Any]:
        return {"neutral": self.config.neutral}

    def columns(self, asked: Sequence[Asked], found: Likelihoods) -> tuple[dict[str, Any], dict[str, Any]]:
        logprobs = np.array(by_sample(asked, found.logprob.tolist()))  # (n_pairs, 2)
        with np.errstate(invalid="ignore"):
            margin = logprobs[:, 0] - logprobs[:, 1]  # nan where both are -inf
        likelier = np.where(margin > 0, 0, np.where(margin < 0, 1, 2))
        return {
            "prediction": [(*one.choices, "")[number] for one, number in zip(asked, likelier.tolist(), strict=True)],
            "target": ["" if self.config.neutral else one.choices[one.target] for one in asked],
            "score": np.where(np.isnan(margin), np.nan, margin > 0),
            "logprob": logprobs[:, 0],
            "logprobs": logprobs.tolist(),
            "n_tokens": [tokens[0] for tokens in by_sample(asked, found.n_tokens.tolist())],
            "n_bytes": [len(one.choices[0].encode()) for one in asked],
            "margin": margin,
            "distance": np.abs(margin),
        }, {"margin": NUMBER, "distance": NUMBER}


def _pair(item: Item, first: str, second: str, name: str) -> Asked:
    if not first or not second or first == second:
        raise DataError(
            f"{item.record.where}: evaluation.{name} compares {first!r} and {second!r}; expected two different texts"
        )
    return Asked(item=item, pairs=(("", first), ("", second)), choices=(first, second), target=0)
