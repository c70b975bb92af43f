"""Where the configs are, and the names of the files in a run folder."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE_DIR = Path(__file__).resolve().parent

# The wheel carries conf/ inside the package; a checkout has it beside the package.
CONF_DIR = PACKAGE_DIR / "conf" if (PACKAGE_DIR / "conf").is_dir() else PACKAGE_DIR.parent / "conf"

RUN_JSON = "run.json"
CONFIG_YAML = "config.yaml"
STATE_JSON = "state.json"
RECEIPT_JSON = "receipt.json"
METRICS_JSONL = "metrics.jsonl"
TIMINGS_JSONL = "timings.jsonl"
DISCARDED_JSONL = "discarded.jsonl"
LOSSES_F64 = "losses.f64"
TOKENIZER_JSON = "tokenizer.json"
LOCK = "lock"
CHECKPOINTS_DIR = "checkpoints"
LOGS_DIR = "logs"
EVALUATION_DIR = "evaluation"
SUMMARY_JSON = "summary.json"
GENERATED_JSON = "generated.json"
SAMPLES_PARQUET = "samples.parquet"
REPORT_HTML = "report.html"
REPORT_JSON = "report.json"
DATA_CARD_JSON = "data_card.json"
DATA_CARD_HTML = "data_card.html"
WANDB_DIR = "wandb"

RUN_FILES = (
    RUN_JSON,
    CONFIG_YAML,
    STATE_JSON,
    RECEIPT_JSON,
    METRICS_JSONL,
    TIMINGS_JSONL,
    DISCARDED_JSONL,
    LOSSES_F64,
    TOKENIZER_JSON,
    LOCK,
    REPORT_HTML,
    REPORT_JSON,
)
RUN_FOLDERS = (CHECKPOINTS_DIR, LOGS_DIR, EVALUATION_DIR, WANDB_DIR)
"""What a run folder holds of ours."""
RUN_LINKS = (f"{WANDB_DIR}/offline-run-*/logs/*",)
"""Where wandb puts links to the log of its service, which another program may have started; nobody follows them."""


def expanded(path: str | Path) -> Path:
    """A path as it was typed, ~ and ~user being their homes where there is such a user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def default_root() -> str:
    """Folder for all runs: LMEXP_OUTPUTS, or outputs/ below where the command is typed."""
    return os.environ.get("LMEXP_OUTPUTS") or "outputs"
