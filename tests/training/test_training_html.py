"""Reports as one HTML file: nothing beside it, nothing lost, nothing that runs."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

from jmt_edge.training.html_page import write_report_files

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=")


class _Seen(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def test_a_report_holds_its_tables_and_pictures_itself(tmp_path: Path) -> None:
    (tmp_path / "plot.png").write_bytes(PNG)
    lines = [
        "# A <cohort> & its people", "", "A *word*.", "", "| system | score |", "| --- | --- |",
        "| JMT | 0.848 [0.8, 0.9] |", "| a < b <script>alert(1)</script> | `x` |", "", "![differences](plot.png)",
    ]  # fmt: skip
    written = write_report_files(tmp_path / "claims", lines)
    assert written == tmp_path / "claims.html"
    page = written.read_text(encoding="utf-8")
    seen = _Seen(page)
    assert [[cell.strip() for cell in row] for row in seen.rows] == [
        ["system", "score"], ["JMT", "0.848 [0.8, 0.9]"], ["a < b <script>alert(1)</script>", "x"],
    ]  # fmt: skip
    assert "script" not in seen.tags and "<title>A &lt;cohort&gt; &amp; its people</title>" in page
    assert len(seen.links) == 1
    assert base64.b64decode(seen.links[0].removeprefix("data:image/png;base64,")) == PNG
    assert "not for clinical use" in re.sub("<[^>]+>", " ", page)
    assert (tmp_path / "claims.md").read_text(encoding="utf-8") == "\n".join(lines) + "\n"
