"""EDA from any program: a source is an object with a few methods.

Reads one sample per line, `seconds microsiemens`, and estimates pain from EDA alone:

    my-sensor | python examples/own_source.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import numpy as np

from jmt_edge.capture.base import State, Status
from jmt_edge.cli.live import demo_bundle
from jmt_edge.engine.backends import open_engine
from jmt_edge.engine.bundle import load_bundle
from jmt_edge.live import Controls, Options, run
from jmt_edge.live.outputs import JsonLines
from jmt_edge.media.chunk import Chunk, empty_chunk


class LineEda:
    """Skin conductance in µS (`nan`: no valid reading), one sample per line, in time order."""

    modality = "eda"
    name = "lines"
    realtime = False  # the run waits for these lines; for a device it is True, and `read` must not block

    def __init__(self, lines: Iterable[str]) -> None:
        self._samples = ([float(word) for word in line.split()] for line in lines)
        self._next: list[float] | None = None

    def open(self, origin: float) -> None:
        """`origin` is time.monotonic() at stream time 0, for a device whose samples are stamped on arrival."""
        self._next = next(self._samples, None)

    def read(self, until: float) -> Chunk:
        taken = []
        while self._next is not None and self._next[0] <= until:
            taken.append(self._next)
            self._next = next(self._samples, None)
        if not taken:
            return empty_chunk("eda")
        times, values = np.array(taken).T
        return Chunk(times, values.astype(np.float32))

    def status(self) -> Status:
        return Status(State.ENDED if self._next is None else State.STREAMING, unit="µS")

    def close(self) -> None: ...


if __name__ == "__main__":
    bundle, controls = load_bundle(demo_bundle("pain")), Controls()
    sources, output = {"eda": LineEda(sys.stdin)}, JsonLines(sys.stdout, controls)
    run(bundle, open_engine(bundle), sources, Options(realtime=False), [output], controls)
