"""Configs of the evaluations that read items from files.

Prompts, choices, targets, ids, clusters and slices are templates of a row's fields: "{question}", "{a.0.text}", and for
all entries of a list "{options.*.text}". Numbers, true and false are written as in JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lmexp.checks import at_least, not_empty, one_of
from lmexp.errors import ConfigError
from lmexp.evaluation.config import EvaluationConfig, refuse_split

if TYPE_CHECKING:
    from lmexp.evaluation.benchmarks.benchmark import Benchmark

BEGINS = ("eos", "nothing")
TARGETS = ("index", "index_from_1", "label", "text")
ANSWERS = ("choice", "letter")
MOST_ORDERS = 24
PATHS = ("path", "shots_path")
"""Options that hold paths."""


@dataclass(kw_only=True, slots=True)
class BenchmarkConfig(EvaluationConfig):
    """Items of a file, of which a model scores texts."""

    path: str = ""
    """File of the items, or a folder: .jsonl, .json, .csv, .tsv (maybe with .gz or .zst after it), .parquet, or .arrow
    of a saved data set of Hugging Face; relative to where the command is typed."""
    pattern: str = "*"
    """Which files of a folder hold items."""
    id: str | None = None
    """What names an item, a template; null is the number of its row. Equal names are an error."""
    cluster: str | None = None
    """Items with an equal text here aren't independent, a template; null takes each item by itself."""
    slice: str | None = None
    """The first figure is shown for each text that this template gives, too; null shows the whole only."""
    max_samples: int | None = None
    """Ask only so many items: those with the smallest hash of their id, so of all parts of the file; null asks all."""
    batch_size: int = 16
    """Texts in a forward pass of one process; changes the speed and the memory, no answers."""
    begin: str = "eos"
    """eos: the model sees an <eos> first, as before each document in training. nothing: only before an empty context,
    as lm-eval does for models without a token that begins a text."""

    def __post_init__(self) -> None:
        EvaluationConfig.__post_init__(self)
        where = f"evaluation.{self.kind}"
        refuse_split(self, f"choose the file with {where}.path")
        at_least(f"{where}.max_samples", self.max_samples, 1)
        at_least(f"{where}.batch_size", self.batch_size, 1)
        one_of(f"{where}.begin", self.begin, BEGINS)
        not_empty(f"{where}.pattern", self.pattern, "'*.jsonl'")
        for name in ("id", "cluster", "slice"):
            not_empty(f"{where}.{name}", getattr(self, name), "'{id}'")

    def build(self) -> Benchmark:
        raise NotImplementedError(f"{type(self).__name__}.build")


