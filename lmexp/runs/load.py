"""A run's model as Python objects: `lmexp.load(path)`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lmexp.config.freeze import read_record
from lmexp.errors import CheckpointError, RunError
from lmexp.models.decoding.config import DecodingConfig
from lmexp.models.decoding.texts import stream_texts
from lmexp.paths import CHECKPOINTS_DIR, TOKENIZER_JSON
from lmexp.tasks.config import CustomTaskConfig
from lmexp.tokenizers import base as tokenizers
from lmexp.tokenizers.base import Tokenizer
from lmexp.training import checkpoints, initial_weights
from lmexp.training.trainer import build_model, check_fits

if TYPE_CHECKING:
    from lmexp.config.schema import TrainConfig


@dataclass(kw_only=True, slots=True)
class LoadedModel:
    """A trained model with its tokenizer and config, in evaluation mode."""

    model: torch.nn.Module
    """tokens (batch, seq) -> logits (batch, seq, vocab)."""
    tokenizer: Tokenizer
    config: TrainConfig
    step: int
    """Optimizer step of the checkpoint."""
    checkpoint: Path

    def generate(self, prompt: str = "", *, seed: int = 0, **settings: Any) -> str:
        """A continuation of prompt (without it). settings: those of DecodingConfig, e.g. max_new_tokens=50."""
        return "".join(self.stream(prompt, seed=seed, **settings))

    def generate_batch(self, prompts: Sequence[str], *, seed: int = 0, **settings: Any) -> list[str]:
        """A continuation of each prompt, the same as generate(prompt, seed=seed, ...), computed all at once."""
        texts = [""] * len(prompts)
        decoding = DecodingConfig(**settings)
        for piece in stream_texts(self.model, self.tokenizer, prompts, decoding, seeds=[seed] * len(prompts)):
            texts[piece.row] += piece.text
        return texts

    def stream(self, prompt: str = "", *, seed: int = 0, **settings: Any) -> Iterator[str]:
        """The continuation's text in pieces, as they come."""
        decoding = DecodingConfig(**settings)
        for piece in stream_texts(self.model, self.tokenizer, [prompt], decoding, seeds=[seed]):
            yield piece.text


def load(path: str | Path, *, weights: str = "best", device: str | torch.device = "cpu") -> LoadedModel:
    """The model of a run folder. Reads safetensors only, never a pickle.

    weights: of which checkpoint: best, latest, or the number of its step.
    """
    run_dir = Path(path)
    record = read_record(run_dir)
    if isinstance(record.config.task, CustomTaskConfig):
        raise RunError(f"{run_dir}: its task is a LightningModule of the user's; load that with your own code")
    folder = checkpoints.find(run_dir / CHECKPOINTS_DIR, weights)
    tokenizer = tokenizers.load(run_dir / TOKENIZER_JSON)
    check_fits(record.config, tokenizer.vocab_size, folder)
    model = build_model(record.config, tokenizer.vocab_size)
    if initial_weights.wanted(record.config, resumed=True):
        if record.initial_weights is None:
            raise CheckpointError(
                f"{run_dir}: its checkpoints hold adapters alone, and run.json doesn't say of which weights; lmexp "
                f"didn't write it"
            )
        initial_weights.load(model, Path(record.initial_weights["path"]), record.initial_weights["sha256"])
    try:
        model.load_state_dict(checkpoints.load_weights(folder))
    except RuntimeError as error:
        raise CheckpointError(f"{folder}: its weights aren't those of the model in {run_dir}: {error}") from None
    step = checkpoints.read_manifest(folder).step
    return LoadedModel(
        model=model.to(device).eval(), tokenizer=tokenizer, config=record.config, step=step, checkpoint=folder
    )
