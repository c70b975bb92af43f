"""Uploads a run's offline W&B files while they are written: `python -m lmexp.tracking.upload FRAGMENT URL SECONDS`.

It runs `wandb beta sync`: once for what earlier attempts of the run left behind, then with --live for
FRAGMENT. Stdin stays open as long as the training process lives. When it ends, training is over (or was
killed, which --live would not notice), and the upload may go on for SECONDS. Exit code 0: all was sent.
Imports nothing but the standard library and lmexp.redaction.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from lmexp.redaction import redact_text

CONNECT_SECONDS = 3.0
FIRST_PAUSE_SECONDS = 15.0
LONGEST_PAUSE_SECONDS = 600.0


class Closing:
    """Whether stdin has ended, and when."""

    def __init__(self, seconds: float) -> None:
        self.event = threading.Event()
        self.seconds = seconds
        self.at = 0.0
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        sys.stdin.buffer.read()
        self.at = time.monotonic()
        self.event.set()

    def overdue(self) -> bool:
        """Whether the training process has been gone for too long."""
        return self.event.is_set() and time.monotonic() > self.at + self.seconds


def main(fragment: Path, base_url: str, seconds: float) -> int:
    """Try until everything is sent; after training has ended, once more at most."""
    closing = Closing(seconds)
    pause = FIRST_PAUSE_SECONDS
    while True:
        last_attempt = closing.event.is_set()
        if reachable(base_url):
            for command in commands(fragment):
                run(command, closing)
            if is_sent(fragment):
                return 0
            say("not everything is sent")
        else:
            say(f"no connection to {base_url}")
        if last_attempt or closing.event.is_set():
            return 1
        closing.event.wait(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def reachable(base_url: str) -> bool:
    """Whether the server takes a connection. Behind a proxy only wandb itself can tell."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY")):
        return True
    url = urlsplit(base_url)
    port = url.port or (80 if url.scheme == "http" else 443)
    try:
        socket.create_connection((url.hostname or "", port), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def commands(fragment: Path) -> list[list[str]]:
    """What to run, in order. --live would wait for ever at a file whose writer was killed: those go first."""
    # -P: not from the current folder, which has a folder of the name wandb
    sync = [sys.executable, "-P", "-m", "wandb", "beta", "sync", "--yes", "--skip-synced"]
    earlier = sorted(p for p in fragment.parent.parent.glob("offline-run-*/*.wandb") if p != fragment)
    earlier = [path for path in earlier if not is_sent(path)]
    first = [[*sync, *map(str, earlier)]] if earlier else []
    return [*first, [*sync, "--live", str(fragment)]]


def is_sent(fragment: Path) -> bool:
    """Whether wandb has marked the file as sent to its end."""
    return fragment.with_name(f"{fragment.name}.synced").exists()


def run(command: list[str], closing: Closing) -> None:
    """Run to the end, or kill it when it is overdue. wandb's own service ends with it."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    reader = threading.Thread(target=_pass_on, args=(process.stdout,), daemon=True)
    reader.start()
    while process.poll() is None:
        if closing.overdue():
            say("training has ended, and the time for uploading is over")
            process.kill()
        time.sleep(0.1)
    reader.join(1.0)  # a child of the command's own may hold its output open


def _pass_on(output: IO[bytes]) -> None:
    """What the command prints, without secrets."""
    for line in output:
        print(redact_text(line.decode("utf-8", errors="replace")), end="", flush=True)


def say(message: str) -> None:
    """A line for the log."""
    print(f"{time.strftime('%H:%M:%S')} {redact_text(message)}", flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
