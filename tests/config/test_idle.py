from pathlib import Path

import pytest

from lmexp.config.compose import compose
from lmexp.errors import ConfigError


def test_a_model_that_is_counted_has_no_optimizer_whatever_the_experiment_says() -> None:
    config = compose(["experiment=shakespeare_char", "data.path=x", "model=ngram"]).config
    assert config.is_counted
    assert config.optimizer is None
    assert config.scheduler is None
    assert config.callbacks == {}


def test_what_is_typed_and_would_be_ignored_is_refused_all_at_once() -> None:
    typed = ["optimizer=adamw", "optimizer.lr=1", "scheduler.warmup_steps=3", "trainer.max_tokens=4"]
    typed += ["checkpoint.every_n_steps=3", "evaluation.perplexity.every_n_steps=10", "callbacks=[early_stopping]"]
    with pytest.raises(ConfigError) as caught:
        compose(["model=ngram", "trainer.max_steps=null", *typed])
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == typed


def test_what_counting_reads_may_be_typed() -> None:
    typed = ["optimizer=null", "trainer.limit_val_batches=3", "checkpoint.keep=last", "data.batch_size=5"]
    assert compose(["model=ngram", *typed, "trainer.devices=2"]).config.is_counted
    assert not compose(["optimizer.lr=1"]).config.is_counted


def test_weights_of_a_mixture_are_refused(tmp_path: Path) -> None:
    typed = ["data=mixture", "+data@data.parts.a=stdlib", "+data@data.parts.b=synthetic", "model=ngram"]
    assert compose(typed).config.is_counted
    with pytest.raises(ConfigError, match=r"take data\.weights away"):
        compose([*typed, "data.weights.a=2"])
