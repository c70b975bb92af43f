"""Sharding a model over processes, FSDP2's way (arXiv:2304.11277, torch.distributed.fsdp.fully_shard), and undoing it.

Every process keeps an equal part of each parameter, of its gradient and of what the optimizer knows about it: slices of
the first dimension, as DTensors. A block's parameters are put together while the block is computed, those outside of
all blocks while the model is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from lmexp.errors import ConfigError


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Shard a model in place: each block by itself, then what is left.

    ConfigError where FSDP2 can't shard one of its parameters.
    """
    try:
        for module in (*blocks(model), model):
            fully_shard(module, mesh=mesh)
    except (NotImplementedError, ValueError) as error:  # a scalar, or strides of its own
        raise ConfigError(
            f"trainer.strategy=fsdp can't shard {type(model).__name__}: {error}; change that parameter, or use "
            f"trainer.strategy=ddp"
        ) from None


def blocks(model: nn.Module) -> list[nn.Module]:
    """The modules in the outermost nn.ModuleLists of a model, each of which is computed by calling it.

    Left out, so that they are sharded together with what is around them: those that share a parameter with a module
    elsewhere (tied weights, a block that is used several times), and those without parameters.
    """
    everywhere = _uses(model)

    def within(parent: nn.Module) -> Iterator[nn.Module]:
        for child in parent.children():
            uses = _uses(child)
            alone = bool(uses) and all(everywhere[parameter] == n for parameter, n in uses.items())
            if isinstance(parent, nn.ModuleList) and alone and type(child).forward is not nn.Module.forward:
                yield child
            else:
                yield from within(child)

    return list(within(model))


def whole(tensor: Tensor) -> Tensor:
    """A copy of a tensor, put together where it is sharded; all processes must call this."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.clone()


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor, which is the same on all, sharded as another one is."""
    if not isinstance(like, DTensor):
        return tensor.to(like.device)
    here = tensor.to(like.to_local().device)
    return distribute_tensor(here, like.device_mesh, like.placements, src_data_rank=None)


def put_together(model: nn.Module, sharded: nn.Module) -> None:
    """Give a model the weights of its sharded twin, one after the other; all processes must call this.

    Not those of its state_dict() alone, which leaves out what adapters stand beside.
    """
    own = _tensors(model)
    with torch.no_grad():
        for name, tensor in _tensors(sharded).items():
            own[name].copy_(whole(tensor))


def gathered(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Copies on the CPU, put together one after the other; tied ones stay tied. All processes must call this.

    keep: false leaves this process without them: they are for another one.
    """
    copies: dict[int, Tensor] = {}
    found = {}
    for name, tensor in tensors.items():
        if id(tensor) not in copies:
            copies[id(tensor)] = _on_cpu(whole(tensor), keep)
        if keep:
            found[name] = copies[id(tensor)]
    return found


def gathered_state(value: Any, *, keep: bool) -> Any:
    """An optimizer's state_dict() with gathered() tensors; for one process alone it is the same."""
    if isinstance(value, Tensor):
        return _on_cpu(whole(value), keep)
    if isinstance(value, dict):
        return {key: gathered_state(one, keep=keep) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(gathered_state(one, keep=keep) for one in value)
    return value


def sharded_state(state: Mapping[str, Any], parameters: Mapping[int, Tensor]) -> dict[str, Any]:
    """A whole optimizer state_dict() with this process's part of whatever has the shape of its parameter.

    parameters: by the numbers that the state has for them.
    """

    def parts(number: int, one: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        parameter = parameters[number]
        for name, value in one.items():
            same = isinstance(value, Tensor) and value.shape == parameter.shape
            yield name, part_of(value, parameter) if same else value

    return {**state, "state": {number: dict(parts(number, one)) for number, one in state["state"].items()}}


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}


def _uses(module: nn.Module) -> Counter[nn.Parameter]:
    """How often each parameter occurs in a module."""
    return Counter(parameter for _, parameter in module.named_parameters(remove_duplicate=False))


def _on_cpu(tensor: Tensor, keep: bool) -> Tensor:
    return tensor.cpu() if keep else torch.empty(0)
