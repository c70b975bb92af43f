"""Scoring that is killed, shared, done before, or asked anew with other settings."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from lmexp.errors import RunError
from lmexp.evaluation import collect as collecting
from lmexp.evaluation.collect import ORDER, collect
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.figures import rows_of
from lmexp.evaluation.samples import NUMBER, TEXT, Figure, Header, Key, Samples, make_table
from lmexp.evaluation.samples_file import read_header, read_samples
from tests.evaluation.equality import equal_but_for_latency
from tests.evaluation.scoring import passes, score, start
from tests.evaluation.tiny import TinyModel

N = 10


class Scoring:
    """Scores numbers, two a batch; fails at one on request."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.fail_at, self.scored = fail_at, []  # type: ignore[var-annotated]

    def __call__(self, batch: list[int]) -> pa.Table:
        if self.fail_at in batch:
            raise RuntimeError("interrupted")
        self.scored += batch
        return pa.table({"sample_id": [f"s{n}" for n in batch], "logprob": [0.1 * n for n in batch], ORDER: batch})


def context(folder: Path | None, **changes: Any) -> EvaluationContext:
    settings = {"model": TinyModel(), "cache": None, "sequence_length": 7, "model_digest": "1" * 64, **changes}
    return EvaluationContext(folder=folder, **settings)


def header(**settings: Any) -> Header:
    key = Key(model="1" * 64, task={"items": "x"}, settings=settings)
    return Header(name="mine", kind="numbers", split="test", definition="numbers", key=key)


def run(folder: Path | None, scoring: Scoring, *, batch_size: int = 2, given: Header | None = None) -> Samples:
    numbers = list(range(N))[::-1]  # not in the order of the table

    def finish(rows: pa.Table) -> pa.Table:
        names = rows["sample_id"].to_pylist()
        return make_table({"sample_id": names, "cluster_id": names, "logprob": rows["logprob"].to_numpy()}, {})

    return collect(
        context(folder),
        given or header(),
        [numbers[i : i + batch_size] for i in range(0, N, batch_size)],
        scoring,
        schema={"sample_id": TEXT, "logprob": NUMBER},
        batching={"batch_size": batch_size},
        finish=finish,
    )


def test_rows_come_in_their_own_order_whatever_the_batches(tmp_path: Path) -> None:
    samples = run(tmp_path, Scoring())
    assert samples.values("sample_id") == [f"s{n}" for n in range(N)]
    assert equal_but_for_latency(read_samples(tmp_path / "mine" / "samples.parquet"), samples)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["samples.parquet"]


def test_a_table_with_the_same_key_is_taken_over(tmp_path: Path) -> None:
    first, again = run(tmp_path, Scoring()), Scoring()
    assert equal_but_for_latency(run(tmp_path, again, batch_size=3), first)
    assert again.scored == []


def test_a_table_without_a_column_that_a_figure_needs_is_made_anew(tmp_path: Path) -> None:
    """As after an update of lmexp that brought another figure."""
    run(tmp_path, Scoring())
    figures = (
        Figure(name="loss", definition="x", numerator="logprob", scale=-1.0),
        Figure(name="new", definition="x", numerator="brand_new"),
    )
    for given, n_scored in ((replace(header(), figures=figures[:1]), 0), (replace(header(), figures=figures), N)):
        again = Scoring()
        assert run(tmp_path, again, given=given).header.figures == given.figures
        assert len(again.scored) == n_scored


def test_a_table_with_another_key_is_kept_aside_and_found_again(tmp_path: Path) -> None:
    first = run(tmp_path, Scoring())
    other = Scoring()
    run(tmp_path, other, given=header(precision="bf16"))
    assert len(other.scored) == N
    aside = tmp_path / "mine" / f"samples-{header().key.digest[:16]}.parquet"
    assert equal_but_for_latency(read_samples(aside), first)
    again = Scoring()
    assert equal_but_for_latency(run(tmp_path, again), first)
    assert again.scored == []
    assert read_header(tmp_path / "mine" / "samples.parquet").key == header().key
    kept = header(precision="bf16")
    assert (tmp_path / "mine" / f"samples-{kept.key.digest[:16]}.parquet").exists()


def test_the_header_of_now_is_published_with_a_table_that_is_taken_over(tmp_path: Path) -> None:
    run(tmp_path, Scoring())
    now = Header(
        **{name: getattr(header(), name) for name in ("name", "kind", "split", "key")}, definition="better said"
    )
    assert run(tmp_path, Scoring(), given=now).header.definition == "better said"


def test_without_a_known_model_nothing_is_taken_over(tmp_path: Path) -> None:
    unknown = Header(name="mine", kind="numbers", split="test", definition="numbers", key=Key(model="", task={}))
    for _ in range(2):
        scoring = Scoring()
        run(tmp_path, scoring, given=unknown)
        assert len(scoring.scored) == N


def test_without_a_folder_the_table_stays_in_memory() -> None:
    assert len(run(None, Scoring())) == N


def test_an_error_keeps_what_was_scored(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="interrupted"):
        run(tmp_path, Scoring(fail_at=3))
    assert not (tmp_path / "mine" / "samples.parquet").exists()
    rest = Scoring()
    samples = run(tmp_path, rest)
    assert sorted(rest.scored) == [0, 1, 2, 3]
    assert equal_but_for_latency(samples, run(None, Scoring()))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["samples.parquet"]


def test_other_batches_do_not_go_on_with_what_was_scored(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="interrupted"):
        run(tmp_path, Scoring(fail_at=3))
    rest = Scoring()
    run(tmp_path, rest, batch_size=5)
    assert len(rest.scored) == N


