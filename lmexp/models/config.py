"""Configs of the models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from lmexp import plugins
from lmexp.checks import at_least, one_of
from lmexp.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

CHOICES = {
    "positions": ("learned", "rotary"),
    "norm": ("layer_norm", "rms_norm"),
    "activation": ("gelu", "swiglu"),
}
"""Field of GPTConfig -> what it may be."""
SMOOTHINGS = ("kneser_ney", "witten_bell", "add_k", "mle")
MOST_ORDER = 32


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    """What maps token ids to logits."""

    kind: str = "???"
    counted: ClassVar[bool] = False
    """Whether it is fitted by counting the training tokens once, without optimizer and steps."""
    init_from: str | None = None
    """A run, or a folder that holds model.safetensors: training starts from these weights; null draws them anew."""

    def build(self, *, vocab_size: int, sequence_length: int) -> nn.Module:
        """A fresh model; base.py says what it must offer.

        vocab_size: tokens it tells apart; sequence_length: the longest sequence it is trained on.
        """
        raise NotImplementedError


@dataclass(kw_only=True, slots=True)
class GPTConfig(ModelConfig):
    """A decoder-only transformer: GPT-2, Llama and what lies between."""

    kind: str = "gpt"
    n_layer: int = 4
    """Number of transformer blocks."""
    n_head: int = 4
    """Attention heads of each block."""
    d_model: int = 128
    """Width of the residual stream."""
    n_kv_head: int | None = None
    """Heads of keys and values, each shared by n_head / n_kv_head query heads; null is n_head."""
    d_ff: int | None = None
    """Width of the feed-forward layer; null is 4 * d_model (swiglu: 8/3, up to a multiple of 32)."""
    positions: str = "learned"
    """learned (an embedding of each position, GPT-2) or rotary (rotated queries and keys, Llama)."""
    rotary_base: float = 10000.0
    """Longest wavelength of the rotary positions, in tokens over 2 pi; read with positions=rotary."""
    norm: str = "layer_norm"
    """layer_norm (GPT-2) or rms_norm (Llama)."""
    activation: str = "gelu"
    """gelu (exact, two matrices) or swiglu (gated, three matrices)."""
    qk_norm: bool = False
    """RMSNorm on each head's queries and keys: steadier attention at high learning rates."""
    tie_embeddings: bool = True
    """Use the token embedding as the output matrix too."""
    bias: bool = False
    """Biases in linear layers and LayerNorms (GPT-2 has them)."""
    dropout: float = 0.0
    """Probability of dropping an embedding, an attention weight or a block's output while training."""
    init_std: float = 0.02
    """Standard deviation of initial weights; output projections get it over sqrt(2 * n_layer)."""

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                hint = plugins.did_you_mean(value, allowed)
                raise ConfigError(f"model.{name} is {value!r}; expected one of {', '.join(allowed)}{hint}")
        for name in ("n_layer", "n_head", "d_model", "n_kv_head", "d_ff"):
            at_least(f"model.{name}", getattr(self, name), 1)
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout is {self.dropout}; expected a probability from 0 to below 1")
        for name in ("init_std", "rotary_base"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ConfigError(f"model.{name} is {value}; expected a positive number")
        self._check_heads()

    def _check_heads(self) -> None:
        if self.d_model % self.n_head:
            raise ConfigError(
                f"model.d_model ({self.d_model}) must be divisible by model.n_head ({self.n_head}); "
                f"try model.n_head={_nearest_divisor(self.d_model, self.n_head)}"
            )
        if self.n_head % self.kv_heads:
            raise ConfigError(
                f"model.n_head ({self.n_head}) must be divisible by model.n_kv_head ({self.kv_heads}); "
                f"try model.n_kv_head={_nearest_divisor(self.n_head, self.kv_heads)}"
            )
        if self.positions == "rotary" and self.d_head % 2:
            raise ConfigError(
                f"model.positions=rotary rotates pairs, but model.d_model / model.n_head ({self.d_model} / "
                f"{self.n_head} = {self.d_head}) is odd; try model.d_model={(self.d_head + 1) * self.n_head}"
            )

    @property
    def d_head(self) -> int:
        """Width of an attention head."""
        return self.d_model // self.n_head

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    @property
    def feed_forward_width(self) -> int:
        """Width of the feed-forward layer."""
        if self.d_ff is not None:
            return self.d_ff
        if self.activation == "swiglu":
            return -(-8 * self.d_model // (3 * 32)) * 32  # as many weights as gelu has with 4 * d_model
        return 4 * self.d_model

    def build(self, *, vocab_size: int, sequence_length: int) -> nn.Module:
        from lmexp.models.gpt import GPT

        return GPT(self, vocab_size=vocab_size, sequence_length=sequence_length)


@dataclass(kw_only=True, slots=True)
class NGramConfig(ModelConfig):
    """An n-gram model, counted in one pass over the training tokens."""

    kind: str = "ngram"
    counted: ClassVar[bool] = True
    order: int = 5
    """Tokens of the longest n-grams: each token is predicted from order - 1 before it."""
    smoothing: str = "kneser_ney"
    """kneser_ney (interpolated, modified), witten_bell (interpolated), add_k, or mle, which gives what was never seen
    no probability, so that most perplexities are infinite."""
    k: float = 1.0
    """Added to each count; read with smoothing=add_k."""
    across_documents: bool = False
    """Whether tokens before an <eos> are looked back at: where documents follow on each other."""

    def __post_init__(self) -> None:
        at_least("model.order", self.order, 1)
        if self.order > MOST_ORDER:
            raise ConfigError(f"model.order is {self.order}; expected at most {MOST_ORDER}, e.g. model.order=5")
        one_of("model.smoothing", self.smoothing, SMOOTHINGS)
        if not 0 < self.k < float("inf"):
            raise ConfigError(f"model.k is {self.k}; expected a positive number, e.g. model.k=1")
        if self.init_from is not None:
            raise ConfigError(
                "model.init_from gives weights to go on training from, and model=ngram is counted at once; take it away"
            )

    @property
    def interpolated(self) -> bool:
        """Whether shorter contexts are asked too."""
        return self.smoothing in ("kneser_ney", "witten_bell")

    def build(self, *, vocab_size: int, sequence_length: int) -> nn.Module:
        from lmexp.models.ngram import NGram

        return NGram(self, vocab_size=vocab_size, sequence_length=sequence_length)


@dataclass(kw_only=True, slots=True)
class CustomModelConfig(ModelConfig):
    """An nn.Module of the user's; it may take vocab_size and sequence_length."""

    kind: str = "custom"
    target: str = ""
    """my_pkg.module:ClassName, in a package trusted with -p my_pkg."""
    args: dict[str, Any] = field(default_factory=dict)
    """Arguments of the class, checked against its signature."""

    def __post_init__(self) -> None:
        plugins.check_target("model", self.target)

    def build(self, *, vocab_size: int, sequence_length: int) -> nn.Module:
        from torch import nn

        facts = {"vocab_size": vocab_size, "sequence_length": sequence_length}
        built: nn.Module = plugins.construct("model", self.target, self.args, base=nn.Module, facts=facts)
        return built


def _nearest_divisor(number: int, wish: int) -> int:
    """The divisor of number that is nearest to wish; the smaller of two."""
    divisors = (d for d in range(1, min(number, 1 << 16) + 1) if number % d == 0)  # whatever stands in a file
    return min(divisors, key=lambda divisor: abs(divisor - wish))
