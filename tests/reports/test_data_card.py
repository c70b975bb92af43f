"""data_card.html: whole, self-contained, and no text of the corpus is ever markup."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lmexp.data.cache import TokenCache, prepare
from lmexp.data.config import TextFilesConfig
from lmexp.files import write_atomically
from lmexp.reports.charts.histogram import histogram
from lmexp.reports.data_card import as_text, write_card
from lmexp.tokenizers.config import ByteTokenizerConfig, CharTokenizerConfig
from tests.reports.test_run_report import HOSTILE, Page

ALLOWED = set(
    re.findall(
        r"\w+",
        "html head meta title style body main header h1 h2 p dl dt dd div small section table thead tbody tr th td pre "
        "span figure figcaption svg desc line text g rect details summary footer",
    )
)


def card_of(folder: Path, lines: list[str], **settings: object) -> tuple[TokenCache, TextFilesConfig]:
    path = folder / "<i>.txt"
    path.write_bytes("\n".join(lines).encode() + b"\n<b>\xe9\n")
    data = TextFilesConfig(path=str(path), document="line", sequence_length=16, batch_size=2, **settings)  # type: ignore[arg-type]
    return prepare(data, CharTokenizerConfig(), cache_root=folder / "cache"), data


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    cache, data = card_of(tmp_path, [f"{i}{HOSTILE}" for i in range(60)])
    data.sequence_length = 200
    html = write_card(cache, data, 0).read_text(encoding="utf-8")
    page = Page(html)
    assert {tag for tag, _ in page.tags} <= ALLOWED
    assert not any(name.startswith("on") or name in ("src", "href") for _, attrs in page.tags for name in attrs)
    assert "<script>" in page.text
    assert "<i>.txt:61" in page.text
    assert "http://" not in html.replace("http://evil.example", "")
    assert "url(" not in html


def test_every_part_is_there(tmp_path: Path) -> None:
    cache, data = card_of(tmp_path, [f"{i} cats" for i in range(100)], windows="padded")
    page = Page(write_card(cache, data, 0).read_text(encoding="utf-8"))
    for title in ("Splits", "Source", "Quarantine", "Vocabulary", "The first training batch"):
        assert title in page.text
    assert cache.fingerprint in page.text
    assert "not UTF-8" in page.text
    assert "padding" in page.text
    assert " cats ¶" in page.text
    assert json.loads((cache.path / "data_card.json").read_text())["format"] == "lmexp.data_card"


def test_a_card_is_made_anew_for_other_settings_only(tmp_path: Path) -> None:
    cache, data = card_of(tmp_path, [f"{i} cats" for i in range(100)])
    path = write_card(cache, data, 0)
    path.write_text("mine")
    assert write_card(cache, data, 0).read_text() == "mine"
    assert write_card(cache, data, 1).read_text() != "mine"
    (cache.path / "data_card.json").write_text("{damaged")
    path.write_text("mine")
    assert write_card(cache, data, 1).read_text() != "mine"


def test_a_card_whose_writer_was_killed_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, data = card_of(tmp_path, [f"line {i}" for i in range(60)])
    first = write_card(cache, data, 0).read_text(encoding="utf-8")

    def killed(path: Path, content: str) -> None:
        if path.suffix == ".json":
            path.with_name(f".{path.name}.0123abcd.tmp").touch()
            raise KeyboardInterrupt
        write_atomically(path, content)

    with monkeypatch.context() as patched:
        patched.setattr("lmexp.reports.data_card.write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            write_card(cache, data, 1)
    assert write_card(cache, data, 0).read_text(encoding="utf-8") == first  # not the page of the other seed
    assert not list(cache.path.glob(".*"))


def test_in_the_terminal_there_are_three_reasons_at_most(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"".join(b"fine %d\n" % i for i in range(90)) + b"\xe9\n" * 9)
    data = TextFilesConfig(path=str(path), document="line", sequence_length=8, min_characters=7)
    said = as_text(prepare(data, ByteTokenizerConfig(), cache_root=tmp_path / "cache"))
    assert "quarantined: 9, see " in said
    assert said.count("not UTF-8") == 3
    assert "dropped, too short: 10" in said
    assert "duplicates" not in said


@pytest.mark.parametrize("n", [1, 2, 40])
def test_a_histogram_draws_every_class(n: int) -> None:
    series = [("train", [1 / n] * n), ("test", [0.0] * n)]
    svg = histogram("Lengths", series, [float(i) for i in range(n)], x_label="tokens")
    page = Page(svg)
    assert [tag for tag, _ in page.tags].count("rect") == 2 * n
    assert "NaN" not in svg
