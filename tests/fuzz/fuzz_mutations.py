"""Damaged copies of good inputs: what happens to files and streams, and what somebody might do to them.

`Mutator.one(data)` is reproducible: the same seed gives the same bytes.
"""

from __future__ import annotations

import json
import random
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

MOST = 1 << 18  # bytes of a mutated input
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_SEPARATOR = re.compile(rb"[,;\t|= ]")

NUMBERS = (
    b"0", b"-1", b"1", b"-0.0", b"255", b"256", b"65536", b"2147483647", b"2147483648", b"-2147483649",
    b"4294967296", b"9223372036854775807", b"9223372036854775808", b"18446744073709551616", b"1e308", b"-1e308",
    b"1e309", b"5e-324", b"NaN", b"nan", b"Infinity", b"-inf", b"1e999999999", b"9" * 400, b"1_000", b"0x10",
    "\u0661\u0662".encode(), "\u00b2".encode(), b"+1", b"1,5", b"--1", b"1e", b".",
)  # fmt: skip
TEXTS = (
    b"", b"\xff", b"\0", b"\xed\xa0\x80", "\u202e".encode(), b"\x1b[31m", b"=1+1", b"..", b"../../etc/passwd", b"%00",
    b"\r\n", b"\n", b'"', b"\\", b"'", b"{}", b"[]", b"null", b"true", b"[" * 3000, b'{"a":' * 1200, b"A" * 3000,
    b"\xef\xbb\xbf", b"\xff\xfe", b"\\ud800", b"/dev/null", "\u00b5S".encode(),
)  # fmt: skip
WORDS = tuple(
    struct.pack(kind, value)
    for kind, values in (
        ("<H", (0, 1, 0x7FFF, 0x8000, 0xFFFF)), (">H", (1, 0x7FFF, 0x8000)),
        ("<I", (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF0, 0x10000000)), (">I", (1, 0x7FFFFFFF, 0x80000000)),
        ("<Q", (0, 1, 2**63 - 1, 2**63, 2**64 - 1, 1 << 32)), (">Q", (1, 2**63, 1 << 40)),
        ("<d", (float("nan"), float("inf"), 1e308, -1.0)), ("<f", (float("nan"), float("inf"), 3e38)),
    )
    for value in values
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**70), 1e308, 5e-324, float("nan"), float("inf"), "", "\x00",
    "\ud800", "x\x1b[31m", "../x", "9" * 5000, [], [1], [[[[]]]], {}, {"": 0}, {"id": 3}, "nan", "1", "=1+1",
)  # fmt: skip


