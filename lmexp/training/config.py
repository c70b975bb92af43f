"""Configs of the trainer, the checkpoints and the callbacks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lmexp import plugins
from lmexp.checks import at_least, one_of
from lmexp.errors import ConfigError

if TYPE_CHECKING:
    from pytorch_lightning import Callback

PRECISIONS = {
    "32": "32-true",
    "64": "64-true",
    "bf16": "bf16-mixed",
    "16": "16-mixed",
    **{name: name for name in ("32-true", "64-true", "bf16-mixed", "16-mixed", "bf16-true")},
}
ACCELERATORS = ("auto", "cpu", "cuda")
STRATEGIES = ("auto", "ddp", "fsdp")
SHARDED_PRECISIONS = ("32-true", "bf16-mixed", "bf16-true")
"""Those of Lightning's ModelParallelStrategy."""
KEEP = ("best", "last", "all", "none")
MODES = ("min", "max")


@dataclass(kw_only=True, slots=True)
class HardwareConfig:
    """Devices and numbers formats: what training and evaluation have in common."""

    accelerator: str = "auto"
    """cpu, cuda, or auto: CUDA where there is a device."""
    devices: Any = 1
    """Processes on each machine: a number, or the indices of devices as "0,1" or [0,1]."""
    num_nodes: int = 1
    """Number of machines."""
    precision: str = "32-true"
    """32-true, bf16-mixed, 16-mixed, bf16-true or 64-true; 32, bf16, 16 and 64 are short for these."""
    deterministic: bool = True
    """Use only operations that give the same bits each time on the same machine."""

    def __post_init__(self) -> None:
        one_of("trainer.accelerator", self.accelerator, ACCELERATORS)
        at_least("trainer.num_nodes", self.num_nodes, 1)
        if self.precision not in PRECISIONS:
            one_of("trainer.precision", self.precision, tuple(PRECISIONS))
        self.precision = PRECISIONS[self.precision]
        self.devices = _devices(self.devices)

    def device_count(self) -> int:
        """Processes on each machine."""
        return len(self.devices) if isinstance(self.devices, list) else int(self.devices)

    def world_size(self) -> int:
        """Processes on all machines together."""
        return self.device_count() * self.num_nodes


@dataclass(kw_only=True, slots=True)
class TrainerConfig(HardwareConfig):
    """How long and how to train. Every count is in optimizer steps."""

    max_steps: int | None = 500
    """Optimizer steps. Give one of max_steps, max_tokens and max_epochs; set the others to null."""
    max_tokens: int | None = None
    """Training tokens, rounded up to whole optimizer steps; with padding, where data.windows pads."""
    max_epochs: int | None = None
    """Passes over the training data."""
    strategy: str = "auto"
    """How several processes share a run: ddp (a whole model in each), fsdp (each keeps a part of the weights, gradients
    and optimizer state), or auto, which is ddp. With one process, nothing is shared."""
    accumulate_grad_batches: int = 1
    """Micro-batches in an optimizer step; data.batch_size stays the sequences in a whole step."""
    gradient_clip_val: float | None = 1.0
    """Largest norm of the gradient; null doesn't clip."""
    compile: bool = False
    """torch.compile the model: pays on large models, costs half a minute at the start."""
    val_every_n_steps: int = 100
    """Optimizer steps between validations; there is one at least."""
    limit_val_batches: int | None = None
    """Validate on this many batches of each process only; null is the whole validation split."""
    ema_decay: float | None = None
    """Also keep a moving average of the weights (ema = decay * ema + (1 - decay) * weights after each step), for
    evaluation.<name>.weights=ema; null keeps none. Takes the memory of the weights once more, in float32."""

    def __post_init__(self) -> None:
        HardwareConfig.__post_init__(self)
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ConfigError(
                f"trainer.ema_decay is {self.ema_decay}; expected a number from 0 up to 1, but not 1, e.g. 0.999, or "
                f"null"
            )
        given = [name for name in ("max_steps", "max_tokens", "max_epochs") if getattr(self, name) is not None]
        if len(given) != 1:
            settings = ", ".join(f"trainer.{name}={getattr(self, name)}" for name in given) or "none of them"
            fix = f"add trainer.{given[0]}=null to use trainer.{given[1]}" if given else "give trainer.max_steps=500"
            raise ConfigError(f"expected one of trainer.max_steps, max_tokens and max_epochs, got {settings}; {fix}")
        for name in (*given, "accumulate_grad_batches", "val_every_n_steps", "limit_val_batches"):
            at_least(f"trainer.{name}", getattr(self, name), 1)
        if self.gradient_clip_val is not None and not 0 < self.gradient_clip_val < float("inf"):
            raise ConfigError(
                f"trainer.gradient_clip_val is {self.gradient_clip_val}; expected a positive norm or null"
            )
        one_of("trainer.strategy", self.strategy, STRATEGIES)
        if self.is_sharded():
            self._check_sharded()

    def is_sharded(self) -> bool:
        """Whether several processes keep a part of the weights each."""
        return self.strategy == "fsdp" and self.world_size() > 1

    def _check_sharded(self) -> None:
        if self.precision not in SHARDED_PRECISIONS:
            raise ConfigError(
                f"trainer.precision is {self.precision}, which trainer.strategy=fsdp can't do; use one "
                f"of {', '.join(SHARDED_PRECISIONS)}, or trainer.strategy=ddp"
            )
        if self.compile:
            raise ConfigError(
                "trainer.compile=true compiles a model as one, and trainer.strategy=fsdp takes it to pieces; set "
                "trainer.compile=false, or use trainer.strategy=ddp"
            )


