"""Which parameters get weight decay: matrices do; biases, norms and other vectors don't.

Decay pulls towards zero, and a norm's weight belongs near one (nanoGPT's configure_optimizers; Goyal et al.,
arXiv:1706.02677, section 5.3).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from lmexp.errors import ConfigError


def decay_groups(named_parameters: Iterable[tuple[str, nn.Parameter]], *, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for any torch optimizer: those of two dimensions or more, decayed, then the others.

    The order within a group is the model's. Left out: a parameter that is frozen or was there under another
    name, and an empty group. The optimizer keeps the names (`param_names` of its groups).
    """
    seen: set[nn.Parameter] = set()
    decayed: list[tuple[str, nn.Parameter]] = []
    others: list[tuple[str, nn.Parameter]] = []
    for name, parameter in named_parameters:
        if parameter.requires_grad and parameter not in seen:
            seen.add(parameter)
            (decayed if parameter.dim() >= 2 else others).append((name, parameter))
    if not seen:
        raise ConfigError("the model has no parameter to train; expected one at least with requires_grad=True")
    groups = ({"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]
