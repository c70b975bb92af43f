"""`lmexp prepare` against a bare loop over Hugging Face's `tokenizers`, end to end: JSON lines to a file of token ids.

    python -m benchmarks.prepare [--megabytes 200] [--rounds 3] [--memory 200 2000]

The text is Python source: every .py file of the installed packages, a document each. Both sides are whole processes on
the same cores, run in turn, and read the same file with the same merges (vocabulary 8,192): the loop reads lines, calls
encode_batch (all cores) on 1,000 documents at a time and writes uint16; lmexp also checks, counts and hashes every
document, finds duplicates and writes document borders and a data card. The second pair learns the merges too, from the
same bytes. The ids of all documents must be identical, or there is no result.

--memory: sizes in MB; prints the peak of the resident memory of all processes of one `lmexp prepare` together.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.machine import machine

ROOT = Path(__file__).parents[1]
VOCAB_SIZE = 8192
TRAIN_BYTES = 50_000_000

LOOP = """
import json, sys
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

corpus, merges, out, method, train_bytes = sys.argv[1:]

def documents():
    with open(corpus, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["text"]

def some():
    n = 0
    for text in documents():
        if n >= int(train_bytes):
            return
        n += len(text.encode())
        yield text

def pipeline(model):
    library = Tokenizer(model)
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return library

if int(train_bytes):
    library = pipeline(models.BPE())
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=8191, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator(some(), trainer)
else:
    state = json.load(open(merges))
    vocab = {token: i for i, token in enumerate(state["tokens"])}
    library = pipeline(models.BPE(vocab=vocab, merges=[tuple(pair) for pair in state["merges"]]))
eos = library.get_vocab_size()

def batches():
    batch = []
    for text in documents():
        batch.append(text)
        if len(batch) == 1000:
            yield batch
            batch = []
    yield batch

with open(out, "wb") as file:
    np.array([eos], np.uint16).tofile(file)
    for batch in batches():
        for encoding in getattr(library, method)(batch, add_special_tokens=False):
            np.array([*encoding.ids, eos], np.uint16).tofile(file)
"""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200, help="size of the text")
    parser.add_argument("--rounds", type=int, default=3, help="times that each side runs")
    parser.add_argument("--memory", type=int, nargs="*", default=[], help="measure memory with texts of these sizes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        print(machine() + "\n")
        if given.memory:
            memory(folder, given.memory)
        else:
            speed(folder, given.megabytes, given.rounds)


def speed(folder: Path, megabytes: int, rounds: int) -> None:
    """The table of times."""
    corpus = folder / "corpus.jsonl"
    n_documents, n_bytes = write_corpus(corpus, megabytes)
    tokenizer = learn(folder, corpus)
    sides = {
        "lmexp prepare": lambda: prepare(folder, corpus, f"tokenizer=saved tokenizer.path={tokenizer}"),
        "loop, encode_batch": lambda: loop(folder, corpus, tokenizer, "encode_batch", 0),
        "loop, encode_batch_fast": lambda: loop(folder, corpus, tokenizer, "encode_batch_fast", 0),
        "lmexp prepare, learning the merges": lambda: prepare(folder, corpus, bpe()),
        "loop, learning the merges": lambda: loop(folder, corpus, tokenizer, "encode_batch", TRAIN_BYTES),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            seconds[name].append(side())
    same = np.array_equal(ours(folder, tokenizer), np.fromfile(folder / "ids-encode_batch-0", np.uint16))
    if not same:
        raise SystemExit("the ids differ: no result")
    print(f"{n_documents:,} documents, {n_bytes / 1e6:,.0f} MB of text, medians of {rounds} interleaved rounds;")
    print("ids identical on every document\n\n| | seconds | MB/s | lmexp is faster by |\n|---|---|---|---|")
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        own = medians["lmexp prepare, learning the merges" if "learning" in name else "lmexp prepare"]
        ratio = f"{median / own:.2f}x" if "loop" in name else ""
        print(f"| {name} | {median:.2f} | {n_bytes / 1e6 / median:.1f} | {ratio} |")


def memory(folder: Path, sizes: list[int]) -> None:
    """The table of peaks."""
    print("| text, MB | peak memory of all processes, MB | with mapped files, MB | seconds |\n|---|---|---|---|")
    for megabytes in sizes:
        corpus = folder / "corpus.jsonl"
        n_bytes = write_corpus(corpus, megabytes)[1]
        start = time.perf_counter()
        own, mapped = watched(lambda: start_prepare(folder, corpus, bpe()))  # noqa: B023 - called at once
        seconds = time.perf_counter() - start
        print(f"| {n_bytes / 1e6:,.0f} | {own / 1e6:,.0f} | {mapped / 1e6:,.0f} | {seconds:.1f} |", flush=True)


def write_corpus(path: Path, megabytes: int) -> tuple[int, int]:
    """JSON lines of Python source; where there isn't enough, again with a comment that tells the copies apart."""
    n_documents = n_bytes = 0
    with path.open("w", encoding="utf-8") as file:
        for text in sources():
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            n_documents += 1
            n_bytes += len(text.encode())
            if n_bytes >= megabytes * 1_000_000:
                return n_documents, n_bytes
    raise AssertionError("sources() never ends")


def sources() -> Iterator[str]:
    """The text of every .py file of the installed packages and the standard library, over and over."""
    roots = {Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")}
    files = sorted({path for root in roots for path in root.rglob("*.py")})
    copy = 0
    while True:
        for path in files:
            try:
                text = path.read_text(encoding="utf-8")
            except (UnicodeDecodeError, OSError):
                continue
            if text.strip() and "\0" not in text:
                yield f"# copy {copy}\n{text}" if copy else text
        copy += 1


def learn(folder: Path, corpus: Path) -> Path:
    """Merges for both sides, learned once by lmexp."""
    prepare(folder, corpus, bpe())
    (cache,) = folder.glob("cache/*/cache.json")
    kept = folder / "tokenizer.json"
    shutil.copy(cache.with_name("tokenizer.json"), kept)
    return kept


def bpe() -> str:
    """The overrides that learn merges."""
    return f"tokenizer=bpe tokenizer.vocab_size={VOCAB_SIZE} tokenizer.train_bytes={TRAIN_BYTES}"


def start_prepare(folder: Path, corpus: Path, tokenizer: str) -> subprocess.Popen[bytes]:
    """`lmexp prepare` with nothing prepared before, all documents in the training split."""
    shutil.rmtree(folder / "cache", ignore_errors=True)
    command = [sys.executable, "-m", "lmexp", "prepare", "data=json_lines", f"data.path={corpus}", *tokenizer.split()]
    held_out = ["data.validation_fraction=0", "data.test_fraction=0", f"data.cache_dir={folder / 'cache'}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LMEXP_OUTPUTS": str(folder)}
    return subprocess.Popen([*command, *held_out], env=environment, stdout=subprocess.DEVNULL)


def prepare(folder: Path, corpus: Path, tokenizer: str) -> float:
    """Seconds of `lmexp prepare`."""
    start = time.perf_counter()
    ended(start_prepare(folder, corpus, tokenizer))
    return time.perf_counter() - start


def loop(folder: Path, corpus: Path, tokenizer: Path, method: str, train_bytes: int) -> float:
    """Seconds of the bare loop."""
    out = folder / f"ids-{method}-{train_bytes}"
    start = time.perf_counter()
    arguments = [str(corpus), str(tokenizer), str(out), method, str(train_bytes)]
    ended(subprocess.Popen([sys.executable, "-c", LOOP, *arguments]))
    return time.perf_counter() - start


def ours(folder: Path, tokenizer: Path) -> np.ndarray:
    """The ids in lmexp's cache, made once more with the given merges."""
    prepare(folder, folder / "corpus.jsonl", f"tokenizer=saved tokenizer.path={tokenizer}")
    (cache,) = folder.glob("cache/*/cache.json")
    return np.fromfile(cache.with_name("train.tokens"), np.uint16)


def ended(process: subprocess.Popen[bytes]) -> None:
    """Wait; anything but success ends the benchmark."""
    if process.wait():
        raise SystemExit(f"{process.args} ended with exit code {process.returncode}")


def watched(start: Callable[[], subprocess.Popen[bytes]]) -> tuple[int, int]:
    """Peak bytes of memory of a process and all its children together, looked at every 20 ms: what is their own, and
    that with the pages of files that they have mapped, which the system takes back when it needs them."""
    process = start()
    peaks = [0, 0]
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            found = [resident(pid) for pid in family(process.pid)]
            peaks[0] = max(peaks[0], sum(own for own, _ in found))
            peaks[1] = max(peaks[1], sum(own + mapped for own, mapped in found))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        ended(process)
    finally:
        done.set()
        thread.join()
    return peaks[0], peaks[1]


def family(pid: int) -> list[int]:
    """A process and all that it started, and so on."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return []
    return [pid, *(found for child in children for found in family(int(child)))]


def resident(pid: int) -> tuple[int, int]:
    """Bytes of a process's resident memory: its own with what it shares, and of mapped files (libraries too)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0, 0
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if "Rss" in name}
    return 1024 * (kib.get("RssAnon", 0) + kib.get("RssShmem", 0)), 1024 * kib.get("RssFile", 0)


if __name__ == "__main__":
    main()
