"""Users' own code: which packages are trusted, and how a `kind: custom` node becomes an object.

Trust comes from the command line (`lmexp -p my_pkg train ...`) or from an installed package's entry point in the group
`lmexp.plugins`, never from YAML or run.json. A target must be a class that is defined inside a trusted package.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.metadata
import inspect
import os
import re
import sys
from pathlib import Path
from typing import Any

from lmexp.errors import ConfigError

ENTRY_POINT_GROUP = "lmexp.plugins"

_trusted: dict[str, str] = {}
"""Trusted package or module -> "-p" or "entry point"."""


def trust(names: list[str]) -> None:
    """Import the packages given with -p and trust them. The current folder is searched last."""
    if names and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")) or name.endswith(".py"):
            stem = re.sub(r"\W+", ".", name.removesuffix("/").removesuffix(".py")).strip(".")
            raise ConfigError(
                f"-p {name}: expected a package's name as in `import my_pkg`, not a path; try -p {stem or 'my_pkg'}"
            )
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise ConfigError(
                f"-p {name}: no such package was found in the current folder ({os.getcwd()}) or among the installed "
                f"ones; check the name, or put its parent folder on PYTHONPATH"
            ) from None
        _trusted[name] = "-p"


def trust_entry_points() -> None:
    """Import and trust what installed packages offer in the entry-point group lmexp.plugins."""
    for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        package = entry.value.partition(":")[0]
        if package not in _trusted:
            try:
                importlib.import_module(package)
            except Exception as error:
                installed = entry.dist.name if entry.dist is not None else package
                raise ConfigError(
                    f"the installed package {installed} offers a plugin, {entry.value} ({ENTRY_POINT_GROUP}), which "
                    f"can't be imported ({type(error).__name__}: {error}); mend it, or pip uninstall {installed}"
                ) from error
            _trusted[package] = "entry point"


def trusted() -> list[str]:
    """Names given with -p so far: what a parent passes on to its workers."""
    return [name for name, origin in _trusted.items() if origin == "-p"]


def child_environment() -> dict[str, str]:
    """Environment in which a Python process of ours can import what this one can, and nothing else from the folder in
    which it stands: that may be a run folder that somebody sent."""
    paths = [os.path.abspath(path) for path in sys.path]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


def code_digest(cls: type) -> str | None:
    """SHA-256 of the file that defines a class of the user's, so that what was made by other code is not taken for what
    this code would make; None for lmexp's own, whose version tells.
    """
    if cls.__module__.partition(".")[0] == "lmexp":
        return None
    try:
        path = inspect.getsourcefile(cls)
    except TypeError:  # defined in no file
        path = None
    code = Path(path).read_bytes() if path is not None and Path(path).is_file() else cls.__qualname__.encode()
    return hashlib.sha256(code).hexdigest()


def check_target(where: str, target: str) -> None:
    """Raise ConfigError unless target has the form my_pkg.module:ClassName. Imports nothing."""
    module, _, name = target.partition(":")
    parts = [*module.split("."), *name.split(".")]
    if not all(part.isidentifier() for part in parts):
        given = f"is {target!r}" if target else "is not set"
        raise ConfigError(
            f"{where}.target {given}; expected my_pkg.module:ClassName, a class of a package trusted with -p my_pkg"
        )


def resolve(where: str, target: str) -> type:
    """The class that target names. It must be defined in a trusted package."""
    check_target(where, target)
    module_name, _, qualified_name = target.partition(":")
    package = next((name for name in _trusted if f"{module_name}.".startswith(f"{name}.")), None)
    if package is None:
        top = module_name.partition(".")[0]
        known = f"trusted now: {', '.join(_trusted)}" if _trusted else "nothing is trusted now"
        raise ConfigError(
            f"{where}.target is {target}, but the package {top} is not trusted ({known}); "
            f"config text never chooses code on its own: name the package on the command line, lmexp -p {top} ..."
        )
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        raise ConfigError(f"{where}.target is {target}, but there is no module {module_name}") from None
    for part in qualified_name.split("."):
        if not hasattr(found, part):
            raise ConfigError(
                f"{where}.target is {target}, but {module_name} has no {part}{did_you_mean(part, vars(found))}"
            )
        found = getattr(found, part)
    if not isinstance(found, type) or not f"{found.__module__}.".startswith(f"{package}."):
        raise ConfigError(
            f"{where}.target is {target}, which is {_describe(found)}; expected a class defined in {package}"
        )
    return found


def construct(
    where: str, target: str, args: dict[str, Any], *, base: type | None = None, facts: dict[str, Any] | None = None
) -> Any:
    """An instance of target made from args and from those facts that its signature names.

    facts: what is known only at run time (vocab_size, model, ...); args win over facts.
    """
    found = resolve(where, target)
    if base is not None and not issubclass(found, base):
        raise ConfigError(f"{where}.target is {target}; expected a subclass of {base.__module__}.{base.__qualname__}")
    return found(**check_args(where, found, args, facts or {}))


def takes(where: str, target: str, name: str) -> bool:
    """Whether the class that target names has a parameter of this name."""
    return name in inspect.signature(resolve(where, target)).parameters


def check_args(where: str, found: type, args: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """args and the facts that found's signature names, or a ConfigError that names what doesn't fit."""
    check_names(where, found, args)
    parameters = inspect.signature(found).parameters
    named = _named(found)
    chosen = {name: value for name, value in facts.items() if name in named} | args
    missing = [n for n in named if n not in chosen and parameters[n].default is inspect.Parameter.empty]
    if missing:
        raise ConfigError(
            f"{where}.args lacks {', '.join(missing)}, which {found.__qualname__} needs; "
            f"give {where}.args.{missing[0]}=..."
        )
    return chosen


def check_names(where: str, found: type, args: dict[str, Any]) -> None:
    """Raise ConfigError for an argument that found's signature doesn't name."""
    named = _named(found)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(found).parameters.values())
    for name in args:
        if name not in named and not open_ended:
            raise ConfigError(
                f"{where}.args.{name} is not a parameter of {found.__qualname__}({', '.join(named)})"
                f"{did_you_mean(name, named)}"
            )


def _named(found: type) -> list[str]:
    """Parameters that can be given by name."""
    parameters = inspect.signature(found).parameters
    return [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def did_you_mean(wrong: str, known: Any) -> str:
    """'; did you mean x?' when something known is near, else an empty string."""
    near = difflib.get_close_matches(wrong, [str(k) for k in known], n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _describe(found: Any) -> str:
    if isinstance(found, type):
        return f"a class defined in {found.__module__}"
    return f"a {type(found).__name__}, not a class"
