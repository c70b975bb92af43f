import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from lmexp.data.config import HFConfig, JsonLinesConfig, ParquetConfig
from lmexp.data.sources import base, columns
from lmexp.data.sources.base import ALL, Bad, Source
from lmexp.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"text": "plain", "n": 1, "meta": {"title": "A"}, "parts": ["one", "two"]},
    {"text": "naïve 日本語 🙂\n\r\nline", "n": 2, "meta": {"title": "B"}, "parts": ["one"]},
    {"text": "", "n": 4, "meta": {"title": "D"}, "parts": [""]},
    {"text": "nul \0 byte", "n": 5, "meta": {"title": "E"}, "parts": ["\0"]},
    {"text": " last ", "n": 6, "meta": {"title": "F"}, "parts": ["f"]},
]
COMMIT = "b08601e04326c79dfdd32d625aee71d232d685c3"


@pytest.fixture(autouse=True)
def quiet_and_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf_cache")


def source(path: Path | str, **settings: Any) -> Source:
    return HFConfig(path=str(path), **settings).source()


def read(source: Source) -> list[str | Bad]:
    return [found for unit in source.units() for found in source.read(unit)]


def documents(source: Source) -> list[str]:
    return [found for found in read(source) if isinstance(found, str)]


def quarantine(source: Source) -> list[tuple[str, int | None]]:
    return [(found.kind, found.line) for found in read(source) if isinstance(found, Bad)]


def save(folder: Path, **splits: list[dict[str, Any]]) -> Path:
    """Splits of rows as save_to_disk writes them."""
    DatasetDict({name: Dataset.from_list(rows) for name, rows in splits.items()}).save_to_disk(str(folder))
    return folder


def texts(*found: str) -> list[dict[str, Any]]:
    return [{"text": text} for text in found]


@pytest.mark.parametrize(
    "settings",
    [{"field": "text"}, {"field": "meta.title"}, {"field": "parts"}, {"template": "{meta.title}: {text}\\n{parts.0}"}],
    ids=str,
)
def test_the_same_rows_as_json_lines_and_parquet_give_the_same(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    json_lines = JsonLinesConfig(path=str(tmp_path / "rows.jsonl"), **settings).source()
    parquet = ParquetConfig(path=str(tmp_path / "rows.parquet"), **settings).source()
    found = source(save(tmp_path / "saved", train=ROWS), **settings)
    assert documents(found) == documents(parquet) == documents(json_lines)
    assert len(documents(found)) >= 3
    assert quarantine(found) == quarantine(parquet) == quarantine(json_lines)


def test_splits_become_parts(tmp_path: Path) -> None:
    save(tmp_path / "saved", train=texts("a", "b"), validation=texts("c"), test=texts("d"), other=texts("e"))
    found = source(tmp_path / "saved", validation_split="validation", test_split="test")
    assert [(unit.part, list(found.read(unit))) for unit in found.units()] == [
        (ALL, ["a", "b"]),
        ("validation", ["c"]),
        ("test", ["d"]),
    ]
    assert documents(source(tmp_path / "saved", train_split="other")) == ["e"]


def test_one_split_alone_can_be_saved(tmp_path: Path) -> None:
    Dataset.from_list(texts("a", "b")).save_to_disk(str(tmp_path / "one"))
    Dataset.from_list(texts("c"), split="validation").save_to_disk(str(tmp_path / "named"))
    assert documents(source(tmp_path / "one")) == ["a", "b"]
    assert documents(source(tmp_path / "named", train_split="validation")) == ["c"]
    with pytest.raises(DataError, match=r"no split train \(data\.train_split\); the data set has validation"):
        documents(source(tmp_path / "named"))


def test_a_selection_of_rows_is_read_in_its_order(tmp_path: Path) -> None:
    rows = Dataset.from_list(texts(*"abcdef")).select([4, 0, 2])
    rows.save_to_disk(str(tmp_path / "saved"))
    assert documents(source(tmp_path / "saved")) == ["e", "a", "c"]


def test_a_folder_of_data_files_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"text": "a"}\n{"text": null}\n{"text": "b"}\n')
    (folder / "test.jsonl").write_text('{"text": "c"}\n')
    found = source(folder, test_split="test")
    assert documents(found) == ["a", "b", "c"]
    (bad,) = (found for found in read(found) if isinstance(found, Bad))
    assert (bad.kind, bad.file, bad.line) == ("wrong type", f"{folder}:train", 2)


