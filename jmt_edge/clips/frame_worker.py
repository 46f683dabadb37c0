"""A thread that works on frames in their order, while its caller cuts clips."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from ..faults import Steady

Done = TypeVar("Done")

MOST = 4  # frames that wait or are worked on; the caller waits before it hands over one more
IDLE = 2.0  # s without a frame after which the thread ends; the next frame starts another
CLOSING = 5.0  # s that the frame worked on may take at the end

_OPEN: weakref.WeakSet[FrameWorker[Any]] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """A thread that comes back from a network's C++ when the interpreter is gone ends the process with an abort."""
    for one in list(_OPEN):
        one.close()


class FrameWorker(Generic[Done]):
    """`work` (frame, its time in s) on each frame handed over: one after the other, in their order.

    The answers are those of calls in the same order; only the thread differs. What `work` raises is raised by the
    `take` that reaches that frame.
    """

    def __init__(self, work: Callable[[Any, float], Done], name: str) -> None:
        self._call, self._name = work, name
        self._turn = threading.Condition()  # guards what follows
        self._todo: deque[tuple[float, Sequence[Any], int]] = deque()  # the first one is being worked on
        self._done: deque[Done | BaseException] = deque()
        self._runs = self._closing = False
        _OPEN.add(self)

    def hand(self, t: float, images: Sequence[Any], at: int) -> None:
        """The frame `images[at]` of time `t`, later than those before. Waits while `MOST` frames are not done."""
        with self._turn:
            self._turn.wait_for(lambda: len(self._todo) < MOST or self._closing)
            if self._closing:
                return
            self._todo.append((t, images, at))
            self._turn.notify_all()
            if not self._runs:
                self._runs = True
                Steady(self._work, self._name).start()

    def take(self, until: float) -> Iterator[Done]:
        """What is done and was not taken before, after waiting for all frames up to `until` (s)."""
        with self._turn:
            self._turn.wait_for(lambda: not self._todo or self._todo[0][0] > until)
        while self._done:
            done = self._done.popleft()
            if isinstance(done, BaseException):
                raise done
            yield done

    def close(self) -> None:
        """End the thread, after the frame that it works on; what waits is left out."""
        with self._turn:
            self._closing = True
            self._turn.notify_all()
            self._turn.wait_for(lambda: not self._runs, CLOSING)
            self._todo.clear()
            self._turn.notify_all()

    def _work(self) -> None:
        while self._one():
            pass

    def _one(self) -> bool:
        """Work on the next frame; False where none came. The picture is let go before the next one is waited for."""
        with self._turn:
            if not self._turn.wait_for(lambda: self._todo or self._closing, IDLE) or self._closing:
                self._runs = False
                self._turn.notify_all()
                return False
            t, images, at = self._todo[0]
        try:
            done: Done | BaseException = self._call(images[at], t)
        except BaseException as error:  # the caller gets it, and the frames after it are worked on
            done = error
        with self._turn:
            self._done.append(done)
            self._todo.popleft()
            self._turn.notify_all()
        return True
