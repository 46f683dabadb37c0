"""BITalino (r)evolution and the original BITalino (PLUX data sheets and communication protocol).

A frame holds a 4-bit sequence number, four digital lines, up to six analog channels and a CRC-4 (x^4 + x + 1). One
random frame in sixteen passes that CRC, so a frame must stand in a run of four with consecutive numbers
(`framing.RunFramer`). While the line corrupts bytes, a frame at 100 or 1000 Hz must also not be the odd one out
between two frames that agree (`BitalinoDecoder._judged`).
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from ...errors import SourceError
from ...media.units import bitalino_us
from ..reconnect import DeviceLost
from .base import DISCONNECTED, Int64, Report, Samples
from .framing import Bytes, RunFramer
from .port import Port

RATES = (1, 10, 100, 1000)
RUN = 4  # frames until a run counts: a run of random bytes has the probability 2^-28
_NEAR = 20  # frames between which skin cannot change and change back
_JUMP = 0.2  # µS
_WARY = 2000  # frames after a break in the stream during which frames are compared with their neighbours


def frame_length(channels: int) -> int:
    """Bytes in a frame of 1 to 6 channels: 3, 4, 6, 7, 8, 8."""
    return -(-(12 + 10 * channels) // 8) if channels <= 4 else -(-(52 + 6 * (channels - 4)) // 8)


def _crc_tables() -> NDArray[np.uint8]:
    """(8, 256): remainder of byte * x^(8 i), so that a frame's syndrome is the XOR over its bytes."""
    remainder = np.zeros(256, np.uint8)
    for byte in range(256):
        value = byte
        for bit in range(7, 3, -1):
            if value >> bit & 1:
                value ^= 0b10011 << (bit - 4)
        remainder[byte] = value
    tables = [remainder]
    for _ in range(7):  # x^8 * r: through a byte whose high nibble is r, then four bits more
        step = remainder[tables[-1] << 4]
        tables.append(remainder[step << 4])
    return np.array(tables)


_TABLES = _crc_tables()


def syndromes(raw: Bytes, length: int) -> Bytes:
    """(N,) bytes -> (N - length + 1,): 0 where the frame at that offset has a good CRC."""
    count = len(raw) - length + 1
    out = _TABLES[0][raw[length - 1 :]]
    for i in range(1, length):
        out = out ^ _TABLES[i][raw[length - 1 - i : length - 1 - i + count]]
    return out


def unpack(frames: Bytes, channels: int) -> tuple[Int64, Int64, Int64]:
    """(n, length) frames -> sequence (n,), digital lines I1 I2 O1 O2 as a nibble (n,), analog (n, channels)."""
    b = frames.astype(np.int64)[:, ::-1]
    analog = [(b[:, 1] & 15) << 6 | b[:, 2] >> 2]
    if channels >= 2:
        analog.append((b[:, 2] & 3) << 8 | b[:, 3])
    if channels >= 3:
        analog.append(b[:, 4] << 2 | b[:, 5] >> 6)
    if channels >= 4:
        analog.append((b[:, 5] & 63) << 4 | b[:, 6] >> 4)
    if channels >= 5:
        analog.append((b[:, 6] & 15) << 2 | b[:, 7] >> 6)
    if channels >= 6:
        analog.append(b[:, 7] & 63)
    return b[:, 0] >> 4, b[:, 1] >> 4, np.stack(analog, axis=1)


