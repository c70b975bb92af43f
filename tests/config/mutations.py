"""Wrong configs, generated from the schemas: one thing wrong in each, and what the user must be told about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_type_hints

from lmexp.config.compose import compose
from lmexp.config.overrides import RAW_TEXT_KEYS
from lmexp.config.schema import DICT_GROUPS, SCHEMAS
from lmexp.data.config import DOCUMENTS, SPLITS, SYNTHETIC, WINDOWS
from lmexp.evaluation.config import SPLITS as SCORED
from lmexp.models.config import CHOICES, MOST_ORDER, SMOOTHINGS
from lmexp.optim.config import ADJUST_LR
from lmexp.optim.schedulers.config import DECAY_SHAPES
from lmexp.tokenizers.config import WORD_SPLITS
from lmexp.tracking.config import SYNC
from lmexp.training.config import ACCELERATORS, KEEP, MODES, PRECISIONS, STRATEGIES


@dataclass(frozen=True, slots=True)
class Mutation:
    """Overrides of which the last is wrong."""

    sort: str
    """typo, type, null, range, number, choice, empty, kind, option, target or combination."""
    overrides: tuple[str, ...]
    key: str
    """Full key that the message must name."""
    fix: str
    """Regular expression of the fix, on the same line."""


def mutations() -> list[Mutation]:
    """All of them, in a fixed order."""
    found: dict[tuple[str, ...], Mutation] = {}
    for chosen in CHOSEN:
        for key, schema, name, value in leaves(compose([*chosen]).config):
            for mutation in _of_leaf(chosen, key, schema, name, value):
                # A field that several kinds inherit is wrong in the same way in each.
                owner = next(c.__name__ for c in reversed(schema.__mro__) if name in getattr(c, "__annotations__", ()))
                found.setdefault((owner, *mutation.overrides[len(chosen) :]), mutation)
    return [*found.values(), *_options(), *_combinations()]


CHOSEN: list[tuple[str, ...]] = [
    (),
    *((f"data={kind}",) for kind in ("text_files", "json_lines", "csv", "parquet", "hf", "synthetic")),
    *((f"tokenizer={kind}",) for kind in ("byte", "char", "word", "bpe", "saved", "hf")),
    *((f"optimizer={kind}",) for kind in ("adam", "sgd", "lion", "adafactor", "muon")),
    *((f"scheduler={kind}",) for kind in ("constant", "linear", "wsd", "inverse_sqrt", "step")),
    ("logger=files",),
    ("callbacks=[early_stopping]",),
    ("model=ngram",),
    ("model=custom", "model.target=a:B"),
    ("model=hf", "model.config={model_type: gpt2}"),
    ("model=hf_lora", "model.path=a"),
    ("task=custom", "task.target=a:B", "tokenizer=byte"),
    ("data=custom", "data.target=a:B", "task=custom", "task.target=a:B"),
    ("optimizer=custom", "optimizer.target=a:B"),
    ("scheduler=custom", "scheduler.target=a:B"),
    ("callbacks=[custom]", "callbacks.custom.target=a:B"),
    ("evaluation=[custom]", "evaluation.custom.target=a:B"),
]
"""Valid overrides that bring each kind of each group in."""

ONE_OF: dict[str, tuple[str, ...]] = {
    "data.windows": WINDOWS,
    "data.split": SPLITS,
    "data.document": DOCUMENTS,
    "data.rule": SYNTHETIC,
    "tokenizer.split": WORD_SPLITS,
    **{f"model.{name}": allowed for name, allowed in CHOICES.items()},
    "model.smoothing": SMOOTHINGS,
    "optimizer.adjust_lr_fn": ADJUST_LR,
    "scheduler.decay_shape": DECAY_SHAPES,
    "trainer.accelerator": ACCELERATORS,
    "trainer.precision": tuple(PRECISIONS),
    "trainer.strategy": STRATEGIES,
    "checkpoint.keep": KEEP,
    "checkpoint.mode": MODES,
    "callbacks.early_stopping.mode": MODES,
    "logger.sync": SYNC,
    **{f"evaluation.{name}.split": SCORED for name in ("perplexity", "baselines", "custom")},
}
"""Key -> all that it may be."""

LEAST: dict[str, float] = {
    "seed": 0,
    "data.max_quarantined": 0,
    "tokenizer.vocab_size": 257,
    "data.n_symbols": 2,
    "scheduler.warmup_steps": 0,
    "scheduler.decay_steps": 51,
}
"""Key of a whole number -> the least that it may be; 1 where it isn't named."""

