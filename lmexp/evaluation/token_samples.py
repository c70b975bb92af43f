"""From segments to a samples table. Samples are documents, or disjoint windows where documents are few.

Scores are first put at the places of their tokens, then summed over each sample in the order of the text. So a text
that was shown to the model in other windows has the same samples.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmexp.evaluation.samples import COUNT, COUNTS, NUMBER, NUMBERS, lists_of, make_table
from lmexp.evaluation.sums import Floats, Ints

if TYPE_CHECKING:
    from lmexp.data.cache import TokenSplit

Decode = Callable[[Sequence[int]], str]

WHITESPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class TokenScores:
    """What was found for each token of a split; (places,), of no meaning at places that weren't scored."""

    logprob: Floats
    correct: Ints
    seen: Ints
    """Tokens that it was predicted from."""
    latency: Floats
    """Its share of the seconds."""


class TokenSamples:
    """The samples of a split, and which tokens each has."""

    def __init__(self, segments: Any, split: TokenSplit, decode: Decode, cluster: str) -> None:
        """segments: table of all of them, in the order of the text, from disjoint windows.

        cluster: what a sample is, document or window.
        """
        place, n_tokens, n_bytes, document = (
            segments.column(name).to_numpy() for name in ("place", "n_tokens", "n_bytes", "document")
        )
        ids, member = np.unique(segments.column(cluster).to_numpy(), return_inverse=True)
        self.names = [f"{cluster}-{number}" for number in ids.tolist()]
        n_words, documents = count_words(place, n_tokens, n_bytes, document, split, decode)
        order = np.argsort(member, kind="stable")
        self.places = ranges(place[order], n_tokens[order])
        """Of each scored token, sample by sample."""
        self.member = np.repeat(member[order], n_tokens[order])
        """Number of the sample of each of these."""
        self.texts = documents
        if cluster == "window":
            self.texts = [""] * len(ids)
            for number, start, stop in stretches(member[order], place[order], n_tokens[order]):
                self.texts[number] += decode(split.tokens[start:stop].tolist())
        self.counts = {
            name: np.bincount(member, values, len(ids)).astype(np.int64)
            for name, values in (("n_tokens", n_tokens), ("n_bytes", n_bytes), ("n_words", n_words))
        }

    def sums(self, values: NDArray[Any]) -> Floats:
        """Sum over the tokens of each sample, (samples,). values: (places,)."""
        return np.bincount(self.member, values[self.places], len(self.names)).astype(np.float64)

    def table(self, scores: TokenScores) -> Any:
        """The columns of a samples table. n_correct is nan where the logprob is."""
        logprob, correct = self.sums(scores.logprob), self.sums(scores.correct)
        correct[np.isnan(logprob)] = np.nan  # a nan has no first choice
        return make_table(
            {
                "sample_id": self.names,
                "cluster_id": self.names,
                "target": self.texts,
                "score": correct / self.counts["n_tokens"],
                "logprob": logprob,
                "logprobs": lists_of(scores.logprob[self.places], self.counts["n_tokens"]),
                **self.counts,
                "latency": self.sums(scores.latency),
                "n_correct": correct,
            },
            {"n_words": COUNT, "n_correct": NUMBER},
        )

    def by_position(self, scores: TokenScores, sequence_length: int) -> dict[str, tuple[Any, Any]]:
        """Column -> type and values: nats and tokens of each sample where 1, 2 to 3, 4 to 7, ... tokens were seen."""
        n, n_buckets = len(self.names), sequence_length.bit_length()
        bucket = np.frexp(scores.seen[self.places])[1] - 1  # floor(log2(seen))
        cell = self.member * n_buckets + bucket
        lengths = np.full(n, n_buckets)
        nats = np.bincount(cell, -scores.logprob[self.places], n * n_buckets).astype(np.float64)
        n_tokens = np.bincount(cell, minlength=n * n_buckets).astype(np.int64)
        return {
            "position_nats": (NUMBERS, lists_of(nats, lengths)),
            "position_tokens": (COUNTS, lists_of(n_tokens, lengths)),
        }


def token_scores(segments: Any) -> TokenScores:
    """Scores at the places of their tokens, from a table of segments."""
    place, n_tokens, seen = (segments.column(name).to_numpy() for name in ("place", "n_tokens", "seen"))
    places = ranges(place, n_tokens)
    size = int(places.max(initial=0)) + 1

    def spread(values: NDArray[Any]) -> NDArray[Any]:
        found = np.zeros(size, values.dtype)
        found[places] = values
        return found

    def flat(name: str) -> NDArray[Any]:
        values: NDArray[Any] = segments.column(name).combine_chunks().flatten().to_numpy()
        return values

    return TokenScores(
        logprob=spread(flat("logprobs")),
        correct=spread(flat("correct")),
        seen=spread(ranges(seen, n_tokens)),
        latency=spread(np.repeat(segments.column("latency").to_numpy() / np.maximum(n_tokens, 1), n_tokens)),
    )


def count_words(
    place: Ints, n_tokens: Ints, n_bytes: Ints, document: Ints, split: TokenSplit, decode: Decode
) -> tuple[Ints, list[str]]:
    """Words of each segment, and the text of each document. Segments are in the order of the text.

    Those of a document sum to len(re.split(r"\\s+", text)), as lm-eval counts: a word begins with the document, and
    with every stretch of whitespace, in the segment where that begins.
    """
    n_words, texts = np.zeros(len(place), np.int64), []
    starts = [*np.flatnonzero(np.diff(document, prepend=-1)).tolist(), len(document)]
    for first, stop in pairwise(starts):
        text = decode(split.tokens[place[first] : place[stop - 1] + n_tokens[stop - 1]].tolist())
        ends = np.cumsum(n_bytes[first:stop])
        where = np.searchsorted(ends, word_starts(text), side="right").clip(max=stop - first - 1)
        n_words[first:stop] = np.bincount(where, minlength=stop - first)
        texts.append(text)
    return n_words, texts


def word_starts(text: str) -> Ints:
    """The UTF-8 byte where each word begins: the text itself, and each stretch of whitespace.

    >>> word_starts("één  twee ").tolist()
    [0, 5, 11]
    """
    characters = np.array([0, *(found.start() for found in WHITESPACE.finditer(text))])
    if text.isascii():
        return characters
    code = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    n_bytes = 1 + (code >= 0x80) + (code >= 0x800) + (code >= 0x10000).astype(np.int64)
    before: Ints = (np.cumsum(n_bytes) - n_bytes)[np.minimum(characters, len(code) - 1)]
    return before


def ranges(starts: Ints, lengths: Ints) -> Ints:
    """start, start + 1, ... of each, one after another.

    >>> ranges(np.array([3, 10]), np.array([2, 3]))
    array([ 3,  4, 10, 11, 12])
    """
    ends = np.cumsum(lengths)
    found: Ints = np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1] if len(ends) else 0)
    return found


def stretches(member: Ints, place: Ints, n_tokens: Ints) -> Iterator[tuple[int, int, int]]:
    """Sample, first place and the one after the last of segments that follow each other in one sample."""
    new = (np.diff(member, prepend=-1) != 0) | (place != np.roll(place + n_tokens, 1))
    starts = [*np.flatnonzero(new).tolist(), len(member)]
    for first, stop in pairwise(starts):
        yield int(member[first]), int(place[first]), int(place[stop - 1] + n_tokens[stop - 1])
