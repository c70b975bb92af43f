import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from lmexp.data import summary
from lmexp.data.summary import duplicates
from lmexp.data.survey import Survey
from lmexp.errors import DataError
from lmexp.tokenizers.config import CharTokenizerConfig

DOCUMENTS = [f"document {i} {'naïve ' * (i % 3)}" for i in range(10)]


def corpora(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache" / "corpora").iterdir())


def test_a_survey_holds_what_is_to_be_known_of_each_document(write_pieces, prepare_pieces, tmp_path: Path) -> None:
    prepare_pieces(write_pieces([*DOCUMENTS[:5], {"bad": "odd: very"}, *DOCUMENTS[5:]]))
    (name,) = corpora(tmp_path)
    survey = Survey(tmp_path / "cache" / "corpora" / name)
    assert survey.key.startswith(name)
    raw = [text.encode() for text in DOCUMENTS]
    assert survey.digests.tobytes() == b"".join(hashlib.sha256(text).digest()[:16] for text in raw)
    assert survey.characters.tolist() == [len(text) for text in DOCUMENTS]
    assert survey.bytes.tolist() == [len(text) for text in raw]
    assert (survey.n_documents, survey.n_read, survey.n_bytes) == (10, 11, sum(map(len, raw)))
    assert [(unit.first, unit.n_documents) for unit in survey.units] == [(0, 4), (4, 3), (7, 3)]
    assert survey.n_quarantined == {"odd": 1}
    assert survey.first_bad() == [{"file": "all.jsonl", "line": 6, "reason": "odd: very"}]


def test_nothing_is_read_again_when_nothing_has_changed(write_pieces, prepare_pieces, pieces) -> None:
    path = write_pieces(DOCUMENTS)
    first = prepare_pieces(path)
    assert len(pieces.reads) == 6  # each unit to survey it and to tokenize it
    assert prepare_pieces(path).path == first.path
    assert len(pieces.reads) == 6
    prepare_pieces(path, validation_fraction=0.4, min_characters=2)
    prepare_pieces(path, CharTokenizerConfig())
    assert len(pieces.reads) == 6 + 3 + 6  # no survey; the characters are learnt from one more reading
    prepare_pieces(path, max_document_bytes=1000)
    assert len(pieces.reads) == 15 + 3  # decides what is good, so it was surveyed; the tokens are the same


@pytest.mark.parametrize("change", ["size", "time", "content"])
def test_a_changed_file_is_read_again(write_pieces, prepare_pieces, pieces, tmp_path: Path, change: str) -> None:
    path = write_pieces(DOCUMENTS)
    first = prepare_pieces(path)
    n = len(pieces.reads)
    file = Path(path) / "all.jsonl"
    text = file.read_text(encoding="utf-8")
    if change == "size":
        write_pieces([*DOCUMENTS, "one more"])  # with the same time
    else:
        if change == "content":
            file.write_text(text.replace("document", "Document"), encoding="utf-8")
        os.utime(file, (1_111_111_111, 1_111_111_111))
    again = prepare_pieces(path)
    assert len(pieces.reads) > n
    assert (again.fingerprint == first.fingerprint) == (change == "time")
    assert len(corpora(tmp_path)) == 2


def test_a_file_that_has_just_changed_is_read_each_time(write_pieces, prepare_pieces, pieces, tmp_path: Path) -> None:
    """It could change again within a tick of the file system's clock and look the same."""
    path = write_pieces(DOCUMENTS)
    file = Path(path) / "all.jsonl"
    first = None
    for n_reads in (6, 9, 12):
        os.utime(file, (time.time() + 60, time.time() + 60))
        cache = prepare_pieces(path)
        first = first or cache.fingerprint
        assert cache.fingerprint == first
        assert len(pieces.reads) == n_reads
        assert corpora(tmp_path) == []
    now = file.stat()
    file.write_text(file.read_text().replace("document 3", "Document 3"))
    os.utime(file, ns=(now.st_atime_ns, now.st_mtime_ns))
    assert prepare_pieces(path).fingerprint != first


def test_a_source_that_cannot_tell_is_read_each_time(write_pieces, prepare_pieces, pieces, tmp_path: Path) -> None:
    path = write_pieces(DOCUMENTS)
    first = prepare_pieces(path, known=False)
    assert prepare_pieces(path, known=False).fingerprint == first.fingerprint == prepare_pieces(path).fingerprint
    assert len(pieces.reads) == 6 + 3 + 3
    assert len(corpora(tmp_path)) == 1  # of the last


@pytest.mark.parametrize("damage", ["cut", "missing", "json", "version", "key"])
def test_a_damaged_survey_is_made_again(write_pieces, prepare_pieces, pieces, tmp_path: Path, damage: str) -> None:
    path = write_pieces(DOCUMENTS)
    first = prepare_pieces(path)
    survey = tmp_path / "cache" / "corpora" / corpora(tmp_path)[0]
    facts = json.loads((survey / "survey.json").read_text())
    if damage == "cut":
        (survey / "documents.bytes").write_bytes(b"123")
    elif damage == "missing":
        (survey / "documents.digests").unlink()
    else:
        changes = {"json": {"units": None}, "version": {"version": 99}, "key": {"key": facts["key"][:-1] + "x"}}
        (survey / "survey.json").write_text(json.dumps(facts | changes[damage]))
    assert prepare_pieces(path).fingerprint == first.fingerprint
    assert len(pieces.reads) == 9
    assert Survey(survey).key == facts["key"]


def test_files_that_change_during_the_survey_are_an_error(write_pieces, prepare_pieces, pieces, monkeypatch) -> None:
    path = write_pieces(DOCUMENTS)
    read = pieces.PiecesSource.read

    def read_and_change(source, unit):
        yield from read(source, unit)
        write_pieces([*DOCUMENTS, "one more"])

    monkeypatch.setattr(pieces.PiecesSource, "read", read_and_change)
    with pytest.raises(DataError, match="the files were changed while they were read; run it again"):
        prepare_pieces(path)


def test_a_source_of_ones_own_is_read_again_when_its_code_has_changed(
    write_pieces, prepare_pieces, pieces, tmp_path: Path, monkeypatch
) -> None:
    path = write_pieces(DOCUMENTS)
    prepare_pieces(path)
    n = len(pieces.reads)
    prepare_pieces(path)
    assert len(pieces.reads) == n
    other = tmp_path / "other_code.py"
    other.write_text("# this reads the same files in another way\n")
    monkeypatch.setattr("lmexp.plugins.inspect.getsourcefile", lambda cls: str(other))
    prepare_pieces(path)
    assert len(pieces.reads) > n


def test_what_was_read_before_a_change_is_not_kept(write_pieces, prepare_pieces, tmp_path: Path) -> None:
    path = write_pieces(DOCUMENTS)
    prepare_pieces(path)
    survey = next(found for found in (tmp_path / "cache" / "corpora").iterdir() if len(found.name) == 16)
    stale = survey.with_name(f".{survey.name}.partial") / "0123456789abcdef01234567"
    stale.mkdir(parents=True)  # as a process left it that was killed
    write_pieces(["Document" + DOCUMENTS[0][8:], *DOCUMENTS[1:]])  # of the same size and time
    with pytest.raises(DataError, match="the files were changed"):
        prepare_pieces(path, CharTokenizerConfig())
    assert not stale.exists()
    prepare_pieces(path, CharTokenizerConfig())


def test_files_that_change_unnoticed_after_the_survey_are_an_error(
    write_pieces, prepare_pieces, tmp_path: Path
) -> None:
    path = write_pieces(DOCUMENTS)
    prepare_pieces(path)
    write_pieces(["Document" + DOCUMENTS[0][8:], *DOCUMENTS[1:]])  # of the same size and time
    with pytest.raises(DataError, match="the files were changed while they were read; run it again"):
        prepare_pieces(path, CharTokenizerConfig())
    assert corpora(tmp_path) == []  # the survey was wrong
    assert prepare_pieces(path).splits["train"].n_documents == 10


def test_too_many_bad_documents_fail_early(write_pieces, prepare_pieces, pieces, tmp_path: Path) -> None:
    entries = [f"document {i}" if i % 3 else {"bad": f"odd: {i}"} for i in range(600)]
    path = write_pieces(entries)
    with pytest.raises(DataError) as caught:
        prepare_pieces(path, max_quarantined=5, prepare_workers=1)
    assert str(caught.value) == (
        f"data.path={path}: more than data.max_quarantined=5 documents are bad. The first:\n"
        "  all.jsonl, line 1: odd: 0\n  all.jsonl, line 4: odd: 3\n  all.jsonl, line 7: odd: 6\n"
        "  all.jsonl, line 10: odd: 9\n  all.jsonl, line 13: odd: 12\n"
        "repair them, or allow more with data.max_quarantined=N (null is no limit)"
    )
    assert len(pieces.reads) == 4  # of 150
    with pytest.raises(DataError, match=r"max_quarantined=3 documents"):  # within one unit, too
        prepare_pieces(path, max_quarantined=3, unit_lines=600)
    cache = prepare_pieces(path, max_quarantined=200)
    assert cache.facts["sources"][""]["n_quarantined"] == {"odd": 200}
    with pytest.raises(DataError, match=r"max_quarantined=199 documents"):  # though the survey is there
        prepare_pieces(path, max_quarantined=199)


@pytest.mark.parametrize("chunk", [3, 64, 1 << 20])
def test_duplicates_are_those_of_a_set(chunk: int, monkeypatch) -> None:
    monkeypatch.setattr(summary, "CHUNK", chunk)
    rng = np.random.default_rng(0)
    for n in (1, 2, 500):
        digests = rng.integers(0, 256, (n // 3 + 1, 16), np.uint8)[rng.integers(0, n // 3 + 1, n)]
        digests[rng.random(n) < 0.3, :8] = 7  # the first half alone doesn't decide
        wanted = rng.random(n) < 0.8
        seen, expected = set(), []
        for i in np.flatnonzero(wanted).tolist():
            if digests[i].tobytes() in seen:
                expected.append(i)
            seen.add(digests[i].tobytes())
        assert duplicates(digests, wanted).tolist() == expected
