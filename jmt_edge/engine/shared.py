"""One engine for several loops: their calls run one after another, in the order in which they came.

Calls are not merged into batches. On a CPU that saves nothing (a batch of four clips takes four times as long as one),
and with two threads or more onnxruntime's convolutions give other last bits in a batch than alone, so that a person's
numbers would depend on who else is there.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from ..trace import span
from .backends.base import F32, Engine, Fresh, Step


class Turns:
    """A lock whose waiting threads get it in the order in which they came; `threading.Lock` promises no order."""

    def __init__(self) -> None:
        self._guard = threading.Lock()  # of what follows
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        with span("wait for the engine"):
            mine.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False


class SharedEngine:
    """See `Engine`; its calls may come from any thread. `close` only once no loop uses it."""

    def __init__(self, engine: Engine) -> None:
        self.name, self.precision = engine.name, engine.precision
        self._engine, self._turns = engine, Turns()

    def backbones(self, clips: Mapping[str, F32]) -> dict[str, F32]:
        with self._turns:
            return self._engine.backbones(clips)

    def fusion(self, features: Mapping[str, F32], present: NDArray[np.bool_]) -> dict[str, F32]:
        with self._turns:
            return self._engine.fusion(features, present)

    def step(
        self, clips: Mapping[str, F32], features: Mapping[str, F32], present: NDArray[np.bool_], fresh: Fresh
    ) -> Step:
        with self._turns:
            return self._engine.step(clips, features, present, fresh)

    def close(self) -> None:
        with self._turns:
            self._engine.close()
