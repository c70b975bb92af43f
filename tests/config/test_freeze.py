"""run.json: what is written is what is read, or a refusal that names the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lmexp.config.compose import compose
from lmexp.config.freeze import (
    RunRecord,
    add_fingerprint,
    plain_config,
    plain_dataclass,
    read_record,
    require_plugins,
    to_config,
    without_secrets,
    write_record,
)
from lmexp.errors import ConfigError, RunError
from lmexp.paths import CONF_DIR
from lmexp.plugins import _trusted

SECRET = "correct-horse-battery-staple"

CUSTOM = [
    "task=custom",
    "task.target=my_pkg:Net",
    "task.args={width: 3, names: [a, b], nested: {deep: null}}",
    "data=custom",
    "data.target=my_pkg:Data",
    "callbacks=[custom,early_stopping]",
    "callbacks.custom.target=my_pkg:Beep",
    "callbacks.early_stopping.monitor=val_loss",
    "evaluation=[custom]",
    "evaluation.custom.target=my_pkg:Score",
]
GROUPS = [
    "model=llama_tiny",
    "tokenizer=char",
    "optimizer=adam",
    "scheduler=constant",
    "logger=files",
    "callbacks=[early_stopping]",
    "evaluation=[]",
    "trainer.devices=[0,1]",
    "trainer.max_steps=null",
    "trainer.max_tokens=1000",
]
MIXTURE = [
    "data=mixture",
    "+data@data.parts.code=stdlib",
    "+data@data.parts.books=text_files",
    "data.parts.books.path=my books/${x}.txt",
    "data.weights.books=3",
]
EXPERIMENTS = [
    [f"experiment={path.stem}", *(["data.path=x"] if path.stem != "stdlib_gpt" else [])]
    for path in sorted((CONF_DIR / "experiment").glob("*.yaml"))
]


def record(config: Any) -> RunRecord:
    """A record with made-up facts."""
    return RunRecord(
        run_id="20260101-000000-x-abcdef",
        experiment="x",
        name="x",
        created="2026-01-01T00:00:00+00:00",
        lmexp="0.1.0",
        cwd="/somewhere",
        overrides=["seed=1"],
        plugins=[],
        wandb_id="0badcafe",
        data_fingerprints=["0a" * 32],
        config=config,
    )


def frozen(folder: Path, *overrides: str) -> tuple[Any, dict[str, Any]]:
    """Compose, write run.json; the config and the file's content."""
    composed = compose([*overrides])
    write_record(folder, record(composed.config), without_secrets(plain_config(composed.node)))
    return composed.config, json.loads((folder / "run.json").read_text())


@pytest.mark.parametrize("overrides", [[], CUSTOM, GROUPS, MIXTURE, *EXPERIMENTS], ids=lambda o: (o or ["default"])[0])
def test_what_is_read_equals_what_was_written(tmp_path: Path, overrides: list[str]) -> None:
    config, _ = frozen(tmp_path, *overrides)
    assert read_record(tmp_path) == record(config)


@pytest.mark.parametrize("overrides", [[], CUSTOM, GROUPS, MIXTURE], ids=["default", "custom", "groups", "mixture"])
def test_a_typed_config_survives_as_plain_data(overrides: list[str]) -> None:
    config = compose(overrides).config
    assert to_config("train", json.loads(json.dumps(plain_dataclass(config)))) == config


def test_a_dollar_in_a_path_is_text_before_and_after(tmp_path: Path) -> None:
    config, _ = frozen(tmp_path, "data=text_files", "data.path=${HOME}/a\\b.txt")
    assert config.data.path == "${HOME}/a\\b.txt"
    assert read_record(tmp_path).config == config
    assert to_config("train", plain_dataclass(config)) == config


def test_run_json_is_written_once(tmp_path: Path) -> None:
    frozen(tmp_path)
    with pytest.raises(FileExistsError):
        frozen(tmp_path)


def test_a_fingerprint_is_appended_and_nothing_else_changes(tmp_path: Path) -> None:
    config, before = frozen(tmp_path)
    add_fingerprint(tmp_path, "1b" * 32)
    after = json.loads((tmp_path / "run.json").read_text())
    assert after == before | {"data_fingerprints": ["0a" * 32, "1b" * 32]}
    assert read_record(tmp_path).config == config


def test_an_environment_variable_is_looked_up_when_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PLACE", "here")
    config, body = frozen(tmp_path, "data=text_files", "data.path='${oc.env:MY_PLACE}/x.txt'")
    assert config.data.path == "here/x.txt"
    assert body["config"]["data"]["path"] == "${oc.env:MY_PLACE}/x.txt"
    monkeypatch.setenv("MY_PLACE", "there")
    assert read_record(tmp_path).config.data.path == "there/x.txt"
    monkeypatch.delenv("MY_PLACE")
    with pytest.raises(RunError, match=r"run\.json: .*data\.path.*MY_PLACE is not set"):
        read_record(tmp_path)


