"""Evaluate a run's checkpoint: after training, or on request (`lmexp evaluate`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lmexp.config.freeze import read_record
from lmexp.data.config import CorpusConfig
from lmexp.evaluation.config import EvaluationConfig
from lmexp.evaluation.context import EvaluationContext
from lmexp.evaluation.row import Row, write_summary
from lmexp.evaluation.runner import run_evaluations
from lmexp.paths import CHECKPOINTS_DIR, EVALUATION_DIR, SUMMARY_JSON
from lmexp.reports.terminal import as_text
from lmexp.runs.data import reopen_data
from lmexp.runs.items import read_items
from lmexp.runs.load import LoadedModel, load
from lmexp.runs.ranks import Ranks
from lmexp.runs.work_progress import Lines, counted
from lmexp.tasks.config import CustomTaskConfig
from lmexp.training import checkpoints, initial_weights
from lmexp.training.average import average_of
from lmexp.training.config import HardwareConfig
from lmexp.training.devices import accelerator, autocast, set_determinism

if TYPE_CHECKING:
    from lmexp.config.schema import EvaluateConfig, TrainConfig
    from lmexp.data.cache import TokenCache

Say = Callable[[str], None]


def evaluate_after_training(
    run_dir: Path, config: TrainConfig, cache: TokenCache | None, ranks: Ranks, say: Say
) -> list[Row]:
    """Every evaluation of the config on the best checkpoint; writes evaluation/summary.json."""
    device = choose_device(config.trainer, ranks)
    if isinstance(config.task, CustomTaskConfig):
        return _evaluate_custom(run_dir, config, cache, ranks, device, say)
    loaded = load(run_dir, device=device)
    say(f"evaluating step {loaded.step}: {', '.join(config.evaluation) or 'nothing'}")
    context = _context(run_dir, loaded, config.trainer, cache, ranks, device)
    context.items = read_items(run_dir, read_record(run_dir))
    rows = _run(config.evaluation, context)
    if ranks.is_first:
        write_summary(
            run_dir / EVALUATION_DIR / SUMMARY_JSON, rows, checkpoint=loaded.checkpoint.name, tables=tables_of(context)
        )
        say(as_text(rows))
    return rows


def evaluate_request(run_dir: Path, config: EvaluateConfig, ranks: Ranks, say: Say, *, name: str) -> list[Row]:
    """What `lmexp evaluate` asks for; rows go to evaluation/<name>.json, the run's own summary stays."""
    record = read_record(run_dir)
    set_determinism(config.trainer.deterministic)
    device = choose_device(config.trainer, ranks)
    loaded = load(run_dir, weights=config.weights, device=device)
    cache = reopen_data(run_dir, record, ranks, Lines(say))
    context = _context(run_dir, loaded, config.trainer, cache, ranks, device, seed=config.seed, request=name)
    rows = _run(config.evaluation, context)
    if ranks.is_first:
        path = run_dir / EVALUATION_DIR / f"{name}.json"
        write_summary(path, rows, checkpoint=loaded.checkpoint.name, tables=tables_of(context))
        say(f"{run_dir} at step {loaded.step}")
        say(as_text(rows))
        say(f"rows: {path}")
    return rows


def _run(configs: dict[str, EvaluationConfig], context: EvaluationContext) -> list[Row]:
    """The rows of all evaluations; meanwhile the first process shows how far they are."""
    with counted(first=context.rank == 0) as progress:
        context.progress = progress.advance
        return run_evaluations(configs, context)


def tables_of(context: EvaluationContext) -> dict[str, str]:
    """Evaluation -> digest of the key of the table that it left."""
    return {name: samples.header.key.digest for name, samples in context.samples.items()}


def choose_device(settings: HardwareConfig, ranks: Ranks) -> torch.device:
    """The device of this process; joins the process group where there are several."""
    ranks.connect()
    if accelerator(settings.accelerator) == "cpu":
        return torch.device("cpu")
    index = settings.devices[0] if isinstance(settings.devices, list) else ranks.rank % settings.device_count()
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)
    return device


def _context(
    run_dir: Path,
    loaded: LoadedModel,
    settings: HardwareConfig,
    cache: TokenCache | None,
    ranks: Ranks,
    device: torch.device,
    *,
    seed: int = 0,
    request: str = "",
) -> EvaluationContext:
    assert isinstance(loaded.config.data, CorpusConfig)
    if settings.precision in ("64-true", "bf16-true") and not loaded.config.is_counted:  # counts stay as they are
        loaded.model.to(torch.float64 if settings.precision == "64-true" else torch.bfloat16)
    return EvaluationContext(
        model=loaded.model,
        cache=cache,
        sequence_length=loaded.config.data.sequence_length,
        windows=loaded.config.data.windows,
        device=device,
        dtype_context=autocast(settings.precision, device),
        rank=ranks.rank,
        world_size=ranks.world_size,
        seed=seed,
        tokenizer=loaded.tokenizer,
        folder=run_dir / EVALUATION_DIR,
        request=request,
        model_digest=checkpoints.read_manifest(loaded.checkpoint).files[checkpoints.MODEL],
        settings={"precision": settings.precision, "device": device.type},
        ema=_average(loaded.checkpoint, loaded.model),
    )


def _average(checkpoint: Path, model: torch.nn.Module, prefix: str = "") -> Callable[[], Any] | None:
    """What evaluates the moving average in a checkpoint; None where it holds none. prefix: of names in the model."""
    if checkpoints.EMA not in checkpoints.read_manifest(checkpoint).files:
        return None
    return lambda: average_of(checkpoint, model, prefix)


def _evaluate_custom(
    run_dir: Path, config: TrainConfig, cache: TokenCache | None, ranks: Ranks, device: torch.device, say: Say
) -> list[Row]:
    """The user's evaluations on the user's LightningModule; an empty summary where there are none."""
    rows: list[Row] = []
    tables: dict[str, str] = {}
    folder = checkpoints.find(run_dir / CHECKPOINTS_DIR, "best")
    record = read_record(run_dir)
    if config.evaluation:
        from lmexp.training.trainer import build

        first = record.initial_weights if initial_weights.wanted(config, resumed=True) else None
        module = build(config, cache, first).module
        manifest = checkpoints.read_manifest(folder)
        prefix = manifest.prefix
        module.load_state_dict({f"{prefix}{k}": v for k, v in checkpoints.load_weights(folder).items()})
        length = config.data.sequence_length if isinstance(config.data, CorpusConfig) else 0
        context = EvaluationContext(
            model=module.to(device).eval(),
            cache=cache,
            sequence_length=length,
            device=device,
            dtype_context=autocast(config.trainer.precision, device),
            rank=ranks.rank,
            world_size=ranks.world_size,
            tokenizer=cache.tokenizer if cache is not None else None,
            folder=run_dir / EVALUATION_DIR,
            model_digest=manifest.files[checkpoints.MODEL],
            settings={"precision": config.trainer.precision, "device": device.type},
            items=read_items(run_dir, record),
            ema=_average(folder, module, prefix),
        )
        rows = _run(config.evaluation, context)
        tables = tables_of(context)
    if ranks.is_first:
        write_summary(run_dir / EVALUATION_DIR / SUMMARY_JSON, rows, checkpoint=folder.name, tables=tables)
        if rows:
            say(as_text(rows))
    return rows
