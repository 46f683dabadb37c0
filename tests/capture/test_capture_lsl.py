"""The Lab Streaming Layer between processes on one machine: EDA in, results out, and back after a restart."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmt_edge.capture import open_source
from jmt_edge.capture.base import State
from jmt_edge.capture.lsl import LslEda
from jmt_edge.errors import SourceError

pylsl: Any = pytest.importorskip("pylsl", reason="pylsl is not installed, or finds no liblsl", exc_type=Exception)

# Sends 5 + sin(stamp) so that a value says which instant it is of, by the LSL clock of the sender's stamps.
OUTLET = """
import math, sys, time
import pylsl
name, unit = sys.argv[1:3]
rate, speed, drift, shift, seconds = map(float, sys.argv[3:])
info = pylsl.StreamInfo(name, "EDA", 2, rate, "float32", name)
channels = info.desc().append_child("channels")
for label in ("ECG", "EDA"):
    channel = channels.append_child("channel")
    channel.append_child_value("label", label)
    if label == "EDA":
        channel.append_child_value("unit", unit)
outlet = pylsl.StreamOutlet(info, 0, 60)
begun = pylsl.local_clock()
print(begun, flush=True)
outlet.wait_for_consumers(20.0)
first = pylsl.local_clock()
n = 0
while pylsl.local_clock() - first < seconds:
    due = int((pylsl.local_clock() - first) * rate * speed)
    for i in range(n, due):
        stamp = first + shift + i / rate * (1 + drift)
        outlet.push_sample([0.0, 5.0 + math.sin(stamp - begun)], stamp)
    n = max(n, due)
    time.sleep(0.01)
