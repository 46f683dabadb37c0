"""Every relative link in every Markdown file leads to a file that git has, and every anchor to a heading of it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+(?:\([^()\s]*\))?)\)")
FENCE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.M | re.S)
EXTERNAL = ("http://", "https://", "mailto:")


def tracked(*patterns: str) -> list[Path]:
    """Files of the checkout, whether committed or not, that git does not ignore."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def prose(page: str) -> str:
    """`page` without fenced blocks and inline code, where brackets are not links."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", page))


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings as GitHub makes them: lower case, no punctuation, hyphens, `-1` for a second."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.*?) *#*$", FENCE.sub("", page), re.M):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        name, n = slug, 0
        while name in found:
            n += 1
            name = f"{slug}-{n}"
        found.add(name)
    return found


def broken(page: Path, text: str, files: set[Path]) -> list[str]:
    """Links of `page` that lead nowhere, each with its reason."""
    found = []
    for target in LINK.findall(prose(text)):
        if target.startswith(EXTERNAL):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if file not in files and not (file.is_dir() and any(file in f.parents for f in files)):
            found.append(f"{target}: no such file")
        elif anchor and anchor not in anchors(text if file == page else file.read_text()):
            found.append(f"{target}: no such heading")
    return found


def test_every_relative_link_and_anchor_resolves() -> None:
    pages, files = tracked("*.md"), {f.resolve() for f in tracked()}
    assert len(pages) > 20
    wrong = {str(page.relative_to(ROOT)): broken(page, page.read_text(), files) for page in pages}
    assert not {page: links for page, links in wrong.items() if links}


def test_a_broken_link_and_a_broken_anchor_are_found(tmp_path: Path) -> None:
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    other.write_text("# One `code` & two\n\n```\n# not a heading\n```\n## Twice\n## Twice\n")
    good = "[a](other.md) [b](other.md#one-code--two) [c](other.md#twice-1) `[no](link.md)` [web](https://x.y/z#q)"
    files = {page, other}
    assert broken(page, good, files) == []
    assert broken(page, "[a](gone.md) [b](other.md#not-a-heading) [c](#none)", files) == [
        "gone.md: no such file", "other.md#not-a-heading: no such heading", "#none: no such heading",
    ]  # fmt: skip


def test_every_page_can_be_reached_from_the_index() -> None:
    """A page without a link to it is not read."""
    start = ROOT / "docs" / "index.md"
    reached, frontier = {start}, [start]
    while frontier:
        page = frontier.pop()
        for target in LINK.findall(prose(page.read_text())):
            file = (page.parent / target.partition("#")[0]).resolve()
            if file.suffix == ".md" and file.is_file() and file not in reached:
                reached.add(file)
                frontier.append(file)
    missing = {page.resolve() for page in tracked("docs/*.md")} - reached
    assert not {str(page.relative_to(ROOT)) for page in missing}


def test_every_page_that_the_code_names_exists() -> None:
    """Docstrings, comments, error messages and scripts name pages by their path from the root."""
    named = [
        (source, match)
        for source in tracked("*.py", "*.sh", "*.toml", "Makefile")
        for match in re.findall(r"(?<![\w/.])((?:docs|benchmarks|kernels)/[\w./-]+\.md)\b", source.read_text())
        if source != Path(__file__).resolve()
    ]
    assert named
    assert not [f"{s.relative_to(ROOT)}: {name}" for s, name in named if not (ROOT / name).is_file()]
