"""The mirror of a run on Weights & Biases: offline files in RUN/wandb, uploaded by a process of their own.

wandb always runs offline here, so no call of ours waits for a network. A resumed run goes on under the same
W&B id in a further folder RUN/wandb/offline-run-*. Rows carry our own `step`, the x axis of all charts; W&B's
internal counter only ever grows, so rows that are logged again after a resume are not dropped.

What an evaluation found: estimates, intervals and counts in the run's summary, the rows as a table, each plot as it is
in the report and, where W&B has such a chart, as one that overlays runs; the tables of samples as an artifact. wandb
copies the files of artifacts to RUN/wandb/data.

Where the user is logged in and logger.sync is auto, `lmexp.tracking.upload` sends the files on meanwhile.
"""

from __future__ import annotations

import logging
import netrc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lmexp.paths import LOGS_DIR, PACKAGE_DIR, WANDB_DIR
from lmexp.redaction import redact
from lmexp.tracking import card, upload
from lmexp.tracking.config import WandbLoggerConfig
from lmexp.tracking.rows import Number

if TYPE_CHECKING:
    from lmexp.evaluation.plot import Plot
    from lmexp.evaluation.row import Row

log = logging.getLogger(__name__)

UPLOAD_LOG = "wandb-sync.log"
CLOSE_SECONDS = 15.0
"""How long the end of a run waits for the last rows to be written and uploaded."""
FLUSH_SECONDS = 1.0
"""A kill -9 loses at most the rows of this time from the .wandb file. metrics.jsonl has them."""


class WandbMirror:
    """One W&B run, or the continuation of one."""

    def __init__(
        self,
        config: WandbLoggerConfig,
        folder: Path,
        *,
        run_id: str,
        name: str,
        run_config: Mapping[str, Any],
        close_seconds: float = CLOSE_SECONDS,
    ) -> None:
        import wandb

        self._close_seconds = close_seconds
        self._folder = folder.resolve()
        settings = wandb.Settings(**_settings(close_seconds))
        with _environment(self._folder):
            # Global settings too: wandb's own telemetry goes by these and is silent where they say offline.
            base_url = wandb.setup(settings=settings).settings.base_url
            self._run = wandb.init(
                dir=str(self._folder),
                id=run_id,
                resume="allow",
                reinit="create_new",
                mode="offline",
                project=config.project,
                entity=config.entity,
                group=config.group,
                tags=config.tags or None,
                name=name,
                config=redact(dict(run_config)),
                settings=settings,
            )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self.fragment = Path(self._run.settings.sync_file)
        self._step: dict[str, int] = {}
        self._error: Exception | None = None
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="wandb-mirror", daemon=True)
        self._thread.start()
        self._upload: subprocess.Popen[bytes] | None = None
        if config.sync == "auto":
            if logged_in(base_url):
                self._upload = _start_upload(self._folder, self.fragment, base_url, close_seconds)
            else:
                log.info("not logged in to W&B (%s): its files stay in %s", base_url, self._folder / WANDB_DIR)

    def row(self, step: int, values: Mapping[str, Number]) -> None:
        """One row of the run's history. Raises what an earlier call ran into, if anything."""
        self._step = {"step": step}
        self._call(partial(self._run.log, {"step": step, **values}))

    def summary(self, values: Mapping[str, Number | str]) -> None:
        """Figures of the run as a whole."""
        self._call(partial(self._run.summary.update, dict(values)))

    def evaluation(self, rows: Sequence[Row], *, draw: Callable[[Plot], str], samples: Mapping[str, Path]) -> None:
        """Rows of the report card, their plots and the tables of samples."""
        self._call(partial(self._evaluation, list(rows), draw, dict(samples), self._step))

    def texts(self, name: str, texts: Sequence[tuple[str, int, str]], *, step: int | None) -> None:
        """A table of texts; W&B shows those of each step."""
        at = self._step if step is None else {"step": step}
        self._call(partial(self._texts, f"evaluation/{name}/texts", list(texts), at))

    def close(self, exit_code: int) -> None:
        """Write the exit code and give the upload what is left of the deadline."""
        deadline = time.monotonic() + self._close_seconds
        self._calls.put(partial(self._run.finish, exit_code=exit_code))
        self._calls.put(None)
        self._thread.join(self._close_seconds)
        if self._thread.is_alive():
            self._error = TimeoutError(f"wandb didn't finish within {self._close_seconds:g} s")
        if self._upload is not None and not _end(self._upload, deadline):
            log.warning(
                "the upload to W&B isn't complete; `wandb beta sync %s` completes it, %s tells why",
                self._folder / WANDB_DIR,
                self._folder / LOGS_DIR / UPLOAD_LOG,
            )
        self._raise()

    def _evaluation(
        self, rows: list[Row], draw: Callable[[Plot], str], samples: dict[str, Path], step: dict[str, int]
    ) -> None:
        """In the thread."""
        import wandb

        found = card.without_secrets(rows)
        with _environment(self._folder):  # wandb asks it where to put what goes into artifacts
            self._run.summary.update(card.summary_of(found))
            shown: dict[str, object] = {card.TABLE_KEY: wandb.Table(**card.table_of(found))}
            for key, row in found.items():
                if row.plot is not None:
                    shown[f"{key}/plot"] = wandb.Html(draw(row.plot), inject=False, data_is_not_path=True)
                    if row.plot.kind in card.LINES:
                        points = wandb.Table(**card.points_of(row.plot))
                        shown[f"{key}/chart"] = wandb.plot.line(points, "x", "y", "series", title=row.plot.title)
                    elif row.plot.kind == "bars":
                        points = wandb.Table(**card.points_of(row.plot))
                        shown[f"{key}/chart"] = wandb.plot.bar(points, "x", "y", title=row.plot.title)
            self._run.log({**step, **shown})
            if samples:
                artifact = wandb.Artifact(f"evaluation-{self._run.id}", type="evaluation")
                for name, path in sorted(samples.items()):
                    artifact.add_file(str(path), name=f"{name}/{path.name}", skip_cache=True)
                self._run.log_artifact(artifact)

    def _texts(self, key: str, texts: list[tuple[str, int, str]], step: dict[str, int]) -> None:
        """In the thread."""
        import wandb

        data = [[redact(prompt), seed, redact(text)] for prompt, seed, text in texts]
        with _environment(self._folder):
            self._run.log({**step, key: wandb.Table(columns=list(card.TEXT_COLUMNS), data=data)})

    def _call(self, call: Callable[[], object]) -> None:
        self._raise()
        self._calls.put(call)

    def _work(self) -> None:
        """The thread: what wandb takes for a row (0.3 ms, or for ever if it hangs) costs no step."""
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception as error:
                self._error = self._error or error

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error


