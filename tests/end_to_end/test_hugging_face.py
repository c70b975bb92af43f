"""Hugging Face models from the first step to the exported folder, and back."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lmexp
from lmexp.cli.main import main
from lmexp.errors import CheckpointError, ConfigError, UserError
from lmexp.runs import folder as run_folder
from lmexp.tokenizers.base import Tokenizer
from lmexp.training import checkpoints, initial_weights
from lmexp.training.trainer import build_model
from tests.end_to_end.command import (
    TINY,
    command,
    environment,
    json_file,
    kill_when,
    only_run,
    same_result,
    write_corpus,
)
from tests.end_to_end.command import lmexp as run_command
from tests.hugging_face import write_model

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

DATA = [text for text in TINY if not text.startswith(("model.", "tokenizer"))]
SETTINGS = [*DATA, "checkpoint.keep=all", "launcher.threads_per_process=1"]
FULL = ["model=hf", "model.path=gpt2", "tokenizer=hf", "tokenizer.path=gpt2"]
LORA = [
    *("model=hf_lora", "model.path=llama", "model.lora.r=2", "model.lora.dropout=0.1"),
    *("tokenizer=hf", "tokenizer.path=llama", "data.windows=packed"),
]
OWN = ["model=llama_tiny", "model.n_layer=2", "model.n_head=2", "model.n_kv_head=1", "model.d_model=16"]
TOLERANCE = {"atol": 1e-5, "rtol": 0}


@contextmanager
def standing_in(folder: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, a GPT-2 and a Llama."""
    folder = tmp_path_factory.mktemp("home")
    write_corpus(folder)
    for model_type in ("gpt2", "llama"):
        write_model(folder / model_type, model_type)
    return folder


def trained(home: Path, *overrides: str) -> Path:
    with standing_in(home):
        return lmexp.train(lmexp.compose([*SETTINGS, *overrides]), say=lambda text: None).path.absolute()


@pytest.fixture(scope="module")
def full(home: Path) -> Path:
    """A run that trains all weights of a GPT-2."""
    return trained(home, *FULL, "run.name=full")


@pytest.fixture(scope="module")
def lora(home: Path) -> Path:
    """A run that trains adapters of a Llama."""
    return trained(home, *LORA, "run.name=lora")


@pytest.fixture(scope="module")
def own(home: Path) -> Path:
    """A run of our own GPT, with byte-level BPE."""
    return trained(home, *OWN, "tokenizer=bpe", "tokenizer.vocab_size=300", "run.name=own")


def exported(run: Path, to: Path, *overrides: str) -> Path:
    assert main(["export", f"run={run}", f"to={to}", *overrides]) == 0
    return to


