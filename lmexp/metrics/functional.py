"""How well a model predicts tokens: pure functions of logits, targets, sums and counts."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from lmexp.errors import DataError
from lmexp.metrics.ignore import IGNORE


def token_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of each target in nats, 0 where the target is IGNORE.

    logits: (..., vocab), targets: (...) int64 -> (...) in fp32, or float64 where logits are. A target that is
    neither a token id nor IGNORE is an error: a DataError here, on CUDA the kernel's own assertion, which
    doesn't make the host wait.

    >>> token_nats(torch.zeros(2, 4), torch.tensor([3, IGNORE]))
    tensor([1.3863, 0.0000])
    """
    if targets.device.type != "cuda" and not torch.compiler.is_compiling():
        check_targets(targets, logits.shape[-1])
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, -2)  # (positions, vocab)
    nats = F.cross_entropy(wide, targets.flatten(), ignore_index=IGNORE, reduction="none")
    return nats.view(targets.shape)


def check_targets(targets: Tensor, vocab_size: int) -> None:
    """Raise DataError unless every target is a token id or IGNORE."""
    wrong = targets[(targets != IGNORE) & ((targets < 0) | (targets >= vocab_size))]
    if wrong.numel():
        raise DataError(
            f"targets holds {int(wrong[0])}; expected token ids from 0 to {vocab_size - 1}, or {IGNORE} for "
            f"none: the tokenizer and the model's vocabulary don't belong together"
        )


def perplexity(nats: Tensor, n_tokens: Tensor) -> Tensor:
    """exp(nats / n_tokens): a uniform choice among so many tokens would be as uncertain.

    nats, n_tokens: sums over everything measured. A mean of perplexities is not a perplexity.

    >>> perplexity(torch.tensor(10 * math.log(50)), torch.tensor(10)).round()
    tensor(50.)
    """
    return (nats / n_tokens).exp()


def bits_per_byte(nats: Tensor, n_bytes: Tensor) -> Tensor:
    """Cross-entropy in bits per UTF-8 byte of the text, comparable across tokenizers.

    nats, n_bytes: sums over everything measured; a token without bytes (end of text) adds its nats too.

    >>> bits_per_byte(torch.tensor(8 * math.log(2)), torch.tensor(4))
    tensor(2.)
    """
    return nats / n_bytes / math.log(2)  # in this order: int64 times a float would be fp32


def accuracy(n_correct: Tensor, n_tokens: Tensor) -> Tensor:
    """Share of targets that were the likeliest token.

    >>> accuracy(torch.tensor(3), torch.tensor(4))
    tensor(0.7500)
    """
    return n_correct / n_tokens
