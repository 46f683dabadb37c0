"""Ctrl-C, SIGTERM and a closed terminal end a run cleanly, with its summary; a second one ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..controls import Controls


@contextmanager
def stop_on_signals(controls: Controls) -> Iterator[None]:
    """While inside, SIGINT, SIGTERM and SIGHUP call `controls.stop()`. Outside the main thread nothing changes.

    An ignored SIGHUP (`nohup`) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if controls.stopped:
            raise KeyboardInterrupt
        controls.stop()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
