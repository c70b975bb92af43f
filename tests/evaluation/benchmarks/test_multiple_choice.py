from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lmexp.errors import ConfigError, DataError
from lmexp.evaluation.benchmarks.config import MultipleChoiceConfig
from lmexp.evaluation.benchmarks.few_shot import Shot, Shots, orders
from lmexp.evaluation.benchmarks.multiple_choice import MultipleChoice, brier, first_largest
from lmexp.evaluation.samples_file import read_samples
from tests.evaluation.asking import QUESTIONS, VOCAB, Uniform, asking, context, run, write
from tests.evaluation.equality import equal_but_for_latency

ROOT = Path(__file__).parents[3]


def plain(path: str, **options: Any) -> MultipleChoiceConfig:
    return MultipleChoiceConfig(path=path, **{"prompt": "{q}", **options})


def asked(path: str, **options: Any) -> list[Any]:
    return MultipleChoice(plain(path, **options))._prepare("it")[0]


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Rows and table of QUESTIONS, asked in several ways."""
    return run(asking(write(tmp_path_factory.mktemp("several"), QUESTIONS)))


def test_every_figure_follows_from_the_columns(several: Any) -> None:
    """The definitions, written down once more."""
    rows, samples = several
    hits: dict[str, list[float]] = {name: [] for name in ("acc", "acc_norm", "acc_bytes", "acc_pmi", "brier")}
    for logprobs, uncond, target, sample in zip(
        samples.values("logprobs"),
        samples.values("unconditional"),
        samples.values("target"),
        samples.values("sample_id"),
        strict=True,
    ):
        choices = QUESTIONS[int(sample) - 1]["choices"]
        right, found = choices.index(target), np.array(logprobs)
        assert right == QUESTIONS[int(sample) - 1]["label"]
        divided = {
            "acc": found,
            "acc_norm": found / [len(choice) for choice in choices],
            "acc_bytes": found / [len(choice.encode()) for choice in choices],
            "acc_pmi": found - uncond,
        }
        for name, values in divided.items():
            hits[name].append(float(np.argmax(values) == right))
        p = np.exp(found) / np.exp(found).sum()
        hits["brier"].append(sum((p[k] - (k == right)) ** 2 for k in range(len(p))))
    for name, values in hits.items():
        assert rows[name].estimate == pytest.approx(np.mean(values), rel=1e-12), name
        assert rows[name].n == len(samples) == 16 * 2 * 2 * 2
        assert rows[name].n_clusters == 16
    assert 0 < np.mean(hits["acc"]) < 1
    assert len({rows[name].estimate for name in ("acc", "acc_norm", "acc_pmi")}) > 1


def test_a_uniform_model_is_right_as_often_as_chance(tmp_path: Path) -> None:
    """Choices of equal length are equal to it, so it takes the first, which is right for 1 in k."""
    questions = [{"q": f"{i}", "choices": [*"abcd"], "label": i % 4} for i in range(40)]
    rows, samples = run(plain(write(tmp_path, questions)), context(Uniform()))
    assert rows["acc"].estimate == rows["acc_norm"].estimate == 1 / 4
    assert rows["brier"].estimate == pytest.approx(0.75)
    assert samples.values("prediction") == ["a"] * 40
    assert samples.numbers("logprob") == pytest.approx(-2 * math.log(VOCAB))


def test_a_model_that_knows_is_always_right(tmp_path: Path) -> None:
    class Knows(nn.Module):
        """Sure that a space is followed by R."""

        max_sequence_length = 100

        def forward(self, tokens: Tensor) -> Tensor:
            logits = torch.zeros(*tokens.shape, VOCAB)
            logits[..., ord("R")] = 50.0 * (tokens == ord(" "))
            return logits

    questions = [{"q": "?", "choices": ["R", "W"][:: 1 if i % 2 else -1], "label": (i + 1) % 2} for i in range(20)]
    rows, _ = run(plain(write(tmp_path, questions)), context(Knows()))
    assert rows["acc"].estimate == 1
    assert rows["brier"].estimate == pytest.approx(0, abs=1e-12)


def test_equal_choices_take_the_first_and_scores_that_are_none_are_no_answer() -> None:
    assert first_largest(np.array([1.0, 2.0, 2.0])) == 1
    assert first_largest(np.array([-np.inf, -3.0])) == 1
    assert first_largest(np.array([-np.inf, -np.inf])) is None
    assert first_largest(np.array([0.0, np.nan])) is None
    assert brier(np.log([0.5, 0.3, 0.2]), 0) == pytest.approx(0.25 + 0.09 + 0.04)
    assert math.isnan(brier(np.array([np.nan, 0]), 0))


def test_scores_that_are_not_finite_are_not_measured(tmp_path: Path) -> None:
    class Broken(Uniform):
        def forward(self, tokens: Tensor) -> Tensor:
            return super().forward(tokens) * math.nan

    rows, _ = run(plain(write(tmp_path, QUESTIONS)), context(Broken()))
    assert all("not finite in 16 of 16 questions" in rows[name].status for name in ("acc", "acc_norm", "brier"))


def test_prompts_seeds_and_orders_are_crossed_and_clustered_by_question(several: Any, tmp_path: Path) -> None:
    rows, samples = several
    ways = set(zip(*(samples.values(name) for name in ("prompt_id", "seed", "perturbation")), strict=True))
    assert ways == {(p, s, o) for p in ("main", "short") for s in (0, 1) for o in ("", "order-1")}
    assert len(set(samples.identities())) == len(samples)
    assert "t over 16 questions" in rows["acc"].method
    single, _ = run(plain(write(tmp_path, QUESTIONS)))
    assert single["acc"].method == "Wilson over 16 questions"


def test_slices_have_rows_and_a_plot(several: Any) -> None:
    rows, _ = several
    whole = (rows["acc[even]"].n, rows["acc[odd]"].n)
    assert whole == (64, 64)
    mean = (rows["acc[even]"].estimate + rows["acc[odd]"].estimate) / 2
    assert rows["acc"].estimate == pytest.approx(mean)
    assert rows["acc"].plot is not None
    assert list(rows["acc"].plot.series[0].x) == ["all", "even", "odd"]


def test_the_cluster_field_is_what_is_resampled(tmp_path: Path) -> None:
    rows, _ = run(plain(write(tmp_path, QUESTIONS), cluster="{source}"))
    assert rows["acc"].n_clusters == 4
    assert "t over 4 clusters" in rows["acc"].method


# solved items and orders


def test_solved_items_never_hold_the_item_itself(tmp_path: Path) -> None:
    doubled = [*QUESTIONS, *({**row, "source": 99} for row in QUESTIONS)]  # each question is there twice
    for one in asked(write(tmp_path, doubled), n_shots=5, seeds=[0, 1, 2]):
        question = one.item.record.fields["q"]
        shown = one.input.split("\n\n")
        assert shown[-1] == question
        assert not any(shot.startswith(question) for shot in shown[:-1])
        assert len(set(shown)) == 6 or len(shown) == 6


def test_solved_items_end_with_their_right_choice(tmp_path: Path) -> None:
    answers = {row["q"]: row["choices"][row["label"]] for row in QUESTIONS}
    for one in asked(write(tmp_path, QUESTIONS), n_shots=2, shot_delimiter="|"):
        for shot in one.input.split("|")[:-1]:
            question, _, answer = shot.rpartition(" ")
            assert answers[question] == answer


def test_draws_are_the_same_for_any_order_of_items(tmp_path: Path) -> None:
    named = [{**row, "id": f"q{i}"} for i, row in enumerate(QUESTIONS)]
    options = {
        "id": "{id}",
        "n_shots": 3,
        "seeds": [0, 7],
        "prompt": "{q}{*}",
        "option_orders": 2,
    }
    found = {}
    for rows in (named, named[::-1]):
        found[rows is named] = {
            (one.item.sample_id, one.seed, one.perturbation): one.pairs
            for one in asked(write(tmp_path, rows), **options)
        }
    assert found[True] == found[False]
    inputs = {(key[0], key[1]): pairs[0][0] for key, pairs in found[True].items() if not key[2]}
    assert sum(inputs[(f"q{i}", 0)] != inputs[(f"q{i}", 7)] for i in range(16)) > 12, "seeds draw others"


def test_solved_items_of_another_file_leave_out_the_same_question(tmp_path: Path) -> None:
    others = write(tmp_path, QUESTIONS[:3], "train.jsonl")
    for one in asked(write(tmp_path, QUESTIONS[:2]), n_shots=2, shots_path=others):
        question = one.item.record.fields["q"]
        assert sum(shot.startswith(question) for shot in one.input.split("\n\n")) == 1
    with pytest.raises(DataError, match=r"evaluation\.it\.n_shots=3: for the item 1 there are only 2 others to show"):
        asked(write(tmp_path, QUESTIONS[:2]), n_shots=3, shots_path=others)


def test_draws_favour_no_item() -> None:
    pool = Shots("n", [Shot(str(i), str(i), {}) for i in range(10)])
    counts = np.zeros(10)
    for i in range(2000):
        for shot in pool.draw(2, seed=0, sample_id=str(i), question="none"):
            counts[int(shot.id)] += 1
    assert counts.min() > 330 and counts.max() < 470  # 400 expected


def test_orders_are_different_permutations_and_the_given_one_is_first() -> None:
    found = orders(3, 6, "a", "o")
    assert found[0] == (0, 1, 2)
    assert len(set(found)) == 6
    assert orders(4, 3, "a", "o") != orders(4, 3, "b", "o")
    with pytest.raises(DataError, match=r"o=3: the item a has 2 choices, which have only 2 orders"):
        orders(2, 3, "a", "o")


def test_letters_follow_the_order_of_the_listing(tmp_path: Path) -> None:
    found = asked(write(tmp_path, QUESTIONS), prompt="{q}\n{*}\nAnswer:", answer="letter", option_orders=2)
    swapped = 0
    for one in found:
        lines = one.input.splitlines()[1:-1]
        for choice, (_, answer) in zip(one.choices, one.pairs, strict=True):
            assert f"{answer.strip()}. {choice}" in lines
        swapped += one.pairs[0][1] != " A"
    assert swapped > 3


# targets


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ({"label": 1}, {}),
        ({"label": "1"}, {}),
        ({"label": 2}, {"target_kind": "index_from_1"}),
        ({"label": "b"}, {"target_kind": "text"}),
        ({"label": "Y", "names": ["X", "Y"]}, {"target_kind": "label", "labels": ["{names.*}"]}),
        ({"label": "B"}, {"target_kind": "label", "labels": ["A", "B"]}),
        ({"label": True}, {"target_kind": "label", "labels": ["false", "true"]}),
    ],
)
def test_targets_are_told_in_several_ways(tmp_path: Path, row: dict[str, Any], options: dict[str, Any]) -> None:
    assert asked(write(tmp_path, [{"q": "?", "choices": ["a", "b"], **row}]), **options)[0].target == 1


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"label": 2}, {}, r"items\.jsonl:2: the target is '2'; expected a number from 0 to 1"),
        ({"label": -1}, {}, "the target is '-1'"),
        ({"label": 0}, {"target_kind": "index_from_1"}, "expected a number from 1 to 2"),
        ({"label": "c"}, {"target_kind": "text"}, "expected one of the 2 choices' texts, 'a', 'b'"),
        ({"label": "C"}, {"target_kind": "label", "labels": ["A", "B"]}, "the 2 choices' labels, 'A', 'B'"),
        ({"label": "A"}, {"target_kind": "label", "labels": ["A", "A"]}, "the target is 'A'"),
        ({"label": None}, {}, "label, .*is null; expected text or a number"),
        ({}, {}, "no field label"),
        ({"label": 0, "choices": ["a"]}, {}, r"evaluation\.it\.choices gives \['a'\]; expected two texts or more"),
        ({"label": 0, "choices": ["a", ""]}, {}, "expected two texts or more"),
        ({"label": 0, "choices": "ab"}, {}, r"no field choices\.\*"),
    ],
)
def test_items_that_say_nothing_sensible_are_refused_with_file_and_line(
    tmp_path: Path, row: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    good = {"q": "!", "choices": ["a", "b"], "label": {"text": "a", "label": "A"}.get(options.get("target_kind"), 1)}
    if options.get("labels") == ["A", "A"]:
        good["label"] = "B"
        message = "the target is 'B'"
    with pytest.raises(DataError, match=message):
        asked(write(tmp_path, [good, {"q": "?", "choices": ["a", "b"], **row}]), **options)


def test_targets_of_a_file_stand_beside_the_items(tmp_path: Path) -> None:
    path = write(tmp_path, [{"q": str(i), "choices": ["a", "b"]} for i in range(3)], "valid.jsonl")
    (tmp_path / "valid-labels.lst").write_text("1\n0\n1\n", encoding="utf-8")
    options = {"target_file": "{stem}-labels.lst"}
    assert [one.target for one in asked(path, **options)] == [1, 0, 1]
    for n in (1, 2):
        few = asked(path, **options, max_samples=n)
        assert [one.target for one in few] == [[1, 0, 1][int(one.input)] for one in few]
    with pytest.raises(DataError, match=r"evaluation\.it\.target_file=.*no\.lst: there is no such file"):
        asked(path, target_file="no.lst")
    (tmp_path / "valid-labels.lst").write_text("1\n0\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"has 2 lines and .* 3 rows; expected as many"):
        asked(path, **options)


def test_equal_ids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"items\.jsonl:3: its id is 'even', as that of .*items\.jsonl:1; set evaluation"
    ):
        asked(write(tmp_path, QUESTIONS), id="{kind}")


def test_max_samples_takes_the_same_items_whatever_their_order(tmp_path: Path) -> None:
    named = [{**row, "id": f"q{i}"} for i, row in enumerate(QUESTIONS)]
    few, more = (
        {one.item.sample_id for one in asked(write(tmp_path, rows), id="{id}", max_samples=n)}
        for rows, n in ((named, 4), (named[::-1], 9))
    )
    assert len(few) == 4 and few < more
    assert few != {f"q{i}" for i in range(4)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": [0, 1]}, "draw solved items, but n_shots is 0"),
        ({"shots_path": "x"}, "n_shots is 0"),
        ({"n_shots": 1, "seeds": [1, 1]}, "expected different numbers"),
        ({"option_orders": 2}, r"need prompts that list the choices, but main has no \{\*\}"),
        ({"answer": "letter"}, r"main has no \{\*\}"),
        ({"prompts": {"main": "{q}"}}, "give it another name"),
        ({"target_kind": "label"}, "target_kind=label needs labels"),
        ({"labels": ["A"]}, "the others have none"),
        ({"target_kind": "lable"}, "did you mean label"),
        ({"unconditional": "Answer:"}, "set evaluation.multiple_choice.pmi=true"),
        ({"choices": []}, "choices is empty"),
        ({"begin": "bos"}, "expected one of eos, nothing"),
        ({"split": "validation"}, "reads no split of the corpus"),
        ({"batch_size": 0}, "expected at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plain("x.jsonl", **options)


# comparing and sharing


def test_what_is_asked_decides_the_task_and_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path, QUESTIONS)
    base = MultipleChoice(plain(path)).check("it")
    moved = write(tmp_path, QUESTIONS, "moved.json")
    assert MultipleChoice(plain(moved, batch_size=3, begin="nothing", pmi=True)).check("other") == base
    for options in ({"prompt": "{q} "}, {"delimiter": ""}, {"n_shots": 1}, {"slice": "{kind}"}, {"max_samples": 9}):
        assert MultipleChoice(plain(path, **options)).check("it") != base, options
    changed = write(tmp_path, [*QUESTIONS[:-1], {**QUESTIONS[-1], "label": 0}], "changed.jsonl")
    assert MultipleChoice(plain(changed)).check("it") != base


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The table that one undisturbed process makes."""
    folder = tmp_path_factory.mktemp("alone")
    write(folder, QUESTIONS)
    start(folder, 0, 1, 8).communicate(timeout=120)
    return read_samples(folder / "evaluation-8" / "it" / "samples.parquet")


