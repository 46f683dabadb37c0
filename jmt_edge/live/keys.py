"""Single key presses from a terminal."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import tty
from collections.abc import Callable

from ..faults import FAULTS, Steady, one_item

# What a key that is not a character sends (ECMA-48, and the Linux console's ESC [ [ A), and such a sequence that is not
# complete yet. Escape alone is neither.
_SEQUENCE = re.compile(r"\x1b(?:\[\[[A-E]|\[[0-?]*[ -/]*[@-~]|O[ -~]|[^\[O\x1b])")
_BEGUN = re.compile(r"\x1b(?:\[[0-?]{0,8}[ -/]?|O)$")


class Keys:
    """Calls `press` with each character key of standard input, without echo, until `close` restores the terminal.

    Keys that send a sequence, such as Delete (`ESC [ 3 ~`), are left out: their digits are not pain ratings.
    """

    def __init__(self, press: Callable[[str], None]) -> None:
        self._press = press
        self._fd = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd)
        self._wake, self._waker = os.pipe()
        self._thread = Steady(self._listen, "keys")
        self._thread.start()

    def _listen(self) -> None:
        rest = ""  # of a sequence of which the end is still to come
        while True:
            ready, _, _ = select.select([self._fd, self._wake], [], [])
            if self._wake in ready:
                return
            try:
                data = os.read(self._fd, 1024)
            except OSError as error:  # the terminal is gone; it would be ready to be read again and again
                FAULTS.add("keys", error)
                return
            if not data:
                return
            said = _SEQUENCE.sub("", rest + data.decode("ascii", "ignore"))
            begun = _BEGUN.search(said)
            rest = begun[0] if begun else ""
            for key in said.removesuffix(rest):
                with one_item("keys"):
                    self._press(key)

    def close(self) -> None:
        os.write(self._waker, b"x")
        self._thread.join(timeout=1.0)
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
        os.close(self._wake)
        os.close(self._waker)
