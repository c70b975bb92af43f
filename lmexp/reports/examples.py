"""The best and the worst samples of an evaluation, with their text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite

from lmexp.evaluation.row import figure
from lmexp.reports.visible import cut_middle, shown

N_SHOWN = 3
MOST_CHARACTERS = 800


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """What is shown of a sample."""

    sample_id: str
    slice: str = ""
    input: str = ""
    prediction: str = ""
    target: str = ""
    score: float | None = None
    logprob: float | None = None
    """Log-probability in nats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """The best and the worst, each beginning with the most extreme one; no sample is in both."""

    best: Sequence[Example]
    worst: Sequence[Example]
    by: str
    """What they were chosen by: score or logprob; empty where no sample has either."""
    n: int
    """Of how many samples that have it."""


def best_and_worst(samples: Iterable[Example], *, k: int = N_SHOWN, higher_is_better: bool = True) -> Chosen:
    """The k best and the k worst samples by score, or by logprob where none has a score.

    Of equal scores, the higher logprob is better, then the smaller sample_id: the same for any order of samples.
    higher_is_better: whether a higher score is. One pass, with few samples in memory.
    """
    sign = -1.0 if higher_is_better else 1.0
    scored, unscored = _Extremes(k), _Extremes(k)
    for sample in samples:
        logprob = sample.logprob if sample.logprob is not None and isfinite(sample.logprob) else None
        if sample.score is not None and isfinite(sample.score):
            scored.add((sign * sample.score, inf if logprob is None else -logprob, sample.sample_id), sample)
        elif logprob is not None:
            unscored.add((-logprob, 0.0, sample.sample_id), sample)
    found, by = (scored, "score") if scored.n else (unscored, "logprob" if unscored.n else "")
    best, worst = found.ends()
    return Chosen(best=best, worst=worst, by=by, n=found.n)


class _Extremes:
    """The first k and the last k of what it is given, in the order of keys."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.n = 0
        self._kept: list[tuple[tuple[float, float, str], Example]] = []

    def add(self, key: tuple[float, float, str], example: Example) -> None:
        self.n += 1
        self._kept.append((key, example))
        if len(self._kept) >= 100 + 2 * self.k:
            self._kept = [*self._sorted()[: self.k], *self._sorted()[-self.k :]]

    def ends(self) -> tuple[list[Example], list[Example]]:
        """The first ones and, beginning with the last one, the last ones. Nothing is in both."""
        in_order = [example for _, example in self._sorted()]
        n_first = min(self.k, (len(in_order) + 1) // 2)
        n_last = min(self.k, len(in_order) - n_first)
        return in_order[:n_first], in_order[: len(in_order) - n_last - 1 : -1]

    def _sorted(self) -> list[tuple[tuple[float, float, str], Example]]:
        return sorted(self._kept, key=lambda entry: entry[0])


def section(chosen: Mapping[str, Chosen]) -> str:
    """The samples of each evaluation as HTML, all text escaped."""
    return "\n".join(_evaluation(name, one) for name, one in chosen.items())


def _evaluation(name: str, chosen: Chosen) -> str:
    title = f"<h3>{shown(name)}</h3>"
    if not chosen.by:
        return f'{title}<p class="soft">No sample has a score or a logprob.</p>'
    note = f'<p class="soft small">The ends of {chosen.n:,} samples in the order of their {chosen.by}.</p>'
    parts = [
        f"<h4>{heading}</h4>{''.join(_example(example) for example in examples)}"
        for heading, examples in (("Best", chosen.best), ("Worst", chosen.worst))
        if examples
    ]
    return f"{title}{note}{''.join(parts)}"


def _example(example: Example) -> str:
    told = [example.sample_id, f"slice {example.slice}" if example.slice else ""]
    told.append("" if example.score is None else f"score {figure(example.score)}")
    told.append("" if example.logprob is None else f"logprob {figure(example.logprob)} nats")
    head = shown(" · ".join(part for part in told if part))
    texts = (("input", example.input), ("prediction", example.prediction), ("target", example.target))
    pairs = "".join(f"<dt>{label}</dt><dd>{_text(text)}</dd>" for label, text in texts if text or label != "input")
    return f'<article class="example"><p class="small">{head}</p><dl class="texts">{pairs}</dl></article>'


def _text(text: str) -> str:
    """The text, with what is too much cut out of its middle."""
    if not text:
        return '<p class="soft small">empty</p>'
    start, n_cut, end = cut_middle(text, MOST_CHARACTERS)
    cut = f'<span class="cut"> … {n_cut:,} characters left out … </span>' if n_cut else ""
    return f"<pre>{shown(start)}{cut}{shown(end)}</pre>"
