"""Shimmer3 GSR+ with the LogAndStream firmware (Shimmer's GSR+ user guide and firmware command set).

A data packet has no checksum: `00`, a 24-bit timestamp at 32768 Hz, then the channels that the inquiry announced.
The timestamps of neighbours differ by the sampling period, or a small multiple where packets were lost, so a packet
counts in a run of three such packets (`framing.RunFramer`). A corrupted GSR value cannot be told from a measured one;
a corrupted header or timestamp can.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import SourceError
from ...media.units import shimmer3_us
from ..clock import unwrap
from ..reconnect import DeviceLost
from .base import DISCONNECTED, Report, Samples
from .framing import Bytes, RunFramer
from .port import Port

CLOCK = 32768  # Hz
MODULUS = 1 << 24  # ticks: 512 s
GSR = 0x1C
ACK = b"\xff"
RUN = 3
_SLACK = 2  # ticks that a period may differ from the nominal one
_MOST_LOST = 64  # packets lost within a run; more begin a new one
_TWO_BYTES = frozenset(range(0x13)) | {GSR}  # channel ids of 16-bit channels: inertial, battery, ADC, GSR


@dataclass(frozen=True)
class Layout:
    """What the board streams: ticks of 1/32768 s between packets and the channels' ids in order."""

    divider: int
    channels: tuple[int, ...]

    @property
    def length(self) -> int:
        return 4 + 2 * len(self.channels)

    @classmethod
    def from_inquiry(cls, answer: bytes) -> Layout:
        """From the bytes after the `02` of an inquiry's answer: u16 divider, u32 config, u8 channels, u8 buffer, ids.

        Raises DeviceLost where they are incomplete or hold no GSR channel.
        """
        if len(answer) < 8 or len(answer) < 8 + answer[6]:
            raise DeviceLost("the Shimmer's answer to the inquiry is incomplete; switch it off and on")
        channels = tuple(answer[8 : 8 + answer[6]])
        divider = int.from_bytes(answer[:2], "little")
        if GSR not in channels or not divider:
            raise DeviceLost("the Shimmer streams no GSR channel; a Shimmer3 GSR+ is needed")
        if unknown := [c for c in channels if c not in _TWO_BYTES]:
            raise DeviceLost(
                f"the Shimmer streams channel 0x{unknown[0]:02x}, which has no known size; use GSR+ firmware"
            )
        return cls(divider, channels)


class Shimmer3Decoder:
    """Packets of `layout`; `counts` are the timestamps in ticks, unwrapped."""

    tick = 1.0 / CLOCK
    cycle = 0
    repeats = False
    unit = "µS"
    prior_ppm = 200.0

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.rate = CLOCK / layout.divider
        self.report = Report()
        self._at = 4 + 2 * layout.channels.index(GSR)
        self._framer = RunFramer(layout.length, RUN, self._links)
        self._last: int | None = None
        self._end = 0

    def _links(self, raw: Bytes) -> NDArray[np.bool_]:
        length = self.layout.length
        count = len(raw) - length + 1
        header = raw[:count] == 0
        stamp = _u24(raw, count)
        step = (stamp[length:] - stamp[:-length]) % MODULUS
        periods = (step + _SLACK) // self.layout.divider
        apart = step - periods * self.layout.divider
        return header[:-length] & header[length:] & (periods >= 1) & (periods <= _MOST_LOST) & (abs(apart) <= _SLACK)

    def feed(self, data: bytes) -> Samples:
        self.report.bytes += len(data)
        counts, words, lost = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
        for offset, frames in self._framer.feed(data):
            raw = frames.astype(np.int64)
            stamps = raw[:, 1] | raw[:, 2] << 8 | raw[:, 3] << 16
            self.report.skipped += offset - self._end
            self._end = offset + frames.size
            if self._last is None:
                self._last = int(stamps[0]) - self.layout.divider
            ticks = unwrap(stamps, self._last, MODULUS)
            periods = np.rint(np.diff(ticks, prepend=self._last) / self.layout.divider).astype(np.int64)
            lost += int(np.maximum(periods - 1, 0).sum())
            self._last = int(ticks[-1])
            counts.append(ticks)
            words.append(raw[:, self._at] | raw[:, self._at + 1] << 8)
        word = np.concatenate(words)
        values = shimmer3_us(word)
        reasons = np.where(word & 0x0FFF == 0x0FFF, 2, np.where(values >= DISCONNECTED, 0, 1)).astype(np.uint8)
        values[reasons > 0] = np.nan
        return self.report.count(Samples(np.concatenate(counts), values.astype(np.float32), lost), reasons)


def _u24(raw: Bytes, count: int) -> NDArray[np.int64]:
    """The timestamp that a packet at each of the first `count` offsets would have."""
    wide = raw.astype(np.int64)
    return wide[1 : 1 + count] | wide[2 : 2 + count] << 8 | wide[3 : 3 + count] << 16


class Shimmer3:
    """Driver. rate: samples per second, 0.5 to 1024 (the nearest 32768 / n is used)."""

    name = "shimmer3"
    baudrate = 115200
    settle = 2.5

    def __init__(self, rate: float = 128.0) -> None:
        if not 0.5 <= rate <= 1024:
            raise SourceError(f"shimmer3: {rate:g} Hz is not possible; choose 0.5 to 1024")
        self.rate = rate

    def start(self, port: Port) -> Shimmer3Decoder:
        if self._inquire(port) is None:
            raise DeviceLost(f"no Shimmer answers at {port.path}; check its power and pairing, or try auto:PORT")
        self._command(port, b"\x05" + round(CLOCK / self.rate).to_bytes(2, "little"), "rate")
        self._command(port, b"\x08\x04\x01\x00", "GSR sensor")
        answer = self._inquire(port)
        layout = Layout.from_inquiry(answer or b"")
        self._command(port, b"\x07", "start command")
        return Shimmer3Decoder(layout)

    def stop(self, port: Port) -> None:
        port.write(b"\x20")

    def identify(self, port: Port) -> str:
        answer = self._inquire(port)
        return "" if answer is None else "Shimmer3"

    def _inquire(self, port: Port) -> bytes | None:
        """The inquiry's answer after its `FF 02`, None where none came. Stops a running stream first."""
        port.write(b"\x20")
        port.drain(0.1)
        port.write(b"\x01")
        answer = port.collect(ACK + b"\x02", 0.5)
        at = answer.find(ACK + b"\x02")
        if at < 0:
            return None
        return answer[at + 2 :] + port.drain(0.1)

    def _command(self, port: Port, command: bytes, what: str) -> None:
        port.write(command)
        if ACK not in port.collect(ACK, 0.5):
            raise DeviceLost(f"the Shimmer at {port.path} does not accept its {what}; switch it off and on")
