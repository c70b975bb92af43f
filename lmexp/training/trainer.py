"""Build the module, the data and Lightning's Trainer from a config, and train."""

from __future__ import annotations

import logging
import math
import os
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from lmexp import plugins
from lmexp.data.config import CorpusConfig
from lmexp.errors import CheckpointError, ConfigError, LmexpError
from lmexp.models import hf_architecture
from lmexp.models.base import as_language_model, check_takes_positions
from lmexp.models.config import GPTConfig, HFConfig
from lmexp.paths import CHECKPOINTS_DIR
from lmexp.stopping import StopRequest
from lmexp.tasks.config import CustomTaskConfig
from lmexp.tracking.tracker import Tracker
from lmexp.training import checkpoints, initial_weights, progress
from lmexp.training.average import WeightAverage
from lmexp.training.checkpoint_io import CheckpointWriter, FolderCheckpointIO
from lmexp.training.config import HardwareConfig, TrainerConfig
from lmexp.training.devices import accelerator
from lmexp.training.evaluations import StepEvaluations
from lmexp.training.logger import TrackerLogger
from lmexp.training.seeds import StepSeeds
from lmexp.training.step_log import StepLog

if TYPE_CHECKING:
    from lmexp.config.schema import TrainConfig
    from lmexp.data.cache import TokenCache
    from lmexp.evaluation.context import FrozenItems

MOST_ROTARY_BYTES = 1 << 32
"""Of the tables of rotary positions."""
MOST_LAYERS = 1000
"""Of a model with adapters, whose checkpoints don't tell how many it has."""


@dataclass(kw_only=True, slots=True)
class Parts:
    """What is trained, on what, and for how long."""

    module: pl.LightningModule
    datamodule: pl.LightningDataModule
    total_steps: int | None
    """Optimizer steps; None where only max_epochs of the user's data module bounds them."""
    tokens_per_step: int | None
    """Training tokens in an optimizer step, padding among them; None for the user's own data."""
    validates: bool
    """False where the corpus has no validation split."""


def build(config: TrainConfig, cache: TokenCache | None, weights: Mapping[str, str] | None = None) -> Parts:
    """The LightningModule and the LightningDataModule.

    weights: path and sha256 of the file that initial weights come from; None draws them, from config.seed alone.
    """
    pl.seed_everything(config.seed, verbose=False)
    tokenizer = cache.tokenizer if cache is not None else _untrained_tokenizer(config)
    if isinstance(config.data, CorpusConfig):
        from lmexp.data.module import CorpusDataModule

        assert cache is not None
        datamodule: pl.LightningDataModule = CorpusDataModule(
            cache, config.data, seed=config.seed, accumulate=config.trainer.accumulate_grad_batches
        )
        tokens_per_step: int | None = config.data.batch_size * config.data.sequence_length
        total_steps: int | None = corpus_steps(config.trainer, config.data, cache)
    else:
        datamodule = config.data.build(tokenizer=tokenizer, seed=config.seed)
        tokens_per_step, total_steps = None, config.trainer.max_steps
    module = _module(config, tokenizer, total_steps, weights)
    return Parts(
        module=module,
        datamodule=datamodule,
        total_steps=total_steps,
        tokens_per_step=tokens_per_step,
        validates=not isinstance(config.data, CorpusConfig) or config.data.has_split("validation"),
    )


