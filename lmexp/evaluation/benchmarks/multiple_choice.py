"""Questions with several choices, answered by the choice that the model finds likeliest after the prompt.

The figures are those of lm-eval 0.4.13: acc, acc_norm, acc_bytes, acc_mutual_info (here acc_pmi; Holtzman et al. 2021,
arXiv:2104.08315) and brier_score.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmexp.errors import DataError
from lmexp.evaluation.benchmarks.benchmark import Asked, Benchmark, Item, by_sample, named
from lmexp.evaluation.benchmarks.config import MultipleChoiceConfig
from lmexp.evaluation.benchmarks.few_shot import Shot, Shots, orders
from lmexp.evaluation.records import Record, read_lines, read_records
from lmexp.evaluation.samples import COUNT, COUNTS, NUMBER, NUMBERS, Figure
from lmexp.evaluation.scoring import Likelihoods
from lmexp.evaluation.templates import Template
from lmexp.paths import expanded

Floats = NDArray[np.float64]

FIGURES = (
    Figure(
        name="acc",
        definition="share of answers that are right, the answer being the choice with the highest log-probability "
        "(of equal ones the first)",
        numerator="score",
        binary=True,
        higher_is_better=True,
    ),
    Figure(
        name="acc_norm",
        definition="the same with each log-probability divided by the characters of its choice",
        numerator="acc_norm",
        binary=True,
        higher_is_better=True,
    ),
    Figure(
        name="acc_bytes",
        definition="the same with each log-probability divided by the UTF-8 bytes of its choice",
        numerator="acc_bytes",
        binary=True,
        higher_is_better=True,
    ),
    Figure(
        name="acc_pmi",
        definition="the same with the log-probability of each choice without the question subtracted",
        numerator="acc_pmi",
        binary=True,
        higher_is_better=True,
    ),
    Figure(
        name="brier",
        definition="mean over answers of the sum over choices of (p - y)^2, p the softmax of the log-probabilities, y "
        "1 for the right choice and 0 for the others",
        numerator="brier",
        higher_is_better=False,
    ),
)


@dataclass(frozen=True, slots=True)
class Question:
    """What a row says."""

    item: Item
    choices: tuple[str, ...]
    target: int


class MultipleChoice(Benchmark):
    """Asks every item with each prompt, seed of the solved items, and order of the choices."""

    what = "question"
    config: MultipleChoiceConfig

    def ask(self, name: str, items: list[Item]) -> list[Asked]:
        config, where = self.config, f"evaluation.{name}"
        prompts = {key: Template(f"{where}.{_option(key)}", text) for key, text in config.all_prompts().items()}
        targets = self._targets_of(where, config.path, items)
        questions = [self._question(where, item, text) for item, text in zip(items, targets, strict=True)]
        shots = Shots(f"{where}.n_shots", self._shots(name, prompts)) if config.n_shots else None
        asked = []
        for question in questions:
            item = question.item
            found = orders(len(question.choices), config.option_orders, item.sample_id, f"{where}.option_orders")
            for key, prompt in prompts.items():
                for seed in config.seeds:
                    drawn = self._drawn(shots, key, seed, question, prompt)
                    for number, order in enumerate(found):
                        asked.append(self._asked_as(question, key, prompt, seed, drawn, number, order))
        return asked

    def figures(self) -> tuple[Figure, ...]:
        return tuple(figure for figure in FIGURES if figure.name != "acc_pmi" or self.config.pmi)

    def options(self) -> dict[str, Any]:
        return {"pmi": self.config.pmi, "unconditional": self.config.unconditional} if self.config.pmi else {}

    def definition(self, n_items: int) -> str:
        config = self.config
        parts = [self.source(n_items)]
        if config.n_shots:
            source = "" if config.shots_path is None else f" of {Path(config.shots_path).name}"
            parts.append(
                f"{config.n_shots}-shot, other solved items{source} for each (seeds "
                f"{', '.join(map(str, config.seeds))}), divided by {config.shot_delimiter!r}"
            )
        else:
            parts.append("0-shot")
        parts += [f"prompt {key} {text!r}" for key, text in config.all_prompts().items()]
        if config.option_orders > 1:
            parts.append(f"{config.option_orders} orders of the listed choices")
        parts.append(f"then {config.delimiter!r} and the {'choice' if config.answer == 'choice' else 'letter'}")
        if config.pmi:
            parts.append(f"without the question: {config.unconditional!r}")
        return "; ".join(parts)

    def columns(self, asked: Sequence[Asked], found: Likelihoods) -> tuple[dict[str, Any], dict[str, Any]]:
        rows = [
            self._answer(one, np.array(logprobs), n_tokens)
            for one, logprobs, n_tokens in zip(
                asked, by_sample(asked, found.logprob.tolist()), by_sample(asked, found.n_tokens.tolist()), strict=True
            )
        ]
        types = {
            **dict.fromkeys(("acc_norm", "acc_bytes", "brier"), NUMBER),
            "target_number": COUNT,
            **dict.fromkeys(("choice_chars", "choice_bytes", "choice_tokens"), COUNTS),
            **({"acc_pmi": NUMBER, "unconditional": NUMBERS} if self.config.pmi else {}),
        }
        return {name: [row[name] for row in rows] for name in rows[0]}, types

    def _answer(self, one: Asked, found: Floats, n_tokens: list[int]) -> dict[str, Any]:
        n = len(one.choices)
        logprobs, unconditional = found[:n], found[n:]
        continuations = [pair[1].removeprefix(self.config.delimiter) for pair in one.pairs[:n]]
        chars = np.array([len(text) for text in continuations])
        n_bytes = np.array([len(text.encode()) for text in continuations])
        best = first_largest(logprobs)
        row = {
            "score": is_right(logprobs, one.target),
            "acc_norm": is_right(logprobs / chars, one.target),
            "acc_bytes": is_right(logprobs / n_bytes, one.target),
            "brier": brier(logprobs, one.target),
            "prediction": "" if best is None else one.choices[best],
            "target": one.choices[one.target],
            "logprob": float(logprobs[one.target]),
            "logprobs": logprobs.tolist(),
            "n_tokens": n_tokens[one.target],
            "n_bytes": int(n_bytes[one.target]),
            "target_number": one.target,
            "choice_chars": chars.tolist(),
            "choice_bytes": n_bytes.tolist(),
            "choice_tokens": n_tokens[:n],
        }
        if self.config.pmi:
            row["acc_pmi"] = is_right(logprobs - unconditional, one.target)
            row["unconditional"] = unconditional.tolist()
        return row

    def _asked_as(
        self, question: Question, key: str, prompt: Template, seed: int, drawn: str, number: int, order: tuple[int, ...]
    ) -> Asked:
        config, item = self.config, question.item
        text = drawn + prompt.one(item.record, self._listed(question.choices, order))
        answers = self._answers(question.choices, order)
        pairs = [(text, config.delimiter + answer) for answer in answers]
        if config.pmi:
            pairs += [(config.unconditional, config.delimiter + answer) for answer in answers]
        return Asked(
            item=item,
            prompt_id=key,
            seed=seed,
            perturbation=f"order-{number}" if number else "",
            input=text,
            pairs=tuple(pairs),
            choices=question.choices,
            target=question.target,
        )

    def _question(self, where: str, item: Item, target: str) -> Question:
        """The choices of an item and the right one; DataError where they can't be told."""
        config, record = self.config, item.record
        templates = [Template(f"{where}.choices", text) for text in config.choices]
        choices = tuple(text for template in templates for text in template.all(record))
        if len(choices) < 2 or not all(choices):
            raise DataError(f"{record.where}: {where}.choices gives {list(choices)}; expected two texts or more")
        if config.answer == "letter" and len(choices) > len(string.ascii_uppercase):
            raise DataError(f"{record.where}: it has {len(choices)} choices, more than there are letters")
        if config.target_kind in ("label", "text"):
            labels = list(choices)
            if config.target_kind == "label":
                given = [Template(f"{where}.labels", text) for text in config.labels]
                labels = [text for template in given for text in template.all(record)]
            if labels.count(target) != 1 or len(labels) != len(choices):
                raise DataError(
                    f"{record.where}: the target is {target!r}; expected one of the {len(choices)} choices' "
                    f"{'labels' if config.target_kind == 'label' else 'texts'}, {', '.join(map(repr, labels))}"
                )
            return Question(item, choices, labels.index(target))
        least = 1 if config.target_kind == "index_from_1" else 0
        if not target.isdecimal() or not least <= int(target) < least + len(choices):
            raise DataError(
                f"{record.where}: the target is {target!r}; expected a number from {least} to "
                f"{least + len(choices) - 1} ({where}.target_kind={config.target_kind})"
            )
        return Question(item, choices, int(target) - least)

    def _targets_of(self, where: str, path: str, items: Sequence[Item]) -> list[str]:
        """What says which choice is right, for each item."""
        config = self.config
        if config.target_file is None:
            template = Template(f"{where}.target", config.target)
            return [template.one(item.record) for item in items]
        given = expanded(path)
        if given.is_dir():
            raise DataError(f"{where}.target_file is for items in one file, but {path} is a folder")
        stem = given.name.partition(".")[0]
        file = str(given.parent / config.target_file.replace("{stem}", stem))
        lines = read_lines(f"{where}.target_file", file)
        n_rows = len(read_records(f"{where}.path", path))
        if len(lines) != n_rows:
            raise DataError(
                f"{where}.target_file: {file} has {len(lines):,} lines and {path} {n_rows:,} rows; expected as many"
            )
        return [lines[item.record.number - 1] for item in items]

    def _shots(self, name: str, prompts: dict[str, Template]) -> list[Shot]:
        """All solved items."""
        config, where = self.config, f"evaluation.{name}"
        option = "path" if config.shots_path is None else "shots_path"
        path = config.path if config.shots_path is None else config.shots_path
        items = named(read_records(f"{where}.{option}", path, config.pattern), name, id=config.id)
        targets = self._targets_of(where, path, items)
        shots = []
        for item, target in zip(items, targets, strict=True):
            question = self._question(where, item, target)
            order = tuple(range(len(question.choices)))
            listed = self._listed(question.choices, order)
            answer = config.delimiter + self._answers(question.choices, order)[question.target]
            texts = {key: prompt.one(item.record, listed) for key, prompt in prompts.items()}
            shots.append(
                Shot(_content(item.record), texts["main"], {key: text + answer for key, text in texts.items()})
            )
        return shots

    def _drawn(self, shots: Shots | None, key: str, seed: int, question: Question, prompt: Template) -> str:
        """The solved items before the prompt of an item."""
        if shots is None:
            return ""
        main = Template("", self.config.prompt) if key != "main" else prompt
        listed = self._listed(question.choices, tuple(range(len(question.choices))))
        item = question.item
        drawn = shots.draw(
            self.config.n_shots, seed=seed, sample_id=item.sample_id, question=main.one(item.record, listed)
        )
        return "".join(shot.texts[key] + self.config.shot_delimiter for shot in drawn)

    def _listed(self, choices: Sequence[str], order: Sequence[int]) -> str:
        """What {*} stands for."""
        lines = []
        for place, number in enumerate(order):
            line = self.config.listing.replace("{letter}", string.ascii_uppercase[place % 26])
            lines.append(line.replace("{choice}", choices[number]))
        return "\n".join(lines)

    def _answers(self, choices: Sequence[str], order: Sequence[int]) -> list[str]:
        """What is scored for each choice, in the order of the file."""
        if self.config.answer == "choice":
            return list(choices)
        places = {number: place for place, number in enumerate(order)}
        return [string.ascii_uppercase[places[number]] for number in range(len(choices))]


def first_largest(values: Floats) -> int | None:
    """Number of the largest value, of equal ones the first; None where one is nan, or all are -inf."""
    if bool(np.isnan(values).any()) or not bool((values > -np.inf).any()):
        return None
    return int(np.argmax(values))


def is_right(values: Floats, target: int) -> float:
    """1 where the target has the first largest value, 0 elsewhere; nan where there is none."""
    best = first_largest(values)
    return float("nan") if best is None else float(best == target)


def brier(logprobs: Floats, target: int) -> float:
    """Sum over choices of (p - y)^2, p the softmax of the log-probabilities; from 0 to 2.

    >>> brier(np.zeros(4), 0)
    0.75
    """
    if first_largest(logprobs) is None:
        return float("nan")
    p = np.exp(logprobs - logprobs.max())
    p /= p.sum()
    p[target] -= 1
    return float((p**2).sum())


def _option(key: str) -> str:
    return "prompt" if key == "main" else f"prompts.{key}"


def _content(record: Record) -> str:
    """What a row holds, by which the solved items are sorted."""
    return repr(sorted((name, repr(value)) for name, value in record.fields.items()))
