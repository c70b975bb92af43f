"""The frame of every page: one self-contained file without scripts or network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{css}</style>
</head>
<body>
<main>
{body}
<footer>{footer}</footer>
</main>
</body>
</html>
"""


def framed(title: str, sections: Sequence[str], footer: str) -> str:
    """A whole HTML document. title, sections and footer are HTML: what they quote is escaped already."""
    css = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return FRAME.format(title=title, css=css, body="\n".join(sections), footer=footer)
