"""`lmexp generate`: what is printed: Printed, and when."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lmexp
from lmexp.cli.main import main
from lmexp.config.compose import compose
from lmexp.config.schema import GenerateConfig
from lmexp.evaluation.generated import texts_of
from lmexp.evaluation.samples_file import read_samples
from lmexp.runs.generate import generate
from lmexp.runs.load import LoadedModel
from tests.end_to_end.command import TINY, write_corpus

Printed = Callable[..., str]
SHORT = ("max_new_tokens=24", "accelerator=cpu", "temperature=1", "top_k=null")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_corpus(folder)
        small = ["trainer.max_steps=6", "trainer.val_every_n_steps=6", "evaluation=[samples]"]
        return folder / lmexp.train(lmexp.compose([*TINY, *small]), say=lambda _: None).path


@pytest.fixture(scope="module")
def loaded(run: Path) -> LoadedModel:
    return lmexp.load(run)


@pytest.fixture
def printed(run: Path, capsys: pytest.CaptureFixture[str]) -> Printed:
    def of(*typed: str, code: int = 0) -> str:
        assert main(["generate", f"run={run}", *SHORT, *typed]) == code
        captured = capsys.readouterr()
        return captured.out if code == 0 else captured.err

    return of


def config(run: Path, *typed: str) -> GenerateConfig:
    found = compose([f"run={run}", *SHORT, *typed], command="generate").config
    assert isinstance(found, GenerateConfig)
    return found


def test_one_text_is_printed_after_its_prompt(printed: Printed, loaded: LoadedModel) -> None:
    text = loaded.generate("the cat", seed=3, max_new_tokens=24, temperature=1, top_k=None)
    assert printed("prompt=the cat", "seed=3") == f"the cat{text}\n"


def test_samples_are_those_of_their_seeds_whatever_the_batch(printed: Printed, loaded: LoadedModel) -> None:
    texts = [loaded.generate("the", seed=seed, max_new_tokens=24, temperature=1, top_k=None) for seed in (5, 6, 7)]
    assert len(set(texts)) == 3
    expected = "".join(f"--- seed {5 + i}\nthe{text}\n" for i, text in enumerate(texts))
    for batch_size in (1, 2, 16):
        assert printed("prompt=the", "seed=5", "n_samples=3", f"batch_size={batch_size}") == expected


def test_prompts_of_a_file_give_json_lines_in_order(printed: Printed, loaded: LoadedModel, tmp_path: Path) -> None:
    prompts = ["the cat", "漢字", "a mat and then"]
    lines, objects = tmp_path / "prompts.txt", tmp_path / "prompts.jsonl"
    lines.write_text("\r\n\n".join(prompts), encoding="utf-8")
    objects.write_text("".join(json.dumps({"prompt": prompt, "id": 1}) + "\n" for prompt in prompts), encoding="utf-8")
    expected = [
        {
            "prompt": prompt,
            "text": loaded.generate(prompt, seed=seed, max_new_tokens=24, temperature=1, top_k=None),
            "seed": seed,
        }
        for prompt in prompts
        for seed in (0, 1)
    ]
    for path in (lines, objects):
        found = printed(f"prompts_file={path}", "n_samples=2", "batch_size=4")
        assert [json.loads(line) for line in found.splitlines()] == expected
    batch = loaded.generate_batch(prompts, max_new_tokens=24, temperature=1, top_k=None)
    assert batch == [row["text"] for row in expected if row["seed"] == 0]


def test_beams_are_printed_best_first(printed: Printed, loaded: LoadedModel, tmp_path: Path) -> None:
    beams = ("temperature=0", "n_beams=3", "n_samples=2", "prompt=the")
    found = printed(*beams)
    assert found.startswith("--- beam 1\nthe" + loaded.generate("the", n_beams=3, max_new_tokens=24) + "\n--- beam 2\n")
    (tmp_path / "p.txt").write_text("the\n", encoding="utf-8")
    rows = printed("temperature=0", "n_beams=3", f"prompts_file={tmp_path}/p.txt")
    assert json.loads(rows) == {
        "prompt": "the",
        "text": loaded.generate("the", n_beams=3, max_new_tokens=24),
        "beam": 1,
    }


def test_a_stop_string_ends_the_text_before_it(printed: Printed) -> None:
    whole = printed("prompt=the", "max_new_tokens=60")
    stop = whole[5:7]
    assert printed("prompt=the", "max_new_tokens=60", f"stop=['{stop}']") == whole[: whole.index(stop, 3)] + "\n"


@pytest.mark.parametrize("stop", ["END", "\n", "it's [1, 2]", "é…", "a,b", "x=${y}", "back\\"])
def test_one_stop_string_is_taken_as_it_is_typed(run: Path, stop: str) -> None:
    assert config(run, f"stop={stop}").stop == [stop]
    assert config(run, "stop=[END,'é',\"\n\"]").stop == ["END", "é", "\n"]


def test_the_text_comes_while_it_is_made(run: Path) -> None:
    pieces = generate(run, config(run, "prompt=the"))
    assert next(pieces) == "the"
    state = torch.get_rng_state()
    rest = list(pieces)
    assert torch.equal(torch.get_rng_state(), state)
    assert len([piece for piece in rest if piece]) > 5
    assert rest[-1] == "\n"


def test_the_run_says_what_it_generates_and_the_same_again(run: Path, loaded: LoadedModel) -> None:
    written = texts_of(read_samples(run / "evaluation" / "samples" / "samples.parquet"))
    assert [seed for _, seed, _ in written] == [0, 1, 2]
    for prompt, seed, text in written:
        assert text == loaded.generate(prompt, seed=seed, top_k=None)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["n_beams=2", "temperature=0", "top_p=0.5"], "top_p=0.5 is for sampling, but n_beams=2"),
        (["n_beams=2", "temperature=0", "n_samples=3"], "n_samples (3) must be at most n_beams (2)"),
        (["n_beams=2", "temperature=0", "seed=1"], "seed=1 is for sampling"),
        (["temperature=0", "n_samples=2"], "with temperature=0 all texts are the same"),
        (["stop=['']"], "stop has an empty text"),
        (["prompt=\udcff"], "prompt is '\\udcff', which has bytes that are no UTF-8 text"),
        (["prompt=a", "prompts_file=b"], "prompt and prompts_file are both set"),
        (["prompts_file=nowhere.txt"], "prompts_file=nowhere.txt: no such file"),
        (["prompts_file=bad.jsonl"], 'prompts_file=bad.jsonl:2: expected {"prompt": "text"}, got {"promt": "b"}'),
        (["prompts_file=empty.txt"], "prompts_file=empty.txt: no prompt in it"),
        (["prompts_file=latin.txt"], "prompts_file=latin.txt: not UTF-8 text"),
    ],
)
def test_bad_input_is_told_with_the_fix(
    printed: Printed, typed: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n{"promt": "b"}\n', encoding="utf-8")
    (tmp_path / "empty.txt").write_text("\n \n", encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    assert message in printed(*typed, code=2)
