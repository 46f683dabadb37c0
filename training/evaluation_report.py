"""An evaluation as one HTML file without anything beside it: every table and figure, to send, keep or print."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from ..html_page import page
from ..machine import describe
from . import html_page, score_table
from .keys import write
from .scores import Predictions, Scores

FILE = "report.html"
_CAPTIONS = {
    "confusion": "Decisions by label; the share of each row with its 95 % interval by subject.",
    "roc": "True against false positives over all thresholds; the band is the 95 % interval by subject.",
    "reliability": "Share of right decisions against their confidence; bars are 95 % intervals by subject, numbers are "
    "windows.",
    "ccc_valence": "Valence: prediction against label, a point a window.",
    "ccc_arousal": "Arousal: prediction against label, a point a window.",
    "subjects": "Each person, the lowest first; the band is the 95 % interval of the mean.",
    "over_time": "Label and prediction of the longest trial, or of one person's trials in turn.",
    "attention": "Weight of each modality over time, above label and prediction; at the right the mean over all "
    "windows with its 95 % interval by subject.",
    "trial_attention": "Weight of each modality at each step within one trial; the bands are the 95 % interval by "
    "subject of the mean over the trials of its class.",
    "robustness": "Scores under noise on one modality's features, and without it; bars are 95 % intervals by subject.",
}


def smallest_change(clean: Predictions) -> str:
    """How many windows of how many people were scored, and by how much one window can change an accuracy."""
    windows, people = len(clean.end), len(set(clean.subject.tolist()))
    text = f"n = {windows} windows of {people} {'person' if people == 1 else 'people'}"
    if "pain" not in clean.labels:
        return text
    y = clean.labels["pain"][:, -1]
    known, least = int((~np.isnan(y)).sum()), min((int((y == c).sum()) for c in np.unique(y[~np.isnan(y)])), default=0)
    if not least:
        return text
    return (
        f"{text}; one window changes the accuracy by {1 / known:.2g} and the balanced accuracy by up to "
        f"{1 / (2 * least):.2g}"
    )


def write_html(
    out: Path,
    *,
    title: str,
    about: Mapping[str, str],
    clean: Predictions,
    table: Mapping[str, Scores],
    sections: Mapping[str, Sequence[str]],
    figures: Sequence[str],
) -> Path:
    """`report.html` in `out`, with the figures `<name>.png` that are there; returns its path.

    about: rows of the first table. sections: heading -> lines of text, omitted where there are none.
    """
    machine = describe()
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items() if k in ("jmt-edge", "torch", "numpy"))
    rows = {
        **about, "scored": smallest_change(clean),
        "intervals": "95 % by bootstrap of whole subjects; not corrected for the number of comparisons",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"), "versions": f"{versions}, Python {machine['python']}",
    }  # fmt: skip
    metrics = [m for m in score_table.ALL if m in table["clean"].pooled]
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        "<p>Research prototype; not for clinical use.</p>",
        _table(["", ""], [[k, v] for k, v in rows.items() if v], "about"),
        *(_section(heading, lines) for heading, lines in sections.items() if lines),
        "<h2>Scores</h2>", _table(["condition", "windows", *metrics], _score_rows(table, metrics), numbers=True),
        *_extras(table["clean"]),
        "<h2>Figures</h2>", '<div class="figures">', *(_figure(out, name) for name in figures), "</div>",
        "<h2>Subjects</h2>", _subjects(table["clean"]),
    ]  # fmt: skip
    write(out / FILE, page(title, "\n".join(parts)))
    return out / FILE


def _score_rows(table: Mapping[str, Scores], metrics: Sequence[str]) -> list[list[str]]:
    def cell(s: Scores, m: str) -> str:
        return f"{s.pooled[m]:.3f} {score_table.interval(s.interval.get(m))}".strip() if m in s.pooled else ""

    return [[name, str(s.windows), *(cell(s, m) for m in metrics)] for name, s in table.items()]


def _extras(clean: Scores) -> list[str]:
    if not clean.extras:
        return []
    return ["<h2>Other ways of scoring</h2>", _table(["", ""], [[k, f"{v:.3f}"] for k, v in clean.extras.items()])]


def _subjects(clean: Scores) -> str:
    names = list(clean.subjects)
    people = sorted({w for values in clean.subjects.values() for w in values})
    rows = [[who, *(f"{clean.subjects[n][who]:.3f}" if who in clean.subjects[n] else "" for n in names)]
            for who in people]  # fmt: skip
    rows.append(["mean (SD)", *(score_table.mean_sd(clean, n) for n in names)])
    return _table(["subject", *names], rows, numbers=True)


def _section(heading: str, lines: Iterable[str]) -> str:
    return f"<h2>{html.escape(heading)}</h2><pre>{html.escape(chr(10).join(lines))}</pre>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "", *, numbers: bool = False) -> str:
    """numbers: all columns but the first are numbers."""

    def line(cells: Sequence[str], tag: str) -> str:
        marks = [' class="n"' if numbers and i else "" for i in range(len(cells))]
        return "<tr>" + "".join(f"<{tag}{m}>{html.escape(c)}</{tag}>" for m, c in zip(marks, cells)) + "</tr>"

    head = f"<thead>{line(header, 'th')}</thead>" if any(header) else ""
    body = "".join(line(row, "td") for row in rows)
    return f'<div class="table"><table class="{kind}">{head}<tbody>{body}</tbody></table></div>'


def _figure(out: Path, name: str) -> str:
    file = out / f"{name}.png"
    if not file.is_file():
        return ""
    caption, image = html.escape(_CAPTIONS[name]), html_page.inlined(file)
    wide = ' class="wide"' if name in ("subjects", "over_time", "attention", "trial_attention", "robustness") else ""
    return f'<figure{wide}><img src="{image}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
