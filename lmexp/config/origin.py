"""A run's frozen config as what a command begins with: `lmexp train from=RUN model=gpt_tiny optimizer.lr=1e-4`.

In Hydra's ConfigStore each node of run.json becomes the option `from_run` of its group, and a config of that name,
which chooses all these options in the order of train.yaml, takes the place of train.yaml. So values, groups and
experiments override a run just as they override the defaults, and what is wrong with them is told in the same way.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from lmexp.config.freeze import read_body, read_record, require_plugins
from lmexp.config.overrides import NULLABLE, escaped
from lmexp.config.schema import DICT_GROUPS, HELD, SCHEMAS
from lmexp.errors import ConfigError
from lmexp.evaluation.benchmarks.config import PATHS as ITEM_PATHS
from lmexp.evaluation.benchmarks.config import BenchmarkConfig
from lmexp.paths import CONF_DIR, RUN_JSON

FROM = "from="
"""What such an override begins with."""
OPTION = "from_run"
"""Name of the option that a run's node is, and of the config that chooses them all."""
PATHS = ("run.root", "data.path", "data.cache_dir", "tokenizer.path", "model.path", "model.init_from")
"""Keys of paths, which in a run's config begin in the folder where the run was started."""


@dataclass(kw_only=True, slots=True)
class Origin:
    """A run folder, of which the config is taken."""

    path: Path
    run_id: str
    name: str
    """What run.name was."""
    folder: str
    """What run.folder was."""
    config: dict[str, Any]
    """Plain data, as run.json holds them."""

    @property
    def run_json(self) -> Path:
        """The file with the config."""
        return self.path / RUN_JSON

    def owned(self, config_path: str) -> tuple[str, ...]:
        """Keys of the root that the option config_path (e.g. model/from_run) takes from run.json; empty for others."""
        group, _, option = config_path.rpartition("/")
        if option != OPTION:
            return ()
        return (group,) if group else tuple(key for key in self.config if key not in _groups())

    @contextmanager
    def stored(self) -> Iterator[None]:
        """Its nodes are options of Hydra's meanwhile."""
        store = ConfigStore.instance()
        names = list(self._store(store))
        try:
            yield
        finally:
            for group, name in names:
                (store.repo[group] if group else store.repo).pop(f"{name}.yaml", None)

    def _store(self, store: ConfigStore) -> Iterator[tuple[str, str]]:
        """Store everything; the (group, name) of each."""
        for group in (group for group in _groups() if self.config.get(group)):
            for name, package, node in _options(group, self.config[group]):
                store.store(group=group, name=name, node=node, package=package)
                yield group, name
        own = {key: self.config[key] for key in self.owned(OPTION)}
        own["run"] = {**own["run"], "name": None, "folder": None}  # compose fills them in
        store.store(name=OPTION, node={"defaults": self._defaults(), **own})
        yield "", OPTION

    def _defaults(self) -> list[Any]:
        """The defaults list of train.yaml, with this run's options."""
        defaults: list[Any] = []
        for entry in _train_defaults():
            if isinstance(entry, dict):
                group = next(iter(entry))
                held = self.config.get(group)
                if group in DICT_GROUPS:
                    entry = {group: [OPTION] if held else []}
                elif group in self.config:
                    entry = {group: "null" if held is None and group in NULLABLE else OPTION}
            defaults.append(entry)
        return defaults


def read_origin(path: Path, *, rebase: bool = True) -> Origin:
    """The config of a run folder; RunError where it isn't one, or needs packages that aren't trusted.

    rebase: paths keep their meaning where the current folder isn't the one in which the run was started.
    """
    body, record = read_body(path), read_record(path)
    config = body["config"]
    if rebase and Path(record.cwd) != Path.cwd():
        config = _rebased(config, Path(record.cwd))
    return Origin(
        path=path, run_id=record.run_id, name=record.name, folder=record.config.run.folder or record.name, config=config
    )


