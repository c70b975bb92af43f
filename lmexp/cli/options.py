"""What the composed commands (train, evaluate, generate) have in common: overrides, and Hydra's own options."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field

from lmexp.cli.main import LmexpUsageError
from lmexp.config import compose as composing
from lmexp.paths import CONF_DIR

EPILOG = """
overrides: key=value for a value, group=option for a group, e.g.
  lmexp train model=llama_tiny optimizer.lr=3e-4 'evaluation=[perplexity]'
"""


@dataclass(kw_only=True, slots=True)
class Options:
    """The command line of a composed command."""

    overrides: list[str]
    config_dirs: list[str] = field(default_factory=list)
    explain: str | None = None
    hydra: list[str] = field(default_factory=list)
    """Options that Hydra itself answers: --cfg, --info, --resolve, --package, --shell-completion."""


def parse(command: str, description: str, argv: list[str]) -> Options:
    """Overrides and options; LmexpUsageError for an unknown option."""
    parser = argparse.ArgumentParser(
        prog=f"lmexp {command}",
        description=description,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        exit_on_error=False,
    )
    parser.add_argument("overrides", nargs="*", help="key=value or group=option")
    parser.add_argument("--config-dir", "-cd", action="append", default=[], help="folder with configs of yours")
    parser.add_argument("--explain", metavar="KEY", help="say which default, file or override set KEY")
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"], help="print the composed config")
    parser.add_argument("--resolve", action="store_true", help="with --cfg: resolve interpolations")
    parser.add_argument("--package", metavar="KEY", help="with --cfg: only this part")
    parser.add_argument("--info", nargs="?", const="all", help="print what Hydra did: defaults, searchpath, ...")
    parser.add_argument("--shell-completion", "-sc", action="store_true", help="completion: install=bash|zsh|fish")
    parser.add_argument("--multirun", "-m", action="store_true", help=argparse.SUPPRESS)
    try:
        given = parser.parse_intermixed_args(argv)
    except (argparse.ArgumentError, SystemExit) as error:
        if isinstance(error, SystemExit):
            raise
        raise LmexpUsageError(f"lmexp {command}: {error}; `lmexp {command} --help` lists the options") from None
    if given.multirun:
        raise LmexpUsageError(f"lmexp {command} -m: sweeps are not part of this version; run the configs one by one")
    hydra = [f"--cfg={given.cfg}"] if given.cfg else []
    hydra += [f"--info={given.info}"] if given.info else []
    hydra += ["--resolve"] if given.resolve else []
    hydra += [f"--package={given.package}"] if given.package else []
    hydra += ["--shell-completion"] if given.shell_completion else []
    return Options(overrides=given.overrides, config_dirs=given.config_dir, explain=given.explain, hydra=hydra)


def answer(command: str, options: Options) -> bool:
    """Answer --explain, --cfg, --info and completion; whether there was something to answer."""
    if options.explain:
        from lmexp.config.explain import explain

        print(explain(options.explain, options.overrides, command=command, config_dirs=options.config_dirs))
        return True
    if options.hydra:
        _hydra(command, options)
        return True
    return False


def _hydra(command: str, options: Options) -> None:
    """Hydra's own main, once our checks have passed: its options print and never run anything."""
    import hydra

    completing = "--shell-completion" in options.hydra
    if not completing:
        composing.compose(options.overrides, command=command, config_dirs=options.config_dirs)
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    composing.store_schemas()
    overrides = options.overrides if completing else [composing.literal_override(o) for o in options.overrides]
    folders = [f"--config-dir={folder}" for folder in options.config_dirs]
    sys.argv = [f"lmexp {command}", *options.hydra, *folders, *overrides]
    main = hydra.main(config_path=str(CONF_DIR), config_name=command, version_base="1.3")(lambda config: None)
    main()
