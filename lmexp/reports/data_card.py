"""data_card.json and data_card.html in the folder of a token cache, and the same in short for the terminal."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmexp.errors import DataError
from lmexp.files import write_atomically
from lmexp.paths import DATA_CARD_HTML, DATA_CARD_JSON
from lmexp.reading import read_object
from lmexp.reports.charts.histogram import histogram
from lmexp.reports.charts.scales import number_text
from lmexp.reports.frame import framed

if TYPE_CHECKING:
    from lmexp.data.cache import TokenCache
    from lmexp.data.config import CorpusConfig

N_REASONS = 3
DROPPED = {"short": "too short", "long": "too long", "duplicate": "duplicates"}


def write_card(cache: TokenCache, data: CorpusConfig, seed: int) -> Path:
    """Write both files of the card, unless they are there and say the same; the path of the page."""
    from lmexp.data import card

    page_path, json_path = cache.path / DATA_CARD_HTML, cache.path / DATA_CARD_JSON
    if not (page_path.exists() and _is_of(json_path, card.settings(data, seed), card.VERSION)):
        facts = card.facts(cache, data, seed)
        json_path.unlink(missing_ok=True)  # written last: where it is, the page says the same
        for left in cache.path.glob(".data_card.*.tmp"):
            left.unlink(missing_ok=True)  # by a process that was killed
        write_atomically(page_path, page(facts))
        write_atomically(json_path, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    return page_path


def _is_of(path: Path, settings: dict[str, Any], version: int) -> bool:
    """Whether a card was written for these settings by this version."""
    try:
        found = read_object(path, DataError)
        return bool((found.get("settings"), found.get("version")) == (settings, version))
    except (OSError, DataError):
        return False


def as_text(cache: TokenCache) -> str:
    """What `lmexp prepare` says at the end: a table of the splits, what was set aside, and where everything is."""
    from rich.console import Console
    from rich.table import Table

    from lmexp.data.card import quarantined
    from lmexp.data.survey import QUARANTINE

    table = Table()
    table.add_column("split")
    for title in ("documents", "tokens", "bytes", "bytes/token"):
        table.add_column(title, justify="right")
    for name, split in cache.splits.items():
        table.add_row(name, *_counted(split.n_documents, split.n_tokens, split.n_bytes))
        for source, found in split.sources.items() if len(split.sources) > 1 else ():
            counts = _counted(found.n_documents, found.stop - found.start, found.n_bytes)
            table.add_row(f"  {source}", *counts)
    console = Console(width=120, force_terminal=False, no_color=True)
    with console.capture() as captured:
        console.print(table)
    lines = [captured.get().rstrip()]
    bad = quarantined(cache, N_REASONS)
    if bad["n"]:
        lines.append(f"quarantined: {bad['n']:,}, see {cache.path / QUARANTINE}")
        lines += [f"  {_where(entry)}: {entry['reason']}" for entry in bad["first"]]
    sources = cache.facts["sources"].values()
    duplicates = sum(source["n_duplicates"] for source in sources)
    if duplicates:
        lines.append(f"exact duplicates: {duplicates:,} (data.drop_duplicates=true keeps the first of them)")
    for kind, words in DROPPED.items():
        n_dropped = sum(source["n_dropped"].get(kind, 0) for source in sources)
        if n_dropped:
            lines.append(f"dropped, {words}: {n_dropped:,}")
    return "\n".join([*lines, f"tokens: {cache.path}", f"data card: {cache.path / DATA_CARD_HTML}"])


def _counted(n_documents: int, n_tokens: int, n_bytes: int) -> list[str]:
    return [f"{n_documents:,}", f"{n_tokens:,}", f"{n_bytes:,}", f"{n_bytes / n_tokens:.3f}" if n_tokens else ""]


def page(facts: dict[str, Any]) -> str:
    """The whole card as HTML. All text of the corpus is escaped."""
    sections = [
        _head(facts),
        _section("Splits", _splits(facts)),
        *(_section(f"Source {name}" if name else "Source", _source(s)) for name, s in facts["sources"].items()),
        _section("Quarantine", _quarantine(facts["quarantine"])),
        _section("Vocabulary", _vocabulary(facts)),
        _section("The first training batch", _examples(facts)),
    ]
    return framed("Data card · lmexp", sections, "Made by lmexp from the token cache in this folder.")


def _head(facts: dict[str, Any]) -> str:
    splits = facts["splits"].values()
    figures = [
        ("documents", f"{sum(s['n_documents'] for s in splits):,}", ""),
        ("tokens", _large(sum(s["n_tokens"] for s in splits)), ""),
        ("bytes", _large(sum(s["n_bytes"] for s in splits)), ""),
        ("vocabulary", f"{facts['vocabulary']['size']:,}", str(facts["tokenizer"].get("kind", ""))),
        ("quarantined", f"{facts['quarantine']['n']:,}", ""),
    ]
    cells = (
        f"<div><dt>{escape(label)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for label, value, note in figures
    )
    return (
        '<header>\n<div class="head"><h1>Data card</h1></div>'
        f'<p class="run-id">{escape(facts["fingerprint"])}</p><dl class="facts">{"".join(cells)}</dl>\n</header>'
    )


def _splits(facts: dict[str, Any]) -> str:
    chosen = facts["settings"]
    rows = [
        [
            name,
            f"{s['n_documents']:,}",
            f"{s['n_tokens']:,}",
            f"{s['n_bytes']:,}",
            _per_token(s),
            f"{s['rows']:,}",
            f"{s['padding']:.2%}",
        ]
        for name, s in facts["splits"].items()
    ]
    note = (
        f"Sequences of {chosen['sequence_length']:,} tokens, data.windows={chosen['windows']}. "
        f"Every document ends with &lt;eos&gt;, which counts as a token."
    )
    titles = ["split", "documents", "tokens", "bytes", "bytes per token", "sequences", "padding"]
    return f'{_table(titles, rows)}<p class="soft small">{note}</p>'


def _source(source: dict[str, Any]) -> str:
    """Counts of a source, its documents in each split, and their lengths."""
    pairs = {
        "data": f"{source['kind']} ({source['where']})",
        "share of the training sequences": f"{source['share']:.2%}" if source["share"] < 1 else "",
        "documents read": f"{source['n_read']:,}",
        "documents kept": f"{source['n_documents']:,}",
        "exact duplicates": f"{source['n_duplicates']:,}",
        "dropped": ", ".join(f"{n:,} {DROPPED.get(kind, kind)}" for kind, n in source["n_dropped"].items() if n) or "0",
        "quarantined": ", ".join(f"{n:,} {kind}" for kind, n in source["n_quarantined"].items() if n) or "0",
        "splits": _settings(source["split"]),
        "cleaning": _settings(source["cleaning"]),
        **{f"known: {key.replace('_', ' ')}": _known(value) for key, value in source["known"].items()},
    }
    told = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in pairs.items() if value)
    splits = {name: split for name, split in source["splits"].items() if split["lengths"]}
    rows = []
    for name, split in splits.items():
        found = split["lengths"]["quantiles"]
        lengths = [number_text(found[q]) for q in ("0", "0.05", "0.5", "0.95", "1")]
        rows.append([name, f"{split['n_documents']:,}", f"{split['n_tokens']:,}", _per_token(split), *lengths])
    titles = ["split", "documents", "tokens", "bytes per token", "shortest", "5%", "median", "95%", "longest"]
    table = _table(titles, rows) if rows else ""
    return f'<dl class="pairs">{told}</dl>{table}{_lengths(splits)}'


def _lengths(splits: dict[str, Any]) -> str:
    """The chart of the lengths, and on how many documents it rests."""
    if not splits:
        return ""
    histograms = {name: split["lengths"]["histogram"] for name, split in splits.items()}
    starts = max((h["from"] for h in histograms.values()), key=len)
    first = min(next(i for i, n in enumerate(h["n"]) if n) for h in histograms.values())
    series = []
    for name, found in histograms.items():
        counts = [*found["n"], *[0] * (len(starts) - len(found["n"]))]
        series.append((name, [n / sum(counts) for n in counts][first:]))
    chart = histogram("Lengths of the documents", series, [float(s) for s in starts][first:], x_label="tokens, from")
    sampled = [
        f"{name}: {s['lengths']['n_looked_at']:,} of {s['n_documents']:,} documents, evenly spaced"
        for name, s in splits.items()
        if s["lengths"]["n_looked_at"] < s["n_documents"]
    ]
    note = f'<p class="soft small">Lengths of a sample: {escape("; ".join(sampled))}.</p>' if sampled else ""
    return f"<figure><figcaption>Lengths of the documents</figcaption>{chart}</figure>{note}"


def _quarantine(found: dict[str, Any]) -> str:
    if not found["n"]:
        return '<p class="soft">Nothing was set aside.</p>'
    kinds = _table(["kind", "documents"], [[kind, f"{n:,}"] for kind, n in found["by_kind"].items()])
    first = _table(["where", "reason"], [[_where(entry), entry["reason"]] for entry in found["first"]], numbers=False)
    shown = f"The first {len(found['first'])} of {found['n']:,}" if len(found["first"]) < found["n"] else "All of them"
    return f'{kinds}<p class="soft small">{shown}</p>{first}'


def _vocabulary(facts: dict[str, Any]) -> str:
    found = facts["vocabulary"]
    share = found["n_used"] / found["size"]
    counted = "" if found["n_counted"] == found["n_tokens"] else f" (counted on {found['n_counted']:,} of them)"
    said = (
        f"{found['n_used']:,} of {found['size']:,} tokens ({share:.1%}) occur in the {found['n_tokens']:,} "
        f"training tokens{counted}."
    )
    rows = [[repr(top["token"]), f"{top['share']:.2%}"] for top in found["top"]]
    often = f"<details><summary>The most frequent</summary>{_table(['token', 'share'], rows)}</details>"
    return f"<p>{escape(said)}</p>{often}"


def _examples(facts: dict[str, Any]) -> str:
    shown = "".join(_example(example) for example in facts["examples"])
    seed = facts["settings"]["seed"]
    note = (
        f"The first sequences of the first step with seed {escape(str(seed))}, as the model is asked to predict them. "
        f'<span class="border">¶</span> ends a document, <span class="cut">…</span> goes on elsewhere.'
    )
    return f'<p class="soft small">{note}</p>{shown}'


def _example(example: dict[str, Any]) -> str:
    text = "".join(
        f"{escape(piece['text'])}"
        + ('<span class="border"> ¶</span>\n' if piece["ends"] else '<span class="cut"> …</span>\n')
        for piece in example["pieces"]
    )
    parts = [f"{example['n_targets']:,} tokens to predict"]
    parts += [f"{example['n_padding']:,} padding"] if example["n_padding"] else []
    parts += [f"from {example['source']}"] if example["source"] else []
    return f'<div class="sample"><pre>{text}</pre><p class="soft small">{escape(", ".join(parts))}</p></div>'


def _table(titles: list[str], rows: list[list[str]], *, numbers: bool = True) -> str:
    """A table; numbers: all columns but the first are aligned to the right."""
    kind = ' class="number"' if numbers else ""
    head = "".join(f'<th scope="col"{kind if i else ""}>{escape(title)}</th>' for i, title in enumerate(titles))
    body = "\n".join(
        "<tr>"
        + f'<th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td{kind}>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'
    )


def _where(entry: dict[str, Any]) -> str:
    """Source, file and line of a quarantined document."""
    place = ":".join(str(part) for part in (entry.get("file"), entry.get("line")) if part)
    return f"{entry['source']}: {place}" if entry.get("source") else place


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key} {json.dumps(value)}" for key, value in settings.items() if value is not None)


def _known(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _per_token(split: dict[str, Any]) -> str:
    return f"{split['bytes_per_token']:.3f}" if split["bytes_per_token"] is not None else ""


def _large(value: int) -> str:
    return f"{value:,}" if value < 10**7 else number_text(float(value))


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>"
