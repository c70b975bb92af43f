"""A gpt that starts from the weights of a Hugging Face GPT-2, Llama or Qwen3: `model=gpt... model.init_from=FOLDER`.

The model must compute what theirs computes: the settings that differ are named, as they are to be typed. Three may:
dropout; shorter sequences, for which the first of GPT-2's positions are taken; and, where theirs has none,
rotary_scaling, which makes it one for longer sequences.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import Tensor, nn

from lmexp.checks import typed
from lmexp.errors import ConfigError, UserError
from lmexp.models import hf_folder
from lmexp.models.config import GPTConfig
from lmexp.models.gpt import GPT
from lmexp.models.hf_config import gpt_config_of
from lmexp.models.hf_weights import from_hf
from lmexp.paths import RUN_JSON
from lmexp.training import checkpoints

FREE = ("kind", "init_from", "dropout", "init_std", "activation_checkpointing")
"""Settings that don't change what weights compute."""
SCALING = ("rotary_scaling", "rotary_factor", "rotary_original_length")
POSITIONS = "position_embedding.weight"


def is_hugging_face(folder: Path) -> bool:
    """Whether a folder holds a model as transformers saves it, and none of ours."""
    ours = (folder / RUN_JSON).exists() or (folder / checkpoints.MANIFEST).exists()
    return not ours and (folder / hf_folder.CONFIG_JSON).is_file()


def check_settings(given: str, folder: Path, config: GPTConfig, sequence_length: int) -> None:
    """What check() says of settings, without a look at the weights.

    given: model.init_from as it was typed.
    """
    try:
        theirs, _, longest = gpt_config_of(hf_folder.read_config(folder))
    except UserError as error:
        raise type(error)(f"model.init_from={given}: {error}") from None
    if not theirs.bias:  # of a GPT-2 the weights tell
        theirs.bias = config.bias
    _check_same(given, config, sequence_length, theirs, longest)


def check(given: str, folder: Path, config: GPTConfig, vocab_size: int, sequence_length: int) -> None:
    """An error unless a GPT so built can start from the weights in a folder.

    vocab_size: of the data's tokenizer.
    """
    try:
        theirs, tokens, longest, _ = from_hf(hf_folder.read_config(folder), hf_folder.read_weights(folder))
    except UserError as error:
        raise type(error)(f"model.init_from={given}: {error}") from None
    _check_same(given, config, sequence_length, theirs, longest)
    if tokens != vocab_size:
        raise ConfigError(
            f"model.init_from={given}: these weights tell {tokens:,} tokens apart, and the tokenizer of the data makes "
            f"{vocab_size:,}; use the one that belongs to the weights: tokenizer=hf tokenizer.path={given}"
        )


def weights(folder: Path, model: nn.Module) -> dict[str, Tensor]:
    """Name -> tensor, as check() has found them to fit."""
    state = from_hf(hf_folder.read_config(folder), hf_folder.read_weights(folder))[3]
    if POSITIONS in state and isinstance(model, GPT):
        state[POSITIONS] = state[POSITIONS][: model.max_sequence_length]
    return state


def _check_same(given: str, ours: GPTConfig, sequence_length: int, theirs: GPTConfig, longest: int) -> None:
    """ConfigError where ours would compute something else, or has more positions than theirs."""
    differing = _differing(ours, theirs)
    if differing:
        settings = " ".join(f"model.{name}={typed(getattr(theirs, name))}" for name in differing)
        raise ConfigError(
            f"model.init_from={given}: its model has other settings; type them too: {settings} (here "
            f"{', '.join(f'{name} is {typed(getattr(ours, name))}' for name in differing)})"
        )
    if theirs.positions == "learned" and sequence_length > longest:
        raise ConfigError(
            f"model.init_from={given}: these weights have {longest} positions, and data.sequence_length is "
            f"{sequence_length}; set data.sequence_length={longest}, or less"
        )


def _differing(ours: GPTConfig, theirs: GPTConfig) -> list[str]:
    """Settings of theirs that ours must take over to compute the same, in the order of the config."""
    # What null stands for depends on other settings, which are taken over too where they differ.
    kv_heads = theirs.n_head if ours.n_kv_head is None else ours.n_kv_head
    d_ff = dataclasses.replace(theirs, d_ff=None).feed_forward_width if ours.d_ff is None else ours.d_ff
    same = {"n_kv_head": kv_heads == theirs.kv_heads, "d_ff": d_ff == theirs.feed_forward_width}
    if theirs.rotary_scaling == "none":
        same |= dict.fromkeys(SCALING, True)
    if theirs.positions != "rotary":
        same["rotary_base"] = True
    names = [field.name for field in dataclasses.fields(GPTConfig) if field.name not in FREE]
    return [name for name in names if not same.get(name, getattr(ours, name) == getattr(theirs, name))]
