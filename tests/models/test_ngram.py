from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lmexp.errors import ConfigError
from lmexp.models.base import TargetScorer, as_language_model, takes_positions
from lmexp.models.config import SMOOTHINGS, NGramConfig
from lmexp.models.decoding.config import DecodingConfig
from lmexp.models.decoding.sampler import sample
from lmexp.models.ngram import NGram

EOS, VOCAB, ORDER = 0, 9, 4


def some_tokens(n: int, seed: int = 1) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.random.default_rng(seed).integers(0, VOCAB, n)


def fitted(**settings: Any) -> NGram:
    model = NGramConfig(**{"order": ORDER, **settings}).build(vocab_size=VOCAB, sequence_length=40)
    assert isinstance(model, NGram)
    model.fit(np.concatenate([[EOS], some_tokens(600)]), eos_id=EOS)
    return model


def rows(batch: int = 3, seq: int = 30) -> Tensor:
    return torch.from_numpy(some_tokens(batch * seq, seed=2).reshape(batch, seq))


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_each_token_sees_itself_and_the_order_minus_two_before_it(smoothing: str) -> None:
    model, tokens = fitted(smoothing=smoothing, across_documents=True), rows()
    changed = tokens.clone()
    changed[:, 12] = (tokens[:, 12] + 1) % VOCAB
    before, after = model(tokens), model(changed)
    differs = (before != after).any(dim=2).any(dim=0)
    assert differs.nonzero().flatten().tolist() == [12, 13, 14]  # order 4: three tokens back at most


def test_nothing_before_an_eos_is_seen_unless_across_documents() -> None:
    tokens = rows(1)
    tokens[tokens == EOS] = 1
    tokens[0, 10] = EOS
    for across in (False, True):
        model, changed = fitted(across_documents=across), tokens.clone()
        changed[0, 9] = (tokens[0, 9] + 1) % VOCAB
        differs = (model(tokens) != model(changed)).any(dim=2)[0]
        assert bool(differs[9])
        assert bool(differs[10:].any()) is across


def test_documents_that_share_a_row_are_as_in_rows_of_their_own() -> None:
    model, tokens = fitted(across_documents=True), rows(1)
    positions = torch.cat([torch.arange(13), torch.arange(17)])[None]
    assert takes_positions(model)
    apart = torch.cat([model(tokens[:, :13]), model(tokens[:, 13:])], dim=1)
    assert torch.equal(model(tokens, positions=positions), apart)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_targets_alone_get_the_probabilities_that_all_tokens_get(smoothing: str) -> None:
    model, tokens = fitted(smoothing=smoothing), rows()
    positions = torch.arange(30).remainder(11).expand(3, 30)
    for places in (None, positions):
        logits = model(tokens[:, :-1], None if places is None else places[:, :-1])
        expected = logits.gather(2, tokens[:, 1:, None])[..., 0]
        found = model.target_log_probabilities(
            tokens[:, :-1], tokens[:, 1:], None if places is None else places[:, :-1]
        )
        torch.testing.assert_close(found.float(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("order", [1, 2, ORDER])
def test_scored_targets_are_as_in_the_logits(smoothing: str, order: int) -> None:
    model, tokens = fitted(smoothing=smoothing, order=order), rows(20)
    logits = model(tokens[:, :-1])
    found, first = model.score_targets(tokens[:, :-1], tokens[:, 1:])
    torch.testing.assert_close(found.float(), logits.gather(2, tokens[:, 1:, None])[..., 0], rtol=1e-5, atol=1e-6)
    ties = (logits.topk(2).values.diff() == 0)[..., 0]  # of which float32 and float64 may choose another
    assert torch.equal(first[~ties], (logits.argmax(-1) == tokens[:, 1:])[~ties])
    assert bool(first.any()) or smoothing == "mle"
    assert isinstance(model, TargetScorer)


def test_among_equally_likely_tokens_the_first_is_chosen() -> None:
    model = NGram(NGramConfig(order=3, smoothing="add_k"), vocab_size=VOCAB)
    model.fit(np.array([EOS, 1, 5, 1, 3, EOS]), eos_id=EOS)
    tokens = torch.tensor([[EOS, 1, 7]])  # after 0 1 comes 5; what comes after 7 nobody knows: the first token there is
    for targets, expected in (([1, 5, 0], [True, True, True]), ([2, 3, 1], [False, False, False])):
        assert model.score_targets(tokens, torch.tensor([targets]))[1].tolist() == [expected]


def test_probabilities_in_parts_are_those_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = fitted(), rows()
    expected = model(tokens)
    monkeypatch.setattr("lmexp.models.ngram.AT_ONCE", 7 * VOCAB)
    assert torch.equal(model(tokens), expected)


def test_saved_and_loaded_it_is_the_same_model() -> None:
    model = fitted()
    again = NGram(model.config, vocab_size=VOCAB)
    uniform = again(rows())
    torch.testing.assert_close(uniform, torch.full_like(uniform, 1 / VOCAB).log())
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(rows()), model(rows()))
    assert as_language_model(model).max_sequence_length == 40
    assert fitted(order=1).state_dict().keys() == {"base", "cut"}


def set_to(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], None]:
    def apply(state: dict[str, Tensor]) -> None:
        state[name] = change(state[name].clone())

    return apply


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        (set_to("codes_3", lambda codes: codes.flip(0)), "codes_3 isn't sorted"),
        (set_to("codes_2", lambda codes: codes + VOCAB**2), "codes_2 isn't sorted, or out of range"),
        (set_to("codes_2", lambda codes: codes - 5), "out of range"),
        (set_to("codes_4", lambda codes: codes[:-1]), "shares_4 or weights_4"),
        (set_to("codes_4", lambda codes: codes.double()), "codes_4 is torch.float64"),
        (set_to("codes_4", lambda codes: codes[:, None]), "2 dimensions"),
        (set_to("weights_3", lambda weights: weights[:-1]), "weights_3"),
        (set_to("shares_3", lambda shares: shares * torch.nan), "what isn't a probability"),
        (set_to("weights_2", lambda weights: weights - 2), "what isn't a probability"),
        (set_to("base", lambda base: base[:-1]), "of 9 tokens"),
        (set_to("cut", lambda cut: cut + 100), "of 9 tokens"),
        (lambda state: state.pop("shares_2"), "Missing key"),
        (lambda state: state.update(more=torch.zeros(1)), "Unexpected key"),
    ],
)
def test_tensors_that_are_no_trie_are_refused(hostile: Callable[[dict[str, Tensor]], object], message: str) -> None:
    model = fitted()
    state = dict(model.state_dict())
    hostile(state)
    with pytest.raises(RuntimeError, match=message):
        NGram(model.config, vocab_size=VOCAB).load_state_dict(state)


def test_it_generates_what_it_has_counted() -> None:
    model = NGram(NGramConfig(order=3, smoothing="mle"), vocab_size=VOCAB)
    model.fit(np.array([EOS, 1, 2, 3, 4, EOS]), eos_id=EOS)
    made = sample(model, [[EOS]], DecodingConfig(max_new_tokens=9), seeds=[0], eos_id=EOS)
    assert [token for _, token, _ in made] == [1, 2, 3, 4, EOS]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": 0}, "model.order is 0"),
        ({"order": 33}, "expected at most 32"),
        ({"smoothing": "kneser-ney"}, "did you mean kneser_ney"),
        ({"k": 0}, "model.k is 0"),
        ({"init_from": "x"}, "take it away"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NGramConfig(**settings)
