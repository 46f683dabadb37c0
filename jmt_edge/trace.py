"""Where a run's time goes: spans of work on the time axis of their threads, as a file that Perfetto opens.

`TRACE` holds the spans of the whole process while `--trace FILE` is on; off, a span costs a call and a test.
The format is the JSON array of Chrome's "Trace Event Format" (Google 2016): one complete event (`X`) a line, in
microseconds, and the names of the threads as metadata (`M`). A file whose process was killed lacks the closing
bracket, which the format allows.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from .errors import ConfigError
from .faults import Steady

log = logging.getLogger(__name__)

PERIOD = 0.25  # s between two writes
MOST = 20_000  # spans that wait for the disk; what comes then is left out, and the file's last event says how many

_OFF: AbstractContextManager[None] = nullcontext()


class Trace:
    """start and stop: from one thread; `span` from any."""

    def __init__(self) -> None:
        self.on = False
        self._spans: deque[dict[str, Any]] = deque()
        self._threads: set[int] = set()
        self._left_out = 0
        self._file: IO[str] | None = None
        self._stopping = threading.Event()
        self._writer: Steady | None = None

    @contextmanager
    def into(self, path: Path | None) -> Iterator[None]:
        """The trace of the block; None: of nothing. Raises ConfigError where the file cannot be written."""
        if path is not None:
            self.start(path)
        try:
            yield
        finally:
            self.stop()

    def start(self, path: Path) -> None:
        """Raises ConfigError where the file cannot be written."""
        try:
            self._file = path.open("w", encoding="ascii")
        except OSError as error:
            raise ConfigError(f"{path} cannot be written ({error.strerror}); choose another --trace") from None
        self._file.write('[\n{"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "jmt-edge"}}')
        self._spans.clear()
        self._threads.clear()
        self._left_out = 0
        self._stopping.clear()
        self._writer = Steady(self._write, "trace")
        self._writer.start()
        self.on = True

    def stop(self) -> None:
        """Write what waits and close the file; nothing where no trace was begun."""
        self.on = False
        self._stopping.set()
        if self._writer is not None:
            self._writer.join()
            self._writer = None

    def span(self, name: str, **args: Any) -> AbstractContextManager[None]:
        """Time the block. args: what the viewer shows beside it, plain JSON values."""
        return _Span(self, name, args) if self.on else _OFF

    def add(self, name: str, began: int, ended: int, args: dict[str, Any]) -> None:
        """A span from and to `time.perf_counter_ns()`, in this thread."""
        if len(self._spans) >= MOST:
            self._left_out += 1
            return
        thread = threading.get_native_id()
        if thread not in self._threads:
            self._threads.add(thread)
            self._spans.append(
                {"ph": "M", "name": "thread_name", "tid": thread, "args": {"name": threading.current_thread().name}}
            )
        self._spans.append(
            {"ph": "X", "name": name, "tid": thread, "ts": began / 1e3, "dur": (ended - began) / 1e3, "args": args}
        )

    def _write(self) -> None:
        done = False
        while not done:
            done = self._stopping.wait(PERIOD)  # then all that was added before is written
            try:
                self._write_waiting()
                if done:
                    self._close()
            except OSError as error:
                self.on = False
                log.warning("the trace ends early (%s); the run continues", os.strerror(error.errno or 0))
                self._spans.clear()
                return

    def _write_waiting(self) -> None:
        assert self._file is not None
        for _ in range(len(self._spans)):
            self._file.write(",\n" + json.dumps({"pid": 1, **self._spans.popleft()}))
        self._file.flush()

    def _close(self) -> None:
        assert self._file is not None
        if self._left_out:
            what = {"ph": "i", "name": f"{self._left_out} spans were left out", "pid": 1, "tid": 0, "s": "g", "ts": 0}
            self._file.write(",\n" + json.dumps({**what, "ts": time.perf_counter_ns() / 1e3}))
        self._file.write("\n]\n")
        self._file.close()


class _Span:
    def __init__(self, trace: Trace, name: str, args: dict[str, Any]) -> None:
        self._trace, self._name, self._args = trace, name, args

    def __enter__(self) -> None:
        self._began = time.perf_counter_ns()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._trace.add(self._name, self._began, time.perf_counter_ns(), self._args)


TRACE = Trace()
span = TRACE.span
