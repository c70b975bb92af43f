import collections
import itertools
import math
from typing import Any

import numpy as np
import pytest

from lmexp.data.config import SyntheticConfig
from lmexp.data.sources import base
from lmexp.data.sources.base import Bad
from lmexp.data.sources.synthetic import Chain, SyntheticSource, all_commands


def source(rule: str, **settings: Any) -> SyntheticSource:
    found = SyntheticConfig(rule=rule, **settings).source()
    assert isinstance(found, SyntheticSource)
    return found


def documents(source: SyntheticSource) -> list[str]:
    found = [document for unit in source.units() for document in source.read(unit)]
    assert not any(isinstance(document, Bad) for document in found)
    return [str(document) for document in found]


RULES = ("copy", "reverse", "markov", "commands")


@pytest.mark.parametrize(("rule", "second"), [("copy", lambda text: text), ("reverse", lambda text: text[::-1])])
def test_the_second_half_follows_from_the_first(rule: str, second: Any) -> None:
    found = documents(source(rule, n_documents=3000, min_length=2, max_length=5, n_symbols=3))
    for document in found:
        first, _, rest = document.partition("|")
        assert rest == second(first)
        assert 2 <= len(first) <= 5 and set(first) <= set("abc")
    assert len(found) == 3000
    # All 9 + 27 + 81 + 243 documents occur, each length and each letter equally often.
    lengths = collections.Counter(document.index("|") for document in found)
    assert all(abs(lengths[n] - 750) < 4 * math.sqrt(750) for n in range(2, 6))
    letters = collections.Counter("".join(found))
    assert all(abs(letters[c] / sum(letters[x] for x in "abc") - 1 / 3) < 0.02 for c in "abc")
    assert {document for document in found if document.index("|") == 2} == {
        f"{a}{b}|{second(a + b)}" for a in "abc" for b in "abc"
    }


