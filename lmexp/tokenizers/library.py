"""Hugging Face's tokenizers, imported where it is needed."""

from __future__ import annotations

import functools
import os
import sys
from typing import Any


@functools.cache
def library() -> Any:
    """The package `tokenizers`.

    Its threads don't survive a fork: a child process that uses them hangs, and unless this variable is set, the library
    may warn in every child. Here the parent keeps its threads; a child works without them.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if sys.platform != "win32":
        os.register_at_fork(after_in_child=lambda: os.environ.update(TOKENIZERS_PARALLELISM="false"))
    import tokenizers

    return tokenizers


def byte_level(model: Any) -> Any:
    """The library's tokenizer around a model: GPT-2's split into words, then bytes."""
    pipeline = library().Tokenizer(model)
    pipeline.pre_tokenizer = library().pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return pipeline
