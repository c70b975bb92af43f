"""Well-known data sets load by their YAML alone: the same documents as a few lines of Python read."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from lmexp.config.compose import compose
from lmexp.data.config import CorpusConfig
from lmexp.data.sources.base import Bad


def preset(name: str, path: Path) -> Any:
    config = compose([f"data={name}", f"data.path='{path}'"]).config.data
    assert isinstance(config, CorpusConfig)
    return config


def parts(config: CorpusConfig) -> dict[str, list[str]]:
    """Part -> its documents; none is bad."""
    source = config.source()
    found: dict[str, list[str]] = {}
    for unit in source.units():
        for document in source.read(unit):
            assert not isinstance(document, Bad)
            found.setdefault(unit.part, []).append(document)
    return found


def n_bytes(documents: list[str]) -> int:
    return sum(len(document.encode()) for document in documents)


def test_tinyshakespeare_is_one_document_with_the_last_tenth_held_out(shared_data: Path) -> None:
    config = preset("tinyshakespeare", shared_data / "tinyshakespeare")
    assert (config.split, config.validation_fraction, config.test_fraction) == ("tail", 0.1, 0.0)
    text = (shared_data / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
    assert parts(config) == {"all": [text]}
    assert (len(text.encode()), len(set(text))) == (1_115_394, 65)


def test_wikitext2_has_its_own_splits_and_a_document_a_line(shared_data: Path) -> None:
    folder = shared_data / "wikitext-2"
    config = preset("wikitext2", folder)
    assert config.given_splits() == ("validation", "test")
    found = parts(config)
    for part, name in {"all": "train", "validation": "valid", "test": "test"}.items():
        lines = (folder / f"wiki.{name}.tokens").read_bytes().decode().split("\n")
        assert found[part] == [line for line in lines if line.strip()]
    assert {part: len(documents) for part, documents in found.items()} == {
        "all": 23_767,
        "validation": 2_461,
        "test": 2_891,
    }
    # published: 2,088,628 tokens in 36,718 lines, with an end of each line, blank ones too
    assert sum(len(line.split()) for line in found["all"]) + 36_718 == 2_088_628


def test_chinese_classics_are_read_from_arrays_and_objects(shared_data: Path) -> None:
    folder = shared_data / "chinese-poetry"
    [(part, documents)] = parts(preset("chinese_classics", folder)).items()
    expected = []
    for path in sorted(folder.rglob("*.json"), key=lambda path: path.relative_to(folder).as_posix()):
        content = json.loads(path.read_text(encoding="utf-8"))
        for record in content if isinstance(content, list) else [content]:
            expected.append("\n".join(record["paragraphs"] if "paragraphs" in record else record["content"]))
    assert (part, documents) == ("all", expected)
    assert (len(documents), n_bytes(documents)) == (707, 409_142)


def test_tatoeba_is_a_pair_a_document(shared_data: Path) -> None:
    folder = shared_data / "tatoeba-en-zh"
    [(part, documents)] = parts(preset("tatoeba", folder)).items()
    with (folder / "cmn.txt").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert (part, documents) == ("all", [f"{row[0]}\t{row[1]}" for row in rows])
    assert (len(documents), n_bytes(documents)) == (29_155, 1_772_980)


@pytest.mark.parametrize("name", ["tinyshakespeare", "wikitext2", "chinese_classics", "tatoeba"])
def test_a_preset_asks_for_the_folder(name: str) -> None:
    config = compose([f"data={name}"]).config.data
    with pytest.raises(ValueError, match=r"data\.path is not set"):
        config.source().units()
