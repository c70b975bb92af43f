import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lmexp.errors import DataError
from lmexp.metrics.functional import IGNORE
from lmexp.metrics.language_modeling import LanguageModelingMetric

N, SEQ, VOCAB = 40, 6, 13


def measurements() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(N, SEQ, VOCAB, dtype=torch.float64, generator=generator)
    targets = torch.randint(VOCAB, (N, SEQ), generator=generator)
    targets[torch.rand(N, SEQ, generator=generator) < 0.2] = IGNORE
    n_bytes = torch.randint(0, 5, (N, SEQ), generator=generator)
    return logits, targets, n_bytes


def measured(batch_size: int, *, with_bytes: bool = True) -> LanguageModelingMetric:
    metric = LanguageModelingMetric()
    for logits, targets, n_bytes in zip(*(torch.split(part, batch_size) for part in measurements()), strict=True):
        metric.update(logits, targets, n_bytes if with_bytes else None)
    return metric


def test_equals_a_few_lines_of_float64() -> None:
    logits, targets, n_bytes = measurements()
    kept = targets != IGNORE
    logprobs = logits[kept].log_softmax(dim=-1)
    nats = -logprobs[torch.arange(len(logprobs)), targets[kept]].sum()
    figures = measured(7).compute()
    assert figures.keys() == {"loss", "perplexity", "bits_per_byte", "accuracy"}
    assert figures["loss"].item() == pytest.approx(nats.item() / kept.sum().item(), rel=1e-12)
    assert figures["perplexity"].item() == pytest.approx(math.exp(nats.item() / kept.sum().item()), rel=1e-12)
    assert figures["bits_per_byte"].item() == pytest.approx(
        nats.item() / math.log(2) / n_bytes[kept].sum().item(), rel=1e-12
    )
    assert figures["accuracy"].item() == (logprobs.argmax(dim=-1) == targets[kept]).double().mean().item()
    assert all(value.dtype == torch.float64 and value.dim() == 0 for value in figures.values())


def test_the_batch_size_changes_nothing() -> None:
    whole = measured(N)
    for batch_size in (1, 7, 32):
        metric = measured(batch_size)
        for count in ("n_tokens", "n_bytes", "n_correct"):
            assert torch.equal(getattr(metric, count), getattr(whole, count))
            assert getattr(metric, count).dtype == torch.int64
        assert metric.nats.dtype == torch.float64
        torch.testing.assert_close(metric.nats, whole.nats, rtol=1e-13, atol=0)


def test_padding_changes_nothing() -> None:
    logits, targets, n_bytes = measurements()
    metric = LanguageModelingMetric()
    padding = torch.full((N, 3), IGNORE)
    metric.update(
        torch.cat((logits, torch.full((N, 3, VOCAB), 9.0)), dim=1),
        torch.cat((targets, padding), dim=1),
        torch.cat((n_bytes, torch.ones_like(padding)), dim=1),
    )
    torch.testing.assert_close(metric.compute(), measured(N).compute())


def test_bits_per_byte_is_absent_without_bytes() -> None:
    with_bytes, without = measured(N).compute(), measured(N, with_bytes=False).compute()
    del with_bytes["bits_per_byte"]
    assert with_bytes == without


def test_bytes_now_and_then_are_an_error() -> None:
    logits, targets, _ = measurements()
    metric = measured(N)
    with pytest.raises(DataError, match="every time or never"):
        metric.update(logits, targets)
    metric.reset()
    metric.update(logits, targets)
    assert "bits_per_byte" not in metric.compute()


def test_a_wrong_target_is_an_error() -> None:
    with pytest.raises(DataError, match="targets holds 13"):
        LanguageModelingMetric().update(torch.zeros(1, VOCAB), torch.tensor([VOCAB]))


def test_nothing_measured_is_an_error() -> None:
    metric = LanguageModelingMetric()
    metric.update(torch.zeros(2, VOCAB), torch.tensor([IGNORE, IGNORE]))
    with pytest.raises(DataError, match="no token was measured"):
        metric.compute()


def test_low_precision_logits_are_summed_in_float64() -> None:
    metric = LanguageModelingMetric()
    for _ in range(3):
        metric.update(torch.zeros(4, VOCAB, dtype=torch.bfloat16), torch.arange(4))
    assert metric.compute()["perplexity"].item() == pytest.approx(VOCAB, rel=1e-6)


WORKER = """
import json, sys, torch
from lmexp.metrics.language_modeling import LanguageModelingMetric
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
logits, targets, n_bytes = torch.load(f"{folder}/data.pt", weights_only=True)
metric = LanguageModelingMetric()
for batch in range(rank, 5, 2):  # 3 batches for rank 0, 2 for rank 1
    rows = slice(batch * 8, batch * 8 + 8)
    metric.update(logits[rows], targets[rows], n_bytes[rows])
figures = {name: value.item() for name, value in metric.compute().items()}
open(f"{folder}/{rank}.json", "w").write(json.dumps(figures))
torch.distributed.destroy_process_group()
"""


def test_two_processes_get_what_one_gets(tmp_path: Path) -> None:
    torch.save(measurements(), tmp_path / "data.pt")
    command = [sys.executable, "-c", WORKER]
    processes = [subprocess.Popen([*command, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    for name, value in measured(N).compute().items():
        assert first[name] == pytest.approx(value.item(), rel=1e-13)
    assert first["accuracy"] == measured(N).compute()["accuracy"].item()
