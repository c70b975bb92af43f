"""`python -m lmexp.launch.torchrun PARENT EXIT-CODES [TORCHRUN-ARGUMENTS]`: torchrun, as a child of the lmexp command.

It ends with its parent, and its workers end with it. Where a worker failed, EXIT-CODES gets a JSON object: rank -> exit
code, negative where a signal killed it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from lmexp.errors import EXIT_CODES, STOP_SIGNALS, Stopped
from lmexp.files import write_atomically
from lmexp.parent import LAUNCHER_VARIABLE, stop_with_parent
from lmexp.stopping import StopRequest

SETTINGS = {
    "PET_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2",
    "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "120",
}
"""torchrun's own variables: which signals it hands on, and the seconds that workers then have to save."""


def main(argv: list[str]) -> int:
    """Run torchrun to its end: 0 where all workers left with 0, 75 or 130 where a signal ended it, 1 otherwise."""
    try:
        with StopRequest().installed():
            return _main(argv)
    except Stopped as stopped:
        return EXIT_CODES[stopped.state]
    except KeyboardInterrupt:
        return EXIT_CODES["interrupted"]


def _main(argv: list[str]) -> int:
    parent, exit_codes, *rest = argv
    stop_with_parent(int(parent))
    os.environ.update({name: value for name, value in SETTINGS.items() if name not in os.environ})
    os.environ[LAUNCHER_VARIABLE] = str(os.getpid())
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run.main(rest)
    except SignalException as error:  # it has asked the workers to stop, and waited for them
        if error.sigval not in STOP_SIGNALS:
            raise
        raise Stopped(STOP_SIGNALS[error.sigval], None) from None
    except ChildFailedError as error:
        codes = {str(rank): failure.exitcode for rank, failure in error.failures.items()}
        write_atomically(Path(exit_codes), json.dumps(codes) + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
