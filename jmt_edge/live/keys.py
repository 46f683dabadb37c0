"""Single key presses from a terminal."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Callable

from ..faults import FAULTS, Steady, one_item


class Keys:
    """Calls `press` with each key of standard input, without echo, until `close` restores the terminal."""

    def __init__(self, press: Callable[[str], None]) -> None:
        self._press = press
        self._fd = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd)
        self._wake, self._waker = os.pipe()
        self._thread = Steady(self._listen, "keys")
        self._thread.start()

    def _listen(self) -> None:
        while True:
            ready, _, _ = select.select([self._fd, self._wake], [], [])
            if self._wake in ready:
                return
            try:
                data = os.read(self._fd, 32)
            except OSError as error:  # the terminal is gone; it would be ready to be read again and again
                FAULTS.add("keys", error)
                return
            if not data:
                return
            for key in data.decode("ascii", "ignore"):
                with one_item("keys"):
                    self._press(key)

    def close(self) -> None:
        os.write(self._waker, b"x")
        self._thread.join(timeout=1.0)
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
        os.close(self._wake)
        os.close(self._waker)
