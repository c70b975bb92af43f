"""nanoGPT's README CPU run as one would write it by hand: plain PyTorch, nothing of lmexp.

Measures the loss over the whole validation split that the recipe reaches: 4 layers, 4 heads, width 128, block 64,
batch 12, 2,000 steps, dropout 0, no biases, the last 10% of the text held out. The model, the initial weights, the
random offsets and the learning rate are those of https://github.com/karpathy/nanoGPT (model.py, train.py,
config/train_shakespeare_char.py); two things differ on purpose: it stops after exactly 2,000 steps (train.py takes
2,001), and it scores every validation character but the first once (train.py estimates the loss from 20 batches).

    python -m benchmarks.nanogpt_loop FILE [--seeds 1 2 3] [--max-steps 2000]

FILE: tinyshakespeare's input.txt; without it LMEXP_SHARED_DATA/tinyshakespeare/input.txt.
benchmarks/shakespeare_char.py compares lmexp with it.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from benchmarks.machine import machine, tinyshakespeare


@dataclass
class Recipe:
    """The README's command line for a CPU, and what config/train_shakespeare_char.py adds to it."""

    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    block_size: int = 64
    batch_size: int = 12
    max_iters: int = 2000
    learning_rate: float = 1e-3
    min_lr: float = 1e-4
    warmup_iters: int = 100
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.1
    grad_clip: float = 1.0


class Attention(nn.Module):
    """Causal self-attention, no bias, no dropout."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.c_attn = nn.Linear(recipe.n_embd, 3 * recipe.n_embd, bias=False)
        self.c_proj = nn.Linear(recipe.n_embd, recipe.n_embd, bias=False)
        self.n_head, self.n_embd = recipe.n_head, recipe.n_embd

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.size()
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        q, k, v = (z.view(b, t, self.n_head, c // self.n_head).transpose(1, 2) for z in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).contiguous().view(b, t, c))


class MLP(nn.Module):
    """Four times as wide in the middle, exact GELU."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.c_fc = nn.Linear(recipe.n_embd, 4 * recipe.n_embd, bias=False)
        self.c_proj = nn.Linear(4 * recipe.n_embd, recipe.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))


class Block(nn.Module):
    """Pre-norm block."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(recipe.n_embd, bias=False)
        self.attn = Attention(recipe)
        self.ln_2 = nn.LayerNorm(recipe.n_embd, bias=False)
        self.mlp = MLP(recipe)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """nanoGPT's model: learned positions, tied embeddings."""

    def __init__(self, recipe: Recipe, vocab_size: int) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocab_size, recipe.n_embd)
        self.wpe = nn.Embedding(recipe.block_size, recipe.n_embd)
        self.h = nn.ModuleList(Block(recipe) for _ in range(recipe.n_layer))
        self.ln_f = nn.LayerNorm(recipe.n_embd, bias=False)
        self.lm_head = nn.Linear(recipe.n_embd, vocab_size, bias=False)
        self.wte.weight = self.lm_head.weight
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, mean=0.0, std=0.02)
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, mean=0.0, std=0.02 / math.sqrt(2 * recipe.n_layer))

    def forward(self, idx: Tensor) -> Tensor:
        """idx (b, t) -> logits (b, t, vocab)."""
        x = self.wte(idx) + self.wpe(torch.arange(idx.size(1)))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


def get_batch(data: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Blocks at random offsets, drawn with replacement."""
    offsets = torch.randint(len(data) - recipe.block_size, (recipe.batch_size,))
    x = torch.stack([data[i : i + recipe.block_size] for i in offsets])
    y = torch.stack([data[i + 1 : i + 1 + recipe.block_size] for i in offsets])
    return x, y


def get_lr(it: int, recipe: Recipe) -> float:
    """Linear warm-up, then half a cosine down to min_lr at max_iters."""
    if it < recipe.warmup_iters:
        return recipe.learning_rate * (it + 1) / (recipe.warmup_iters + 1)
    ratio = (it - recipe.warmup_iters) / (recipe.max_iters - recipe.warmup_iters)
    return recipe.min_lr + 0.5 * (1.0 + math.cos(math.pi * ratio)) * (recipe.learning_rate - recipe.min_lr)


def configure_optimizer(model: GPT, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW that decays matrices and embeddings, not the norms."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas)


@torch.no_grad()
def validation_loss(model: GPT, data: Tensor, block_size: int) -> float:
    """Mean loss over every character but the first, in disjoint blocks, the last one shorter."""
    model.eval()
    total = 0.0
    for start in range(0, len(data) - 1, block_size):
        y = data[start + 1 : start + 1 + block_size]
        logits = model(data[None, start : start + len(y)])[0]
        total += F.cross_entropy(logits, y, reduction="sum").item()
    return total / (len(data) - 1)


def train(text: str, seed: int, recipe: Recipe | None = None, step_seconds: list[float] | None = None) -> float:
    """Train on the first 90% of text; the loss over the whole rest, in nats per character.

    step_seconds: gets the time of each optimizer step.
    """
    recipe = recipe or Recipe()
    alphabet = sorted(set(text))
    index = {character: i for i, character in enumerate(alphabet)}
    data = torch.tensor([index[character] for character in text])
    train_data, val_data = data[: int(0.9 * len(data))], data[int(0.9 * len(data)) :]

    torch.manual_seed(seed)
    model = GPT(recipe, len(alphabet))
    optimizer = configure_optimizer(model, recipe)
    for it in range(recipe.max_iters):
        started = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = get_lr(it, recipe)
        x, y = get_batch(train_data, recipe)
        logits = model(x)
        loss = F.cross_entropy(logits.view(-1, logits.size(-1)), y.view(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step_seconds is not None:
            step_seconds.append(time.perf_counter() - started)
    return validation_loss(model, val_data, recipe.block_size)


def main() -> None:
    """Train once for each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, help="tinyshakespeare's input.txt")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--max-steps", type=int, default=Recipe.max_iters)
    arguments = parser.parse_args()
    text = tinyshakespeare(arguments.file).read_text(encoding="utf-8")
    print(machine())
    losses = []
    for seed in arguments.seeds:
        step_seconds: list[float] = []
        losses.append(train(text, seed, Recipe(max_iters=arguments.max_steps), step_seconds))
        print(
            f"seed {seed}: loss {losses[-1]:.4f}, median step {statistics.median(step_seconds) * 1e3:.1f} ms",
            flush=True,
        )
    print(f"mean loss {statistics.fmean(losses):.4f}")


if __name__ == "__main__":
    main()
