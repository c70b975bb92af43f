"""A LightningModule of the user's on a corpus: evaluated during and after training, like a model of lmexp's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmexp.evaluation.figures import rows_of
from lmexp.evaluation.row import read_summary
from lmexp.evaluation.samples_file import read_samples
from tests.end_to_end.command import TINY, lmexp, only_run, rows, write_corpus

MINE = """
import pytorch_lightning as pl, torch
from torch import nn

class Bigram(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.logits = nn.Embedding(257, 257)
    def forward(self, tokens):
        return self.logits(tokens)
    def training_step(self, batch, index):
        logits = self(batch.tokens)
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)
"""


def test_a_module_of_ones_own_leaves_tables_and_rows_during_and_after_training(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    given = [word for word in TINY if not word.startswith(("model.", "scheduler.", "tokenizer", "trainer.val"))]
    custom = ("task=custom", "task.target=mine:Bigram", "tokenizer=byte", "evaluation.perplexity.every_n_steps=4")
    lmexp(tmp_path, "train", *given, *custom, plugins=("mine",))
    run = only_run(tmp_path / "outputs")
    logged = [row["evaluation/perplexity/loss"] for row in rows(run / "metrics.jsonl") if row["step"] % 4 == 0]
    assert len(logged) == 3
    assert logged[-1] < logged[0]
    summary = read_summary(run / "evaluation" / "summary.json")
    samples = read_samples(run / "evaluation" / "perplexity" / "samples.parquet")
    assert summary.tables == {"perplexity": samples.header.key.digest}
    assert samples.header.key.model
    assert rows_of(samples, seed=0) == summary.rows
    by_name = {row.name: row.estimate for row in summary.rows}
    assert by_name["perplexity/loss"] == pytest.approx(logged[-1], rel=1e-6)  # no validation: the last is the best