@dataclass(kw_only=True, slots=True)
class MultipleChoiceConfig(BenchmarkConfig):
    """Questions with several choices: the model's answer is the one that it finds likeliest after the prompt."""

    kind: str = "multiple_choice"
    prompt: str = "{question}"
    """What comes before the choice, a template. {*} stands for the choices, listed as `listing` says."""
    prompts: dict[str, str] = field(default_factory=dict)
    """More prompts, by name; `prompt` is called main. Every item is asked with each."""
    choices: list[str] = field(default_factory=lambda: ["{choices.*}"])
    """Templates of the choices: one for each, or one that goes through a list, as "{choices.*.text}"."""
    answer: str = "choice"
    """What is scored after the prompt: the choice, or its letter (A, B, ...) in the listing."""
    listing: str = "{letter}. {choice}"
    """A line of {*}; {letter} is A, B, ... in the order of the listing."""
    target: str = "{label}"
    """Which choice is right, a template."""
    target_kind: str = "index"
    """How it says that: index (from 0), index_from_1, label (one of `labels`), or text (that of the choice)."""
    labels: list[str] = field(default_factory=list)
    """With target_kind=label: templates of the labels of the choices, as ["{choices.*.label}"] or [A, B, C, D]."""
    target_file: str | None = None
    """File with the target of each row in a line, in the folder of the items; {stem} is the name of their file without
    its suffix. null takes it from the row."""
    delimiter: str = " "
    """Between prompt and answer, scored with the answer."""
    n_shots: int = 0
    """Solved items before the prompt."""
    shots_path: str | None = None
    """File or folder of the items for that; null takes the others of the same file. No item is among its own."""
    shot_delimiter: str = "\n\n"
    """Between solved items."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Each draws other solved items for every item, by seed and id; every item is asked with each."""
    option_orders: int = 1
    """Orders in which {*} lists the choices: the given one and others drawn by the item's id; each is asked."""
    pmi: bool = False
    """Also score the answers without the question, for acc_pmi: up to twice the time."""
    unconditional: str = ""
    """What stands in place of the prompt then."""

    def __post_init__(self) -> None:
        BenchmarkConfig.__post_init__(self)
        where = "evaluation.multiple_choice"
        one_of(f"{where}.answer", self.answer, ANSWERS)
        one_of(f"{where}.target_kind", self.target_kind, TARGETS)
        at_least(f"{where}.n_shots", self.n_shots, 0)
        at_least(f"{where}.option_orders", self.option_orders, 1)
        for name in ("target_file", "shots_path"):
            not_empty(f"{where}.{name}", getattr(self, name), "train.jsonl")
        if self.option_orders > MOST_ORDERS:
            raise ConfigError(f"{where}.option_orders is {self.option_orders}; expected at most {MOST_ORDERS}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"{where}.seeds is {list(self.seeds)}; expected different numbers from 0 on, e.g. [0,1]")
        if not self.n_shots and (list(self.seeds) != [0] or self.shots_path is not None):
            raise ConfigError(f"{where}.seeds and shots_path draw solved items, but n_shots is 0; set {where}.n_shots")
        if "main" in self.prompts:
            raise ConfigError(f"{where}.prompts has 'main', as {where}.prompt is called; give it another name")
        if not self.choices:
            raise ConfigError(f"{where}.choices is empty; expected templates, e.g. ['{{a}}','{{b}}']")
        if (self.target_kind == "label") != bool(self.labels):
            raise ConfigError(
                f"{where}.target_kind is {self.target_kind} and labels is {list(self.labels)}; target_kind=label needs "
                f"labels, e.g. ['{{choices.*.label}}'], and the others have none"
            )
        lists = [name for name, text in self.all_prompts().items() if "{*}" not in text]
        if lists and (self.option_orders > 1 or self.answer == "letter"):
            raise ConfigError(
                f"{where}: option_orders={self.option_orders} and answer={self.answer} need prompts that list the "
                f"choices, but {', '.join(lists)} has no {{*}}"
            )
        if self.unconditional and not self.pmi:
            raise ConfigError(f"{where}.unconditional is for acc_pmi; set {where}.pmi=true, or leave it out")

    def all_prompts(self) -> dict[str, str]:
        """Name -> template of each prompt."""
        return {"main": self.prompt, **self.prompts}

    def build(self) -> Benchmark:
        from lmexp.evaluation.benchmarks.multiple_choice import MultipleChoice

        return MultipleChoice(self)


@dataclass(kw_only=True, slots=True)
class MinimalPairsConfig(BenchmarkConfig):
    """Pairs of texts that differ in one thing: which of the two the model finds likelier as a whole."""

    kind: str = "minimal_pairs"
    first: str = "{first}"
    """The text that should be likelier; with neutral=true, the one whose share is counted. A template."""
    second: str = "{second}"
    """The other one."""
    neutral: bool = False
    """Neither should be likelier (a bias is measured): the share is compared with 0.5, and called pct_first."""

    def build(self) -> Benchmark:
        from lmexp.evaluation.benchmarks.minimal_pairs import MinimalPairs

        return MinimalPairs(self)


@dataclass(kw_only=True, slots=True)
class LastWordConfig(BenchmarkConfig):
    """Texts whose last word, after their last space, the model is asked for."""

    kind: str = "last_word"
    text: str = "{text}"
    """The whole text, a template."""

    def build(self) -> Benchmark:
        from lmexp.evaluation.benchmarks.last_word import LastWord

        return LastWord(self)
