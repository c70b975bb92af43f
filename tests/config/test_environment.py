"""Values from the environment: which are secrets, and what a field of the type Secret takes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

import lmexp
from lmexp import redaction
from lmexp.config.compose import compose
from lmexp.config.freeze import plain_config, plain_dataclass, to_config, without_secrets
from lmexp.errors import ConfigError
from lmexp.models.config import ModelConfig

VALUE = "an innocent canary"


@dataclass(kw_only=True, slots=True)
class HubConfig(ModelConfig):
    """A model with secrets."""

    kind: str = "hub"
    token: lmexp.Secret = ""
    tokens: list[lmexp.Secret] | None = None
    other: str = ""


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """model=hub, and an environment variable that doesn't look like a secret."""
    lmexp.register("model", "hub", HubConfig)
    monkeypatch.setenv("INNOCENT", VALUE)
    monkeypatch.setenv("SHORT", "train")


@pytest.mark.parametrize(
    "typed",
    [
        "model.token='${oc.env:INNOCENT}'",
        "model.token=${oc.env:INNOCENT}",
        "model.tokens=['${oc.env:INNOCENT}']",
        "model.other='x ${oc.env:INNOCENT}'",
        "model.other='${oc.decode:${oc.env:INNOCENT}}'",
        "model.other='${oc.env:${oc.env:NOWHERE,INNOCENT}}'",
    ],
)
def test_what_is_read_from_the_environment_is_known_and_never_frozen(typed: str) -> None:
    composed = compose(["model=hub", typed])
    assert VALUE in json.dumps(plain_dataclass(composed.config)["model"])
    assert redaction.redact_text(f"it is {VALUE}") == "it is [redacted]"
    for plain in (plain_config(composed.node), plain_dataclass(composed.config)):
        frozen = without_secrets(plain)
        assert VALUE not in json.dumps(frozen)
        assert to_config("train", frozen) == composed.config


def test_a_value_that_is_referred_to_is_not_frozen_either() -> None:
    composed = compose(["model=hub", "model.token='${oc.env:INNOCENT}'", "model.other='\\\\${model.token}'"])
    assert composed.config.model == HubConfig(token=VALUE, other=f"\\{VALUE}")
    frozen = without_secrets(plain_config(composed.node))
    assert VALUE not in json.dumps(frozen)
    assert to_config("train", frozen) == composed.config


def test_settings_from_the_environment_are_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_PLACE", str(tmp_path))
    monkeypatch.setenv("A_NAME", "someones-run")
    compose(
        [
            "model=hub",
            "model.other='${oc.env:SHORT}'",
            "run.root='${oc.env:A_PLACE}/outputs'",
            "run.name='${oc.env:A_NAME}'",
            "logger.tags=['${oc.env:A_NAME}']",
            "data=text_files",
            "data.path='${oc.env:A_PLACE}/x.txt'",
        ]
    )
    assert redaction.secret_variables().keys() & {"SHORT", "A_PLACE", "A_NAME"} == set()


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("model.token=literal", "model.token is a secret"),
        ("model.token='${oc.env:INNOCENT,literal}'", "model.token is a secret"),
        ("model.token='literal ${oc.env:INNOCENT}'", "model.token is a secret"),
        ("model.token='${model.other}'", "model.token is a secret"),
        ("model.tokens=[literal]", "model.tokens.0 is a secret"),
        ("model.token=[1]", "expected an environment variable"),
        ("model.token='${oc.env:SHORT}'", "of 5 characters (of the environment variable SHORT); expected at least 8"),
        ("model.token='${oc.env:NOWHERE}'", "model.token: the environment variable NOWHERE is not set"),
    ],
)
def test_a_secret_that_is_no_environment_variable_is_refused(typed: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(["model=hub", typed])
    assert told in str(caught.value)
    assert "SECRET_TOKEN" in str(caught.value) or "SHORT" in typed or "NOWHERE" in typed
    assert len(str(caught.value).splitlines()) == 1


def test_a_literal_set_in_python_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = lmexp.compose(["model=hub"])
    config.model.tokens = ["literal secret"]  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"model\.tokens\.0 is a secret"):
        lmexp.train(config)
    assert list(tmp_path.iterdir()) == []


def test_a_short_value_is_told_without_being_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        compose(["model=hub", "model.token='${oc.env:SHORT}'"])
    assert "train'" not in str(caught.value)
