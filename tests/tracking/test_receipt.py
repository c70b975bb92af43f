import json
import platform
import subprocess
from pathlib import Path

import pytest
import torch

from lmexp.errors import RunError
from lmexp.redaction import REDACTED
from lmexp.tracking import receipt as receipts
from lmexp.tracking.receipt import (
    add_losses,
    going_on,
    gpu_driver,
    packages,
    read_receipt,
    receipt,
    repository,
    write_receipt,
)


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "net.py").write_text("d = 1\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def test_a_clean_repository_is_its_commit(project: Path) -> None:
    found = repository(project)
    assert found is not None
    assert found["commit"] == git(project, "rev-parse", "HEAD")
    assert (found["dirty"], found["patch"], found["untracked"]) == (False, "", [])


def test_the_patch_rebuilds_the_code(project: Path, tmp_path: Path) -> None:
    (project / "net.py").write_text("d = 2\n")
    (project / "blob").write_bytes(bytes(range(256)))
    git(project, "add", "blob")
    (project / "new.py").write_text("")
    found = repository(project)
    assert found is not None
    assert found["dirty"]
    assert found["untracked"] == ["new.py"]
    copy = tmp_path / "copy"
    git(tmp_path, "clone", "-q", str(project), str(copy))
    subprocess.run(["git", "apply"], cwd=copy, input=found["patch"].encode(), check=True)
    assert (copy / "net.py").read_text() == "d = 2\n"
    assert (copy / "blob").read_bytes() == bytes(range(256))


def test_a_huge_patch_is_left_out_and_says_its_size(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "MOST_PATCH_BYTES", 100)
    (project / "net.py").write_text("d = 2\n" * 1000)
    found = repository(project)
    assert found is not None
    assert found["dirty"]
    assert found["patch"] is None
    assert found["patch_bytes"] > 6000


def test_a_folder_without_a_repository_or_commit_is_no_error(tmp_path: Path) -> None:
    assert repository(tmp_path) is None
    git(tmp_path, "init", "-q")
    found = repository(tmp_path)
    assert found is not None
    assert (found["commit"], found["patch"], found["dirty"]) == (None, None, False)


def test_the_receipt_says_what_ran_where(project: Path, tmp_path: Path) -> None:
    content = receipt({"data": {"fingerprint": "abc"}}, folder=project)
    write_receipt(tmp_path / "receipt.json", content)
    read = read_receipt(tmp_path / "receipt.json")
    assert read == content
    assert read["code"]["current_folder"]["root"] == str(project.resolve())
    assert read["data"] == {"fingerprint": "abc"}
    assert f"torch=={torch.__version__}".partition("+")[0] in " ".join(read["packages"])
    assert read["torch"]["version"] == str(torch.__version__)
    assert platform.python_version() in read["python"]
    assert read["cpu"]["threads"] >= read["cpu"]["usable_threads"] >= 1
    assert read["memory_bytes"] > 2**28
    assert len(read["gpus"]) == (torch.cuda.device_count() if torch.cuda.is_available() else 0)


def test_determinism_settings_are_those_of_this_process(project: Path) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(not before)
        assert receipt(folder=project)["determinism"]["deterministic_algorithms"] is not before
    finally:
        torch.use_deterministic_algorithms(before)


def test_secrets_are_not_in_the_receipt(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_TOKEN", "canary-0123456789")
    monkeypatch.setattr("sys.argv", ["lmexp", "train", "--secret-of-argv"])
    (project / "net.py").write_text('token = "canary-0123456789"\n')
    text = json.dumps(receipt({"note": "canary-0123456789"}, folder=project))
    assert "canary-0123456789" not in text
    assert "secret-of-argv" not in text
    assert REDACTED in text


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 2024", "550.54.15"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82.07  Release Build", "580.82.07"),
        ("", None),
    ],
)
def test_the_gpu_driver_is_found(text: str, version: str | None) -> None:
    assert gpu_driver(text) == version


def test_packages_are_sorted_and_unique() -> None:
    names = [line.partition("==")[0].lower() for line in packages()]
    assert names == sorted(names)
    assert len(set(packages())) == len(packages())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged"),
        ('{"format": "lmexp.receipt", "version": 3}', "version 3"),
        ("[]", "expected a JSON object, got a list"),
    ],
)
def test_an_unknown_or_damaged_receipt_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "receipt.json"
    with pytest.raises(RunError, match="missing"):
        read_receipt(path)
    path.write_text(text)
    with pytest.raises(RunError, match=message):
        read_receipt(path)


def test_a_run_that_goes_on_elsewhere_keeps_what_was_other_before(tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    first = receipt({"run_id": "a"}, folder=tmp_path)
    write_receipt(path, first)
    assert (first["earlier"], first["losses"]) == ([], None)
    second = going_on(read_receipt(path), first | {"host": "elsewhere", "created": "later"}, step=40)
    write_receipt(path, second)
    third = going_on(read_receipt(path), second | {"cpu": None, "created": "last"}, step=90)
    assert third["host"] == "elsewhere"
    assert third["earlier"] == [
        {"created": first["created"], "until_step": 40, "others": {"host": first["host"]}},
        {"created": "later", "until_step": 90, "others": {"cpu": first["cpu"]}},
    ]


def test_the_digest_of_the_losses_is_added_when_training_is_done(tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    write_receipt(path, receipt(folder=tmp_path))
    before = read_receipt(path)
    add_losses(path, {"n_steps": 3, "sha256": "ab"})
    assert read_receipt(path) == before | {"losses": {"n_steps": 3, "sha256": "ab"}}