def tokens() -> Tensor:
    return torch.randint(256, (2, 16), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def ours(run: Path, **more: Any) -> Tensor:
    return Tensor(lmexp.load(run, **more).model(tokens()))


@torch.no_grad()
def theirs(folder: Path) -> Tensor:
    """transformers' own logits."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    return Tensor(model(tokens()).logits)


def first_model(tokenizer: Tokenizer, *overrides: str) -> nn.Module:
    """The model that a training with this tokenizer would begin with."""
    config = lmexp.compose([*overrides])
    model = build_model(config, tokenizer.vocab_size).eval()
    weights = initial_weights.check(config, tokenizer, model)
    initial_weights.load(model, Path(weights["path"]), weights["sha256"])
    return model


@torch.no_grad()
def first_logits(tokenizer: Tokenizer, *overrides: str) -> Tensor:
    return Tensor(first_model(tokenizer, *SETTINGS, *overrides)(tokens()))


@pytest.mark.parametrize("name", ["full", "lora"])
def test_going_on_from_a_checkpoint_equals_the_uninterrupted_run(
    name: str, home: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """As after a kill between steps 4 and 8; test_kill_9 does it to a process."""
    run: Path = request.getfixturevalue(name)
    copy = tmp_path / "outputs" / name / run.name
    shutil.copytree(run, copy)
    for step in (8, 12):
        shutil.rmtree(copy / "checkpoints" / checkpoints.folder_name(step))
    (copy / "checkpoints" / "BEST").unlink(missing_ok=True)
    (copy / "checkpoints" / "LATEST").write_text("step-00000004\n")
    shutil.rmtree(copy / "evaluation")
    run_folder.write_state(copy, "interrupted", phase="training", step=4, message="")
    if name == "full":  # the first weights aren't needed any more; those beneath adapters are
        (home / "gpt2").rename(home / "away")
    try:
        with standing_in(home):
            lmexp.resume(copy)
        assert ours(copy).shape == (2, 16, lmexp.load(copy).tokenizer.vocab_size)
    finally:
        if name == "full":
            (home / "away").rename(home / "gpt2")
    same_result(run, copy)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [FULL, LORA], ids=["full", "lora"])
def test_kill_9_then_resume_equals_the_uninterrupted_run(overrides: list[str], home: Path, tmp_path: Path) -> None:
    typed = [*SETTINGS, *overrides, "trainer.max_steps=30"]
    for name in ("quiet", "killed"):
        (tmp_path / name).mkdir()
        for part in ("corpus.txt", "gpt2", "llama"):
            (tmp_path / name / part).symlink_to(home / part)
    run_command(tmp_path / "quiet", "train", *typed)
    process = subprocess.Popen(
        command("train", *typed), cwd=tmp_path / "killed", env=environment(), text=True, stdout=subprocess.DEVNULL
    )
    kill_when(process, tmp_path / "killed" / "outputs", 15, signal.SIGKILL)
    process.wait()
    run = only_run(tmp_path / "killed" / "outputs")
    run_command(tmp_path / "killed", "resume", str(run))
    same_result(only_run(tmp_path / "quiet" / "outputs"), run)


def test_training_changes_what_it_should(home: Path, full: Path, lora: Path) -> None:
    assert not torch.allclose(ours(full), theirs(home / "gpt2"), **TOLERANCE)
    assert not torch.allclose(ours(lora), theirs(home / "llama"), **TOLERANCE)
    assert lmexp.load(full).generate("the", max_new_tokens=5)
    losses = [row["train/loss"] for row in lmexp.api.Run(path=full).metrics() if "train/loss" in row]
    assert losses[-1] < losses[0]


def test_checkpoints_hold_adapters_alone_and_say_what_they_belong_to(home: Path, lora: Path) -> None:
    folder = checkpoints.find(lora / "checkpoints", "latest")
    names = checkpoints.load_weights(folder)
    assert names and all(".lora_" in name for name in names)
    whole = (home / "llama" / "model.safetensors").stat().st_size
    assert (folder / "model.safetensors").stat().st_size < whole / 5
    record = json_file(lora / "run.json")["initial_weights"]
    assert record["path"] == str(home / "llama")
    path = home / "llama" / "model.safetensors"
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(CheckpointError, match=r"SHA-256 is .* and its checkpoints hold adapters alone"):
            lmexp.load(lora)
        (home / "llama").rename(home / "away")
        with pytest.raises(CheckpointError, match=r"can't be read .* restore the folder"):
            lmexp.load(lora)
        (home / "away").rename(home / "llama")
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("full", {"n_layer": 10**9}, "has 1000000000 layers"),
        ("full", {"n_embd": 64}, r"lm_head\.weight is \(\d+, 32\), expected \(\d+, 64\)"),
        ("full", {"auto_map": {"AutoConfig": "evil.Config"}}, "asks for code that comes with the model"),
        ("full", None, r"lacks the architecture \(model\.resolved\)"),
        ("lora", {"num_hidden_layers": 10**9}, "has 1000000000 layers"),
        ("lora", {"hidden_size": 2**20, "head_dim": 8}, r"expected \(2, 1048576\)"),
    ],
)
def test_a_run_that_somebody_changed_is_refused_before_memory_is_taken(
    name: str, change: dict[str, Any] | None, message: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    copy = shutil.copytree(request.getfixturevalue(name), tmp_path / "copy")
    body = json_file(copy / "run.json")
    resolved = body["config"]["model"]["resolved"]
    body["config"]["model"]["resolved"] = {} if change is None else resolved | change
    (copy / "run.json").write_text(json.dumps(body))
    with pytest.raises(UserError, match=message):
        lmexp.load(copy)


def test_a_run_is_exported_with_equal_logits_and_used_again(home: Path, full: Path, tmp_path: Path) -> None:
    folder = exported(full, tmp_path / "out")
    expected = ours(full)
    torch.testing.assert_close(theirs(folder), expected, **TOLERANCE)
    tokenizer = lmexp.load(full).tokenizer
    torch.testing.assert_close(first_logits(tokenizer, "model=hf", f"model.path={folder}"), expected, **TOLERANCE)
    read = transformers.AutoTokenizer.from_pretrained(folder)
    assert read.encode("the cat sat") == tokenizer.encode("the cat sat")
    assert read.eos_token_id == tokenizer.eos_id


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's own
def test_adapters_are_exported_alone_or_merged_with_equal_logits(home: Path, lora: Path, tmp_path: Path) -> None:
    expected = ours(lora)
    alone = exported(lora, tmp_path / "adapter")
    assert not (alone / "model.safetensors").exists()
    assert json_file(alone / "adapter_config.json")["base_model_name_or_path"] == str(home / "llama")
    base = transformers.AutoModelForCausalLM.from_pretrained(home / "llama")
    with torch.no_grad():
        found = peft.PeftModel.from_pretrained(base, alone).eval()(tokens()).logits
    torch.testing.assert_close(found, expected, **TOLERANCE)
    merged = exported(lora, tmp_path / "merged", "merge=true")
    torch.testing.assert_close(theirs(merged), expected, **TOLERANCE)


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_our_own_model_goes_to_hugging_face_and_back_with_equal_logits(
    shape: str, own: Path, home: Path, tmp_path: Path
) -> None:
    settings, run = OWN, own
    if shape == "gpt2":
        settings = ["model=gpt_tiny", "model.n_layer=2", "model.n_head=2", "model.d_model=16"]
        run = trained(home, *settings, "tokenizer=byte", "evaluation=[]", "run.name=gpt2")
    expected = ours(run)
    folder = exported(run, tmp_path / "out")
    torch.testing.assert_close(theirs(folder), expected, **TOLERANCE)
    tokenizer = lmexp.load(run).tokenizer
    for typed in (["model=hf", f"model.path={folder}"], [*settings, f"model.init_from={folder}"]):
        torch.testing.assert_close(first_logits(tokenizer, *typed), expected, **TOLERANCE)
    if shape == "llama":
        with pytest.raises(ConfigError, match=r"other settings; type them too: model\.rotary_base=10000"):
            first_logits(tokenizer, *settings, f"model.init_from={folder}", "model.rotary_base=5000")


def test_nothing_is_overwritten_and_what_cant_be_exported_is_told(
    full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*typed: str) -> str:
        assert main(["export", *typed]) == 2
        assert sorted(tmp_path.iterdir()) == [tmp_path / "there"]
        return " ".join(capsys.readouterr().err.split())

    (tmp_path / "there").mkdir()
    assert "it is there already, and nothing is overwritten" in told(f"run={full}", f"to={tmp_path / 'there'}")
    assert "to is not set" in told(f"run={full}")
    assert "there is no folder" in told(f"run={full}", f"to={tmp_path}/x/y")
    assert "was trained without any; leave it out" in told(f"run={full}", f"to={tmp_path}/x", "merge=true")
    assert "there is no checkpoint '77'" in told(f"run={full}", f"to={tmp_path}/x", "weights=77")
    assert "there is no such run folder" in told(f"run={tmp_path}/nowhere", f"to={tmp_path}/x")


def test_words_stay_with_the_run(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(home, *OWN, "tokenizer=word", "tokenizer.min_frequency=1", "evaluation=[]", "run.name=words")
    folder = exported(run, tmp_path / "x")
    assert "the tokenizer (word) has no counterpart" in capsys.readouterr().out
    assert not (folder / "tokenizer.json").exists()


def test_weights_under_another_tokenizer_are_refused_before_there_is_a_run(home: Path) -> None:
    before = sorted(home.glob("outputs/*/*/run.json"))
    with pytest.raises(UserError, match=r"trained with another tokenizer.*tokenizer=hf tokenizer\.path=gpt2"):
        trained(home, "model=hf", "model.path=gpt2", "tokenizer=byte")
    with pytest.raises(UserError, match=r"is no folder here, did you mean gpt2\?"):
        trained(home, "model=hf", "model.path=gtp2", "tokenizer=byte")
    with pytest.raises(UserError, match=r"use model\.path|write model\.path=gpt2"):
        trained(home, "model=hf", "model.path=gpt2", "model.init_from=gpt2", "tokenizer=hf", "tokenizer.path=gpt2")
    assert sorted(home.glob("outputs/*/*/run.json")) == before


def test_a_described_model_is_drawn_anew_and_exported(home: Path, tmp_path: Path) -> None:
    described = "model.config={model_type: gpt2, n_embd: 16, n_layer: 1, n_head: 2}"
    run = trained(home, "model=hf", described, "tokenizer=char", "evaluation=[]", "run.name=described")
    assert json_file(run / "run.json")["initial_weights"] is None
    folder = exported(run, tmp_path / "out")
    torch.manual_seed(0)
    size = lmexp.load(run).tokenizer.vocab_size
    given = torch.randint(size, (1, 9))
    with torch.no_grad():
        expected = lmexp.load(run).model(given)
        found = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()(given).logits
    torch.testing.assert_close(found, expected, **TOLERANCE)
    assert transformers.AutoTokenizer.from_pretrained(folder).decode(given[0])
    with torch.no_grad():
        again = first_model(lmexp.load(run).tokenizer, f"from={run}", f"model.init_from={run}")(given)
    torch.testing.assert_close(again, expected, **TOLERANCE)
