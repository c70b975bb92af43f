"""Run folders, checkpoints, caches and tokenizers that somebody else sent: refused with a message, and nothing happens.

Each case plants one thing in a copy of a real run and opens it as a user would.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import lmexp
from lmexp import plugins
from lmexp.cli.main import main
from lmexp.errors import LmexpError
from lmexp.tokenizers import saved
from lmexp.tracking import upload
from lmexp.tracking.receipt import repository
from lmexp.training import checkpoints
from tests.end_to_end.command import ROOT, TINY, environment, write_corpus
from tests.safety import payloads

pytestmark = pytest.mark.timeout(120)

STEP = "step-00000012"
DEEP = "[" * 100_000 + "]" * 100_000


@dataclass
class Sent:
    """What was sent: a copy of a run and its cache; and what must stay as it is."""

    folder: Path
    marker: Path
    """What a payload makes."""
    elsewhere: Path
    """A folder that no file of the run may reach."""

    @property
    def run(self) -> Path:
        (found,) = self.folder.glob("outputs/*/*/run.json")
        return found.parent

    @property
    def step(self) -> Path:
        return self.run / "checkpoints" / STEP

    @property
    def cache(self) -> Path:
        (found,) = self.folder.glob("outputs/cache/*/cache.json")
        return found.parent

    def pickle(self, name: str) -> bytes:
        return payloads.pickles(self.marker)[name]

    def change(self, path: Path, **changes: Any) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def config(self, **changes: Any) -> None:
        """Change run.json's config: group.key=value."""
        body = json.loads((self.run / "run.json").read_text())
        for key, value in changes.items():
            group, _, name = key.partition("__")
            if name:
                body["config"][group][name] = value
            else:
                body["config"][group] = value
        (self.run / "run.json").write_text(json.dumps(body))

    def sign(self, **changes: Any) -> None:
        """Give the checkpoint a manifest that says its files are right, with some other values."""
        manifest = checkpoints.Manifest(
            step=12,
            metrics={},
            prefix="model.",
            aliases={},
            files={name: checkpoints.sha256(self.step / name) for name in (checkpoints.MODEL, checkpoints.STATE)},
        )
        for name, value in changes.items():
            setattr(manifest, name, value)
        (self.step / checkpoints.MANIFEST).write_text(checkpoints.manifest_text(manifest))

    def put(self, name: str, content: bytes) -> None:
        """Replace a file of the checkpoint, with its digest."""
        (self.step / name).write_bytes(content)
        self.sign()


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a real run of 12 steps, its corpus and its cache."""
    folder = tmp_path_factory.mktemp("original")
    write_corpus(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["train", *TINY, "launcher.threads_per_process=1", "tokenizer=char"]) == 0
    finally:
        os.chdir(before)
    (run,) = folder.glob("outputs/*/*/run.json")
    state = json.loads((run.parent / "state.json").read_text()) | {"state": "failed", "phase": "training"}
    (run.parent / "state.json").write_text(json.dumps(state))
    return folder


@pytest.fixture
def sent(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sent]:
    """The copy, in another place; afterwards no payload has run, and nothing outside has changed."""
    shutil.copytree(original, tmp_path / "sent")
    (tmp_path / "sent" / "corpus.txt").unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("secret.txt", "metrics.jsonl", "state.json", "LATEST"):
        (elsewhere / name).write_text('{"step": 1}\n')
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    yield (found := Sent(tmp_path / "sent", tmp_path / "ran", elsewhere))
    assert not found.marker.exists(), "a payload ran"
    assert {path.name: path.read_text() for path in elsewhere.iterdir()} == dict.fromkeys(
        ("secret.txt", "metrics.jsonl", "state.json", "LATEST"), '{"step": 1}\n'
    )
    assert not list(here.iterdir()), "something was written where the command was typed"


Plant = Callable[[Sent], object]
Command = Callable[[Sent], object]


def generate(sent: Sent) -> int:
    return main(["generate", f"run={sent.run}", "max_new_tokens=2", "accelerator=cpu", "weights=latest"])


def best(sent: Sent) -> int:
    return main(["generate", f"run={sent.run}", "max_new_tokens=2", "accelerator=cpu"])


def resume(sent: Sent) -> int:
    return main(["resume", str(sent.run)])


def evaluate(sent: Sent) -> int:
    return main(["evaluate", f"run={sent.run}", "evaluation=[perplexity]", "trainer.accelerator=cpu"])


def report(sent: Sent) -> int:
    return main(["report", str(sent.run)])


def load(sent: Sent) -> object:
    return lmexp.load(sent.run, weights="12")  # by its number: no other will do


def state(sent: Sent) -> object:
    checkpoints.verify(sent.step)
    return checkpoints.load_state(sent.step)


def tokenizer(sent: Sent) -> object:
    return saved.load(str(sent.run))


def link(path: Path, to: Path) -> None:
    """Replace a file or folder by a symbolic link."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.symlink_to(to)


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(10 << 30)


