"""kill -9 at random moments costs at most one checkpoint interval, and nothing of the result."""

from __future__ import annotations

import pytest

from tests.torture.program import torture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_run_of_one_process_survives_40_kills() -> None:
    assert "kills: 40 hits" in torture("kills")


def test_a_run_of_two_processes_survives_10_kills_of_any_of_them() -> None:
    assert "kills-two: 10 hits" in torture("kills-two")