@dataclass(kw_only=True, slots=True)
class CheckpointConfig:
    """When checkpoints are written and which of them stay."""

    every_n_steps: int = 100
    """Optimizer steps between checkpoints; a kill loses at most these. The last step always gets one."""
    keep_last: int = 1
    """Newest checkpoints kept while training goes on."""
    keep_every_n_steps: int | None = None
    """Keep the checkpoints of these optimizer steps for good, a multiple of every_n_steps; null keeps none of them."""
    keep: str = "best"
    """What stays when the run is done, besides the last: best, last, all or none (none removes the last too)."""
    monitor: str = "validation/loss"
    """Log key that says which checkpoint is best."""
    mode: str = "min"
    """min if a smaller monitor is better, else max."""

    def __post_init__(self) -> None:
        at_least("checkpoint.every_n_steps", self.every_n_steps, 1)
        at_least("checkpoint.keep_last", self.keep_last, 1)
        at_least("checkpoint.keep_every_n_steps", self.keep_every_n_steps, 1)
        if self.keep_every_n_steps is not None and self.keep_every_n_steps % self.every_n_steps:
            nearest = max(1, round(self.keep_every_n_steps / self.every_n_steps)) * self.every_n_steps
            raise ConfigError(
                f"checkpoint.keep_every_n_steps ({self.keep_every_n_steps}) must be a multiple of "
                f"checkpoint.every_n_steps ({self.every_n_steps}); try checkpoint.keep_every_n_steps={nearest}"
            )
        one_of("checkpoint.keep", self.keep, KEEP)
        one_of("checkpoint.mode", self.mode, MODES)


@dataclass(kw_only=True, slots=True)
class CallbackConfig:
    """Something that watches or steers training."""

    kind: str = "???"

    def build(self) -> Callback:
        """The Lightning Callback."""
        raise NotImplementedError


@dataclass(kw_only=True, slots=True)
class EarlyStoppingConfig(CallbackConfig):
    """Stop when the monitor no longer improves (Lightning's EarlyStopping)."""

    kind: str = "early_stopping"
    monitor: str = "validation/loss"
    """Log key to watch."""
    mode: str = "min"
    """min if a smaller monitor is better, else max."""
    patience: int = 3
    """Validations without improvement before the run stops."""
    min_delta: float = 0.0
    """Smallest change that counts as an improvement."""

    def __post_init__(self) -> None:
        one_of("callbacks.early_stopping.mode", self.mode, MODES)
        at_least("callbacks.early_stopping.patience", self.patience, 1)
        at_least("callbacks.early_stopping.min_delta", self.min_delta, 0)

    def build(self) -> Callback:
        from pytorch_lightning.callbacks import EarlyStopping

        return EarlyStopping(
            monitor=self.monitor, mode=self.mode, patience=self.patience, min_delta=self.min_delta, strict=True
        )


@dataclass(kw_only=True, slots=True)
class CustomCallbackConfig(CallbackConfig):
    """A Lightning Callback of the user's."""

    kind: str = "custom"
    target: str = ""
    """my_pkg.module:ClassName, in a package trusted with -p my_pkg."""
    args: dict[str, Any] = field(default_factory=dict)
    """Arguments of the class, checked against its signature."""

    def __post_init__(self) -> None:
        plugins.check_target("callbacks", self.target)

    def build(self) -> Callback:
        from pytorch_lightning import Callback

        built: Callback = plugins.construct("callbacks", self.target, self.args, base=Callback)
        return built


def _devices(given: Any) -> int | list[int]:
    """A count, or the list of device indices."""
    parts: Any = given.split(",") if isinstance(given, str) and "," in given else given
    if isinstance(parts, list) and parts and all(str(part).strip().isdigit() for part in parts):
        indices = [int(part) for part in parts]
        if len(set(indices)) < len(indices):
            raise ConfigError(f'trainer.devices is {given!r}; expected each device once, device indices as "0,1"')
        return indices
    if not isinstance(parts, bool) and str(parts).isdigit() and int(parts) >= 1:
        return int(parts)
    raise ConfigError(f'trainer.devices is {given!r}; expected a number from 1, or device indices as "0,1"')
