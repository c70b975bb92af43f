"""Compose a command's config with Hydra, check it whole, and say everything that is wrong at once.

Hydra stops at the first error. So when composing fails, `diagnose` (lmexp.config.diagnose) composes again, override by
override, and every finding goes into one ConfigError.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lmexp import plugins
from lmexp.config.environment import check_secrets
from lmexp.config.idle import leave_out_idle, refuse_idle
from lmexp.config.lines import line_of
from lmexp.config.origin import FROM, OPTION, Origin, split_origin
from lmexp.config.overrides import NULLABLE, literal_override, refuse_hydra_settings
from lmexp.config.schema import BASES, COMMANDS, DICT_GROUPS, HELD, SCHEMAS, field_names
from lmexp.errors import ConfigError
from lmexp.paths import CONF_DIR

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra

COMPOSE_ERRORS = (
    HydraException,
    OmegaConfBaseException,
    ConfigError,
    YAMLError,
    AttributeError,
    ValueError,
    AssertionError,  # OmegaConf's answer to a key below a node that is null
)


@dataclass(kw_only=True, slots=True)
class Composed:
    """A valid config and how it came about."""

    config: Any
    """The command's typed config: TrainConfig, EvaluateConfig or GenerateConfig."""
    node: DictConfig
    """The same before interpolations were resolved."""
    overrides: list[str]
    """What was typed, as Hydra reads it."""
    choices: dict[str, str]
    """Group -> chosen option, for the groups that hold one."""
    from_run: str | None = None
    """Id of the run whose config it began with."""


@dataclass(kw_only=True, slots=True)
class LoadedFile:
    """One element of the defaults list."""

    config_path: str
    """Group and option, e.g. model/gpt_tiny."""
    package: str
    """Where in the config it goes, e.g. model; empty is the root."""
    path: Path | None
    """The YAML file; None for a schema."""
    owns: tuple[str, ...] = ()
    """Where the file is a run's run.json: the keys of the root that come from its config."""

    def line(self, key: str) -> int | None:
        """Line (from 1) at which the file sets a key of the config, or None."""
        if self.path is None or (self.owns and key.partition(".")[0] not in self.owns):
            return None
        return line_of(self.path, "", f"config.{key}") if self.owns else line_of(self.path, self.package, key)


class Composer:
    """Composes one command's config, many times if need be, inside one Hydra initialization."""

    def __init__(self, command: str, hydra: Hydra, config_dirs: list[Path], origin: Origin | None = None) -> None:
        self.command = command
        self.origin = origin
        self.primary = OPTION if origin is not None else command
        """Name of the config that everything else overrides."""
        self.hydra = hydra
        self.loader = hydra.config_loader
        self.config_dirs = config_dirs
        urls = ",".join(repr(f"file://{folder}") for folder in config_dirs)
        self.search_path = [f"hydra.searchpath=[{urls}]"] if config_dirs else []

    def compose(self, overrides: list[str]) -> tuple[DictConfig, dict[str, str]]:
        """The untyped config and the group choices; Hydra's own errors."""
        full = hydra_compose(self.primary, [*overrides, *self.search_path], return_hydra_config=True)
        choices = {k: str(v) for k, v in full.hydra.runtime.choices.items() if v and v != "null" and "hydra/" not in k}
        with open_dict(full):
            del full["hydra"]
        return full, choices

    def files(self, overrides: list[str]) -> list[LoadedFile]:
        """The YAML files and schemas that make up the config, in the order in which they are merged."""
        defaults = self.loader.compute_defaults_list(self.primary, [*overrides, *self.search_path], RunMode.RUN)
        return [
            self._loaded(d.config_path, d.package or "")
            for d in defaults.defaults
            if d.config_path is not None and not d.config_path.startswith("hydra/")
        ]

    def _loaded(self, config_path: str, package: str) -> LoadedFile:
        owns = self.origin.owned(config_path) if self.origin is not None else ()
        if self.origin is not None and owns:
            return LoadedFile(config_path=config_path, package=package, path=self.origin.run_json, owns=owns)
        return LoadedFile(config_path=config_path, package=package, path=self.file(config_path))

    def file(self, config_path: str) -> Path | None:
        """The YAML file of group/option."""
        for folder in [CONF_DIR, *self.config_dirs]:
            if (path := folder / f"{config_path}.yaml").is_file():
                return path
        return None

    def groups(self) -> list[str]:
        """Groups of this command, whose option is chosen by `group=option`."""
        defaults = OmegaConf.load(CONF_DIR / f"{self.command}.yaml").defaults
        named = [str(group) for entry in defaults if isinstance(entry, DictConfig) for group in entry]
        return sorted(group for group in named if not group.startswith("/"))

    def options(self, group: str) -> list[str]:
        """Options of a group."""
        return sorted(self.loader.get_group_options(group, ObjectType.CONFIG, self.primary, self.search_path))

    def name_run(self, node: DictConfig, choices: dict[str, str]) -> None:
        """Fill in run.name and run.folder of a training config where they are null."""
        if self.command != "train":
            return
        parts = [choices.get("data"), choices.get("model") or choices.get("task")]
        experiment, origin = choices.get("experiment"), self.origin
        if node.run.folder is None:
            node.run.folder = experiment or (origin.folder if origin is not None else node.run.name)
        if node.run.name is None:
            node.run.name = experiment or (origin.name if origin is not None else "-".join(p for p in parts if p))
        if node.run.folder is None:
            node.run.folder = node.run.name