@pytest.mark.parametrize("given", ["${oc.env:MY_API_KEY}", SECRET, f"https://me@host/{SECRET}"])
def test_a_secret_of_the_environment_is_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("MY_API_KEY", SECRET)
    config, _ = frozen(
        tmp_path, "data=custom", "data.target=a:b", "task=custom", "task.target=a:b", f"data.args.x='{given}'"
    )
    assert SECRET in config.data.args["x"]
    assert SECRET not in (tmp_path / "run.json").read_text()
    assert read_record(tmp_path).config == config
    assert SECRET not in json.dumps(without_secrets(plain_dataclass(config)))


@pytest.mark.parametrize(
    ("key", "value"),
    [("password", "abc"), ("hf_token", "abc"), ("x", "hf_" + "a" * 34), ("url", "https://me:pw@host/x")],
)
def test_a_secret_typed_as_text_is_refused_with_the_way_that_works(key: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        without_secrets({"data": {"args": {key: value}}})
    assert f"data.args.{key} holds a secret" in str(caught.value)
    assert f"data.args.{key}='${{oc.env:" in str(caught.value)
    assert value not in str(caught.value)
    without_secrets({"data": {"args": {key: "${oc.env:MY_TOKEN}", "eos_token": "<eos>"}}})


def change(folder: Path, **changes: Any) -> None:
    """Edit run.json."""
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format": "else"}, "expected format 'lmexp.run' version 3, got 'else' version 3"),
        ({"version": 2}, "expected format 'lmexp.run' version 3, got 'lmexp.run' version 2"),
        ({"version": None}, "version None; another version of lmexp wrote it"),
    ],
)
def test_an_unknown_format_or_version_is_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    frozen(tmp_path)
    change(tmp_path, **changes)
    with pytest.raises(RunError, match=told) as caught:
        read_record(tmp_path)
    assert str(tmp_path / "run.json") in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"format": "lmexp.run", "version": 3}', b"\xff\xfe"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: str | bytes) -> None:
    (tmp_path / "run.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RunError, match=r"run\.json: "):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("node", "told"),
    [
        ({"kind": "gtp"}, "model.kind is 'gtp'; expected one of gpt, ngram, hf, custom; did you mean gpt?"),
        ({"kind": "mine"}, "a kind of your own needs its package, lmexp -p my_pkg"),
        ({"n_layer": 2}, "model.kind is None"),
        ("gpt", "model.kind is None"),
        ({"kind": "gpt", "n_layres": 2}, "n_layres"),
        ({"kind": "gpt", "n_layer": "two"}, "'two'"),
        ({"kind": "gpt", "n_head": 5}, "model.n_head"),
        ({"kind": "gpt", "_target_": "os.system"}, "_target_"),
    ],
)
def test_a_config_that_was_edited_is_checked_as_one_that_is_typed(tmp_path: Path, node: object, told: str) -> None:
    _, body = frozen(tmp_path)
    change(tmp_path, config=body["config"] | {"model": node})
    with pytest.raises(RunError) as caught:
        read_record(tmp_path)
    assert str(tmp_path / "run.json") in str(caught.value)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("node", "told"),
    [
        (
            {"kind": "text_file", "path": "x"},
            "data.parts.books.kind is 'text_file'; expected one of stdlib",
        ),
        ({"kind": "text_files", "pth": "x"}, "pth"),
        ({"kind": "text_files", "document": "word"}, "data.document is 'word'"),
        ("text_files", "data.parts.books.kind is None"),
    ],
)
def test_a_part_of_a_mixture_that_was_edited_is_checked_too(tmp_path: Path, node: object, told: str) -> None:
    _, body = frozen(tmp_path, *MIXTURE)
    body["config"]["data"]["parts"]["books"] = node
    change(tmp_path, config=body["config"])
    with pytest.raises(RunError) as caught:
        read_record(tmp_path)
    assert told in str(caught.value)


def test_a_missing_or_other_folder_is_told_apart_and_a_near_name_is_offered(tmp_path: Path) -> None:
    (tmp_path / "20260101-000000-gpt-abcdef").mkdir()
    with pytest.raises(RunError, match=r"there is no such run folder; did you mean 20260101-000000-gpt-abcdef"):
        read_record(tmp_path / "20260101-000000-gpt-abcdee")
    with pytest.raises(RunError, match=r"not a run folder, it holds no run\.json"):
        read_record(tmp_path)


def test_packages_of_a_run_are_asked_for_with_the_command_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen(tmp_path)
    require_plugins(tmp_path, "resume x")
    change(tmp_path, plugins=["my_pkg", "more"])
    with pytest.raises(RunError, match="lmexp -p my_pkg -p more resume x"):
        require_plugins(tmp_path, "resume x")
    monkeypatch.setitem(_trusted, "more", "-p")
    with pytest.raises(RunError, match="lmexp -p more -p my_pkg resume x"):
        require_plugins(tmp_path, "resume x")
