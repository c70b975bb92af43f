"""How long a checkpoint keeps training waiting: lmexp against Lightning's own save_checkpoint, in a real training.

Sides, in turn, in one process, on the same model with its Adam state: lmexp; Lightning's save_checkpoint as it is; the
same made as safe (fsync of the file, SHA-256, a manifest written atomically, fsync of the folder); no saving at all.
"waits" is the time that the training loop spends in saving: the call, and for lmexp what the next optimizer step still
waits for. "run takes longer by" is the time of the whole training above that without saving, for each checkpoint: it
contains what writing beside the computation costs that. The checkpoint at the end of a run, behind which nothing is
left to compute, counts in neither. Wanted: lmexp waits at most a fifth of Lightning made as safe.

    python -m benchmarks.saving [--rounds 5] [--micro] > benchmarks/results/saving.md

--micro: a model of 0.2 million parameters and a step of milliseconds instead. The exit code is 1 where the wanted is
not reached.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import machine

LARGEST_RATIO = 0.2
EVERY = 3
N_SAVES = 4
SIZES = {
    False: ("model.n_layer=8", "model.d_model=576", "model.n_head=8", "data.batch_size=2", "data.sequence_length=256"),
    True: ("model.n_layer=2", "model.d_model=96", "model.n_head=4", "data.batch_size=4", "data.sequence_length=32"),
}
SIDES = ("lmexp", "Lightning", "Lightning, as safe", "no saving")


@dataclass
class Measured:
    """Of the saves of one training."""

    waits: list[float] = field(default_factory=list)
    """Seconds in saving, for each checkpoint but the last."""
    began: float = 0.0
    ended: float = 0.0
    """When the first step began and the last one was done."""


def overrides(micro: bool, cache_dir: Path) -> list[str]:
    """A GPT on the standard library; a validation would only blur the times."""
    return [
        *SIZES[micro],
        "data=stdlib",
        f"data.cache_dir={cache_dir}",
        "tokenizer=byte",
        "trainer.accelerator=cpu",
        f"trainer.max_steps={EVERY * N_SAVES + 1}",
        "trainer.val_every_n_steps=1000",
        "trainer.limit_val_batches=1",
        f"checkpoint.every_n_steps={EVERY}",
        "checkpoint.keep=last",
        "logger=files",
        "logger.log_every_n_steps=1000",
        "evaluation=[]",
    ]


def train_with_lmexp(config: Any, cache: Any, folder: Path) -> Measured:
    """lmexp's own training, its two places that can wait being timed."""
    from lmexp.stopping import StopRequest
    from lmexp.training import trainer
    from lmexp.training.checkpoint_io import CheckpointWriter

    measured, spent = Measured(), 0.0
    save, wait = CheckpointWriter._save, CheckpointWriter.on_before_optimizer_step

    def timed(call: Callable[..., None]) -> Callable[..., None]:
        def inner(self: CheckpointWriter, *arguments: Any, **more: Any) -> None:
            nonlocal spent
            start = time.perf_counter()
            call(self, *arguments, **more)
            spent += time.perf_counter() - start

        return inner

    def begin(self: CheckpointWriter, *_: Any) -> None:
        measured.began = time.perf_counter()
        began(self, *_)

    def step_end(self: CheckpointWriter, trainer_: Any, *_: Any) -> None:
        nonlocal spent
        step = trainer_.global_step
        if step % EVERY == 1 and step > 1:  # the checkpoint of the step before is on disk
            measured.waits.append(spent)
            spent = 0.0
        measured.ended = time.perf_counter()
        ended(self, trainer_, *_)

    began, ended = CheckpointWriter.on_train_start, CheckpointWriter.on_train_batch_end
    patched = {
        "_save": timed(save),
        "on_before_optimizer_step": timed(wait),
        "on_train_start": begin,
        "on_train_batch_end": step_end,
    }
    originals = {name: getattr(CheckpointWriter, name) for name in patched}
    for name, replacement in patched.items():
        setattr(CheckpointWriter, name, replacement)
    try:
        (folder / "checkpoints").mkdir(parents=True)
        trainer.fit(config, folder, cache, None, rank=0, say=lambda _: None, stop=StopRequest())
    finally:
        for name, original in originals.items():
            setattr(CheckpointWriter, name, original)
    assert len(measured.waits) == N_SAVES, measured.waits
    return measured


