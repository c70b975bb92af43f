"""At which line of a YAML file a key stands."""

from __future__ import annotations

from pathlib import Path

import yaml


def line_of(path: Path, package: str, full_key: str) -> int | None:
    """Line (from 1) at which the file sets full_key, or None.

    package: where in the config the file's content goes; full_key: key from the root, e.g. model.n_layer.
    """
    if package and package != "_global_":
        if full_key != package and not full_key.startswith(f"{package}."):
            return None
        full_key = full_key[len(package) + 1 :]
    node = yaml.compose(path.read_text(encoding="utf-8"))
    line: int | None = None
    for part in full_key.split("."):
        if not isinstance(node, yaml.MappingNode):
            return None
        for key, value in node.value:
            if key.value == part:
                line, node = key.start_mark.line + 1, value
                break
        else:
            return None
    return line
