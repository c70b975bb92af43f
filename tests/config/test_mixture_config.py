"""data=mixture: sources of any kind, each typed and checked as if it stood alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lmexp.config.compose import Composed, compose
from lmexp.config.explain import explain
from lmexp.data.config import CsvConfig, MixtureConfig, StdlibConfig, TextFilesConfig
from lmexp.errors import ConfigError

Compose = Callable[..., Composed]
Write = Callable[[str, str], Path]

MY = """# Code and books, one to three.
defaults: [/schema/data@_here_: mixture, /data@parts.code: stdlib, /data@parts.books: text_files, _self_]
parts:
  books:
    path: books
weights: {code: 1, books: 3}
"""
TYPED = ("data=mixture", "+data@data.parts.code=stdlib", "+data@data.parts.books=text_files")


@pytest.fixture
def my(write: Write) -> Path:
    return write("data/my", MY)


def said(compose_with: Compose, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        compose_with(*overrides)
    return str(caught.value)


@pytest.mark.usefixtures("my")
def test_a_file_of_ones_own_names_its_sources(compose_with: Compose) -> None:
    data = compose_with("data=my").config.data
    assert isinstance(data, MixtureConfig)
    assert data.parts == {"code": StdlibConfig(), "books": TextFilesConfig(path="books")}
    assert data.shares() == {"code": 0.25, "books": 0.75}
    assert compose_with("data=my").config.run.name == "my-llama_tiny"


@pytest.mark.usefixtures("my")
def test_a_value_of_a_source_and_a_weight_may_be_typed(compose_with: Compose) -> None:
    typed = ("data.parts.books.path=it's {here}/*.txt", "data.parts.code.min_characters=9", "data.weights.books=2")
    data = compose_with("data=my", *typed, "data.batch_size=4").config.data
    assert data.parts["books"].path == "it's {here}/*.txt"
    assert data.parts["code"].min_characters == 9
    assert (data.weights, data.batch_size) == ({"code": 1.0, "books": 2.0}, 4)


def test_a_mixture_may_be_typed_whole() -> None:
    data = compose([*TYPED, "data.parts.books.path=x", "data.weights.books=2"]).config.data
    assert data.parts == {"code": StdlibConfig(), "books": TextFilesConfig(path="x")}
    assert data.shares() == pytest.approx({"code": 1 / 3, "books": 2 / 3})


@pytest.mark.usefixtures("my")
def test_a_source_of_a_file_may_be_replaced_or_taken_away(compose_with: Compose) -> None:
    data = compose_with("data=my", "data@data.parts.code=csv", "data.parts.code.delimiter=;").config.data
    assert data.parts["code"] == CsvConfig(delimiter=";")
    data = compose_with("data=my", "~data@data.parts.code", "~data.weights.code").config.data
    assert (list(data.parts), data.weights) == (["books"], {"books": 3.0})


def test_an_experiment_may_hold_a_mixture(write: Write, compose_with: Compose) -> None:
    write(
        "experiment/mixed",
        "# @package _global_\ndefaults:\n  - /data@data.parts.code: stdlib\n  - override /data: mixture\n"
        "data:\n  weights: {code: 5}\n",
    )
    data = compose_with("experiment=mixed").config.data
    assert (data.parts, data.weights) == ({"code": StdlibConfig()}, {"code": 5.0})


def test_overrides_that_stand_too_early_are_told(write: Write, compose_with: Compose) -> None:
    path = write(
        "experiment/mixed",
        "# @package _global_\ndefaults:\n  - override /data: mixture\n  - /data@data.parts.code: stdlib\n",
    )
    found = said(compose_with, "experiment=mixed")
    assert found.startswith(f"{path}: ")
    assert "Overrides must be at the end of the defaults list" in found


WRONG = {
    "data.parts.books.pth=x": ["data.parts.books has no 'pth'", "did you mean path?"],
    "data.parts.boks.path=x": ["data.parts has no 'boks'; it has code, books; did you mean books?"],
    "data.parts.songs.path=x": ["data.parts has no 'songs'", "+data@data.parts.songs=stdlib"],
    "data.parts.books.field=x": ["data.parts.books has no 'field'", "data=json_lines"],
    "data.weights.books=many": ["expected a number, got 'many'"],
    "+data@data.parts.m=stdlb": ["there is no data=stdlb", "did you mean stdlib?"],
    "+data@parts.m=stdlib": ["write +data@data.parts.NAME=stdlib"],
    "data@data.parts.m=stdlib": ["data.parts has no 'm'; to add it, write +data@data.parts.m=stdlib"],
    "+data@data.parts.code=stdlib": ["data.parts.code is there already; write it without the +"],
}


@pytest.mark.usefixtures("my")
@pytest.mark.parametrize("typed", WRONG)
def test_a_wrong_override_of_a_source_is_told_with_its_fix(typed: str, compose_with: Compose) -> None:
    (line,) = said(compose_with, "data=my", typed).splitlines()
    assert line.startswith(f"{typed}: ")
    for part in WRONG[typed]:
        assert part in line


@pytest.mark.usefixtures("my")
def test_checks_of_all_sources_and_of_the_mixture_are_told_at_once(compose_with: Compose) -> None:
    typed = ("data.parts.books.min_characters=0", "data.parts.books.split=hsh", "data.parts.code.test_fraction=2")
    lines = said(compose_with, "data=my", *typed, "data.batch_size=0").splitlines()
    assert [line.split(" ")[0] for line in lines] == [
        "data.parts.code.test_fraction",
        "data.parts.books.min_characters",
        "data.parts.books.split",
        "data.batch_size",
    ]


@pytest.mark.usefixtures("my")
@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("data.weights.boks=2", "data.weights has 'boks'; expected one of code, books; did you mean books?"),
        ("data.weights.books=0", "data.weights.books is 0.0; expected a positive number"),
        ("data.parts.books.batch_size=3", "but the mixture decides it: set data.batch_size"),
        ("+data@data.parts.mine=custom", "data.parts.mine"),
        ("data.parts.code.kind=csv", "choose a kind by its group, data@data.parts.code=..."),
    ],
)
def test_what_a_mixture_cant_be_is_told(typed: str, told: str, compose_with: Compose) -> None:
    assert told in said(compose_with, "data=my", typed)


def test_only_a_mixture_has_parts_and_an_empty_one_shows_how() -> None:
    with pytest.raises(ConfigError, match="data has no 'parts'; only a mixture does: data=mixture"):
        compose(["data=stdlib", "+data@data.parts.code=stdlib"])
    with pytest.raises(ConfigError, match=r"data\.parts is empty; .*/data@parts\.code: stdlib"):
        compose(["data=mixture"])


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        (MY.replace("    path", "    pth"), 5, "data.parts.books has no 'pth'"),
        (MY.replace(", /data@parts.books: text_files", ""), 5, "data.parts doesn't hold books; choose it too"),
        (MY.replace("stdlib", "stdlb"), 2, "there is no data=stdlb"),
        (MY + "batch_size: x\n", 7, "expected a whole number, got 'x'"),
    ],
    ids=["key", "not held", "option", "value"],
)
def test_an_error_in_a_file_names_file_and_line(
    text: str, line: int, told: str, write: Write, compose_with: Compose
) -> None:
    path = write("data/my", text)
    found = said(compose_with, "data=my")
    assert told in found
    assert f"{path}:{line}" in found


def test_explain_tells_what_set_a_value_of_a_source(my: Path, tmp_path: Path) -> None:
    typed = ["data=my", "data@data.parts.code=csv", "data.parts.books.path=it's"]
    folders = [str(tmp_path / "conf")]
    told = explain("data.parts.books.path", typed, config_dirs=folders).splitlines()
    assert [line.split() for line in told] == [
        ["data.parts.books.path", "=", "it's"],
        ["default", "''", "lmexp.data.config.TextFilesConfig"],
        ["file", "'books'", f"{my}:5"],
        ["typed", "data=my"],
        ["typed", "data.parts.books.path=it's"],
    ]
    assert "typed   data@data.parts.code=csv" in explain("data.parts.code.delimiter", typed, config_dirs=folders)
