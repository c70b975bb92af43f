"""The loss of every step, bit for bit."""

import hashlib
import math
import struct
from pathlib import Path

import pytest

from lmexp.errors import RunError
from lmexp.tracking.losses import LossFile, cut_back_losses, losses_digest, read_losses

LOSSES = [2.5, 1 / 3, math.inf, 5e-324, -0.0, 1.7]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with the losses of six steps, written in three goes."""
    path = tmp_path / "losses.f64"
    file = LossFile(path)
    for first in (1, 3, 5):
        file.append(first, LOSSES[first - 1 : first + 1])
    file.sync()
    file.close()
    file.close()
    return path


def test_the_bytes_are_the_header_and_a_float64_a_step(path: Path) -> None:
    assert path.read_bytes() == b"lmexp.losses 1\n\n" + struct.pack("<6d", *LOSSES)
    assert struct.pack("<6d", *read_losses(path)) == struct.pack("<6d", *LOSSES)
    assert losses_digest(path) == {"n_steps": 6, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_nothing_logged_makes_no_file(tmp_path: Path) -> None:
    file = LossFile(tmp_path / "losses.f64")
    file.sync()
    file.close()
    assert not list(tmp_path.iterdir())
    assert losses_digest(tmp_path / "losses.f64") is None
    cut_back_losses(tmp_path / "losses.f64", 3)


@pytest.mark.parametrize("torn", range(8))
def test_a_run_that_goes_on_leaves_the_bytes_of_one_that_nobody_stopped(path: Path, torn: int) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - torn])
    cut_back_losses(path, 4)
    file = LossFile(path)
    file.append(5, LOSSES[4:])
    file.close()
    assert path.read_bytes() == whole


def test_from_the_start_means_a_new_file(path: Path) -> None:
    cut_back_losses(path, None)
    assert not path.exists()


def test_a_gap_is_refused(path: Path) -> None:
    file = LossFile(path)
    for step in (6, 8):
        with pytest.raises(
            RunError, match=rf"losses of 6 steps, and those of step {step} come next; expected {step - 1}"
        ):
            file.append(step, [1.0])
    file.append(7, [1.0])
    file.close()


@pytest.mark.parametrize("content", [b"", b"lmexp.losses 2\n\n", b"lmexp.losses 1\n\n1234567"])
def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "losses.f64"
    path.write_bytes(content)
    with pytest.raises(RunError, match="damaged"):
        read_losses(path)


def test_a_full_disk_stops_the_run() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    file = LossFile(full)
    with pytest.raises(OSError):  # noqa: PT011
        file.append(1, [1.0])