@contextmanager
def composer(command: str, config_dirs: list[str] | None = None, origin: Origin | None = None) -> Iterator[Composer]:
    """A Composer for a command; config_dirs are searched after lmexp's own conf/.

    origin: the run whose config takes the place of the defaults.
    """
    store_schemas()
    for folder in config_dirs or []:
        if not Path(folder).is_dir():
            raise ConfigError(f"--config-dir {folder}: there is no such folder")
    GlobalHydra.instance().clear()
    stored = origin.stored() if origin is not None else nullcontext()
    with stored, initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR), job_name=command):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        yield Composer(command, hydra, [Path(folder).absolute() for folder in config_dirs or []], origin)


def compose(
    overrides: list[str] | None = None,
    *,
    command: str = "train",
    config_dirs: list[str] | None = None,
    origin: Origin | None = None,
) -> Composed:
    """Compose, check and type a command's config.

    overrides: as typed, e.g. ["model=llama_tiny", "optimizer.lr=3e-4"]; with from=RUN they are on top of RUN's config.
    origin: the same as from=RUN.
    Raises ConfigError naming every bad override, failed check and broken file; RunError where RUN isn't a run.
    """
    typed = overrides or []
    if origin is None and command == "train":
        origin, typed = split_origin(typed)
    read = [literal_override(text) for text in typed]
    with composer(command, config_dirs, origin) as composing:
        try:
            node, choices = composing.compose(read)
            refuse_hydra_settings(read)
            for text in read:
                group, _, option = text.partition("=")
                if option.startswith("[") and group not in DICT_GROUPS and group in composing.groups():
                    raise ConfigError(f"{text}: {group} takes one option, got a list")  # Hydra takes the last one
            composing.name_run(node, choices)
            if command == "train":
                leave_out_idle(node)
            config = to_typed(node)
        except COMPOSE_ERRORS as error:
            from lmexp.config.diagnose import diagnose

            message = "\n".join(diagnose(composing, read, error))
            for text, literal in zip(typed, read, strict=True):
                message = message.replace(f"{literal}:", f"{text}:")
            raise ConfigError(message) from error
    if command == "train":
        refuse_idle(node, typed)
    began = [f"{FROM}{origin.path}"] if origin is not None else []
    return Composed(
        config=config,
        node=node,
        overrides=[*began, *read],
        choices=choices,
        from_run=origin.run_id if origin is not None else None,
    )


def to_typed(node: DictConfig) -> Any:
    """The dataclass tree; every `__post_init__` check has passed."""
    check_shape(node)
    check_secrets(node)
    return OmegaConf.to_object(node)


def check_shape(node: DictConfig, where: str = "") -> None:
    """Raise ConfigError for a missing value, a key that the dataclass lacks, or a kind that isn't its own."""
    schema = OmegaConf.get_type(node)
    known = field_names(schema)
    for key in map(str, node):
        full_key = f"{where}.{key}" if where else key
        if known and key not in known:
            raise ConfigError(f"{where or 'the config'} has no {key!r}{known_keys(key, known)}")
        if OmegaConf.is_missing(node, key):
            raise ConfigError(f"{full_key} must be given, e.g. {full_key}=...")
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_interpolation():
            check_shape(child, full_key)
    if schema is not None and "kind" in known and schema not in BASES.values():
        kind = next(f.default for f in fields(schema) if f.name == "kind")
        if node.kind != kind:
            group = where.partition(".")[0]
            if where.rpartition(".")[0] in HELD:
                group = f"{group}@{where}"
            raise ConfigError(
                f"{where}.kind is {node.kind!r}, but the fields beside it are those of {kind!r}; "
                f"choose a kind by its group, {group}=..., not by {where}.kind"
            )


def known_keys(wrong: str, known: list[str]) -> str:
    """'; it has a, b, c; did you mean b?'"""
    return f"; it has {', '.join(known)}{plugins.did_you_mean(wrong, known)}"


def store_schemas() -> None:
    """Put every schema into Hydra's ConfigStore, and plugins' kinds as selectable options."""
    store = ConfigStore.instance()
    for command, root in COMMANDS.items():
        if not _is_stored(store, command, "base", root):
            store.store(group=f"schema/{command}", name="base", node=root)
    for group, kinds in SCHEMAS.items():
        for kind, schema in kinds.items():
            if _is_stored(store, group, kind, schema):
                continue
            store.store(group=f"schema/{group}", name=kind, node=_node(schema))
            if schema.__module__.partition(".")[0] != "lmexp":
                package = f"{group}.{kind}" if group in DICT_GROUPS else group
                store.store(group=group, name=kind, node=_node(schema), package=package)
    for group in NULLABLE:
        store.store(group=group, name="null", node={}, package="_global_")


def _is_stored(store: ConfigStore, group: str, name: str, schema: type) -> bool:
    """Whether a schema is there already: making its node takes milliseconds, and there are dozens."""
    found = store.repo.get("schema", {}).get(group, {}).get(f"{name}.yaml")
    return found is not None and OmegaConf.get_type(found.node) is schema


def _node(schema: type) -> DictConfig:
    """A schema as a node, without running its checks: YAML and overrides may still fill it."""
    node: DictConfig = OmegaConf.structured(schema)
    return node
