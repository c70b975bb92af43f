"""Canary secrets in the environment, on the command line and in YAML: nothing that a run leaves holds one of them."""

from __future__ import annotations

import base64
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from lmexp.training import checkpoints
from tests.end_to_end.command import TINY, json_file, lmexp, only_run, write_corpus
from tests.tracking.read_wandb import records

CANARIES = {
    "MY_API_KEY": "key-canary \"in\" 'quotes' \\ é/+1",  # its name says that it is a secret
    "SOME_TEXT": "typed-canary/2+2=4 ok",  # innocent names, read by ${oc.env:...} on the command line and in YAML
    "OTHER_TEXT": "yaml-canary\nwith a second-line",
    "A_THING": "secret-field-canary-3",  # read by a field of the type Secret
}

LEAKY = '''
import json, logging, os, sys, warnings
from dataclasses import dataclass

import pytorch_lightning as pl
import torch

import lmexp
from lmexp.training.config import CallbackConfig


@dataclass(kw_only=True, slots=True)
class LeakyConfig(CallbackConfig):
    kind: str = "leaky"
    token: lmexp.Secret = ""
    label: str = ""
    remark: str = ""

    def build(self):
        return Leaky([self.token, self.label, self.remark, os.environ["MY_API_KEY"]])


class Leaky(pl.Callback):
    """Says all that it should keep to itself."""

    def __init__(self, secrets):
        assert "canary" in "".join(secrets) and all(len(secret) > 8 for secret in secrets)
        self.secrets = secrets

    def on_train_start(self, trainer, module):
        for secret in self.secrets:
            print("printed", secret, repr(secret), json.dumps(secret))
            print("printed", secret, self.secrets, file=sys.stderr)
            warnings.warn(f"warned of {secret}", stacklevel=1)
            logging.getLogger("leaky").error("logged %s", secret)
        print(dict(os.environ), file=sys.stderr)

    def on_train_batch_end(self, trainer, *_):
        if os.environ.get("FAIL") and trainer.global_step == 5:
            raise RuntimeError(f"failed with {self.secrets[0]}, {self.secrets}")


class Net(pl.LightningModule):
    def __init__(self, token, nested=None, api_key=None):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, index):
        return self.layer(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(8, 2), batch_size=4)


lmexp.register("callbacks", "leaky", LeakyConfig)
'''

PRESET = """# @package callbacks.leaky_preset
defaults: [/schema/callbacks@_here_: leaky, _self_]
token: ${oc.env:A_THING}
label: ${oc.env:OTHER_TEXT}
"""

