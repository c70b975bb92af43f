"""What only running code can tell is told before a run folder is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmexp import plugins
from lmexp.config.compose import compose
from lmexp.errors import ConfigError
from lmexp.runs.start import check_custom

CODE = "import pytorch_lightning as pl\nclass Net(pl.LightningModule):\n    pass\n"


def test_a_custom_task_refuses_what_it_would_ignore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "start_pkg.py").write_text(CODE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    plugins.trust(["start_pkg"])
    typed = ["task=custom", "task.target=start_pkg:Net", "tokenizer=byte"]
    check_custom(compose(typed).config)
    with pytest.raises(ConfigError, match=r"trainer\.compile=true compiles lmexp's own models only"):
        check_custom(compose([*typed, "trainer.compile=true"]).config)
    with pytest.raises(ConfigError, match="drop it with model=null"):
        check_custom(compose([*typed, "model=gpt_tiny"]).config)
