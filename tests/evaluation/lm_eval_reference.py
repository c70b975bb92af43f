"""A tiny random GPT-2 scored by lm-eval and by lmexp, as a program: python -m tests.evaluation.lm_eval_reference FOLDER

Prints {"lm_eval": {task: {"figures": ..., "samples": [...]}}, "lmexp": ...}. transformers and lm-eval take seconds to
import and warn about much, so they stay out of the process of the tests.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import torch

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_EVALUATE_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    TQDM_DISABLE="1",
)

LENGTH = 48
"""Tokens that the model reads; some contexts are longer."""

WORDS = ("water", "fire", "stone", "rain", "été", "漢字", "naïve", "Straße", "cloud", "mountain", "🙂", "light", "dark")


def items(n: int) -> list[dict[str, Any]]:
    """Questions of all lengths with two to five choices, which are of all lengths too and not all ASCII."""
    generator = torch.Generator().manual_seed(1)

    def some(low: int, high: int) -> str:
        count = int(torch.randint(low, high, (1,), generator=generator))
        return " ".join(WORDS[int(i)] for i in torch.randint(0, len(WORDS), (count,), generator=generator))

    found = []
    for i in range(n):
        choices = list(dict.fromkeys(some(1, 4) for _ in range(2 + i % 4)))
        long = 60 if i % 7 == 0 else 12  # each seventh doesn't fit
        found.append({"q": f"{some(1, long)} {i}?  "[: None if i % 2 else -2], "choices": choices, "label": i % 2})
    return found


YAML = """task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: {output_type}
doc_to_text: "{text}"
doc_to_target: {target}
{more}
metric_list:
{metrics}
metadata: {{version: 1.0}}
"""

CHOICE_METRICS = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")


def write_tasks(folder: Path) -> None:
    """items.jsonl, and lm-eval's YAML for each way of asking."""
    rows = items(24)
    same = [row | {"choices": [*row["choices"], "x y z", "ü", "four"][:3]} for row in rows]  # brier_score needs this
    for name, some in (("items", rows), ("same", same)):
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in some), encoding="utf-8")
    lines = {name: f"  - {{metric: {name}, aggregation: mean, higher_is_better: true}}" for name in CHOICE_METRICS}
    choices = "\n".join(lines.values())
    brier = "  - {metric: brier_score, aggregation: brier_score, higher_is_better: false}"
    multiple = {"output_type": "multiple_choice", "target": "label", "more": 'doc_to_choice: "{{choices}}"'}
    tasks = {
        "asked": {**multiple, "text": "Question: {{q}}", "metrics": choices},
        "bare": {**multiple, "text": "", "metrics": choices},
        "three": {**multiple, "text": "{{q}}", "metrics": brier, "file": folder / "same.jsonl"},
        "pairs": {
            **multiple,
            "text": "",
            "target": "0",
            "more": 'doc_to_choice: "{{[choices[0], choices[1]]}}"\ntarget_delimiter: ""',
            "metrics": lines["acc"],
        },
        "last": {
            "output_type": "loglikelihood",
            "text": "{{(q + choices[0]).split(' ')[:-1]|join(' ')}}",
            "target": "\"{{' ' + (q + choices[0]).split(' ')[-1]}}\"",
            "more": "",
            "metrics": f"{lines['acc']}\n  - {{metric: perplexity, aggregation: perplexity, higher_is_better: false}}",
        },
    }
    for name, settings in tasks.items():
        text = YAML.format(**{"task": name, "file": folder / "items.jsonl", **settings})
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def make_model(folder: Path) -> tuple[Any, Any]:
    """A GPT-2 with random weights, and a BPE tokenizer trained on the items."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from tests.evaluation.hf_gpt2 import make_gpt2

    bpe = Tokenizer(models.BPE(unk_token=None))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=350,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((folder / "items.jsonl").read_text(encoding="utf-8").splitlines()[:20], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    return make_gpt2(len(tokenizer), LENGTH), tokenizer


class AdaptedTokenizer:
    """A tokenizer of transformers, as far as scoring needs one."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.eos_id = tokenizer.eos_token_id

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [self.tokenizer.encode(text, add_special_tokens=False) for text in texts]


def by_lm_eval(folder: Path, model: Any, tokenizer: Any) -> dict[str, Any]:
    """Figures and log-probabilities of each sample."""
    from lm_eval import evaluate
    from lm_eval.tasks import TaskManager

    from tests.evaluation.hf_gpt2 import in_lm_eval

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    lm = in_lm_eval(model, tokenizer, LENGTH, softmax_dtype="float64")
    names = ["asked", "bare", "three", "pairs", "last"]
    state = torch.get_rng_state()
    results: Any = evaluate(lm, manager.load(names), bootstrap_iters=0, log_samples=True)
    torch.set_rng_state(state)
    return {
        name: {
            "figures": {key.removesuffix(",none"): value for key, value in results["results"][name].items()},
            "samples": [
                [float(response[0][0]) for response in sample["resps"]]
                for sample in sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
            ],
            "first": [bool(sample["resps"][0][0][1]) for sample in results["samples"][name]],
        }
        for name in names
    }


def by_lmexp(folder: Path, model: Any, tokenizer: Any, batch_size: int) -> dict[str, Any]:
    """The same of lmexp, in batches."""
    from lmexp.evaluation.benchmarks.config import LastWordConfig, MinimalPairsConfig, MultipleChoiceConfig
    from lmexp.evaluation.context import EvaluationContext
    from lmexp.evaluation.runner import run_evaluations
    from tests.evaluation.hf_gpt2 import AsLmexp

    shared: Any = {"path": str(folder / "items.jsonl"), "begin": "nothing", "batch_size": batch_size}
    configs: Any = {
        "asked": MultipleChoiceConfig(prompt="Question: {q}", pmi=True, **shared),
        "bare": MultipleChoiceConfig(prompt="", pmi=True, **shared),
        "three": MultipleChoiceConfig(prompt="{q}", **{**shared, "path": str(folder / "same.jsonl")}),
        "pairs": MinimalPairsConfig(first="{choices.0}", second="{choices.1}", **shared),
        "last": LastWordConfig(text="{q}{choices.0}", **shared),
    }
    context = EvaluationContext(
        model=AsLmexp(model), cache=None, sequence_length=LENGTH, tokenizer=AdaptedTokenizer(tokenizer)
    )
    rows = run_evaluations(configs, context)
    found: dict[str, Any] = {}
    for name in configs:
        samples = context.samples[name]
        logprobs = samples.values("logprobs" if name != "last" else "logprob")
        unconditional = samples.values("unconditional") if "unconditional" in samples.table.column_names else None
        found[name] = {
            "figures": {row.name.partition("/")[2]: row.estimate for row in rows if row.name.startswith(f"{name}/")},
            "samples": [
                [*(one if isinstance(one, list) else [one]), *(unconditional[i] if unconditional else [])]
                for i, one in enumerate(logprobs)
            ],
            "first": samples.values("score"),
            "cut": samples.header.key.settings["n_cut"] > 0,
        }
    return found


def main() -> None:
    folder = Path(sys.argv[1])
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)  # two would wait for each other, on so small a model
    write_tasks(folder)
    model, tokenizer = make_model(folder)
    found = {"lm_eval": by_lm_eval(folder, model, tokenizer)}
    found |= {f"lmexp {size}": by_lmexp(folder, model, tokenizer, size) for size in (1, 8, 32)}
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