def split_origin(overrides: list[str]) -> tuple[Origin | None, list[str]]:
    """The run that from=RUN among overrides names, and the other overrides."""
    path = _named_run(overrides)
    if path is None:
        return None, overrides
    require_plugins_of_origin(overrides, shlex.join(["train", *overrides]))
    return read_origin(path), [text for text in overrides if not _is_from(text)]


def require_plugins_of_origin(overrides: list[str], command: str) -> None:
    """RunError, with the command that works, where the run that from=RUN names needs packages that aren't trusted.

    command: what was typed after lmexp.
    """
    path = _named_run(overrides)
    if path is not None:
        require_plugins(path, command)


def _named_run(overrides: list[str]) -> Path | None:
    """The folder that from=RUN names."""
    given = [text for text in overrides if _is_from(text)]
    if not given:
        return None
    path = given[0].removeprefix(FROM).strip("'\"")
    if given[1:] or not path or not given[0].startswith(FROM):
        raise ConfigError(
            f"{' '.join(given)}: expected the folder of one run, {FROM}outputs/<experiment>/<run id>; `lmexp runs` "
            f"lists them"
        )
    return Path(path)


def _is_from(text: str) -> bool:
    return text.lstrip("+~").startswith(FROM)


def _options(group: str, node: dict[str, Any]) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
    """Name, package and content of the options that a group's node becomes."""
    if group in DICT_GROUPS:
        schemas: list[Any] = [{f"/schema/{group}@{name}": inner["kind"]} for name, inner in node.items()]
        yield OPTION, group, {"defaults": [*schemas, "_self_"], **node}
        return
    if "kind" not in node:
        yield OPTION, None, node
        return
    defaults: list[Any] = [{f"/schema/{group}@_here_": node["kind"]}]
    own = dict(node)
    for place, held_group in HELD.items():
        outer, _, inner = place.partition(".")
        if outer != group or not isinstance(own.get(inner), dict):
            continue
        for name, part in own.pop(inner).items():
            defaults.append({f"/{held_group}@{inner}.{name}": f"{OPTION}_{name}"})
            yield f"{OPTION}_{name}", None, {"defaults": [_schema(held_group, part), "_self_"], **part}
    yield OPTION, None, {"defaults": [*defaults, "_self_"], **own}


def _schema(group: str, node: dict[str, Any]) -> dict[str, str]:
    return {f"/schema/{group}@_here_": node["kind"]}


def _train_defaults() -> list[Any]:
    defaults: Any = OmegaConf.to_container(OmegaConf.load(CONF_DIR / "train.yaml").defaults)
    return list(defaults)


def _groups() -> list[str]:
    """Groups of train.yaml that a run has a node of."""
    named = [next(iter(entry)) for entry in _train_defaults() if isinstance(entry, dict)]
    return [group for group in named if not group.startswith("/") and group != "experiment"]


def _rebased(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """config with its relative paths made absolute, as seen from a folder."""
    changed: dict[str, Any] = {**config}
    for key in PATHS:
        group, _, name = key.partition(".")
        if isinstance(changed.get(group), dict):
            changed[group] = _with_path(changed[group], name, folder)
    changed["evaluation"] = with_absolute_items(config["evaluation"], folder)
    parts = changed["data"].get("parts")
    if isinstance(parts, dict):
        changed["data"]["parts"] = {name: _with_path(part, "path", folder) for name, part in parts.items()}
    return changed


def with_absolute_items(nodes: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Nodes of evaluations by name, with the relative paths of their items made absolute, as seen from a folder."""
    changed = {}
    for name, node in nodes.items():
        if issubclass(SCHEMAS["evaluation"][node["kind"]], BenchmarkConfig):
            for option in set(ITEM_PATHS) & set(node):
                node = _with_path(node, option, folder)
        changed[name] = node
    return changed


def _with_path(node: dict[str, Any], name: str, folder: Path) -> dict[str, Any]:
    text = node.get(name)
    if not isinstance(text, str) or not text or text.startswith(("/", "~", "${")):
        return {**node}
    if node.get("kind") == "hf" and not (folder / text).exists():  # a name on the Hub
        return {**node}
    return {**node, name: f"{escaped(str(folder))}/{text}"}
