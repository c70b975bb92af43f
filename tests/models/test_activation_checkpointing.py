"""Activations that are computed again change no number, and aren't kept in between."""

import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from lmexp.models.config import GPTConfig
from lmexp.models.gpt import GPT

VOCAB, SEQ = 29, 16
LLAMA = {"positions": "rotary", "norm": "rms_norm", "activation": "swiglu", "n_kv_head": 2}
SETTINGS: list[dict[str, Any]] = [{"dropout": 0.2}, {**LLAMA, "dropout": 0.2}, {"positions": "alibi", "dropout": 0.2}]
TOKENS = torch.randint(VOCAB, (3, SEQ + 1), generator=torch.Generator().manual_seed(1))
POSITIONS = torch.cat((torch.arange(6), torch.arange(SEQ - 6))).expand(3, SEQ)


def build(*, checkpointed: bool, n_layer: int = 3, **settings: Any) -> GPT:
    torch.manual_seed(0)
    config = GPTConfig(n_layer=n_layer, d_model=32, activation_checkpointing=checkpointed, **settings)
    model = config.build(vocab_size=VOCAB, sequence_length=SEQ)
    assert isinstance(model, GPT)
    return model


def loss_of(model: Any, positions: Tensor | None = None) -> Tensor:
    torch.manual_seed(7)  # the same dropout
    return F.cross_entropy(model(TOKENS[:, :-1], positions).flatten(0, 1), TOKENS[:, 1:].flatten())


def loss_and_gradients(model: Any, positions: Tensor | None = None) -> list[Tensor]:
    loss = loss_of(model, positions)
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return [loss.detach(), *(parameter.grad for parameter in model.parameters())]


@pytest.mark.parametrize("positions", [None, POSITIONS], ids=["whole", "packed"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_loss_and_gradients_are_the_same_to_the_bit(settings: dict[str, Any], positions: Tensor | None) -> None:
    plain = loss_and_gradients(build(checkpointed=False, **settings), positions)
    again = loss_and_gradients(build(checkpointed=True, **settings), positions)
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))
    undropped = loss_and_gradients(build(checkpointed=False, **{**settings, "dropout": 0.0}), positions)
    assert not torch.equal(plain[0], undropped[0])


def test_the_random_state_after_a_step_is_the_same() -> None:
    states = []
    for checkpointed in (False, True):
        loss_and_gradients(build(checkpointed=checkpointed, dropout=0.2))
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_inside_a_block_nothing_lives_from_forward_to_backward(checkpointed: bool) -> None:
    model = build(checkpointed=checkpointed)
    made: list[weakref.ref[Tensor]] = []
    for block in model.blocks:
        block.feed_forward.up.register_forward_hook(lambda _module, _inputs, out: made.append(weakref.ref(out)))
    loss = loss_of(model)
    assert [one() is not None for one in made] == [not checkpointed] * 3
    loss.backward()  # type: ignore[no-untyped-call]
    assert len(made) == (6 if checkpointed else 3)
    with torch.no_grad():
        loss_of(model)
    assert len(made) == (9 if checkpointed else 6)  # nothing to keep, so nothing is computed twice


def test_autograd_keeps_the_input_of_each_block_alone() -> None:
    def kept_bytes(n_layer: int, checkpointed: bool) -> int:
        model = build(checkpointed=checkpointed, n_layer=n_layer, **LLAMA)
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = loss_of(model)
        assert loss.requires_grad  # alive, so that no address is used twice
        return sum(kept.values())

    activation = 3 * SEQ * 32 * 4
    assert kept_bytes(6, True) - kept_bytes(2, True) == 4 * activation
    assert kept_bytes(6, False) - kept_bytes(2, False) > 4 * 10 * activation


@pytest.mark.parametrize("settings", [{}, LLAMA], ids=["gpt", "llama"])
def test_compiles_into_one_graph(settings: dict[str, Any]) -> None:
    torch.compiler.reset()  # the models of other tests count towards its limit of recompilations
    plain = loss_and_gradients(build(checkpointed=False, **settings))
    model = build(checkpointed=True, **settings)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for one, other in zip(loss_and_gradients(compiled), plain, strict=True):
        torch.testing.assert_close(one, other)
