"""Threads that survive: an exception costs one item of work, is counted, and is reported.

`FAULTS` counts them for the whole process; a run's summary, the page and `/metrics` show the counts. `Steady` is how a
thread is started here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

log = logging.getLogger(__name__)

PAUSE, MOST = 0.05, 5.0  # s before the work is called again: the first time, and at most
CALM = 10.0  # s without a fault after which the pause is short again


@dataclass(frozen=True)
class Fault:
    """How often something failed, and its last exception in one line."""

    count: int
    last: str

    def __str__(self) -> str:
        return f"failed {self.count} {'time' if self.count == 1 else 'times'} and continued ({self.last})"


class Faults:
    """Counts exceptions by the name of what failed. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: dict[str, Fault] = {}
        self._logged: set[tuple[str, type]] = set()

    def add(self, name: str, error: BaseException) -> None:
        """Count `error`. The first of its kind is logged with its traceback, the others are not logged."""
        with self._lock:
            before = self._all.get(name)
            text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            self._all[name] = Fault((before.count if before else 0) + 1, text)
            first = (name, type(error)) not in self._logged
            self._logged.add((name, type(error)))
        if first:
            log.error("%s failed and continues; this is reported once", name, exc_info=error)

    def counts(self) -> dict[str, int]:
        """Name -> faults so far."""
        with self._lock:
            return {name: fault.count for name, fault in self._all.items()}

    def since(self, before: dict[str, int]) -> dict[str, Fault]:
        """The faults after `before`, which is what `counts` returned then."""
        with self._lock:
            new = {name: (fault.count - before.get(name, 0), fault.last) for name, fault in self._all.items()}
        return {name: Fault(count, last) for name, (count, last) in new.items() if count}


FAULTS = Faults()


@contextmanager
def one_item(name: str) -> Iterator[None]:
    """An exception inside costs the rest of the block, and is counted."""
    try:
        yield
    except Exception as error:
        FAULTS.add(name, error)


class Steady(threading.Thread):
    """A daemon thread that calls `work` until it returns; when it raises, the fault is counted and it is called again.

    The wait between two calls doubles up to `MOST` seconds, and ends at once when `stopping` is set; `work` itself must
    return then.
    """

    def __init__(self, work: Callable[[], None], name: str, stopping: threading.Event | None = None) -> None:
        super().__init__(name=name, daemon=True)
        self._work, self._stopping = work, stopping or threading.Event()

    def run(self) -> None:
        pause = PAUSE
        while True:
            began = time.monotonic()
            try:
                self._work()
                return
            except (Exception, SystemExit) as error:  # uvicorn exits where it cannot start
                FAULTS.add(self.name, error)
            pause = PAUSE if time.monotonic() - began > CALM else min(2 * pause, MOST)
            if self._stopping.wait(pause):
                return
