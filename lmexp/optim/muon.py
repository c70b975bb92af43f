"""Muon for the hidden matrices and AdamW for the rest, as one optimizer.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) makes each step of a matrix nearly orthogonal, by
five Newton-Schulz iterations on its momentum. It is for hidden matrices; embeddings, the output matrix, norms and
biases take AdamW. Both are torch's, but for the precision of Muon's iterations. That they are one object, one list of
groups and one state, lets everything around them see a plain torch optimizer: Lightning's automatic optimization,
clipping, learning rates by step, gradient scalers, checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer


class Muon(torch.optim.Muon):
    """torch.optim.Muon, which iterates in bfloat16 on every device; this one does so on accelerators alone.

    A CPU without instructions for bfloat16 takes 6 to 12 times as long for such a product as in float32, ten times as
    long as for all the rest of a small model's step; there it iterates in float32.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step; the closure, if any, is called once, before."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_one(parameter, parameter.grad, group)
        return loss

    def _step_one(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
        dtype = torch.float32 if update.device.type == "cpu" else torch.bfloat16
        update = newton_schulz(update.to(dtype), group["ns_coefficients"], steps=group["ns_steps"], eps=group["eps"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update, alpha=-group["lr"] * lr_ratio(group["adjust_lr_fn"], parameter.shape))


def newton_schulz(matrix: Tensor, coefficients: tuple[float, float, float], *, steps: int, eps: float) -> Tensor:
    """U S V^T with all singular values S brought near 1: about 0.7 to 1.2 after 5 steps of the usual coefficients.

    matrix: (rows, columns), of which it keeps the dtype. A step is X <- a X + (b XX^T + c (XX^T)^2) X, from the matrix
    over its Frobenius norm.
    """
    a, b, c = coefficients
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T  # (n, n), n the smaller of rows and columns
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.T


def lr_ratio(adjust_lr_fn: str | None, shape: torch.Size) -> float:
    """What multiplies the learning rate of a matrix, so that matrices of all shapes move alike.

    original (torch's default): sqrt(max(1, rows / columns)). match_rms_adamw: 0.2 sqrt(max(rows, columns)), which gives
    a step the root mean square of one of AdamW (arXiv:2502.16982).
    """
    rows, columns = shape
    if adjust_lr_fn == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1, rows / columns))


class MuonWithAdamW(Optimizer):
    """Steps a Muon and a torch.optim.AdamW, whose groups and state it shares.

    muon, adamw: both built already, adamw None where every parameter has Muon. `param_groups` holds those of muon, then
    those of adamw; `state_dict()` covers both, and load_state_dict() takes what another of the same model gave.
    """

    def __init__(self, muon: Muon, adamw: AdamW | None) -> None:
        self._parts = [muon] if adamw is None else [muon, adamw]
        groups = [group for part in self._parts for group in part.param_groups]
        super().__init__(groups, {"lr": muon.defaults["lr"], "weight_decay": muon.defaults["weight_decay"]})
        self._share()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """What load_state_dict calls with new groups and a new state."""
        super().__setstate__(state)
        self._share()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Takes those of its parts; another one would be stepped by neither."""
        if not any(param_group is group for part in self._parts for group in part.param_groups):
            raise NotImplementedError("MuonWithAdamW takes no more parameters; build another one with all of them")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step of both; the closure, if any, is called once, before."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss

    def _share(self) -> None:
        """Let the two parts work on our groups and our state."""
        start = 0
        for part in self._parts:
            stop = start + len(part.param_groups)
            part.param_groups, part.state = self.param_groups[start:stop], self.state
            start = stop
