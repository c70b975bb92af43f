"""Fit a model that is counted: one pass over the training tokens instead of steps, one checkpoint, of step 1.

Counting has no state worth keeping: a run that was killed before its checkpoint counts again, to the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from lmexp.data.config import CorpusConfig
from lmexp.data.module import CorpusDataModule
from lmexp.errors import DataError
from lmexp.metrics.functional import bits_per_byte, perplexity
from lmexp.metrics.ignore import IGNORE
from lmexp.models.ngram import NGram
from lmexp.models.ngram_counts import Counts
from lmexp.models.ngram_smoothing import Probabilities
from lmexp.paths import CHECKPOINTS_DIR
from lmexp.training import checkpoints
from lmexp.training.checkpoint_io import FINGERPRINT
from lmexp.training.step_log import peak_memory_mb
from lmexp.training.trainer import build_model

if TYPE_CHECKING:
    from lmexp.config.schema import TrainConfig
    from lmexp.data.cache import TokenCache
    from lmexp.tracking.tracker import Tracker

STEP = 1
SECONDS_BETWEEN_LINES = 5.0


def count(
    config: TrainConfig,
    run_dir: Path,
    cache: TokenCache,
    tracker: Tracker | None,
    *,
    rank: int,
    say: Callable[[str], None],
    data_fingerprints: Sequence[str] = (),
) -> None:
    """Count, validate, and write the checkpoint, unless it is there already. Rank 0 does it, the others return."""
    root = run_dir / CHECKPOINTS_DIR
    if rank != 0 or checkpoints.latest(root, warn=say) is not None:
        return
    model, tokens = build_model(config, cache.tokenizer.vocab_size), cache.splits["train"].tokens
    assert isinstance(model, NGram) and tracker is not None
    n_tokens = len(tokens) - 1  # the first is given
    if n_tokens < 1:
        raise DataError("data has no training documents, expected at least one; add text, or hold less of it out")
    say(f"counting n-grams up to order {model.order} in {n_tokens:,} tokens")
    start = time.perf_counter()
    counts, found = model.fit(tokens, eos_id=cache.tokenizer.eos_id, progress=_lines(n_tokens, say))
    seconds = time.perf_counter() - start
    total = sum(_n_ngrams(counts))
    say(f"counted {total:,} n-grams in {seconds:.1f} s, {_memory(model) / 1e6:,.1f} MB with their probabilities")
    if found.guessed:
        orders = ", ".join(map(str, found.guessed))
        say(
            f"too few n-grams of order {orders} occur once, twice or three times to estimate discounts from; "
            f"KenLM's fallback is used there: {found.discounts[found.guessed[0] - 1]}"
        )
    metrics = {"train/tokens": n_tokens, **_figures(counts, found)}
    validation = _validate(config, cache, model)
    if validation:
        say("  ".join(["validation", *(f"{n.removeprefix('validation/')} {v:.4f}" for n, v in validation.items())]))
    tracker.metrics(STEP, metrics | validation)
    timings = {"seconds": seconds, "tokens_per_second": n_tokens / seconds, "peak_memory_mb": peak_memory_mb()}
    tracker.timings(STEP, timings)
    tracker.sync()
    state = {"global_step": STEP, FINGERPRINT: data_fingerprints[-1] if data_fingerprints else None}
    checkpoints.write(root, STEP, model.state_dict(), state, validation)


def _figures(counts: Counts, found: Probabilities) -> dict[str, float]:
    """What metrics.jsonl says of the counts."""
    figures: dict[str, float] = {}
    for n, n_ngrams in enumerate(_n_ngrams(counts), start=1):
        figures[f"ngrams/order_{n}"] = n_ngrams
    for n, discounts in enumerate(found.discounts, start=1):
        figures |= {f"discounts/order_{n}_count_{c}": discount for c, discount in enumerate(discounts, start=1)}
    return figures


def _n_ngrams(counts: Counts) -> list[int]:
    """Different n-grams of each order."""
    return [int(np.count_nonzero(counts.unigrams)), *map(len, counts.codes)]


def _memory(model: NGram) -> int:
    return sum(tensor.nbytes for tensor in model.buffers())


@torch.no_grad()
def _validate(config: TrainConfig, cache: TokenCache, model: NGram) -> dict[str, float]:
    """Figures of the targets of the validation split, or its first trainer.limit_val_batches; empty without one."""
    split = cache.splits.get("validation")
    if split is None or not split.n_tokens:
        return {}
    assert isinstance(config.data, CorpusConfig)
    datamodule = CorpusDataModule(cache, config.data, seed=config.seed, rank=0, world_size=1)
    nats, n_tokens, n_bytes = torch.zeros((), dtype=torch.float64), torch.tensor(0), torch.tensor(0)
    for batch in islice(datamodule.val_dataloader(), config.trainer.limit_val_batches):
        counted = batch.targets != IGNORE
        found = model.target_log_probabilities(batch.tokens, batch.targets.where(counted, 0), batch.positions)
        nats -= found[counted].sum()
        n_tokens += counted.sum()
        n_bytes += 0 if batch.n_bytes is None else batch.n_bytes[counted].sum()
    figures = {"loss": nats / n_tokens, "perplexity": perplexity(nats, n_tokens)}
    if n_bytes:
        figures["bits_per_byte"] = bits_per_byte(nats, n_bytes)
    return {f"validation/{name}": float(value) for name, value in figures.items()}


def _lines(n_tokens: int, say: Callable[[str], None]) -> Callable[[int], None]:
    """Says now and then how far counting is."""
    start = said = time.monotonic()

    def progress(counted: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= SECONDS_BETWEEN_LINES and counted < n_tokens:
            said = now
            left = (now - start) / counted * (n_tokens - counted)
            say(f"counted {counted:,} of {n_tokens:,} tokens  ETA {left:.0f} s")

    return progress
