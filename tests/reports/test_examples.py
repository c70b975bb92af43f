from __future__ import annotations

import math
import random
import re
from html.parser import HTMLParser

import pytest

from lmexp.reports.examples import MOST_CHARACTERS, Example, best_and_worst, section

HOSTILE = "</pre><script>alert(1)</script>\u202e\x1b[2J"


def examples(scores: list[float | None], logprobs: list[float | None] | None = None) -> list[Example]:
    given = logprobs or [None] * len(scores)
    return [
        Example(sample_id=f"s{i:04}", score=score, logprob=logprob)
        for i, (score, logprob) in enumerate(zip(scores, given, strict=True))
    ]


def ids(found: object) -> list[str]:
    return [example.sample_id for example in found]  # type: ignore[attr-defined]


@pytest.mark.parametrize("n", [1, 2, 5, 99, 100, 101, 1000])
@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_extremes_are_those_of_a_full_sort_for_any_order(n: int, higher_is_better: bool) -> None:
    draw = random.Random(n)
    samples = examples([draw.choice([0.0, 0.5, 1.0]) for _ in range(n)], [-draw.random() for _ in range(n)])
    sign = -1 if higher_is_better else 1
    in_order = sorted(samples, key=lambda s: (sign * (s.score or 0), -(s.logprob or 0), s.sample_id))
    chosen = best_and_worst(draw.sample(samples, n), k=3, higher_is_better=higher_is_better)
    n_best = min(3, math.ceil(n / 2))
    n_worst = min(3, n - n_best)
    assert ids(chosen.best) == ids(in_order[:n_best])
    assert ids(chosen.worst) == ids(in_order[::-1][:n_worst])
    assert (chosen.by, chosen.n) == ("score", n)


def test_samples_without_scores_are_ordered_by_logprob() -> None:
    chosen = best_and_worst(examples([None] * 4, [-3.0, -1.0, None, math.nan]))
    assert (ids(chosen.best), ids(chosen.worst), chosen.by, chosen.n) == (["s0001"], ["s0000"], "logprob", 2)


def test_samples_without_either_are_left_out() -> None:
    chosen = best_and_worst(examples([None, math.nan, 0.5, math.inf], [-1.0, -1.0, None, -1.0]))
    assert (ids(chosen.best), chosen.by, chosen.n) == (["s0002"], "score", 1)
    nothing = best_and_worst(examples([None, math.nan]))
    assert (nothing.best, nothing.worst, nothing.by, nothing.n) == ([], [], "", 0)
    assert "No sample has a score or a logprob." in section({"a": nothing})


def test_long_text_is_cut_in_the_middle_and_the_cut_is_counted() -> None:
    text = "a" * MOST_CHARACTERS + "b" * MOST_CHARACTERS
    html = section({"e": best_and_worst([Example(sample_id="s", input=text, target="short", score=1.0)])})
    assert f"{MOST_CHARACTERS:,} characters left out" in html
    (start,) = re.findall(r"<pre>(a+)<span", html)
    (end,) = re.findall(r"</span>(b+)</pre>", html)
    assert len(start) + len(end) == MOST_CHARACTERS
    assert "<pre>short</pre>" in html


def test_an_empty_prediction_is_said_to_be_empty() -> None:
    html = section({"e": best_and_worst([Example(sample_id="s", target="b", score=0.0)])})
    assert '<dt>prediction</dt><dd><p class="soft small">empty</p>' in html
    assert "<dt>input</dt>" not in html


def test_all_text_of_a_sample_is_shown_and_stays_text() -> None:
    class Tags(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: set[str] = set()
            self.text = ""

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.tags.add(tag)

        def handle_data(self, data: str) -> None:
            self.text += data

    one = Example(
        sample_id=HOSTILE, slice=HOSTILE, input=HOSTILE, prediction=HOSTILE, target=HOSTILE, score=0.25, logprob=-2.0
    )
    page = Tags()
    page.feed(section({HOSTILE: best_and_worst([one])}))
    assert page.tags == {"h3", "h4", "p", "article", "dl", "dt", "dd", "pre"}
    assert page.text.count("</pre><script>alert(1)</script>[U+202E][U+001B][2J") == 6
    assert "score 0.2500 · logprob -2.000 nats" in page.text
    assert "\x1b" not in page.text
