"""Which strings are secrets, and plain data, text and output without them.

A secret is: the value of an environment variable whose name says so (HF_TOKEN, WANDB_API_KEY, ...), or that a config of
this process reads with `${oc.env:NAME}` (config/environment.py tells us); a value in plain data whose key says so
(`password`, `hf_token`); the password in a URL; a string in the shape of a well-known kind of token. It is better to
redact too much than too little, except that words of our field (`eos_token`, `max_tokens`, `n_key_value_head`) don't
name secrets.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import sys
from collections.abc import Hashable, Iterable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, TypeVar, get_args, get_type_hints
from urllib.parse import quote, quote_plus

REDACTED = "[redacted]"
SHORTEST_SECRET = 8
"""Characters. A shorter value would also hide ordinary words that happen to equal it."""

_MARK = "lmexp: a secret"
Secret = Annotated[str, _MARK]
"""Type of a config's field that holds a secret: it takes `${oc.env:NAME}` and nothing else, and its value is kept out
of everything that a run writes."""

_T = TypeVar("_T")

_read: dict[str, str] = {}
"""Environment variable that a config of this process reads -> its value."""

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


@cache
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


def secret_fields(schema: type) -> tuple[str, ...]:
    """Fields of a dataclass whose type is Secret, or holds it, as `Secret | None` and `list[Secret]` do."""
    return _secret_fields(schema)


@cache
def _secret_fields(schema: Hashable) -> tuple[str, ...]:
    return tuple(name for name, hint in get_type_hints(schema, include_extras=True).items() if _is_marked(hint))


def _is_marked(hint: Any) -> bool:
    return _MARK in getattr(hint, "__metadata__", ()) or any(_is_marked(part) for part in get_args(hint))


def learn(name: str, value: str) -> None:
    """From now on the value of this environment variable is a secret in this process, whatever the variable's name."""
    _read[name] = value


def secret_variables(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment variable -> its value, of those that hold a secret.

    environment: instead of this process's, and of what its configs read.
    """
    known = os.environ if environment is None else environment
    found = {name: value for name, value in known.items() if is_secret_variable(name)}
    if environment is None:
        found |= _read
    return {name: value for name, value in found.items() if len(value) >= SHORTEST_SECRET}


def secret_values(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Secrets in all forms in which text may hold them, the longest first so that none is replaced only in part."""
    found = {form for value in secret_variables(environment).values() for form in _forms(value)}
    return tuple(sorted(found, key=lambda form: (-len(form), form)))


@cache
def _forms(value: str) -> frozenset[str]:
    """A secret as such, each of its lines, and both as they stand in JSON, in Python, in a URL and in base64."""
    plain = [part for part in (value, *value.splitlines()) if len(part) >= SHORTEST_SECRET]
    return frozenset(form for part in plain for form in _written(part))


def _written(text: str) -> Iterator[str]:
    yield text
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield repr(text)[1:-1]
    yield repr(f"\"{text}'")[2:-3]  # with its quotes escaped, as in the repr of a text that has both kinds
    yield quote(text, safe="", errors="surrogateescape")
    yield quote(text, errors="surrogateescape")
    yield quote_plus(text, errors="surrogateescape")
    raw = text.encode("utf-8", errors="surrogateescape")
    yield base64.b64encode(raw).decode().rstrip("=")
    yield base64.urlsafe_b64encode(raw).decode().rstrip("=")


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


class _RedactedStream(io.TextIOWrapper):
    """A text stream that replaces the secrets in what is written to it."""

    def write(self, text: str) -> int:
        super().write(redact_text(text))
        return len(text)


def redact_output() -> None:
    """From now on sys.stdout and sys.stderr of this process replace secrets: in tracebacks, warnings and prints."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:  # not a notebook's, nor a test's
            stream.flush()
            redacted = _RedactedStream(
                stream.buffer,
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, redacted)


def _words(name: str) -> list[str]:
    """Lower-case words of snake_case, kebab-case, dotted and camelCase names."""
    return [w.lower() for w in re.split(r"[^A-Za-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)) if w]
