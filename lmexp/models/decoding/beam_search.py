"""Beam search, with the semantics of Hugging Face's generate (transformers 5, GenerationMixin._beam_search)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lmexp.models.base import evaluation_mode
from lmexp.models.decoding.config import DecodingConfig
from lmexp.models.decoding.next_logits import NextLogits
from lmexp.models.decoding.sampler import check_prompts
from lmexp.models.decoding.sampling import penalize_repetition

NEVER = -1e9
"""Log-probability of what must not be chosen; finite, so that it can be added to."""

HasEnded = Callable[[list[int]], bool]
"""Tokens of a continuation -> whether it ends here."""


class Beam(NamedTuple):
    """A continuation that has ended."""

    score: float
    """Its log-probability over the number of its tokens to the power of length_penalty."""
    tokens: list[int]
    """With eos_id at its end, where that ended it."""


def beam_search(
    model: nn.Module,
    prompt: Sequence[int],
    decoding: DecodingConfig,
    *,
    eos_id: int | None = None,
    has_ended: HasEnded | None = None,
) -> list[Beam]:
    """The n_beams best continuations of prompt that were found, best first.

    One ends with eos_id, where has_ended says so, or with max_new_tokens. repetition_penalty acts on
    log-probabilities here, as in Hugging Face's.
    """
    check_prompts([prompt])
    n_beams, start = decoding.n_beams, len(prompt)
    finished: list[Beam] = []
    with evaluation_mode(model):
        following = NextLogits(model, [prompt] * n_beams, max_new_tokens=decoding.max_new_tokens)
        scores = torch.full((n_beams,), NEVER)  # log-probability of each beam
        scores[0] = 0  # all beams are equal: only the first may be continued
        for length in range(1, decoding.max_new_tokens + 1):
            totals = scores[:, None] + _log_probabilities(following, decoding)  # (n_beams, vocab)
            n_candidates = min(2 * n_beams, totals.numel())  # as many may end as go on
            best, flat = totals.flatten().topk(n_candidates)
            rows, tokens = (flat // totals.shape[1]).tolist(), (flat % totals.shape[1]).tolist()
            texts = [[*following.texts[row][start:], token] for row, token in zip(rows, tokens, strict=True)]
            ended = [
                length == decoding.max_new_tokens or text[-1] == eos_id or (has_ended is not None and has_ended(text))
                for text in texts
            ]
            if not (len(finished) == n_beams and decoding.early_stopping == "true"):
                divisor = length**decoding.length_penalty
                new = [Beam(best[i].item() / divisor, texts[i]) for i in range(n_beams) if ended[i]]
                finished = sorted([*finished, *new], key=lambda beam: -beam.score)[:n_beams]
            scores, chosen = (best + torch.tensor(ended) * NEVER).topk(n_beams)
            if all(ended) or _is_over(finished, scores[0].item(), length, decoding):
                break
            following.reorder([rows[i] for i in chosen.tolist()])
            following.extend([tokens[i] for i in chosen.tolist()])
    return finished


def _log_probabilities(following: NextLogits, decoding: DecodingConfig) -> Tensor:
    """(n_beams, vocab) in float32."""
    log_probabilities = following().float().log_softmax(dim=-1)
    if decoding.repetition_penalty == 1:
        return log_probabilities
    rows = zip(log_probabilities, following.texts, strict=True)
    return torch.stack([penalize_repetition(row, text, decoding.repetition_penalty) for row, text in rows])


def _is_over(finished: list[Beam], best: float, length: int, decoding: DecodingConfig) -> bool:
    """Whether no beam that goes on, of log-probability best at most, is looked for among the best any more."""
    if len(finished) < decoding.n_beams:
        return False
    if decoding.early_stopping == "true":
        return True
    longest = decoding.early_stopping == "never" and decoding.length_penalty > 0
    possible: float = best / (decoding.max_new_tokens if longest else length) ** decoding.length_penalty
    return possible <= finished[-1].score
