"""The order of the layers: a module imports what lies below it, and only a few touch a large library.

An import inside a function counts as one at the top, since it binds the layers just as much. Two don't:
`if TYPE_CHECKING:` never runs; and what a config.py imports inside a function is what its `build()` makes, so it
counts as an import of the folder that the config belongs to.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = (
    (
        "lmexp.errors",
        "lmexp.paths",
        "lmexp.files",
        "lmexp.reading",
        "lmexp.checks",
        "lmexp.hub",
        "lmexp.plugins",
        "lmexp.redaction",
        "lmexp.stopping",
        "lmexp.output",
        "lmexp.parent",
    ),
    (),  # every config.py
    ("lmexp.config",),
    ("lmexp.tokenizers", "lmexp.metrics", "lmexp.models.layers"),
    ("lmexp.models", "lmexp.data", "lmexp.optim"),
    ("lmexp.evaluation", "lmexp.tracking"),
    ("lmexp.tasks", "lmexp.training"),
    ("lmexp.runs", "lmexp.launch", "lmexp.planning", "lmexp.reports"),
    ("lmexp.sweeps",),
    ("lmexp.api", "lmexp.cli", "lmexp.worker", "lmexp.__main__"),
)
CONFIGS = 1
"""Number of the layer of every config.py."""

KEEPERS = {
    "hydra": ("lmexp.config", "lmexp.cli"),
    "omegaconf": ("lmexp.config", "lmexp.cli"),
    "pytorch_lightning": ("lmexp.data.module", "lmexp.tasks", "lmexp.training"),
    "lightning_fabric": ("lmexp.training",),
    "transformers": ("lmexp.models",),
    "peft": ("lmexp.models",),
    "huggingface_hub": ("lmexp.hub",),
    "wandb": ("lmexp.tracking.wandb", "lmexp.tracking.upload"),
}
"""Library -> the only modules and folders that may import it."""


@dataclass(frozen=True)
class Import:
    """One imported module."""

    source: str
    """Module that imports."""
    line: int
    target: str
    """Module that is imported."""
    lazy: bool
    """Inside a function."""

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


def modules(root: Path) -> dict[str, Path]:
    """Name -> file of every module of lmexp below root."""
    found = {}
    for path in sorted((root / "lmexp").rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def imports(root: Path) -> list[Import]:
    """All imports of all modules, those for type checkers left out."""
    known = modules(root)
    return [
        Import(name, line, target, lazy)
        for name, path in known.items()
        for line, target, lazy in _imports_in(ast.parse(path.read_text(encoding="utf-8")), set(known), lazy=False)
    ]


def _imports_in(node: ast.AST, known: set[str], *, lazy: bool) -> Iterator[tuple[int, str, bool]]:
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        for child in node.orelse:
            yield from _imports_in(child, known, lazy=lazy)
        return
    if isinstance(node, ast.Import):
        yield from ((node.lineno, alias.name, lazy) for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        home = "." * node.level + (node.module or "")
        for target in {f"{home}.{a.name}" if f"{home}.{a.name}" in known else home for a in node.names}:
            yield node.lineno, target, lazy
    lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        yield from _imports_in(child, known, lazy=lazy)


def is_config(module: str) -> bool:
    """Whether a module is the config.py of a folder."""
    return module.endswith(".config") and module != "lmexp.config"


def within(module: str, home: str) -> bool:
    """Whether module is home or lies in it."""
    return f"{module}.".startswith(f"{home}.")


def layer(module: str) -> int:
    """Number of a module's layer; the longest name in LAYERS counts. lmexp itself imports nothing: the lowest."""
    if module == "lmexp":
        return 0
    if is_config(module):
        return CONFIGS
    homes = {home: number for number, names in enumerate(LAYERS) for home in names if within(module, home)}
    assert homes, f"{module} is in no layer: give it one in tests/test_layers.py and in docs/architecture.md"
    return homes[max(homes, key=len)]


def binding(found: list[Import]) -> list[Import]:
    """Imports of lmexp as they bind the layers: a lazy one of a config.py is its folder's."""
    return [
        Import(i.source.removesuffix(".config"), i.line, i.target, i.lazy) if i.lazy and is_config(i.source) else i
        for i in found
        if within(i.target, "lmexp")
    ]


def upward(found: list[Import]) -> list[str]:
    """Imports of a higher layer."""
    return [
        f"{i}: layer {layer(i.source)} must not import layer {layer(i.target)}"
        for i in binding(found)
        if layer(i.target) > layer(i.source)
    ]