def corpus_steps(trainer: TrainerConfig, data: CorpusConfig, cache: TokenCache) -> int:
    """Optimizer steps that max_steps, max_tokens or max_epochs ask for."""
    if trainer.max_steps is not None:
        return trainer.max_steps
    if trainer.max_tokens is not None:
        return math.ceil(trainer.max_tokens / (data.batch_size * data.sequence_length))
    from lmexp.data.windows import training_rows

    assert trainer.max_epochs is not None
    n_samples = training_rows(cache, data, seed=0).n_samples
    return max(1, trainer.max_epochs * n_samples // data.batch_size)


def build_model(config: TrainConfig, vocab_size: int) -> torch.nn.Module:
    """The model of a language-modeling config, with fresh weights."""
    assert config.model is not None and isinstance(config.data, CorpusConfig)
    model = config.model.build(vocab_size=vocab_size, sequence_length=config.data.sequence_length)
    as_language_model(model)
    if config.data.windows == "packed":
        check_takes_positions(model)
    return model


def check_fits(config: TrainConfig, vocab_size: int, checkpoint: Path) -> None:
    """CheckpointError where a checkpoint isn't of this config's model, before memory is taken for either.

    A model of the user's own tells what fits when it is built.
    """
    model = config.model
    if isinstance(model, HFConfig):
        _check_hugging_face(config, vocab_size, checkpoint)
    if not isinstance(model, GPTConfig) or not isinstance(config.data, CorpusConfig):
        return
    found, length = checkpoints.shapes(checkpoint), config.data.sequence_length
    if model.positions == "rotary" and length * model.d_head * 8 > MOST_ROTARY_BYTES:
        raise CheckpointError(f"{checkpoint}: data.sequence_length is {length:,}, for which there is no memory")
    what = f" with n_layer {model.n_layer}, d_model {model.d_model} and {vocab_size} tokens"
    _check_shapes(config, vocab_size, checkpoint, found, what, bounded=model.n_layer <= len(found))


def _check_hugging_face(config: TrainConfig, vocab_size: int, checkpoint: Path) -> None:
    """The same for a Hugging Face model; of adapters, where that tells how many layers there may be."""
    assert isinstance(config.model, HFConfig)
    if not config.model.resolved:  # else it would be looked up, maybe on the hub
        raise CheckpointError(f"{checkpoint}: run.json lacks the architecture (model.resolved); lmexp didn't write it")
    found, n_layer = checkpoints.shapes(checkpoint), hf_architecture.layers(config.model)
    bounded = n_layer <= len(found) or (config.model.lora is not None and n_layer <= MOST_LAYERS)
    what = f"of which run.json says that it has {n_layer} layers"
    _check_shapes(config, vocab_size, checkpoint, found, f", {what}", bounded=bounded)


def _check_shapes(
    config: TrainConfig,
    vocab_size: int,
    checkpoint: Path,
    found: Mapping[str, tuple[int, ...]],
    what: str,
    *,
    bounded: bool,
) -> None:
    """CheckpointError unless found are the shapes of the config's model; bounded: whether that may be built at all."""
    expected: dict[str, tuple[int, ...]] = {}
    if bounded:
        with torch.device("meta"):
            expected = {name: tuple(t.shape) for name, t in build_model(config, vocab_size).state_dict().items()}
    if found != expected:
        names = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        example = f"; {names[0]} is {found.get(names[0])}, expected {expected.get(names[0])}" if expected else ""
        raise CheckpointError(
            f"{checkpoint}: its weights aren't those of the run's model{what}{example}; one of the two is of another "
            f"run"
        )


def fit(
    config: TrainConfig,
    run_dir: Path,
    cache: TokenCache | None,
    tracker: Tracker | None,
    *,
    rank: int,
    say: Callable[[str], None],
    stop: StopRequest,
    data_fingerprints: Sequence[str] = (),
    started_from: Mapping[str, str] | None = None,
    items: FrozenItems | None = None,
) -> None:
    """Train from the newest checkpoint, or from the start, to the end. Raises Stopped when a signal ended it.

    started_from: path and sha256 of the first weights, where they aren't drawn; not read where a checkpoint has all.
    items: what the run knows of files that its evaluations read.
    """
    quieten_lightning()
    root = run_dir / CHECKPOINTS_DIR
    resumed = checkpoints.latest(root, warn=say)
    if resumed is not None and cache is not None and not isinstance(config.task, CustomTaskConfig):
        check_fits(config, cache.tokenizer.vocab_size, resumed)
    reads = initial_weights.wanted(config, resumed=resumed is not None)
    if reads and started_from is None:
        raise CheckpointError(f"{run_dir}: run.json doesn't say which weights it starts from; lmexp didn't write it")
    parts = build(config, cache, started_from if reads else None)
    if config.trainer.precision == "64-true":
        parts.module.double()  # Lightning does so after it has loaded a checkpoint, which float32 would round
    checkpoint_io = FolderCheckpointIO(data_fingerprints)
    callbacks = _callbacks(config, run_dir, cache, parts, tracker, rank, checkpoint_io, stop, say, items)
    trainer = _trainer(config, run_dir, parts, tracker, checkpoint_io, callbacks)
    n_parameters = sum(p.numel() for p in parts.module.parameters() if p.requires_grad)
    start = f", starting from {started_from['path']}" if started_from is not None else ""
    start = start if resumed is None else f", going on from step {checkpoints.read_manifest(resumed).step}"
    steps = f"{parts.total_steps:,} steps" if parts.total_steps else f"{config.trainer.max_epochs} epochs"
    at_most = "up to " if isinstance(config.data, CorpusConfig) and config.data.windows != "stream" else ""
    per_step = f" of {at_most}{parts.tokens_per_step:,} tokens" if parts.tokens_per_step else ""
    say(f"training {n_parameters:,} parameters for {steps}{per_step} ({config.trainer.precision}){start}")
    if config.trainer.strategy == "fsdp" and not config.trainer.is_sharded():
        say("trainer.strategy=fsdp: one process has nobody to share with, so it keeps everything itself")
    for name, evaluation in config.evaluation.items():
        if parts.total_steps is not None and (evaluation.every_n_steps or 0) > parts.total_steps:
            say(f"evaluation.{name}.every_n_steps={evaluation.every_n_steps} lies beyond the last step")
    checkpoint = None if resumed is None else str(resumed)
    try:
        trainer.fit(parts.module, datamodule=parts.datamodule, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as error:  # how Lightning answers a KeyboardInterrupt
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if resumed is None or isinstance(error, LmexpError) or not _while_restoring(error):
            raise
        raise CheckpointError(
            f"{resumed}: its state isn't that of this run ({type(error).__name__}: {error}); another version of lmexp "
            f"or Lightning wrote it, or it was changed"
        ) from error


def _while_restoring(error: BaseException) -> bool:
    """Whether Lightning met an error while it handed a checkpoint out."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_filename.endswith("checkpoint_connector.py") for frame, _ in frames)


def _callbacks(
    config: TrainConfig,
    run_dir: Path,
    cache: TokenCache | None,
    parts: Parts,
    tracker: Tracker | None,
    rank: int,
    checkpoint_io: FolderCheckpointIO,
    stop: StopRequest,
    say: Callable[[str], None],
    items: FrozenItems | None,
) -> list[pl.Callback]:
    """In the order in which they see a step: it is logged, averaged, evaluated and saved."""
    custom = isinstance(config.task, CustomTaskConfig) or any(c.kind == "custom" for c in config.callbacks.values())
    step_log = StepLog(
        tracker, progress.choose(rank), every=config.logger.log_every_n_steps, total_steps=parts.total_steps
    )
    average = WeightAverage(config.trainer.ema_decay) if config.trainer.ema_decay is not None else None
    writer = CheckpointWriter(
        run_dir / CHECKPOINTS_DIR,
        config.checkpoint,
        io=checkpoint_io,
        total_steps=parts.total_steps,
        stop=stop,
        background=not custom,
        before_save=tracker.sync if tracker is not None else lambda: None,
    )
    callbacks = [StepSeeds(config.seed), step_log, *(callback.build() for callback in config.callbacks.values())]
    if average is not None:
        callbacks.append(average)
    if any(evaluation.every_n_steps is not None for evaluation in config.evaluation.values()):
        evaluations = StepEvaluations(
            config,
            run_dir,
            cache,
            tracker,
            average,
            stop=stop,
            say=say,
            pause=step_log.pause,
            busy=step_log.progress.busy,
            items=items,
            make_model=_model_maker(config, cache),
        )
        callbacks.append(evaluations)
    if config.trainer.is_sharded():
        from lmexp.training.fsdp import Lockstep

        callbacks.insert(0, Lockstep())
    return [*callbacks, writer]


def _model_maker(config: TrainConfig, cache: TokenCache | None) -> Callable[[], torch.nn.Module] | None:
    """Makes a model like the one that is sharded; None where it isn't."""
    if not config.trainer.is_sharded():
        return None
    assert cache is not None
    return partial(build_model, config, cache.tokenizer.vocab_size)


def _trainer(
    config: TrainConfig,
    run_dir: Path,
    parts: Parts,
    tracker: Tracker | None,
    checkpoint_io: FolderCheckpointIO,
    callbacks: list[pl.Callback],
) -> pl.Trainer:
    settings = config.trainer
    total_steps, custom = parts.total_steps, isinstance(config.task, CustomTaskConfig)
    every = settings.val_every_n_steps if total_steps is None else min(settings.val_every_n_steps, total_steps)
    logger = TrackerLogger(tracker, run_dir)
    trainer = pl.Trainer(
        **hardware(settings, checkpoint_io),
        strategy=_strategy(settings),
        inference_mode=not settings.is_sharded(),  # what FSDP puts together then couldn't be trained with
        max_steps=-1 if total_steps is None else total_steps,
        max_epochs=-1 if total_steps is not None else settings.max_epochs,
        accumulate_grad_batches=settings.accumulate_grad_batches,
        gradient_clip_val=settings.gradient_clip_val if custom else None,  # lmexp's tasks clip by themselves
        val_check_interval=every * settings.accumulate_grad_batches,
        check_val_every_n_epoch=None,
        limit_val_batches=settings.limit_val_batches if parts.validates else 0,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=logger,
        log_every_n_steps=config.logger.log_every_n_steps,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=custom,
        default_root_dir=str(run_dir),
    )
    logger.trainer = trainer
    return trainer


def _strategy(settings: TrainerConfig) -> Any:
    """Lightning's strategy, or the name of one."""
    if settings.is_sharded():
        from lmexp.training.fsdp import ShardedStrategy

        return ShardedStrategy(settings.world_size())
    return "ddp" if settings.world_size() > 1 or settings.strategy == "ddp" else "auto"


def hardware(settings: HardwareConfig, checkpoint_io: FolderCheckpointIO) -> dict[str, Any]:
    """The arguments of Lightning's Trainer that say where and in which precision."""
    under_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    return {
        "accelerator": accelerator(settings.accelerator),
        "devices": settings.devices,
        "num_nodes": settings.num_nodes,
        "precision": settings.precision,
        "deterministic": settings.deterministic,
        # Chosen here, so that a Slurm allocation around us doesn't make Lightning take over signals and ranks.
        "plugins": [checkpoint_io, TorchElasticEnvironment() if under_torchrun else LightningEnvironment()],
    }


def quieten_lightning() -> None:
    """No tips and no advice about settings that are chosen on purpose; real warnings stay."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    # torch 2.13 renamed what lightning 2.6.6 asks for, nothing a user can act on:
    warnings.filterwarnings("ignore", message=r".*LeafSpec.*is deprecated", category=FutureWarning)
    warnings.filterwarnings("ignore", message=r".*does not have many workers")  # gathers in process are faster
    warnings.filterwarnings("ignore", message=r".*GPU available but not used")


def _module(
    config: TrainConfig, tokenizer: Any, total_steps: int | None, weights: Mapping[str, str] | None
) -> pl.LightningModule:
    vocab_size = tokenizer.vocab_size if tokenizer is not None else None
    if isinstance(config.task, CustomTaskConfig):
        facts = _facts(config, tokenizer, total_steps, weights)
        module: pl.LightningModule = plugins.construct(
            "task", config.task.target, config.task.args, base=pl.LightningModule, facts=facts
        )
        return module
    from lmexp.tasks.language_modeling import LanguageModeling

    assert vocab_size is not None and total_steps is not None
    assert config.optimizer is not None and config.scheduler is not None
    model = _started_model(config, vocab_size, weights)
    if config.trainer.compile:
        model.compile()
    return LanguageModeling(
        model,
        optimizer=config.optimizer,
        scheduler=config.scheduler,
        total_steps=total_steps,
        gradient_clip_val=config.trainer.gradient_clip_val,
    )


def _started_model(config: TrainConfig, vocab_size: int, weights: Mapping[str, str] | None) -> torch.nn.Module:
    """The model with the weights that training starts from."""
    model = build_model(config, vocab_size)
    if weights is not None:
        initial_weights.load(model, Path(weights["path"]), weights["sha256"])
    return model


def _facts(
    config: TrainConfig, tokenizer: Any, total_steps: int | None, weights: Mapping[str, str] | None
) -> dict[str, Any]:
    """What a LightningModule of the user's may ask for by parameter name."""
    facts = {"tokenizer": tokenizer, "optimizer": config.optimizer, "scheduler": config.scheduler}
    facts = {name: value for name, value in facts.items() if value is not None} | {"total_steps": total_steps}
    if tokenizer is not None:
        facts["vocab_size"] = tokenizer.vocab_size
        if config.model is not None and isinstance(config.data, CorpusConfig):
            facts["model"] = _started_model(config, tokenizer.vocab_size, weights)
    return facts


def _untrained_tokenizer(config: TrainConfig) -> Any:
    """A tokenizer where there is no corpus to train one on: byte needs none."""
    if config.tokenizer is None:
        return None
    if config.tokenizer.kind != "byte":
        raise ConfigError(
            f"tokenizer={config.tokenizer.kind} is trained on a corpus, and data={config.data.kind} gives none; "
            f"use tokenizer=byte, or leave the tokenizer to your data module"
        )
    return config.tokenizer.train([])
