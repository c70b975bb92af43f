"""From logits to tokens: greedy, or sampled with temperature, top-k and top-p (arXiv:1904.09751)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from lmexp.errors import ConfigError, LmexpError
from lmexp.models.base import LanguageModel, as_language_model


def generate(
    model: nn.Module,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    eos_id: int | None = None,
) -> Iterator[int]:
    """The tokens that continue prompt, one by one as they are made.

    temperature, top_k, top_p: see next_token_probabilities. seed: same seed, same tokens; the global random
    state is neither read nor moved. eos_id: the token after which to stop; it is yielded too. Where the text
    outgrows the model, the model sees its last max_sequence_length tokens. Until the iterator ends or is
    closed, the model is in eval mode; then its mode is as before.
    """
    language_model = as_language_model(model)
    if len(prompt) == 0:
        raise ConfigError("prompt has no token; expected one at least, e.g. the tokenizer's eos_id to start a document")
    _check(temperature, top_k, top_p)

    def stream() -> Iterator[int]:
        device = next((t.device for t in chain(model.parameters(), model.buffers())), torch.device("cpu"))
        generator = torch.Generator().manual_seed(seed)
        tokens = list(prompt)
        training = model.training
        model.eval()
        try:
            for _ in range(max_new_tokens):
                logits = _next_logits(language_model, tokens, device)
                probabilities = next_token_probabilities(logits, temperature=temperature, top_k=top_k, top_p=top_p)
                token = int(torch.multinomial(probabilities, 1, generator=generator))
                tokens.append(token)
                yield token
                if token == eos_id:
                    return
        finally:
            model.train(training)

    return stream()


def next_token_probabilities(
    logits: Tensor, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """What the next token is drawn from: (..., vocab) probabilities in float64.

    logits: (..., vocab), divided by temperature; 0 puts all on the likeliest token. top_k keeps the k
    likeliest tokens; top_p, after it, the smallest set of likeliest tokens that holds that share of what is
    left. Of equally likely tokens those with smaller ids come first.

    >>> next_token_probabilities(torch.tensor([0.5, 0.3, 0.2]).log(), top_p=0.6)
    tensor([0.6250, 0.3750, 0.0000], dtype=torch.float64)
    """
    _check(temperature, top_k, top_p)
    logits = logits.double()
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).double()
    scaled = (logits - logits.amax(dim=-1, keepdim=True)) / temperature  # 0 at most: tiny temperatures stay finite
    ordered, order = scaled.sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        ordered[..., top_k:] = float("-inf")
    probabilities = ordered.softmax(dim=-1)
    if top_p is not None:
        before = probabilities.cumsum(dim=-1) - probabilities  # share of the likelier tokens
        probabilities = probabilities.masked_fill(before >= top_p, 0)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, order, probabilities)


@torch.no_grad()
def _next_logits(model: LanguageModel, tokens: list[int], device: torch.device) -> Tensor:
    """Logits of the token after tokens, (vocab,), on the CPU: there a seed draws the same everywhere."""
    window = torch.tensor([tokens[-model.max_sequence_length :]], device=device)  # (1, seq)
    logits = model(window)[0, -1].cpu()
    if not bool(torch.isfinite(logits.max())):  # the largest is nan where any is nan
        raise LmexpError("the model's logits are not finite: its weights are damaged or its training diverged")
    return logits


def _check(temperature: float, top_k: int | None, top_p: float | None) -> None:
    if not 0 <= temperature < float("inf"):
        raise ConfigError(f"temperature is {temperature}; expected 0 (always the likeliest token) or more")
    if top_k is not None and top_k < 1:
        raise ConfigError(f"top_k is {top_k}; expected at least 1, or null for all tokens")
    if top_p is not None and not 0 < top_p <= 1:
        raise ConfigError(f"top_p is {top_p}; expected a share above 0 and up to 1, or null for all tokens")
