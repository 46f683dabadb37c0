"""The documentation as a site: `make docs`, or `python scripts/build_docs.py OUT`. Exits 1 at the first broken link.

The pages are those of `docs/`, which also read well where they lie. Here they get what a site needs: a table of
contents, links to files of the repository that lead to it, and a reference of the Python interface from the docstrings.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
REPOSITORY = "https://github.com/jmt-edge/jmt-edge/blob/main"
SECTIONS = {"Tutorials": "tutorials", "How-to guides": "howto", "Reference": "reference", "Explanation": "explanation",
            "Safety": "safety", "Decisions": "decisions"}  # fmt: skip
# the modules that `docs/reference/python.md` calls the interface
API = (
    "jmt_edge.tasks", "jmt_edge.result", "jmt_edge.observer", "jmt_edge.controls", "jmt_edge.errors",
    "jmt_edge.capture", "jmt_edge.capture.base", "jmt_edge.media.chunk", "jmt_edge.engine.bundle",
    "jmt_edge.engine.backends", "jmt_edge.live", "jmt_edge.live.loop", "jmt_edge.live.pipeline", "jmt_edge.live.alarms",
    "jmt_edge.recording", "jmt_edge.recording.reader",
)  # fmt: skip
CONF = """
project = "jmt-edge"
copyright = "jmt-edge developers; Apache-2.0"
extensions = ["myst_parser"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = "jmt-edge (research prototype; not for clinical use)"
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
# fenced code of the pages that no lexer knows is shown as it is
suppress_warnings = ["misc.highlighting_failure"]
"""
# on a phone a long word of a heading would be cut in two
CSS = "article h1 { font-size: clamp(1.5rem, 8vw, 2.5em); }\n"
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")


def for_site(page: Path, text: str) -> str:
    """The page's text with links to files outside of `docs/`, and to what is no page, leading to the repository."""

    def lead(match: re.Match[str]) -> str:
        target = match[2]
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        place = (page.parent / target).resolve()
        inside = place.is_relative_to(DOCS) and place.suffix in (".md", ".png", ".svg") and place.is_file()
        if inside or not place.is_relative_to(ROOT):
            return match[0]
        if not place.exists():
            raise SystemExit(f"{page.relative_to(ROOT)}: there is no {target}")
        return f"{match[1]}{REPOSITORY}/{place.relative_to(ROOT).as_posix()}{match[3] or ''}{match[4]}"

    return LINK.sub(lead, text)


def contents() -> str:
    """The table of contents, which a page on GitHub does not need."""
    blocks = []
    for caption, folder in SECTIONS.items():
        pages = sorted(p.relative_to(DOCS).with_suffix("").as_posix() for p in (DOCS / folder).glob("*.md"))
        pages += ["reference/api"] if folder == "reference" else []
        blocks.append("\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"]))
    return "\n\n" + "\n\n".join(["```{toctree}\n:hidden:\n\ntrust\n```", *blocks]) + "\n"


def interface() -> str:
    """The Python interface: every public name of API with its signature and docstring."""
    lines = [
        "# Python interface, by module",
        "",
        "Made from the docstrings. How they fit together: [Python](python.md).",
        "",
    ]
    for name in API:
        module = importlib.import_module(name)
        lines += [f"## {name}", "", *_quoted(module.__doc__), ""]
        for what, found in sorted(vars(module).items()):
            mine = getattr(found, "__module__", None) == name and not what.startswith("_")
            if not mine or not (inspect.isclass(found) or inspect.isfunction(found)):
                continue
            lines += [f"### {what}", "", *_code(f"{what}{_signature(found)}"), "", *_quoted(inspect.getdoc(found)), ""]
            if inspect.isclass(found):
                for method, value in vars(found).items():
                    if inspect.isfunction(value) and not method.startswith("_") and value.__doc__:
                        lines += [
                            *_code(f"{what}.{method}{_signature(value)}"),
                            "",
                            *_quoted(inspect.getdoc(value)),
                            "",
                        ]
    return "\n".join(lines)


def _signature(thing: object) -> str:
    try:
        return str(inspect.signature(thing))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""


def _code(text: str) -> list[str]:
    return ["```python", text, "```"]


def _quoted(text: str | None) -> list[str]:
    """A docstring as it is written: its shapes and tables are not Markdown."""
    return ["```text", *inspect.cleandoc(text).splitlines(), "```"] if text else []


def build(out: Path) -> int:
    with tempfile.TemporaryDirectory() as name:
        source = Path(name)
        shutil.copytree(DOCS, source, dirs_exist_ok=True)
        for page in DOCS.rglob("*.md"):
            text = for_site(page, page.read_text())
            (source / page.relative_to(DOCS)).write_text(text + (contents() if page == DOCS / "index.md" else ""))
        (source / "reference" / "api.md").write_text(interface())
        (source / "conf.py").write_text(CONF)
        (source / "_static").mkdir()
        (source / "_static" / "site.css").write_text(CSS)
        command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-j", "1"]
        return subprocess.run([*command, str(source), str(out)]).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=ROOT / ".cache" / "site")
    return build(parser.parse_args().out)


if __name__ == "__main__":
    sys.exit(main())
