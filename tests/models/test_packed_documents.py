"""Several documents in a sequence: each is computed as if it were alone."""

import itertools

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from lmexp.errors import ConfigError
from lmexp.models.base import check_takes_positions, takes_positions
from lmexp.models.config import GPTConfig
from lmexp.models.gpt import GPT
from lmexp.models.layers.attention import document_mask

VOCAB, SEQ = 29, 24
ROWS = ((7, 5, 1, 9, 2), (24,), (1, 1, 20, 2))
"""Lengths of the documents of each sequence; the last one of each may be taken as padding."""
VARIATIONS = [
    {"positions": positions, "norm": norm, "n_kv_head": n_kv_head}
    for positions, norm, n_kv_head in itertools.product(("learned", "rotary"), ("layer_norm", "rms_norm"), (4, 2))
]
LLAMA = {"positions": "rotary", "norm": "rms_norm", "activation": "swiglu", "n_kv_head": 1, "qk_norm": True}
ALIBI = {"positions": "alibi", "n_kv_head": 2, "n_head": 8}
every_variation = pytest.mark.parametrize("settings", [*VARIATIONS, LLAMA, ALIBI], ids=str)


def build(sequence_length: int = SEQ, **settings: object) -> GPT:
    torch.manual_seed(0)
    config = GPTConfig(**{"n_layer": 2, "d_model": 32, **settings})  # type: ignore[arg-type]
    model = config.build(vocab_size=VOCAB, sequence_length=sequence_length)
    assert isinstance(model, GPT)
    for parameter in model.parameters():  # so that attention is far from uniform
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def pack(rows: tuple[tuple[int, ...], ...] = ROWS) -> tuple[Tensor, Tensor]:
    """Random tokens, and positions that start anew in each document: (batch, seq) both."""
    positions = torch.stack([torch.cat([torch.arange(length) for length in row]) for row in rows])
    return torch.randint(VOCAB, positions.shape, generator=torch.Generator().manual_seed(1)), positions


def assert_equal_up_to(tolerance: float, found: Tensor, expected: Tensor) -> None:
    """The largest difference is within tolerance, measured by the largest value."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max().item() <= tolerance * expected.abs().max().item()


def one_by_one(model: GPT, tokens: Tensor, rows: tuple[tuple[int, ...], ...] = ROWS) -> Tensor:
    """The logits of each document by itself, put where they are in the packed sequences."""
    sequences = [
        torch.cat([model(tokens[number : number + 1, span])[0] for span in spans(row)])
        for number, row in enumerate(rows)
    ]
    return torch.stack(sequences)


def spans(row: tuple[int, ...]) -> list[slice]:
    ends = list(itertools.accumulate(row))
    return [slice(end - length, end) for end, length in zip(ends, row, strict=True)]


@every_variation
def test_packed_documents_have_the_logits_they_have_alone(settings: dict[str, object]) -> None:
    model = build(**settings)
    tokens, positions = pack()
    assert model(tokens, positions).std() > 0.5
    assert_equal_up_to(1e-6, model(tokens, positions), one_by_one(model, tokens))
    model.double()
    assert_equal_up_to(1e-14, model(tokens, positions), one_by_one(model, tokens))


@every_variation
def test_packed_attention_equals_attention_of_each_document(settings: dict[str, object]) -> None:
    model = build(**settings)
    attention = model.blocks[0].attention
    _, positions = pack()
    x = torch.randn(*positions.shape, 32, generator=torch.Generator().manual_seed(2))
    rotation = None if model.rotary is None else model.rotary(SEQ, positions)
    packed = attention(x, rotation, document_mask(positions))
    for number, row in enumerate(ROWS):
        for span, length in zip(spans(row), row, strict=True):
            alone = attention(x[number : number + 1, span], None if model.rotary is None else model.rotary(length))
            assert_equal_up_to(1e-6, packed[number, span], alone[0])


@every_variation
def test_changing_one_document_changes_no_logit_of_another(settings: dict[str, object]) -> None:
    model = build(**settings)
    tokens, positions = pack()
    before = model(tokens, positions)
    for number, row in enumerate(ROWS):
        for span in spans(row):
            changed = tokens.clone()
            changed[number, span] = (tokens[number, span] + 1) % VOCAB
            after = model(changed, positions)
            others = torch.ones_like(tokens, dtype=torch.bool)
            others[number, span] = False
            assert torch.equal(after[others], before[others])
            assert not torch.equal(after[number, span], before[number, span])


@every_variation
def test_no_gradient_crosses_from_one_document_to_another(settings: dict[str, object]) -> None:
    model = build(**settings)
    tokens, positions = pack()
    embedded: list[Tensor] = []
    model.token_embedding.register_forward_hook(lambda _module, _inputs, output: embedded.append(output))
    logits = model(tokens, positions)
    for number, row in enumerate(ROWS):
        for span in spans(row):
            loss = logits[number, span].logsumexp(dim=-1).sum()
            (gradient,) = torch.autograd.grad(loss, embedded, retain_graph=True)
            own = torch.zeros_like(tokens, dtype=torch.bool)
            own[number, span] = True
            assert torch.equal(gradient[~own], torch.zeros_like(gradient[~own]))
            assert (gradient[own].abs().amax(dim=-1) > 0).all()


@every_variation
def test_the_gradient_of_a_packed_batch_is_the_sum_over_its_documents(settings: dict[str, object]) -> None:
    model = build(**settings).double()
    tokens, positions = pack()
    targets = torch.randint(VOCAB, tokens.shape, generator=torch.Generator().manual_seed(3))
    weights = list(model.parameters())

    def gradients(logits: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
        return torch.autograd.grad(loss, weights)

    total = [torch.zeros_like(weight) for weight in weights]
    for number, row in enumerate(ROWS):
        for span in spans(row):
            alone = gradients(model(tokens[number : number + 1, span]), targets[number : number + 1, span])
            for sum_, gradient in zip(total, alone, strict=True):
                sum_ += gradient
    for gradient, expected in zip(gradients(model(tokens, positions), targets), total, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-10)


@every_variation
def test_a_single_document_with_positions_equals_the_path_without(settings: dict[str, object]) -> None:
    model = build(**settings)
    tokens, _ = pack()
    positions = torch.arange(SEQ).expand_as(tokens)
    assert_equal_up_to(1e-6, model(tokens, positions), model(tokens))


@pytest.mark.parametrize("settings", [{}, LLAMA, ALIBI], ids=["gpt", "llama", "alibi"])
def test_padding_behind_a_document_changes_nothing(settings: dict[str, object]) -> None:
    model = build(**settings)
    tokens, _ = pack(((20,),))
    padded = torch.cat((tokens, torch.zeros(1, 4, dtype=torch.int64)), dim=1)
    positions = torch.cat((torch.arange(20), torch.arange(4)))[None]
    assert_equal_up_to(1e-6, model(padded, positions)[:, :20], model(tokens))


@pytest.mark.parametrize("settings", [{}, LLAMA, ALIBI], ids=["gpt", "llama", "alibi"])
def test_documents_longer_than_a_block_of_the_attention_kernel(settings: dict[str, object]) -> None:
    """The CPU's flash attention goes by blocks of 512 keys: whole blocks are masked here."""
    rows = ((30, 600, 570), (1198, 1, 1))
    model = build(sequence_length=1200, **settings).double()
    tokens, positions = pack(rows)
    with torch.no_grad():
        assert_equal_up_to(1e-13, model(tokens, positions), one_by_one(model, tokens, rows))


