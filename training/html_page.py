"""Reports written in Markdown as one HTML file without anything beside it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt

from ..html_page import page
from .keys import write


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
