"""The wheel holds all that a user needs: built here, installed elsewhere, run from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.end_to_end.command import TINY, only_run, write_corpus

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; it must succeed, and it must not find the checkout by PYTHONPATH."""
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", *options, folder, ROOT, cwd=folder)
    (path,) = folder.glob("lmexp-*.whl")
    return path


@pytest.fixture(scope="module")
def binaries(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of a fresh environment with the wheel, which borrows everything else from the running one."""
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment)
    python = environment / "bin" / "python"
    (packages,) = environment.glob("lib/python*/site-packages")
    # A path file within a borrowed folder isn't read, so an editable lmexp there stays out of sight.
    borrowed = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    (packages / "borrowed.pth").write_text("\n".join(borrowed), encoding="utf-8")
    options = ("--quiet", "--no-deps", "--no-index", "--ignore-installed")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel, cwd=environment)
    return environment / "bin"


def test_it_holds_the_package_and_every_yaml_and_no_test(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in [*(ROOT / "conf").rglob("*.yaml"), *(ROOT / "lmexp").rglob("*.py")]:
        inside = path.relative_to(ROOT).as_posix()
        assert (f"lmexp/{inside}" if inside.startswith("conf/") else inside) in names
    assert "lmexp/py.typed" in names, "type checkers ignore a package without py.typed"
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"lmexp"}
    assert not [name for name in names if "test" in name or "__pycache__" in name]


def test_it_runs_from_another_folder(binaries: Path, tmp_path: Path) -> None:
    where = run(binaries / "python", "-c", "import lmexp; print(lmexp.__file__)", cwd=tmp_path)
    assert where.startswith(str(binaries.parent))
    assert "train" in run(binaries / "lmexp", "--help", cwd=tmp_path)
    assert "kind: gpt" in run(binaries / "lmexp", "train", "--cfg", "job", cwd=tmp_path)


def test_it_trains(binaries: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path)
    run(binaries / "lmexp", "train", *TINY, "trainer.max_steps=3", cwd=tmp_path)
    folder = only_run(tmp_path / "outputs")
    assert (folder / "report.html").is_file()
    assert (folder / "evaluation" / "summary.json").is_file()
