"""A serial port whose failures are sentences."""

from __future__ import annotations

import errno
import os
import select
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import serial

from ...errors import SourceError
from ..reconnect import DeviceLost

_GONE = "unplugged, or its port is read by a second program"


class Port:
    """An exclusively opened serial port, 8N1, non-blocking reads with `wait`.

    Raises SourceError where the port is absent, busy or forbidden; DeviceLost on any later failure.
    """

    def __init__(self, path: str, baudrate: int) -> None:
        self.path = path
        try:
            self._serial = serial.Serial(path, baudrate, timeout=0, write_timeout=1.0, exclusive=True)
            self._serial.reset_input_buffer()
        except (serial.SerialException, OSError, termios.error, ValueError) as error:
            raise SourceError(_cannot_open(path, error)) from None

    def set_baudrate(self, baudrate: int) -> None:
        self._guard(setattr, self._serial, "baudrate", baudrate)

    def read(self, wait: float) -> bytes:
        """What has arrived; waits up to `wait` seconds for a first byte."""
        return bytes(self._guard(self._read, wait))

    def _read(self, wait: float) -> bytes:
        # select of our own: pyserial configures the whole port anew whenever its timeout is set
        ready, _, _ = select.select([self._serial.fileno()], [], [], wait)
        return self._serial.read(max(self._serial.in_waiting, 1)) if ready else b""

    def collect(self, until: bytes, wait: float, limit: int = 4096) -> bytes:
        """Bytes up to and including `until`, or what came within `wait` seconds."""
        end = time.monotonic() + wait
        data = b""
        while until not in data and len(data) < limit and (left := end - time.monotonic()) > 0:
            data += self.read(left)
        return data

    def drain(self, quiet: float = 0.05, longest: float = 0.5) -> bytes:
        """Throw away (and return) what arrives until `quiet` seconds pass without a byte."""
        end = time.monotonic() + longest
        data = b""
        while (new := self.read(quiet)) and time.monotonic() < end:
            data += new
        return data + new

    def write(self, data: bytes) -> None:
        self._guard(self._serial.write, data)

    def close(self) -> None:
        with suppress(serial.SerialException, OSError, termios.error):  # an unplugged port has nothing left to close
            self._serial.close()

    def _guard(self, call: Callable[..., Any], *args: Any) -> Any:
        try:
            return call(*args)
        except serial.SerialTimeoutException:
            raise DeviceLost(f"the board at {self.path} takes no commands") from None
        except (serial.SerialException, OSError, termios.error) as error:
            # pyserial says "device reports readiness to read but returned no data" for an unplugged board
            raise DeviceLost(f"the board at {self.path} is gone: {_lost(error)}") from None


def _lost(error: BaseException) -> str:
    text = str(error)
    codes = (errno.EIO, errno.ENXIO, errno.ENODEV)
    known = getattr(error, "errno", None) in codes or any(os.strerror(code) in text for code in codes)
    if known or "returned no data" in text:
        return _GONE
    return text or type(error).__name__


def _cannot_open(path: str, error: BaseException) -> str:
    number = getattr(error, "errno", None)
    text = str(error)
    if number is None and "Errno" in text:
        number = next((n for n in (errno.EACCES, errno.EBUSY, errno.ENOENT) if f"[Errno {n}]" in text), None)
    if number == errno.ENOENT or not Path(path).exists():
        return f"there is no serial port {path}; plug the board in, `jmt-edge doctor` lists the ports"
    if number == errno.EACCES:
        return f"no permission to open {path}; run `sudo usermod -aG dialout $USER` and log in again"
    if number == errno.EBUSY or "lock port" in text or number in (errno.EAGAIN, errno.EWOULDBLOCK):
        return f"the serial port {path} is in use by another program; close it first"
    if isinstance(error, termios.error) or "configure port" in text or number == errno.ENOTTY:
        return f"{path} is not a serial port; `jmt-edge doctor` lists the ports"
    return f"cannot open the serial port {path} ({text}); check the cable and `jmt-edge doctor`"