MOST: dict[str, float] = {
    "data.validation_fraction": 0.999,
    "data.test_fraction": 0.999,
    "model.dropout": 0.999,
    "model.order": MOST_ORDER,
    "model.lora.dropout": 0.999,
    "optimizer.beta1": 0.999,
    "optimizer.beta2": 0.999,
    "optimizer.momentum": 0.999,
    "optimizer.layer_decay": 1,
    "optimizer.beta2_decay": 0,
    "optimizer.ns_steps": 99,
    "scheduler.gamma": 1,
    "scheduler.decay_fraction": 1,
    "scheduler.min_lr_ratio": 1,
    "data.n_symbols": 26,
    "seed": 2**32 - 1,
}
"""Key of a number -> about the most that it may be."""

POSITIVE = (
    *("optimizer.lr", "optimizer.eps", "optimizer.layer_decay", "optimizer.adamw_lr_ratio", "optimizer.d"),
    *("scheduler.gamma", "trainer.gradient_clip_val"),
    *("model.rotary_base", "model.init_std", "model.norm_eps", "model.k", "model.lora.alpha"),
)
"""Numbers that can't be 0."""

NEGATIVE = ("optimizer.beta2_decay",)
"""Numbers that may be below 0."""

NOT_EMPTY = (
    *("run.name", "run.folder", "run.root", "data.cache_dir", "data.pattern", "data.validation_pattern"),
    *("data.test_pattern", "data.field", "data.template", "data.train_split", "data.validation_split"),
    *("data.test_split", "data.revision", "data.subset", "checkpoint.monitor", "callbacks.early_stopping.monitor"),
    *("logger.project", "logger.entity", "logger.group"),
    *("model.path", "model.revision", "tokenizer.revision", "tokenizer.eos"),
)
"""Text that can't be empty."""

WRONG_TYPES: dict[Any, tuple[str, ...]] = {
    int: ("many", "1.5", "[1]", "{a: 1}"),
    float: ("fast", "[0.5]", "{a: 0.5}", "1e-"),
    bool: ("maybe", "[true]"),
    str: ("[a]", "{a: b}"),
    list[str]: ("5", "some", "{a: b}"),
}
EXPECTED = {
    int: "expected a whole number",
    float: "expected a number",
    bool: "expected true or false",
    str: "expected text",
    list[str]: r"expected a list such as \[a,b\]",
}


def leaves(config: Any, where: str = "") -> Iterator[tuple[str, type, str, Any]]:
    """Full key, dataclass, name and value of each setting of a typed config."""
    for field in fields(config):
        key, value = f"{where}{field.name}", getattr(config, field.name)
        if is_dataclass(value):
            yield from leaves(value, f"{key}.")
        elif isinstance(value, dict) and field.name in DICT_GROUPS:
            for name, node in value.items():
                yield from leaves(node, f"{key}.{name}.")
        else:
            yield key, type(config), field.name, value