@pytest.mark.parametrize("settings", [{}, LLAMA, ALIBI], ids=["gpt", "llama", "alibi"])
def test_bf16_autocast_stays_near_fp32_and_documents_apart(settings: dict[str, object]) -> None:
    model = build(**settings)
    tokens, positions = pack()
    changed = tokens.clone()
    changed[0, 7:12] = (tokens[0, 7:12] + 1) % VOCAB
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, after = model(tokens, positions), model(changed, positions)
    exact = model(tokens, positions)
    assert ((rough.float() - exact).norm() / exact.norm()).item() < 0.02
    others = (positions >= 0) & (changed == tokens)
    assert torch.equal(after[others], rough[others])


@pytest.mark.parametrize("settings", [{}, LLAMA, ALIBI], ids=["gpt", "llama", "alibi"])
def test_compiles_into_one_graph(settings: dict[str, object]) -> None:
    torch.compiler.reset()  # the models of other tests count towards its limit of recompilations
    model = build(**settings)
    tokens, positions = pack()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(tokens, positions=positions), model(tokens, positions))
    torch.testing.assert_close(compiled(tokens), model(tokens))


def test_attention_dropout_acts_on_packed_documents_too() -> None:
    model = build(dropout=0.5)
    tokens, positions = pack()
    assert torch.equal(model(tokens, positions), build()(tokens, positions))
    model.train()
    assert not torch.equal(model(tokens, positions), model(tokens, positions))


def test_a_model_without_positions_is_refused_for_packed_windows_with_the_way_out() -> None:
    class Plain(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return tokens

    class Anything(nn.Module):
        def forward(self, tokens: Tensor, **settings: object) -> Tensor:  # would ignore positions silently
            return tokens

    assert takes_positions(build())
    check_takes_positions(build())
    for model in (Plain(), Anything()):
        assert not takes_positions(model)
        message = rf"data.windows=packed .* {type(model).__name__}.forward has no parameter positions .*windows=padded"
        with pytest.raises(ConfigError, match=message):
            check_takes_positions(model)
