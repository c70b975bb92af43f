"""The typed config of each command, and the one table from (group, kind) to its dataclass.

Config text never chooses code: a node's `kind` is looked up in SCHEMAS, and nothing else is ever instantiated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from lmexp.checks import at_least, not_empty, one_of
from lmexp.data import config as data
from lmexp.errors import ConfigError
from lmexp.evaluation import config as evaluation
from lmexp.evaluation.benchmarks import config as benchmarks
from lmexp.launch import config as launch
from lmexp.models import config as models
from lmexp.models.decoding import config as decoding
from lmexp.optim import config as optim
from lmexp.optim.schedulers import config as schedulers
from lmexp.plugins import did_you_mean
from lmexp.tasks import config as tasks
from lmexp.tokenizers import config as tokenizers
from lmexp.tracking import config as tracking
from lmexp.training import config as training

MISSING: Any = "???"
"""OmegaConf's mark of a value that must be given."""

BASES: dict[str, type] = {
    "data": data.DataConfig,
    "tokenizer": tokenizers.TokenizerConfig,
    "model": models.ModelConfig,
    "task": tasks.TaskConfig,
    "optimizer": optim.OptimizerConfig,
    "scheduler": schedulers.SchedulerConfig,
    "callbacks": training.CallbackConfig,
    "logger": tracking.LoggerConfig,
    "evaluation": evaluation.EvaluationConfig,
    "launcher": launch.LauncherConfig,
}
"""Group -> the class every kind of it derives from."""

SCHEMAS: dict[str, dict[str, type]] = {
    "data": {
        "stdlib": data.StdlibConfig,
        "text_files": data.TextFilesConfig,
        "json_lines": data.JsonLinesConfig,
        "csv": data.CsvConfig,
        "parquet": data.ParquetConfig,
        "hf": data.HFConfig,
        "synthetic": data.SyntheticConfig,
        "mixture": data.MixtureConfig,
        "custom": data.CustomDataConfig,
    },
    "tokenizer": {
        "byte": tokenizers.ByteTokenizerConfig,
        "char": tokenizers.CharTokenizerConfig,
        "word": tokenizers.WordTokenizerConfig,
        "bpe": tokenizers.BPETokenizerConfig,
        "saved": tokenizers.SavedTokenizerConfig,
        "hf": tokenizers.HFTokenizerConfig,
    },
    "model": {
        "gpt": models.GPTConfig,
        "ngram": models.NGramConfig,
        "hf": models.HFConfig,
        "custom": models.CustomModelConfig,
    },
    "task": {"language_modeling": tasks.LanguageModelingConfig, "custom": tasks.CustomTaskConfig},
    "optimizer": {
        "adam": optim.AdamConfig,
        "adamw": optim.AdamWConfig,
        "sgd": optim.SGDConfig,
        "lion": optim.LionConfig,
        "adafactor": optim.AdafactorConfig,
        "muon": optim.MuonConfig,
        "custom": optim.CustomOptimizerConfig,
    },
    "scheduler": {
        "constant": schedulers.ConstantConfig,
        "cosine": schedulers.CosineConfig,
        "linear": schedulers.LinearConfig,
        "wsd": schedulers.WSDConfig,
        "inverse_sqrt": schedulers.InverseSqrtConfig,
        "step": schedulers.StepConfig,
        "custom": schedulers.CustomSchedulerConfig,
    },
    "callbacks": {"early_stopping": training.EarlyStoppingConfig, "custom": training.CustomCallbackConfig},
    "logger": {"files": tracking.FilesLoggerConfig, "wandb": tracking.WandbLoggerConfig},
    "evaluation": {
        "perplexity": evaluation.PerplexityConfig,
        "baselines": evaluation.BaselinesConfig,
        "calibration": evaluation.CalibrationConfig,
        "selective": evaluation.SelectiveConfig,
        "multiple_choice": benchmarks.MultipleChoiceConfig,
        "minimal_pairs": benchmarks.MinimalPairsConfig,
        "last_word": benchmarks.LastWordConfig,
        "variance": evaluation.VarianceConfig,
        "invariance": evaluation.InvarianceConfig,
        "samples": evaluation.SamplesConfig,
        "custom": evaluation.CustomEvaluationConfig,
    },
    "launcher": {"local": launch.LocalLauncherConfig},
}

DICT_GROUPS = ("callbacks", "evaluation")
"""Groups of which a config holds several at once, by name."""

