"""Byte streams and checks that the EDA tests share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np

from jmt_edge.capture.eda.base import Decoder, Samples


def decode(decoder: Decoder, chunks: Iterable[bytes]) -> Samples:
    """All samples of `chunks`, as one."""
    parts = [decoder.feed(chunk) for chunk in chunks]
    parts += [decoder.feed(b"")]  # what waits for a change of shape
    return Samples(
        np.concatenate([p.counts for p in parts]),
        np.concatenate([p.values for p in parts]),
        sum(p.lost for p in parts),
    )


def cut(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    """`data` in pieces of `sizes`, cycled, the rest at the end."""
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    return [*pieces, data[at:]]


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> float:
    """Seconds until `condition` held; fails after `seconds`."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "waited in vain"
        time.sleep(0.002)
    return time.monotonic() - start


def throughput(decoder: Decoder, data: bytes, samples: int, rate: float, chunk: int = 4096) -> float:
    """How many times faster than `rate` the decoder works on one core, in CPU time."""
    start = time.process_time()
    for at in range(0, len(data), chunk):
        decoder.feed(data[at : at + chunk])
    return samples / rate / (time.process_time() - start)
