"""Wrong configs, generated from the schemas: each is refused before training, with the key and the fix."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import pytest

from lmexp.config.compose import compose
from lmexp.errors import ConfigError
from tests.config.mutations import Mutation, mutations
from tests.end_to_end.command import lmexp

EVERY_SORT = 4
"""Of each sort so many are tried at each run of the suite, the rest of MANY by `make check`."""
MANY = 240
CHUNKS = 4


@pytest.fixture(scope="module")
def shuffled() -> list[Mutation]:
    """All mutations, those of the same sort far from each other."""
    found = mutations()
    random.Random(0).shuffle(found)
    seen: Counter[str] = Counter()
    rank = {}
    for mutation in found:
        rank[mutation.overrides] = seen[mutation.sort]
        seen[mutation.sort] += 1
    return sorted(found, key=lambda mutation: rank[mutation.overrides])


def complaint(mutation: Mutation) -> str | None:
    """What is wrong with the answer to a wrong config; None where it names the key and the fix."""
    typed = " ".join(mutation.overrides)
    try:
        compose([*mutation.overrides])
    except ConfigError as error:
        said = " ".join(str(error).split())
        if not re.search(rf"(?<![\w.])(?:{mutation.key})(?![\w.]*\w)", said):
            return f"{typed}: the key {mutation.key} isn't named: {said}"
        return None if re.search(mutation.fix, said) else f"{typed}: no fix like {mutation.fix!r}: {said}"
    except Exception as error:
        return f"{typed}: {type(error).__name__}: {error}"
    return f"{typed}: was taken"


def complaints(tried: list[Mutation]) -> str:
    """One line for each answer that isn't right."""
    return "\n".join(["", *filter(None, map(complaint, tried))])


def test_there_are_many_of_every_sort(shuffled: list[Mutation]) -> None:
    counts = Counter(mutation.sort for mutation in shuffled)
    assert len(shuffled) > 2 * MANY
    assert min(counts.values()) >= 20, counts
    assert len({mutation.overrides for mutation in shuffled}) > 0.95 * len(shuffled)


def test_wrong_configs_of_every_sort_are_refused_with_key_and_fix(shuffled: list[Mutation]) -> None:
    few = [m for sort in {m.sort for m in shuffled} for m in [m for m in shuffled if m.sort == sort][:EVERY_SORT]]
    assert len(few) == EVERY_SORT * len({mutation.sort for mutation in shuffled}) >= 40
    assert complaints(few) == ""


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_hundreds_of_wrong_configs_are_refused_with_key_and_fix(shuffled: list[Mutation], chunk: int) -> None:
    assert complaints(shuffled[:MANY][chunk::CHUNKS]) == ""


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (Mutation("typo", ("seed=1",), "seed", "."), "was taken"),
        (Mutation("typo", ("model.n_layres=3",), "model.n_layer", "did you mean"), "isn't named"),
        (Mutation("typo", ("model.n_layres=3",), "model.n_layres", "try n_layer"), "no fix like"),
    ],
)
def test_an_answer_can_be_wrong(wrong: Mutation, told: str) -> None:
    assert told in (complaint(wrong) or "")


@pytest.mark.parametrize("typed", ["optimizer.lr=nan", "model.n_layre=2", "data.batch_size=-1"])
def test_a_wrong_command_ends_with_2_and_leaves_nothing(tmp_path: Path, typed: str) -> None:
    said = lmexp(tmp_path, "train", typed, code=2).stderr
    assert typed.partition("=")[0] in said
    assert list(tmp_path.iterdir()) == []