HELD = {"data.parts": "data"}
"""Other places that hold nodes by name -> the group they are of; chosen by `+data@data.parts.NAME=OPTION`."""

SAME_CONFIG = {"prepare": "train"}
"""Command -> the command whose config it takes."""


def field_names(schema: type | None) -> list[str]:
    """Names of a dataclass's fields; empty for anything else."""
    return [f.name for f in fields(schema)] if schema is not None and is_dataclass(schema) else []


def register(group: str, kind: str, schema: type) -> None:
    """Make `group=kind` selectable, e.g. `lmexp.register("model", "mine", MyModelConfig)`.

    schema: a dataclass that derives from the group's base (BASES[group]) and whose `kind` defaults to kind.
    Call it when your package is imported; name the package with `lmexp -p my_pkg`.
    """
    if group not in BASES:
        raise ConfigError(
            f"register: there is no group {group!r}{did_you_mean(group, BASES)}; one of {', '.join(BASES)}"
        )
    base = BASES[group]
    if not (isinstance(schema, type) and is_dataclass(schema) and issubclass(schema, base)):
        raise ConfigError(
            f"register: {schema!r} must be a dataclass that derives from {base.__module__}.{base.__name__}"
        )
    default = schema.__dataclass_fields__["kind"].default
    if default != kind:
        raise ConfigError(f"register: {schema.__name__}.kind is {default!r}; expected {kind!r}")
    known = SCHEMAS[group].get(kind)
    if known is not None and (known.__module__, known.__qualname__) != (schema.__module__, schema.__qualname__):
        raise ConfigError(
            f"register: {group}={kind} is {known.__module__}.{known.__qualname__} already; use another kind"
        )
    SCHEMAS[group][kind] = schema