def train_with_lightning(config: Any, cache: Any, folder: Path, save: Callable[[Any, Path], None] | None) -> Measured:
    """The same module, data and steps in pl.Trainer, with a callback that saves."""
    import pytorch_lightning as pl

    from lmexp.training import trainer
    from lmexp.training.seeds import StepSeeds

    measured = Measured()
    folder.mkdir(parents=True)

    class Saver(pl.Callback):
        def on_train_start(self, trainer_: pl.Trainer, pl_module: pl.LightningModule) -> None:
            measured.began = time.perf_counter()

        def on_train_batch_end(self, trainer_: pl.Trainer, *_: Any) -> None:
            measured.ended = time.perf_counter()
            if save is not None and trainer_.global_step % EVERY == 0:
                start = time.perf_counter()
                save(trainer_, folder / "checkpoint.ckpt")
                measured.waits.append(time.perf_counter() - start)

    parts = trainer.build(config, cache)
    fitting = pl.Trainer(
        accelerator="cpu",
        max_steps=EVERY * N_SAVES + 1,
        deterministic=True,
        callbacks=[StepSeeds(config.seed), Saver()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    fitting.fit(parts.module, datamodule=parts.datamodule)
    return measured


def save_safely(trainer: Any, path: Path) -> None:
    """Lightning's save_checkpoint, and what makes its file as safe as lmexp's."""
    from lmexp.files import sync_file, sync_folder, write_atomically
    from lmexp.training.checkpoints import sha256

    beside = path.with_suffix(".tmp")
    trainer.save_checkpoint(beside)
    sync_file(beside)
    write_atomically(path.with_suffix(".json"), json.dumps({path.name: sha256(beside)}))
    os.replace(beside, path)
    sync_folder(path.parent)


def measure(micro: bool, rounds: int) -> tuple[dict[str, list[Measured]], int, int]:
    """Measured of each side, by round; parameters; bytes of a checkpoint of lmexp."""
    import lmexp
    from lmexp.training import checkpoints, trainer
    from lmexp.training.devices import set_determinism

    trainer.quieten_lightning()
    set_determinism(True)
    found: dict[str, list[Measured]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as scratch:
        config = lmexp.compose(overrides(micro, Path(scratch) / "cache"))
        cache = lmexp.prepare(config, say=lambda _: None)
        sides: dict[str, Callable[[Path], Measured]] = {
            "lmexp": lambda folder: train_with_lmexp(config, cache, folder),
            "Lightning": lambda folder: train_with_lightning(
                config, cache, folder, lambda fitting, path: fitting.save_checkpoint(path)
            ),
            "Lightning, as safe": lambda folder: train_with_lightning(config, cache, folder, save_safely),
            "no saving": lambda folder: train_with_lightning(config, cache, folder, None),
        }
        size = n_parameters = 0
        for number in range(rounds + 1):
            for side, run in sides.items():
                folder = Path(scratch) / "run"
                measured = run(folder)
                if side == "lmexp":
                    newest = checkpoints.find(folder / "checkpoints", "latest")
                    size = sum(path.stat().st_size for path in newest.iterdir())
                    n_parameters = sum(tensor.numel() for tensor in checkpoints.load_weights(newest).values())
                shutil.rmtree(folder)
                if number:  # the first round warms up
                    found[side].append(measured)
                    print(f"round {number}, {side}: {measured}", file=sys.stderr)
    return found, n_parameters, size


def report(found: dict[str, list[Measured]], n_parameters: int, size: int) -> bool:
    """Print the table; whether the wanted is reached."""
    waits = {
        side: statistics.median(w for one in runs for w in one.waits)
        for side, runs in found.items()
        if side != "no saving"
    }
    seconds = {side: [one.ended - one.began for one in runs] for side, runs in found.items()}
    n_steps = EVERY * N_SAVES + 1
    step = statistics.median(seconds["no saving"]) / n_steps
    print(
        f"# How long a checkpoint keeps training waiting\n\n{n_parameters / 1e6:.1f} million parameters with Adam "
        f"state, {size / 1e6:.0f} MB; a step takes {1e3 * step:.0f} ms; medians of {len(found['lmexp'])} interleaved "
        f"rounds of {N_SAVES} checkpoints.\n\n| | waits, ms | run takes longer by, ms a checkpoint |\n|---|---|---|"
    )
    for side, wait in waits.items():
        pairs = zip(seconds[side], seconds["no saving"], strict=True)
        longer = statistics.median((with_saves - without) / N_SAVES for with_saves, without in pairs)
        print(f"| {side} | {1e3 * wait:.1f} | {1e3 * longer:.0f} |")
    ratio = waits["lmexp"] / waits["Lightning, as safe"]
    reached = ratio <= LARGEST_RATIO
    print(
        f"\nlmexp waits **{ratio:.3f}** of Lightning made as safe, {waits['lmexp'] / waits['Lightning']:.3f} of "
        f"Lightning as it is. Wanted: {LARGEST_RATIO} of the former: {'reached' if reached else 'not reached'}.\n\n"
        f"{machine()}"
    )
    return reached


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--micro", action="store_true")
    given = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore")
    with contextlib.redirect_stdout(sys.stderr):  # training's own lines
        measured = measure(given.micro, given.rounds)
    return 0 if report(*measured) else 1


if __name__ == "__main__":
    sys.exit(main())
