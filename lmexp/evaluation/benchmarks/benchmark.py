"""What the evaluations of files have in common: items are read and checked first, then asked, then counted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from lmexp.errors import ConfigError, DataError
from lmexp.evaluation.benchmarks.config import BenchmarkConfig
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.figures import rows_by_slice, rows_of, with_slices
from lmexp.evaluation.records import Record, digest_of, read_records
from lmexp.evaluation.row import Row, not_measured
from lmexp.evaluation.samples import Figure, Header, Key, Samples, make_table
from lmexp.evaluation.scoring import Likelihoods, Requests, longest_input, score_requests
from lmexp.evaluation.templates import Template

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A row of a file, and what names it."""

    record: Record
    sample_id: str
    cluster_id: str
    slice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A row of the table: what a model is asked about an item, in one way of asking."""

    item: Item
    prompt_id: str = ""
    seed: int = 0
    perturbation: str = ""
    input: str = ""
    """What stands before all that is scored."""
    pairs: tuple[tuple[str, str], ...]
    """(context, continuation) to score."""
    choices: tuple[str, ...]
    """What a prediction may be."""
    target: int
    """The right one."""

    @property
    def facts(self) -> list[Any]:
        """All that makes an answer comparable."""
        item = self.item
        names = [item.sample_id, item.cluster_id, item.slice, self.prompt_id, self.seed, self.perturbation]
        return [*names, self.pairs[: len(self.choices)], self.choices, self.target]


class Benchmark(ABC):
    """Reads items once, asks, and makes rows. Subclasses say what is asked and what the answers are worth."""

    what: ClassVar[str]
    """What an item is: question, pair, ..."""

    @property
    def aspect(self) -> str:
        """Of the report card's rows."""
        return "accuracy"

    def __init__(self, config: BenchmarkConfig) -> None:
        self.config = config
        self._asked: tuple[list[Asked], str] | None = None

    @abstractmethod
    def ask(self, name: str, items: list[Item]) -> list[Asked]:
        """What a model is asked; DataError where an item isn't as the config says."""

    @abstractmethod
    def figures(self) -> tuple[Figure, ...]:
        """What is shown of the table; the first is the main one."""

    @abstractmethod
    def definition(self, n_items: int) -> str:
        """What is asked, and how."""

    @abstractmethod
    def columns(self, asked: Sequence[Asked], found: Likelihoods) -> tuple[dict[str, Any], dict[str, Any]]:
        """Columns of the table, and the types of those that other tables don't have. found: for all pairs in order."""

    def options(self) -> dict[str, Any]:
        """Options that change the table though they don't change what is asked; JSON types."""
        return {}

    def check(self, name: str) -> str:
        """Digest of what is asked; ConfigError or DataError where that can't be told from config and files."""
        return self._prepare(name)[1]

    def run(self, context: EvaluationContext) -> list[Row]:
        """A row for each figure, and for the first one in each slice; the table is left in context.samples."""
        name = context.name or self.config.kind
        why = self._why_not(context, name)
        if why:
            split = Path(self.config.path).name
            return [not_measured(f"{name}/{f.name}", split, f.definition, why, unit=f.unit) for f in self.figures()]
        samples = self.table(context, name, batch_size=self.config.batch_size)
        context.samples[name] = samples
        context.again[name] = lambda context, n, batch_size: self.table(context, name, batch_size=batch_size, first=n)
        return self.rows(samples, seed=context.seed)

    def rows(self, samples: Samples, *, seed: int) -> list[Row]:
        """What is shown of the table."""
        rows = with_slices(rows_of(samples, seed=seed), rows_by_slice(samples, seed=seed))
        settings = samples.header.key.settings
        if settings["n_cut"]:
            cut = f"{settings['n_cut']:,} texts cut on the left to {settings['max_length']:,} tokens"
            rows = [replace(row, method=f"{row.method}; {cut}") if row.measured else row for row in rows]
        return [replace(row, aspect=self.aspect) for row in rows]

    def table(self, context: EvaluationContext, name: str, *, batch_size: int, first: int | None = None) -> Samples:
        """The samples table; first: of so many rows only."""
        asked, digest = self._prepare(name)
        if first is not None and first < len(asked):
            asked = asked[:first]
            digest = digest_of([one.facts for one in asked])
        assert context.tokenizer is not None
        pairs = [pair for one in asked for pair in one.pairs]
        length = longest_input(context)
        requests = Requests(context.tokenizer, pairs, begin=self.config.begin, max_length=length)
        n_items = len({one.item.sample_id for one in asked})
        begin = self.config.begin
        begun = "begun with <eos>" if begin == "eos" else "begun with nothing, or <eos> if empty"
        settings = {"begin": begin, "max_length": length, "n_cut": requests.n_cut, **self.options()}
        header = Header(
            name=name,
            kind=self.config.kind,
            split=Path(self.config.path).name,
            definition=f"{self.definition(n_items)}; {begun}",
            key=Key(
                model=context.model_digest,
                task={"kind": self.config.kind, "asked": digest, "n": len(asked)},
                settings={**settings, **context.settings},
            ),
            figures=self.figures(),
            cluster=self.what if self.config.cluster is None else "cluster",
        )

        def finish(found: Likelihoods) -> Any:
            columns, types = self.columns(asked, found)
            return make_table({**_names(asked), "latency": _latency(asked, found), **columns}, types)

        return score_requests(context, header, requests, batch_size=batch_size, finish=finish)

    def items(self, name: str) -> list[Item]:
        """The items that are asked."""
        config = self.config
        return chosen(
            named(
                read_records(f"evaluation.{name}.path", config.path, config.pattern),
                name,
                id=config.id,
                cluster=config.cluster,
                slice=config.slice,
            ),
            config.max_samples,
        )

    def source(self, n_items: int) -> str:
        """ "1,221 questions of valid.jsonl", for a definition."""
        some = "" if self.config.max_samples is None else " (those with the smallest hash of their id)"
        return f"{n_items:,} {self.what}s of {Path(self.config.path).name}{some}"

    def _prepare(self, name: str) -> tuple[list[Asked], str]:
        if self._asked is None:
            asked = self.ask(name, self.items(name))
            self._asked = asked, digest_of([one.facts for one in asked])
        return self._asked

    def _why_not(self, context: EvaluationContext, name: str) -> str:
        """Why nothing is measured; "" where it is. What is wrong with a request is raised instead."""
        if context.tokenizer is None:
            raise ConfigError(f"evaluation.{name} needs lmexp's tokenizer and model; task=custom has its own")
        if context.items is None:
            self.check(name)
            return ""
        if not context.items.own:
            return (
                "the run was made elsewhere or by somebody else, so its run.json doesn't choose which of your files "
                f"are read; to measure it: lmexp evaluate run=RUN evaluation=[{name}]"
            )
        try:
            digest = self.check(name)
        except (ConfigError, DataError) as error:
            return f"its items could be read when the run began, and can't be now: {error}"
        if context.items.asked.get(name, digest) != digest:
            return (
                "its items aren't those that were there when the run began; restore them, or measure with them as they "
                f"are: lmexp evaluate run=RUN evaluation=[{name}]"
            )
        return ""