@dataclass(kw_only=True, slots=True)
class RunConfig:
    """Name and place of the run."""

    name: str | None = None
    """Shown in tables and W&B; null takes the experiment's name, else <data>-<model>."""
    folder: str | None = None
    """Folder below the root that holds the run folder; null takes the experiment's name, else run.name."""
    root: str | None = None
    """Folder for all runs; null is LMEXP_OUTPUTS, or outputs/ where the command is typed."""

    def __post_init__(self) -> None:
        not_empty("run.root", self.root, "outputs")
        for key in ("name", "folder"):
            text = getattr(self, key)
            if text is not None and not re.fullmatch(r"\w[\w.+-]*", text):
                raise ConfigError(
                    f"run.{key} is {text!r}; expected letters, digits and any of _ . + - (it names a folder)"
                )


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """Everything `lmexp train` does, and all that run.json freezes."""

    seed: int = 1234
    """Decides initial weights, data order and dropout."""
    run: RunConfig = field(default_factory=RunConfig)
    data: data.DataConfig = MISSING
    tokenizer: tokenizers.TokenizerConfig | None = None
    model: models.ModelConfig | None = None
    task: tasks.TaskConfig = MISSING
    optimizer: optim.OptimizerConfig | None = None
    scheduler: schedulers.SchedulerConfig | None = None
    trainer: training.TrainerConfig = field(default_factory=training.TrainerConfig)
    callbacks: dict[str, training.CallbackConfig] = field(default_factory=dict)
    checkpoint: training.CheckpointConfig = field(default_factory=training.CheckpointConfig)
    logger: tracking.LoggerConfig = MISSING
    evaluation: dict[str, evaluation.EvaluationConfig] = field(default_factory=dict)
    launcher: launch.LauncherConfig = MISSING

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed is {self.seed}; expected a whole number from 0 to {2**32 - 1}")
        evaluation.check_names(self.evaluation)
        for name, one in self.evaluation.items():
            if one.weights == evaluation.EMA and self.trainer.ema_decay is None:
                raise ConfigError(
                    f"evaluation.{name}.weights=ema needs a moving average of the weights, which training doesn't "
                    f"keep; set trainer.ema_decay=0.999, or evaluation.{name}.weights=raw"
                )
        if isinstance(self.task, tasks.CustomTaskConfig):
            if self.is_counted:
                raise ConfigError(
                    f"model={self._model_kind} is counted, not trained by steps, and task=custom trains by steps; "
                    f"use task=language_modeling, or another model"
                )
            if isinstance(self.data, data.CorpusConfig) and self.tokenizer is None:
                raise ConfigError(
                    f"data={self.data.kind} is text and needs a tokenizer, which task=custom leaves out; choose one, "
                    f"e.g. tokenizer=byte, or use a data module of your own, data=custom data.target=..."
                )
            if self.trainer.is_sharded():
                raise ConfigError(
                    "trainer.strategy=fsdp shards the model of a task of lmexp's own, which task=custom isn't; use "
                    "trainer.strategy=ddp"
                )
            return
        self._check_language_modeling()
        if self.is_counted:
            self._check_counted()
            return
        if self.trainer.is_sharded() and self.optimizer is not None and not self.optimizer.shards:
            raise ConfigError(
                f"optimizer={self.optimizer.kind} can't step a parameter of which each process has a part "
                f"(trainer.strategy=fsdp); use optimizer=adamw, or trainer.strategy=ddp"
            )
        self._check_batch_size()
        self._check_monitors()
        if self.trainer.precision == "16-mixed" and getattr(self.optimizer, "fused", False):
            raise ConfigError(
                "trainer.precision=16-mixed scales the gradients, which a fused optimizer undoes only after they were "
                "clipped; set optimizer.fused=false, or use trainer.precision=bf16-mixed"
            )

    @property
    def is_counted(self) -> bool:
        """Whether the model is counted, so that there are no steps, and no optimizer and scheduler."""
        return self.model is not None and self.model.counted

    def _check_counted(self) -> None:
        if isinstance(self.data, data.MixtureConfig) and self.data.weights:
            raise ConfigError(
                f"data.weights gives shares of the training sequences, and model={self._model_kind} counts each token "
                f"once; take data.weights away, or count one of the sources"
            )

    @property
    def _model_kind(self) -> str:
        return "null" if self.model is None else self.model.kind

    def _check_language_modeling(self) -> None:
        for group in ("tokenizer", "model") if self.is_counted else ("tokenizer", "model", "optimizer", "scheduler"):
            if getattr(self, group) is None:
                raise ConfigError(
                    f"task={self.task.kind} needs a {group}, got {group}=null; choose one, e.g. {_EXAMPLES[group]}"
                )
        if not isinstance(self.data, data.CorpusConfig):
            raise ConfigError(
                f"task={self.task.kind} needs a corpus, got data={self.data.kind}; "
                f"use data=text_files data.path=..., or task=custom with a LightningModule of your own"
            )

    def _check_batch_size(self) -> None:
        """A step's sequences must divide evenly among processes and micro-batches."""
        assert isinstance(self.data, data.CorpusConfig)
        world, accumulate = self.trainer.world_size(), self.trainer.accumulate_grad_batches
        if self.data.batch_size % (world * accumulate):
            nearest = max(1, round(self.data.batch_size / (world * accumulate))) * world * accumulate
            raise ConfigError(
                f"data.batch_size ({self.data.batch_size}) is the sequences in an optimizer step and must be divisible "
                f"by processes x micro-batches ({world} x trainer.accumulate_grad_batches={accumulate}); "
                f"try data.batch_size={nearest}"
            )

    def _check_monitors(self) -> None:
        known = self.task.monitors()
        watched = {"checkpoint.monitor": self.checkpoint.monitor}
        for name, callback in self.callbacks.items():
            if isinstance(callback, training.EarlyStoppingConfig):
                watched[f"callbacks.{name}.monitor"] = callback.monitor
                if isinstance(self.data, data.CorpusConfig) and not self.data.has_split("validation"):
                    raise ConfigError(
                        f"callbacks.{name} watches {callback.monitor}, but data.validation_fraction=0 leaves nothing "
                        f"to validate on; set data.validation_fraction=0.05, or take the callback away"
                    )
        for key, monitor in watched.items():
            if known is not None and monitor not in known:
                raise ConfigError(
                    f"{key} is {monitor!r}, which task={self.task.kind} doesn't log; "
                    f"expected one of {', '.join(known)}{did_you_mean(monitor, known)}"
                )


