"""A signal to any process of a run, whatever it does: it saves in time, and goes on as if nothing had been."""

from __future__ import annotations

import pytest

from tests.torture.program import torture


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_20_signals_to_any_process_save_in_time() -> None:
    assert "signals: 20 hits" in torture("signals")
