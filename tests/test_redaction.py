from __future__ import annotations

import base64
import json
import subprocess
import sys
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

import pytest

from lmexp import redaction
from lmexp.redaction import (
    REDACTED,
    Secret,
    is_secret_key,
    is_secret_variable,
    learn,
    redact,
    redact_text,
    secret_fields,
    secret_values,
)

SECRET = 'vërÿ"secret\\value'


def test_values_of_secret_variables_disappear_from_nested_data_and_text() -> None:
    secrets = secret_values({"MY_TOKEN": SECRET, "HOME": "/home/somebody"})
    data = {"a": [1, None, True, 2.5, (f"x{SECRET}y", "/home/somebody")], SECRET: "key"}
    expected = {"a": [1, None, True, 2.5, (f"x{REDACTED}y", "/home/somebody")], REDACTED: "key"}
    assert redact(data, secrets) == expected
    assert data["a"][4][0] == f"x{SECRET}y", "the original stays as it was"  # type: ignore[index]


def test_a_secret_is_found_in_text_that_is_json_already() -> None:
    assert redact_text(json.dumps({"x": SECRET}), secret_values({"API_KEY": SECRET})) == json.dumps({"x": REDACTED})


def test_a_secret_within_a_longer_one_leaves_no_rest() -> None:
    secrets = secret_values({"A_TOKEN": "12345678", "B_TOKEN": "1234567890abc"})
    assert redact_text("1234567890abc 12345678", secrets) == f"{REDACTED} {REDACTED}"


def test_the_environment_of_this_process_is_the_default(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("SOME_PASSWORD", "correct horse")
    assert redact({"note": "it is correct horse"}) == {"note": f"it is {REDACTED}"}


def test_short_values_and_places_are_not_secrets() -> None:
    environment = {
        "KEY": "abc",
        "TOKENIZERS_PARALLELISM": "false-false",
        "SSH_KEY_PATH": "/home/x/key",
        "PWD": "/home/x/y",
    }
    assert secret_values(environment) == ()


def test_names_of_secret_variables() -> None:
    for name in (
        "WANDB_API_KEY",
        "HF_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "PGPASSWORD",
        "GITHUB_TOKEN",
        "MY_CREDENTIALS",
    ):
        assert is_secret_variable(name), name
    for name in (
        "PATH",
        "PWD",
        "HOME",
        "MONKEY",
        "TOKENIZER_NAME",
        "WANDB_PROJECT",
        "CUBLAS_WORKSPACE_CONFIG",
    ):
        assert not is_secret_variable(name), name


def test_words_of_our_field_are_not_secret_keys() -> None:
    for name in (
        "password",
        "hf_token",
        "api_key",
        "apiKey",
        "aws-secret",
        "token",
        "db.password",
        "accessKey",
    ):
        assert is_secret_key(name), name
    for name in (
        "eos_token",
        "max_tokens",
        "tokens",
        "key",
        "n_key_value_head",
        "key_dim",
        "tokenizer",
        "pad_token",
        "keys",
    ):
        assert not is_secret_key(name), name


def test_values_under_secret_keys_disappear_but_flags_and_blanks_stay() -> None:
    data = {
        "password": 12345678,
        "hf_token": "x",
        "secret": None,
        "token": "",
        "credentials": {"user": "me", "password": "p"},
    }
    assert redact(data, ()) == {
        "password": REDACTED,
        "hf_token": REDACTED,
        "secret": None,
        "token": "",
        "credentials": {"user": "me", "password": REDACTED},
    }


def test_passwords_in_urls_and_well_known_tokens_disappear() -> None:
    text = "git clone https://me:pa55@example.com/x.git; hf_" + "a" * 34 + "; https://example.com:8080/a@b"
    assert (
        redact_text(text, ())
        == f"git clone https://me:{REDACTED}@example.com/x.git; {REDACTED}; https://example.com:8080/a@b"
    )


@pytest.mark.parametrize(
    "written",
    [
        str,
        json.dumps,
        repr,
        lambda secret: json.dumps(secret, ensure_ascii=False),
        lambda secret: repr([secret + "'"]),
        lambda secret: repr({"both": f"\"'{secret}"}),
        quote,
        quote_plus,
        lambda secret: quote(secret, safe=""),
        lambda secret: base64.b64encode(secret.encode()).decode(),
        lambda secret: base64.urlsafe_b64encode(secret.encode()).decode(),
    ],
)
def test_a_secret_is_found_in_every_form(written) -> None:  # type: ignore[no-untyped-def]
    secret = "a/b?\"c' \\ é+~"
    secrets = secret_values({"MY_KEY": secret})
    assert REDACTED in redact_text(f"x {written(secret)} y", secrets)
    assert "a/b" not in redact_text(written(secret), secrets)


def test_each_line_of_a_secret_is_one() -> None:
    assert redact_text("line one\nline two", secret_values({"MY_KEY": "line one\nx\nline two"})) == (
        f"{REDACTED}\n{REDACTED}"
    )


def test_what_a_config_reads_is_a_secret_of_this_process_unless_it_is_short() -> None:
    learn("SOMETHING", "correct horse")
    learn("N", "4")
    assert redact_text("correct horse, 4") == f"{REDACTED}, 4"
    assert secret_values({}) == ()


def test_secret_fields_are_told_by_their_type() -> None:
    @dataclass
    class Config:
        plain: str
        token: Secret
        maybe: Secret | None
        several: dict[str, list[Secret]]

    Config.__annotations__ = {"plain": str, "token": Secret, "maybe": Secret | None, "several": dict[str, list[Secret]]}
    assert secret_fields(Config) == ("token", "maybe", "several")


def test_output_and_tracebacks_are_redacted() -> None:
    program = (
        "import sys, warnings; from lmexp.redaction import redact_output; redact_output()\n"
        "from os import environ\nkey = environ['MY_KEY']\nprint('out', key)\nwarnings.warn(key)\n"
        "print('ë', file=sys.stderr)\nraise RuntimeError(key)"
    )
    done = subprocess.run([sys.executable, "-c", program], env={"MY_KEY": "correct horse"}, capture_output=True)
    assert done.stdout == f"out {REDACTED}\n".encode()
    assert b"correct" not in done.stderr
    assert done.stderr.count(REDACTED.encode()) == 2
    assert done.stderr.rstrip().endswith(f"RuntimeError: {REDACTED}".encode())


def test_a_process_that_knows_no_secret_changes_nothing() -> None:
    assert redaction.redact("a validation/loss of 4") == "a validation/loss of 4"
