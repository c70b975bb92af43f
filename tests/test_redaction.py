from lmexp.redaction import REDACTED, is_secret_key, is_secret_variable, redact, redact_text, secret_values

SECRET = 'vërÿ"secret\\value'


def test_values_of_secret_variables_disappear_from_nested_data_and_text() -> None:
    secrets = secret_values({"MY_TOKEN": SECRET, "HOME": "/home/somebody"})
    data = {"a": [1, None, True, 2.5, (f"x{SECRET}y", "/home/somebody")], SECRET: "key"}
    expected = {"a": [1, None, True, 2.5, (f"x{REDACTED}y", "/home/somebody")], REDACTED: "key"}
    assert redact(data, secrets) == expected
    assert data["a"][4][0] == f"x{SECRET}y", "the original stays as it was"  # type: ignore[index]


def test_a_secret_is_found_in_text_that_is_json_already() -> None:
    import json

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
