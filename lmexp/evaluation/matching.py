"""Joins the samples tables of two sides, row by row; refuses those that weren't asked the same.

A side is one or several runs. Its tables are compared where all of them, and all of the other side's, scored a sample:
the others are told, never dropped in silence.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lmexp.errors import RunError
from lmexp.evaluation.samples import IDENTITY, Samples, columns_of

MOST_SHOWN = 5
"""Values or samples that a message names."""

Identity = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """The table of one run."""

    label: str
    """Of the run: "A", or "A2" where a side has several."""
    where: str
    """Its file, for messages."""
    samples: Samples


@dataclass(frozen=True, kw_only=True, slots=True)
class Unmatched:
    """Samples that couldn't be compared, since some runs didn't score them."""

    evaluation: str
    reference: str
    other: str
    missing_from: tuple[str, ...]
    """Labels of these runs."""
    samples: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Matched:
    """Tables of two sides with the same samples, in the same order."""

    reference: list[Table]
    other: list[Table]
    unmatched: list[Unmatched]

    @property
    def tables(self) -> list[Table]:
        """Of both sides."""
        return [*self.reference, *self.other]


def slim(samples: Samples) -> Samples:
    """Only the columns that a comparison reads: texts and log-probabilities may be large."""
    used = {name for figure in samples.header.figures for name in columns_of(figure)}
    wanted = [name for name in samples.table.column_names if name in {*IDENTITY, "cluster_id", *used}]
    return Samples(samples.header, samples.table.select(wanted))


def match(evaluation: str, reference: list[Table], other: list[Table], names: tuple[str, str]) -> Matched:
    """The samples that all runs of both sides scored. names: of the two sides, in what is unmatched.

    RunError where the runs weren't asked the same, a table names a sample twice, or they have no sample in common.
    """
    tables = [*reference, *other]
    check_alike(evaluation, tables)
    places = [_places(table) for table in tables]
    common = set(places[0]).intersection(*places[1:])
    if not common:
        example = "; ".join(f"{t.label} has {_text(next(iter(p)))}" for t, p in zip(tables, places, strict=True) if p)
        raise RunError(
            f"{evaluation}: {names[0]} and {names[1]} have no sample in common ({example or 'they are empty'}); "
            f"evaluate both on the same data"
        )
    order = sorted(common, key=repr)  # the same for any order of the rows
    joined = [
        replace(t, samples=Samples(t.samples.header, t.samples.table.take([rows[i] for i in order])))
        for t, rows in zip(tables, places, strict=True)
    ]
    _check_clusters(evaluation, joined)
    lacking: dict[tuple[str, ...], list[str]] = {}
    for identity in sorted(set().union(*places) - common, key=repr):
        missing = tuple(t.label for t, p in zip(tables, places, strict=True) if identity not in p)
        lacking.setdefault(missing, []).append(_text(identity))
    return Matched(
        reference=joined[: len(reference)],
        other=joined[len(reference) :],
        unmatched=[
            Unmatched(
                evaluation=evaluation,
                reference=names[0],
                other=names[1],
                missing_from=missing,
                samples=tuple(found),
            )
            for missing, found in lacking.items()
        ],
    )


def check_alike(evaluation: str, tables: Sequence[Table]) -> None:
    """RunError, with what differs, unless all runs were asked the same."""
    first = tables[0]
    for table in tables[1:]:
        one, two = ({**_facts(t.samples), **t.samples.header.key.task} for t in (first, table))
        differing = [key for key in {**one, **two} if (key in one, one.get(key)) != (key in two, two.get(key))]
        if differing:
            lines = [
                f"  {key}: {_short(one, key)} in {first.label}, {_short(two, key)} in {table.label}"
                for key in differing[:MOST_SHOWN]
            ]
            more = len(differing) - MOST_SHOWN
            lines += [f"  and {more} more"] if more > 0 else []
            found = "\n".join(lines)
            raise RunError(
                f"{evaluation}: {first.label} and {table.label} weren't asked the same\n{found}\n"
                f"  {first.label} is {first.where}\n  {table.label} is {table.where}\n"
                f"scores of different tasks can't be compared: evaluate both on the same data, with the same settings "
                f"of evaluation.{evaluation}, or name the evaluations to compare with --evaluation"
            )


def settings_that_differ(tables: Sequence[Table]) -> list[str]:
    """How the models were run, where not alike: "precision: 32-true (A), bf16-mixed (B)"."""
    settings = {table.label: table.samples.header.key.settings for table in tables}
    keys = dict.fromkeys(key for of_one in settings.values() for key in of_one)
    return [
        f"{key}: {', '.join(f'{_short(of_one, key)} ({label})' for label, of_one in settings.items())}"
        for key in keys
        if len({_short(of_one, key) for of_one in settings.values()}) > 1
    ]


def _facts(samples: Samples) -> dict[str, Any]:
    header = samples.header
    return {"kind of evaluation": header.kind, "cluster": header.cluster}


def _places(table: Table) -> dict[Identity, int]:
    """Row of each sample."""
    identities = table.samples.identities()
    places = {identity: row for row, identity in enumerate(identities)}
    if len(places) < len(identities):
        twice = [_text(identity) for identity, count in Counter(identities).items() if count > 1]
        raise RunError(
            f"{table.where}: {len(twice):,} samples stand in it twice ({', '.join(twice[:MOST_SHOWN])}), so they can't "
            f"be told apart; an evaluation gives each row its own {', '.join(IDENTITY)}"
        )
    return places


def _check_clusters(evaluation: str, tables: Sequence[Table]) -> None:
    first = np.array(tables[0].samples.values("cluster_id"), dtype=object)
    for table in tables[1:]:
        wrong = np.flatnonzero(first != np.array(table.samples.values("cluster_id"), dtype=object))
        if wrong.size:
            where = int(wrong[0])
            raise RunError(
                f"{evaluation}: {_text(tables[0].samples.identities()[where])} lies in the cluster "
                f"{first[where]!r} in {tables[0].label}, and in another one in {table.label}; "
                f"evaluate both with the same version of lmexp"
            )


def _text(identity: Identity) -> str:
    """
    >>> _text(("q7", 0, "", "", 0.0)), _text(("q7", 1, "p2", "typo", 0.5))
    ('q7', 'q7 (seed 1, p2, typo 0.5)')
    """
    sample, seed, prompt, perturbation, severity = identity
    more = [f"seed {seed}"] if seed else []
    more += [prompt] if prompt else []
    more += [f"{perturbation} {severity:g}"] if perturbation else []
    return f"{sample} ({', '.join(more)})" if more else str(sample)


def _short(facts: dict[str, Any], key: str) -> str:
    """A value for a message: digests by their beginning."""
    if key not in facts:
        return "not there"
    text = facts[key] if isinstance(facts[key], str) else json.dumps(facts[key], sort_keys=True, ensure_ascii=False)
    return f"{text[:12]}..." if len(text) == 64 and " " not in text else text[:80]
