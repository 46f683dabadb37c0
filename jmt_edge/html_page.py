"""The page around a report: one HTML file without scripts or anything beside it, which prints on A4."""

from __future__ import annotations

import html

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


def page(title: str, body: str, style: str = "", language: str = "en") -> str:
    """body: HTML. style: CSS beyond that of every report. language: as in HTML's `lang`."""
    return (
        f'<!doctype html>\n<html lang="{language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}{style}</style></head><body>\n{body}\n</body></html>\n"
    )