print(n, flush=True)
"""


@contextmanager
def outlet(
    name: str,
    rate: float = 50.0,
    *,
    speed: float = 1.0,
    drift: float = 0.0,
    shift: float = 0.0,
    unit: str = "microsiemens",
    seconds: float = 60.0,
) -> Iterator[tuple[subprocess.Popen[str], float]]:
    """(the process, LSL time at which its values' sine begins)."""
    options = [str(x) for x in (rate, speed, drift, shift, seconds)]
    process = subprocess.Popen(
        [sys.executable, "-c", OUTLET, name, unit, *options], stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process, float(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def unique(what: str) -> str:
    return f"jmt-test-{what}-{time.monotonic_ns()}"


def wait_for(done: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


class Collected:
    """What a source delivers, with times as LSL time."""

    def __init__(self, source: Any) -> None:
        self.source, self.lost = source, 0
        self.times, self.values = np.empty(0), np.empty(0)
        self._ours = time.monotonic() - pylsl.local_clock()

    def more(self) -> int:
        chunk = self.source.read(1e9)
        self.lost += chunk.lost
        self.times = np.concatenate([self.times, chunk.times + self.source._origin - self._ours])
        self.values = np.concatenate([self.values, chunk.values])
        return len(self.times)

    def late(self, begun: float) -> np.ndarray:
        """Seconds by which each sample's time is off, from what its value says."""
        expected = 5.0 + np.sin(self.times - begun)
        slope = np.cos(self.times - begun)
        steep = np.abs(slope) > 0.5
        return (expected - self.values)[steep] / slope[steep]


def opened(spec: str) -> LslEda:
    source = open_source("eda", spec)
    assert isinstance(source, LslEda) and source.realtime
    source.open(time.monotonic())
    return source


@pytest.mark.realtime
def test_samples_keep_their_times_and_come_back_after_a_restart() -> None:
    name = unique("restart")
    with outlet(name) as (_, begun):
        source = opened(f"lsl:name={name}")
        assert source.status().detail["channel"] == "EDA" and source.status().unit == "µS"
        got = Collected(source)
        wait_for(lambda: got.more() > 150)
        assert source.status().state is State.STREAMING
        assert np.abs(got.late(begun)).max() < 0.005
        first = got.more()
    wait_for(lambda: source.status().state in (State.LOST, State.BACKOFF, State.CONNECTING))
    with outlet(name) as (_, begun):
        wait_for(lambda: got.more() > first + 150)
        got.times, got.values = got.times[first:], got.values[first:]
        assert np.abs(got.late(begun)).max() < 0.005
        assert np.all(np.diff(got.times) > 0)
        status = source.status()
        assert (status.state, status.reconnects) == (State.STREAMING, 1)
        assert got.lost == status.lost > 0  # the samples of the pause
    source.close()


@pytest.mark.slow
@pytest.mark.realtime
def test_minutes_at_eight_times_the_speed_with_drift_and_a_restart() -> None:
    """Minutes at 50 Hz, sent in an eighth of the time by a clock that is 200 ppm off: no sample is lost while the
    outlet is there, and none is off by more than 20 ms. JMT_EDGE_LSL_MINUTES=10 is the whole exercise.
    """
    seconds = float(os.environ.get("JMT_EDGE_LSL_MINUTES", "2")) * 60 / 8 / 2
    name = unique("fast")
    source: LslEda | None = None
    for _ in range(2):
        with outlet(name, 400.0, drift=2e-4, seconds=seconds) as (process, begun):
            source = source or opened(f"lsl:name={name}")
            got = Collected(source)
            assert process.stdout is not None
            while process.poll() is None:
                got.more()
                time.sleep(0.05)
            sent = int(process.stdout.readline())
        end = time.monotonic() + 2.0
        while time.monotonic() < end:
            got.more()
            time.sleep(0.05)
        assert (
            sent - 400 <= len(got.times) <= sent == pytest.approx(400 * seconds, rel=0.05)
        )  # a second may be under way
        assert np.abs(got.late(begun)).max() < 0.020 and np.all(np.diff(got.times) > 0)
        np.testing.assert_allclose(np.diff(got.times), 1 / 400, atol=2e-3)
    assert source is not None and source.status().reconnects == 1
    source.close()


def test_stamps_of_another_clock_are_moved_to_their_arrival() -> None:
    """alexandrebarachant/muse-lsl#130, OpenBCI/OpenBCI_GUI#775."""
    name = unique("unix")
    with outlet(name, shift=1.7e9) as (_, _begun):
        source = opened(f"lsl:name={name}")
        got = Collected(source)
        wait_for(lambda: got.more() > 100)
        assert abs(got.times[-1] - pylsl.local_clock()) < 1.0
        np.testing.assert_allclose(np.diff(got.times), 0.02, atol=2e-3)
        assert "not of the LSL clock" in source.status().detail["notes"][0]
        source.close()


def test_units_and_channels_are_said_or_asked_for() -> None:
    name = unique("unit")
    with outlet(name, unit="") as _:
        with pytest.raises(SourceError, match=r"channel 'EDA' of the LSL stream .* has no unit; .*unit=uS"):
            opened(f"lsl:name={name}")
        with pytest.raises(SourceError, match="has the channels ECG, EDA; choose one"):
            opened(f"lsl:name={name}&channel=3&unit=uS")
        source = opened(f"lsl:name={name}&unit=kohm")
        got = Collected(source)
        wait_for(lambda: got.more() > 50)
        assert got.values.min() >= 1000 / 6 and got.values.max() <= 1000 / 4
        source.close()
    with pytest.raises(SourceError, match="no LSL stream with name=nobody"):
        opened("lsl:name=nobody")
    source = open_source("eda", "lsl:name=a'b\"c")
    assert source is not None
    with pytest.raises(SourceError, match="both kinds of quotes"):
        source.open(0.0)
    with outlet(name + "'s") as _:
        opened(f"lsl:name={name}'s").close()
    for spec in ("lsl:", "lsl:unit=uS", "lsl:colour=red", "lsl:type"):
        with pytest.raises(SourceError, match=";"):
            open_source("eda", spec)


@pytest.mark.parametrize("error", [ImportError, RuntimeError("LSL binary library file was not found")])
def test_without_the_library_the_remedy_is_named(error: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if error is ImportError:
        monkeypatch.setitem(sys.modules, "pylsl", None)
    else:
        monkeypatch.delitem(sys.modules, "pylsl")

        class Broken:
            def find_spec(self, name: str, *_: object) -> None:
                if name == "pylsl":
                    raise error

        monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    source = open_source("eda", "lsl:type=EDA")
    assert source is not None
    with pytest.raises(SourceError, match=r"jmt-edge\[lsl\]|PYLSL_LIB"):
        source.open(0.0)


def test_a_run_sends_what_it_prints(tmp_path: Path) -> None:
    """Results, quality and marks of `live --lsl`, on the LSL clock."""
    name = unique("out")
    live = ("live", "--task", "pain", "--eda", "sim:seed=1", "--duration", "12", "--output", "jsonl", "--mark")
    process = subprocess.Popen(
        [sys.executable, "-m", "jmt_edge.cli", *live, "--lsl", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    pulled: dict[str, tuple[list[Any], list[float]]] = {suffix: ([], []) for suffix in ("", "-quality", "-marks")}
    inlets = {}
    try:
        for suffix in pulled:
            (found,) = pylsl.resolve_byprop("name", name + suffix, 1, 30.0)
            inlets[suffix] = pylsl.StreamInlet(found, recover=False)
            inlets[suffix].open_stream(timeout=5)
        assert inlets[""].info(timeout=5).desc().child("channels").child("channel").child_value("label") == "pain"
        assert process.stdin is not None
        process.stdin.write("mark cold pack\n7\n")
        process.stdin.flush()
        written = pylsl.local_clock()
        while process.poll() is None:
            for suffix, (values, stamps) in pulled.items():
                with suppress(RuntimeError):  # the outlet has gone
                    more, when = inlets[suffix].pull_chunk(timeout=0.02)
                    values += more
                    stamps += when
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    values, stamps = pulled[""]
    assert len(values) >= 10
    by_time = {line["t"]: line for line in lines}
    # the last one or two may be lost when the outlet closes
    shift = next(
        s for s in (stamps[-1] - line["t"] for line in reversed(lines))
        if all(round(stamp - s, 6) in by_time for stamp in stamps)
        and all(same(value, by_time[round(stamp - s, 6)]["outputs"]) for (value,), stamp in zip(values, stamps))
    )  # fmt: skip
    for (value,), stamp in zip(values, stamps):
        outputs = by_time[round(stamp - shift, 6)]["outputs"]
        assert same(value, outputs)
    assert any(not math.isnan(value) for (value,) in values)
    ok = [row[2] for row in pulled["-quality"][0]]  # face_ok, face_score, eda_ok, eda_score
    assert 1.0 in ok and set(ok) <= {0.0, 1.0}
    texts, when = pulled["-marks"]
    assert texts == [["cold pack"], ["rating 7"]] and abs(when[0] - written) < 0.5


def same(value: float, outputs: dict[str, float] | None) -> bool:
    return math.isnan(value) if outputs is None else value == outputs["pain"]
