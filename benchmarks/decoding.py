"""Tokens per second of greedy decoding: with our cache, without, in a batch, and transformers' generate.

    python -m benchmarks.decoding > benchmarks/results/decoding.md

Some minutes. All have the same weights and must give the same tokens; the exit code is 1 where they don't, or where the
cache doesn't pay. They take turns, so that what else the machine does hits all alike.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import machine
from lmexp.models.config import GPTConfig
from lmexp.models.decoding.config import DecodingConfig
from lmexp.models.decoding.sampler import sample
from lmexp.models.hf_weights import to_hf

VOCAB, SEQ = 8192, 512
PROMPT, NEW, BATCH = 64, 64, 8
"""Tokens of each prompt, tokens made, rows of a batch."""
ROUNDS = 5

Decode = Callable[[], list[list[int]]]


class Anew(nn.Module):
    """The model without its cache."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.max_sequence_length = SEQ

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.model(tokens)
        return logits


def ours(model: nn.Module, prompts: list[list[int]]) -> list[list[int]]:
    """The tokens that lmexp finds for each prompt, all at once."""
    found: list[list[int]] = [[] for _ in prompts]
    decoding = DecodingConfig(max_new_tokens=NEW, temperature=0)
    for row, token, _ in sample(model, prompts, decoding, seeds=[0] * len(prompts)):
        found[row].append(token)
    return found


def theirs(model: Any, prompts: list[list[int]]) -> list[list[int]]:
    """The tokens that transformers finds."""
    tokens = torch.tensor(prompts)
    with torch.no_grad():
        found = model.generate(
            tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=NEW, do_sample=False, pad_token_id=0
        )
    rows: list[list[int]] = found[:, PROMPT:].tolist()
    return rows


def decoders() -> dict[str, tuple[int, Decode]]:
    """Name -> rows that it decodes at once, and what decodes them."""
    torch.manual_seed(0)
    config = GPTConfig(n_layer=6, d_model=512, n_head=8, bias=True, init_std=0.1)
    model = config.build(vocab_size=VOCAB, sequence_length=SEQ).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import GPT2Config, GPT2LMHeadModel

        hf_config, weights = to_hf(config, VOCAB, SEQ, model.state_dict())
        hf = GPT2LMHeadModel(GPT2Config(**hf_config)).eval()
        hf.load_state_dict(weights, strict=False)  # the output matrix is tied
    prompts = torch.randint(VOCAB, (BATCH, PROMPT), generator=torch.Generator().manual_seed(0)).tolist()
    first = prompts[:1]
    return {
        "lmexp, cache": (1, lambda: ours(model, first)),
        "lmexp, no cache": (1, lambda: ours(Anew(model), first)),
        "transformers": (1, lambda: theirs(hf, first)),
        f"lmexp, cache, {BATCH} prompts": (BATCH, lambda: ours(model, prompts)),
        f"transformers, {BATCH} prompts": (BATCH, lambda: theirs(hf, prompts)),
    }


def main() -> int:
    """All of them, in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    chosen = decoders()
    answers = {name: decode() for name, (_, decode) in chosen.items()}  # warms up
    same = all(answer[0] == answers["lmexp, cache"][0] for answer in answers.values())
    same &= answers[f"lmexp, cache, {BATCH} prompts"] == answers[f"transformers, {BATCH} prompts"]
    rates: dict[str, list[float]] = {name: [] for name in chosen}
    for _ in range(rounds):
        for name, (n_rows, decode) in chosen.items():
            started = time.perf_counter()
            decode()
            rates[name].append(n_rows * NEW / (time.perf_counter() - started))
    base = rates["lmexp, cache"]
    lines = [
        "# Decoding",
        "",
        f"Greedy, {NEW} new tokens after {PROMPT}; a GPT of 6 blocks, d_model 512, vocabulary {VOCAB:,}, in float32; "
        f"threads: {torch.get_num_threads()}. Medians of {rounds} rounds in turns; the range in brackets. Ratios are "
        f"to lmexp with its cache and one prompt, medians of the rounds' ratios.",
        "",
        "| | tokens/s | ratio |",
        "|---|---|---|",
    ]
    ratios = {}
    for name, found in rates.items():
        ratios[name] = statistics.median(rate / other for rate, other in zip(found, base, strict=True))
        spread = f"({min(found):.0f} to {max(found):.0f})"
        lines.append(f"| {name} | {statistics.median(found):.0f} {spread} | {ratios[name]:.2f} |")
    lines += ["", f"Tokens are {'the same in all' if same else 'NOT the same'}.", "", machine(), ""]
    sys.stdout.write("\n".join(lines))
    return 0 if same and ratios["lmexp, no cache"] < 1 else 1


if __name__ == "__main__":
    sys.exit(main())
