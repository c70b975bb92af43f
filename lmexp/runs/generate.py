"""Text from a run's model, piece by piece."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lmexp.errors import DataError
from lmexp.models.decoding.texts import Piece, check_text, search_texts, stream_texts
from lmexp.reading import parse_object, read_bytes
from lmexp.runs.evaluate import choose_device
from lmexp.runs.load import LoadedModel, load
from lmexp.runs.ranks import Ranks
from lmexp.training.config import HardwareConfig

if TYPE_CHECKING:
    from lmexp.config.schema import GenerateConfig


MOST_PROMPT_BYTES = 1 << 28


def generate(run_dir: Path, config: GenerateConfig) -> Iterator[str]:
    """What is printed: the prompt and its continuation in pieces, several texts one after the other; or JSON lines."""
    prompts = [config.prompt] if config.prompts_file is None else read_prompts(Path(config.prompts_file))
    for prompt in prompts:
        check_text(prompt)
    device = choose_device(HardwareConfig(accelerator=config.accelerator), Ranks())
    loaded = load(run_dir, weights=config.weights, device=device)
    if config.prompts_file is None:
        yield from _for_people(loaded, config)
    else:
        yield from _json_lines(loaded, prompts, config)


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file: each line, or "prompt" of each line of a .jsonl file. Empty lines are left out."""
    try:
        text = read_bytes(path, DataError, most=MOST_PROMPT_BYTES, follow=True).decode("utf-8-sig")
    except (FileNotFoundError, UnicodeDecodeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else "not UTF-8 text"
        raise DataError(f"prompts_file={path}: {reason}; expected a text file with a prompt on each line") from None
    lines = [(number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise DataError(f"prompts_file={path}: no prompt in it; expected one on each line")
    if path.suffix != ".jsonl":
        return [line for _, line in lines]
    return [_prompt_of(line, f"prompts_file={path}:{number}") for number, line in lines]


def _prompt_of(line: str, where: str) -> str:
    prompt = parse_object(line.encode(), where, DataError).get("prompt")
    if not isinstance(prompt, str):
        raise DataError(f'{where}: expected {{"prompt": "text"}}, got {line[:60]}')
    return prompt


def _for_people(loaded: LoadedModel, config: GenerateConfig) -> Iterator[str]:
    """One text while it is made; of several, the others are kept until the first has ended."""
    several = config.n_samples > 1
    for index, pieces in _in_order(_continuations(loaded, [config.prompt], config), config.n_samples):
        if several:
            yield f"--- beam {index + 1}\n" if config.n_beams > 1 else f"--- seed {config.seed + index}\n"
        yield config.prompt
        yield from pieces
        yield "\n"


def _json_lines(loaded: LoadedModel, prompts: Sequence[str], config: GenerateConfig) -> Iterator[str]:
    pieces = _in_order(_continuations(loaded, prompts, config), len(prompts) * config.n_samples)
    for index, parts in pieces:
        prompt, sample = prompts[index // config.n_samples], index % config.n_samples
        which = {"beam": sample + 1} if config.n_beams > 1 else {"seed": config.seed + sample}
        yield json.dumps({"prompt": prompt, "text": "".join(parts), **which}, ensure_ascii=False) + "\n"


def _continuations(loaded: LoadedModel, prompts: Sequence[str], config: GenerateConfig) -> Iterator[Piece]:
    """n_samples texts for each prompt, numbered through, batch_size at a time."""
    model, tokenizer = loaded.model, loaded.tokenizer
    if config.n_beams > 1:
        for row, prompt in enumerate(prompts):
            for place, text in enumerate(search_texts(model, tokenizer, prompt, config)[: config.n_samples]):
                yield Piece(row * config.n_samples + place, text, is_last=True)
        return
    asked = [(prompt, config.seed + sample) for prompt in prompts for sample in range(config.n_samples)]
    for start in range(0, len(asked), config.batch_size):
        part = asked[start : start + config.batch_size]
        texts, seeds = [prompt for prompt, _ in part], [seed for _, seed in part]
        for piece in stream_texts(model, tokenizer, texts, config, seeds=seeds):
            yield piece._replace(row=start + piece.row)


def _in_order(pieces: Iterator[Piece], n: int) -> Iterator[tuple[int, Iterator[str]]]:
    """Each text by its number with its pieces, in order; pieces of later texts wait."""
    waiting: list[list[Piece]] = [[] for _ in range(n)]

    def of(index: int) -> Iterator[str]:
        while True:
            for piece in waiting[index]:
                yield piece.text
                if piece.is_last:
                    return
            waiting[index] = []
            piece = next(pieces)
            waiting[piece.row].append(piece)

    for index in range(n):
        yield index, of(index)
