"""Items, a tiny model and a tokenizer for the evaluations that ask, and a program that asks as one rank of several.

python -m tests.evaluation.asking FOLDER RANK WORLD_SIZE BATCH_SIZE ...  # writes a table for each below FOLDER/RANK
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from lmexp.evaluation import collect
from lmexp.evaluation.benchmarks.config import MultipleChoiceConfig
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.row import Row
from lmexp.evaluation.runner import run_evaluations
from lmexp.evaluation.samples import Samples
from lmexp.tokenizers.config import ByteTokenizerConfig
from tests.evaluation.tiny import TinyModel

VOCAB = 257
TOKENIZER = ByteTokenizerConfig().train([])

QUESTIONS = [
    {
        "q": f"What comes after {i}{' and again' * (i % 5)}?",
        "choices": [str(i + 1), f"été {i}", "漢字" * (1 + i % 3), "none of these"][: 2 + i % 3],
        "label": i % 2,
        "kind": "even" if i % 2 == 0 else "odd",
        "source": i // 4,
    }
    for i in range(30)
]


class Byte(nn.Module):
    """A causal model of bytes with random weights, in float32."""

    def __init__(self, length: int = 64) -> None:
        super().__init__()
        self.inner = TinyModel(VOCAB, dtype=torch.float32)
        self.max_sequence_length = length

    def forward(self, tokens: Tensor) -> Tensor:
        assert tokens.shape[1] <= self.max_sequence_length
        logits: Tensor = self.inner(tokens)
        return logits


class Uniform(nn.Module):
    """Every token is as likely."""

    max_sequence_length = 1000

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.zeros(*tokens.shape, VOCAB)


def write(folder: Path, rows: Sequence[Any], name: str = "items.jsonl") -> str:
    """A file of JSON lines; its path."""
    path = folder / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def context(model: nn.Module | None = None, **settings: Any) -> EvaluationContext:
    return EvaluationContext(model=model or Byte(), cache=None, sequence_length=64, tokenizer=TOKENIZER, **settings)


def run(config: Any, given: EvaluationContext | None = None) -> tuple[dict[str, Row], Samples]:
    """Rows by figure, and the table."""
    given = given or context()
    rows = run_evaluations({"it": config}, given)
    return {row.name.removeprefix("it/"): row for row in rows}, given.samples["it"]


def asking(path: str, **options: Any) -> MultipleChoiceConfig:
    """QUESTIONS in a file, asked in several ways at once."""
    return MultipleChoiceConfig(
        path=path,
        **{
            "prompt": "{q}\n{*}\n",
            "prompts": {"short": "{*}"},
            "n_shots": 1,
            "seeds": [0, 1],
            "option_orders": 2,
            "pmi": True,
            "slice": "{kind}",
            **options,
        },
    )


def main() -> None:
    folder = Path(sys.argv[1])
    rank, world_size, *batch_sizes = (int(argument) for argument in sys.argv[2:])
    torch.set_num_threads(1)
    if world_size > 1:
        distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=world_size)
    collect.SECONDS = 0.0  # each batch is kept at once
    for size in batch_sizes:
        given = context(rank=rank, world_size=world_size, folder=folder / f"evaluation-{size}", model_digest="0" * 64)
        given.progress = lambda what, done, total: print(f"{done}/{total}", flush=True)
        run(asking(str(folder / "items.jsonl"), batch_size=size), given)
    if world_size > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
