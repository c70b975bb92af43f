"""Draws the plots of the report card."""

from __future__ import annotations

from lmexp.evaluation.plot import NAME_KINDS, Plot
from lmexp.reports.charts.names import draw_names
from lmexp.reports.charts.numbers import draw_numbers
from lmexp.reports.frame import framed
from lmexp.reports.visible import shown


def draw(plot: Plot) -> str:
    """A plot as an <svg> element; ArithmeticError where its numbers lie too far apart to be drawn."""
    return draw_names(plot) if plot.kind in NAME_KINDS else draw_numbers(plot)


def figure_of(plot: Plot) -> str:
    """A plot with its title as a <figure> element."""
    try:
        drawn = draw(plot)
    except ArithmeticError:
        drawn = '<p class="soft">It can\'t be drawn: its numbers are too large.</p>'
    return f"<figure><figcaption>{shown(plot.title)}</figcaption>{drawn}</figure>"


def page_of(plot: Plot) -> str:
    """A plot as an HTML page of its own."""
    return framed(shown(plot.title), [figure_of(plot)], "")