def write_model(sent: Sent, weights: dict[str, torch.Tensor], more: bytes = b"") -> None:
    save_file(weights, sent.step / checkpoints.MODEL)
    sent.put(checkpoints.MODEL, (sent.step / checkpoints.MODEL).read_bytes() + more)


def bomb(sent: Sent) -> None:
    """A few kB that unpack to a gigabyte."""
    sent.put(checkpoints.STATE, payloads.torch_archive(bytes(1 << 28), compressed=True))


def cyclic(sent: Sent) -> None:
    sent.put(checkpoints.STATE, payloads.torch_archive(b"\x80\x02]q\x01h\x01a."))


MODEL, STATE, MANIFEST = checkpoints.MODEL, checkpoints.STATE, checkpoints.MANIFEST
SYSTEM = "os.system, protocol 2"
GB_HEADER = (1 << 40).to_bytes(8, "little") + b"{}"
TALL = '{"x": {"dtype": "F32", "shape": [2500000000], "data_offsets": [0, 10000000000]}}'
BOMB = {f"a{i}": f"${{.a{i - 1}}}${{.a{i - 1}}}" for i in range(1, 40)} | {"a0": "x" * 100}

CASES: dict[str, tuple[Plant, Command, str]] = {
    # pickles where JSON, weights and arrays are expected
    "pickle as run.json": (lambda s: (s.run / "run.json").write_bytes(s.pickle(SYSTEM)), resume, "run.json"),
    "pickle as state.json": (lambda s: (s.run / "state.json").write_bytes(s.pickle(SYSTEM)), resume, "state.json"),
    "link as report.json": (
        lambda s: link(s.run / "report.json", s.elsewhere / "secret.txt"),
        report,
        "report.json",
    ),
    "pickle as metrics": (lambda s: (s.run / "metrics.jsonl").write_bytes(s.pickle(SYSTEM) + b"\n"), resume, "metrics"),
    "pickle as tokenizer": (lambda s: (s.run / "tokenizer.json").write_bytes(s.pickle(SYSTEM)), generate, "tokenizer"),
    "pickle as manifest": (lambda s: (s.step / MANIFEST).write_bytes(s.pickle(SYSTEM)), load, MANIFEST),
    "pickle as weights": (lambda s: s.put(MODEL, s.pickle(SYSTEM)), generate, MODEL),
    "torch archive as weights": (lambda s: s.put(MODEL, payloads.torch_archive(s.pickle(SYSTEM))), load, MODEL),
    "TorchScript as weights": (lambda s: s.put(MODEL, payloads.torch_script()), load, MODEL),
    "npy of objects as weights": (lambda s: s.put(MODEL, payloads.object_array(s.pickle(SYSTEM))), load, MODEL),
    "npy of objects as tokens": (
        lambda s: (s.cache / "train.tokens").write_bytes(payloads.object_array(s.pickle(SYSTEM))),
        evaluate,
        "train.tokens",
    ),
    "tokens of dtype object": (lambda s: s.change(s.cache / "cache.json", dtype="O"), evaluate, "cache.json"),
    "pickle as cache.json": (lambda s: (s.cache / "cache.json").write_bytes(s.pickle(SYSTEM)), evaluate, "cache.json"),
    "pickle as LATEST": (lambda s: (s.run / "checkpoints/LATEST").write_bytes(s.pickle(SYSTEM)), generate, "LATEST"),
    "TorchScript as state": (lambda s: s.put(STATE, payloads.torch_script()), state, STATE),
    "state on resume": (lambda s: s.put(STATE, payloads.torch_archive(s.pickle(SYSTEM))), resume, STATE),
    "state that isn't ours on resume": (
        lambda s: (torch.save({"global_step": 12}, s.step / STATE), s.sign()),
        resume,
        STEP,
    ),
    "zip bomb as state": (bomb, state, STATE),
    "state that holds itself": (cyclic, state, STATE),
    "bytearray of 100 GB": (
        lambda s: s.put(STATE, payloads.torch_archive(b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\xe8vH\x17\x85R.")),
        state,
        STATE,
    ),
    "tensor that claims 40 GB": (lambda s: s.put(STATE, payloads.claimed_tensor()), state, STATE),
    # weights
    "bytes after safetensors": (lambda s: write_model(s, {"x": torch.ones(2)}, b"more"), load, MODEL),
    "safetensors with a huge header": (lambda s: s.put(MODEL, GB_HEADER), load, MODEL),
    "safetensors that claims 10 GB": (
        lambda s: s.put(MODEL, len(TALL).to_bytes(8, "little") + TALL.encode()),
        load,
        MODEL,
    ),
    "weights of another model": (lambda s: write_model(s, {"x": torch.ones(2)}), generate, STEP),
    "a model of a petabyte": (lambda s: s.config(model__d_model=1 << 24, model__d_ff=1 << 24), generate, STEP),
    "a billion layers": (lambda s: s.config(model__n_layer=10**9), generate, STEP),
    "a model that no head divides": (
        lambda s: s.config(model__d_model=10**15 + 1, model__n_head=2),
        generate,
        "run.json",
    ),
    # names and pointers
    "LATEST goes up": (lambda s: (s.run / "checkpoints/LATEST").write_text("../../../elsewhere\n"), generate, "LATEST"),
    "LATEST is absolute": (lambda s: (s.run / "checkpoints/LATEST").write_text(f"{s.elsewhere}\n"), generate, "LATEST"),
    "BEST goes up": (lambda s: (s.run / "checkpoints/BEST").write_text(f"../checkpoints/{STEP}\n"), best, "BEST"),
    "file in a manifest goes up": (lambda s: s.sign(files={"../../run.json": "0" * 64}), load, MANIFEST),
    "alias of a tensor that isn't there": (lambda s: s.sign(aliases={"x": "../y"}), generate, MODEL),
    "alias over a tensor": (
        lambda s: s.sign(aliases={"token_embedding.weight": "final_norm.weight"}),
        generate,
        MODEL,
    ),
    "aliases that are a list": (lambda s: s.sign(aliases=["x"]), load, MANIFEST),
    "manifest of another step": (lambda s: s.sign(step=3), load, STEP),
    "manifest of an unknown version": (lambda s: s.change(s.step / MANIFEST, version=99), load, MANIFEST),
    "run_id goes up": (lambda s: s.change(s.run / "run.json", run_id="../../x"), resume, "run_id"),
    "experiment goes up": (lambda s: s.change(s.run / "run.json", experiment="../x"), resume, "experiment"),
    "wandb_id goes up": (lambda s: s.change(s.run / "run.json", wandb_id="../../x"), resume, "wandb_id"),
    "fingerprint goes up": (
        lambda s: s.change(s.run / "run.json", data_fingerprints=["../../../elsewhere"]),
        resume,
        "data_fingerprints",
    ),
    "cwd is relative": (lambda s: s.change(s.run / "run.json", cwd="outputs/x"), resume, "cwd"),
    "plugin goes up": (lambda s: s.change(s.run / "run.json", plugins=["../evil"]), resume, "plugins"),
    "plugin is not trusted": (lambda s: s.change(s.run / "run.json", plugins=["evil"]), generate, "-p evil"),
    "run.name goes up": (lambda s: s.config(run={"name": "../x", "folder": "x"}), generate, "run.json"),
    "an evaluation's name goes up": (
        lambda s: s.config(evaluation={"../../../elsewhere/x": {"kind": "perplexity"}}),
        resume,
        "evaluation has the name '../../../elsewhere/x'",
    ),
    "run.folder goes up": (lambda s: s.config(run={"name": "x", "folder": "../x"}), generate, "run.json"),
    "target of a custom model": (
        lambda s: s.config(model={"kind": "custom", "target": "os:system", "args": {}}),
        generate,
        "not trusted",
    ),
    "_target_ in a node": (lambda s: s.config(model__x={"_target_": "os.system"}), generate, "run.json"),
    "kind of its own": (lambda s: s.config(model__kind="os.system"), generate, "model.kind"),
    "split of a cache goes up": (
        lambda s: s.change(s.cache / "cache.json", splits={"train": {}, "../../../elsewhere/x": {}}),
        evaluate,
        "cache.json",
    ),
    "cache_dir and corpus elsewhere": (
        lambda s: (shutil.rmtree(s.cache), s.config(data__cache_dir=str(s.elsewhere), data__path=str(s.elsewhere))),
        evaluate,
        "doesn't choose which of your files are read",
    ),
    "corpus elsewhere on resume": (
        lambda s: (
            shutil.rmtree(s.cache),
            s.config(data__path=str(s.elsewhere)),
            s.change(s.run / "run.json", cwd="/"),
        ),
        resume,
        "doesn't choose which of your files are read",
    ),
    # links, pipes, devices
    "step folder is a link": (
        lambda s: (s.step.rename(s.folder / "x"), link(s.step, s.folder / "x")),
        generate,
        STEP,
    ),
    "weights are a link": (lambda s: link(s.step / MODEL, s.elsewhere / "secret.txt"), generate, MODEL),
    "state is a link": (lambda s: link(s.step / STATE, s.elsewhere / "secret.txt"), resume, STATE),
    "manifest is a link": (lambda s: link(s.step / MANIFEST, s.elsewhere / "secret.txt"), generate, MANIFEST),
    "run.json is a link": (lambda s: link(s.run / "run.json", s.elsewhere / "secret.txt"), report, "run.json"),
    "lock is a link": (lambda s: link(s.run / "lock", s.elsewhere / "secret.txt"), resume, "lock"),
    "metrics are a link": (lambda s: link(s.run / "metrics.jsonl", s.elsewhere / "metrics.jsonl"), resume, "metrics"),
    "state.json is a link": (lambda s: link(s.run / "state.json", s.elsewhere / "state.json"), resume, "state.json"),
    "discarded is a link": (lambda s: link(s.run / "discarded.jsonl", s.elsewhere / "secret.txt"), resume, "discarded"),
    "logs are a link": (lambda s: link(s.run / "logs", s.elsewhere), resume, "logs"),
    "checkpoints are a link": (lambda s: link(s.run / "checkpoints", s.elsewhere), resume, "checkpoints"),
    "evaluation is a link": (lambda s: link(s.run / "evaluation", s.elsewhere), evaluate, "evaluation"),
    "LATEST is a link": (lambda s: link(s.run / "checkpoints/LATEST", s.elsewhere / "LATEST"), generate, "LATEST"),
    "a W&B file is a link": (
        lambda s: ((s.run / "wandb").mkdir(exist_ok=True), link(s.run / "wandb/x", s.elsewhere / "secret.txt")),
        resume,
        "wandb/x",
    ),
    "tokens are a link": (
        lambda s: link(s.cache / "train.tokens", s.elsewhere / "secret.txt"),
        evaluate,
        "train.tokens",
    ),
    "run.json is a pipe": (lambda s: pipe(s.run / "run.json"), generate, "run.json"),
    "state.pt is a pipe": (lambda s: pipe(s.step / STATE), generate, STATE),
    "log is a pipe": (lambda s: pipe(s.run / "logs" / "rank-0.log"), resume, "rank-0.log"),
    "tokenizer is a pipe": (lambda s: pipe(s.run / "tokenizer.json"), tokenizer, "tokenizer.json"),
    "tokenizer is a device": (lambda s: link(s.run / "tokenizer.json", Path("/dev/zero")), tokenizer, "tokenizer.json"),
    "report.html is a folder": (
        lambda s: ((s.run / "report.html").unlink(), (s.run / "report.html").mkdir()),
        report,
        "report.html",
    ),
    # JSON
    "deep run.json": (lambda s: (s.run / "run.json").write_text(DEEP), generate, "run.json"),
    "deep config": (
        lambda s: s.config(data__x=json.loads("[" * 300 + "]" * 300)),
        generate,
        "run.json",
    ),
    "deep tokenizer": (lambda s: (s.run / "tokenizer.json").write_text(DEEP), generate, "tokenizer.json"),
    "deep metrics": (lambda s: (s.run / "metrics.jsonl").write_text(DEEP + "\n"), resume, "metrics.jsonl"),
    "deep manifest": (lambda s: (s.step / MANIFEST).write_text(DEEP), load, MANIFEST),
    "a key twice": (
        lambda s: (s.run / "run.json").write_text('{"run_id": "y", ' + (s.run / "run.json").read_text()[1:]),
        generate,
        "twice",
    ),
    "a number of 10,000 digits": (
        lambda s: (s.run / "state.json").write_text('{"step": ' + "9" * 10_000 + "}"),
        resume,
        "state.json",
    ),
    "values that refer to values": (lambda s: s.config(data__x=BOMB), generate, "refer to others"),
    "10 GB of run.json": (lambda s: sparse(s.run / "run.json"), generate, "run.json"),
    "10 GB of metrics": (lambda s: sparse(s.run / "metrics.jsonl"), resume, "metrics.jsonl"),
    "10 GB of tokenizer": (lambda s: sparse(s.run / "tokenizer.json"), generate, "tokenizer.json"),
    "unknown version of run.json": (lambda s: s.change(s.run / "run.json", version=99), resume, "version 99"),
    "unknown version of state.json": (lambda s: s.change(s.run / "state.json", version=99), resume, "state.json"),
    "unknown version of a tokenizer": (
        lambda s: s.change(s.run / "tokenizer.json", version=99),
        generate,
        "tokenizer.json",
    ),
    "unknown version of a cache": (lambda s: s.change(s.cache / "cache.json", version=99), evaluate, "cache.json"),
    "plugins that are an object": (lambda s: s.change(s.run / "run.json", plugins={"a": 1}), generate, "plugins"),
    "config that is a list": (lambda s: s.change(s.run / "run.json", config=[]), generate, "config"),
    "evaluations that are a list": (lambda s: s.config(evaluation=["perplexity"]), generate, "evaluation"),
    "devices that are an object": (lambda s: s.config(trainer__devices={"a": 1}), generate, "run.json"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_file_is_refused_with_a_message_that_names_it(
    sent: Sent, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plant, command, told = CASES[name]
    plant(sent)
    capsys.readouterr()
    try:
        code = command(sent)
    except LmexpError as error:
        message = str(error)
    else:
        message = capsys.readouterr().err
        assert code in (1, 2), f"{command.__name__} took it"
    assert told in message
    assert "Traceback" not in message


@pytest.mark.parametrize("name", payloads.pickles(Path("x")))
@pytest.mark.parametrize("wrap", [bytes, payloads.torch_archive, payloads.legacy_archive, payloads.tar_archive])
def test_no_pickle_runs_in_any_archive(
    tmp_path: Path, original: Path, name: str, wrap: Callable[[bytes], bytes]
) -> None:
    marker = tmp_path / "ran"
    (tmp_path / STATE).write_bytes(wrap(payloads.pickles(marker)[name]))
    with pytest.raises(LmexpError, match=r"state\.pt: "):
        checkpoints.load_state(tmp_path)
    assert not marker.exists()


def test_the_pickles_are_live(tmp_path: Path) -> None:
    """Whoever unpickles them runs them: so the tests above can fail."""
    for number, name in enumerate(payloads.pickles(Path("x"))):
        marker = tmp_path / str(number)
        (tmp_path / f"{number}.pkl").write_bytes(payloads.pickles(marker)[name])
    program = (
        "import pathlib, pickle, sys, torch\n"
        "for path in pathlib.Path(sys.argv[1]).glob('*.pkl'):\n"
        "    try: pickle.loads(path.read_bytes())\n"
        "    except Exception: pass\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, env=environment(), timeout=100)
    dead = [name for number, name in enumerate(payloads.pickles(Path("x"))) if not (tmp_path / str(number)).exists()]
    assert not dead


def test_a_hostile_newest_checkpoint_is_told_and_the_one_before_is_used(
    sent: Sent, capsys: pytest.CaptureFixture[str]
) -> None:
    (sent.step / MANIFEST).write_bytes(sent.pickle(SYSTEM))
    assert resume(sent) == 0
    said = capsys.readouterr().out
    assert f"{STEP}/{MANIFEST}: not JSON" in said
    assert "using the checkpoint before it" in said


def test_a_run_behind_a_link_works_as_before(sent: Sent) -> None:
    (sent.folder / "by-link").symlink_to(sent.run)
    assert lmexp.load(sent.folder / "by-link").step == 10
    assert main(["report", str(sent.folder / "by-link")]) == 0


def test_the_links_of_wandb_to_the_log_of_its_service_are_left_alone(sent: Sent) -> None:
    """They lead out of the run where another program on the machine has started the service."""
    logs = sent.run / "wandb" / "offline-run-20260101_000000-0123abcd" / "logs"
    logs.mkdir(parents=True)
    (logs / "debug-core.log").symlink_to(sent.elsewhere / "core.log")
    assert resume(sent) == 0
    assert (logs / "debug-core.log").is_symlink()


def test_a_run_that_was_sent_with_its_cache_is_evaluated_and_resumed(sent: Sent) -> None:
    assert evaluate(sent) == 0
    assert resume(sent) == 0


def test_the_list_of_runs_says_which_could_not_be_read(sent: Sent, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(sent.folder, sent.folder.with_name("original"))
    planted: dict[str, Plant] = {
        "deep": lambda s: (s.run / "run.json").write_text(DEEP),
        "pipe": lambda s: pipe(s.run / "run.json"),
        "linked": lambda s: link(s.run / "metrics.jsonl", s.elsewhere / "metrics.jsonl"),
        "sparse": lambda s: sparse(s.run / "metrics.jsonl"),
        "words": lambda s: (
            (s.run / "metrics.jsonl").write_text('{"step": "x", "validation/loss": "y"}\n'),
            (s.run / "evaluation" / "summary.json").unlink(),
            s.change(s.run / "state.json", state="done"),
        ),
        "escape": lambda s: s.change(s.run / "state.json", state="failed", message="\x1b[2J\x1b]0;x\x07 gone"),
        "summary": lambda s: (
            (s.run / "evaluation" / "summary.json").write_text('{"rows": 1}'),
            s.change(s.run / "state.json", state="done"),
        ),
    }
    home, listed = sent.run.parent, sent.folder / "outputs"
    for name, plant in planted.items():
        other = Sent(sent.folder.with_name(name), sent.marker, sent.elsewhere)
        shutil.copytree(sent.folder.with_name("original"), other.folder)
        found = other.run
        plant(other)
        found.rename(home / name)
    capsys.readouterr()
    assert main(["runs", str(listed)]) == 0
    said = capsys.readouterr().out
    assert said.count("unreadable") == 6
    assert len(said.splitlines()) == 1 + 1 + len(planted)
    assert "\x1b" not in said


def test_markup_in_the_files_of_a_run_is_text_in_its_report(sent: Sent) -> None:
    evil = "<script>alert(1)</script>"
    sent.change(sent.run / "state.json", message=evil)
    sent.change(sent.run / "run.json", overrides=[evil], created=evil)
    (sent.run / "config.yaml").write_text(evil)
    (sent.run / "metrics.jsonl").write_text(json.dumps({"step": 1, f"train/{evil}": 1e308, f"x/{evil}": -1e308}) + "\n")
    (sent.run / "receipt.json").write_text(json.dumps({evil: evil, "nested": {evil: [evil, "\udc80"]}}))
    summary = json.loads((sent.run / "evaluation/summary.json").read_text())
    summary["rows"][0] |= dict.fromkeys(("name", "split", "definition", "unit", "method"), evil)
    del summary["rows"][0]["definition_hash"]
    series = {"label": evil, "x": [evil], "y": [1]}
    plot = {"kind": "forest", "title": evil, "y_label": evil, "y_unit": evil, "x_label": evil, "series": [series]}
    summary["rows"][0]["plot"] = plot
    (sent.run / "evaluation/summary.json").write_text(json.dumps(summary | {"checkpoint": evil}))
    samples = {"format": "lmexp.generated", "version": 1, "samples": [{"prompt": evil, "text": evil, "seed": 0}]}
    (sent.run / "evaluation/generated.json").write_text(json.dumps(samples))
    assert report(sent) == 0
    page = (sent.run / "report.html").read_text()
    assert page.count("alert(1)") > 20
    assert "<script" not in page
    assert json.loads((sent.run / "report.json").read_text())["rows"][0]["plot"]["title"] == evil


def test_escapes_in_the_figures_of_a_run_do_nothing_in_the_terminal(
    sent: Sent, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "[blink]\x1b[2J\x1b]0;x\x07\u202e[/]"
    summary = json.loads((sent.run / "evaluation/summary.json").read_text())
    for row in summary["rows"]:
        row |= dict.fromkeys(("name", "split", "unit"), evil)
    (sent.run / "evaluation/summary.json").write_text(json.dumps(summary | {"checkpoint": evil}))
    capsys.readouterr()
    assert main(["report", str(sent.run), "--text"]) == 0
    printed = capsys.readouterr().out
    assert "[blink]" in printed
    assert not {"\x1b", "\x07", "\u202e"} & set(printed)


def test_code_beside_the_files_of_a_run_is_not_imported(sent: Sent) -> None:
    """A process of ours that is started in a run folder takes torch and wandb from where they are installed."""
    plant = f"open({str(sent.marker)!r}, 'w').close()\n"
    (sent.run / "wandb").mkdir(exist_ok=True)
    (sent.run / "wandb" / "__init__.py").write_text(plant)
    (sent.run / "json.py").write_text(plant)
    (sent.run / "torch.py").write_text(plant)
    sync = upload.commands(sent.run / "wandb" / "offline-run-1-x" / "run-x.wandb")[0]
    wandb = [*sync[: sync.index("wandb") + 1], "--version"]
    for command, env in (
        (wandb, environment()),
        ([sys.executable, "-c", "import json"], plugins.child_environment()),
        ([sys.executable, "-m", "lmexp.worker", "--help"], plugins.child_environment()),
    ):
        assert subprocess.run(command, cwd=sent.run, env=env, capture_output=True, timeout=100).returncode == 0
        assert not sent.marker.exists(), command
    unsafe = [argument for argument in wandb if argument != "-P"]
    subprocess.run(unsafe, cwd=sent.run, env=environment(), capture_output=True, timeout=100)
    assert sent.marker.exists(), "without our care it would be imported"
    sent.marker.unlink()


def test_git_is_not_asked_about_a_repository_in_a_run_folder(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    """git runs what the configuration of a repository names as a filter."""
    repo = sent.run / "code"
    repo.mkdir()
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-C", str(repo)]
    (repo / "a.txt").write_text("a\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    (repo / ".gitattributes").write_text("* filter=evil\n")
    (repo / "a.txt").write_text("b\n")
    subprocess.run([*git, "config", "filter.evil.clean", f"touch {sent.marker}; cat"], check=True)
    repository(repo)
    assert sent.marker.exists(), "the filter is live"
    sent.marker.unlink()
    sent.change(sent.run / "run.json", cwd=str(repo))
    assert resume(sent) == 0
    assert not sent.marker.exists()
    sent.change(sent.run / "state.json", state="failed", phase="evaluating")
    monkeypatch.chdir(repo)
    assert resume(sent) == 0


def test_nothing_is_uploaded_for_a_run_that_was_sent(
    sent: Sent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[object] = []
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr("lmexp.tracking.wandb._start_upload", lambda *arguments: started.append(arguments))
    sent.config(logger={"kind": "wandb", "project": "theirs", "entity": "them", "sync": "auto"})
    assert resume(sent) == 0
    assert not started
    assert "nothing is uploaded to the W&B project that it names" in capsys.readouterr().out


def test_an_archive_of_the_tests_is_what_torch_would_open(tmp_path: Path) -> None:
    """The archives are well made: with a harmless pickle in it, torch takes one."""
    (tmp_path / "x.pt").write_bytes(payloads.torch_archive(b"\x80\x02}X\x01\x00\x00\x00aK\x01s."))
    assert torch.load(tmp_path / "x.pt", weights_only=True) == {"a": 1}
    assert zipfile.is_zipfile(tmp_path / "x.pt")
    assert ROOT.is_dir()
