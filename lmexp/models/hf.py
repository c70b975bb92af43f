"""Causal language models of Hugging Face's transformers, as lmexp's own: tokens to logits.

The architecture is transformers', by its config alone (hf_architecture). Weights are drawn anew, or read by load_base()
from safetensors. With model.lora, peft puts adapters beside some of its matrices: they alone are trained, and they
alone are in state_dict(), so in checkpoints.
"""

from __future__ import annotations

import inspect
import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lmexp.checks import findings
from lmexp.errors import CheckpointError, ConfigError
from lmexp.models import hf_architecture
from lmexp.models.config import HFConfig, LoRAConfig
from lmexp.models.layers.attention import document_mask
from lmexp.models.layers.cache import KVCache

CACHED = ("gemma", "gpt2", "gpt_neox", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3")
"""Architectures that go on from a cache of ours; of others the whole text is computed anew for each token."""
TOLERANCE = 1e-4
"""Of check(): how far logits that should be equal may lie apart, as a share of the largest."""


class HFModel(nn.Module):
    """Token ids to the logits of each next token.

    The logits are those of the tokenizer's tokens: where the architecture has room for more, they are left out.
    """

    def __init__(
        self, architecture: Any, *, lora: LoRAConfig | None, vocab_size: int, max_sequence_length: int
    ) -> None:
        """architecture: transformers' config object."""
        super().__init__()
        self.lora = lora
        self.vocab_size = vocab_size
        self.max_sequence_length = max_sequence_length
        model = hf_architecture.library().AutoModelForCausalLM.from_config(
            architecture, dtype=torch.float32, trust_remote_code=False
        )
        takes = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in takes
        self._cache_name = "cache" if "cache" in takes else "past_key_values"  # until transformers 5.24
        self.model = model if lora is None else with_adapters(model, lora)
        self._trained = frozenset(name for name, tensor in self.named_parameters() if tensor.requires_grad)
        if lora is not None:
            hooks: Any = self
            hooks.register_state_dict_post_hook(_keep_trained)
            hooks.register_load_state_dict_post_hook(_miss_trained_only)

    @property
    def plain(self) -> Any:
        """transformers' model; its matrices hold the adapters, where there are any."""
        model: Any = self.model
        return model.get_base_model() if self.lora is not None else model

    def forward(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """tokens (batch, seq) -> logits (batch, seq, vocab).

        positions: (batch, seq) of each token in its own document, where a sequence holds several; each 0 starts one,
        and none sees another. None: each sequence is one document.
        """
        if tokens.shape[1] > self.max_sequence_length:
            raise ValueError(
                f"tokens has {tokens.shape[1]} positions, but this model takes {self.max_sequence_length} at most; "
                f"give it fewer"
            )
        return self._logits(tokens, None if positions is None else document_mask(positions), positions)

    def load_base(self, weights: Mapping[str, Tensor], where: str) -> None:
        """Give the model weights as a Hugging Face folder names them; CheckpointError unless they fit to the last.

        where: what an error names. Adapters stay as they are.
        """
        model_class = type(self.plain)
        with warnings.catch_warnings(record=True):
            loaded, report = model_class.from_pretrained(
                None,
                config=self.plain.config,
                state_dict=dict(weights),
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        _check_report(report, where)
        own = {
            name.replace(".base_layer.", "."): tensor
            for name, tensor in self.plain.state_dict().items()
            if ".lora_" not in name
        }
        with torch.no_grad():
            for name, tensor in loaded.state_dict().items():
                own[name].copy_(tensor)

    @torch.no_grad()
    def check(self, *, packed: int | None) -> None:
        """ConfigError where the architecture looks ahead, or can't keep documents apart that share a sequence;
        CheckpointError where its weights make no numbers.

        packed: length of such sequences; None where there are none.
        """
        if self.max_sequence_length < 2:
            return
        training = self.training
        self.eval()
        try:
            length = min(8, self.max_sequence_length)
            tokens = torch.arange(length)[None] * 7 % self.vocab_size  # (1, seq)
            other = tokens.clone()
            other[0, -1] = (tokens[0, -1] + 1) % self.vocab_size
            logits = self(tokens)
            if not bool(logits.isfinite().all()):
                raise CheckpointError(
                    f"{type(self.plain).__name__}: its logits are not finite; its weights are damaged, or its training "
                    f"diverged"
                )
            if not _near(logits[:, :-1], self(other)[:, :-1]):
                raise ConfigError(
                    f"{type(self.plain).__name__} looks ahead: its logits depend on later tokens, so it can't be "
                    f"trained to predict them; choose a causal architecture, or model.config.is_decoder=true where it "
                    f"has that"
                )
            if packed is not None:
                self._check_packed(tokens, packed)
        finally:
            self.train(training)

    def _check_packed(self, tokens: Tensor, length: int) -> None:
        half = tokens.shape[1] // 2
        positions = torch.cat([torch.arange(half), torch.arange(tokens.shape[1] - half)])[None]
        try:
            apart = torch.cat([self(tokens[:, :half]), self(tokens[:, half:])], dim=1)
            kept = not _forgets(self.plain.config, length) and _near(self(tokens, positions), apart)
        except (RuntimeError, TypeError, ValueError):  # it takes no such mask
            kept = False
        if not kept:
            raise ConfigError(
                f"data.windows=packed puts several documents into a sequence, but {type(self.plain).__name__} can't be "
                f"told to keep them apart; use data.windows=padded or data.windows=stream"
            )

    def _logits(
        self, tokens: Tensor, mask: Tensor | None, positions: Tensor | None, slots: _Slots | None = None
    ) -> Tensor:
        """(batch, seq, vocab). mask: (batch or 1, 1, seq, keys) bool, which tokens each gathers from."""
        if mask is not None and self.plain.config._attn_implementation != "sdpa":  # the others add it to the scores
            mask = torch.zeros_like(mask, dtype=torch.float32).masked_fill(~mask, torch.finfo(torch.float32).min)
        more: dict[str, Any] = {} if slots is None else {self._cache_name: slots}
        if positions is not None and self._takes_positions:
            more["position_ids"] = positions
        logits: Tensor = self.model(
            input_ids=tokens, attention_mask=mask, use_cache=slots is not None, return_dict=True, **more
        ).logits
        return logits if logits.shape[-1] == self.vocab_size else logits[..., : self.vocab_size].contiguous()


class CachedHFModel(HFModel):
    """One of an architecture that is known to go on from a KVCache as from its own (CACHED)."""

    def forward(self, tokens: Tensor, positions: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """As HFModel's; with a cache as base.CachedLanguageModel says."""
        if cache is None:
            return super().forward(tokens, positions)
        if positions is not None:
            raise ValueError("give either positions or a cache: a cache knows the positions of its rows' next tokens")
        new = tokens.shape[1]
        positions = cache.positions(new, tokens.device)  # (batch or 1, new)
        slots = torch.arange(max(cache.lengths) + new, device=tokens.device)
        mask = (slots <= positions[:, :, None])[:, None]  # (batch or 1, 1, new, slots)
        logits = self._logits(tokens, mask, positions, _Slots(cache))
        cache.advance(new)
        return logits

    def new_cache(self, batch_size: int, max_length: int) -> KVCache:
        """An empty cache for batch_size texts of up to max_length tokens each."""
        if max_length > self.max_sequence_length:
            raise ValueError(
                f"max_length is {max_length}, but this model takes {self.max_sequence_length} tokens at most"
            )
        n_layer: int = self.plain.config.get_text_config().num_hidden_layers
        return KVCache(n_layer=n_layer, batch_size=batch_size, max_length=max_length)


class _Slots:
    """A KVCache as transformers' attention layers use a cache of theirs."""

    is_compileable = False

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache

    def update(self, k: Tensor, v: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return self._cache.append(layer_idx, k, v)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return max(self._cache.lengths)


def make_model(config: HFConfig, *, vocab_size: int, sequence_length: int) -> HFModel:
    """The model of a config, with fresh weights."""
    architecture = hf_architecture.make(config, vocab_size=vocab_size, sequence_length=sequence_length)
    longest = hf_architecture.max_positions(architecture) or sequence_length
    cached = architecture.model_type in CACHED and not _forgets(architecture, longest) and not _turns(architecture)
    return (CachedHFModel if cached else HFModel)(
        architecture, lora=config.lora, vocab_size=vocab_size, max_sequence_length=longest
    )


def _forgets(architecture: Any, length: int) -> bool:
    """Whether a layer may not gather from all tokens of a text this long, so that a mask of ours would change it."""
    text = architecture.get_text_config()
    window, kinds = getattr(text, "sliding_window", None), {*(getattr(text, "layer_types", None) or ())}
    return (window is not None and window < length) or bool(kinds - {"full_attention", "sliding_attention"})


def _turns(architecture: Any) -> bool:
    """Whether the rotary frequencies of all tokens depend on how long the text is, so that no key can be kept."""
    rope = getattr(architecture.get_text_config(), "rope_parameters", None) or {}
    return rope.get("rope_type") in ("dynamic", "longrope")


def with_adapters(model: nn.Module, config: LoRAConfig) -> nn.Module:
    """peft's model around transformers', with fresh adapters (B is 0, so nothing changes yet) and all else frozen."""
    try:
        import peft
    except ModuleNotFoundError as error:
        if error.name != "peft":
            raise
        raise ConfigError('model.lora needs peft: pip install "lmexp[hf]"') from None
    alpha: Any = config.alpha  # peft says int, and computes alpha / r
    settings = peft.LoraConfig(
        r=config.r,
        lora_alpha=alpha,
        lora_dropout=config.dropout,
        target_modules=config.target_modules,
        task_type="CAUSAL_LM",
    )
    linear = (nn.Linear, hf_architecture.library().pytorch_utils.Conv1D)
    uses = Counter(parameter for _, parameter in model.named_parameters(remove_duplicate=False))
    names = {
        name.rpartition(".")[2]
        for name, one in model.named_modules()
        if isinstance(one, linear) and uses[one.get_parameter("weight")] == 1
    }
    layers = f"the linear layers of this model are {', '.join(sorted(names))}"
    try:
        with warnings.catch_warnings():
            # peft sees for itself which way a matrix is stored, and says so; what is tied is refused below
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
            warnings.filterwarnings("ignore", message=r".*is_gradient_checkpointing.* is deprecated")
            warnings.filterwarnings("ignore", message=r".*tie_word_embeddings")
            adapted = peft.get_peft_model(model, settings)
    except ValueError as error:
        raise ConfigError(
            f"model.lora.target_modules is {config.target_modules}: {str(error).splitlines()[0][:200]}; {layers}"
        ) from None
    for name, module in adapted.named_modules():
        weight = getattr(getattr(module, "base_layer", None), "weight", None)
        if weight is not None and uses[weight] > 1:
            raise ConfigError(
                f"model.lora.target_modules is {config.target_modules}: {name.rpartition('.')[2]} shares its matrix "
                f"with another layer (tied embeddings), so an adapter beside it can't be merged; {layers}"
            )
    return adapted


def _keep_trained(model: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Let a state_dict() hold the adapters alone."""
    for name in [name for name in state if name.startswith(prefix)]:
        if name.removeprefix(prefix) not in model._trained:  # type: ignore[operator]
            del state[name]


def _miss_trained_only(model: nn.Module, keys: Any) -> None:
    """Let load_state_dict() miss whatever of this model isn't trained; it may stand within another, under a prefix."""
    tensors = (*model.named_parameters(remove_duplicate=False), *model.named_buffers())
    own = {name for name, _ in tensors} - model._trained  # type: ignore[operator]
    keys.missing_keys[:] = [
        name for name in keys.missing_keys if not any(name == one or name.endswith(f".{one}") for one in own)
    ]


def _near(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= TOLERANCE * b.abs().max())


def _check_report(report: Mapping[str, Any], where: str) -> None:
    shapes = [f"{n} (expected {list(own)}, found {list(found)})" for n, found, own in report["mismatched_keys"]]
    found = findings(
        (
            ("missing", sorted(report["missing_keys"])),
            ("unexpected", sorted(report["unexpected_keys"])),
            ("of another shape", sorted(shapes)),
            ("errors", list(report["error_msgs"])),
        )
    )
    if found:
        lines = [f"{where}: its weights don't fit the architecture:", *found]
        raise CheckpointError("\n".join([*lines, "  is model.config as the weights were trained with?"]))
