"""A folder of YAML files of the user's, as --config-dir names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lmexp.config.compose import Composed, compose

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """write("model/mine", text) makes conf/model/mine.yaml below the test's folder."""

    def _write(option: str, text: str) -> Path:
        path = tmp_path / "conf" / f"{option}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return _write


@pytest.fixture
def compose_with(tmp_path: Path) -> Callable[..., Composed]:
    """compose(overrides) with the files that `write` made."""
    return lambda *overrides: compose([*overrides], config_dirs=[str(tmp_path / "conf")])
