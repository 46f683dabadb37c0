"""What every EDA protocol offers: a pure decoder (bytes in, samples and a loss report out) and a driver."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .port import Port

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

OPEN, SATURATED, NO_NUMBER = "open electrode", "saturated electrode", "the board sent no number"
DISCONNECTED = 0.03  # µS: less than this comes from no skin (Shimmer's own limit)


@dataclass
class Samples:
    """counts: (n,) the device's counter, unwrapped; values: (n,) µS, NaN where the electrode gave none."""

    counts: Int64
    values: Float32
    lost: int = 0  # samples known to be lost among and before these
    ahead: int = 0  # counts by which the newest sample that has arrived is newer than the last one here

    def __len__(self) -> int:
        return len(self.counts)


Lines = deque[bytes]


@dataclass
class Report:
    """Totals of one decoder. `skipped` bytes and `rejected` frames or lines failed a check and gave no sample.

    unread: the last two lines that were rejected. problem: why a whole stream of lines is not taken, and the remedy.
    """

    bytes: int = 0
    samples: int = 0
    lost: int = 0
    skipped: int = 0
    rejected: int = 0
    no_data: Counter[str] = field(default_factory=Counter)
    unread: Lines = field(default_factory=lambda: deque(maxlen=2))
    problem: str = ""
    trouble: str = ""  # why the newest sample is NaN; empty where it is a number

    def count(self, samples: Samples, reasons: NDArray[np.uint8]) -> Samples:
        """Add `samples`; `reasons` (n,) index REASONS."""
        self.samples += len(samples)
        self.lost += samples.lost
        if len(samples):
            for code in np.unique(reasons[reasons > 0]).tolist():
                self.no_data[REASONS[code]] += int((reasons == code).sum())
            self.trouble = REASONS[int(reasons[-1])]
        return samples


REASONS = ("", OPEN, SATURATED, NO_NUMBER)


class Decoder(Protocol):
    """Pure and incremental: any chunking of the same bytes gives the same samples. Never raises."""

    report: Report
    cycle: int  # counts that a loss can hide without a trace; 0: none
    rate: float  # nominal samples per second, 0 where unknown
    repeats: bool  # different samples may carry the same count
    unit: str

    @property
    def tick(self) -> float:
        """Seconds per count; 0 where only the host's clock can tell."""

    @property
    def prior_ppm(self) -> float:
        """How far the counter's rate may be off."""

    def feed(self, data: bytes) -> Samples: ...


class Driver(Protocol):
    """Speaks one board's commands. `start` raises DeviceLost where the board does not answer as it should."""

    name: str
    baudrate: int
    settle: float  # s: how long the first data may take after `start` (a board that boots when its port opens)

    def start(self, port: Port) -> Decoder: ...

    def stop(self, port: Port) -> None: ...

    def identify(self, port: Port) -> str:
        """The board's name where it answers on `port`, else an empty string."""