@pytest.mark.parametrize("rule", RULES)
def test_a_document_depends_on_seed_and_number_alone(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = documents(source(rule, n_documents=200))
    assert documents(source(rule, n_documents=50)) == whole[:50]
    assert documents(source(rule, n_documents=200, generator_seed=1)) != whole
    monkeypatch.setattr(base, "UNIT_BYTES", 500)
    found = source(rule, n_documents=200)
    units = found.units()
    assert len(units) > 3
    assert abs(sum(unit.n_bytes for unit in units) / sum(map(len, whole)) - 1) < 0.1
    reread = {unit: list(source(rule, n_documents=200).read(unit)) for unit in reversed(units)}
    assert [document for unit in units for document in reread[unit]] == whole


def test_documents_stay_what_they_are() -> None:
    assert {rule: source(rule, generator_seed=7).document(3) for rule in RULES} == {
        "copy": "cphfaalml|cphfaalml",
        "reverse": "cphfaalml|lmlaafhpc",
        "markov": "cphfbakmm",
        "commands": f"run thrice after run opposite left thrice = {'LTURN LTURN RUN ' * 3}RUN RUN RUN",
    }


@pytest.mark.parametrize("seed", [-1, 0, 2**64 + 3])
def test_any_seed_will_do(seed: int) -> None:
    assert len(documents(source("markov", n_documents=5, generator_seed=seed))) == 5


def test_identity_tells_corpora_apart() -> None:
    changes = [{}, {"n_documents": 9}, {"min_length": 5}, {"max_length": 17}, {"n_symbols": 3}, {"generator_seed": 1}]
    found = [source(rule, **change).identity() for rule in RULES for change in changes]
    assert len({repr(identity) for identity in found}) == len(found)
    assert source("copy", n_documents=9).identity() == source("copy", n_documents=9).identity()


def test_a_document_too_long_is_set_aside() -> None:
    found = source("copy", n_documents=3, min_length=10, max_length=10, max_document_bytes=20)
    (unit,) = found.units()
    bad = [document for document in found.read(unit) if isinstance(document, Bad)]
    assert [(document.kind, document.line) for document in bad] == [("too long", 1), ("too long", 2), ("too long", 3)]


@pytest.mark.parametrize("n_symbols", [2, 5, 26])
def test_the_entropy_rate_is_that_of_a_long_power_of_the_chain(n_symbols: int) -> None:
    chain = Chain.draw(n_symbols, seed=3)
    assert np.allclose(chain.transitions.sum(axis=1), 1) and (chain.transitions >= 0).all()
    often = np.linalg.matrix_power(chain.transitions, 1 << 14)[0]
    assert np.allclose(chain.stationary, often, atol=1e-12)
    pairs = [
        often[i] * chain.transitions[i, j] for i, j in itertools.product(range(n_symbols), repeat=2)
    ]  # H(second | first) = H(both) - H(first)
    expected = -sum(p * math.log2(p) for p in pairs if p) + sum(p * math.log2(p) for p in often if p)
    assert chain.entropy_rate == pytest.approx(expected, abs=1e-9)
    facts = source("markov", n_symbols=n_symbols, generator_seed=3).facts()
    assert facts["entropy_rate"] == chain.entropy_rate


def test_known_chains_have_their_known_entropies() -> None:
    assert Chain(np.full((4, 4), 0.25)).entropy_rate == pytest.approx(2)
    assert Chain(np.eye(3)[[1, 2, 0]]).entropy_rate == pytest.approx(0)
    # Cover and Thomas, Elements of Information Theory, section 4.2: two states, leaving them with a and b.
    a, b = 0.3, 0.1
    entropy = {p: -p * math.log2(p) - (1 - p) * math.log2(1 - p) for p in (a, b)}
    chain = Chain(np.array([[1 - a, a], [b, 1 - b]]))
    assert chain.stationary.tolist() == pytest.approx([b / (a + b), a / (a + b)])
    assert chain.entropy_rate == pytest.approx(b / (a + b) * entropy[a] + a / (a + b) * entropy[b])


def test_rows_of_the_chain_are_drawn_from_all_distributions_alike() -> None:
    rows = np.concatenate([Chain.draw(5, seed).transitions for seed in range(2000)])
    # Dirichlet(1, ..., 1): each probability has mean 1/k and variance (k - 1) / (k^2 (k + 1)).
    assert np.allclose(rows.mean(axis=0), 1 / 5, atol=0.01)
    assert np.allclose(rows.var(axis=0), 4 / (25 * 6), atol=0.002)


def test_a_fitted_bigram_reaches_the_entropy_rate_and_no_less() -> None:
    found = source("markov", n_documents=100, min_length=2000, max_length=2000, n_symbols=6, generator_seed=5)
    texts = documents(found)
    train, test = texts[:70], texts[70:]
    counts = collections.Counter(pair for text in train for pair in itertools.pairwise(text))
    before = collections.Counter(first for text in train for first in text[:-1])
    nats = [-math.log(counts[pair] / before[pair[0]]) for text in test for pair in itertools.pairwise(text)]
    bits = np.array(nats) / math.log(2)
    error = bits.std() / math.sqrt(len(bits))
    facts = found.facts()
    assert abs(bits.mean() - facts["entropy_rate"]) < 4 * error + 0.001
    assert facts["bits_per_byte"] == pytest.approx(facts["entropy_rate"], abs=0.002)
    firsts = collections.Counter(text[0] for text in documents(source("markov", n_documents=4000, n_symbols=6)))
    chain = Chain.draw(6, 0)
    assert all(abs(firsts["abcdef"[i]] / 4000 - p) < 0.03 for i, p in enumerate(chain.stationary))


def bits_of(probabilities: dict[str, float]) -> float:
    assert sum(probabilities.values()) == pytest.approx(1)
    return -sum(p * math.log2(p) for p in probabilities.values() if p)


def test_bits_per_document_are_those_of_the_list_of_all_documents() -> None:
    settings = {"min_length": 1, "max_length": 4, "n_symbols": 3}
    words = [w for n in range(1, 5) for w in itertools.product(range(3), repeat=n)]
    chain = Chain.draw(3, 0)

    def chance(word: tuple[int, ...]) -> float:
        steps = math.prod(chain.transitions[pair] for pair in itertools.pairwise(word))
        return float(chain.stationary[word[0]] * steps / 4)

    expected = {
        "markov": bits_of({str(word): chance(word) for word in words}),
        "copy": bits_of({str(word): 3 ** -len(word) / 4 for word in words}),
    }
    for rule, bits in expected.items():
        facts = source(rule, **settings).facts()
        assert facts["bits_per_document"] == pytest.approx(bits)
        mean = np.mean([len(document) for document in documents(source(rule, **settings))])
        assert facts["bytes_per_document"] == pytest.approx(mean, rel=0.02)
        assert facts["bits_per_byte"] == facts["bits_per_document"] / facts["bytes_per_document"]
    facts = source("markov", **settings).facts()
    parts = facts["length_bits"] + facts["first_symbol_bits"] + 1.5 * facts["entropy_rate"]
    assert facts["bits_per_document"] == pytest.approx(parts)
    assert facts["length_bits"] == 2


@pytest.mark.parametrize(
    ("command", "actions"),
    [  # from the paper: figure 1 and the grammar of the appendix, in its notation
        ("jump", "JUMP"),
        ("jump left", "LTURN JUMP"),
        ("jump around right", "RTURN JUMP RTURN JUMP RTURN JUMP RTURN JUMP"),
        ("turn left twice", "LTURN LTURN"),
        ("jump thrice", "JUMP JUMP JUMP"),
        ("jump opposite left and walk thrice", "LTURN LTURN JUMP WALK WALK WALK"),
        (
            "jump opposite left after walk around left",
            "LTURN WALK LTURN WALK LTURN WALK LTURN WALK LTURN LTURN JUMP",
        ),
        ("jump twice", "JUMP JUMP"),
        ("turn left", "LTURN"),
        ("turn opposite right", "RTURN RTURN"),
        ("turn around left", "LTURN LTURN LTURN LTURN"),
        ("walk around right", "RTURN WALK RTURN WALK RTURN WALK RTURN WALK"),
        ("run opposite left after jump twice", "JUMP JUMP LTURN LTURN RUN"),
        ("jump twice and walk left", "JUMP JUMP LTURN WALK"),
        ("look", "LOOK"),
    ],
)
def test_commands_mean_what_scan_says(command: str, actions: str) -> None:
    assert f"{command} = {actions}" in all_commands()


def test_there_are_as_many_commands_as_in_scan() -> None:
    commands = [line.partition(" = ")[0] for line in all_commands()]
    assert len(commands) == len(set(commands)) == 20_910
    lengths = {len(line.partition(" = ")[2].split()) for line in all_commands()}
    assert (min(lengths), max(lengths)) == (1, 48)  # as the paper says
    assert max(len(command.split()) for command in commands) == 9


def interpret(command: str) -> list[str]:
    """The paper's rules, read from the outside in."""
    first, conjunction, second = command.partition(" and ")
    if conjunction:
        return interpret(first) + interpret(second)
    first, conjunction, second = command.partition(" after ")
    if conjunction:
        return interpret(second) + interpret(first)
    for word, times in ((" twice", 2), (" thrice", 3)):
        if command.endswith(word):
            return interpret(command.removesuffix(word)) * times
    verb, *rest = command.split()
    action = [] if verb == "turn" else [verb.upper()]
    if not rest:
        return action
    turn = [f"{rest[-1][0].upper()}TURN"]
    if len(rest) == 1:
        return turn + action
    return turn * 2 + action if rest[0] == "opposite" else (turn + action) * 4


def test_every_command_is_interpreted_as_the_rules_say() -> None:
    for line in all_commands():
        command, _, actions = line.partition(" = ")
        assert interpret(command) == actions.split()


def test_commands_are_drawn_alike() -> None:
    found = documents(source("commands", n_documents=20_000))
    assert set(found) <= set(all_commands())
    # Of N equally likely ones, n draws leave N (1 - 1/N)^n out.
    expected = 20_910 * (1 - (1 - 1 / 20_910) ** 20_000)
    assert abs(len(set(found)) - expected) < 300
    facts = source("commands").facts()
    assert facts["bits_per_document"] == math.log2(20_910)
    assert facts["bytes_per_document"] == pytest.approx(np.mean([len(text) for text in found]), rel=0.01)