def _of_leaf(chosen: tuple[str, ...], key: str, schema: type, name: str, value: Any) -> Iterator[Mutation]:
    def wrong(sort: str, given: str, fix: str, *, at: str = key) -> Mutation:
        return Mutation(sort, (*chosen, f"{at}={given}"), at, fix)

    hint: Any = get_type_hints(schema)[name]
    plain, optional = _without_none(hint)
    place = key.rpartition(".")[0]
    group = place.partition(".")[0]
    if name == "kind":
        yield from (wrong("kind", given, f"choose a kind by its group, {group}=") for given in _kinds(group, value))
        return
    if value is None and key in ("tokenizer", "model", "optimizer", "scheduler"):
        return
    if plain in WRONG_TYPES and key not in ("data.parts", "data.weights"):
        typo = _typo(name)
        near = rf"did you mean ([\w.]+\.)?{name}\?" if len(name) > 3 else rf"it has .*\b{name}\b"
        yield wrong("typo", "x", near, at=f"{place}.{typo}" if place else typo)
        yield from (
            wrong("type", given, EXPECTED[plain] + (" or null" if optional else ""))
            for given in WRONG_TYPES[plain]
            if not RAW_TEXT_KEYS.fullmatch(key)  # whatever is typed there is text
        )
        if not optional and not RAW_TEXT_KEYS.fullmatch(key):
            yield wrong("null", "null", EXPECTED[plain])
    if plain is int and key != "data.generator_seed":  # any will do there
        least = LEAST.get(key, 1)
        yield from (wrong("range", f"{given:.0f}", "expected|must be above .*; try") for given in (least - 1, -(10**6)))
        yield wrong("range", f"{10**30}", "expected|try")
    if plain is float:
        wrong_numbers = ("nan", "inf", "-inf") if key in NEGATIVE else ("nan", "inf", "-inf", "-1")
        yield from (wrong("number", given, "expected") for given in wrong_numbers)
        if key in POSITIVE:
            yield wrong("range", "0", "expected")
    if key in MOST:
        yield wrong("range", f"{MOST[key] + 1}", "expected")
    if key in ONE_OF:
        allowed = ONE_OF[key]
        listing = f"expected one of {re.escape(', '.join(allowed))}"
        yield wrong("choice", "nonsense", listing)
        yield wrong("choice", "''", listing)
        near = next((a for a in allowed if len(a) > 3), None)
        if near is not None:
            yield wrong("choice", near[:-2] + near[-1], f"{listing}; did you mean")
    if key in NOT_EMPTY:
        yield wrong("empty", "''", "expected")
    if name == "target":
        for given in ("''", "my_pkg", "my_pkg.nets.Net", ":Net", "'a b:c'", "my_pkg/nets.py:Net", "'os.system(1)'"):
            yield wrong("target", given, "expected my_pkg.module:ClassName")
    if name == "args":
        yield from (wrong("type", given, "expected a mapping") for given in ("5", "[a]", "text"))
    if key == "trainer.devices":
        yield from (wrong("range", given, 'expected .* device indices as "0,1"') for given in DEVICES)


DEVICES = ("0", "-1", "1.5", "x", "[]", "[a]", "true", "null", "''", "{a: 1}", "[-1]", "nan", "[0,0]")


def _kinds(group: str, value: str) -> Iterator[str]:
    yield "nonsense"
    yield from [kind for kind in SCHEMAS.get(group, {}) if kind != value][:1]


def _without_none(hint: Any) -> tuple[Any, bool]:
    parts = getattr(hint, "__args__", ()) if getattr(hint, "__origin__", None) is not list else ()
    if type(None) in parts:
        return next(part for part in parts if part is not type(None)), True
    return hint, False


def _typo(name: str) -> str:
    """The name with two letters in the wrong order, or one doubled."""
    middle = len(name) // 2
    swapped = name[: middle - 1] + name[middle] + name[middle - 1] + name[middle + 1 :]
    return swapped if swapped != name else name[:middle] + name[middle - 1] + name[middle:]


def _options() -> Iterator[Mutation]:
    """Wrong choices of a group."""
    options: dict[str, str] = {
        "data": "text_files",
        "tokenizer": "char",
        "model": "llama_tiny",
        "task": "language_modeling",
        "optimizer": "adamw",
        "scheduler": "cosine",
        "trainer": "default",
        "checkpoint": "default",
        "logger": "wandb",
        "launcher": "local",
        "experiment": "shakespeare_char",
    }
    for group, option in options.items():
        one_of = f"there is no {group}=NAME; expected one of .*{option}"
        yield Mutation("option", (f"{group}=nonsense",), group, one_of.replace("NAME", "nonsense"))
        typo = _typo(option)
        yield Mutation("option", (f"{group}={typo}",), group, f"{one_of.replace('NAME', typo)}.*did you mean {option}")
        if group != "experiment":
            several = f"[{option},{option}]"
            yield Mutation("option", (f"{group}={several}",), group, "takes one option")
        yield Mutation("option", (f"{_typo(group)}={option}",), _typo(group), f"did you mean {group}")
    for group in ("data", "task", "logger", "launcher", "trainer", "checkpoint"):
        yield Mutation("null", (f"{group}=null",), group, "can't be null; expected one of")
    for group in ("tokenizer", "model", "optimizer", "scheduler"):
        yield Mutation("null", (f"{group}=null",), group, f"choose one, e.g. {group}=")
    for group, option in {"callbacks": "early_stopping", "evaluation": "perplexity"}.items():
        yield Mutation("option", (f"{group}=[nonsense]",), group, f"expected one of .*{option}")
        yield Mutation("option", (f"{group}=[{_typo(option)}]",), group, f"did you mean {option}")


