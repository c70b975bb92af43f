"""What the commands have in common when they read their arguments."""

from __future__ import annotations

import argparse
from typing import NoReturn

from lmexp.cli.main import LmexpUsageError
from lmexp.plugins import did_you_mean


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours."""

    def error(self, message: str) -> NoReturn:
        """Say what isn't understood, with the nearest option."""
        unknown = message.removeprefix("unrecognized arguments: ").split(" ")[0]
        hint = "" if unknown == message.split(" ")[0] else did_you_mean(unknown, self._option_string_actions)
        if unknown.startswith("-p"):
            hint = "; -p stands before the command: lmexp -p my_pkg train ..."
        raise LmexpUsageError(f"{self.prog}: {message}{hint}; `{self.prog} --help` lists the options")
