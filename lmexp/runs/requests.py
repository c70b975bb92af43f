"""What a worker is asked to do: a run folder to execute, or a frozen request to evaluate.

Request format "lmexp.evaluate", version 1: run (folder), name, config (EvaluateConfig with kinds). Where the file lies
tells the run and the name; what it says of them is for people.
"""

from __future__ import annotations

import json
import secrets
from datetime import datetime
from pathlib import Path

from lmexp.config.compose import Composed
from lmexp.config.freeze import plain_config, read_record, require_plugins, to_config, without_secrets
from lmexp.config.origin import with_absolute_items
from lmexp.errors import RunError
from lmexp.files import write_atomically
from lmexp.paths import EVALUATION_DIR
from lmexp.reading import read_format
from lmexp.runs.folder import stand_where_made
from lmexp.runs.start import check_custom, check_items, check_targets

FORMAT = "lmexp.evaluate"
VERSION = 1
REQUEST = ".request.json"


def freeze_evaluation(composed: Composed) -> Path:
    """Write the request into the run's evaluation folder."""
    run_dir = Path(composed.config.run)
    require_plugins(run_dir, f"evaluate run={run_dir}")
    check_custom(read_record(run_dir).config)
    check_targets({f"evaluation.{name}": node for name, node in composed.config.evaluation.items()})
    check_items(composed.config.evaluation, read_record(run_dir).config.task)
    name = f"evaluate-{datetime.now().strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    config = without_secrets(plain_config(composed.node))
    config["evaluation"] = with_absolute_items(config["evaluation"], Path.cwd())  # who works on it stands elsewhere
    body = {
        "format": FORMAT,
        "version": VERSION,
        "run": str(run_dir.absolute()),
        "name": name,
        "config": config,
    }
    path = run_dir / EVALUATION_DIR / f"{name}{REQUEST}"
    write_atomically(path, json.dumps(body, indent=2) + "\n")
    return path


def work(path: Path) -> None:
    """Do what the run folder or the request says."""
    path = path.absolute()
    if path.is_dir():
        from lmexp.runs.execute import execute

        stand_where_made(path, read_record(path))
        execute(path)
    else:
        _evaluate(path)


def _evaluate(path: Path) -> None:
    from lmexp.runs.evaluate import evaluate_request
    from lmexp.runs.ranks import Ranks

    config = to_config("evaluate", read_format(path, RunError, FORMAT, VERSION)["config"])
    run_dir = path.parent.parent
    ranks = Ranks.from_environment()
    stand_where_made(run_dir, read_record(run_dir))

    def say(message: str) -> None:
        if ranks.is_first:
            print(message, flush=True)

    evaluate_request(run_dir, config, ranks, say, name=path.name.removesuffix(REQUEST))
    ranks.barrier()