def named(
    records: list[Record], name: str, *, id: str | None, cluster: str | None = None, slice: str | None = None
) -> list[Item]:
    """Items with the ids, clusters and slices that the templates give; DataError where two have the same id."""
    where = f"evaluation.{name}"
    ids, clusters, slices = (
        None if text is None else Template(f"{where}.{option}", text)
        for option, text in (("id", id), ("cluster", cluster), ("slice", slice))
    )
    items: dict[str, Item] = {}
    for record in records:
        sample_id = record.id if ids is None else ids.one(record)
        if sample_id in items:
            raise DataError(
                f"{record.where}: its id is {sample_id!r}, as that of {items[sample_id].record.where}; set {where}.id "
                f"to what tells items apart, or to null for the number of the row"
            )
        items[sample_id] = Item(
            record=record,
            sample_id=sample_id,
            cluster_id=sample_id if clusters is None else clusters.one(record),
            slice="" if slices is None else slices.one(record),
        )
    return list(items.values())


def chosen(items: list[Item], n: int | None) -> list[Item]:
    """The n items with the smallest hash of their id, in the order of the file: the same whatever that order is."""
    if n is None or n >= len(items):
        return items
    kept = {item.sample_id for item in sorted(items, key=lambda item: hash_of("sample", item.sample_id))[:n]}
    return [item for item in items if item.sample_id in kept]


def hash_of(*parts: str | int) -> int:
    """A number of 64 bits that looks random, the same on any machine."""
    text = "\0".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


def by_sample(asked: Sequence[Asked], values: Sequence[T]) -> list[list[T]]:
    """values, one for each pair of all rows, as a list for each row."""
    found, start = [], 0
    for one in asked:
        found.append(list(values[start : start + len(one.pairs)]))
        start += len(one.pairs)
    return found


def _names(asked: Sequence[Asked]) -> dict[str, Any]:
    return {
        "sample_id": [one.item.sample_id for one in asked],
        "cluster_id": [one.item.cluster_id for one in asked],
        "slice": [one.item.slice for one in asked],
        "seed": [one.seed for one in asked],
        "prompt_id": [one.prompt_id for one in asked],
        "perturbation": [one.perturbation for one in asked],
        "input": [one.input for one in asked],
    }


def _latency(asked: Sequence[Asked], found: Likelihoods) -> list[float]:
    return [sum(one) for one in by_sample(asked, found.latency.tolist())]
