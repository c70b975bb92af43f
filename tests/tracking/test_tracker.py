import logging
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from lmexp.errors import ConfigError
from lmexp.evaluation.plot import Plot
from lmexp.evaluation.row import Row
from lmexp.paths import DISCARDED_JSONL, METRICS_JSONL, TIMINGS_JSONL
from lmexp.tracking.config import FilesLoggerConfig, LoggerConfig, WandbLoggerConfig
from lmexp.tracking.rows import read_rows
from lmexp.tracking.tracker import Mirror, Tracker, cut_back_run, start_mirror


class Recorder:
    """A mirror that remembers, and fails from its n-th row on."""

    def __init__(self, fails_from: int = 10**9) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.told: dict[str, float | str] = {}
        self.exit_codes: list[int] = []
        self.calls = 0
        self.fails_from = fails_from

    def row(self, step: int, values: Mapping[str, float]) -> None:
        self.calls += 1
        if self.calls >= self.fails_from:
            raise ConnectionError("the line\nis dead")
        self.rows.append((step, dict(values)))

    def summary(self, values: Mapping[str, float | str]) -> None:
        self.told |= values

    def evaluation(self, rows: Sequence[Row], *, draw: Callable[[Plot], str], samples: Mapping[str, Path]) -> None:
        self.row(0, {row.name: row.n for row in rows})

    def texts(self, name: str, texts: Sequence[tuple[str, int, str]], *, step: int | None) -> None:
        self.row(-1 if step is None else step, {name: len(texts)})

    def close(self, exit_code: int) -> None:
        self.exit_codes.append(exit_code)


def test_figures_go_to_their_files_and_to_the_mirror(tmp_path: Path) -> None:
    mirror = Recorder()
    tracker = Tracker(tmp_path, mirror)
    tracker.metrics(10, {"train/loss": 2.5})
    tracker.timings(10, {"train/seconds": 0.5})
    tracker.summary({"verdict": "fine"})
    tracker.sync()
    tracker.close(3)
    tracker.close(4)
    assert read_rows(tmp_path / METRICS_JSONL) == [{"step": 10, "train/loss": 2.5}]
    assert read_rows(tmp_path / TIMINGS_JSONL) == [{"step": 10, "train/seconds": 0.5}]
    assert mirror.rows == [(10, {"train/loss": 2.5}), (10, {"train/seconds": 0.5})]
    assert (mirror.told, mirror.exit_codes) == ({"verdict": "fine"}, [3])


def test_what_an_evaluation_found_goes_to_the_mirror_or_is_missed_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [Row(name="a/b", split="test", definition="x", estimate=1.0, n=7)]
    for fails_from, mirrored in ((9, [(0, {"a/b": 7})] * 2), (1, [])):
        mirror = Recorder(fails_from)
        tracker = Tracker(tmp_path, mirror)
        for _ in range(2):
            tracker.evaluation(rows, draw=str, samples={})
        tracker.close()
        assert mirror.rows == mirrored
    assert caplog.text.count("the mirror stopped") == 1


def test_a_failing_mirror_costs_one_warning_and_no_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mirror = Recorder(fails_from=3)
    tracker = Tracker(tmp_path, mirror)
    with caplog.at_level(logging.WARNING):
        for step in range(10):
            tracker.metrics(step, {"train/loss": step / 3})
        tracker.close()
    assert read_rows(tmp_path / METRICS_JSONL) == [{"step": s, "train/loss": s / 3} for s in range(10)]
    (record,) = caplog.records
    assert "the line is dead" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert (mirror.calls, mirror.exit_codes) == (3, [0])


def test_a_mirror_that_cannot_start_or_end_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> Mirror:
        raise RuntimeError("no service")

    assert start_mirror(fail) is None
    mirror = Recorder()
    mirror.close = fail  # type: ignore[assignment, method-assign]
    Tracker(tmp_path, mirror).close()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


def test_a_full_disk_stops_the_run(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    (tmp_path / METRICS_JSONL).symlink_to("/dev/full")
    mirror = Recorder()
    tracker = Tracker(tmp_path, mirror)
    with pytest.raises(OSError, match="No space left"):
        tracker.metrics(1, {"train/loss": 1.0})
    tracker.close(1)
    assert mirror.rows == []


def test_cutting_back_a_run_cuts_both_files(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    for step in (10, 20, 30):
        tracker.metrics(step, {"train/loss": 1.0})
        tracker.timings(step, {"train/seconds": 1.0})
    tracker.close()
    assert cut_back_run(tmp_path, 20) == 2
    for name in (METRICS_JSONL, TIMINGS_JSONL):
        assert [row["step"] for row in read_rows(tmp_path / name)] == [10, 20]
    assert [set(row) for row in read_rows(tmp_path / DISCARDED_JSONL)] == [
        {"step", "train/loss"},
        {"step", "train/seconds"},
    ]


def test_the_files_logger_has_no_mirror(tmp_path: Path) -> None:
    tracker = FilesLoggerConfig().build(tmp_path, run_id="x", name="x", run_config={})
    tracker.metrics(1, {"train/loss": 1.0})
    tracker.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == [METRICS_JSONL, TIMINGS_JSONL]


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigError, match=r"logger\.log_every_n_steps is 0; expected at least 1"):
        LoggerConfig(log_every_n_steps=0)
    with pytest.raises(ConfigError, match=r"logger\.sync is 'on'; expected one of auto, off"):
        WandbLoggerConfig(sync="on")
    with pytest.raises(ConfigError, match=r"logger\.tags"):
        WandbLoggerConfig(tags=["x" * 65])
    with pytest.raises(ConfigError, match=r"logger\.project"):
        WandbLoggerConfig(project="")


@pytest.mark.parametrize("module", ["tracker", "config", "wandb", "upload", "receipt", "rows"])
def test_importing_loads_neither_wandb_nor_torch(module: str) -> None:
    code = (
        f"import sys, lmexp.tracking.{module}; "
        "assert not {'torch', 'wandb', 'numpy', 'hydra'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
