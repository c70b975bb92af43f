"""What every test shares: the data folder, and a world without W&B logins and leftovers of the developer's shell."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test goes online or writes where the developer's runs lie; what a test sets itself holds."""
    for name in list(os.environ):
        if name.startswith(("WANDB_", "LMEXP_")) and name not in ("WANDB_SERVICE", "LMEXP_SHARED_DATA"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", os.devnull)


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
