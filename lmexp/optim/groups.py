"""Which parameters go together: who gets weight decay, who gets Muon, and the learning rate of each layer.

All of it is decided from names and shapes, so that it holds for every model, also a user's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from lmexp.errors import ConfigError

Named = Iterable[tuple[str, nn.Parameter]]

EMBEDDINGS = frozenset({"embed", "embedding", "embeddings", "embd", "emb", "wte", "wpe"})
HEADS = frozenset({"head", "unembedding", "unembed", "classifier", "score"})
"""Words of names, between dots and underscores: lm_head has head, multihead_attn hasn't."""


def decay_groups(named_parameters: Named, *, weight_decay: float, lr: float, layer_decay: float = 1.0) -> list[Any]:
    """Parameter groups for any torch optimizer: matrices are decayed; biases, norms and other vectors aren't.

    Decay pulls towards zero, and a norm's weight belongs near one (nanoGPT's configure_optimizers; Goyal et al.,
    arXiv:1706.02677, section 5.3). A matrix has two dimensions or more. The decayed groups come first; within a group
    the order is the model's. Left out: a parameter that is frozen or was there under another name, and an empty group.
    The optimizer keeps the names (`param_names` of its groups).

    lr: of the model's top. layer_decay: see layer_scales; each learning rate has a group of its own, highest first.
    """
    trained = trainable(named_parameters)
    scales = layer_scales([name for name, _ in trained], layer_decay)
    groups = []
    for decayed in (True, False):
        chosen = [(name, parameter) for name, parameter in trained if (parameter.dim() >= 2) == decayed]
        for scale in sorted({scales[name] for name, _ in chosen}, reverse=True):
            members = [(name, parameter) for name, parameter in chosen if scales[name] == scale]
            groups.append({"params": members, "lr": lr * scale, "weight_decay": weight_decay if decayed else 0.0})
    return groups


def takes_muon(groups: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """decay_groups() taken apart: those of hidden matrices, which Muon is for, and those of all others.

    A hidden matrix has two dimensions, and no word of EMBEDDINGS or HEADS in its name. An embedding that is called
    otherwise (`table`) passes for hidden: rename it. A fused matrix, such as that of queries, keys and values, is
    orthogonalized as one, as torch.optim.Muon does with whatever it is given.
    """
    parts: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for group in groups:
        for part, hidden in zip(parts, (True, False), strict=True):
            members = [(name, p) for name, p in group["params"] if is_hidden_matrix(name, p) == hidden]
            if members:
                part.append({**group, "params": members})
    if not parts[0]:
        raise ConfigError(
            "optimizer=muon is for hidden matrices, and the model has none to train (two dimensions, and by its name "
            "neither an embedding nor a head); use optimizer=adamw"
        )
    return parts


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon is for it."""
    return parameter.dim() == 2 and not _words(name) & (EMBEDDINGS | HEADS)


def trainable(named_parameters: Named) -> list[tuple[str, nn.Parameter]]:
    """Each parameter that is not frozen, once, under its first name."""
    seen: dict[nn.Parameter, str] = {}
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            seen.setdefault(parameter, name)
    if not seen:
        raise ConfigError("the model has no parameter to train; expected one at least with requires_grad=True")
    return [(name, parameter) for parameter, name in seen.items()]


def layer_scales(names: Sequence[str], layer_decay: float) -> dict[str, float]:
    """Name of each parameter -> its learning rate over that of the model's top (layer-wise learning-rate decay).

    With n layers, layer i (from 0) has layer_decay ** (n - i), embeddings have layer_decay ** (n + 1), and what is
    neither, such as the final norm and the head, has 1: as in BEiT (arXiv:2106.08254) and timm. A layer is told by the
    first number in its parameters' names, blocks.0.attention...; encoder and decoder are two stacks.

    >>> layer_scales(["embedding.weight", "blocks.0.up.weight", "blocks.1.up.weight", "head.weight"], 0.5)
    {'embedding.weight': 0.125, 'blocks.0.up.weight': 0.25, 'blocks.1.up.weight': 0.5, 'head.weight': 1.0}
    """
    if layer_decay == 1:
        return dict.fromkeys(names, 1.0)
    places = {name: (found[1] or "", int(found[2])) for name in names if (found := LAYER.match(name))}
    if not places:
        raise ConfigError(
            f"optimizer.layer_decay is {layer_decay}, and the model has no layers by the names of its parameters "
            f"({', '.join(names[:3])}, ...); expected a number in them, as in blocks.0.up.weight; set "
            f"optimizer.layer_decay=1"
        )
    stacks: dict[str, list[int]] = {}
    for stack, index in sorted(set(places.values())):
        stacks.setdefault(stack, []).append(index)
    deepest = max(map(len, stacks.values()))
    scales = {}
    for name in names:
        if name in places:
            stack, index = places[name]
            below = len(stacks[stack]) - stacks[stack].index(index)
        else:
            below = deepest + 1 if _words(name) & EMBEDDINGS else 0
        scales[name] = float(layer_decay**below)
    return scales


LAYER = re.compile(r"(?:(.*?)\.)?(\d+)\.")
"""The stack's name, and the layer's number."""


def _words(name: str) -> frozenset[str]:
    return frozenset(re.split(r"[._]", name))
