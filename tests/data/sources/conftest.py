"""Reading sources."""

from collections.abc import Callable

import pytest

from lmexp.data.config import CorpusConfig
from lmexp.data.sources import base
from lmexp.data.sources.base import Bad

Read = Callable[[CorpusConfig], tuple[list[str], list[Bad]]]


@pytest.fixture
def read() -> Read:
    """read(config): all documents of all units, and what is none."""

    def read_all(config: CorpusConfig) -> tuple[list[str], list[Bad]]:
        source = config.source()
        found = [item for unit in source.units() for item in source.read(unit)]
        return [item for item in found if isinstance(item, str)], [item for item in found if isinstance(item, Bad)]

    return read_all


@pytest.fixture
def set_unit_bytes(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """set_unit_bytes(n): units are about that large from now on."""
    return lambda n: monkeypatch.setattr(base, "UNIT_BYTES", n)
