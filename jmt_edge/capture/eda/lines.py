"""Text protocols: whole lines out of a byte stream that starts and breaks anywhere."""

from __future__ import annotations

LONGEST = 64  # bytes: no valid line is longer


class LineSplitter:
    """Lines without their ends. The first, perhaps partial, is marked; one that is too long comes as b"\\xff"."""

    def __init__(self) -> None:
        self._carry = b""
        self._first = True

    def feed(self, data: bytes) -> list[tuple[bytes, bool]]:
        """(line, whether it may be only the end of a line)."""
        *lines, rest = (self._carry + data).split(b"\n")
        self._carry = rest if len(rest) <= LONGEST else b"\xff" * (LONGEST + 1)
        found = []
        for line in lines:
            text = line.strip(b"\r \t") if len(line) <= LONGEST else b"\xff"
            if text:
                found.append((text, self._first))
            self._first = False
        return found
