"""What is told about several processes that ended, from what they left behind."""

from __future__ import annotations

from typing import Any

import pytest

from lmexp.launch.local import Ending

ERROR = {"rank": 0, "message": "RuntimeError: boom", "exit_code": 1, "stopped": None}
WRONG = {"rank": 1, "message": "no such file", "exit_code": 2, "stopped": None}
STOP = {"rank": 0, "message": "preempted", "exit_code": 1, "stopped": "preempted"}


@pytest.mark.parametrize(
    ("returned", "told", "codes", "stopped", "reason"),
    [
        pytest.param(0, {}, {}, None, "", id="done, or all agreed to stop"),
        pytest.param(1, ERROR, {"0": 1}, None, "rank 0: RuntimeError: boom", id="an error"),
        pytest.param(1, WRONG, {"1": 2, "0": -15}, None, "no such file", id="wrong input"),
        pytest.param(1, STOP, {"0": 75, "1": 1}, "preempted", "", id="a rank was asked to stop"),
        pytest.param(1, STOP, {"0": 130, "1": -9}, "preempted", None, id="another was deaf, and killed by torchrun"),
        pytest.param(1, {}, {"1": -10, "0": 75}, "preempted", None, id="asked before it had a handler"),
        pytest.param(-2, {}, {}, "interrupted", None, id="torchrun was asked before it had a handler"),
        pytest.param(75, {}, {}, "preempted", None, id="torchrun was asked before it had workers"),
        pytest.param(1, {}, {"1": -9}, None, "rank 1 was killed by SIGKILL (signal 9)", id="killed"),
        pytest.param(
            1,
            STOP,
            {"1": -9, "0": 75},
            None,
            "rank 1 was killed by SIGKILL (signal 9)",
            id="killed, torchrun stops the other",
        ),
        pytest.param(
            1,
            ERROR,
            {"1": -11, "0": 1},
            None,
            "rank 1 was killed by SIGSEGV (signal 11); rank 0: RuntimeError: boom",
            id="killed, and the other fails for want of it",
        ),
        pytest.param(-9, {}, {}, None, "torchrun was killed by SIGKILL (signal 9)", id="torchrun was killed"),
        pytest.param(-9, STOP, {}, "preempted", None, id="torchrun was killed, and the workers stopped"),
    ],
)
def test_an_ending_is_named_after_what_happened_first(
    returned: int, told: dict[str, Any], codes: dict[str, int], stopped: str | None, reason: str | None
) -> None:
    ending = Ending(returned=returned, told=told, codes=codes)
    assert ending.stopped == stopped
    assert ending.is_users_error == (told is WRONG)
    if reason is not None:
        assert ending.reason() == reason
