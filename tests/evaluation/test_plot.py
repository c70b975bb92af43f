from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from lmexp.evaluation.plot import KINDS, MOST_POINTS, NAME_KINDS, Plot, Reference, Series, plot_from


def example(kind: str = "curve", **changes: Any) -> Plot:
    """A small plot of a kind."""
    series = Series(label="model", x=[0.25, 0.5], y=[1, 2.5], n=[3, 4])
    if kind in NAME_KINDS:
        series = Series(label="model", x=["news", "code"], y=[1, 2.5], n=[3, 4])
    if kind not in ("dots", "strip"):
        series.low, series.high = [0.5, 2.0], [1.5, 3.0]
    reference = Reference(label="chance", value=0.5)
    return Plot(
        **{"kind": kind, "title": "ü", "series": [series], "y_label": "y", "references": [reference], **changes}
    )


@pytest.mark.parametrize("kind", KINDS)
def test_plots_survive_json(kind: str) -> None:
    plot = example(kind, higher_is_better=False, x_unit="tokens")
    assert plot_from(json.loads(json.dumps(asdict(plot)))) == plot


def test_any_sequence_is_kept_as_a_list() -> None:
    series = Series(label="a", x=np.array([1.0, 2.0]), y=(1, 2))  # type: ignore[arg-type]
    assert plot_from(json.loads(json.dumps(asdict(example(series=[series]))))).series[0].y == [1, 2]


def changed(path: str, value: Any, kind: str = "curve") -> dict[str, Any]:
    """The JSON of an example with one entry replaced."""
    entry: Any = asdict(example(kind))
    *before, last = path.split(".")
    at = entry
    for key in before:
        at = at[int(key) if key.isdigit() else key]
    at[int(last) if last.isdigit() else last] = value
    return entry


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("text", "expected an object"),
        ([], "expected an object"),
        ({}, "series is None; expected a list"),
        ({"series": []}, "missing"),
        (changed("kind", "pie"), "kind is 'pie'; expected one of forest"),
        (changed("kind", ["curve"]), "expected one of forest"),
        (changed("title", 5), "plot title is 5; expected text"),
        (changed("title", "x" * 201), "200 characters at most"),
        (changed("more", 1), "unknown keys more"),
        (changed("log_x", "yes"), "true or false"),
        (changed("higher_is_better", 1), "true or false"),
        (changed("series", []), "0 series; expected 1 to"),
        (changed("series", {"0": 1}), "expected a list"),
        (changed("series.0", None), "expected an object"),
        (changed("series.0.label", None), "label is None; expected text"),
        (changed("series.0.x", ["a", "b"]), "x holds 'a'; expected finite"),
        (changed("series.0.x", [1, 2], "forest"), "a name in x is 1; expected text"),
        (changed("series.0.x", ["a", "a"], "bars"), "a name stands twice"),
        (changed("series.0.x", "ab"), "expected a list"),
        (changed("series.0.y", [1]), "y has 1 entries, and x has 2"),
        (changed("series.0.y", [1, math.nan]), "y holds nan"),
        (changed("series.0.y", [1, True]), "y holds True"),
        (changed("series.0.y", [1, 10**400]), "y holds 1000"),
        (changed("series.0.low", None), "low and high come together"),
        (changed("series.0.n", [1, -1]), "whole numbers from 0 on"),
        (changed("series.0.n", [1, 1.5]), "whole numbers from 0 on"),
        (changed("series.0.x", [0, 2], "reliability"), "between 0 and 1"),
        (changed("series.0.extra", 1), "unknown keys extra"),
        (changed("references.0.axis", "z"), "axis of a reference is 'z'; expected x or y"),
        (changed("references.0.axis", "x", "forest"), "expected y"),
        (changed("references.0.value", math.inf), "reference 'chance' holds inf"),
        (changed("references", [asdict(Reference(label="a", value=1))] * 9), "9 references"),
        (changed("series", [asdict(Series(label="a", x=[1.0], y=[1]))] * 9), "9 series"),
        (changed("series", [{"label": "a", "x": [], "y": []}]), "0 points"),
    ],
)
def test_what_is_no_plot_is_refused_with_a_reason(entry: Any, why: str) -> None:
    with pytest.raises((ValueError, TypeError), match=why):
        plot_from(entry)


def test_too_much_to_draw_is_refused() -> None:
    many = list(range(MOST_POINTS + 1))
    with pytest.raises(ValueError, match=r"4,001 points; expected 1 to 4,000: bin or thin them"):
        example(series=[Series(label="a", x=many, y=many)])
    with pytest.raises(ValueError, match="101 names; expected 100 at most"):
        example("forest", series=[Series(label="a", x=[str(i) for i in range(101)], y=many[:101])])


def test_a_logarithmic_axis_needs_positive_places() -> None:
    with pytest.raises(ValueError, match="log_x needs every x above 0"):
        example(series=[Series(label="a", x=[0, 1], y=[1, 2])], log_x=True)
    with pytest.raises(ValueError, match="references on x above 0"):
        example(references=[Reference(label="a", value=-1, axis="x")], log_x=True)


def test_dots_and_strips_have_no_intervals() -> None:
    with pytest.raises(ValueError, match="dots show values, not intervals"):
        example("dots", series=[Series(label="a", x=["a"], y=[1], low=[0], high=[2])])


def test_numpy_numbers_that_are_no_python_numbers_are_named() -> None:
    with pytest.raises(ValueError, match=r"array\.tolist\(\)"):
        example(series=[Series(label="a", x=[1], y=np.array([1], dtype=np.float32))])  # type: ignore[arg-type]
