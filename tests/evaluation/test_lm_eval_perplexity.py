"""Perplexities equal those of EleutherAI's lm-evaluation-harness, on the same model and documents."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lmexp.data.cache import TokenCache, prepare
from lmexp.data.config import JsonLinesConfig
from lmexp.evaluation.config import PerplexityConfig
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.perplexity import Perplexity
from lmexp.evaluation.row import Row
from lmexp.tokenizers.bpe import BPETokenizer
from lmexp.tokenizers.config import BPETokenizerConfig

LENGTH = 16
TRAIN = [
    f"the {word} sat on the mat, and {i} others \u00e9\u00e9 too" for i in range(30) for word in ("cat", "d\u00f6g")
]
FIXED = [
    "x",
    " x ",
    "\nlines\n\n of words\t\n",
    "caf\u00e9 na\u00efve \u4f60\u597d \U0001f600 end",
    "no\u00a0break\u2003em\u3000wide space",
    "e\u0301 combined, \u0950\u200d\u093f",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466" * 9,
    "\u2003\u00a0 " * 7 + "spaces split between tokens and windows" + " \u2003\u3000" * 9,
    "the cat sat on the mat, and " * 12,
]
METRICS = ("word_perplexity", "byte_perplexity", "bits_per_byte")

pytestmark = pytest.mark.filterwarnings("ignore")


def some_documents(tokenizer: BPETokenizer) -> list[str]:
    """FIXED, and ASCII documents of exactly as many tokens as make a difference to the windows."""
    found = list(FIXED)
    for n_tokens in (1, LENGTH - 1, LENGTH, LENGTH + 1, 2 * LENGTH - 1, 2 * LENGTH, 2 * LENGTH + 1, 3 * LENGTH):
        text = "".join(f"{chr(97 + i % 7)}" if i % 2 else "|" for i in range(n_tokens))
        assert len(tokenizer.encode(text)) == n_tokens
        found.append(text)
    return found


@contextmanager
def unchanged_generators() -> Iterator[None]:
    """lm-eval seeds all of them."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def by_lm_eval(folder: Path, documents: list[str], model: Any, tokenizer: Any) -> tuple[dict[str, float], list[float]]:
    """The three metrics, and the log-likelihood of each document."""
    import lm_eval
    from lm_eval.tasks import TaskManager, get_task_dict

    from tests.evaluation.hf_gpt2 import in_lm_eval

    data = folder / "documents.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")
    task = {
        "task": "tiny_rolling",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(folder / "datasets")},
        "test_split": "test",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": name} for name in METRICS],
    }
    (folder / "tasks").mkdir()
    (folder / "tasks" / "tiny.yaml").write_text(json.dumps(task), encoding="utf-8")  # JSON is YAML
    manager = TaskManager(include_path=str(folder / "tasks"), include_defaults=False)
    with unchanged_generators():
        found = lm_eval.evaluate(
            lm=in_lm_eval(model, tokenizer, LENGTH),
            task_dict=get_task_dict(["tiny_rolling"], manager),
            bootstrap_iters=0,
            log_samples=True,
        )
    samples = sorted(found["samples"]["tiny_rolling"], key=lambda sample: sample["doc_id"])
    assert [sample["target"] for sample in samples] == documents
    results = found["results"]["tiny_rolling"]
    return {name: results[f"{name},none"] for name in METRICS}, [float(s["filtered_resps"][0]) for s in samples]


def make_cache(folder: Path, documents: list[str]) -> TokenCache:
    """The same documents as the test split of a corpus."""
    for name, texts in (("train", TRAIN), ("test", documents)):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    config = JsonLinesConfig(
        path=str(folder),
        pattern="train.jsonl",
        test_pattern="test.jsonl",
        validation_fraction=0,
        sequence_length=LENGTH,
    )
    return prepare(config, BPETokenizerConfig(vocab_size=300), cache_root=folder / "cache")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So small a model is faster on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("n_extra", [0, 12], ids=["few documents", "20 documents or more"])
def test_figures_equal_those_of_lm_eval(tmp_path: Path, n_extra: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tests.evaluation.hf_gpt2 import AsLmexp, as_hugging_face, make_gpt2
    tokenizer = BPETokenizerConfig(vocab_size=300).train(TRAIN)
    assert isinstance(tokenizer, BPETokenizer)
    documents = some_documents(tokenizer) + TRAIN[:n_extra]
    (tmp_path / "corpus").mkdir()
    cache = make_cache(tmp_path / "corpus", documents)
    hugging_face = as_hugging_face(tokenizer, LENGTH)
    split = cache.splits["test"]
    starts = split.document_starts
    for text, start, stop in zip(documents, starts[:-1], starts[1:], strict=True):
        assert split.tokens[start : stop - 1].tolist() == hugging_face.encode(text, add_special_tokens=False)
    model = make_gpt2(tokenizer.vocab_size, LENGTH)
    expected, logprobs = by_lm_eval(tmp_path, documents, model, hugging_face)

    context = EvaluationContext(model=AsLmexp(model), cache=cache, sequence_length=LENGTH)
    config = PerplexityConfig(windows="documents", stride=LENGTH, score_eos=False, batch_size=1)
    rows: dict[str, Row] = {row.name: row for row in Perplexity(config).run(context)}
    for name in METRICS:
        assert rows[f"perplexity/{name}"].estimate == pytest.approx(expected[name], rel=1e-6), name
    samples = context.samples["perplexity"]
    if n_extra:
        assert samples.values("target") == documents
        np.testing.assert_allclose(samples.numbers("logprob"), logprobs, rtol=1e-6)
    else:
        assert sum(samples.numbers("logprob")) == pytest.approx(sum(logprobs), rel=1e-6)
    assert samples.counts("n_bytes").sum() == sum(len(text.encode()) for text in documents)
