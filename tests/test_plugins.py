"""Trusted code: what -p allows, and what nothing allows."""

from __future__ import annotations

import importlib.metadata
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import lmexp
from lmexp import plugins
from lmexp.config.compose import compose
from lmexp.config.freeze import plain_config, to_config
from lmexp.errors import ConfigError
from lmexp.models.config import ModelConfig
from lmexp.tokenizers.config import TokenizerConfig

NETS = """
    import collections
    import os
    from collections import OrderedDict
    from pathlib import Path

    Path(__file__).with_name("imported").touch()

    class Net:
        class Inner:
            pass

        def __init__(self, width, depth=2, *, vocab_size=None):
            self.facts = (width, depth, vocab_size)

    class Open:
        def __init__(self, **settings):
            self.settings = settings

    def function():
        return Net(1)

    instance = Net(1)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """package("my_pkg.nets", code) writes a module into the folder the command is typed in."""
    monkeypatch.chdir(tmp_path)

    def write(module: str, code: str) -> Path:
        path = tmp_path / (module.replace(".", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        for parent in path.parent.relative_to(tmp_path).parents:
            if path.parent != tmp_path:
                (tmp_path / parent / path.parent.name / "__init__.py").touch()
        path.write_text(textwrap.dedent(code), encoding="utf-8")
        return path

    return write


@pytest.fixture
def my_pkg(package: Callable[[str, str], Path]) -> Path:
    """my_pkg.nets and other_pkg.nets with the same content; my_pkg is trusted."""
    path = package("my_pkg.nets", NETS)
    package("other_pkg.nets", NETS)
    plugins.trust(["my_pkg"])
    return path


def refusal(target: str, args: dict[str, Any] | None = None, **settings: Any) -> str:
    """What construct says."""
    with pytest.raises(ConfigError) as caught:
        plugins.construct("model", target, args or {}, **settings)
    return str(caught.value)


@pytest.mark.usefixtures("my_pkg")
def test_a_class_of_a_trusted_package_is_made_with_args_and_the_facts_it_names() -> None:
    made = plugins.construct("model", "my_pkg.nets:Net", {"width": 3}, facts={"vocab_size": 9, "unasked": 1})
    assert made.facts == (3, 2, 9)
    assert (
        plugins.construct("model", "my_pkg.nets:Net", {"width": 3, "vocab_size": 1}, facts={"vocab_size": 9}).facts[2]
        == 1
    )
    assert type(plugins.construct("model", "my_pkg.nets:Net.Inner", {})).__name__ == "Inner"


@pytest.mark.usefixtures("my_pkg")
def test_a_class_with_open_arguments_takes_any() -> None:
    assert plugins.construct("model", "my_pkg.nets:Open", {"a": 1}, facts={"vocab_size": 9}).settings == {"a": 1}


def test_an_untrusted_package_is_refused_and_not_imported(my_pkg: Path) -> None:
    other = my_pkg.parents[1] / "other_pkg"
    said = refusal("other_pkg.nets:Net")
    assert "model.target is other_pkg.nets:Net, but the package other_pkg is not trusted (trusted now: my_pkg)" in said
    assert "lmexp -p other_pkg ..." in said
    assert not (other / "imported").exists()
    assert "other_pkg" not in sys.modules


@pytest.mark.usefixtures("my_pkg")
@pytest.mark.parametrize(
    "target", ["os:system", "builtins:exec", "my_pkgs.nets:Net", "lmexp.errors:LmexpError", "my:Net"]
)
def test_nothing_but_the_trusted_package_is_reachable(target: str) -> None:
    assert "is not trusted" in refusal(target)


@pytest.mark.usefixtures("my_pkg")
@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("my_pkg.nets:os.system", "a builtin_function_or_method, not a class"),
        ("my_pkg.nets:os", "a module, not a class"),
        ("my_pkg.nets:OrderedDict", "a class defined in collections"),
        ("my_pkg.nets:collections.Counter", "a class defined in collections"),
        ("my_pkg.nets:Path", "a class defined in pathlib"),
        ("my_pkg.nets:Net.__class__", "a class defined in builtins"),
        ("my_pkg.nets:function", "a function, not a class"),
        ("my_pkg.nets:instance", "a Net, not a class"),
    ],
)
def test_what_a_trusted_package_merely_imported_is_refused(target: str, found: str) -> None:
    said = refusal(target)
    assert found in said
    assert "expected a class defined in my_pkg" in said


@pytest.mark.usefixtures("my_pkg")
@pytest.mark.parametrize(
    "target", ["", "my_pkg.nets", "my_pkg.nets:", ":Net", "my_pkg/nets.py:Net", "my_pkg.nets:Net()", "a b:c"]
)
def test_a_target_of_another_form_is_refused(target: str) -> None:
    assert "expected my_pkg.module:ClassName" in refusal(target)


@pytest.mark.usefixtures("my_pkg")
def test_a_wrong_module_name_or_argument_is_told_with_the_near_one() -> None:
    assert "there is no module my_pkg.netz" in refusal("my_pkg.netz:Net")
    assert "my_pkg.nets has no Nett; did you mean Net?" in refusal("my_pkg.nets:Nett")
    said = refusal("my_pkg.nets:Net", {"widht": 3})
    assert "model.args.widht is not a parameter of Net(width, depth, vocab_size); did you mean width?" in said
    assert "model.args lacks width, which Net needs; give model.args.width=..." in refusal("my_pkg.nets:Net")


@pytest.mark.usefixtures("my_pkg")
def test_a_class_of_the_wrong_family_is_refused() -> None:
    assert "expected a subclass of builtins.dict" in refusal("my_pkg.nets:Net", {"width": 1}, base=dict)


def test_only_the_named_module_is_trusted_not_its_package(package: Callable[[str, str], Path]) -> None:
    package("my_pkg.nets", NETS)
    package("my_pkg.more", NETS)
    plugins.trust(["my_pkg.nets"])
    assert plugins.construct("model", "my_pkg.nets:Net", {"width": 1})
    assert "is not trusted" in refusal("my_pkg.more:Net")
    assert plugins.trusted() == ["my_pkg.nets"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nosuch_pkg", "no such package was found in the current folder"),
        ("./my_pkg.py", "expected a package's name as in `import my_pkg`, not a path; try -p my_pkg"),
        ("src/my_pkg/", "try -p src.my_pkg"),
        ("my-pkg", "not a path"),
    ],
)
def test_a_package_that_cant_be_found_is_told(name: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plugins.trust([name])
    assert told in str(caught.value)
    assert plugins.trusted() == []


def test_an_error_inside_the_package_is_not_hidden(package: Callable[[str, str], Path]) -> None:
    package("broken_pkg", "import a_module_that_is_missing\n")
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_missing"):
        plugins.trust(["broken_pkg"])
    package("b", "import brok\n")
    with pytest.raises(ModuleNotFoundError, match="brok"):
        plugins.trust(["b"])


def test_an_installed_packages_entry_point_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "entry_pkg.py").write_text("class Net: pass\n")
    info = tmp_path / "entry_pkg-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: entry-pkg\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lmexp.plugins]\nmine = entry_pkg\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importlib.metadata.entry_points(group="lmexp.plugins")
    plugins.trust_entry_points()
    assert plugins.construct("model", "entry_pkg:Net", {})
    assert plugins.trusted() == [], "workers find an entry point by themselves"
    (info / "entry_points.txt").write_text("[lmexp.plugins]\nmine = broken_entry_pkg\n")
    with pytest.raises(ConfigError, match=r"entry-pkg offers a plugin, broken_entry_pkg.*pip uninstall entry-pkg"):
        plugins.trust_entry_points()


@dataclass(kw_only=True, slots=True)
class MineConfig(ModelConfig):
    """A model of one's own, registered under a kind."""

    kind: str = "mine"
    width: int = 8
    sizes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.width % 2:
            raise ConfigError(f"model.width is {self.width}; expected an even number")


