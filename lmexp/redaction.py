"""Which strings are secrets, and plain data or text without them.

A secret is: the value of an environment variable whose name says so (HF_TOKEN, WANDB_API_KEY, ...); a value
in plain data whose key says so (`password`, `hf_token`); the password in a URL; a string in the shape of a
well-known kind of token. It is better to redact too much than too little, except that words of our field
(`eos_token`, `max_tokens`, `n_key_value_head`) don't name secrets.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

REDACTED = "[redacted]"
SHORTEST_SECRET = 8
"""Characters. A shorter value would also hide ordinary words that happen to equal it."""

_T = TypeVar("_T")

_ALWAYS_SECRET = {"secret", "secrets", "password", "passwd", "passphrase", "credential", "credentials"}
_KEYS = {"api", "access", "private", "secret", "auth", "encryption", "signing", "ssh", "license"}
_PLAIN_TOKENS = re.compile(
    "additional|bos|cls|end|eos|eot|fim|image|mask|max|middle|min|new|next|num|pad|prefix|sep|special|start|stop|suffix"
    "|unk|word"
)
_SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{30,}|sk-[A-Za-z0-9]{20,}|AKIA[0-9A-Z]{16})\b"
)
_URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s@]+(?=@)")


def is_secret_variable(name: str) -> bool:
    """Whether an environment variable of this name holds a secret.

    >>> [is_secret_variable(name) for name in ("HF_TOKEN", "TOKENIZERS_PARALLELISM", "SSH_KEY_FILE")]
    [True, False, False]
    """
    words = _words(name)
    if not words or words[-1] in ("file", "path", "dir"):
        return False
    endings = ("token", "secret", "password", "passwd", "passphrase", "apikey")
    return any(w in _ALWAYS_SECRET or w in ("key", "keys") or w.endswith(endings) for w in words)


def is_secret_key(name: str) -> bool:
    """Whether a key of a config names a secret.

    >>> [is_secret_key(name) for name in ("hf_token", "eos_token", "api_key", "n_key_value_head")]
    [True, False, True, False]
    """
    words = _words(name)
    if not words:
        return False
    *before, last = words
    if last == "token":
        return not any(_PLAIN_TOKENS.fullmatch(word) for word in before)
    if last in ("key", "keys"):
        return bool(_KEYS.intersection(before))
    return last in _ALWAYS_SECRET or last.endswith(("password", "apikey", "secret"))


def secret_values(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Secrets in the environment, the longest first so that none is replaced only in part."""
    variables = os.environ if environment is None else environment
    found = {v for k, v in variables.items() if is_secret_variable(k) and len(v) >= SHORTEST_SECRET}
    escaped = {json.dumps(value)[1:-1] for value in found}  # as they stand in JSON text
    return tuple(sorted(found | escaped, key=lambda value: (-len(value), value)))


def redact_text(text: str, secrets: Iterable[str] | None = None) -> str:
    """text with every secret replaced; secrets: those of the environment unless given."""
    for secret in secret_values() if secrets is None else secrets:
        text = text.replace(secret, REDACTED)
    return _SHAPES.sub(REDACTED, _URL_PASSWORD.sub(rf"\1{REDACTED}", text))


def redact(data: _T, secrets: Iterable[str] | None = None) -> _T:
    """A copy of nested dicts, lists, tuples and strings with every secret replaced.

    >>> redact({"args": {"hf_token": "abc", "url": "https://me:pw@host/x"}, "eos_token": "<eos>"}, secrets=())
    {'args': {'hf_token': '[redacted]', 'url': 'https://me:[redacted]@host/x'}, 'eos_token': '<eos>'}
    """
    known = secret_values() if secrets is None else tuple(secrets)
    redacted: _T = _redact(data, known)
    return redacted


def _redact(data: Any, secrets: tuple[str, ...]) -> Any:
    if isinstance(data, str):
        return redact_text(data, secrets)
    if isinstance(data, Mapping):
        return {
            redact_text(k, secrets) if isinstance(k, str) else k: (
                REDACTED if _is_named_secret(k, v) else _redact(v, secrets)
            )
            for k, v in data.items()
        }
    if isinstance(data, list):
        return [_redact(item, secrets) for item in data]
    if isinstance(data, tuple):
        return tuple(_redact(item, secrets) for item in data)
    return data


def _is_named_secret(key: Any, value: Any) -> bool:
    """Whether the key says that this scalar is a secret. Flags, empty and missing values are not."""
    if not isinstance(key, str) or isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    return value != "" and is_secret_key(key)


def _words(name: str) -> list[str]:
    """Lower-case words of snake_case, kebab-case, dotted and camelCase names."""
    return [w.lower() for w in re.split(r"[^A-Za-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)) if w]
