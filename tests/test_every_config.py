"""Every YAML under conf/ composes and builds something that works, and says only what differs from its schema."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf
from pytorch_lightning import Callback, LightningDataModule, LightningModule
from torch import nn
from torch.optim import SGD

from lmexp import plugins
from lmexp.config.compose import compose
from lmexp.config.schema import BASES, COMMANDS, DICT_GROUPS, SCHEMAS, TrainConfig
from lmexp.data.cache import TokenCache, prepare
from lmexp.data.config import CorpusConfig, CsvConfig, HFConfig, JsonLinesConfig, MixtureConfig, RecordsConfig
from lmexp.evaluation.runner import Evaluation
from lmexp.models.base import as_language_model
from lmexp.models.config import HFConfig as HFModelConfig
from lmexp.models.hf_architecture import resolve
from lmexp.paths import CONF_DIR
from lmexp.tokenizers import to_hf
from lmexp.tokenizers.config import ByteTokenizerConfig, HFTokenizerConfig, SavedTokenizerConfig
from lmexp.training import trainer

ROOT = Path(__file__).parents[1]
YAMLS = sorted(path.relative_to(CONF_DIR).with_suffix("").as_posix() for path in CONF_DIR.rglob("*.yaml"))
LINE = "the cat sat on the mat, and the dog ran to the été; "

LAB = '''"""A user's package: one class for each custom option."""

import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR


class Model(nn.Module):
    def __init__(self, vocab_size, sequence_length):
        super().__init__()
        self.max_sequence_length = sequence_length
        self.table = nn.Embedding(vocab_size, vocab_size)

    def forward(self, tokens):
        return self.table(tokens)


class Data(LightningDataModule):
    def train_dataloader(self):
        return [torch.zeros(2, 3)]


