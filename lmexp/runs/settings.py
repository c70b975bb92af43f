"""In which settings runs differ, and in what they ran on: beside every comparison of what they scored."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from lmexp.config.freeze import flat
from lmexp.errors import LmexpError
from lmexp.paths import RECEIPT_JSON
from lmexp.redaction import redact
from lmexp.tracking.receipt import read_receipt

NOT_THERE = "-"
OF_THE_RECEIPT = ("python", "os", "cpu", "torch", "gpus", "gpu_driver", "determinism")
"""What of a receipt may change a result, without any difference in the config."""

Facts = dict[str, list[dict[str, str]]]
"""Label of a side -> of each of its runs, key -> value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """A setting, or a fact of the machine, that isn't the same in all runs."""

    key: str
    values: dict[str, list[str]]
    """Label of a side -> the value in each of its runs; "-" where there is none."""


def settings_of(body: dict[str, Any]) -> dict[str, str]:
    """Key -> value of the config in a run.json, and what else a run begins with."""
    first_weights = body["initial_weights"]
    others = {
        "(training data)": (body["data_fingerprints"] or [None])[-1],
        "(first weights)": first_weights and first_weights["sha256"],
        "(plugins)": body["plugins"],
    }
    return {key: _text(value) for key, value in {**flat(redact(body["config"])), **redact(others)}.items()}


def machine_of(run_dir: Path, body: dict[str, Any]) -> dict[str, str]:
    """Key -> value of what a run ran on: lmexp, packages, hardware."""
    try:
        receipt = redact(read_receipt(run_dir / RECEIPT_JSON))
    except (LmexpError, OSError):
        return {"receipt.json": "can't be read"}
    found = {"lmexp": body["lmexp"], **flat({key: receipt.get(key) for key in OF_THE_RECEIPT})}
    code, packages = receipt.get("code"), receipt.get("packages")
    for place, repository in code.items() if isinstance(code, dict) else ():
        if isinstance(repository, dict):
            changed = " with changes" if repository.get("dirty") else ""
            found[f"commit ({place.replace('_', ' ')})"] = f"{repository.get('commit')}{changed}"
    for package in packages if isinstance(packages, list) else ():
        name, _, version = str(package).partition("==")
        found[f"package {name}"] = version
    return {key: _text(value) for key, value in found.items()}


def differing(facts: Facts) -> list[Setting]:
    """The keys whose values aren't the same in all runs."""
    keys = dict.fromkeys(chain(*chain(*facts.values())))
    settings = [
        Setting(key=key, values={label: [run.get(key, NOT_THERE) for run in side] for label, side in facts.items()})
        for key in keys
    ]
    return [setting for setting in settings if len(set(chain(*setting.values.values()))) > 1]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