TRAIN = (
    "train",
    *(typed for typed in TINY if typed != "logger=files"),
    "--config-dir=my_conf",
    "callbacks=[leaky_preset]",
    "callbacks.leaky_preset.remark='${oc.env:SOME_TEXT}'",
    "logger=wandb",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a corpus, the package leaky and a preset."""
    write_corpus(tmp_path)
    (tmp_path / "leaky.py").write_text(LEAKY, encoding="utf-8")
    (tmp_path / "my_conf" / "callbacks").mkdir(parents=True)
    (tmp_path / "my_conf" / "callbacks" / "leaky_preset.yaml").write_text(PRESET, encoding="utf-8")
    return tmp_path


def forms(canary: str) -> set[bytes]:
    """A text, and each of its lines, as files may hold it."""
    texts = {canary, *canary.splitlines()}
    texts |= {json.dumps(text)[1:-1] for text in texts} | {json.dumps(t, ensure_ascii=False)[1:-1] for t in texts}
    texts |= {repr(text)[1:-1] for text in [canary, *canary.splitlines()]}
    texts |= {quote(text) for text in texts} | {quote(text, safe="") for text in texts} | {quote_plus(t) for t in texts}
    encoded = [base64.b64encode(text.encode()) for text in texts] + [
        base64.urlsafe_b64encode(t.encode()) for t in texts
    ]
    return {text.encode() for text in texts} | {text.rstrip(b"=") for text in encoded}


def contents(path: Path) -> Iterator[bytes]:
    """What a file holds, also where it is an archive or one of W&B's logs of records."""
    yield path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    if path.suffix == ".wandb":
        yield from (record.SerializeToString() for record in records(path))


def leaks(root: Path) -> set[tuple[str, str]]:
    """File and canary, for each file below root whose name or content holds one."""
    return {
        (str(path.relative_to(root)), name)
        for path in root.rglob("*")
        if path.is_file()
        for content in (str(path).encode(), *contents(path))
        for name, canary in CANARIES.items()
        if any(form in content for form in forms(canary))
    }


@pytest.mark.parametrize("how", ["raw", "json", "repr", "url", "base64", "zip", "wandb"])
def test_the_search_finds_a_planted_leak(tmp_path: Path, how: str) -> None:
    canary = CANARIES["MY_API_KEY"]
    path = tmp_path / "folder" / ("x.wandb" if how == "wandb" else "x")
    path.parent.mkdir()
    if how == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inner", canary * 50)
    elif how == "wandb":
        import wandb

        run = wandb.init(mode="offline", dir=str(tmp_path), config={"x": canary}, reinit="create_new")
        run.finish()
        (found,) = tmp_path.rglob("*.wandb")
        path.write_bytes(found.read_bytes())
    else:
        text = {
            "raw": canary,
            "json": json.dumps({"x": canary}),
            "repr": repr([canary]),
            "url": f"https://host/?x={quote_plus(canary)}",
            "base64": base64.b64encode(canary.encode()).decode(),
        }
        path.write_text(f"before {text[how]} after", encoding="utf-8")
    assert leaks(path.parent) == {(path.name, "MY_API_KEY")}


@pytest.mark.parametrize("devices", [1, 2])
def test_no_secret_is_left_by_a_run_that_ends_well_and_by_one_that_fails(folder: Path, devices: int) -> None:
    well = lmexp(folder, *TRAIN, f"trainer.devices={devices}", "run.root=well", plugins=("leaky",), **CANARIES)
    badly = lmexp(
        folder, *TRAIN, f"trainer.devices={devices}", "run.root=badly", plugins=("leaky",), code=1, FAIL="1", **CANARIES
    )
    done, failed = only_run(folder / "well"), only_run(folder / "badly")
    assert (done / "report.html").exists()
    assert list(done.glob("wandb/offline-run-*/*.wandb"))
    state = json_file(failed / "state.json")
    assert state["state"] == "failed"
    assert "RuntimeError: failed with [redacted], [" in state["message"]
    for run in (done, failed):
        log = (run / "logs" / "rank-0.log").read_text(encoding="utf-8")
        assert log.count("ERROR leaky: logged [redacted]") == len(CANARIES)
        if devices > 1:
            assert "warned of [redacted]" in (run / "logs" / "torchrun.log").read_text(encoding="utf-8")
    if devices > 1:
        assert "failed with [redacted]" in json_file(failed / "logs" / "failure.json")["message"]
    for root in (folder / "well", folder / "badly"):
        assert (root / "cache").is_dir()
        assert leaks(root) == set()
    printed = (well.stdout + well.stderr + badly.stdout + badly.stderr).encode()
    assert b"printed [redacted]" in printed
    assert [name for name, canary in CANARIES.items() for form in forms(canary) if form in printed] == []


def test_a_run_that_failed_finds_its_secrets_again(folder: Path) -> None:
    lmexp(folder, *TRAIN, plugins=("leaky",), code=1, FAIL="1", **CANARIES)
    run = only_run(folder / "outputs")
    without = {name: value for name, value in CANARIES.items() if name != "A_THING"}
    said = lmexp(folder, "resume", str(run), plugins=("leaky",), code=2, **without).stderr
    assert "callbacks.leaky_preset.token: the environment variable A_THING is not set" in said
    lmexp(folder, "resume", str(run), plugins=("leaky",), **CANARIES)
    assert json_file(run / "state.json")["state"] == "done"
    assert leaks(folder / "outputs") == set()


def test_saved_hyperparameters_hold_no_secret(folder: Path) -> None:
    lmexp(
        folder,
        "train",
        "task=custom",
        "task.target=leaky:Net",
        "task.args.token='${oc.env:SOME_TEXT}'",
        "task.args.nested={a: ['${oc.env:OTHER_TEXT}'], width: 3}",
        "task.args.api_key='${oc.env:MY_API_KEY}'",
        "data=custom",
        "data.target=leaky:Data",
        "trainer.max_steps=2",
        "checkpoint.keep=last",
        "logger=wandb",
        plugins=("leaky",),
        **CANARIES,
    )
    run = only_run(folder / "outputs")
    state = checkpoints.load_state(checkpoints.find(run / "checkpoints", "latest"))
    redacted = "[redacted]"
    assert state["hyper_parameters"] == {
        "token": redacted,
        "nested": {"a": [redacted], "width": 3},
        "api_key": redacted,
    }
    assert leaks(folder / "outputs") == set()


@pytest.mark.parametrize(
    "typed",
    [
        ("callbacks=[leaky]", "callbacks.leaky.token=literal-canary"),
        ("callbacks=[leaky]", "callbacks.leaky.token='${oc.env:NOWHERE,literal-canary}'"),
        (
            "task=custom",
            "task.target=leaky:Net",
            "task.args.api_key=literal-canary",
            "data=custom",
            "data.target=leaky:Data",
        ),
        ("run.name='${oc.env:MY_API_KEY}'",),
    ],
)
def test_a_literal_secret_is_refused_and_leaves_no_run(folder: Path, typed: tuple[str, ...]) -> None:
    tiny = [] if "task=custom" in typed else TINY
    said = lmexp(folder, "train", *tiny, *typed, plugins=("leaky",), code=2, **CANARIES).stderr
    assert "secret" in said or "run.name is" in said
    assert "literal-canary" not in said
    assert not list(folder.glob("outputs/*/*/run.json"))
    assert not list(folder.glob("outputs/*/*/logs"))