class Mutator:
    """seeds: good inputs, from which parts are borrowed. tokens: words that the reader knows."""

    def __init__(self, seeds: Sequence[bytes], tokens: Sequence[bytes] = ()) -> None:
        self._seeds = list(seeds)
        self._tokens = [*tokens, *TEXTS]
        self._random = random.Random()
        self._bytes: tuple[Callable[[bytearray], None], ...] = (
            self._flip, self._flip, self._set, self._set, self._word, self._word, self._delete, self._repeat,
            self._insert, self._splice, self._cut, self._token, self._swap,
        )  # fmt: skip
        self._text = (self._number, self._number, self._number, self._cell, self._line, self._token, self._set)

    def reseed(self, seed: int) -> None:
        self._random.seed(seed)

    def choose(self, names: Sequence[str]) -> str:
        return self._random.choice(names)

    def one(self, data: bytes) -> bytes:
        """A damaged copy of `data`."""
        r = self._random
        text = not data or (data[:512].isascii() and b"\0" not in data[:512])
        if text and data[:1] in b"{[" and r.random() < 0.4 and (changed := self._structure(data)) is not None:
            return changed
        out = bytearray(data)
        while True:
            (r.choice(self._text) if text and r.random() < 0.6 else r.choice(self._bytes))(out)
            if r.random() < 0.5:
                return bytes(out[:MOST])

    # ---- bytes

    def _at(self, data: bytearray) -> int:
        """A position; headers are hit more often than their share."""
        n, r = len(data), self._random
        return int(r.random() * min(n, 64 if r.random() < 0.4 else n)) if n else 0

    def _span(self, data: bytearray) -> tuple[int, int]:
        at = self._at(data)
        return at, at + 1 + int(self._random.random() ** 4 * min(len(data), 4096))

    def _flip(self, data: bytearray) -> None:
        if data:
            data[self._at(data)] ^= 1 << int(self._random.random() * 8)

    def _set(self, data: bytearray) -> None:
        if data:
            data[self._at(data)] = int(self._random.random() * 256)

    def _word(self, data: bytearray) -> None:
        word, at = self._random.choice(WORDS), self._at(data)
        data[at : at + len(word)] = word

    def _delete(self, data: bytearray) -> None:
        i, j = self._span(data)
        del data[i:j]

    def _repeat(self, data: bytearray) -> None:
        i, j = self._span(data)
        data[j:j] = data[i:j] * self._random.choice((1, 1, 2, 9, 60))

    def _insert(self, data: bytearray) -> None:
        at = self._at(data)
        data[at:at] = self._random.randbytes(1 + int(self._random.random() ** 3 * 40))

    def _splice(self, data: bytearray) -> None:
        other = bytearray(self._random.choice(self._seeds))
        i, j = self._span(other)
        at, end = self._span(data)
        data[at : end if self._random.random() < 0.5 else at] = other[i:j]

    def _cut(self, data: bytearray) -> None:
        del data[self._at(data) :]

    def _token(self, data: bytearray) -> None:
        token, at = self._random.choice(self._tokens), self._at(data)
        data[at : at + (len(token) if self._random.random() < 0.5 else 0)] = token

    def _swap(self, data: bytearray) -> None:
        i, j = self._span(data)
        k = self._at(data)
        part = data[i:j]
        del data[i:j]
        data[k:k] = part

    # ---- text

    def _number(self, data: bytearray) -> None:
        at = self._at(data)
        if found := _NUMBER.search(data, at) or _NUMBER.search(data):
            data[found.start() : found.end()] = self._random.choice(NUMBERS)

    def _cell(self, data: bytearray) -> None:
        at = self._at(data)
        if found := _SEPARATOR.search(data, at):
            data[found.start() : found.end()] = self._random.choice((b",", b";", b"\t", b"", b" ", b",,", b"\n", b"="))

    def _line(self, data: bytearray) -> None:
        lines = bytes(data).split(b"\n", 200)
        i, r = int(self._random.random() * len(lines)), self._random
        kind = r.random()
        if kind < 0.3:
            del lines[i]
        elif kind < 0.6:
            lines.insert(int(r.random() * len(lines)), lines[i])
        elif kind < 0.8:
            lines[i] = r.choice(self._tokens)
        else:
            j = int(r.random() * len(lines))
            lines[i], lines[j] = lines[j], lines[i]
        data[:] = b"\n".join(lines)

    # ---- JSON, one object or one a line

    def _structure(self, data: bytes) -> bytes | None:
        lines = data.split(b"\n")
        whole = self._random.random() < 0.5 or len(lines) < 3
        i = 0 if whole else int(self._random.random() * len(lines))
        try:
            tree = json.loads(data if whole else lines[i])
        except (ValueError, RecursionError):
            return None
        for _ in range(1 + (self._random.random() < 0.3)):
            tree = self._changed(tree)
        try:
            made = json.dumps(tree).encode()
        except (ValueError, RecursionError):
            return None
        return made + b"\n" if whole else b"\n".join([*lines[:i], made, *lines[i + 1 :]])

    def _changed(self, tree: Any) -> Any:
        """`tree` with one node replaced, removed, renamed or repeated."""
        r = self._random
        if isinstance(tree, dict) and tree:
            keys = list(tree)
            key = r.choice(keys)
            kind = r.random()
            if kind < 0.6 and isinstance(tree[key], (dict, list)) and tree[key]:
                return {**tree, key: self._changed(tree[key])}
            if kind < 0.15:
                return {k: v for k, v in tree.items() if k != key}
            if kind < 0.25:
                return {(k + "x" if k == key else k): v for k, v in tree.items()}
            return {**tree, key: tree[r.choice(keys)] if kind < 0.4 else r.choice(VALUES)}
        if isinstance(tree, list) and tree:
            i = int(r.random() * len(tree))
            kind = r.random()
            if kind < 0.5 and isinstance(tree[i], (dict, list)):
                return [*tree[:i], self._changed(tree[i]), *tree[i + 1 :]]
            if kind < 0.65:
                return [*tree[:i], *tree[i + 1 :]]
            if kind < 0.75:
                return [*tree[:i], *[tree[i]] * 50, *tree[i + 1 :]]
            return [*tree[:i], r.choice(VALUES), *tree[i + 1 :]]
        return r.choice(VALUES)
