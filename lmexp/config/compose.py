"""Compose a command's config with Hydra, check it whole, and say everything that is wrong at once.

Hydra stops at the first error. So when composing fails, `diagnose` (lmexp.config.diagnose) composes again, override by
override, and every finding goes into one ConfigError.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from lmexp import plugins
from lmexp.config.schema import COMMANDS, DICT_GROUPS, SCHEMAS
from lmexp.errors import ConfigError
from lmexp.paths import CONF_DIR

RAW_TEXT_KEYS = ("prompt", "run", "data.path")
"""Keys whose value is taken literally, so that no character of it needs Hydra's quoting."""

COMPOSE_ERRORS = (HydraException, OmegaConfBaseException, ConfigError, AttributeError, ValueError)


@dataclass(kw_only=True, slots=True)
class Composed:
    """A valid config and how it came about."""

    config: Any
    """The command's typed config: TrainConfig, EvaluateConfig or GenerateConfig."""
    node: DictConfig
    """The same before interpolations were resolved."""
    overrides: list[str]
    """What was typed."""
    choices: dict[str, str]
    """Group -> chosen option, for the groups that hold one."""


@dataclass(kw_only=True, slots=True)
class LoadedFile:
    """One element of the defaults list."""

    config_path: str
    """Group and option, e.g. model/gpt_tiny."""
    package: str
    """Where in the config it goes, e.g. model; empty is the root."""
    path: Path | None
    """The YAML file; None for a schema."""


class Composer:
    """Composes one command's config, many times if need be, inside one Hydra initialization."""

    def __init__(self, command: str, loader: ConfigLoader, config_dirs: list[Path]) -> None:
        self.command = command
        self.loader = loader
        self.config_dirs = config_dirs
        urls = ",".join(repr(f"file://{folder}") for folder in config_dirs)
        self._search_path = [f"hydra.searchpath=[{urls}]"] if config_dirs else []

    def compose(self, overrides: list[str]) -> tuple[DictConfig, dict[str, str]]:
        """The untyped config and the group choices; Hydra's own errors."""
        full = hydra_compose(self.command, [*overrides, *self._search_path], return_hydra_config=True)
        choices = {k: str(v) for k, v in full.hydra.runtime.choices.items() if v is not None and "hydra/" not in k}
        with open_dict(full):
            del full["hydra"]
        return full, choices

    def files(self, overrides: list[str]) -> list[LoadedFile]:
        """The YAML files and schemas that make up the config, in the order in which they are merged."""
        defaults = self.loader.compute_defaults_list(self.command, [*overrides, *self._search_path], RunMode.RUN)
        return [
            LoadedFile(config_path=d.config_path, package=d.package or "", path=self._file(d.config_path))
            for d in defaults.defaults
            if d.config_path is not None and not d.config_path.startswith("hydra/")
        ]

    def _file(self, config_path: str) -> Path | None:
        for folder in [CONF_DIR, *self.config_dirs]:
            if (path := folder / f"{config_path}.yaml").is_file():
                return path
        return None

    def groups(self) -> list[str]:
        """Groups whose option can be chosen by `group=option`."""
        found = self.loader.get_group_options("", ObjectType.GROUP, self.command, self._search_path)
        return sorted(set(found) - {"hydra", "schema"})

    def options(self, group: str) -> list[str]:
        """Options of a group."""
        return sorted(self.loader.get_group_options(group, ObjectType.CONFIG, self.command, self._search_path))


@contextmanager
def composer(command: str, config_dirs: list[str] | None = None) -> Iterator[Composer]:
    """A Composer for a command; config_dirs are searched after lmexp's own conf/."""
    store_schemas()
    for folder in config_dirs or []:
        if not Path(folder).is_dir():
            raise ConfigError(f"--config-dir {folder}: there is no such folder")
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR), job_name=command):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        yield Composer(command, hydra.config_loader, [Path(folder).absolute() for folder in config_dirs or []])


def compose(
    overrides: list[str] | None = None, *, command: str = "train", config_dirs: list[str] | None = None
) -> Composed:
    """Compose, check and type a command's config.

    overrides: as typed, e.g. ["model=llama_tiny", "optimizer.lr=3e-4"].
    Raises ConfigError naming every bad override, failed check and broken file.
    """
    overrides = [literal_override(o) for o in overrides or []]
    with composer(command, config_dirs) as composing:
        try:
            node, choices = composing.compose(overrides)
            if command == "train":
                name_run(node, choices)
            config = to_typed(node)
        except COMPOSE_ERRORS as error:
            from lmexp.config.diagnose import diagnose

            findings = diagnose(composing, overrides)
            if not findings:
                raise
            raise ConfigError("\n".join(findings)) from error
    return Composed(config=config, node=node, overrides=overrides, choices=choices)


def name_run(node: DictConfig, choices: dict[str, str]) -> None:
    """Fill in run.name and run.folder where they are null."""
    parts = [choices.get("data"), choices.get("model") or choices.get("task")]
    if node.run.name is None:
        node.run.name = choices.get("experiment") or "-".join(part for part in parts if part)
    if node.run.folder is None:
        node.run.folder = choices.get("experiment") or node.run.name


def to_typed(node: DictConfig) -> Any:
    """The dataclass tree; every `__post_init__` check has passed."""
    missing = sorted(OmegaConf.missing_keys(node))
    if missing:
        raise ConfigError(f"{missing[0]} must be given, e.g. {missing[0]}=...")
    return OmegaConf.to_object(node)


def literal_override(typed: str) -> str:
    """The override as Hydra should read it.

    `+experiment=x`, the habit of lightning-hydra-template, becomes `experiment=x`; text keys are quoted.
    """
    if typed.startswith("+experiment="):
        return typed[1:]
    key, equals, value = typed.partition("=")
    if equals and key.lstrip("+") in RAW_TEXT_KEYS and value and not _is_quoted(value) and value != "null":
        escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${")
        return f"{key}='{escaped}'" if "${oc.env:" not in value else typed
    return typed


def parse_override(text: str) -> Override:
    """Hydra's parse of one override, or a ConfigError that shows how to quote."""
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        key, _, value = text.partition("=")
        hint = f"quote it: '{key}=\"{value}\"'" if value else "write key=value, e.g. optimizer.lr=3e-4"
        raise ConfigError(f"{text}: can't be read as an override; {hint}") from None


def _is_quoted(value: str) -> bool:
    return len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""


def store_schemas() -> None:
    """Put every schema into Hydra's ConfigStore, and plugins' kinds as selectable options."""
    store = ConfigStore.instance()
    for command, root in COMMANDS.items():
        store.store(group=f"schema/{command}", name="base", node=root)
    for group, kinds in SCHEMAS.items():
        for kind, schema in kinds.items():
            store.store(group=f"schema/{group}", name=kind, node=_node(schema))
            if schema.__module__.partition(".")[0] != "lmexp":
                package = f"{group}.{kind}" if group in DICT_GROUPS else group
                store.store(group=group, name=kind, node=_node(schema), package=package)


def _node(schema: type) -> DictConfig:
    """A schema as a node, without running its checks: YAML and overrides may still fill it."""
    node: DictConfig = OmegaConf.structured(schema)
    return node


def trusted_plugins(names: list[str]) -> None:
    """Import what -p names and what installed packages offer, so that their kinds are known."""
    plugins.trust_entry_points()
    plugins.trust(names)
