import itertools
import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from lmexp.models.base import as_language_model
from lmexp.models.config import GPTConfig
from lmexp.models.gpt import GPT

VOCAB, SEQ = 29, 16
VARIATIONS = [
    {"positions": positions, "norm": norm, "activation": activation}
    for positions, norm, activation in itertools.product(
        ("learned", "rotary"), ("layer_norm", "rms_norm"), ("gelu", "swiglu")
    )
]
ALIBI = {"positions": "alibi", "n_kv_head": 2, "activation": "gelu_tanh"}
GPT2 = {"bias": True}
LLAMA = {
    "positions": "rotary",
    "norm": "rms_norm",
    "activation": "swiglu",
    "n_kv_head": 2,
    "qk_norm": True,
    "tie_embeddings": False,
}


def build(**settings: object) -> GPT:
    torch.manual_seed(0)
    config = GPTConfig(**{"n_layer": 2, "d_model": 32, **settings})  # type: ignore[arg-type]
    model = config.build(vocab_size=VOCAB, sequence_length=SEQ)
    assert isinstance(model, GPT)
    return model


def some_tokens(batch: int = 2, seq: int = SEQ) -> Tensor:
    return torch.randint(VOCAB, (batch, seq), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("settings", [*VARIATIONS, GPT2, LLAMA, ALIBI], ids=str)
def test_future_tokens_do_not_change_past_logits(settings: dict[str, object]) -> None:
    model, tokens = build(**settings).eval(), some_tokens()
    changed = tokens.clone()
    changed[:, 9:] = (tokens[:, 9:] + 1) % VOCAB
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(after[:, :9], before[:, :9], rtol=0, atol=1e-6)
    assert (after[:, 9:] - before[:, 9:]).abs().amax(dim=(0, 2)).min() > 1e-4


@pytest.mark.parametrize("settings", [{}, GPT2, LLAMA, ALIBI], ids=str)
def test_a_prefix_has_the_logits_it_has_in_the_whole(settings: dict[str, object]) -> None:
    model, tokens = build(**settings).eval(), some_tokens()
    torch.testing.assert_close(model(tokens[:, :5]), model(tokens)[:, :5])


@pytest.mark.parametrize("settings", [{}, LLAMA, ALIBI], ids=["gpt", "llama", "alibi"])
def test_one_batch_overfits(settings: dict[str, object]) -> None:
    model, tokens = build(**settings), some_tokens(batch=4, seq=SEQ + 1)
    tokens[:, 0] = torch.arange(4)  # what follows a shared first token could not be known
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(80):
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss.item() < 0.05


def test_the_initial_loss_is_that_of_a_uniform_guess() -> None:
    tokens = some_tokens(batch=32)
    loss = F.cross_entropy(build()(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(VOCAB), abs=0.05)


def test_gpt2_equals_torchs_own_transformer_layers() -> None:
    model, tokens = build(**GPT2).double().eval(), some_tokens()
    for parameter in model.parameters():  # so that biases and norms count
        nn.init.normal_(parameter, std=0.3)
    x = model.token_embedding.weight[tokens] + model.get_parameter("position_embedding.weight")
    mask = nn.Transformer.generate_square_subsequent_mask(SEQ, dtype=torch.float64)
    for block in model.blocks:
        layer = nn.TransformerEncoderLayer(
            32, 4, 128, dropout=0.0, activation=F.gelu, batch_first=True, norm_first=True, dtype=torch.float64
        )
        ours = block.state_dict()
        layer.load_state_dict({theirs: ours[f"{our}.{kind}"] for our, theirs, kind in _torch_names(layer.state_dict())})
        x = layer(x, src_mask=mask, is_causal=True)
    x = F.layer_norm(x, (32,), *model.final_norm.parameters())  # type: ignore[arg-type]
    torch.testing.assert_close(model(tokens), x @ model.token_embedding.weight.T)


def _torch_names(theirs: dict[str, Tensor]) -> list[tuple[str, str, str]]:
    modules = {
        "self_attn.in_proj": "attention.qkv",
        "self_attn.out_proj": "attention.output",
        "linear1": "feed_forward.up",
        "linear2": "feed_forward.down",
        "norm1": "attention_norm",
        "norm2": "feed_forward_norm",
    }
    names = []
    for name in theirs:
        separator = "_" if "in_proj" in name else "."
        module, _, kind = name.rpartition(separator)
        names.append((modules[module], name, kind))
    return names


def test_tied_embeddings_are_stored_once() -> None:
    tied, free = build(), build(tie_embeddings=False)
    assert tied.head_weight is tied.token_embedding.weight
    storages = [value.data_ptr() for value in tied.state_dict().values()]
    assert len(set(storages)) == len(storages)
    assert set(free.state_dict()) - set(tied.state_dict()) == {"head.weight"}
    assert tied.state_dict().keys() == dict(tied.named_parameters()).keys()  # no buffers in checkpoints


def test_hidden_and_head_make_the_logits() -> None:
    for model in (build(), build(**LLAMA)):
        tokens = some_tokens()
        assert torch.equal(F.linear(model.hidden(tokens), model.head_weight), model(tokens))


@pytest.mark.parametrize("settings", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_initial_weights_are_gpt2s(settings: dict[str, object]) -> None:
    torch.manual_seed(0)
    config = GPTConfig(**{"n_layer": 8, "n_head": 4, "d_model": 128, **settings})  # type: ignore[arg-type]
    model = config.build(vocab_size=500, sequence_length=64)
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            expected = 1.0 if name.endswith("norm.weight") else 0.0
            assert torch.equal(parameter, torch.full_like(parameter, expected)), name
        else:
            residual = "attention.output" in name or "feed_forward.down" in name
            std = 0.02 / math.sqrt(2 * 8) if residual else 0.02
            assert parameter.std().item() == pytest.approx(std, rel=0.05), name


@pytest.mark.parametrize("settings", [{}, GPT2, LLAMA, ALIBI], ids=str)
def test_float64_goes_all_the_way(settings: dict[str, object]) -> None:
    model, tokens = build(**settings).eval(), some_tokens()
    single = model(tokens)
    seen: set[torch.dtype] = set()
    for module in model.double().modules():
        module.register_forward_hook(lambda _module, _inputs, output: seen.update(_dtypes(output)))
    double = model(tokens)
    assert seen == {torch.float64}
    assert 0 < (double - single).abs().max().item() < 1e-5


def _dtypes(output: Tensor | tuple[Tensor, ...]) -> set[torch.dtype]:
    return {part.dtype for part in (output if isinstance(output, tuple) else (output,))}


@pytest.mark.parametrize("settings", [{}, LLAMA, ALIBI], ids=["gpt", "llama", "alibi"])
def test_bf16_autocast_stays_near_fp32(settings: dict[str, object]) -> None:
    model, tokens = build(**settings), some_tokens()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(tokens)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), model(tokens), rtol=0.05, atol=0.01)
    rough.float().sum().backward()


@pytest.mark.parametrize("settings", [{}, LLAMA], ids=["gpt", "llama"])
def test_compiles_into_one_graph(settings: dict[str, object]) -> None:
    torch.compiler.reset()  # the models of other tests count towards its limit of recompilations
    model, tokens = build(**settings), some_tokens()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(tokens), model(tokens))


