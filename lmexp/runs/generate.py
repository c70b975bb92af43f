"""Text from a run's model, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lmexp.runs.evaluate import choose_device
from lmexp.runs.load import load
from lmexp.runs.ranks import Ranks
from lmexp.training.config import HardwareConfig

if TYPE_CHECKING:
    from lmexp.config.schema import GenerateConfig


def generate(run_dir: Path, config: GenerateConfig) -> Iterator[str]:
    """The prompt and its continuation in pieces; several texts one after the other, with seeds seed, seed + 1, ..."""
    device = choose_device(HardwareConfig(accelerator=config.accelerator), Ranks())
    loaded = load(run_dir, weights=config.weights, device=device)
    for index in range(config.n_samples):
        if config.n_samples > 1:
            yield f"--- seed {config.seed + index}\n"
        yield config.prompt
        tokens: list[int] = []
        shown = ""
        stream = loaded.stream(
            config.prompt,
            seed=config.seed + index,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
        )
        for token in stream:
            tokens.append(token)
            text = loaded.tokenizer.decode(tokens)
            if not text.endswith("�"):  # half a character so far
                yield text[len(shown) :]
                shown = text
        yield loaded.tokenizer.decode(tokens)[len(shown) :] + "\n"
