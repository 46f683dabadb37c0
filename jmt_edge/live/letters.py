"""Characters that a terminal can show: what its encoding does not hold is written in ASCII."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping

from rich.text import Text

BARS = "▁▂▃▄▅▆▇█"
MINUS = "−"
_ASCII = {
    "—": "-", "–": "-", MINUS: "-", "…": "...", "≥": ">=", "≤": "<=", "µ": "u", "μ": "u", "°": " deg", "●": "*",
    "·": "*", "×": "x", "±": "+-", "Δ": "d",
    "ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss", "„": '"', "“": '"',
    **dict(zip(BARS, ".:-=+*%#")),
}  # fmt: skip

Piece = tuple[str, str]  # text and rich style


def encoding_of(encoding: str, environ: Mapping[str, str]) -> str:
    """What may be written to a terminal: `encoding`, that of the stream, or ASCII where the user chose the C locale.

    There Python writes UTF-8 (PEP 538, PEP 540), which says nothing about the terminal.
    """
    if "PYTHONIOENCODING" in environ or not encoding.lower().startswith("utf"):
        return encoding
    chosen = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG")
    if chosen == "C.UTF-8" and not environ.get("LC_ALL") and environ.get("LANG"):
        chosen = environ["LANG"]  # Python itself sets LC_CTYPE where LANG is C
    return "ascii" if chosen in ("C", "POSIX") else encoding


class Letters:
    """Lines of text in one encoding. A character that is neither in it nor has a substitute becomes `?`."""

    def __init__(self, encoding: str) -> None:
        try:
            "".encode(encoding)
        except LookupError:
            encoding = "ascii"
        self._encoding = encoding
        self._known: dict[str, str] = {}
        self.ellipsis = self("…")

    @property
    def unicode(self) -> bool:
        """Whether everything that is drawn here can be shown as it is."""
        return self(BARS) == BARS

    def __call__(self, text: str) -> str:
        """`text` as it can be shown, without control characters."""
        return "".join(self._known.get(c) or self._one(c) for c in text)

    def _one(self, character: str) -> str:
        shown = " " if character == "\u00a0" else character if character.isprintable() else "?"
        try:
            shown.encode(self._encoding)
        except UnicodeEncodeError:
            shown = _ASCII.get(shown, "?")
        if len(self._known) < 4096:
            self._known[character] = shown
        return shown

    def line(self, pieces: Iterable[Piece], width: int, *, style: str = "") -> Text:
        """One line of at most `width` cells; what is cut off is marked by an ellipsis. style: of the whole line, which
        is then filled up to the width."""
        text = Text(no_wrap=True, overflow="crop", style=style)
        for said, its in pieces:
            text.append(self(said), its)
        text.rstrip()
        if text.cell_len > width:
            text.truncate(max(0, width - len(self.ellipsis)))
            text.append(self.ellipsis[:width])
        if style:
            text.pad_right(max(0, width - text.cell_len))
        return text

    def wrap(self, said: str, width: int, most: int) -> list[str]:
        """At most `most` lines of `width` cells, the last with an ellipsis where there is more."""
        lines = textwrap.wrap(self(said), max(1, width)) or [""]
        if len(lines) > most:
            lines[most - 1 :] = [self.line([(" ".join(lines[most - 1 :]), "")], width).plain]
        return lines
