"""Reading ahead: the samples and states of the source itself, ready when they are due, and never far ahead."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jmt_edge.capture.ahead import LEAD, LEAD_FACE, PIECES, ReadAhead
from jmt_edge.capture.base import State, Status
from jmt_edge.capture.simulated import open_simulated
from jmt_edge.errors import SourceError
from jmt_edge.media.chunk import Chunk


class Stream:
    """A file of `length` s at `rate` Hz: what was asked of it, and in which thread. fails: when `read` raises."""

    name, realtime = "a file", False

    def __init__(self, modality: str = "eda", rate: float = 100.0, length: float = 1e9, fails: float = 1e9) -> None:
        self.modality, self._rate, self._length, self._fails = modality, rate, length, fails
        self._next, self.until, self.closed = 0, 0.0, 0
        self.threads: set[int] = set()

    def open(self, origin: float) -> None:
        self.threads.add(threading.get_ident())

    def read(self, until: float) -> Chunk:
        self.threads.add(threading.get_ident())
        self.until = until
        if until >= self._fails:
            raise SourceError("the file is damaged; copy it again")
        stop = int(np.floor(min(until, self._length) * self._rate + 1e-6)) + 1
        numbers = np.arange(self._next, max(stop, self._next))
        self._next = max(stop, self._next)
        values: Any = [np.full((2, 2, 3), n % 256, np.uint8) for n in numbers]
        if self.modality != "face":
            values = numbers.astype(np.float32)
        return Chunk(numbers / self._rate, values, self._rate, lost=int((numbers % 7 == 0).sum()))

    def status(self) -> Status:
        return Status(State.ENDED if self.until >= self._length else State.STREAMING, lost=self._next // 7)

    def close(self) -> None:
        self.closed += 1
        self.threads.add(threading.get_ident())


def opened(source: Any) -> ReadAhead:
    ahead = ReadAhead(source)
    ahead.open(0.0)
    return ahead


# steps of the loop: of a hop, of its pulls, and anything
steps = st.lists(st.one_of(st.sampled_from([0.04, 0.25, 0.5]), st.floats(0.0, 0.3)), min_size=1, max_size=25)


def compare(direct: Any, ahead: ReadAhead, steps: list[float]) -> None:
    """Reading both in the same steps."""
    t, due, told = 0.0, 0, 0
    try:
        for step in steps:
            t += step
            wanted, found = direct.read(t), ahead.read(t)
            assert np.array_equal(found.times, wanted.times) and len(found.values) == len(wanted.values)
            assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(found.values, wanted.values))
            due, told = due + wanted.lost, told + found.lost
            assert told <= due  # of a piece of which a part was due, they are told with the rest
        whole = (int(t * PIECES) + 1) / PIECES
        assert told + ahead.read(whole).lost == due + direct.read(whole).lost
        assert ahead.status() == direct.status()
    finally:
        ahead.close()


@given(steps=steps, modality=st.sampled_from(["face", "eda"]), rate=st.sampled_from([4.0, 25.0, 512.0]))
@settings(max_examples=60, deadline=None)
def test_samples_and_status_are_those_of_the_source(steps: list[float], modality: str, rate: float) -> None:
    compare(Stream(modality, rate), opened(Stream(modality, rate)), steps)


@pytest.mark.parametrize("modality", ["face", "voice", "eda"])
def test_simulations_are_the_same(modality: str) -> None:
    spec = "sim:seed=2&drop_at=0.6&drop_for=0.4"
    compare(open_simulated(modality, spec), opened(open_simulated(modality, spec)), [0.04, 0.5, 0.31, 0.04, 0.2, 0.9])


@pytest.mark.parametrize(("modality", "lead"), [("eda", LEAD), ("face", LEAD_FACE)])
def test_it_is_ahead_and_not_by_more_than_its_lead(modality: str, lead: float) -> None:
    stream = Stream(modality)
    ahead = opened(stream)
    for t in (0.0, 1.0, 1.5):
        assert len(ahead.read(t)) or not t
        end = time.monotonic() + 10
        while stream.until < t + lead - 1e-9 and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(0.05)
        assert t + lead - 1e-9 <= stream.until <= t + lead + 1 / PIECES + 1e-9
    ahead.close()
    assert stream.closed == 1 and threading.get_ident() not in stream.threads and len(stream.threads) == 1


def test_the_status_is_that_of_the_samples_which_were_read() -> None:
    """A file that ends half a second from now has not ended."""
    stream = Stream(length=1.0)
    ahead = opened(stream)
    assert len(ahead.read(0.9)) == 91
    time.sleep(0.1)
    assert stream.status().state is State.ENDED and ahead.status().state is State.STREAMING
    assert ahead.status().lost == 13  # of the samples up to 0.9 s
    assert len(ahead.read(5.0)) == 10 and ahead.status().state is State.ENDED
    assert not len(ahead.read(6.0)) and not ahead.pending
    assert stream.until < 2.0  # nothing more is read of what has ended
    ahead.close()


def test_what_is_raised_comes_when_its_samples_are_due_and_reading_continues() -> None:
    ahead = opened(Stream(fails=1.0))
    assert len(ahead.read(0.9)) == 91
    with pytest.raises(SourceError, match="the file is damaged"):
        ahead.read(1.0)
    ahead.close()


def test_a_source_that_cannot_be_opened_says_so_and_ends() -> None:
    class Broken(Stream):
        def open(self, origin: float) -> None:
            raise SourceError("there is no such file")

    ahead = ReadAhead(Broken())
    with pytest.raises(SourceError, match="no such file"):
        ahead.open(0.0)
    ahead.close()
    assert not ahead._thread.is_alive()


def test_a_simulated_frame_is_drawn_when_it_is_looked_at_and_once() -> None:
    source, reader = open_simulated("face", "sim:seed=3"), open_simulated("face", "sim:seed=3", lazy=True)
    drawn: list[float] = []
    frame = source._frame  # type: ignore[attr-defined]
    source._frame = lambda t: (drawn.append(t), frame(t))[1]  # type: ignore[attr-defined]
    ahead = opened(source)
    chunk = ahead.read(0.6)  # of several pieces
    ahead.close()
    assert len(chunk) == 16 and not drawn
    images = chunk.values[3:]
    assert (images[2] == reader.read(0.6).values[5]).all()  # type: ignore[attr-defined]
    assert images[2] is chunk.values[5] and drawn == [chunk.times[5]]
    assert len(list(chunk.values)) == len(drawn) == 16
