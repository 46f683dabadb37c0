"""The state machine that all sensors share, and the thread that drives it."""

from __future__ import annotations

import threading
import time

import pytest
from eda_streams import wait_until
from hypothesis import given
from hypothesis import strategies as st

from jmt_edge.capture.base import State
from jmt_edge.capture.reconnect import DeviceLost, Link, Supervisor, Timing
from jmt_edge.errors import SourceError


class FakeClock:
    def __init__(self) -> None:
        self.t = 100.0

    def __call__(self) -> float:
        return self.t


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_life_of_a_link(clock: FakeClock) -> None:
    link = Link(Timing(first=3, stall=1, lost=2.5, backoff=0.1, backoff_max=0.8), clock)
    link.connecting()
    link.connected()
    assert link.state is State.CONNECTING
    link.data()
    assert (link.state, link.reason) == (State.STREAMING, "")
    clock.t += 1.1
    assert link.overdue("no bytes arrive") == ""
    assert link.state is State.STALLED
    assert link.reason == "no bytes arrive for 1.1 s"
    link.data()
    assert link.state is State.STREAMING
    assert link.reconnects == 0
    clock.t += 2.6
    reason = link.overdue("no bytes arrive")
    assert reason == "no bytes arrive for 2.6 s"
    link.failed(reason)
    assert link.state is State.LOST
    assert [link.backoff() for _ in range(6)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 0.8, 0.8])
    assert (link.state, link.reason) == (State.BACKOFF, reason)
    link.connecting()
    assert link.reason == reason
    link.connected()
    link.data()
    assert (link.state, link.reason, link.reconnects) == (State.STREAMING, "", 1)
    assert link.backoff() == pytest.approx(0.1)
    states = [state.value for _, state, _ in link.history]
    assert states == [
        "connecting", "streaming", "stalled", "streaming", "stalled", "lost", "backoff", "connecting", "streaming",
        "backoff",
    ]  # fmt: skip


def test_a_stall_shows_while_the_thread_hangs(clock: FakeClock) -> None:
    link = Link(Timing(stall=1), clock)
    link.connected()
    link.data()
    clock.t += 1.5
    assert (link.state, link.reason) == (State.STALLED, "no data for 1.5 s")


def test_a_device_that_opens_but_never_sends_is_given_up(clock: FakeClock) -> None:
    link = Link(Timing(first=3), clock)
    link.connecting()
    link.connected()
    clock.t += 2.9
    assert link.overdue() == ""
    clock.t += 0.2
    assert link.overdue("the board sends nothing") == "the board sends nothing (3.1 s after connecting)"


@given(st.lists(st.sampled_from(["connecting", "connected", "data", "overdue", "failed", "backoff", "wait"])))
def test_any_order_of_events_keeps_the_machine_whole(events: list[str]) -> None:
    clock = FakeClock()
    link = Link(now=clock)
    for event in events:
        if event == "wait":
            clock.t += 0.9
        elif event == "failed":
            link.failed("broken")
        elif event == "backoff":
            assert 0 < link.backoff() <= link.timing.backoff_max
        else:
            getattr(link, event)()
        assert isinstance(link.state, State)
        assert link.state in (State.STREAMING, State.CONNECTING) or link.reason
    assert len(link.history) <= 64


class Device:
    """Pumps data until told to fail; counts open devices."""

    open = 0

    def __init__(self, world: World) -> None:
        self.world = world
        self.symptom = "silence"
        Device.open += 1

    def pump(self) -> bool:
        time.sleep(0.001)
        if self.world.broken:
            raise self.world.broken
        return not self.world.silent

    def close(self) -> None:
        Device.open -= 1
        raise OSError("closing a lost device may fail too")


class World:
    broken: Exception | None = None
    silent = False
    refuse: Exception | None = None
    attempts = 0

    def connect(self) -> Device:
        self.attempts += 1
        if self.refuse:
            raise self.refuse
        return Device(self)


QUICK = Timing(first=0.1, stall=0.03, lost=0.06, backoff=0.002, backoff_max=0.01)


@pytest.mark.parametrize("error", [DeviceLost("gone"), OSError("i/o"), SourceError("no port"), RuntimeError("driver")])
def test_reconnects_after_any_failure_over_200_cycles(error: Exception) -> None:
    threads = threading.active_count()
    world, Device.open = World(), 0
    link = Link(QUICK)
    supervisor = Supervisor(world.connect, link, "device")
    supervisor.start()
    for _ in range(200):
        wait_until(lambda: link.state is State.STREAMING)
        world.refuse = world.broken = error
        wait_until(lambda: link.state in (State.LOST, State.BACKOFF, State.CONNECTING))
        assert Device.open <= 1
        world.refuse = world.broken = None
    wait_until(lambda: link.state is State.STREAMING)
    assert link.reconnects == 200
    assert threading.active_count() == threads + 1
    supervisor.stop()
    supervisor.stop()
    assert Device.open == 0
    assert threading.active_count() == threads
    assert link.state is State.ENDED


def test_silence_reconnects_and_says_why() -> None:
    world = World()
    link = Link(QUICK)
    supervisor = Supervisor(world.connect, link, "device")
    supervisor.start(world.connect())
    wait_until(lambda: link.state is State.STREAMING)
    world.silent = True
    wait_until(lambda: world.attempts >= 3)
    assert any(state is State.STALLED for _, state, _ in link.history)
    assert "silence" in link.reason
    world.silent = False
    wait_until(lambda: link.state is State.STREAMING)
    supervisor.stop()


def test_stop_before_start() -> None:
    Supervisor(World().connect, Link(QUICK), "device").stop()
