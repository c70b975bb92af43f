"""Settings of training by steps, which mean nothing to a model that is counted (ModelConfig.counted).

What is typed and would be ignored is refused. What comes from defaults, an experiment or another run's config isn't
the user's word about this model, so it is left out: `experiment=shakespeare_char model=ngram` just works.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from lmexp.errors import ConfigError
from lmexp.models.config import ModelConfig

IDLE = re.compile(
    r"(optimizer|scheduler|callbacks)(\..*)?"
    r"|trainer\.(max_steps|max_tokens|max_epochs|strategy|accumulate_grad_batches|gradient_clip_val|compile|"
    r"val_every_n_steps|ema_decay|precision)"
    r"|checkpoint\.(every_n_steps|keep_last|keep_every_n_steps|monitor|mode)"
    r"|logger\.log_every_n_steps"
    r"|evaluation\.[\w-]+\.every_n_steps"
)
"""Keys that counting doesn't read."""
LEFT_OUT = ("optimizer=null", "scheduler=null", "callbacks=null")
"""What leave_out_idle does to whole groups, as a user would type it."""


def leave_out_idle(node: DictConfig) -> None:
    """Take what would be ignored out of a training config whose model is counted."""
    if not _is_counted(node):
        return
    node.optimizer = node.scheduler = node.trainer.ema_decay = None
    node.callbacks = {}
    node.trainer.precision = "32-true"
    for evaluation in node.evaluation.values():
        evaluation.every_n_steps = None


def refuse_idle(node: DictConfig, overrides: Sequence[str]) -> None:
    """ConfigError that names every override which a model that is counted would ignore."""
    if not _is_counted(node):
        return
    for_nothing = []
    for text in overrides:
        key, _, value = text.lstrip("+~").partition("=")
        if IDLE.fullmatch(key) and value not in ("null", "'null'", "[]"):
            for_nothing.append(text)
    if for_nothing:
        raise ConfigError(
            "\n".join(
                f"{text}: model={node.model.kind} is counted in one pass over the training tokens, without optimizer "
                f"and steps, so this would be ignored; take it away"
                for text in for_nothing
            )
        )


def _is_counted(node: DictConfig) -> bool:
    schema = OmegaConf.get_type(node, "model")
    return isinstance(schema, type) and issubclass(schema, ModelConfig) and schema.counted
