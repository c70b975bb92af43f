"""What train, prepare, evaluate, generate and export have in common: overrides, and Hydra's own options."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass

from lmexp.cli.arguments import Parser
from lmexp.cli.main import LmexpUsageError
from lmexp.config import compose as composing
from lmexp.config.origin import require_plugins_of_origin, split_origin
from lmexp.config.overrides import literal_override
from lmexp.config.schema import SAME_CONFIG

EPILOG = """
overrides: key=value for a value, group=option for a group, e.g.
  lmexp train model=llama_tiny optimizer.lr=3e-4 'evaluation=[perplexity]'
  lmexp train from=RUN optimizer.lr=1e-4        a new run, with the config of another one
"""
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


@dataclass(kw_only=True, slots=True)
class Options:
    """The command line of a composed command."""

    overrides: list[str]
    config_dirs: list[str]
    explain: str | None
    cfg: str | None
    package: str | None
    resolve: bool
    info: str | None
    shell_completion: bool


def parse(command: str, description: str, argv: list[str]) -> Options:
    """Overrides and options; LmexpUsageError for an unknown option."""
    parser = Parser(
        prog=f"lmexp {command}",
        description=description,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", help="key=value or group=option")
    parser.add_argument(
        "--config-dir", "-cd", dest="config_dirs", action="append", default=[], help="folder with configs of yours"
    )
    parser.add_argument("--explain", metavar="KEY", help="say which default, file or override set KEY")
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"], help="print the composed config")
    parser.add_argument("--resolve", action="store_true", help="with --cfg: resolve interpolations")
    parser.add_argument("--package", metavar="KEY", help="with --cfg: only this part")
    parser.add_argument("--info", nargs="?", const="all", choices=INFO, help="print what Hydra did: defaults, ...")
    parser.add_argument("--shell-completion", "-sc", action="store_true", help="completion: install=bash|zsh|fish")
    parser.add_argument("--multirun", "-m", action="store_true", help=argparse.SUPPRESS)
    given = vars(parser.parse_intermixed_args(argv))
    if given.pop("multirun"):
        raise LmexpUsageError(f"lmexp {command} -m: sweeps are not part of this version; run the configs one by one")
    options = Options(**given)
    if SAME_CONFIG.get(command, command) == "train":
        require_plugins_of_origin(options.overrides, shlex.join([command, *argv]))
    if (options.resolve or options.package) and not options.cfg:
        raise LmexpUsageError(f"lmexp {command}: --resolve and --package go with --cfg, e.g. --cfg job --package model")
    return options


def answer(command: str, options: Options) -> bool:
    """Answer --explain, --cfg, --info and completion; whether there was something to answer."""
    command = SAME_CONFIG.get(command, command)
    if options.explain:
        from lmexp.config.explain import explain

        print(explain(options.explain, options.overrides, command=command, config_dirs=options.config_dirs))
    elif options.shell_completion:
        from lmexp.cli import completion

        completion.run(options.overrides)
    elif options.cfg or options.info:
        _show(command, options)
    else:
        return False
    return True


def _show(command: str, options: Options) -> None:
    """Hydra's own --cfg and --info, once our checks have passed."""
    from hydra.types import RunMode

    composing.compose(options.overrides, command=command, config_dirs=options.config_dirs)
    origin, typed = split_origin(options.overrides) if command == "train" else (None, options.overrides)
    with composing.composer(command, options.config_dirs, origin) as composer:
        overrides = [*map(literal_override, typed), *composer.search_path]
        if options.cfg:
            composer.hydra.show_cfg(composer.primary, overrides, options.cfg, options.package, options.resolve)
        elif options.info:
            composer.hydra.show_info(options.info, composer.primary, overrides, RunMode.RUN)
