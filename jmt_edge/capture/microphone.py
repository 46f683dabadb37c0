"""The microphone: PortAudio, in a process of its own, into a queue, 44.1 kHz mono out.

The process (`portaudio.py`) stamps and sends the blocks. A thread here takes them, fits the device's sample counter to
the host's clock, resamples where the device cannot run at 44.1 kHz, and starts another process when the device is gone:
PortAudio has no hot plug, and the only sign of a dead device is that no more blocks come.

The clock is fitted to the arrival of the blocks, not to PortAudio's `inputBufferAdcTime`: through PulseAudio that was
seen to step by 0.25 s one second after the start while the samples continued without a gap. The constant part of the
latency, which arrival times cannot show, is reported as `driver_latency`; `--audio-delay` subtracts a known one.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from ..errors import SourceError
from ..media.chunk import Chunk
from ..media.sound import F32, Antiphase, down_mix
from ..preprocessing.resample import StreamResampler
from ..tasks import AUDIO_RATE
from . import portaudio
from .base import Status
from .clock import ClockFit
from .queue import SampleQueue
from .reconnect import DeviceLost, Link, Supervisor
from .spec import number, split_query

RING_SECONDS = 20.0
PATIENCE = 12.0  # s for a device to open
APART = 0.7  # s between two attempts to open it again, at first
AT_ONCE = 3  # attempts beside each other
LOOKS = 50  # attempts of one process; what its libraries keep of each is gone with it
# the process searches packages where this one does, and not in the folder of portaudio.py, whose `queue` is ours
_RUN = "import runpy, sys; sys.path[:] = sys.argv[3:]; runpy.run_path(sys.argv[2], run_name='__main__')"
_ENDED = b""


class _Process:
    """PortAudio at work on one request. Its messages are read with a limit of time.

    Raises SourceError where the system has no room for another process.
    """

    def __init__(self, **request: Any) -> None:
        command = [sys.executable, "-IS", "-c", _RUN, json.dumps(request), portaudio.__file__, *sys.path]
        self.began, self.looks = time.monotonic(), 1
        try:
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                start_new_session=True,  # the terminal's signals are for the program
            )  # fmt: skip
        except OSError as error:
            raise SourceError(
                f"the process that reads the microphone does not start ({error.strerror}); end other programs"
            ) from None
        assert self._child.stdout is not None
        self.fd = self._child.stdout.fileno()
        self._got = b""

    def messages(self, seconds: float) -> Iterator[tuple[bytes, bytes]]:
        """(kind, content) of what came, after at most `seconds`; (`_ENDED`, how) when there will be no more."""
        for _ in range(64):  # then the caller looks whether it should stop
            yield from self._whole()
            if not wait_for([self], seconds):
                return
            seconds = 0.0
            new = os.read(self.fd, 1 << 16)
            if not new:
                yield _ENDED, self._how().encode()
                return
            self._got += new

    def look_again(self) -> None:
        """Another attempt, after `ABSENT`."""
        self.began, self.looks = time.monotonic(), self.looks + 1
        self._child.send_signal(portaudio.AGAIN)

    def _whole(self) -> Iterator[tuple[bytes, bytes]]:
        size = portaudio.HEADER.size
        while len(self._got) >= size:
            kind, length = portaudio.HEADER.unpack_from(self._got)
            if len(self._got) < size + length:
                return
            content, self._got = self._got[size : size + length], self._got[size + length :]
            yield kind, content

    def _how(self) -> str:
        try:
            return f"with code {self._child.wait(1.0)}"
        except subprocess.TimeoutExpired:
            return "without a code"

    def close(self) -> None:
        self._child.kill()
        with suppress(subprocess.TimeoutExpired):  # stuck in the kernel; Popen reaps it later
            self._child.wait(1.0)
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None
            pipe.close()


def wait_for(processes: list[_Process], seconds: float) -> list[_Process]:
    """Those that have said something, or have ended, after at most `seconds`."""
    poll = select.poll()
    for process in processes:
        poll.register(process.fd, select.POLLIN)
    ready = {fd for fd, _ in poll.poll(1000 * seconds)}
    return [process for process in processes if process.fd in ready]


def list_microphones() -> tuple[str, list[dict[str, Any]]]:
    """(PortAudio's version, its descriptions of the devices with inputs).

    Raises SourceError where PortAudio is missing, or its sound system does not answer within `PATIENCE`.
    """
    process = _Process(list=True)
    try:
        until = process.began + PATIENCE
        while (left := until - time.monotonic()) > 0:
            for kind, content in process.messages(left):
                if kind == portaudio.LISTED:
                    found = json.loads(content)
                    return found["version"], found["devices"]
                raise SourceError(_why(kind, content))
        raise SourceError(_no_answer())
    finally:
        process.close()


def _why(kind: bytes, content: bytes) -> str:
    """Why there is no sound, by a message that is neither sound nor what was asked for."""
    text = content.decode("utf-8", "replace")
    if kind in (portaudio.REFUSED, portaudio.ABSENT):
        return text
    return f"the process that reads the microphone ended {text}; try again"


def _no_answer() -> str:
    return f"the sound server did not answer for {PATIENCE:.0f} s; restart it, or log in again"


class _Stream:
    """A device that is open; each `pump` delivers the blocks that arrived since the last."""

    def __init__(self, microphone: Microphone, process: _Process, opened: dict[str, Any]) -> None:
        self.symptom = "the microphone is silent: no blocks come"
        self.latency = 0.0  # s, age of a block's first sample as the driver reports it
        self.antiphase = Antiphase()
        self._process = process
        self._deliver = microphone._deliver
        self._rate, self._channels = float(opened["rate"]), int(opened["channels"])

    def take(self, block: bytes) -> None:
        """One message of sound."""
        arrival, self.latency, lost = portaudio.STAMP.unpack_from(block)
        samples = np.frombuffer(block[portaudio.STAMP.size :], np.float32).reshape(-1, self._channels)
        self.antiphase.add(samples, self._rate)
        self._deliver(arrival, down_mix(samples), lost)

    def pump(self) -> bool:
        any_came = False
        for kind, content in self._process.messages(0.1):
            if kind == portaudio.STOPPED:
                raise DeviceLost("the microphone was stopped by its driver")
            if kind != portaudio.SOUND:
                raise DeviceLost(_why(kind, content))
            self.take(content)
            any_came = True
        return any_came

    def close(self) -> None:
        self._process.close()


class Microphone:
    """A live microphone: `INDEX`, `NAME` or `default`, with `?rate=` to force the device's rate (Hz) and `?channels=`
    (1 or 2; all are mixed to mono)."""

    modality = "voice"
    realtime = True

    def __init__(self, spec: str) -> None:
        self._which, given = split_query(spec, "rate", "channels")
        self.channels = int(number(spec, given, "channels", 1, 2, whole=True) or 0)  # 0: as many as there are, up to 2
        self._forced = number(spec, given, "rate", 4000, 384_000)
        self.name = spec
        self._link = Link()
        self._supervisor = Supervisor(self._connect, self._link, f"microphone {spec}")
        self._queue = SampleQueue()
        self._xruns = 0
        self._origin = 0.0
        self._apart = APART  # s
        self._closing = threading.Event()
        self._stream: _Stream | None = None
        self._kept: _Process | None = None  # it found no device, and can look again
        self._detail: dict[str, Any] = {}

    def open(self, origin: float) -> None:
        self._origin = origin
        self._supervisor.start(self._connect())

    def _connect(self) -> _Stream:
        """Open the device. An attempt may hang, so that the next ones begin before it has ended: what hung while the
        sound server was away does not delay the one that finds it back.

        Raises SourceError where it cannot be opened.
        """
        apart = PATIENCE if self._stream is None else self._apart
        attempts: list[_Process] = []
        if (kept := self._kept) is not None:
            self._kept = None
            attempts.append(kept)
            kept.look_again()
        until = time.monotonic() + PATIENCE
        try:
            while (now := time.monotonic()) < until and not self._closing.is_set():
                if not attempts or now - attempts[-1].began >= apart:
                    attempts.append(_Process(which=self._which, rate=self._forced, channels=self.channels))
                    if len(attempts) > AT_ONCE:
                        attempts.pop(1).close()  # the first has all the time that a slow device needs
                for process in wait_for(attempts, 0.1):
                    for kind, content in process.messages(0):
                        if kind == portaudio.OPENED:
                            attempts.remove(process)
                            return self._begin(process, json.loads(content))
                        attempts.remove(process)
                        keep = kind == portaudio.ABSENT and not attempts and self._stream is not None
                        if keep and process.looks < LOOKS:
                            self._kept = process
                        else:
                            process.close()
                        if not attempts:  # one that is slower may have the device
                            raise SourceError(_why(kind, content))
                        break
            self._apart = min(2 * self._apart, PATIENCE)  # a slow machine needs more time for each
            raise SourceError(_no_answer())
        finally:
            for process in attempts:
                process.close()

    def _begin(self, process: _Process, opened: dict[str, Any]) -> _Stream:
        if process.looks == 1:  # the others need not begin
            self._apart = max(APART, 1.5 * (time.monotonic() - process.began))
        self._rate = float(opened["rate"])
        self._resample = StreamResampler(self._rate)
        self._fit = ClockFit()
        self._in = self._out = 0  # samples from the device, samples at 44.1 kHz
        self._last = -np.inf
        self._stream = stream = _Stream(self, process, opened)
        self._detail = {"device": opened["device"], "index": opened["index"], "device_rate": self._rate}
        return stream

    def _deliver(self, arrival: float, samples: F32, overflow: bool) -> None:
        """One block that arrived at host time `arrival` (s)."""
        if overflow:
            # how much was lost is unknown, so the counter restarts
            self._xruns += 1
            self._fit.restart()
            self._resample = StreamResampler(self._rate)
            self._in = self._out = 0
        self._in += len(samples)
        self._fit.add(self._in / self._rate, arrival)
        out = self._resample(samples)
        if not len(out):
            return
        first = float(self._fit.map(np.array([self._out / AUDIO_RATE]))[0]) - self._origin
        self._out += len(out)
        first = max(first, self._last)  # times must not step back while the fit settles
        self._last = first + len(out) / AUDIO_RATE
        self._queue.put(first + np.arange(len(out)) / AUDIO_RATE, out, 0, RING_SECONDS * AUDIO_RATE)

    def read(self, until: float) -> Chunk:
        """Samples taken up to `until`. Samples that nobody read in time are counted as lost."""
        times, values, lost = self._queue.take(until)
        return Chunk(times, values, float(AUDIO_RATE), lost)

    def status(self) -> Status:
        """`detail`: the device and its rate, `xruns` (blocks after an overflow), `driver_latency` (s)."""
        latency = self._stream.latency if self._stream else 0.0
        detail = {**self._detail, "xruns": self._xruns, "driver_latency": round(latency, 4)}
        link = self._link
        reason = link.reason
        if not reason and self._stream and self._stream.antiphase.found:
            reason = "the two channels cancel each other out (antiphase); give ?channels=1 or fix the wiring"
        return Status(link.state, reason, self._clock(), self._queue.lost, link.reconnects, detail=detail)

    def _clock(self) -> Any:
        clock = self._fit.clock()
        clock.offset -= self._origin
        return clock

    def close(self) -> None:
        self._closing.set()
        if self._supervisor.stop() and self._kept is not None:
            self._kept.close()
