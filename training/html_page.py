"""Reports as one HTML file without anything beside it: the page around them, and reports written in Markdown."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt

from .keys import write

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #111; background: #fff; max-width: 68rem; margin: 0 auto;
  padding: 1rem; }
h1 { font-size: 1.5rem; margin: .5rem 0; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: .875rem; }
th, td { text-align: left; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid #bbb; vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.about td:last-child { overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; break-inside: avoid; } figure.wide { grid-column: 1 / -1; }
img { max-width: 100%; height: auto; } figcaption { font-size: .875rem; color: #333; }
pre { white-space: pre-wrap; font-size: .8rem; overflow-wrap: anywhere; }
@page { margin: 15mm; }
@media print { body { font-size: 10pt; max-width: none; padding: 0; } h2 { break-after: avoid; }
  tr { break-inside: avoid; } .table { overflow: visible; } table { font-size: 8pt; }
  td.n, th.n { white-space: normal; } }
"""


def page(title: str, body: str) -> str:
    """body: HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def inlined(image: Path) -> str:
    """A PNG as the URL of an `img`."""
    return f"data:image/png;base64,{base64.b64encode(image.read_bytes()).decode()}"


def from_markdown(text: str, folder: Path) -> str:
    """A report in CommonMark with tables as one page; its first heading is the title, its images lie in `folder`."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    for token in tokens:
        for part in token.children or ():
            if part.type == "image":
                part.attrSet("src", inlined(folder / str(part.attrGet("src"))))
    title = next((t.content for before, t in pairwise(tokens) if before.type == "heading_open"), "")
    body = markdown.renderer.render(tokens, markdown.options, {})
    notice = "<p>Research prototype; not for clinical use.</p>"
    body = body.replace("</h1>", f"</h1>\n{notice}", 1)
    body = body.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
    return page(title, body)


def write_report_files(path: Path, lines: Sequence[str]) -> Path:
    """A report in Markdown as `path`.md and, whole, as `path`.html; returns the latter."""
    text = "\n".join(lines) + "\n"
    write(path.with_suffix(".md"), text)
    write(path.with_suffix(".html"), from_markdown(text, path.parent))
    return path.with_suffix(".html")
