"""Randomness that depends only on person and time, never on the order of calls or the size of a read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

# The first word of a person's key. Live persons and cohort subjects can never share one.
LIVE, COHORT = 1, 2

# The fourth word of a random stream's key: one number for each thing that is drawn.
(
    TRAITS, EPISODE, SESSION, REACTION, AFFECT, HEAD, BLINK, LIGHT, CAMERA, CANVAS,
    TONIC, SPONTANEOUS, SENSOR, ARTEFACT, PHRASE, ROOM, BIOPOTENTIAL, MOVEMENT,
) = range(1, 19)  # fmt: skip

Key = tuple[int, int, int]  # domain, seed, subject
T = TypeVar("T")


def draw(key: Key, stream: int, index: int = 0) -> np.random.Generator:
    """The generator of one random quantity: `stream` says which, `index` its time cell."""
    return np.random.default_rng((*key, stream, index))


class Wander:
    """A smooth, stationary, endless random function of time with mean 0 and variance 1.

    A sum of sinusoids of random period (log-uniform between `fastest` and `slowest` seconds) and phase, so it has no
    state and the same cost at any time.
    """

    def __init__(self, generator: np.random.Generator, fastest: float, slowest: float, waves: int = 7) -> None:
        self._omega = 2 * np.pi / np.exp(generator.uniform(np.log(fastest), np.log(slowest), waves))
        self._phase = generator.uniform(0, 2 * np.pi, waves)
        self._scale = np.sqrt(2 / waves)

    def __call__(self, t: Any) -> Any:
        angle = np.multiply.outer(np.asarray(t, np.float64), self._omega) + self._phase
        return self._scale * np.sin(angle).sum(axis=-1)


class Recent:
    """A small cache of a function of a cell number; the oldest entry is dropped first."""

    def __init__(self, make: Callable[[int], T], size: int) -> None:
        self._make, self._size = make, size
        self._kept: dict[int, Any] = {}

    def __call__(self, index: int) -> Any:
        if index not in self._kept:
            if len(self._kept) >= self._size:
                del self._kept[next(iter(self._kept))]
            self._kept[index] = self._make(index)
        return self._kept[index]


def block_noise(key: Key, stream: int, first: int, count: int, block: int = 4096) -> NDArray[np.float64]:
    """White normal noise for the samples numbered `first` .. `first + count`, the same however they are read."""
    parts = []
    for index in range(first // block, (first + count - 1) // block + 1 if count else first // block):
        parts.append(draw(key, stream, index).standard_normal(block))
    if not parts:
        return np.empty(0)
    start = first - (first // block) * block
    return np.concatenate(parts)[start : start + count]