def test_units_are_ranges_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "UNIT_BYTES", 1000)
    monkeypatch.setattr(columns, "BATCH_BYTES", 200)
    wanted = [None if i % 7 == 0 else f"document {i} " * 5 for i in range(1, 201)]
    save(tmp_path / "saved", train=[{"text": text, "unused": "x" * 500} for text in wanted])
    found = source(tmp_path / "saved")
    units = found.units()
    assert len(units) > 8
    assert [unit.start for unit in units[1:]] == [unit.stop for unit in units[:-1]]
    assert all(unit.n_bytes <= 1000 for unit in units)
    assert documents(found) == [text for text in wanted if text]
    assert quarantine(found) == [("wrong type", i) for i in range(7, 201, 7)]
    reread = {unit: list(source(tmp_path / "saved").read(unit)) for unit in reversed(units)}
    assert [text for unit in units for text in reread[unit]] == read(found)


def test_identity_changes_with_the_files_and_the_choice(tmp_path: Path) -> None:
    folder = save(tmp_path / "saved", train=texts("a"), other=texts("b"))
    identities = [source(folder).identity(), source(folder, train_split="other").identity()]
    assert identities[0] == source(folder).identity()
    save(folder, train=texts("a", "b"))
    identities += [source(folder).identity()]
    hub = {"path": "squad", "revision": COMMIT}
    identities += [source(**hub).identity(), source(**hub | {"revision": COMMIT[::-1]}).identity()]
    identities += [source(**hub, subset="plain").identity()]
    written = [json.dumps(identity) for identity in identities]
    assert len(set(written)) == len(written)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": ""}, "data.path is not set; say which data set"),
        ({"path": "./savd"}, "there is no such folder; did you mean saved?"),
        ({"path": "a/b/c"}, "there is no such folder"),
        ({"path": "file.txt"}, "is a file; expected a folder, or a name on the hub. Files are read by data=json_lines"),
        ({"path": "saved", "revision": COMMIT}, "is a folder, so it has no data.revision"),
        ({"path": "saved", "subset": "plain"}, "written by save_to_disk, without subsets; leave data.subset out"),
        (
            {"path": "squad"},
            "is no folder here, so it is a name on the hub, and data.revision is not set; expected the 40",
        ),
        (
            {"path": "me/data", "revision": "main"},
            "is 'main', which may stand for other data tomorrow; expected the 40",
        ),
        ({"path": "squad"}, "git ls-remote https://huggingface.co/datasets/squad HEAD"),
        (
            {"path": "saved", "train_split": "trian"},
            "no split trian (data.train_split); the data set has train, test; did",
        ),
        ({"path": "saved", "validation_split": "dev"}, "there is no split dev (data.validation_split)"),
        ({"path": "saved", "test_split": "train"}, "data.train_split and data.test_split are both train"),
        (
            {"path": "saved", "field": "txt"},
            "split train: expected a column txt (data.field), but the columns are text, n",
        ),
        ({"path": "saved", "field": "n"}, "split train: expected text in n (data.field), but it is int64"),
        ({"path": "empty"}, "datasets can't load it"),
    ],
)
def test_wrong_settings_are_refused(
    settings: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("saved"), train=ROWS, test=ROWS)
    Path("file.txt").touch()
    Path("empty").mkdir()
    with pytest.raises(DataError) as caught:
        documents(source(**settings))
    assert message in str(caught.value)


def test_a_name_is_loaded_from_the_hub_at_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(*args: Any, **options: Any) -> DatasetDict:
        asked.append((args, options))
        return DatasetDict({"train": Dataset.from_list(texts("a"))})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = source("me/data", revision=COMMIT, subset="plain")
    assert documents(found) == ["a"]
    assert asked == [(("me/data", "plain"), {"revision": COMMIT})]


def test_a_hub_out_of_reach_is_an_error(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from lmexp.data.config import HFConfig\n"
        f"source = HFConfig(path='squad', revision='{COMMIT}').source()\n"
        "try:\n"
        "    source.units()\n"
        "except Exception as error:\n"
        "    from huggingface_hub import constants\n"
        "    assert constants.HF_HUB_DISABLE_TELEMETRY and 'torch' not in sys.modules\n"
        "    sys.exit(f'{type(error).__name__}: {error}')\n"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )
    assert "DataError: data.path=squad: datasets can't load it: ConnectionError" in done.stderr
    assert "is the hub within reach? What was loaded before is read without it: HF_HUB_OFFLINE=1" in done.stderr


def test_code_in_a_folder_is_never_run(tmp_path: Path) -> None:
    folder = tmp_path / "scripted"
    folder.mkdir()
    (folder / "scripted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (folder / "train.jsonl").write_text('{"text": "a"}\n')
    with contextlib.suppress(DataError):
        documents(source(folder))
    assert not (tmp_path / "ran").exists()
