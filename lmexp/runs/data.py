"""The data of a run: prepared by the command that starts it, and found again by its fingerprint.

run.json lists the fingerprints of the token caches that a run has used; the last one counts. Whoever works on the run
opens the cache with that fingerprint, and needs the corpus itself only where the cache is gone. A corpus that has
changed in the meantime is refused, unless `lmexp resume RUN --allow-changed-data` accepts it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmexp import __version__
from lmexp.config.freeze import RunRecord, add_fingerprint
from lmexp.data.config import CorpusConfig
from lmexp.data.progress import Progress
from lmexp.errors import DataError, RunError
from lmexp.paths import RECEIPT_JSON, RUN_JSON, TOKENIZER_JSON, default_root
from lmexp.reading import read_object
from lmexp.runs.folder import made_here
from lmexp.runs.ranks import Ranks

if TYPE_CHECKING:
    from lmexp.config.schema import TrainConfig
    from lmexp.data.cache import TokenCache
    from lmexp.tokenizers.config import TokenizerConfig

COMPARED = {
    "n_read": "documents read",
    "n_documents": "documents kept",
    "n_bytes": "bytes",
    "n_dropped": "dropped",
    "n_quarantined": "quarantined",
    "split": "settings of the splits",
    "cleaning": "settings of the cleaning",
}
"""Facts of a source that tell what has changed, and their names."""


def prepare_data(config: TrainConfig, progress: Progress) -> TokenCache | None:
    """The token cache of the config's corpus, made if need be, with its data card; None for the user's own data."""
    if not isinstance(config.data, CorpusConfig) or config.tokenizer is None:
        return None
    from lmexp.reports.data_card import write_card

    cache = _prepare(config, config.tokenizer, progress)
    try:
        write_card(cache, config.data, config.seed)
    except FileNotFoundError:
        pass  # another process is writing it, and has removed what this one began
    except OSError as error:  # a cache that others prepared may be read-only
        progress.say(f"the data card can't be written to {cache.path}: {error.strerror}")
    return cache


def reopen_data(run_dir: Path, record: RunRecord, ranks: Ranks, progress: Progress) -> TokenCache | None:
    """The token cache of a run, for each of its processes; the first one makes it again where it is gone.

    DataError where the corpus is no longer the run's.
    """
    if not ranks.is_first:
        ranks.barrier()
    cache = _reopen(run_dir, record, progress)
    if ranks.is_first:
        ranks.barrier()
    return cache


def accept_changed_data(run_dir: Path, record: RunRecord, progress: Progress) -> RunRecord:
    """The record of a run that goes on with its corpus as it is now: a changed fingerprint is appended in run.json.

    Text becomes tokens by the run's own tokenizer, whatever the corpus holds now.
    """
    config = record.config
    if not record.data_fingerprints:
        return record
    assert config.tokenizer is not None
    cache = _prepare(config, config.tokenizer, progress)
    changes = _differences(run_dir, cache)
    if cache.fingerprint != record.data_fingerprints[-1] and not _has_tokenizer_of(run_dir, cache):
        cache = _prepare(config, _saved_tokenizer(run_dir), progress)
    trained_on = _checkpoint_fingerprint(run_dir)
    known = [*record.data_fingerprints]
    if trained_on is not None and trained_on not in known:
        known.append(trained_on)
    if cache.fingerprint != known[-1]:
        progress.say(f"the corpus has changed{changes}; going on with it as it is now")
        known.append(cache.fingerprint)
    for fingerprint in known[len(record.data_fingerprints) :]:
        add_fingerprint(run_dir, fingerprint)
    record.data_fingerprints = known
    return record


def describe(cache: TokenCache) -> dict[str, Any]:
    """What the receipt keeps of a cache, so that a change can be told later."""
    kept = (*COMPARED, "documents_digest")
    sources = {name: {k: s[k] for k in kept if k in s} for name, s in cache.facts["sources"].items()}
    return {"fingerprint": cache.fingerprint, "sources": sources, "tokenizer": cache.facts["tokenizer"]}


def cache_root(config: TrainConfig) -> Path:
    """Folder of the token caches."""
    assert isinstance(config.data, CorpusConfig)
    return Path(config.data.cache_dir or Path(config.run.root or default_root()) / "cache")


def _prepare(config: TrainConfig, tokenizer: TokenizerConfig, progress: Progress) -> TokenCache:
    from lmexp.data.cache import prepare

    assert isinstance(config.data, CorpusConfig)
    return prepare(config.data, tokenizer, cache_root=cache_root(config), progress=progress)


def _reopen(run_dir: Path, record: RunRecord, progress: Progress) -> TokenCache | None:
    if not record.data_fingerprints:
        return None
    from lmexp.data.cache import open_prepared
    from lmexp.data.plans import make_plan

    config, expected = record.config, record.data_fingerprints[-1]
    roots, ours = [cache_root(config)], made_here(run_dir, record)
    if config.data.cache_dir is None and run_dir.parent.parent != roots[0].parent:
        roots.append(run_dir.parent.parent / "cache")  # run and caches may have been moved together
    if not ours:
        roots.append(Path(record.cwd) / roots[0])  # the run alone may have been moved
    for root in roots:
        cache = open_prepared(root, expected)
        if cache is not None:
            if config.data.windows != "stream":
                make_plan(cache, config.data.windows, config.data.sequence_length)
            return cache
    if not ours:
        raise DataError(
            f"{run_dir}: its token cache {expected[:16]} is in none of {', '.join(map(str, roots))}, and the run was "
            f"made elsewhere or by somebody else: its {RUN_JSON} doesn't choose which of your files are read. Look at "
            f"`data` there, and make the cache yourself, with lmexp prepare and the same settings; or go on with the "
            f"corpus that it names: lmexp resume {run_dir} --allow-changed-data"
        )
    progress.say(f"the token cache {roots[0] / expected[:16]} is gone; reading the corpus again")
    try:
        cache = _prepare(config, config.tokenizer, progress)
        if cache.fingerprint != expected and len(record.data_fingerprints) > 1:
            cache = _prepare(config, _saved_tokenizer(run_dir), progress)  # as accept_changed_data() made it
    except DataError as error:
        raise DataError(
            f"{error}\n{run_dir}: its token cache {roots[0] / expected[:16]} is gone, so the corpus is needed again"
        ) from error
    if cache.fingerprint == expected:
        return cache
    raise DataError(
        f"{run_dir}: the corpus isn't the one that the run was trained on: expected fingerprint {expected[:16]}, found "
        f"{cache.fingerprint[:16]}{_differences(run_dir, cache)}; restore the files or the folder "
        f"{roots[0] / expected[:16]}, or go on with the corpus as it is: lmexp resume {run_dir} --allow-changed-data"
    )


def _saved_tokenizer(run_dir: Path) -> TokenizerConfig:
    from lmexp.tokenizers.config import SavedTokenizerConfig

    return SavedTokenizerConfig(path=str(run_dir / TOKENIZER_JSON))


def _has_tokenizer_of(run_dir: Path, cache: TokenCache) -> bool:
    from lmexp.tokenizers.base import load

    return load(run_dir / TOKENIZER_JSON).to_dict() == cache.tokenizer.to_dict()


def _checkpoint_fingerprint(run_dir: Path) -> str | None:
    """Of the data that the newest checkpoint was trained on."""
    from lmexp.paths import CHECKPOINTS_DIR
    from lmexp.training import checkpoints
    from lmexp.training.checkpoint_io import FINGERPRINT

    newest = checkpoints.latest(run_dir / CHECKPOINTS_DIR)
    found = checkpoints.load_state(newest).get(FINGERPRINT) if newest is not None else None
    return str(found) if found is not None else None


def _differences(run_dir: Path, cache: TokenCache) -> str:
    """' (594 documents then, 593 now; ...)', as far as the receipt tells."""
    try:
        receipt = read_object(run_dir / RECEIPT_JSON, RunError)
        return _compared(receipt["data"], describe(cache), str(receipt["lmexp"]))
    except (OSError, RunError, KeyError, TypeError, AttributeError):
        return " (documents, splits, cleaning, tokenizer or lmexp may have changed)"


def _compared(then: dict[str, Any], now: dict[str, Any], version: str) -> str:
    """What has changed between two describe()."""
    told = [f"lmexp {version} then, {__version__} now"] if version != __version__ else []
    if then["tokenizer"] != now["tokenizer"]:
        told.append("the tokenizer's settings differ")
    for name in {**then["sources"], **now["sources"]}:
        before, after = then["sources"].get(name), now["sources"].get(name)
        of = f" of {name}" if name else ""
        if before is None or after is None:
            told.append(f"the source {name!r} is {'new' if before is None else 'gone'}")
            continue
        changed = [key for key in COMPARED if before.get(key) != after.get(key)]
        told += [f"{COMPARED[key]}{of}: {before.get(key)} then, {after.get(key)} now" for key in changed]
        if not changed and before["documents_digest"] != after["documents_digest"]:
            told.append(f"as many documents and bytes{of}, but other text or another order")
    return f" ({'; '.join(told)})" if told else ""
