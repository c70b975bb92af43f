"""Texts made from the fields of a row: "Question: {question.stem}", "{question.choices.*.text}"."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lmexp.data.sources.template import MISSING, describe, pieces_of, value_at
from lmexp.errors import DataError
from lmexp.evaluation.records import Record
from lmexp.plugins import did_you_mean

LISTED = "*"
"""{*} in a prompt stands for the choices, listed."""


class Template:
    """Makes texts of records, as in lmexp.data.sources.template: {field}, {path.to.0.field}, {{ and }}, \\n and \\t.

    A field holds text, a number, or true or false. {path.*.field} goes through all entries of a list and gives a text
    for each; several of them go together.

    >>> record = Record({"q": "2+2", "options": [{"text": 3}, {"text": 4}]}, "x.jsonl", 1, 1, "1")
    >>> Template("prompt", "{q} = ?").one(record), Template("choices", "it is {options.*.text}").all(record)
    ('2+2 = ?', ['it is 3', 'it is 4'])
    """

    def __init__(self, option: str, text: str) -> None:
        self.option = option
        """What an error calls it, e.g. evaluation.csqa.prompt."""
        self.text = text
        self.pieces = pieces_of(text, option)
        self.is_list = any("*" in field.split(".") and field != LISTED for _, field in self.pieces if field)

    def one(self, record: Record, listed: str | None = None) -> str:
        """The text of a record. listed: what {*} stands for. DataError where a field is missing or is no text."""
        if self.is_list:
            raise DataError(f"{self.option} is {self.text!r}; expected one text, but .*. gives one for each entry")
        return "".join(self._text(record, field, literal, listed) for literal, field in self.pieces)

    def all(self, record: Record) -> list[str]:
        """The texts of a record: one without .*. in a field, else one for each entry."""
        if not self.is_list:
            return [self.one(record)]
        columns = [
            literal if field is None else self._texts(record, field) if "*" in field else self._text(record, field)
            for literal, field in self.pieces
        ]
        lengths = {len(column) for column in columns if isinstance(column, list)}
        if len(lengths) > 1:
            raise DataError(f"{record.where}: the lists of {self.option}={self.text!r} have different lengths")
        return ["".join(c[i] if isinstance(c, list) else c or "" for c in columns) for i in range(lengths.pop())]

    def _text(self, record: Record, field: str | None, literal: str | None = None, listed: str | None = None) -> str:
        if field is None:
            return literal or ""
        if field == LISTED:
            if listed is None:
                raise DataError(f"{self.option} is {self.text!r}; {{*}}, the listed choices, is for prompts only")
            return listed
        value = value_at(record.fields, field)
        if value is MISSING:
            raise self._missing(record, field)
        return self._as_text(record, field, value)

    def _texts(self, record: Record, field: str) -> list[str]:
        values = _values_at(record.fields, field.split("."))
        if values is None:
            raise self._missing(record, field)
        return [self._as_text(record, field, value) for value in values]

    def _missing(self, record: Record, field: str) -> DataError:
        there = [str(name) for name in record.fields]
        shown = ", ".join(there[:12])[:400] + (", ..." if len(there) > 12 else "")
        return DataError(
            f"{record.where}: no field {field}, which {self.option}={self.text!r} names; the row has {shown or 'none'}"
            f"{did_you_mean(field, there)}"
        )

    def _as_text(self, record: Record, field: str, value: Any) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, bool | int | float):
            return json.dumps(value)
        hint = f"; for its entries write {{{field}.*}}" if isinstance(value, list) else ""
        raise DataError(
            f"{record.where}: {field}, which {self.option}={self.text!r} names, is {describe(value)}; expected text or "
            f"a number{hint}"
        )


def _values_at(value: Any, names: list[str]) -> list[Any] | None:
    """What stands at the end of a path with * in it; None where a part of it is missing."""
    for i, name in enumerate(names):
        if name == "*":
            if not isinstance(value, list):
                return None
            found = [_values_at(entry, names[i + 1 :]) for entry in value]
            return None if None in found else [one for many in found for one in many or ()]
        value = value_at(value, name) if isinstance(value, Mapping | list) else MISSING
        if value is MISSING:
            return None
    return [value]
