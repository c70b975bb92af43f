"""What every test shares: the data folder, and a world without W&B logins and leftovers of the developer's shell."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore

from lmexp import plugins, redaction
from lmexp.config.schema import SCHEMAS

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test goes online or writes where the developer's runs lie; what a test sets itself holds."""
    for name in list(os.environ):
        if name.startswith(("WANDB_", "LMEXP_")) and name not in ("WANDB_SERVICE", "LMEXP_SHARED_DATA"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", os.devnull)
    monkeypatch.setattr(redaction, "_read", {})


@pytest.fixture(autouse=True)
def trust_ends_with_the_test() -> Iterator[None]:
    """Packages that a test trusted, and kinds that they registered, are unknown to the next one."""
    kinds, packages, path = {group: set(known) for group, known in SCHEMAS.items()}, set(plugins._trusted), [*sys.path]
    modules = set(sys.modules)
    yield
    store: Any = ConfigStore.instance().repo
    for group, known in SCHEMAS.items():
        for kind in set(known) - kinds[group]:
            del known[kind]
            for options in (store.get(group, {}), store.get("schema", {}).get(group, {})):
                options.pop(f"{kind}.yaml", None)
    for package in set(plugins._trusted) - packages:
        del plugins._trusted[package]
        top = package.partition(".")[0]  # importing a.b imports a too
        for module in [name for name in sys.modules if f"{name}.".startswith(f"{top}.") and name not in modules]:
            del sys.modules[module]
    sys.path[:] = path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets: LMEXP_SHARED_DATA, else ../shared/data beside the checkout.

    Where it is missing the test is skipped, but fails under CI=true.
    """
    given = os.environ.get("LMEXP_SHARED_DATA")
    folder = Path(given) if given else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        message = f"no data sets in {folder}; set LMEXP_SHARED_DATA to the folder that has tinyshakespeare/input.txt"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return folder
