"""Configs of the models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from lmexp import plugins
from lmexp.checks import at_least, not_empty, one_of
from lmexp.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

CHOICES = {
    "positions": ("learned", "rotary", "alibi"),
    "rotary_scaling": ("none", "linear", "llama3", "yarn"),
    "norm": ("layer_norm", "rms_norm"),
    "activation": ("gelu", "gelu_tanh", "relu2", "swiglu"),
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
    """A run, or a folder that holds model.safetensors: training starts from these weights; null draws them anew. Kind
    gpt also starts from a folder of Hugging Face's that holds a GPT-2, Llama or Qwen3."""

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
    """learned (an embedding of each position, GPT-2), rotary (rotated queries and keys, Llama) or alibi (far keys count
    less, by a slope of each head; BLOOM, MPT)."""
    rotary_base: float = 10000.0
    """Longest wavelength of the rotary positions, in tokens over 2 pi; read with positions=rotary."""
    rotary_scaling: str = "none"
    """Stretches rotary positions to sequences longer than the first training's: linear (position interpolation),
    llama3 or yarn. (NTK-aware scaling is a larger rotary_base.)"""
    rotary_factor: float = 1.0
    """How many times as long the sequences become; read with rotary_scaling."""
    rotary_original_length: int | None = None
    """Longest sequence of the first training, in tokens; read with rotary_scaling=llama3 and yarn."""
    norm: str = "layer_norm"
    """layer_norm (GPT-2) or rms_norm (Llama)."""
    norm_eps: float = 1e-5
    """Added to the variance, or to the mean square, before a norm divides by its root."""
    activation: str = "gelu"
    """gelu (exact), gelu_tanh (its approximation, GPT-2), relu2 (the square of what is positive), or swiglu (Llama):
    two matrices, three with swiglu."""
    qk_norm: bool = False
    """RMSNorm on each head's queries and keys: steadier attention at high learning rates."""
    tie_embeddings: bool = True
    """Use the token embedding as the output matrix too."""
    bias: bool = False
    """Biases in linear layers and LayerNorms (GPT-2 has them)."""
    dropout: float = 0.0
    """Probability of dropping an embedding, an attention weight or a block's output while training."""
    activation_checkpointing: bool = False
    """Compute each block again in the backward pass and keep its input alone: the same numbers with much less memory,
    for about a third more time."""
    init_std: float = 0.02
    """Standard deviation of initial weights; output projections get it over sqrt(2 * n_layer)."""

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                hint = plugins.did_you_mean(value, allowed)
                raise ConfigError(f"model.{name} is {value!r}; expected one of {', '.join(allowed)}{hint}")
        for name in ("n_layer", "n_head", "d_model", "n_kv_head", "d_ff", "rotary_original_length"):
            at_least(f"model.{name}", getattr(self, name), 1)
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout is {self.dropout}; expected a probability from 0 to below 1")
        for name in ("init_std", "rotary_base", "norm_eps"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ConfigError(f"model.{name} is {value}; expected a positive number")
        at_least("model.rotary_factor", self.rotary_factor, 1)
        self._check_heads()
        self._check_rotary_scaling()

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

    def _check_rotary_scaling(self) -> None:
        kind, length = self.rotary_scaling, self.rotary_original_length
        unread = {"rotary_factor": self.rotary_factor != 1, "rotary_original_length": length is not None}
        unread["rotary_factor"] &= kind == "none"
        unread["rotary_original_length"] &= kind in ("none", "linear")
        for name, given in unread.items():
            if given:
                raise ConfigError(
                    f"model.{name} is {getattr(self, name)}, but nothing reads it with model.rotary_scaling={kind}; "
                    f"leave it out, or set model.rotary_scaling=llama3"
                )
        if kind == "none":
            return
        if self.positions != "rotary":
            raise ConfigError(
                f"model.rotary_scaling is {kind}, but model.positions is {self.positions}; set model.positions=rotary, "
                f"or model.rotary_scaling=none"
            )
        if self.rotary_factor == 1:
            raise ConfigError(
                f"model.rotary_scaling={kind} does nothing with model.rotary_factor=1; set how many times as long the "
                f"sequences become, e.g. model.rotary_factor=4"
            )
        if kind != "linear" and length is None:
            raise ConfigError(
                f"model.rotary_scaling={kind} needs the longest sequence of the first training; set "
                f"model.rotary_original_length, e.g. to 2048"
            )
        if self.rotary_base <= 1:
            raise ConfigError(
                f"model.rotary_base is {self.rotary_base}; expected more than 1 with model.rotary_scaling={kind}"
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
class LoRAConfig:
    """Low-rank adapters (arXiv:2106.09685): W + alpha / r * B A, of which only A and B are trained."""

    r: int = 8
    """Rank of the adapters."""
    alpha: float = 16.0
    """alpha / r scales what an adapter adds."""
    dropout: float = 0.0
    """Probability of dropping an input of an adapter while training."""
    target_modules: list[str] | None = None
    """Last names of the linear layers that get an adapter, e.g. [q_proj,v_proj]; null is peft's choice for the
    architecture."""

    def __post_init__(self) -> None:
        at_least("model.lora.r", self.r, 1)
        if not 0 < self.alpha < float("inf"):
            raise ConfigError(f"model.lora.alpha is {self.alpha}; expected a positive number")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.lora.dropout is {self.dropout}; expected a probability from 0 to below 1")
        if self.target_modules == [] or "" in (self.target_modules or ()):
            raise ConfigError(
                "model.lora.target_modules names no layer; expected names such as [q_proj,v_proj], or null for peft's "
                "choice"
            )


@dataclass(kw_only=True, slots=True)
class HFConfig(ModelConfig):
    """A causal language model of Hugging Face's transformers."""

    kind: str = "hf"
    path: str | None = None
    """A folder with config.json and safetensors, or a name on the hub; null draws the architecture of model.config."""
    revision: str | None = None
    """Commit of a repository on the hub: its 40 hex digits."""
    pretrained: bool = True
    """Start from the weights in model.path; false draws new ones for its architecture."""
    config: dict[str, Any] = field(default_factory=dict)
    """Of the architecture, e.g. {model_type: gpt2, n_embd: 64}; what model.path says otherwise is replaced."""
    lora: LoRAConfig | None = None
    """Train adapters and leave the weights alone, e.g. {r: 8, alpha: 16}; null trains all weights."""
    resolved: dict[str, Any] = field(default_factory=dict)
    """Filled in when a run begins: the whole configuration of the architecture, so that the run needs no other file
    for it. What is given here is replaced then."""

    def __post_init__(self) -> None:
        not_empty("model.path", self.path, "my_model")
        not_empty("model.revision", self.revision, "<commit>")
        if self.path is None and "model_type" not in self.config:
            raise ConfigError(
                "model=hf needs an architecture; give a folder or a name on the hub, model.path=..., or describe one, "
                "e.g. model.config={model_type: gpt2, n_embd: 64, n_layer: 2, n_head: 2}"
            )
        if self.path is None and self.revision is not None:
            raise ConfigError("model.revision is the commit of model.path, which isn't set; leave it out")
        if self.lora is not None and self.init_from is not None:
            raise ConfigError(
                "model.lora trains adapters on top of the weights in model.path, so model.init_from has no place; "
                "leave one of the two out"
            )
        if self.lora is not None and not self.starts_from_path:
            raise ConfigError(
                "model.lora trains adapters on top of weights that are there already; give them, "
                "model.path=... model.pretrained=true, or set model.lora=null"
            )

    @property
    def starts_from_path(self) -> bool:
        """Whether the first weights are those in model.path."""
        return self.path is not None and self.pretrained and self.init_from is None

    def build(self, *, vocab_size: int, sequence_length: int) -> nn.Module:
        from lmexp.models.hf import make_model

        return make_model(self, vocab_size=vocab_size, sequence_length=sequence_length)


@dataclass(kw_only=True, slots=True)
class NGramConfig(ModelConfig):
    """An n-gram model, counted in one pass over the training tokens."""

    kind: str = "ngram"
    counted: ClassVar[bool] = True
    """It is."""
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
