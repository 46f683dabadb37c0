"""The sentences that are given to `tr` and `trn`, and the texts of the pages, as the code has them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import jmt_edge

ROOT = Path(str(jmt_edge.__file__)).parent
STATIC = (ROOT / "live/page/static", ROOT / "beds/static")
CALL = re.compile(r"(?<![\w.$#])(trn?)\(\s*")
LITERAL = re.compile(r'"(?:[^"\\\n]|\\.)*"')
SHOWN = ("title", "aria-label", "placeholder", "alt")


def code_of(script: str) -> str:
    """JavaScript without its comments that stand alone on a line, in which a call may be quoted."""
    return "\n".join("" if re.match(r"\s*(//|/?\*)", line) else line for line in script.splitlines())


def of_script(script: str) -> Iterator[str]:
    """Raises AssertionError for a call whose sentence is not a literal in double quotes."""
    code = code_of(script)
    for call in CALL.finditer(code):
        at = call.end()
        for _ in range(2 if call[1] == "trn" else 1):
            found = LITERAL.match(code, at)
            assert found, f"not a literal: {code[call.start() : call.end() + 60]!r}"
            yield json.loads(found[0])
            at = found.end() + len(re.match(r",?\s*", code[found.end() :])[0])  # type: ignore[index]


class Texts(HTMLParser):
    """The texts and attributes of a page that a person reads, but for those marked translate="no"."""

    VOID = ("meta", "link", "input", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._open: list[tuple[str, bool]] = []  # (tag, nothing in it is translated)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        off = bool(self._open and self._open[-1][1])
        off = off or tag in ("head", "script", "style", "noscript") or given.get("translate") == "no"
        if not off:
            self.found += [text for name in SHOWN if (text := given.get(name))]
        if tag not in self.VOID:
            self._open.append((tag, off))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag, tag

    def handle_data(self, data: str) -> None:
        text = " ".join(data.split())
        if self._open and not self._open[-1][1] and re.search(r"[^\W\d_]", text):
            self.found.append(text)


def of_html(html: str) -> list[str]:
    reader = Texts()
    reader.feed(html)
    return reader.found


def of_python(code: str) -> Iterator[str]:
    """Raises AssertionError for a call whose sentence is not a literal."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("tr", "trn"):
                for given in node.args[: 2 if name == "trn" else 1]:
                    assert isinstance(given, ast.Constant) and isinstance(given.value, str), ast.unparse(node)
                    yield given.value


def texts() -> dict[str, str]:
    """Each sentence -> a file that has it."""
    found: dict[str, str] = {}
    for folder in STATIC:
        for path in sorted(folder.glob("*.js")):
            if path.name != "text.js":
                found |= dict.fromkeys(of_script(path.read_text()), path.name)
        for path in sorted(folder.glob("*.html")):
            found |= dict.fromkeys(of_html(path.read_text()), path.name)
    for path in sorted(ROOT.rglob("*.py")):
        if path.parent.name != "languages":
            found |= dict.fromkeys(of_python(path.read_text()), path.name)
    return found