def circles(found: list[Import]) -> list[str]:
    """Modules of two folders that need each other, however indirectly, apart from configs and what they build."""
    direct: dict[str, set[str]] = {}
    for i in found:
        if within(i.target, "lmexp") and not is_config(i.source):
            direct.setdefault(i.source, set()).add(i.target)
    needed = {module: _reachable(module, direct) for module in direct}
    return [
        f"{a} needs {b}, and {b} needs {a}"
        for a in needed
        for b in needed[a]
        if a < b and a in needed.get(b, ()) and a.rpartition(".")[0] != b.rpartition(".")[0]
    ]


def _reachable(start: str, direct: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    ahead = list(direct[start])
    while ahead:
        module = ahead.pop()
        if module not in seen:
            seen.add(module)
            ahead += direct.get(module, ())
    return seen


def misplaced(found: list[Import]) -> list[str]:
    """Imports of a library by a module that doesn't keep it."""
    return [
        f"{i}: only {' and '.join(keepers)} may"
        for i in found
        for library, keepers in KEEPERS.items()
        if within(i.target, library) and not any(within(i.source, keeper) for keeper in keepers)
    ]


def heavy(found: list[Import]) -> list[str]:
    """What a config.py imports at its top besides the standard library and layers 0 and 1."""
    return [
        f"{i}: a config.py may import this only inside build()"
        for i in found
        if is_config(i.source)
        and not i.lazy
        and not within(i.target, "lmexp")
        and i.target.partition(".")[0] not in sys.stdlib_module_names
    ]


RULES = {"upward": upward, "circles": circles, "misplaced": misplaced, "heavy": heavy}


@pytest.mark.parametrize("rule", RULES)
def test_imports_keep_the_order(rule: str) -> None:
    broken = RULES[rule](imports(ROOT))
    assert not broken, "\n".join(["", *broken])


def test_imports_are_absolute() -> None:
    relative = [str(i) for i in imports(ROOT) if i.target.startswith(".")]
    assert not relative, "\n".join(["", *relative])


def test_every_module_has_a_layer() -> None:
    found = modules(ROOT)
    assert len(found) > 50
    for module in found:
        layer(module)


def test_init_files_of_folders_hold_only_a_docstring() -> None:
    for path in sorted((ROOT / "lmexp").glob("*/**/__init__.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert len(body) == 1, path
        assert isinstance(body[0], ast.Expr), path


@pytest.mark.parametrize(
    ("rule", "path", "source"),
    [
        ("upward", "tokenizers/char.py", "from lmexp.data import cache"),
        ("upward", "tokenizers/char.py", "from lmexp.data.cache import TokenCache"),
        ("upward", "metrics/sums.py", "def f():\n    import lmexp.training.trainer"),
        ("upward", "models/layers/norm.py", "import lmexp.models.gpt"),
        ("upward", "models/config.py", "import lmexp.models.gpt"),
        ("upward", "models/config.py", "def build():\n    import lmexp.runs.start"),
        ("circles", "reports/card.py", "def f():\n    import lmexp.runs.folder"),
        ("misplaced", "evaluation/perplexity.py", "import pytorch_lightning as pl"),
        ("misplaced", "data/config.py", "def build():\n    from pytorch_lightning import LightningDataModule"),
        ("misplaced", "runs/start.py", "from omegaconf import OmegaConf"),
        ("misplaced", "tracking/tracker.py", "import wandb"),
        ("heavy", "optim/config.py", "import torch"),
    ],
)
def test_the_rules_see_what_they_forbid(rule: str, path: str, source: str, tmp_path: Path) -> None:
    for name in ("data/cache", "training/trainer", "models/gpt", "models/config", "runs/start", "runs/folder"):
        planted = tmp_path / "lmexp" / f"{name}.py"
        planted.parent.mkdir(parents=True, exist_ok=True)
        planted.write_text(
            {"runs/folder": "import lmexp.runs.start", "runs/start": "import lmexp.reports.card"}.get(name, "")
        )
    planted = tmp_path / "lmexp" / path
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text(source)
    assert RULES[rule](imports(tmp_path))


def test_the_rules_let_pass_what_is_allowed(tmp_path: Path) -> None:
    allowed = {
        "models/config.py": "import math\ndef build():\n    import torch, lmexp.models.gpt",
        "models/gpt.py": "import torch\nimport lmexp.models.config\nimport lmexp.errors",
        "runs/start.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import lmexp.api, omegaconf",
        "training/trainer.py": "import pytorch_lightning\nimport lmexp.models.gpt",
    }
    for path, source in allowed.items():
        planted = tmp_path / "lmexp" / path
        planted.parent.mkdir(parents=True, exist_ok=True)
        planted.write_text(source)
    assert [rule(imports(tmp_path)) for rule in RULES.values()] == [[], [], [], []]