def logged_in(base_url: str) -> bool:
    """Whether there are credentials for this server: in the environment, or in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(base_url).netloc
    hosts = [host, "api.wandb.ai"] if host == "api.forge.coreweave.com" else [host]  # two names of W&B's own cloud
    candidates = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    for candidate in candidates:
        try:
            entries = netrc.netrc(os.path.expanduser(candidate)).hosts
        except (OSError, netrc.NetrcParseError):
            continue
        return any(entries[h][2] for h in hosts if h in entries)
    return False


def _settings(close_seconds: float) -> dict[str, Any]:
    """Offline, silent, nothing collected but what we log: argv, git remotes and output can hold secrets."""
    return {
        "mode": "offline",
        "silent": True,
        "console": "off",
        "disable_git": True,
        "disable_code": True,
        "save_code": False,
        "disable_job_creation": True,
        "label_disable": True,
        "symlink": False,
        "init_timeout": 30.0,
        "finish_timeout": close_seconds,
        "x_disable_meta": True,
        "x_disable_stats": True,
        "x_disable_machine_info": True,
        "x_disable_viewer": True,
        "x_save_requirements": False,
        "x_transaction_log_flush_interval": FLUSH_SECONDS,
    }


@contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """Environment while wandb starts its service: what no wandb.Settings field can say."""
    wanted = {
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_CACHE_DIR": str(folder / WANDB_DIR / "cache"),
        "WANDB_DATA_DIR": str(folder / WANDB_DIR / "data"),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start_upload(folder: Path, fragment: Path, base_url: str, seconds: float) -> subprocess.Popen[bytes]:
    """The upload process, in a session of its own. It ends when its stdin does: also when we are killed."""
    dropped = {
        "WANDB_MODE",
        "WANDB_DISABLED",
        "WANDB_SERVICE",
        "WANDB_RUN_ID",
        "WANDB_RESUME",
        "WANDB_SWEEP_ID",
    }
    environment = {k: v for k, v in os.environ.items() if k not in dropped} | {
        "WANDB_DIR": str(folder),
        "WANDB_BASE_URL": base_url,  # whatever a settings file in the folder says
        "WANDB_CACHE_DIR": str(folder / WANDB_DIR / "cache"),
        "WANDB_ERROR_REPORTING": "false",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(PACKAGE_DIR.parent), os.environ.get("PYTHONPATH")])),
    }
    (folder / LOGS_DIR).mkdir(exist_ok=True)
    with open(folder / LOGS_DIR / UPLOAD_LOG, "ab") as output:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", upload.__name__, str(fragment), base_url, str(seconds)],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _end(process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Tell the upload that no more comes and wait for it until the deadline; whether everything was sent."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        return process.wait(max(0.0, deadline - time.monotonic())) == 0
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
        return False
