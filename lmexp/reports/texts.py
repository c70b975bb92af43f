"""Text that the model wrote: the same prompts with the same seeds, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from lmexp.errors import RunError
from lmexp.evaluation.collect import find_table
from lmexp.evaluation.config import NAME, TEXT
from lmexp.evaluation.generated import texts_of
from lmexp.evaluation.samples_file import STEP_PARQUET, read_header, read_samples
from lmexp.reading import check_format, read_object
from lmexp.reports.visible import cut_middle, shown

MOST_STEPS = 12
"""That are shown of those that text was written at."""
MOST_TEXTS = 12
"""Prompts and seeds that are shown."""
MOST_CHARACTERS = 1200
"""Of a text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What the model wrote at one time."""

    when: str
    """"step 100", or the checkpoint that was evaluated at the end."""
    texts: list[tuple[str, int, str]]
    """Prompt, seed and continuation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Writing:
    """What one evaluation had the model write."""

    name: str
    written: list[Written]
    """In order of time."""
    settings: str = ""
    """How it was sampled."""
    note: str = ""
    """What isn't shown."""


def read_writing(evaluation: Path, tables: dict[str, str], checkpoint: str) -> list[Writing]:
    """The text in evaluation/. tables, checkpoint: those of the summary of the end."""
    found = []
    for folder in sorted(evaluation.iterdir()):
        if NAME.fullmatch(folder.name) and folder.is_dir():
            steps = {int(match[1]): path for path in folder.iterdir() if (match := STEP_PARQUET.fullmatch(path.name))}
            last = find_table(folder, tables[folder.name]) if folder.name in tables else None
            any_table = last or next(iter(steps.values()), None)
            if any_table is not None and _is_text(any_table):
                found.append(_writing(folder.name, steps, last, checkpoint))
    return found


def read_generated(path: Path) -> list[Writing]:
    """generated.json (lmexp.generated 1), which runs of earlier versions hold."""
    content = read_object(path, RunError)
    check_format(content, path, RunError, "lmexp.generated", 1)
    texts = [(str(one["prompt"]), int(one["seed"]), str(one["text"])) for one in content["samples"]]
    return [Writing(name="generated", written=[Written(when="at the end", texts=texts)])]


def section(writing: Sequence[Writing], missing: str) -> str:
    """All of it as HTML; why there is none where there is none."""
    if not any(one.written for one in writing):
        return f'<p class="soft">No text: {escape(missing or "none was asked for, as evaluation=[samples] does")}.</p>'
    return "\n".join(_of_evaluation(one, headed=len(writing) > 1) for one in writing if one.written)


def _is_text(path: Path) -> bool:
    try:
        return read_header(path).kind == TEXT
    except (RunError, OSError):
        return False


def _writing(name: str, steps: dict[int, Path], last: Path | None, checkpoint: str) -> Writing:
    chosen = _spread(sorted(steps))
    tables = [(f"step {step:,}", steps[step]) for step in chosen]
    tables += [(f"at the end, {checkpoint}", last)] if last is not None else []
    notes = []
    if chosen != sorted(steps):
        notes.append(f"{len(chosen)} of {len(steps):,} steps are shown; evaluation/{name}/ has all.")
    written, settings, n_texts = [], "", 0
    for when, path in tables:
        try:
            samples = read_samples(path)
        except (RunError, OSError) as error:
            notes.append(f"{when}: {error}")
            continue
        n_texts, settings = max(n_texts, len(samples)), samples.header.definition
        first = samples.where(np.arange(len(samples)) < MOST_TEXTS)
        written.append(Written(when=when, texts=texts_of(first)))
    if n_texts > MOST_TEXTS:
        notes.append(f"{MOST_TEXTS} of {n_texts:,} texts are shown.")
    return Writing(name=name, written=written, settings=settings, note=" ".join(notes))


def _spread(steps: list[int]) -> list[int]:
    """At most MOST_STEPS of them, the first and the last among them, evenly spread."""
    if len(steps) <= MOST_STEPS:
        return steps
    return [steps[round(i * (len(steps) - 1) / (MOST_STEPS - 1))] for i in range(MOST_STEPS)]


def _of_evaluation(writing: Writing, *, headed: bool) -> str:
    """Each prompt and seed with what became of it; the first is open, the others unfold."""
    by_prompt: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for written in writing.written:
        for prompt, seed, text in written.texts:
            by_prompt.setdefault((prompt, seed), []).append((written.when, text))
    blocks = []
    for number, ((prompt, seed), texts) in enumerate(list(by_prompt.items())[:MOST_TEXTS]):
        summary = f"{f'“{prompt[:60]}”' if prompt else 'from nothing'}, seed {seed}"
        pairs = "".join(f"<dt>{shown(when)}</dt><dd>{_text(prompt, text)}</dd>" for when, text in texts)
        is_open = " open" if number == 0 else ""
        blocks.append(f'<details{is_open}><summary>{shown(summary)}</summary><dl class="texts">{pairs}</dl></details>')
    notes = "".join(f'<p class="soft small">{shown(note)}</p>' for note in (writing.settings, writing.note) if note)
    return f"{f'<h3>{shown(writing.name)}</h3>' if headed else ''}{notes}{''.join(blocks)}"


def _text(prompt: str, text: str) -> str:
    return f"<pre><b>{_cut(prompt)}</b>{_cut(text)}</pre>"


def _cut(text: str) -> str:
    start, n_cut, end = cut_middle(text, MOST_CHARACTERS)
    cut = f'<span class="cut"> … {n_cut:,} characters left out … </span>' if n_cut else ""
    return f"{shown(start)}{cut}{shown(end)}"