def test_dropout_acts_in_training_only() -> None:
    model, tokens = build(dropout=0.5), some_tokens()
    assert not torch.equal(model.train()(tokens), model(tokens))
    assert torch.equal(model.eval()(tokens), model(tokens))
    exact = build(dropout=0.0)
    assert torch.equal(exact.train()(tokens), exact.eval()(tokens))
    assert torch.equal(model(tokens), exact(tokens))


def test_too_long_a_sequence_is_an_error() -> None:
    for settings in ({}, LLAMA):
        with pytest.raises(ValueError, match="tokens has 17 positions, but this model takes 16 at most"):
            build(**settings)(some_tokens(seq=17))


def test_the_meta_device_gives_shapes_and_then_a_whole_model() -> None:
    real = build(**LLAMA)
    with torch.device("meta"):
        model = build(**LLAMA)
        assert model(torch.zeros(2, SEQ, dtype=torch.int64)).shape == (2, SEQ, VOCAB)
    model.to_empty(device="cpu").load_state_dict(real.state_dict())
    assert torch.equal(model(some_tokens()), real(some_tokens()))


def test_it_offers_what_a_language_model_must() -> None:
    assert as_language_model(build()).max_sequence_length == SEQ
    with pytest.raises(ValueError, match="Linear is no language model: it has no max_sequence_length"):
        as_language_model(nn.Linear(2, 2))
