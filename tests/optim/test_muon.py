"""Muon and AdamW as one optimizer: what torch's two compute side by side, and what numpy does."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lmexp.models.config import GPTConfig
from lmexp.optim import muon
from lmexp.optim.config import MuonConfig
from lmexp.optim.muon import MuonWithAdamW, newton_schulz

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of https://kellerjordan.github.io/posts/muon/."""
SHAPES = [(24, 8), (8, 24), (12, 12)]


def small_gpt() -> nn.Module:
    torch.manual_seed(0)
    return GPTConfig(n_layer=2, n_head=2, d_model=16, bias=True).build(vocab_size=11, sequence_length=8)


def gradients(model: nn.Module, step: int) -> None:
    """The same for equal models."""
    tokens = torch.randint(11, (4, 8), generator=torch.Generator().manual_seed(step))
    for parameter in model.parameters():
        parameter.grad = None
    logits = model(tokens)
    nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten()).backward()


def numpy_newton_schulz(matrix: Any, steps: int) -> Any:
    """zeropower_via_newtonschulz5 of the author's muon.py, in float64."""
    a, b, c = COEFFICIENTS
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (np.linalg.norm(x) + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


@pytest.mark.parametrize("shape", SHAPES)
def test_newton_schulz_is_numpys_and_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(0).normal(size=shape)
    mine = newton_schulz(torch.from_numpy(matrix).float(), COEFFICIENTS, steps=5, eps=1e-7)
    np.testing.assert_allclose(mine.numpy(), numpy_newton_schulz(matrix, 5), atol=2e-5)
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    values = np.linalg.svd(mine.numpy(), compute_uv=False)
    assert 0.5 < values.min() <= values.max() < 1.25
    inside = left.T @ mine.numpy() @ right.T  # the singular vectors are those of the matrix
    np.testing.assert_allclose(inside, np.diag(np.diag(inside)), atol=1e-4)


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_twenty_steps_are_those_of_torchs_two_side_by_side(
    monkeypatch: pytest.MonkeyPatch, adjust: str, nesterov: bool
) -> None:
    """To the bit where ours iterates in bfloat16 as torch's does."""
    own = newton_schulz
    monkeypatch.setattr(muon, "newton_schulz", lambda matrix, *rest, **more: own(matrix.bfloat16(), *rest, **more))
    config = MuonConfig(
        lr=0.01, weight_decay=0.2, momentum=0.9, nesterov=nesterov, adjust_lr_fn=adjust, adamw_lr_ratio=0.5
    )
    one, two = small_gpt(), small_gpt()
    ours = config.build(one.named_parameters())
    named = dict(two.named_parameters())
    hidden = [p for name, p in named.items() if name.startswith("blocks") and p.dim() == 2]
    embeddings = [p for name, p in named.items() if "embedding" in name]
    vectors = [p for p in named.values() if p.dim() == 1]
    theirs = [
        torch.optim.Muon(hidden, lr=0.01, weight_decay=0.2, momentum=0.9, nesterov=nesterov, adjust_lr_fn=adjust),
        torch.optim.AdamW(embeddings, lr=0.005, weight_decay=0.2, betas=(0.9, 0.95), fused=True),
        torch.optim.AdamW(vectors, lr=0.005, weight_decay=0.0, betas=(0.9, 0.95), fused=True),
    ]
    assert len(hidden) + len(embeddings) + len(vectors) == len(named)
    start = torch.cat([p.detach().flatten() for p in two.parameters()])
    for step in range(20):
        gradients(one, step)
        gradients(two, step)
        for optimizer in (ours, *theirs):
            optimizer.step()
    assert all(torch.equal(p, named[name]) for name, p in one.named_parameters())
    assert (torch.cat([p.detach().flatten() for p in two.parameters()]) - start).abs().max() > 0.01


def test_twenty_steps_of_a_matrix_are_numpys() -> None:
    """The published rule in float64, but for the iterations, which are in float32 on a CPU."""
    draw = np.random.default_rng(1)
    weight, momentum = draw.normal(size=(6, 4)), np.zeros((6, 4))
    parameter = nn.Parameter(torch.from_numpy(weight.copy()))
    optimizer = MuonConfig(lr=0.02, weight_decay=0.5, adjust_lr_fn="original").build([("up.weight", parameter)])
    for _ in range(20):
        gradient = draw.normal(size=(6, 4))
        parameter.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        momentum = 0.95 * momentum + 0.05 * gradient
        step = numpy_newton_schulz(0.05 * gradient + 0.95 * momentum, 5)
        weight = weight * (1 - 0.02 * 0.5) - 0.02 * np.sqrt(6 / 4) * step
    np.testing.assert_allclose(parameter.detach().numpy(), weight, atol=1e-6)


def test_on_a_cpu_it_stays_close_to_torchs_bfloat16() -> None:
    one, two = (nn.Parameter(torch.full((24, 8), 0.5)) for _ in range(2))
    mine, theirs = muon.Muon([one], lr=0.02), torch.optim.Muon([two], lr=0.02)
    for step in range(20):
        one.grad = torch.randn(24, 8, generator=torch.Generator().manual_seed(step))
        two.grad = one.grad.clone()
        mine.step()
        theirs.step()
    assert not torch.equal(one, two)
    torch.testing.assert_close(one, two, atol=0.02 * 0.1, rtol=0)  # a tenth of one step after 20


def test_a_step_has_the_size_of_one_of_adamw() -> None:
    """match_rms_adamw: root mean square of 0.2, as AdamW's typically has (arXiv:2502.16982, section 2.2)."""
    for shape in SHAPES:
        parameter = nn.Parameter(torch.zeros(shape))
        parameter.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        MuonConfig(lr=1.0).build([("up.weight", parameter)]).step()
        assert parameter.detach().square().mean().sqrt().item() == pytest.approx(0.2, rel=0.25)


def test_state_goes_round_and_groups_stay_shared() -> None:
    config = MuonConfig(lr=0.01, layer_decay=0.5)
    one, two = small_gpt(), small_gpt()
    first, second = (config.build(model.named_parameters()) for model in (one, two))
    for step in range(3):
        gradients(one, step)
        first.step()
    two.load_state_dict(one.state_dict())
    saved = copy.deepcopy(first.state_dict())  # load_state_dict keeps the tensors it is given
    assert len(saved["state"]) == len(list(one.parameters()))
    assert {frozenset(state) for state in saved["state"].values()} == {
        frozenset({"momentum_buffer"}),
        frozenset({"step", "exp_avg", "exp_avg_sq"}),
    }
    second.load_state_dict(saved)
    for step in range(3, 6):
        for model, optimizer in ((one, first), (two, second)):
            for group in optimizer.param_groups:
                group["lr"] = 0.003  # what tasks/base.py does each step: both parts must see it
            gradients(model, step)
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_rate_of_zero_stops_every_parameter() -> None:
    model = small_gpt()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = MuonConfig().build(model.named_parameters())
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    gradients(model, 0)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_closure_is_called_once_and_with_gradients() -> None:
    model, calls = small_gpt(), []
    optimizer = MuonConfig().build(model.named_parameters())

    def closure() -> float:
        calls.append(torch.is_grad_enabled())
        gradients(model, 0)
        return 1.5

    assert optimizer.step(closure) == 1.5
    assert calls == [True]


def test_a_gradient_scaler_unscales_once_and_skips_overflow() -> None:
    """16-mixed: the scaler sees one plain optimizer, be the AdamW inside fused or not."""
    one, two = small_gpt(), small_gpt()
    plain, scaled = (MuonConfig().build(model.named_parameters()) for model in (one, two))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(3):
        gradients(one, step)
        plain.step()
        gradients(two, step)
        for parameter in two.parameters():
            assert parameter.grad is not None
            parameter.grad *= scaler.scale(torch.ones(()))
        scaler.unscale_(scaled)
        scaler.step(scaled)
        scaler.update()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    gradients(two, 9)
    next(two.parameters()).grad[0, 0] = float("inf")  # type: ignore[index]
    scaler.step(scaled)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_no_parameter_is_left_unstepped_by_adding_it_later() -> None:
    optimizer = MuonConfig().build(small_gpt().named_parameters())
    assert isinstance(optimizer, MuonWithAdamW)
    with pytest.raises(NotImplementedError, match="takes no more parameters"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2, 2))]})


def test_a_model_of_hidden_matrices_alone_needs_no_adamw() -> None:
    layer = nn.Linear(3, 2, bias=False)
    optimizer = MuonConfig().build(layer.named_parameters())
    before = layer.weight.detach().clone()
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert not torch.equal(layer.weight, before)
    optimizer.load_state_dict(optimizer.state_dict())
