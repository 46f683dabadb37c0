"""The formats, sizes and rates of a V4L2 camera, queried by ioctl (linux/videodev2.h)."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

QUERYCAP, ENUM_FMT, ENUM_FRAMESIZES, ENUM_FRAMEINTERVALS = 0x80685600, 0xC0405602, 0xC02C564A, 0xC034564B
_CAPTURE, _DEVICE_CAPS = 0x1, 0x80000000
_DISCRETE = 1
_LIMIT = 64  # entries of one list, against a driver whose lists never end

Ioctl = Callable[[int, int, bytearray], object]


@dataclass(frozen=True)
class Mode:
    """One pixel format and size, with its rates (Hz, highest first)."""

    pixels: str
    width: int
    height: int
    rates: tuple[float, ...]


def _ioctl(fd: int, request: int, buffer: bytearray) -> object:
    import fcntl

    return fcntl.ioctl(fd, request, buffer)


def query_camera(path: Path, ioctl: Ioctl = _ioctl) -> tuple[str, list[Mode]] | None:
    """(the camera's name, its modes); None where the node captures no video. Raises OSError where it does not open."""
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        capability = bytearray(104)
        ioctl(fd, QUERYCAP, capability)
        card = bytes(capability[16:48]).split(b"\0")[0].decode(errors="replace")
        whole, device = struct.unpack_from("<II", capability, 84)
        if not (device if whole & _DEVICE_CAPS else whole) & _CAPTURE:
            return None
        modes = []
        for i in range(_LIMIT):
            form = bytearray(64)
            struct.pack_into("<II", form, 0, i, 1)
            if not _asked(ioctl, fd, ENUM_FMT, form):
                break
            (pixels,) = struct.unpack_from("<I", form, 44)
            modes += [
                Mode(struct.pack("<I", pixels).decode(errors="replace"), w, h, _rates(ioctl, fd, pixels, w, h))
                for w, h in _sizes(ioctl, fd, pixels)
            ]
        return card, modes
    finally:
        os.close(fd)


def _asked(ioctl: Ioctl, fd: int, request: int, buffer: bytearray) -> bool:
    try:
        ioctl(fd, request, buffer)
    except OSError:  # EINVAL: past the end of the list
        return False
    return True


def _sizes(ioctl: Ioctl, fd: int, pixels: int) -> list[tuple[int, int]]:
    """Discrete sizes; of a continuous or stepwise range, the largest."""
    found = []
    for i in range(_LIMIT):
        size = bytearray(44)
        struct.pack_into("<II", size, 0, i, pixels)
        if not _asked(ioctl, fd, ENUM_FRAMESIZES, size):
            break
        kind, width, height = struct.unpack_from("<3I", size, 8)
        if kind != _DISCRETE:
            _, max_w, _, _, max_h, _ = struct.unpack_from("<6I", size, 12)
            return [(max_w, max_h)]
        found.append((width, height))
    return found


def _rates(ioctl: Ioctl, fd: int, pixels: int, width: int, height: int) -> tuple[float, ...]:
    """Discrete rates; of a range, the highest."""
    found = []
    for i in range(_LIMIT):
        interval = bytearray(52)
        struct.pack_into("<4I", interval, 0, i, pixels, width, height)
        if not _asked(ioctl, fd, ENUM_FRAMEINTERVALS, interval):
            break
        kind, numerator, denominator = struct.unpack_from("<3I", interval, 16)
        if numerator:
            found.append(round(denominator / numerator, 3))
        if kind != _DISCRETE:
            break
    return tuple(sorted(found, reverse=True))