def _combinations() -> Iterator[Mutation]:
    """Settings that are fine one by one, and impossible together."""
    sharded = ("trainer.strategy=fsdp", "trainer.devices=2")
    together: dict[tuple[str, ...], tuple[str, str]] = {
        ("model.d_model=64", "model.n_head=5"): ("model.n_head", "try model.n_head=4"),
        ("model.n_head=4", "model.n_kv_head=3"): ("model.n_kv_head", "try model.n_kv_head="),
        ("model.positions=rotary", "model.d_model=12", "model.n_head=4"): ("model.d_model", "try model.d_model=16"),
        ("data.validation_fraction=0.5", "data.test_fraction=0.5"): ("data.validation_fraction", "try data.validation"),
        ("data.min_characters=9", "data.max_characters=8"): ("data.max_characters", "expected at least 9"),
        ("data=synthetic", "data.min_length=9", "data.max_length=8"): ("data.max_length", "expected at least 9"),
        ("data=csv", "data.delimiter=ab"): ("data.delimiter", "expected one character"),
        ("data=csv", "data.delimiter=';'", "data.quote=';'"): ("data.quote", "expected another character"),
        ("data=mixture",): ("data.parts", "e.g. in a YAML"),
        ("data=mixture", "+data@data.parts.a=stdlib", "data.weights.b=1"): ("data.weights", "expected one of a"),
        ("data=mixture", "+data@data.parts.a=stdlib", "data.weights.a=0"): ("data.weights.a", "expected a positive"),
        ("data=mixture", "+data@data.parts.a=stdlib", "data.weights.a=nan"): ("data.weights.a", "expected a positive"),
        ("data=mixture", "+data@data.parts.a=mixture"): ("data.parts.a.parts", "e.g. in a YAML"),
        ("data=mixture", "+data@data.parts.a=stdlib", "data.parts.a.batch_size=3"): (
            "data.parts.a.batch_size",
            "set data.batch_size",
        ),
        ("data=mixture", "+data@data.parts.a=stdlib", "data.parts.a.windws=3"): ("data.parts.a", "did you mean"),
        ("data.batch_size=8", "trainer.accumulate_grad_batches=3"): ("data.batch_size", "try data.batch_size=9"),
        ("data.batch_size=7", "trainer.devices=2"): ("data.batch_size", "try data.batch_size="),
        ("trainer.max_tokens=9",): ("trainer.max_tokens", "add trainer.max_steps=null"),
        ("trainer.max_epochs=9",): ("trainer.max_epochs|max_epochs", "add trainer.max_steps=null"),
        ("trainer.max_steps=null",): ("trainer.max_steps", "give trainer.max_steps=500"),
        ("optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=true"): (
            "optimizer.nesterov",
            "set optimizer.momentum=0.9",
        ),
        ("scheduler=step", "scheduler.step_size=5", "scheduler.milestones=[5]"): (
            "scheduler.step_size",
            "set scheduler.step_size=null",
        ),
        ("scheduler=step", "scheduler.milestones=[5,5]"): ("scheduler.milestones", "expected steps in rising order"),
        ("scheduler=step", "scheduler.milestones=[x]"): ("scheduler.milestones", "expected"),
        ("scheduler=step", "scheduler.milestones=5"): ("scheduler.milestones", "expected"),
        ("scheduler=step", "scheduler.warmup_steps=9", "scheduler.step_size=5"): (
            "scheduler.step_size",
            "expected at least",
        ),
        ("optimizer=sgd", "optimizer.beta2=0.9"): ("optimizer.beta2", "it has|did you mean"),
        ("scheduler.warmup_steps=9", "scheduler.decay_steps=9"): ("scheduler.decay_steps", "try scheduler.decay_steps"),
        ("checkpoint.every_n_steps=4", "checkpoint.keep_every_n_steps=6"): (
            "checkpoint.keep_every_n_steps",
            "try checkpoint.keep_every_n_steps=8",
        ),
        ("checkpoint.monitor=validation/los",): ("checkpoint.monitor", "did you mean validation/loss"),
        ("callbacks=[early_stopping]", "callbacks.early_stopping.monitor=x"): (
            "callbacks.early_stopping.monitor",
            "expected one of validation/loss",
        ),
        ("callbacks=[early_stopping]", "data.validation_fraction=0"): (
            "callbacks.early_stopping",
            "set data.validation_fraction=0.05",
        ),
        ("trainer.precision=16-mixed",): ("trainer.precision", "set optimizer.fused=false"),
        (*sharded, "trainer.precision=64"): ("trainer.precision", "use one of 32-true, bf16-mixed"),
        (*sharded, "optimizer=adafactor"): ("optimizer=adafactor|optimizer", "use optimizer=adamw"),
        (*sharded, "trainer.compile=true"): ("trainer.compile", "use trainer.strategy=ddp"),
        (*sharded, "task=custom", "task.target=a:B", "tokenizer=byte"): (
            "trainer.strategy",
            "use trainer.strategy=ddp",
        ),
        ("task=custom", "task.target=a:B", "tokenizer=null"): ("data=stdlib|data", "e.g. tokenizer=byte"),
        ("data=custom", "data.target=a:B"): ("data=custom|data", "use data=text_files"),
        ("task=custom", "task.target=a:B", "model.n_layer=2"): ("model.n_layer", "choose model=... first"),
        ("logger.tags=['']",): ("logger.tags", "W&B takes 1 to 64"),
        (f"logger.tags=[{'a' * 65}]",): ("logger.tags", "W&B takes 1 to 64"),
        ("data.keep_blank_lines=true",): ("data.keep_blank_lines|data", "it has|set data.document=line"),
        ("data=text_files", "data.keep_blank_lines=true"): ("data.keep_blank_lines", "set data.document=line"),
        ("model=ngram", "optimizer.lr=1"): ("optimizer.lr", "take it away"),
        ("model=ngram", "optimizer=adamw"): ("optimizer", "take it away"),
        ("model=ngram", "trainer.max_steps=9"): ("trainer.max_steps", "take it away"),
        ("model=ngram", "callbacks=[early_stopping]"): ("callbacks", "take it away"),
        ("model=ngram", "model.init_from=x"): ("model.init_from", "take it away"),
        ("model=ngram", "task=custom", "task.target=a:B"): ("task=custom|task", "use task=language_modeling"),
        ("run.name=a/b",): ("run.name", "expected letters"),
        ("run.name=..",): ("run.name", "expected letters"),
        ("run.folder=../x",): ("run.folder", "expected letters"),
        ("optimizer=custom", "optimizer.target=a:B", "optimizer.args.lr=1"): ("optimizer.args.lr", "give optimizer.lr"),
        ("data.max_document_bytes=2000000000",): ("data.max_document_bytes", "expected at most"),
        ("optimizer.lr=1e-3,1e-4",): ("optimizer.lr", "give one value"),
        ("optimizer.lr=${nosuch}",): ("optimizer.lr", "expected one such as"),
        ("optimizer.lr=${oc.env:NO_SUCH_VARIABLE}",): ("optimizer.lr", "set it, or give a default"),
        ("model._target_=torch.nn.Linear",): ("model._target_", r"defaults: \[/schema/model@_here_: custom"),
        ("~model.n_layer",): ("model.n_layer", "model.n_layer=..."),
        ("+seed=3",): ("seed", "write it without the +"),
        ("hydra.run.dir=x",): ("hydra.run.dir", r"run.root=\.\.\."),
        ("callbacks.early_stopping.patience=3",): ("callbacks.early_stopping.patience", "write callbacks="),
        ("evaluation=[baselines]", "evaluation.perplexity.batch_size=3"): (
            "evaluation.perplexity.batch_size",
            "write evaluation=",
        ),
        ("model.args.x=1",): ("model.args.x", "it has|did you mean|has it"),
    }
    for overrides, (key, fix) in together.items():
        yield Mutation("combination", overrides, key, fix)