def start(folder: Path, rank: int, world_size: int, *batch_sizes: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.evaluation.asking", str(folder), str(rank), str(world_size)]
        + [str(size) for size in batch_sizes],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_two_processes_and_other_batch_sizes_find_the_same(tmp_path: Path, alone: Any) -> None:
    write(tmp_path, QUESTIONS)
    ranks = [start(tmp_path, rank, 2, 1, 8, 32) for rank in range(2)]
    assert [rank.communicate(timeout=240)[0] != "" and rank.returncode for rank in ranks] == [0, 0]
    for size in (1, 8, 32):
        samples = read_samples(tmp_path / f"evaluation-{size}" / "it" / "samples.parquet")
        assert samples.values("prediction") == alone.values("prediction")
        found, expected = (np.concatenate(one.values("logprobs")) for one in (samples, alone))
        assert np.abs(found - expected).max() < 1e-5
        if size == 8:
            assert equal_but_for_latency(samples, alone), "to the last bit, since the batches are the same"


def test_a_killed_evaluation_goes_on_and_ends_with_the_same_table(tmp_path: Path, alone: Any) -> None:
    write(tmp_path, QUESTIONS)
    folder = tmp_path / "evaluation-8" / "it"
    process = start(tmp_path, 0, 1, 8)
    assert process.stdout is not None
    line = next(line for line in process.stdout if line.startswith("10/"))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "samples.parquet").exists()
    output, _ = start(tmp_path, 0, 1, 8).communicate(timeout=120)
    assert int(output.partition("/")[2].split()[0]) <= int(line.partition("/")[2]) - 10, (
        "what was scored isn't scored again"
    )
    assert equal_but_for_latency(read_samples(folder / "samples.parquet"), alone)
    assert [path.name for path in folder.iterdir()] == ["samples.parquet"]


def test_the_table_can_be_read_and_counted_without_the_model(tmp_path: Path) -> None:
    from lmexp.evaluation.figures import rows_of

    path = write(tmp_path, QUESTIONS)
    rows, samples = run(plain(path), context(folder=tmp_path / "evaluation"))
    again = read_samples(tmp_path / "evaluation" / "it" / "samples.parquet")
    assert equal_but_for_latency(again, samples)
    found = {row.name.removeprefix("it/"): row.estimate for row in rows_of(again, seed=0)}
    assert found == {name: rows[name].estimate for name in found}
    assert json.loads(again.header.to_json())["key"]["task"]["n"] == 16
