"""Text from the model: the same prompts with the same seeds each time, so that one sees it learn.

The table has a row for each text: prompt, seed, continuation. Each text is drawn with a generator of its own, so it is
the same whoever draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

from lmexp.evaluation.collect import finished, publish
from lmexp.evaluation.config import TEXT, SamplesConfig
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.figures import row_of
from lmexp.evaluation.row import Row, not_measured
from lmexp.evaluation.samples import NUMBER, Figure, Header, Key, Samples, digest, make_table
from lmexp.models.base import LanguageModel
from lmexp.models.decoding.config import DecodingConfig
from lmexp.models.decoding.sampler import sample
from lmexp.models.decoding.text_stream import TextStream
from lmexp.tokenizers.base import Tokenizer

N = 4
SPLIT = "prompts"
"""What is continued is no part of the corpus."""
BATCH_SIZE = 16
"""Texts that are written at once."""
REPETITION = Figure(
    name="repetition",
    definition=f"mean over texts of the share of a text's {N}-grams of tokens that stood in it before (seq-rep-{N})",
    numerator="repetition",
    higher_is_better=False,
)
"""Welleck et al. 2019, arXiv:1908.04319. Not of the table's header: sampled texts aren't for comparing runs by."""


class GeneratedText:
    """Continues every prompt, n_samples times."""

    def __init__(self, config: SamplesConfig) -> None:
        self.config = config

    def run(self, context: EvaluationContext) -> list[Row]:
        """A row that tells how much the texts repeat themselves; the texts are left in context.samples."""
        name = context.name or self.config.kind
        if context.tokenizer is None or not isinstance(context.model, LanguageModel):
            why = "it needs lmexp's tokenizer and a language model; task=custom has its own"
            return [not_measured(f"{name}/{REPETITION.name}", SPLIT, REPETITION.definition, why)]
        header = self._header(context, name)
        samples = finished(context, header)
        if samples is None:
            samples = Samples(header, self._table(context, name))
            if context.rank == 0:
                publish(context, samples)
            context.gather(None)  # nobody goes on before the table is there
        context.samples[name] = samples
        return [row_of(REPETITION, samples, seed=context.seed)]

    def _header(self, context: EvaluationContext, name: str) -> Header:
        config = self.config
        task = {option: value for option, value in asdict(config).items() if option in OPTIONS}
        task["prompts"] = digest({"prompts": task["prompts"]})  # they may hold secrets, and the key isn't redacted
        cut = "".join(f", {key}={task[key]}" for key in ("top_k", "top_p") if task[key] is not None)
        return Header(
            name=name,
            kind=config.kind,
            split=SPLIT,
            definition=f"{len(config.prompts) * config.n_samples} texts of up to {config.max_new_tokens} tokens, "
            f"temperature={config.temperature}{cut}",
            key=Key(model=context.model_digest, task={"kind": config.kind, **task}, settings=context.settings),
            cluster="text",
        )

    def _table(self, context: EvaluationContext, name: str) -> Any:
        """All texts, in order of prompts and seeds. All processes must call this."""
        config, tokenizer = self.config, context.tokenizer
        assert tokenizer is not None
        asked = [
            (number, prompt, config.seed + i)
            for number, prompt in enumerate(config.prompts)
            for i in range(config.n_samples)
        ]
        prompts = [tokenizer.encode(prompt) or [tokenizer.eos_id] for _, prompt, _ in asked]
        mine = range(context.rank, len(asked), context.world_size)
        made = self._continue(context, name, {place: (prompts[place], asked[place][2]) for place in mine})
        texts = dict(chain.from_iterable(found.items() for found in context.gather(made)))
        tokens_of = [texts[place] for place in range(len(asked))]
        names = [f"{number}-{seed}" for number, _, seed in asked]
        columns: dict[str, Sequence[Any]] = {
            "sample_id": names,
            "cluster_id": names,
            "seed": [seed for *_, seed in asked],
            "input": [prompt for _, prompt, _ in asked],
            "prediction": [_text(tokenizer, *both) for both in zip(prompts, tokens_of, strict=True)],
            "n_tokens": [len(tokens) for tokens in tokens_of],
            "repetition": [repetition(tokens) for tokens in tokens_of],
        }
        return make_table(columns, {"repetition": NUMBER})

    def _continue(
        self, context: EvaluationContext, name: str, asked: dict[int, tuple[list[int], int]]
    ) -> dict[int, list[int]]:
        """The tokens that follow each of the prompts, with its seed; some at once."""
        config = self.config
        assert context.tokenizer is not None
        decoding = DecodingConfig(
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
        )
        places, total = list(asked), len(asked) * config.max_new_tokens
        made: dict[int, list[int]] = {place: [] for place in places}
        for start in range(0, len(places), BATCH_SIZE):
            batch = places[start : start + BATCH_SIZE]
            done = start * config.max_new_tokens
            context.progress(name, done, total)
            with context.dtype_context():
                prompts, seeds = zip(*(asked[place] for place in batch), strict=True)
                for row, token, _ in sample(
                    context.model, prompts, decoding, seeds=seeds, eos_id=context.tokenizer.eos_id
                ):
                    made[batch[row]].append(token)
                    done += 1
                    context.progress(name, done, total)
        context.progress(name, total, total)
        return made


def _text(tokenizer: Tokenizer, prompt: Sequence[int], tokens: Sequence[int]) -> str:
    stream = TextStream(tokenizer, prompt)
    return "".join([*(stream.push(token) for token in tokens), stream.close()])


def texts_of(samples: Samples) -> list[tuple[str, int, str]]:
    """Prompt, seed and continuation of each text; none where another evaluation made the table."""
    if samples.header.kind != TEXT:
        return []
    return list(zip(*(samples.values(name) for name in ("input", "seed", "prediction")), strict=True))


OPTIONS = ("prompts", "n_samples", "max_new_tokens", "temperature", "top_k", "top_p", "seed")
"""Fields of the config that decide the texts."""


def repetition(tokens: Sequence[int]) -> float:
    """Share of the n-grams of a text that stood in it before; 0 where it has none.

    >>> repetition([1, 2, 3, 4, 5, 6]), repetition([7] * 13), repetition([1])
    (0.0, 0.9, 0.0)
    """
    grams = [tuple(tokens[i : i + N]) for i in range(len(tokens) - N + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