@dataclass(kw_only=True, slots=True)
class EvaluateConfig:
    """`lmexp evaluate`: measure a run's model again, on any device and split."""

    run: str = ""
    """Folder of the run."""
    weights: str = "best"
    """Of which checkpoint: best, latest, or the number of its step."""
    seed: int = 0
    """Decides the resampling of the intervals."""
    trainer: training.HardwareConfig = field(default_factory=training.HardwareConfig)
    evaluation: dict[str, evaluation.EvaluationConfig] = field(default_factory=dict)
    launcher: launch.LauncherConfig = MISSING

    def __post_init__(self) -> None:
        _check_run_and_weights("evaluate", self.run, self.weights)
        at_least("seed", self.seed, 0)
        evaluation.check_names(self.evaluation)
        if not self.evaluation:
            raise ConfigError("evaluation is empty; choose some, e.g. evaluation=[perplexity,baselines]")
        for name, one in self.evaluation.items():
            if one.every_n_steps is not None:
                raise ConfigError(
                    f"evaluation.{name}.every_n_steps={one.every_n_steps} is for training, and lmexp evaluate looks at "
                    f"one checkpoint; take it away, and name the checkpoint with weights=STEP"
                )


@dataclass(kw_only=True, slots=True)
class GenerateConfig(decoding.DecodingConfig):
    """`lmexp generate`: sample text from a run's model."""

    run: str = ""
    """Folder of the run."""
    weights: str = "best"
    """Of which checkpoint: best, latest, or the number of its step."""
    prompt: str = ""
    """Text to go on from; empty starts a new document."""
    prompts_file: str | None = None
    """Prompts instead of prompt: a text file with one on each line, or .jsonl with {"prompt": ...} on each. The texts
    are printed as JSON lines, in the same order."""
    n_samples: int = 1
    """Texts for each prompt, with seeds seed, seed + 1, ...; with n_beams, the n_samples best."""
    batch_size: int = 16
    """Texts computed at once; changes speed and memory, not the texts."""
    seed: int = 0
    """Same seed, same text."""
    accelerator: str = "auto"
    """cpu, cuda, or auto: CUDA where there is a device."""

    def __post_init__(self) -> None:
        decoding.DecodingConfig.__post_init__(self)
        _check_run_and_weights("generate", self.run, self.weights)
        one_of("accelerator", self.accelerator, training.ACCELERATORS)
        for name, least in (("n_samples", 1), ("batch_size", 1), ("seed", 0)):
            at_least(name, getattr(self, name), least)
        not_empty("prompts_file", self.prompts_file, "prompts.txt")
        if self.prompt and self.prompts_file is not None:
            raise ConfigError("prompt and prompts_file are both set; take one of them away")
        if self.n_beams > 1 and self.n_samples > self.n_beams:
            raise ConfigError(
                f"n_samples ({self.n_samples}) must be at most n_beams ({self.n_beams}), of which it takes the best; "
                f"try n_beams={self.n_samples}"
            )
        if self.n_beams > 1 and self.seed:
            raise ConfigError(
                f"seed={self.seed} is for sampling, but n_beams={self.n_beams} samples nothing; take seed away"
            )
        if self.n_beams == 1 and self.temperature == 0 and self.n_samples > 1:
            raise ConfigError(
                f"n_samples is {self.n_samples}, but with temperature=0 all texts are the same; "
                f"set n_samples=1 or temperature=0.8"
            )


@dataclass(kw_only=True, slots=True)
class ExportConfig:
    """`lmexp export`: write a run's model in Hugging Face's format."""

    run: str = ""
    """Folder of the run."""
    to: str = ""
    """Folder to write, which isn't there yet."""
    weights: str = "best"
    """Of which checkpoint: best, latest, or the number of its step."""
    merge: bool = False
    """With model.lora: write the whole model with its adapters merged in, not the adapters alone."""

    def __post_init__(self) -> None:
        _check_run_and_weights("export", self.run, self.weights)
        if not self.to:
            raise ConfigError("to is not set; say where, lmexp export run=RUN to=FOLDER")


COMMANDS: dict[str, type] = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "generate": GenerateConfig,
    "export": ExportConfig,
}
"""Command -> its root schema; conf/<command>.yaml is composed into it."""

_EXAMPLES = {
    "tokenizer": "tokenizer=bpe",
    "model": "model=gpt_tiny",
    "optimizer": "optimizer=adamw",
    "scheduler": "scheduler=cosine",
}


def _check_run_and_weights(command: str, run: str, weights: str) -> None:
    if not run:
        raise ConfigError(f"run is not set; say which: lmexp {command} run=outputs/<experiment>/<run id>")
    if weights not in ("best", "latest") and not weights.isdigit():
        raise ConfigError(f"weights is {weights!r}; expected best, latest or the number of a step")