class Task(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def training_step(self, batch):
        return self.layer(batch).mean()

    def configure_optimizers(self):
        return SGD(self.parameters(), lr=0.1)


class Optimizer(SGD):
    pass


class Scheduler(LambdaLR):
    def __init__(self, optimizer, total_steps):
        super().__init__(optimizer, lambda step: 1 - step / (total_steps + 1))


class Callbacks(Callback):
    pass


class Evaluation:
    def run(self, context):
        return []
'''


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a trusted package with a class for each group that has a custom option."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "every_config_lab.py").write_text(LAB, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setattr(plugins, "_trusted", {})
        plugins.trust(["every_config_lab"])
        yield "every_config_lab"
    del sys.modules["every_config_lab"]


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 40 short texts, which passes for the standard library too."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i in range(40):
        for suffix in ("txt", "py"):
            (folder / f"text_{i}.{suffix}").write_text(f"{i}: {LINE * 12}", encoding="utf-8")
    get_path = sysconfig.get_path
    monkeypatch.setattr(
        sysconfig, "get_path", lambda name, *rest, **more: str(folder) if name == "stdlib" else get_path(name, *rest)
    )
    return folder


def overrides(group: str, option: str, lab: str) -> list[str]:
    """What a user types to choose an option; a custom one gets its class of the lab, and what it needs besides."""
    name = f"{group}.{option}" if group in DICT_GROUPS else group
    typed = [f"{group}=[{option}]" if group in DICT_GROUPS else f"{group}={option}"]
    if option == "custom":
        typed += [f"{name}.target={lab}:{group.capitalize()}"]
    if option == "custom" and group in ("data", "task"):  # each needs the other: lmexp's task reads lmexp's corpora
        typed += ["task=custom", f"task.target={lab}:Task", "data=custom", f"data.target={lab}:Data"]
    if (group, option) == ("model", "hf"):  # it has no architecture of its own
        typed += ["model.config={model_type: gpt2}"]
    if (group, option) == ("model", "hf_lora"):
        typed += ["model.path=somewhere"]
    if (group, option) == ("data", "mixture"):  # a mixture needs sources, which only the user knows
        typed += ["+data@data.parts.code=stdlib", "+data@data.parts.books=text_files", "data.weights.books=3"]
    return list(dict.fromkeys(typed))


def composed(name: str, lab: str) -> Any:
    """The typed config of a command with one YAML file chosen."""
    group, _, option = name.rpartition("/")
    if group:
        return compose(overrides(group, option, lab)).config
    fields = {field.name for field in dataclasses.fields(COMMANDS[option])}
    needed = {"run", "to"} & fields if option != "train" else set()
    return compose([f"{key}=outputs/some/run" for key in needed], command=option).config


def check_model(model: Any) -> None:
    device = "meta"  # shapes without numbers, so that size costs nothing
    if isinstance(model, HFModelConfig):  # as a run keeps it, so that no folder is needed
        small = {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 8}
        model.resolved = resolve(HFModelConfig(config=small), vocab_size=50, sequence_length=16)
        device = "cpu"  # transformers looks at numbers
    with torch.device(device):
        language_model = as_language_model(model.build(vocab_size=50, sequence_length=16))
        logits = language_model(torch.zeros(2, 16, dtype=torch.int64))
    assert language_model.max_sequence_length >= 16
    assert logits.shape == (2, 16, 50)


def check_tokenizer(config: Any, folder: Path) -> None:
    if isinstance(config, SavedTokenizerConfig):
        ByteTokenizerConfig().train([]).save(folder / "tokenizer.json")
        config = dataclasses.replace(config, path=str(folder))
    if isinstance(config, HFTokenizerConfig):
        to_hf.write(ByteTokenizerConfig().train([]), folder)
        config = dataclasses.replace(config, path=str(folder))
    tokenizer = config.train([LINE] * 3)
    ids = tokenizer.encode("the cat")
    assert 0 <= min(ids) <= max(ids) < tokenizer.vocab_size
    assert re.sub(r"\s", "", tokenizer.decode(ids)) == "thecat"


def check_optimizer(config: Any) -> None:
    layer = nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    optimizer = config.build(layer.named_parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert not torch.equal(layer.weight, before)


def check_scheduler(config: Any) -> None:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = config.build(optimizer, 10)
    rates = []
    for _ in range(10):
        rates += [float(group["lr"]) for group in optimizer.param_groups]
        optimizer.step()
        scheduler.step()
    assert all(0 < rate <= 1 for rate in rates), rates


def check_evaluation(config: Any) -> None:
    (evaluation,) = config.values()
    assert isinstance(evaluation.build(), Evaluation)


def check_callbacks(config: Any) -> None:
    (callback,) = config.values()
    assert isinstance(callback.build(), Callback)


CHECKS: dict[str, Callable[[Any], None]] = {
    "model": check_model,
    "optimizer": check_optimizer,
    "scheduler": check_scheduler,
    "evaluation": check_evaluation,
    "callbacks": check_callbacks,
}
"""Group -> what is asked of each of its options. The others have tests of their own below."""

WHOLE = ("task", "trainer", "checkpoint", "launcher", "experiment")
"""Groups whose options only show within a whole experiment."""


def test_every_group_is_checked() -> None:
    groups = {name.partition("/")[0] for name in YAMLS if "/" in name}
    assert groups == {*CHECKS, *WHOLE, "data", "logger", "tokenizer"}
    assert groups >= set(BASES)


@pytest.mark.parametrize("name", YAMLS)
def test_every_yaml_composes(name: str, lab: str) -> None:
    group, _, option = name.rpartition("/")
    config = composed(name, lab)
    assert isinstance(config, TrainConfig if group else COMMANDS[option])


@pytest.mark.parametrize("name", [name for name in YAMLS if name.partition("/")[0] in CHECKS])
def test_every_option_builds(name: str, lab: str) -> None:
    group = name.partition("/")[0]
    CHECKS[group](getattr(composed(name, lab), group))


@pytest.mark.parametrize("name", [name for name in YAMLS if name.startswith("tokenizer/")])
def test_every_tokenizer_reads_text(name: str, lab: str, tmp_path: Path) -> None:
    check_tokenizer(composed(name, lab).tokenizer, tmp_path)


@pytest.mark.parametrize("name", [name for name in YAMLS if name.startswith("data/")])
def test_every_data_set_can_be_prepared(name: str, lab: str, corpus: Path, tmp_path: Path) -> None:
    data = on_corpus(composed(name, lab), corpus).data
    if isinstance(data, CorpusConfig):
        cache = prepare(data, ByteTokenizerConfig(), cache_root=tmp_path / "cache")
        assert cache.splits["train"].n_tokens > 10_000
    else:
        assert isinstance(data.build(tokenizer=None, seed=0), LightningDataModule)


@pytest.mark.parametrize("name", [name for name in YAMLS if name.startswith("logger/")])
def test_every_logger_keeps_the_figures(name: str, lab: str, tmp_path: Path) -> None:
    logger = composed(name, lab).logger
    tracker = logger.build(tmp_path, run_id="0a1b2c3d", name="tiny", run_config={"seed": 1})
    tracker.metrics(10, {"train/loss": 2.5})
    tracker.close(0)
    assert "2.5" in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["train", *(name for name in YAMLS if name.startswith(WHOLE))])
def test_every_experiment_builds(name: str, lab: str, corpus: Path, tmp_path: Path) -> None:
    config = on_corpus(composed(name, lab), corpus)
    cache: TokenCache | None = None
    if isinstance(config.data, CorpusConfig):
        cache = prepare(config.data, config.tokenizer, cache_root=tmp_path / "cache")
    parts = trainer.build(config, cache)
    assert isinstance(parts.module, LightningModule)
    assert isinstance(parts.datamodule, LightningDataModule)
    assert parts.module.configure_optimizers() is not None
    assert parts.total_steps is not None
    for node in [*config.callbacks.values(), *config.evaluation.values()]:
        assert node.build() is not None


def on_corpus(config: TrainConfig, corpus: Path) -> TrainConfig:
    """The same, reading tiny files in the form that its source expects."""
    if isinstance(config.data, MixtureConfig):
        config.data.parts = {name: on_files(part, corpus / name) for name, part in config.data.parts.items()}
    else:
        config.data = on_files(config.data, corpus / "files")
    return config


def on_files(data: Any, folder: Path) -> Any:
    """A data config that reads files made for it below folder, where it reads any."""
    if not hasattr(data, "path"):
        return data
    folder.mkdir(exist_ok=True)
    if isinstance(data, HFConfig):
        datasets = pytest.importorskip("datasets")
        table = datasets.Dataset.from_dict({data.field: [f"{i}: {LINE * 12}" for i in range(200)]})
        datasets.DatasetDict({data.train_split: table}).save_to_disk(str(folder))
        return dataclasses.replace(data, path=str(folder))
    for pattern in (data.pattern, data.validation_pattern, data.test_pattern):
        for i in range(120 if pattern and "*" in pattern else 1 if pattern else 0):
            name = pattern.replace("*", f"text_{i}", 1).replace("*", "")
            write_documents(data, folder / name, [f"{i}.{j}: {LINE * 12}" for j in range(3 if "*" in pattern else 120)])
    return dataclasses.replace(data, path=str(folder))


def write_documents(data: Any, path: Path, texts: list[str]) -> None:
    """A file of these documents as data reads them."""
    if not isinstance(data, RecordsConfig):
        path.write_text("\n".join(texts), encoding="utf-8")
        return
    columns = re.findall(r"{(\w+)}", data.template) if data.template else [data.field.split("|")[0]]
    if isinstance(data, CsvConfig):
        quote = data.quote or ""
        lines = [data.delimiter.join(columns)] if data.header else []
        lines += [data.delimiter.join(f"{quote}{text}{quote}" for _ in columns) for text in texts]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif isinstance(data, JsonLinesConfig):
        path.write_text("\n".join(json.dumps(dict.fromkeys(columns, text)) for text in texts), encoding="utf-8")
    else:
        pq.write_table(pa.table(dict.fromkeys(columns, texts)), path)


@pytest.mark.parametrize("name", YAMLS)
def test_every_yaml_begins_with_what_it_is_for(name: str) -> None:
    lines = (CONF_DIR / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    if lines[0].startswith("# @package"):
        del lines[0]
    assert re.match(r"# \S.{15,}", lines[0]), f"conf/{name}.yaml: the first line must say what the file is for"


def set_values(node: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value of all leaves."""
    if not isinstance(node, dict) or not node:
        return {prefix: node}
    return {k: v for key, child in node.items() for k, v in set_values(child, f"{prefix}.{key}".strip(".")).items()}


def without(name: str, body: dict[str, Any]) -> Any:
    """The config node that a YAML file changes, as it is where the file sets nothing."""
    group = name.rpartition("/")[0]
    entries = [entry for entry in body.get("defaults", []) if isinstance(entry, dict)]
    if group == "experiment":
        chosen = {k.removeprefix("override /"): v for entry in entries for k, v in entry.items()}
        return compose([f"{k}={v}" for k, v in chosen.items()]).node
    schemas = {**SCHEMAS, **{command: {"base": schema} for command, schema in COMMANDS.items()}}
    for entry in entries:
        for key, kind in entry.items():
            if found := re.fullmatch(r"/schema/(\w+)@_here_", key):
                return OmegaConf.structured(schemas[found[1]][kind])
    return OmegaConf.structured(get_type_hints(TrainConfig)[group])  # trainer and checkpoint have one kind only


@pytest.mark.parametrize("name", YAMLS)
def test_no_yaml_repeats_what_would_be_so_without_it(name: str) -> None:
    body: Any = OmegaConf.to_container(OmegaConf.load(CONF_DIR / f"{name}.yaml")) or {}
    given = {key: value for key, value in body.items() if key != "defaults"}
    if not given:
        return
    base = without(name, body)
    repeated = [f"{k}: {v}" for k, v in set_values(given).items() if OmegaConf.select(base, k) == v]
    assert not repeated, f"conf/{name}.yaml sets what is so already: {', '.join(repeated)}"


def test_every_schema_has_a_yaml() -> None:
    text = "\n".join((CONF_DIR / f"{name}.yaml").read_text(encoding="utf-8") for name in YAMLS)
    used = set(re.findall(r"/schema/(\w+)@_here_: (\w+)", text))
    for group, kinds in SCHEMAS.items():
        for kind, schema in kinds.items():
            if schema.__module__.startswith("lmexp."):  # other tests may register kinds of their own
                assert (group, kind) in used, f"no YAML in conf/{group}/ uses /schema/{group}@_here_: {kind}"


CONFIG_FILES = [*sorted((ROOT / "lmexp").rglob("config.py")), ROOT / "lmexp" / "config" / "schema.py"]


def config_classes(path: Path) -> list[ast.ClassDef]:
    """The dataclasses of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [n for n in tree.body if isinstance(n, ast.ClassDef) and "dataclass" in ast.unparse(n.decorator_list[:1])]


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_field_has_a_docstring_under_it(path: Path) -> None:
    """`kind` and a field that holds another config are told by that config's own docstring."""
    undocumented = []
    for node in config_classes(path):
        if ast.get_docstring(node) is None:
            undocumented.append(f"{node.name} itself")
        for field, below in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign):
                name, kind = ast.unparse(field.target), ast.unparse(field.annotation)
                told = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                if not told and name != "kind" and not re.search(r"\w+Config\b", kind):
                    undocumented.append(f"{node.name}.{name}")
    assert not undocumented, f"{path.relative_to(ROOT)} has no docstring under {', '.join(undocumented)}"


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_config_is_keyword_only_and_has_slots(path: Path) -> None:
    """Without slots a key that slips past the schema would be swallowed."""
    for node in config_classes(path):
        assert [ast.unparse(d) for d in node.decorator_list] == ["dataclass(kw_only=True, slots=True)"], node.name