@pytest.mark.parametrize("damage", ["cut", "empty", "not parquet", "other columns", "link"])
def test_damaged_parts_are_scored_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.setattr(collecting, "SECONDS", 0.0)
    with pytest.raises(RuntimeError, match="interrupted"):
        run(tmp_path, Scoring(fail_at=0))
    parts = sorted((tmp_path / "mine").glob("parts-*/*.parquet"))
    assert len(parts) == 4
    content = parts[0].read_bytes()
    if damage == "link":
        parts[0].rename(tmp_path / "elsewhere")
        parts[0].symlink_to(tmp_path / "elsewhere")
    elif damage == "other columns":
        pa.parquet.write_table(pa.table({"x": [1]}), parts[0])
    else:
        parts[0].write_bytes({"cut": content[:-9], "empty": b"", "not parquet": b"x" * 500}[damage])
    rest = Scoring()
    samples = run(tmp_path, rest)
    assert len(rest.scored) == 4
    assert equal_but_for_latency(samples, run(None, Scoring()))


def test_a_damaged_table_is_made_again(tmp_path: Path) -> None:
    first = run(tmp_path, Scoring())
    (tmp_path / "mine" / "samples.parquet").write_bytes(b"PAR1 and more")
    again = Scoring()
    assert equal_but_for_latency(run(tmp_path, again), first)
    assert len(again.scored) == N


@pytest.mark.parametrize(("n_killed", "n_resumed"), [(1, 1), (1, 2), (2, 1)])
def test_a_killed_evaluation_ends_with_the_table_of_one_that_nobody_disturbed(
    tmp_path: Path, n_killed: int, n_resumed: int
) -> None:
    """kill -9 in the middle; other processes, and another number of them, do only what is left."""
    ranks = start(tmp_path, n_killed, 0.3, [8])
    folder = tmp_path / "batch-8" / "perplexity"
    deadline = time.monotonic() + 120
    while len(list(folder.glob("parts-*/*.parquet"))) < 4:
        assert time.monotonic() < deadline and all(rank.poll() is None for rank in ranks)
        time.sleep(0.05)
    for rank in ranks:
        rank.kill()
    for rank in ranks:
        rank.communicate()
    assert not (folder / "samples.parquet").exists()
    n_done = len(list(folder.glob("parts-*/*.parquet")))
    n_passes = sum(n for (n,) in passes(start(tmp_path, n_resumed, 0.0, [8])))
    rows, n_all = one_thread(tmp_path, 8)
    assert n_passes == n_all - n_done
    resumed = read_samples(folder / "samples.parquet")
    assert equal_but_for_latency(
        resumed, read_samples(tmp_path / "whole" / "batch-8" / "perplexity" / "samples.parquet")
    )
    assert rows_of(resumed, seed=0) == rows
    assert [path.name for path in folder.iterdir()] == ["samples.parquet"]


def test_logprobs_do_not_depend_on_batch_size_and_processes(tmp_path: Path) -> None:
    """Within 1e-5; predictions and counts exactly. Also where a process has nothing to do."""
    sizes = [1, 8, 32, 1000]
    passes(start(tmp_path, 2, 0.0, sizes))
    rows, _ = one_thread(tmp_path, 1)
    first = read_samples(tmp_path / "whole" / "batch-1" / "perplexity" / "samples.parquet")
    logprobs = np.concatenate(first.values("logprobs"))
    for size in sizes:
        by_two = read_samples(tmp_path / f"batch-{size}" / "perplexity" / "samples.parquet")
        one_thread(tmp_path, size)
        by_one = read_samples(tmp_path / "whole" / f"batch-{size}" / "perplexity" / "samples.parquet")
        assert equal_but_for_latency(by_two, by_one)
        np.testing.assert_allclose(np.concatenate(by_one.values("logprobs")), logprobs, rtol=0, atol=1e-5)
        for name in ("sample_id", "target", "n_tokens", "n_bytes", "n_words", "n_correct", "position_tokens"):
            assert by_one.values(name) == first.values(name), name
        for row, other in zip(rows_of(by_two, seed=0), rows, strict=True):
            assert row.estimate == pytest.approx(other.estimate, abs=1e-5, rel=1e-5)
            assert (row.name, row.n, row.n_clusters, row.definition) == (
                other.name,
                other.n,
                other.n_clusters,
                other.definition,
            )


def test_the_table_alone_gives_the_rows_again(tmp_path: Path) -> None:
    rows, _ = one_thread(tmp_path, 8)
    assert rows_of(read_samples(tmp_path / "whole" / "batch-8" / "perplexity" / "samples.parquet"), seed=0) == rows
    assert len(rows) == 9 and all(row.measured for row in rows)


def test_a_link_in_the_place_of_the_table_is_replaced_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.parquet"
    first = run(tmp_path / "one", Scoring())
    (tmp_path / "one" / "mine" / "samples.parquet").rename(elsewhere)
    before = elsewhere.read_bytes()
    (tmp_path / "two" / "mine").mkdir(parents=True)
    path = tmp_path / "two" / "mine" / "samples.parquet"
    path.symlink_to(elsewhere)
    with pytest.raises(RunError, match="link"):
        read_samples(path)
    assert equal_but_for_latency(run(tmp_path / "two", Scoring()), first)
    assert not path.is_symlink()
    assert elsewhere.read_bytes() == before


def one_thread(folder: Path, batch_size: int) -> tuple[Any, int]:
    """As the program scores, in this process and undisturbed, into FOLDER/whole."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return score(folder / "whole", folder, batch_size)
    finally:
        torch.set_num_threads(threads)
