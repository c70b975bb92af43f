"""lmexp: a configuration-driven experiment framework for language models.

>>> import lmexp
>>> config = lmexp.compose(["model=llama_tiny", "optimizer.lr=3e-4"])
>>> config.optimizer.lr
0.0003
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "compare": "lmexp.api",
    "compose": "lmexp.api",
    "prepare": "lmexp.api",
    "train": "lmexp.api",
    "resume": "lmexp.api",
    "evaluate": "lmexp.api",
    "Run": "lmexp.api",
    "load": "lmexp.runs.load",
    "LoadedModel": "lmexp.runs.load",
    "trust": "lmexp.api",
    "register": "lmexp.config.schema",
    "Secret": "lmexp.redaction",
    "TrainConfig": "lmexp.config.schema",
    "LmexpError": "lmexp.errors",
}
"""Public name -> the module that defines it; imported when first used, so that `import lmexp` costs nothing."""

__all__ = [*_HOMES, "__version__"]

if TYPE_CHECKING:
    from lmexp.api import Run as Run
    from lmexp.api import compare as compare
    from lmexp.api import compose as compose
    from lmexp.api import evaluate as evaluate
    from lmexp.api import prepare as prepare
    from lmexp.api import resume as resume
    from lmexp.api import train as train
    from lmexp.api import trust as trust
    from lmexp.config.schema import TrainConfig as TrainConfig
    from lmexp.config.schema import register as register
    from lmexp.errors import LmexpError as LmexpError
    from lmexp.redaction import Secret as Secret
    from lmexp.runs.load import LoadedModel as LoadedModel
    from lmexp.runs.load import load as load


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lmexp' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
