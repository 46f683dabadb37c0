"""The glossary has the terms of the screen and of the JSON, and those that the documentation has decided on."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from jmt_edge.result import Quality, Result
from jmt_edge.tasks import TASK_NAMES, get_task

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/reference/glossary.md").read_text()
STATIC = ROOT / "jmt_edge/live/page/static"
# headings that are a sentence or the name of a key's list, not a term
PLAIN = {"Keys", "Actions since the run began", "highest in 5 min", "mean", "Pain now, 0 to 10"}


def known(term: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(term.lower())}s?(?![\w-])", TEXT.lower()) is not None


def shown() -> set[str]:
    """Headings, labels of values and of settings, and the buttons of alarms and notes on the page."""
    page = (STATIC / "index.html").read_text()
    found = re.findall(r"<(?:h2|dt)[^>]*>([^<]+)", page)
    found += re.findall(r"<label>(\w+) <", page)
    found += re.findall(r'<button id="(?:ack|pause|record|recordings|rest|settings|audit)"[^>]*>([^<]+)', page)
    found += re.findall(r"<footer.*?</footer>", page, re.S)[0].split("<span>")[1].split(" p50")[:1]
    return {text.strip() for text in found} - PLAIN - {"Time"}


def test_every_term_on_the_page_is_in_the_glossary() -> None:
    terms = shown()
    assert {"Pain probability", "Signals", "Valence", "Hysteresis", "Acknowledge", "latency"} <= terms
    assert not [term for term in terms if not known(term)]


def test_every_field_of_a_result_is_in_the_glossary() -> None:
    names = {field.name for field in (*fields(Result), *fields(Quality))} - {"index", "score"}
    names |= {"used", "coverage"}
    assert not [name for name in names if f"`{name}`" not in TEXT]
    outputs = {output for task in TASK_NAMES for output in get_task(task, "demo").outputs}
    modalities = {m.name for task in TASK_NAMES for m in get_task(task, "demo").modalities}
    assert not [name for name in outputs | modalities if not known(name)]


@pytest.mark.parametrize(
    "term",
    ["recording", "session", "window", "clip", "hop", "bundle", "engine plan", "fusion plan", "quantise",
     "calibrate probabilities", "baseline", "unit conversion"],
)  # fmt: skip
def test_the_terms_that_were_decided_on_are_defined(term: str) -> None:
    assert f"**{term}**" in TEXT


def test_a_term_that_is_missing_is_noticed() -> None:
    assert not known("telemetry") and known("Windows") and not known("edam")


def test_a_term_is_defined_once() -> None:
    terms = [
        term.lower()
        for row in re.findall(r"^\| (\*\*.*?) \|", TEXT, re.M)
        for term in re.findall(r"\*\*(.*?)\*\*", row)
    ]
    assert len(terms) == len(set(terms)) > 60
