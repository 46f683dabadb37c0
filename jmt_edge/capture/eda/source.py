"""An EDA board as a source: a thread reads, decodes and stamps; `read` hands over what has come."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from ...errors import SourceError
from ..base import State, Status
from ..clock import Timeline
from ..queue import QueuedEda
from ..reconnect import DeviceLost, Timing
from .base import Decoder, Driver, Report, Samples
from .identify import identify
from .port import Port

_PACE = 0.01  # s between reads: enough bytes to decode at once, and still fresh when stamped
_STALL = 1.5  # s


class SerialEda(QueuedEda):
    """The board `driver` (None: identify it when opened) at `path`. `now` is the host's clock, for tests."""

    def __init__(
        self,
        driver: Driver | None,
        path: str,
        *,
        timing: Timing | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        settle = driver.settle if driver else 4.0
        name = f"{driver.name if driver else 'auto'}:{path}"
        super().__init__(name, self._connect, timing or Timing(first=settle, stall=_STALL), now)
        self._driver, self._path = driver, path
        self._timeline: Timeline | None = None
        self._clock_of: tuple[float, int] = (0.0, 0)
        self._decoder: Decoder | None = None
        self._board = ""

    def open(self, origin: float) -> None:
        """Connect and start the board. Raises SourceError where the port or the board cannot be used."""
        self._origin = origin
        try:
            connection = self._connect()
        except DeviceLost as error:
            raise SourceError(str(error)) from None
        self._supervisor.start(connection)

    def status(self) -> Status:
        decoder, timeline = self._decoder, self._timeline
        status = super().status()
        status.unit = decoder.unit if decoder else ""
        status.detail |= {"port": self._path, "board": self._board}
        if timeline:
            status.clock = timeline.fit.clock()
            if status.clock.offset:
                status.clock.offset -= self._origin
            status.detail |= {
                "rate": round(timeline.rate, 3),
                "alignment_error": timeline.fit.error,
                "dropped": timeline.dropped,
                "slipped": timeline.slipped,
            }
        if decoder:
            report = decoder.report
            status.detail |= {
                "nominal_rate": decoder.rate,
                "skipped_bytes": report.skipped,
                "rejected": report.rejected,
                "no_data": dict(report.no_data),
            }
            if status.state is State.STREAMING and report.trouble:
                status.reason = report.trouble
        return status

    def _connect(self) -> _Streaming:
        port = Port(self._path, self._driver.baudrate if self._driver else 115200)
        try:
            if self._driver is None:
                self._driver, self._board = identify(port)
                self.name = f"{self._driver.name}:{self._path}"
            decoder = self._driver.start(port)
        except BaseException:
            port.close()
            raise
        self._board = self._board or self._driver.name
        self._decoder, self._rate = decoder, decoder.rate
        self._clock_of = (math.nan, 0)
        return _Streaming(port, self._driver, decoder, self._deliver, self._now)

    def _deliver(self, decoder: Decoder, samples: Samples, arrival: float) -> None:
        before = self._timeline
        missing = before.missing if before else 0
        clock_of = (decoder.tick, decoder.cycle)
        if len(samples) and clock_of != self._clock_of:
            self._set_timeline(decoder, clock_of)
        if self._timeline is None:
            return
        times, values = self._timeline.push(samples.counts, samples.values, arrival, samples.ahead)
        lost = samples.lost + self._timeline.missing - (missing if self._timeline is before else 0)
        if not len(times) and not lost:
            return
        self._queue.put(times - self._origin, values, lost, self.KEPT * max(self._timeline.rate, decoder.rate, 10.0))

    def _set_timeline(self, decoder: Decoder, clock_of: tuple[float, int]) -> None:
        """A new connection keeps what is known of the crystal; a board that sends other counters starts afresh."""
        if self._timeline is not None and math.isnan(self._clock_of[0]) and clock_of == self._last_clock:
            self._timeline.restart()
        else:
            self._timeline = Timeline(
                decoder.tick,
                prior_ppm=decoder.prior_ppm,
                cycle=decoder.cycle,
                period=1.0 / decoder.rate if decoder.rate else 0.0,
                repeats=decoder.repeats,
            )
        self._clock_of = self._last_clock = clock_of

    _last_clock: tuple[float, int] = (0.0, 0)


def _unread_lines(report: Report) -> str:
    """What whole lines arrive that are not understood, two of them quoted; empty where there are none such."""
    if len(report.unread) < 2:
        return ""
    shown = " and ".join(f"'{line[:24].decode('ascii', 'replace')}'" for line in report.unread)
    why = report.problem or "not understood; check baud= and the protocol"
    return f"the board sends lines, and none of them are samples: {shown}: {why}"


class _Streaming:
    """An open board. unreadable: why lines that arrive give no samples; opening the port again would not help."""

    def __init__(
        self,
        port: Port,
        driver: Driver,
        decoder: Decoder,
        deliver: Callable[[Decoder, Samples, float], None],
        now: Callable[[], float],
    ) -> None:
        self._port, self._driver, self._decoder, self._deliver, self._now = port, driver, decoder, deliver, now
        self._bytes = 0
        self.symptom = self.unreadable = ""

    def pump(self) -> bool:
        data = self._port.read(0.05)
        arrival = self._now()
        samples = self._decoder.feed(data)
        self._deliver(self._decoder, samples, arrival)
        if len(samples):
            self._bytes = 0
            self.unreadable = ""
            time.sleep(_PACE)
            return True
        self._bytes += len(data)
        if data:
            self.unreadable = _unread_lines(self._decoder.report)
        self.symptom = self.unreadable or (
            f"{self._bytes} bytes arrived but none of them are samples of a {self._driver.name}"
            if self._bytes > 100
            else "the board sends nothing"
        )
        return False

    def close(self) -> None:
        try:
            self._driver.stop(self._port)
        finally:
            self._port.close()
