"""How each board handles commands and encodes samples: the counterpart of `capture.eda`, written independently.

A firmware has no clock: the board asks for the bytes of sample `n`, taken `t` seconds after power-up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

_RF = (40.2, 287.0, 1000.0, 3300.0)  # kΩ


class Firmware(Protocol):
    streaming: bool

    @property
    def rate(self) -> float:
        """Samples per second."""

    def reset(self) -> None:
        """Power-up."""

    def receive(self, data: bytes) -> bytes:
        """Commands from the host; returns the answer."""

    def sample(self, n: int, t: float, us: float) -> bytes:
        """Sample `n` of the stream, conductance `us` in µS (NaN: electrode off)."""


def bitalino_frame(sequence: int, digital: int, analog: list[int]) -> bytes:
    """One BITalino frame, bit by bit from the data sheet: sequence and CRC last, channels before it, backwards."""
    widths = [10, 10, 10, 10, 6, 6][: len(analog)]
    size = math.ceil((12 + sum(widths)) / 8)
    word, at = (sequence & 15) << 4 | (digital & 15) << 12, None
    # first channel right above the digital lines' nibble: bits are laid from the frame's end to its start
    layout = {
        0: [(8, 9, 6), (16 + 2, 5, 0)],
        1: [(16, 9, 8), (24, 7, 0)],
        2: [(32, 9, 2), (40 + 6, 1, 0)],
        3: [(40, 9, 4), (48 + 4, 3, 0)],
        4: [(48, 5, 2), (56 + 6, 1, 0)],
        5: [(56, 5, 0)],
    }
    for channel, value in enumerate(analog):
        for at, high, low in layout[channel]:
            word |= (value >> low & (1 << (high - low + 1)) - 1) << at
    crc = 0
    for bit in range(8 * size - 1, -1, -1):
        crc = crc << 1 | word >> bit & 1
        if crc & 0x10:
            crc ^= 0x13
    return (word | crc).to_bytes(size, "big")


class BitalinoFirmware:
    """BITalino (r)evolution: EDA on `channel` (1 to 6), other channels at mid-scale."""

    VERSION = b"BITalino_v5.2\n"

    def __init__(self, rate: float = 1000.0, channel: int = 3) -> None:
        self.rate, self._channel = rate, channel
        self.reset()

    def reset(self) -> None:
        self.streaming = False
        self._channels: list[int] = []

    def receive(self, data: bytes) -> bytes:
        answer = b""
        for byte in data:
            if self.streaming:
                if byte in (0x00, 0xFF):
                    self.streaming = False
            elif byte == 0x07:
                answer += self.VERSION
            elif byte != 0xFF and byte & 0x03 == 0x03:
                self.rate = float(10 ** (byte >> 6))
            elif byte & 0x03 == 0x01 and byte >> 2:
                self._channels = [c + 1 for c in range(6) if byte >> (2 + c) & 1]
                self.streaming = True
        return answer

    def sample(self, n: int, t: float, us: float) -> bytes:
        analog = []
        for place, channel in enumerate(self._channels):
            bits = 10 if place < 4 else 6
            share = (0.0 if math.isnan(us) else us * 0.132 / 3.3) if channel == self._channel else 0.5
            analog.append(min(max(round(share * 2**bits), 0), 2**bits - 1))
        return bitalino_frame(n % 16, 0, analog)


class Shimmer3Firmware:
    """Shimmer3 GSR+ with LogAndStream, auto range, GSR and PPG channels."""

    def __init__(self, rate: float = 128.0) -> None:
        self._divider = round(32768 / rate)
        self.reset()

    @property
    def rate(self) -> float:
        return 32768 / self._divider

    def reset(self) -> None:
        self.streaming = False
        self._pending = b""
        self._channels: list[int] = [0x12, 0x1C]

    def receive(self, data: bytes) -> bytes:
        answer = b""
        stream = self._pending + data
        sizes = {0x05: 3, 0x08: 4}
        while stream:
            size = sizes.get(stream[0], 1)
            if len(stream) < size:
                break
            command, stream = stream[:size], stream[size:]
            answer += self._obey(command)
        self._pending = stream
        return answer

    def _obey(self, command: bytes) -> bytes:
        code = command[0]
        if code == 0x01:
            head = self._divider.to_bytes(2, "little") + bytes(4) + bytes([len(self._channels), 1])
            return b"\xff\x02" + head + bytes(self._channels)
        if code == 0x05:
            self._divider = max(int.from_bytes(command[1:3], "little"), 1)
        elif code == 0x08:
            self._channels = [0x12] * (command[2] & 0x01) + [0x1C] * (command[1] >> 2 & 0x01)
        elif code in (0x07, 0x20):
            self.streaming = code == 0x07
        else:
            return b""
        return b"\xff"

    def sample(self, n: int, t: float, us: float) -> bytes:
        stamp = (n * self._divider) % (1 << 24)
        channels = {0x12: 2048, 0x1C: self._gsr(us)}
        return (
            b"\x00" + stamp.to_bytes(3, "little") + b"".join(channels[c].to_bytes(2, "little") for c in self._channels)
        )

    @staticmethod
    def _gsr(us: float) -> int:
        """Range in bits 15-14 and ADC: the most sensitive range that is not saturated."""
        if math.isnan(us) or us <= 0:
            return 3 << 14 | 600
        for gain in (3, 2, 1, 0):
            adc = round((_RF[gain] * us / 1000 + 1) * 0.5 * 4095 / 3)
            if adc <= 3000 or gain == 0:
                break
        return gain << 14 | min(adc, 4095)


class GroveFirmware:
    """Grove GSR behind an Arduino that prints one reading a line."""

    streaming = True

    def __init__(self, rate: float = 20.0, cal: int = 512) -> None:
        self.rate, self._cal = rate, cal

    def reset(self) -> None:
        self.streaming = True

    def receive(self, data: bytes) -> bytes:
        return b""

    def sample(self, n: int, t: float, us: float) -> bytes:
        if math.isnan(us):
            return b"%d\r\n" % self._cal
        return b"%d\r\n" % min(max(round((100 * self._cal - 1024 * us) / (100 + 2 * us)), 0), 1023)


class CsvFirmware:
    """An Arduino sketch: the header `t_ms,uS` once, then `millis()` and µS."""

    streaming = True

    def __init__(self, rate: float = 250.0) -> None:
        self.rate = rate
        self.reset()

    def reset(self) -> None:
        self.streaming = True
        self._header = b"t_ms,uS\r\n"

    def receive(self, data: bytes) -> bytes:
        return b""

    def sample(self, n: int, t: float, us: float) -> bytes:
        header, self._header = self._header, b""
        return header + b"%d,%s\r\n" % (int(t * 1000 + 1e-6) % (1 << 32), b"nan" if math.isnan(us) else b"%.3f" % us)


FIRMWARE: dict[str, Callable[..., Firmware]] = {
    "bitalino": BitalinoFirmware,
    "shimmer3": Shimmer3Firmware,
    "grove": GroveFirmware,
    "csv": CsvFirmware,
}
