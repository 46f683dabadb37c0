"""Binary frames of fixed length without a start marker: found by runs of frames that follow one another.

A frame counts only as a member of a run of at least `need` frames, back to back, each linked to the next (good
checksum, consecutive counter). One rule serves locking, staying locked and re-aligning: after lost, inserted or
corrupted bytes, samples come again with the first `need` whole frames in a row that are intact.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


class RunFramer:
    """Cuts a byte stream into runs of linked frames.

    length: bytes in a frame.
    need: frames a run needs before any of them counts.
    link: (N,) bytes -> (N - 2 * length + 1,) bool, whether the frames at offsets o and o + length belong together.
    """

    def __init__(self, length: int, need: int, link: Callable[[Bytes], NDArray[np.bool_]]) -> None:
        self.length, self._need, self._link = length, need, link
        self._carry = b""
        self._start = 0  # stream offset of the carry's first byte
        self._running = False  # the carry begins with the last frame of a run

    def feed(self, data: bytes) -> list[tuple[int, Bytes]]:
        """Runs that became certain: (stream offset of the first frame, frames (n, length)).

        A run that goes on from an earlier call starts where the earlier part ended.
        """
        stream = self._carry + data
        size, length, need = len(stream), self.length, self._need
        if size < 2 * length:
            self._carry = stream
            return []
        raw = np.frombuffer(stream, np.uint8)
        link = self._link(raw)
        begin = link.copy()  # offsets where `need` frames are linked
        for i in range(1, need - 1):
            begin[: max(len(link) - i * length, 0)] &= link[i * length :]
        begin = begin[: max(len(link) - (need - 2) * length, 0)]
        begins = np.flatnonzero(begin)
        gaps = np.flatnonzero(~link)
        ends: dict[int, NDArray[np.int64]] = {}  # last frames of runs, by alignment

        runs: list[tuple[int, Bytes]] = []
        at, running = 0, self._running
        while True:
            if running:
                first = at + length  # the frame at `at` was given out before
            else:
                i = bisect_left(begins, at)  # type: ignore[type-var]
                if i == len(begins):
                    at = max(at, len(begin))
                    break
                at = first = int(begins[i])
            same = ends.get(at % length)
            if same is None:
                same = ends[at % length] = gaps[gaps % length == at % length]
            i = bisect_left(same, at)  # type: ignore[type-var]
            running = i == len(same)  # no end in sight
            last = at + max(-(-(len(link) - at) // length), 0) * length if running else int(same[i])
            if last >= first:
                runs.append((self._start + first, raw[first : last + length].reshape(-1, length)))
            at = last
            if running:
                break
            at += length
        self._running = running
        self._carry = stream[at:]
        self._start += at
        return runs