@dataclass(kw_only=True)
class OpenConfig(ModelConfig):
    """Without slots, as a newcomer writes it."""

    kind: str = "open"
    width: int = 8


def test_a_registered_kind_is_selectable_without_yaml_and_frozen_and_read() -> None:
    lmexp.register("model", "mine", MineConfig)
    composed = compose(["model=mine", "model.width=4", "model.sizes=[1,2]"])
    assert composed.config.model == MineConfig(width=4, sizes=[1, 2])
    assert to_config("train", plain_config(composed.node)) == composed.config
    with pytest.raises(ConfigError, match=r"model\.width is 3; expected an even number"):
        compose(["model=mine", "model.width=3"])
    with pytest.raises(ConfigError, match="did you mean mine"):
        compose(["model=mihe"])


def test_a_registered_kind_has_presets_in_yaml(tmp_path: Path) -> None:
    lmexp.register("model", "mine", MineConfig)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "wide.yaml").write_text("defaults: [/schema/model@_here_: mine, _self_]\nwidth: 64\n")
    assert compose(["model=wide"], config_dirs=[str(tmp_path)]).config.model == MineConfig(width=64)


@pytest.mark.parametrize("typed", ["model.widht=3", "+model.widht=3", "++model.widht=3"])
def test_a_registered_kind_is_closed_with_slots_or_without(typed: str) -> None:
    lmexp.register("model", "mine", MineConfig)
    lmexp.register("model", "open", OpenConfig)
    for kind in ("mine", "open"):
        with pytest.raises(ConfigError, match=r"model has no 'widht'.*did you mean width"):
            compose([f"model={kind}", typed])


def test_forgotten_kinds_are_unknown_again() -> None:
    with pytest.raises(ConfigError, match="there is no model=mine"):
        compose(["model=mine"])


@pytest.mark.parametrize(
    ("group", "kind", "schema", "told"),
    [
        ("modle", "mine", MineConfig, "no group 'modle'; did you mean model?"),
        (
            "tokenizer",
            "mine",
            MineConfig,
            "must be a dataclass that derives from lmexp.tokenizers.config.TokenizerConfig",
        ),
        ("model", "mine", dict, "must be a dataclass that derives from lmexp.models.config.ModelConfig"),
        ("model", "mine", MineConfig(), "must be a dataclass"),
        ("model", "other", MineConfig, "MineConfig.kind is 'mine'; expected 'other'"),
        ("model", "gpt", type("GPT", (MineConfig,), {}), "kind is 'mine'; expected 'gpt'"),
    ],
)
def test_what_cant_be_registered_is_told(group: str, kind: str, schema: Any, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        lmexp.register(group, kind, schema)
    assert told in str(caught.value)


def test_a_kind_is_not_taken_over() -> None:
    @dataclass(kw_only=True, slots=True)
    class Byte(TokenizerConfig):
        kind: str = "byte"

    with pytest.raises(ConfigError, match=r"tokenizer=byte is lmexp\.tokenizers\.config\.ByteTokenizerConfig already"):
        lmexp.register("tokenizer", "byte", Byte)
    lmexp.register("model", "mine", MineConfig)
    lmexp.register("model", "mine", MineConfig)  # a package imported twice is no error
