"""The public surface, and one short run from Python."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch

import lmexp
from lmexp.errors import ConfigError, RunError, UserError
from tests.end_to_end.command import TINY, write_corpus

PUBLIC = {
    "LmexpError",
    "LoadedModel",
    "Run",
    "Secret",
    "TrainConfig",
    "__version__",
    "compare",
    "compose",
    "evaluate",
    "load",
    "prepare",
    "register",
    "resume",
    "train",
    "trust",
}


def test_the_public_surface() -> None:
    """A name that is added or removed here is a promise to users: say so in CHANGELOG.md."""
    assert set(dir(lmexp)) == PUBLIC


def test_every_public_name_is_there_and_documented() -> None:
    for name in PUBLIC - {"__version__"}:
        assert inspect.getdoc(getattr(lmexp, name)), name
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        lmexp.trian  # noqa: B018 - the access is the test


def test_the_parameters_of_the_public_functions() -> None:
    expected = {
        "compose": ["overrides", "config_dirs"],
        "train": ["config", "say"],
        "prepare": ["config", "say"],
        "resume": ["path", "overrides", "allow_changed_data"],
        "evaluate": ["run", "overrides"],
        "compare": ["sides", "evaluations", "primary", "margin", "margins", "seed"],
        "load": ["path", "weights", "device"],
        "register": ["group", "kind", "schema"],
        "trust": ["packages"],
    }
    assert {name: list(inspect.signature(getattr(lmexp, name)).parameters) for name in expected} == expected


def test_compose_gives_the_typed_config_or_an_error_of_ours() -> None:
    config = lmexp.compose(["model=llama_tiny", "optimizer.lr=3e-4"])
    assert isinstance(config, lmexp.TrainConfig)
    assert config.optimizer is not None
    assert config.optimizer.lr == 3e-4
    with pytest.raises(lmexp.LmexpError) as caught:
        lmexp.compose(["model=nonsense"])
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, UserError)


def test_train_load_evaluate_and_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path)
    config = lmexp.compose([*TINY, "launcher.threads_per_process=1"])
    config.trainer.max_steps = config.trainer.val_every_n_steps = 6
    config.run.name = "from-python"
    said: list[str] = []
    run = lmexp.train(config, say=said.append)
    assert run.state == "done"
    assert run.config == config
    assert run.path.name in "\n".join(said)
    assert [row["step"] for row in run.metrics()][-1] == 6
    summary = {row.name: row.estimate for row in run.summary()}
    assert 0 < summary["perplexity/bits_per_byte"] < 16

    loaded = lmexp.load(run.path)
    assert (loaded.step, loaded.config) == (6, config)
    logits = loaded.model(torch.tensor([loaded.tokenizer.encode("the cat")]))
    assert logits.shape == (1, 7, loaded.tokenizer.vocab_size)
    assert loaded.generate("the", seed=1, max_new_tokens=5) == loaded.generate("the", seed=1, max_new_tokens=5)
    assert torch.equal(run.load("latest").model(torch.tensor([[1, 2]])), loaded.model(torch.tensor([[1, 2]])))

    again = {row.name: row.estimate for row in lmexp.evaluate(run.path, ["evaluation=[perplexity]"])}
    assert again == summary
    with pytest.raises(RunError, match="the run is done"):
        lmexp.resume(run.path)
    with pytest.raises(RunError, match="there is no such run folder"):
        lmexp.load(tmp_path / "nowhere")


def test_a_config_changed_in_python_is_checked_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = lmexp.compose()
    config.model.n_head = 5  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"model\.d_model .* must be divisible by model\.n_head \(5\)"):
        lmexp.train(config)
    config = lmexp.compose()
    config.trainer.max_steps = "many"  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="'many'"):
        lmexp.train(config)
    with pytest.raises(AttributeError, match="n_layres"):
        config.model.n_layres = 3  # type: ignore[union-attr]
    assert list(tmp_path.iterdir()) == []
