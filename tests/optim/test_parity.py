"""Twenty steps of each optimizer on a small GPT are those of its reference, with the groups of nanoGPT."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from lion_pytorch import Lion
from torch import nn
from torch.optim import SGD, Adafactor, Adam, AdamW

from lmexp.optim.config import AdafactorConfig, AdamConfig, AdamWConfig, LionConfig, OptimizerConfig, SGDConfig
from tests.optim.test_muon import gradients, small_gpt

LR, DECAY = 0.01, 0.2
PAIRS: dict[str, tuple[OptimizerConfig, Any]] = {
    "adam": (
        AdamConfig(lr=LR, weight_decay=DECAY, beta1=0.8, fused=False),
        lambda groups: Adam(groups, LR, (0.8, 0.999)),
    ),
    "adamw": (AdamWConfig(lr=LR, weight_decay=DECAY, fused=False), lambda groups: AdamW(groups, LR, (0.9, 0.95))),
    "sgd": (
        SGDConfig(lr=LR, weight_decay=DECAY, momentum=0.8, nesterov=True),
        lambda groups: SGD(groups, LR, 0.8, nesterov=True),
    ),
    "lion": (LionConfig(lr=LR, weight_decay=DECAY, beta1=0.8), lambda groups: Lion(groups, LR, (0.8, 0.99))),
    "adafactor": (
        AdafactorConfig(lr=LR, weight_decay=DECAY, beta2_decay=-0.5, d=1.5),
        lambda groups: Adafactor(groups, LR, -0.5, d=1.5),
    ),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_twenty_steps_are_those_of_the_reference_to_the_bit(kind: str) -> None:
    config, build = PAIRS[kind]
    assert config.kind == kind
    one, two = small_gpt(), small_gpt()
    ours = config.build(one.named_parameters())
    matrices = [p for p in two.parameters() if p.dim() >= 2]
    vectors = [p for p in two.parameters() if p.dim() < 2]
    theirs = build([{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}])
    start = [parameter.detach().clone() for parameter in two.parameters()]
    for step in range(20):
        for model, optimizer in ((one, ours), (two, theirs)):
            gradients(model, step)
            optimizer.step()
    for before, a, b in zip(start, one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(before, b)


def test_twenty_steps_of_lion_are_its_papers() -> None:
    """Program 1 of arXiv:2302.06675, in numpy."""
    draw = np.random.default_rng(0)
    weight, momentum = draw.normal(size=(5, 3)), np.zeros((5, 3))
    parameter = nn.Parameter(torch.from_numpy(weight.copy()))
    optimizer = LionConfig(lr=LR, weight_decay=DECAY, beta1=0.9, beta2=0.99).build([("weight", parameter)])
    for _ in range(20):
        gradient = draw.normal(size=(5, 3))
        parameter.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        update = np.sign(0.9 * momentum + 0.1 * gradient)
        momentum = 0.99 * momentum + 0.01 * gradient
        weight = weight - LR * (update + DECAY * weight)
    np.testing.assert_allclose(parameter.detach().numpy(), weight, rtol=1e-12)


def test_twenty_steps_of_adafactor_are_its_papers() -> None:
    """Algorithm 4 of arXiv:1804.04235 in numpy, with torch's relative step and decoupled weight decay."""
    draw = np.random.default_rng(0)
    weight, rows, columns = draw.normal(size=(5, 3)), np.zeros(5), np.zeros(3)
    parameter = nn.Parameter(torch.from_numpy(weight.copy()))
    optimizer = AdafactorConfig(lr=LR, weight_decay=DECAY).build([("weight", parameter)])
    for step in range(1, 21):
        gradient = draw.normal(size=(5, 3))
        parameter.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        beta2 = 1 - step**-0.8
        rho = min(LR, 1 / math.sqrt(step))
        alpha = max(1e-3, np.sqrt(np.mean(weight**2))) * rho
        rows = beta2 * rows + (1 - beta2) * np.mean(gradient**2, axis=1)
        columns = beta2 * columns + (1 - beta2) * np.mean(gradient**2, axis=0)
        update = gradient / np.sqrt(np.outer(rows, columns) / rows.mean())
        update = update / max(1.0, np.sqrt(np.mean(update**2)))
        weight = weight * (1 - LR * DECAY) - alpha * update
    np.testing.assert_allclose(parameter.detach().numpy(), weight, rtol=1e-10)
