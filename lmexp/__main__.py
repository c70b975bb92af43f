"""`python -m lmexp`."""

from lmexp.cli.main import entry

entry()
