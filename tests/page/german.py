"""A page in German, and what on it is not."""

from __future__ import annotations

import json
from typing import Any

from jmt_edge.languages import catalogue_of

GERMAN = "de-DE"
# the texts of the page and what is read of it, each with its element
TEXTS = """() => [...document.querySelectorAll("body, body *")].filter((n) => !n.closest("[translate=no], noscript"))
  .flatMap((n) => [...[...n.childNodes].filter((c) => c.nodeType === 3).map((c) => c.data),
    ...["title", "aria-label", "placeholder", "alt"].map((a) => n.getAttribute(a) ?? "")])
  .map((words) => words.trim().replace(/\\s+/g, " ")).filter(Boolean)"""


def left_english(page: Any) -> list[str]:
    """Texts on the page that the catalogue has a German sentence for, but another than this."""
    catalogue = json.loads(catalogue_of("de"))
    known = {**catalogue["said"], **catalogue["text"]}
    german = {*catalogue["text"].values(), *catalogue["said"].values()}
    assert page.evaluate("() => document.documentElement.lang") == "de"
    return [words for words in page.evaluate(TEXTS) if known.get(words, words) != words and words not in german]
