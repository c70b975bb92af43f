from typing import Any

import pytest

from lmexp.data.sources.documents import NoDocument
from lmexp.data.sources.template import RecordText
from lmexp.errors import ConfigError

RECORD: dict[str, Any] = {
    "title": "A",
    "meta": {"tags": ["x", "y"], "n": 3, "deep": {"er": "d"}},
    "meta.n": "dotted name",
    "answers": [{"text": "first"}, {"text": "second"}],
    "none": None,
    "mixed": ["a", 1],
    "yes": True,
}


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("title", "A"),
        ("meta.tags", "x\ny"),
        ("meta.deep.er", "d"),
        ("meta.n", "dotted name"),
        ("answers.1.text", "second"),
        ("body|title", "A"),
        ("meta.body | meta.deep.er", "d"),
    ],
)
def test_a_field_is_a_name_or_a_path_or_the_first_that_is_there(field: str, text: str) -> None:
    assert RecordText(field)(RECORD) == text
    assert RecordText("", f"<{{{field}}}>")(RECORD) == f"<{text}>"


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("titel", r"no field: expected titel \(data\.field\), found title, meta, .*; did you mean title\?"),
        ("meta.absent", "no field: expected meta.absent"),
        ("answers.2.text", "no field: "),
        ("title.x", "no field: "),
        ("none", "wrong type: none is null; expected text or a list of texts"),
        ("meta", "wrong type: meta is an object"),
        ("mixed", "wrong type: mixed is a list"),
        ("yes", "wrong type: yes is true"),
        ("answers", "wrong type: answers is a list"),
        ("none|title", "wrong type: none is null"),
    ],
)
def test_a_field_that_is_no_text_says_what_it_is(field: str, reason: str) -> None:
    with pytest.raises(NoDocument, match=f"^{reason}"):
        RecordText(field)(RECORD)
    with pytest.raises(NoDocument, match=f"^{reason}".replace("field\\)", "template\\)")):
        RecordText("", f"{{{field}}}")(RECORD)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{title}\n{answers.0.text}", "A\nfirst"),
        (r"{title}\n\t{title}", "A\n\tA"),
        (r"\\n{title}\d", r"\nA\d"),
        ("{{{title}}} {{}}", "{A} {}"),
        ("{{title}} { title }", "{title} A"),
        ("{title}", "A"),
    ],
)
def test_a_template_puts_fields_into_text(template: str, text: str) -> None:
    assert RecordText("ignored", template)(RECORD) == text


def test_a_template_runs_no_format_language() -> None:
    with pytest.raises(NoDocument, match=r"^no field: "):
        RecordText("", "{title.__class__}")(RECORD)
    with pytest.raises(NoDocument, match=r"^no field: "):
        RecordText("", "{title!r:>9}")(RECORD)


@pytest.mark.parametrize("template", ["{title", "title}", "{}", "{a}}", "{a{b}}", "no field", "", "{{a}}"])
def test_a_template_that_can_not_be_is_refused(template: str) -> None:
    with pytest.raises(ConfigError, match=r"^data\.template is "):
        RecordText("text", template)


def test_an_empty_field_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^data\.field is empty"):
        RecordText("")
