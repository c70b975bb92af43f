"""The text of a record: one of its fields, or several put into a template."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lmexp.data.sources.documents import NoDocument
from lmexp.errors import ConfigError
from lmexp.plugins import did_you_mean

PIECE = re.compile(r"(?P<escape>\{\{|\}\}|\\[nt\\])|\{(?P<field>[^{}]+)\}|(?P<lone>[{}])")
ESCAPES = {"{{": "{", "}}": "}", r"\n": "\n", r"\t": "\t", r"\\": "\\"}

LONGEST_NAME = 80
"""Characters of a field's name that a reason quotes."""
MISSING = object()
"""What value_at gives where there is nothing."""


class RecordText:
    """Makes the text of records.

    A field is a name or a path ("meta.title", "answers.0.text"); alternatives are divided by |, and the first that is
    there counts ("paragraphs|content"). In a template {field} stands for it, {{ and }} for braces, and \\n, \\t and
    \\\\ for what they are elsewhere, since a command line has no other way to write them. A list of texts is joined by
    line ends.

    >>> RecordText("text")({"text": ["one", "two"]})
    'one\\ntwo'
    >>> RecordText("", "{{{meta.title}}}: {body}")({"meta": {"title": "A"}, "body": "b"})
    '{A}: b'
    """

    def __init__(self, field: str, template: str | None = None) -> None:
        if template is None and not field:
            raise ConfigError("data.field is empty; expected the name of the field that holds the text")
        self.option = "data.field" if template is None else "data.template"
        self._pieces = [(None, field)] if template is None else _with_field(template)
        self.fields: dict[str, list[str]] = {name: _alternatives(name) for _, name in self._pieces if name is not None}
        """Field as given -> the names or paths it may have in a record, best first."""
        self._only = field if template is None else None

    def __call__(self, record: Mapping[str, Any]) -> str:
        """The text of a record, blank or not. NoDocument where a field is missing or is no text."""
        if self._only is not None:
            value = record.get(self._only)
            return value if isinstance(value, str) else self._value(record, self._only)
        return "".join(
            literal if literal is not None else self._value(record, name or "") for literal, name in self._pieces
        )

    def _value(self, record: Mapping[str, Any], field: str) -> str:
        for path in self.fields[field]:
            value = value_at(record, path)
            if value is not MISSING:
                return _text(value, path)
        there = [str(name)[:LONGEST_NAME].encode(errors="replace").decode() for name in record]
        names = ", ".join(there[:12]) + (", ..." if len(there) > 12 else "")
        raise NoDocument(
            f"no field: expected {field} ({self.option}), found {names or 'none'}{did_you_mean(field, there)}"
        )


def pieces_of(template: str, option: str) -> list[tuple[str | None, str | None]]:
    """Literals and names of fields: one of each pair is None. option: what an error calls the template."""
    pieces: list[tuple[str | None, str | None]] = []
    end = 0
    for found in PIECE.finditer(template):
        if found["lone"]:
            raise ConfigError(
                f"{option} is {template!r}; the {found['lone']} at character {found.start()} has no partner; "
                f"write {{field}}, or {found['lone'] * 2} for the character itself"
            )
        pieces.append((template[end : found.start()] + ESCAPES.get(found["escape"] or "", ""), None))
        if found["field"]:
            pieces.append((None, found["field"].strip()))
        end = found.end()
    pieces.append((template[end:], None))
    return [piece for piece in pieces if piece != ("", None)]


def _with_field(template: str) -> list[tuple[str | None, str | None]]:
    pieces = pieces_of(template, "data.template")
    if not any(field for _, field in pieces):
        raise ConfigError(f"data.template is {template!r}; expected a field in it, e.g. data.template='{{text}}'")
    return pieces


def _alternatives(field: str) -> list[str]:
    return list(dict.fromkeys([field, *(name.strip() for name in field.split("|"))]))


def value_at(record: Any, path: str) -> Any:
    """What a record has at a path; a name with dots in it comes before a path."""
    if path in record:
        return record[path]
    value = record
    for name in path.split("."):
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return MISSING
    return value


def _text(value: Any, path: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    raise NoDocument(f"wrong type: {path} is {describe(value)}; expected text or a list of texts")


def describe(value: Any) -> str:
    """What a value of JSON is, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, list) else f"a {type(value).__name__}"
