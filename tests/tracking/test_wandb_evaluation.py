"""What an evaluation found, as the offline .wandb file and the files beside it hold it."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lmexp.evaluation.plot import Plot, Series
from lmexp.evaluation.row import Row, not_measured
from lmexp.paths import METRICS_JSONL
from lmexp.redaction import REDACTED
from lmexp.reports.charts.plots import page_of
from lmexp.tracking.card import points_of, summary_of, without_secrets
from lmexp.tracking.config import WandbLoggerConfig
from lmexp.tracking.rows import read_rows
from lmexp.tracking.tracker import Tracker
from lmexp.tracking.wandb import WandbMirror
from tests.tracking.read_wandb import OfflineRun, read_finished

ROOT = Path(__file__).parents[2]
SECRET = "evaluation-canary-0123456789"


def plot(kind: str = "curve", title: str = "Loss by position") -> Plot:
    x: list[Any] = ["news", "code"] if kind in ("bars", "forest") else [0.25, 1.0]
    return Plot(kind=kind, title=title, y_label="loss", series=[Series(label="a", x=x, y=[2, 1.5], n=[3, 4])])


def row(name: str = "perplexity/loss", **changes: Any) -> Row:
    values = {"split": "test", "definition": "d", "estimate": 0.5, "low": 0.25, "high": 0.75, "n": 8, "n_clusters": 2}
    return Row(name=name, **values | changes)


ROWS = [
    row(plot=plot()),
    row("a/forest", plot=plot("forest")),
    row("a/bars", plot=plot("bars"), low=None, high=None),
    not_measured("a/none", "test", "d", "why"),
]


def table(run_dir: Path, entry: dict[str, Any]) -> dict[str, Any]:
    """The content of a table that a summary names."""
    (path,) = run_dir.glob(f"wandb/offline-run-*/files/{entry['path']}")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def mirrored(folder: Path, rows: list[Row], samples: dict[str, Path]) -> OfflineRun:
    mirror = WandbMirror(WandbLoggerConfig(sync="off"), folder, run_id="id-1", name="n", run_config={})
    tracker = Tracker(folder, mirror)
    tracker.texts("story", [("Once", 5, f" upon a time {SECRET}"), ("", 5, "漢\x00")], step=3)
    tracker.metrics(7, {"train/loss": 1.0}, unmirrored={"train/loss/low": 0.5})
    tracker.evaluation(rows, draw=page_of, samples=samples)
    tracker.close()
    return read_finished(mirror.fragment)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, OfflineRun]:
    """A run that mirrored ROWS and two tables of samples, and what its .wandb file says."""
    folder = tmp_path_factory.mktemp("run")
    samples = {}
    for name in ("quiz", "perplexity"):
        samples[name] = folder / "evaluation" / name / "samples.parquet"
        samples[name].parent.mkdir(parents=True)
        samples[name].write_bytes(name.encode() * 1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETRC", os.devnull)
        run = mirrored(folder, ROWS, samples)
    samples["quiz"].write_bytes(b"a later evaluation")
    return folder, run


def test_the_summary_has_estimate_interval_and_n(found: tuple[Path, OfflineRun]) -> None:
    _, run = found
    assert {
        key: run.summary[key] for key in run.summary if re.match("evaluation/(perplexity|a)/[a-z]+(/[a-z]+)?$", key)
    } == {
        "evaluation/perplexity/loss": 0.5,
        "evaluation/perplexity/loss/low": 0.25,
        "evaluation/perplexity/loss/high": 0.75,
        "evaluation/perplexity/loss/n": 8,
        "evaluation/a/forest": 0.5,
        "evaluation/a/forest/low": 0.25,
        "evaluation/a/forest/high": 0.75,
        "evaluation/a/forest/n": 8,
        "evaluation/a/bars": 0.5,
        "evaluation/a/bars/n": 8,
    }


def test_the_rows_are_a_table(found: tuple[Path, OfflineRun]) -> None:
    folder, run = found
    content = table(folder, media(run)["evaluation/card"])
    rows = [dict(zip(content["columns"], data, strict=True)) for data in content["data"]]
    assert [entry["name"] for entry in rows] == [one.name for one in ROWS]
    for entry, one in zip(rows, ROWS, strict=True):
        assert {key: getattr(one, key) for key in entry} == entry


def test_texts_are_a_table_of_their_step(found: tuple[Path, OfflineRun]) -> None:
    folder, run = found
    (at,) = (row for row in run.history if "evaluation/story/texts._type" in row)
    assert at["step"] == 3
    content = table(folder, {"path": at["evaluation/story/texts.path"]})
    assert content["columns"] == ["prompt", "seed", "text"]
    assert content["data"] == [["Once", 5, f" upon a time {SECRET}"], ["", 5, "漢\x00"]]


def test_what_is_for_the_files_alone_is_not_shown(found: tuple[Path, OfflineRun]) -> None:
    folder, run = found
    assert read_rows(folder / METRICS_JSONL) == [{"step": 7, "train/loss": 1.0, "train/loss/low": 0.5}]
    assert "train/loss/low" not in run.summary


def media(run: OfflineRun) -> dict[str, dict[str, Any]]:
    """Key -> the keys of the object that is shown under it, from the last row of the history."""
    objects: dict[str, dict[str, Any]] = {}
    for key, value in run.history[-1].items():
        for name in ("path", "_type", "nrows"):
            if key.endswith(f".{name}"):
                objects.setdefault(key.removesuffix(f".{name}"), {})[name] = value
    return objects


def test_each_plot_is_there_as_in_the_report(found: tuple[Path, OfflineRun]) -> None:
    folder, run = found
    assert run.history[-1]["step"] == 7
    for key, one in (("perplexity/loss", ROWS[0]), ("a/forest", ROWS[1]), ("a/bars", ROWS[2])):
        shown = media(run)[f"evaluation/{key}/plot"]
        assert shown["_type"] == "html-file"
        (path,) = folder.glob(f"wandb/offline-run-*/files/{shown['path']}")
        assert one.plot is not None
        assert path.read_text(encoding="utf-8") == page_of(one.plot)


def test_curves_and_bars_are_charts_that_overlay_runs(found: tuple[Path, OfflineRun]) -> None:
    folder, run = found
    for key, one, spec in (("perplexity/loss", ROWS[0], "wandb/line/v0"), ("a/bars", ROWS[2], "wandb/bar/v0")):
        assert one.plot is not None
        content = table(folder, media(run)[f"evaluation/{key}/chart_table"])
        assert {name: content[name] for name in ("columns", "data")} == points_of(one.plot)
        assert run.config[f"_wandb.visualize.evaluation/{key}/chart"]["panel_config"]["panelDefId"] == spec
    assert not [key for key in media(run) if key.startswith("evaluation/a/forest/chart")]


def test_the_tables_of_samples_are_an_artifact_of_copies(found: tuple[Path, OfflineRun]) -> None:
    folder, run = found
    (artifact,) = [one for one in run.artifacts if one.type == "evaluation"]
    assert artifact.name == "evaluation-id-1"
    assert {name: path.read_bytes() for name, path in artifact.files.items()} == {
        f"{name}/samples.parquet": name.encode() * 1000 for name in ("perplexity", "quiz")
    }
    for one in run.artifacts:
        for path in one.files.values():
            assert path.is_relative_to(folder / "wandb")
            assert stat.S_ISREG(path.lstat().st_mode)


def test_nothing_is_left_outside_the_run_and_nothing_is_printed(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from tests.tracking.test_wandb_evaluation import ROWS, mirrored
folder = Path(sys.argv[1])
(folder / "samples.parquet").write_bytes(b"x")
mirrored(folder, ROWS, {"quiz": folder / "samples.parquet"})
"""
    home, temporary, run, here = (tmp_path / name for name in ("home", "tmp", "run", "here"))
    for folder in (home, temporary, run, here):
        folder.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "XDG_"))}
    environment |= {"HOME": str(home), "TMPDIR": str(temporary), "NETRC": os.devnull, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(run)], env=environment, cwd=here, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [list(folder.iterdir()) for folder in (home, temporary, here)] == [[], [], []]
    assert {path.name for path in run.iterdir()} == {"wandb", "samples.parquet", METRICS_JSONL, "timings.jsonl"}


