import json
import math
import os
import random
from pathlib import Path

import pytest

from lmexp.errors import RunError
from lmexp.tracking import rows
from lmexp.tracking.rows import RowFile, cut_back, read_rows


def write(path: Path, steps: list[int]) -> None:
    file = RowFile(path)
    for step in steps:
        file.append(step, {"train/loss": step / 7})
    file.close()


def test_rows_come_back_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    draw = random.Random(0)
    logged = [
        {"a": draw.uniform(-1, 1) * 10.0 ** draw.randint(-300, 300), "b": draw.randint(0, 2**60)} for _ in range(200)
    ]
    file = RowFile(path)
    for step, values in enumerate(logged):
        file.append(step, values)
    file.close()
    assert read_rows(path) == [{"step": step, **values} for step, values in enumerate(logged)]


def test_what_is_not_finite_is_valid_json_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = RowFile(path)
    file.append(1, {"a": math.nan, "b": math.inf, "c": -math.inf})

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    json.loads(path.read_text(), parse_constant=refuse)
    (row,) = read_rows(path)
    assert math.isnan(row["a"])
    assert (row["b"], row["c"]) == (math.inf, -math.inf)
    file.close()


def test_a_row_can_be_read_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "metrics.jsonl")
    for step in range(3):
        file.append(step, {})
        assert len(read_rows(file.path)) == step + 1
    file.close()
    file.close()


def test_a_second_process_appends(tmp_path: Path) -> None:
    write(tmp_path / "m", [1, 2])
    write(tmp_path / "m", [3])
    assert [row["step"] for row in read_rows(tmp_path / "m")] == [1, 2, 3]


@pytest.mark.parametrize("values", [{"loss": "2.5"}, {"loss": None}, {"loss": [1.0]}])
def test_only_numbers_are_logged(tmp_path: Path, values: dict[str, float]) -> None:
    file = RowFile(tmp_path / "m")
    with pytest.raises(TypeError, match="loss is a"):
        file.append(1, values)
    with pytest.raises(ValueError, match="another name"):
        file.append(1, {"step": 2})
    file.close()
    assert read_rows(tmp_path / "m") == []


def test_a_full_disk_is_a_loud_error() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    file = RowFile(full)
    with pytest.raises(OSError, match="No space left"):
        file.append(1, {"loss": 2.0})
    file.close()


def test_readers_skip_a_torn_last_line_and_name_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "m"
    assert read_rows(path) == []
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"step": 3, "lo')
    assert [row["step"] for row in read_rows(path)] == [1, 2]
    path.write_bytes(b'{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(RunError, match=r"m:2: expected a row"):
        read_rows(path)


def test_nothing_is_appended_after_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(b'{"step": 1}\n{"step": 2, "lo')
    with pytest.raises(RunError, match="lmexp resume"):
        RowFile(path)
    cut_back(path, 1, tmp_path / "d")
    write(path, [2])
    assert [row["step"] for row in read_rows(path)] == [1, 2]


def test_cutting_keeps_rows_up_to_the_step_byte_for_byte(tmp_path: Path) -> None:
    path, discarded = tmp_path / "m", tmp_path / "discarded.jsonl"
    write(path, [10, 20, 20, 30, 40])
    before = path.read_bytes().splitlines(keepends=True)
    assert cut_back(path, 20, discarded) == 2
    assert path.read_bytes() == b"".join(before[:3])
    assert discarded.read_bytes() == b"".join(before[3:])
    assert cut_back(path, 20, discarded) == 0
    assert cut_back(path, None, discarded) == 3
    assert path.read_bytes() == b""
    assert discarded.read_bytes() == b"".join(before[3:] + before[:3])
    assert cut_back(tmp_path / "missing", None, discarded) == 0
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("torn", [b'{"step": 3, "lo', b"{", b"\x00\x00\x00", b'{"step": 3, "a": "\xc3'])
def test_cutting_moves_a_torn_line_away(tmp_path: Path, torn: bytes) -> None:
    path, discarded = tmp_path / "m", tmp_path / "discarded.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n' + torn)
    assert cut_back(path, 2, discarded) == 1
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'
    assert json.loads(discarded.read_text()) == {"torn": torn.decode(errors="replace")}


def test_a_row_that_lacks_only_its_line_break_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(b'{"step": 1}\n{"step": 2}')
    assert len(read_rows(path)) == 2
    assert cut_back(path, 2, tmp_path / "d") == 0
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'
    assert not (tmp_path / "d").exists()


def test_every_prefix_of_a_file_can_be_cut_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "m"
    write(path, [1, 2, 3])
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        complete = [row["step"] for row in read_rows(path)]
        cut_back(path, 2, tmp_path / "d")
        write(path, [9])
        assert [row["step"] for row in read_rows(path)] == [step for step in complete if step <= 2] + [9]


def test_a_crash_before_the_rename_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, discarded = tmp_path / "m", tmp_path / "discarded.jsonl"
    write(path, [1, 2, 3])
    before = path.read_bytes()

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            cut_back(path, 1, discarded)
    assert path.read_bytes() == before
    cut_back(path, 1, discarded)
    assert [row["step"] for row in read_rows(path)] == [1]
    assert {row["step"] for row in read_rows(discarded)} == {2, 3}


def test_cut_lines_are_on_disk_before_they_leave_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, discarded = tmp_path / "m", tmp_path / "discarded.jsonl"
    write(path, [1, 2])
    seen: list[str] = []
    monkeypatch.setattr(rows, "sync_file", lambda p: seen.append(f"sync {p.name}"))
    monkeypatch.setattr(rows, "write_atomically", lambda p, _: seen.append(f"replace {p.name}"))
    cut_back(path, 1, discarded)
    assert seen == ["sync discarded.jsonl", "replace m"]
    assert [row["step"] for row in read_rows(discarded)] == [2]


def test_cutting_refuses_rows_without_a_step(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(b'{"step": 1}\n{"loss": 2.0}\n')
    with pytest.raises(RunError, match=r"m:2: .*`step`"):
        cut_back(path, 1, tmp_path / "d")