class BitalinoDecoder:
    """Frames of `channels` analog channels, of which number `eda` (0 = the first in the frame) is the EDA sensor.

    `counts` number the frames from the start of the stream; what the 4-bit sequence number leaves open (a loss of
    more than 15 frames) is taken from the bytes that were skipped.
    """

    repeats = False
    unit = "µS"
    cycle = 16
    prior_ppm = 200.0

    def __init__(self, channels: int = 1, eda: int = 0, rate: int = 1000, generation: str = "revolution") -> None:
        self.rate, self.tick = float(rate), 1.0 / rate
        self.report = Report()
        self._channels, self._eda, self._generation = channels, eda, generation
        self._bits = 10 if eda < 4 else 6
        self._length = frame_length(channels)
        self._pad = (1 << (8 * self._length - 12 - 10 * min(channels, 4) - 6 * max(channels - 4, 0))) - 1
        self._framer = RunFramer(self._length, RUN, self._links)
        self._last, self._sequence, self._end = -1, 15, 0  # of the last frame in a run: count, number, stream offset
        self._judge = rate >= 100
        self._jump = _JUMP * 2**self._bits / 25.0
        self._previous: tuple[int, int, int] | None = None  # (count, side bits, ADC) before the pending frame
        self._pending = np.empty((0, 3), np.int64)
        self._wary = -1  # count up to which frames are compared

    def _links(self, raw: Bytes) -> NDArray[np.bool_]:
        length = self._length
        good = syndromes(raw, length) == 0
        number = raw[length - 1 :] >> 4
        return good[:-length] & good[length:] & ((number[length:] - number[:-length]) & 15 == 1)

    def feed(self, data: bytes) -> Samples:
        self.report.bytes += len(data)
        lost = 0
        found = [self._pending]
        for offset, frames in self._framer.feed(data):
            sequence, digital, analog = unpack(frames, self._channels)
            missing = self._missing(int(sequence[0]), offset - self._end)
            lost += max(missing, 0)
            counts = self._last + 1 + missing + np.arange(len(frames))
            if offset > self._end:
                self._wary = int(counts[0]) + _WARY
            side = digital << 8 | frames[:, 0] & self._pad
            found.append(np.stack([counts, side, analog[:, self._eda]], axis=1))
            self.report.skipped += offset - self._end
            self._last, self._sequence = int(counts[-1]), int(sequence[-1])
            self._end = offset + frames.size
        table = np.concatenate(found)
        rejected = 0
        if self._judge:
            table, rejected = self._judged(table)
        self.report.rejected += rejected
        return self._samples(table, lost + rejected)

    def _missing(self, sequence: int, skipped: int) -> int:
        """Frames between the last good one and this: the number says how many modulo 16, the bytes about how many."""
        least = (sequence - self._sequence - 1) % 16
        return least + 16 * max(round((skipped / self._length - least) / 16), -1 if least == 15 else 0)

    def _judged(self, table: Int64) -> tuple[Int64, int]:
        """Without frames whose CRC was right by chance; the newest frame waits for its successor.

        In the 2000 frames after a break, a frame is the odd one out where its neighbours, at most `_NEAR` frames
        apart, agree with each other but not with it: in the digital lines and padding bits, or by 0.2 µS to the
        same side.
        """
        if not len(table):
            return table, 0
        self._pending, table = table[-1:], table[:-1]
        if not len(table):
            return table, 0
        before = table[:1] if self._previous is None else np.array([self._previous])
        left = np.concatenate([before, table[:-1]])
        right = np.concatenate([table[1:], self._pending])
        near = right[:, 0] - left[:, 0] <= _NEAR
        bits = (table[:, 1] != left[:, 1]) & (left[:, 1] == right[:, 1])
        up, down = table[:, 2] - left[:, 2], table[:, 2] - right[:, 2]
        spike = (np.minimum(abs(up), abs(down)) > self._jump) & ((up > 0) == (down > 0))
        spike &= abs(left[:, 2] - right[:, 2]) < self._jump
        odd = near & (bits | spike) & (table[:, 0] < self._wary)
        count, side, adc = table[-1].tolist()
        self._previous = (count, side, adc)
        return table[~odd], int(odd.sum())

    def _samples(self, table: Int64, lost: int) -> Samples:
        adc = table[:, 2]
        values = bitalino_us(adc, self._bits, self._generation)
        floor = values < DISCONNECTED if self._generation == "revolution" else adc == 0
        reasons = np.where(adc >= 2**self._bits - 1, 2, np.where(floor, 1, 0)).astype(np.uint8)
        values[reasons > 0] = np.nan
        ahead = self._last - int(table[-1, 0]) if len(table) else 0
        return self.report.count(Samples(table[:, 0], values.astype(np.float32), lost, ahead), reasons)


class Bitalino:
    """Driver. channel: 1 to 6 (A1 to A6); rate: 1, 10, 100 or 1000 Hz; generation: revolution or original."""

    name = "bitalino"
    baudrate = 115200
    settle = 2.5

    def __init__(self, channel: int = 3, rate: int = 1000, generation: str = "revolution") -> None:
        if channel not in range(1, 7):
            raise SourceError(f"bitalino: there is no channel {channel}; choose 1 to 6 (A1 to A6)")
        if rate not in RATES:
            raise SourceError(f"bitalino: {rate} Hz is not possible; choose one of {', '.join(map(str, RATES))}")
        if generation not in ("revolution", "original"):
            raise SourceError(f"bitalino: generation '{generation}' is unknown; choose revolution or original")
        self.channel, self.rate, self.generation = channel, rate, generation

    def start(self, port: Port) -> BitalinoDecoder:
        if not self.identify(port):
            raise DeviceLost(f"no BITalino answers at {port.path}; check its power and pairing, or try auto:PORT")
        port.write(bytes([RATES.index(self.rate) << 6 | 0x03]))
        time.sleep(0.1)
        port.write(bytes([0x01 | 1 << (1 + self.channel)]))
        return BitalinoDecoder(1, 0, self.rate, self.generation)

    def stop(self, port: Port) -> None:
        port.write(b"\x00")

    def identify(self, port: Port) -> str:
        port.write(b"\x00" if self.generation == "original" else b"\xff")
        time.sleep(0.1)
        port.drain()
        port.write(b"\x07")
        answer = port.collect(b"\n", 0.5)
        at = answer.find(b"BITalino")
        return answer[at:].decode("ascii", "replace").strip() if at >= 0 else ""