def test_a_secret_in_a_row_or_a_plot_reaches_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_TOKEN", SECRET)
    secret_plot = plot(title=f"t {SECRET}")
    secret_plot.series[0].label = SECRET
    mirrored(tmp_path, [row(f"a/{SECRET}", definition=SECRET, plot=secret_plot)], {})
    files = [path for path in (tmp_path / "wandb").rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path
    assert any(REDACTED.encode() in path.read_bytes() for path in files)


def test_a_drawing_or_a_table_that_fails_costs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fails(_: Plot) -> str:
        raise ArithmeticError("too large")

    for draw, samples in ((fails, {}), (page_of, {"quiz": tmp_path / "nowhere.parquet"})):
        caplog.clear()
        mirror = WandbMirror(WandbLoggerConfig(sync="off"), tmp_path, run_id="x", name="n", run_config={})
        tracker = Tracker(tmp_path, mirror)
        tracker.evaluation(ROWS, draw=draw, samples=samples)
        tracker.metrics(1, {"train/loss": 1.0})
        tracker.close()
        assert caplog.text.count("the mirror stopped") == 1
    assert [one["train/loss"] for one in read_rows(tmp_path / METRICS_JSONL)] == [1.0, 1.0]


def test_rows_of_one_name_keep_apart() -> None:
    keys = list(without_secrets([row("a"), row("a", split="validation"), row("a", split="validation")]))
    assert keys == ["evaluation/a", "evaluation/a/validation", "evaluation/a/validation'"]
    assert summary_of({"k": not_measured("a", "test", "d", "why")}) == {}
