"""An EDA stream of the Lab Streaming Layer as a source: `lsl:type=EDA`, `lsl:name=Shimmer&channel=GSR&unit=kohm`.

A sample's time is its stamp, moved to this host's clock by the offset that liblsl measures (its own clock runs as
`time.monotonic`). Where the stamps are of another clock altogether, they are moved to their arrival, and the status
says so. A stream that ends is looked for again until it is back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError, first_line
from ..media.eda_signals import Signal
from ..media.tables import column_number
from ..media.units import Conversion, conversion, written_unit
from .base import Clock, Status
from .queue import QueuedEda
from .reconnect import DeviceLost
from .spec import parse_settings

PROPERTIES = ("name", "type", "source_id", "hostname")
SETTINGS = (*PROPERTIES, "channel", "unit", "bits", "vcc", "gain", "cal")
FIRST, AGAIN = 5.0, 1.0  # s that a stream is looked for: when the source opens, and when it was lost
_BUFFER = 60  # s that liblsl keeps
_CORRECTION = 5.0  # s between two looks at the clock offset
_FOREIGN = 10.0  # s between a stamp and its arrival that no buffer explains


def load_pylsl() -> Any:
    """The library. Raises SourceError, with the remedy, where it or liblsl is missing."""
    try:
        import pylsl
    except ImportError:
        raise SourceError("the Lab Streaming Layer needs pylsl; run `pip install 'jmt-edge[lsl]'`") from None
    except (RuntimeError, OSError) as error:
        raise SourceError(
            f"pylsl finds no liblsl ({first_line(error)}); install it (github.com/sccn/liblsl/releases has a .deb for "
            "Jetson and Raspberry Pi), or name it in PYLSL_LIB"
        ) from None
    if not _configured:
        _configured.append(True)
        # liblsl writes to standard error otherwise; older ones have no such call, which is not worth a failure
        with suppress(AttributeError, RuntimeError, NotImplementedError):
            pylsl.set_config_content("[log]\nlevel = -3\n")
    return pylsl


_configured: list[bool] = []


def open_lsl(spec: str) -> LslEda:
    """The unopened source for `lsl:key=value&...`. Raises SourceError for a malformed specification."""
    given = parse_settings(spec, spec.removeprefix("lsl:"), SETTINGS)
    wanted = {key: given[key] for key in PROPERTIES if key in given}
    if not wanted:
        raise SourceError(f"'{spec}' names no stream; write lsl:type=EDA, or lsl:name=NAME")
    return LslEda(spec, wanted, given.get("channel"), conversion(given, spec))


class LslEda(QueuedEda):
    """One channel of the stream with these properties."""

    def __init__(
        self, spec: str, wanted: Mapping[str, str], channel: str | None = None, unit: Conversion | None = None
    ) -> None:
        super().__init__(spec, lambda: self._connect(AGAIN))
        self._wanted, self._channel, self._unit = dict(wanted), channel, unit
        self._period = 0.0  # between samples, where the stream has a rate
        self._connection: _Inlet | None = None

    def open(self, origin: float) -> None:
        """Find the stream. Raises SourceError where there is none, or several, or its channel cannot be used."""
        self._origin = origin
        self._supervisor.start(self._connect(FIRST))

    def _connect(self, seconds: float) -> _Inlet:
        pylsl = load_pylsl()
        found = {info.uid(): info for info in self._resolved(pylsl, seconds)}
        if not found:
            raise SourceError(
                f"there is no LSL stream with {self._properties()}; start its program, and check that the firewall "
                "lets multicast and TCP ports 16572-16604 pass"
            )
        if len(found) > 1:
            names = ", ".join(f"{i.name()} ({i.type()}, source_id={i.source_id()})" for i in found.values())
            raise SourceError(
                f"{len(found)} LSL streams have {self._properties()}: {names}; choose one by name= or source_id="
            )
        (info,) = found.values()
        self._connection = _Inlet(pylsl, info, self._channel, self._unit, self._deliver, self._now)
        self._rate = self._connection.rate
        self._period = 1.0 / self._rate if self._rate > 0 else 0.0
        return self._connection

    def _resolved(self, pylsl: Any, seconds: float) -> list[Any]:
        """The streams that answer: all that do within a moment after the first."""
        predicate = " and ".join(f"{key}={_quoted(value)}" for key, value in self._wanted.items())
        if not pylsl.resolve_bypred(predicate, 1, seconds):
            return []
        found: list[Any] = pylsl.resolve_bypred(predicate, 99, 0.3)
        return found

    def _properties(self) -> str:
        return " and ".join(f"{key}={value}" for key, value in self._wanted.items())

    def _deliver(self, times: NDArray[np.float64], values: NDArray[np.float32]) -> None:
        self._queue.put_advancing(times - self._origin, values, self._period, self.KEPT * max(self._rate, 100.0))

    def status(self) -> Status:
        status = super().status()
        status.detail["nominal_rate"] = self._rate
        if (connection := self._connection) is not None:
            status.clock = Clock(offset=connection.offset)
            status.detail |= {"stream": connection.name, "channel": connection.channel, "host": connection.host}
            if connection.notes:
                status.detail["notes"] = list(connection.notes)
        return status


def _quoted(value: str) -> str:
    """A text of XPath, which has no escapes. Raises SourceError for one that has both kinds of quotation marks."""
    if "'" not in value:
        return f"'{value}'"
    if '"' not in value:
        return f'"{value}"'
    raise SourceError(
        f"an LSL stream cannot be found by {value}, which has both kinds of quotes; choose another property"
    )


class _Inlet:
    """An open stream. offset: what is added to a stamp, s. Raises SourceError for one that cannot be used."""

    def __init__(
        self,
        pylsl: Any,
        info: Any,
        channel: str | None,
        unit: Conversion | None,
        deliver: Callable[[NDArray[np.float64], NDArray[np.float32]], None],
        now: Callable[[], float],
    ) -> None:
        self._deliver, self._now = deliver, now
        self.name, self.host, self.rate = info.name(), info.hostname(), float(info.nominal_srate())
        self.symptom = f"the LSL stream {self.name} sends nothing"
        self.notes: list[str] = []
        if info.channel_format() == pylsl.cf_string:
            raise SourceError(f"the LSL stream {self.name} sends texts, not numbers; choose another")
        self._lost = (pylsl.util.LostError, pylsl.util.TimeoutError)
        try:
            self._inlet: Any = pylsl.StreamInlet(info, _BUFFER, recover=False)
            self._inlet.open_stream(timeout=FIRST)
            full = self._inlet.info(timeout=FIRST)
            self._correction = float(self._inlet.time_correction(timeout=FIRST))
        except RuntimeError as error:
            raise SourceError(
                f"the LSL stream {self.name} on {self.host} does not answer ({first_line(error)}); check the firewall"
            ) from None
        self._index, self.channel, self._convert = _channel(self.name, full, channel, unit)
        self._ours = self._now() - pylsl.local_clock()  # host clock minus LSL's
        self._foreign: float | None = None  # offset of stamps that are of another clock; 0: they are not
        self._looked = self._now()

    @property
    def offset(self) -> float:
        return self._ours + self._correction + (self._foreign or 0.0)

    def pump(self) -> bool:
        try:
            samples, stamps = self._inlet.pull_chunk(timeout=0.1, max_samples=4096)
            if self._now() - self._looked > _CORRECTION:
                self._looked = self._now()
                self._correction = float(self._inlet.time_correction(timeout=0.1))
        except self._lost[0]:
            raise DeviceLost(f"the LSL stream {self.name} has ended") from None
        except self._lost[1]:
            return False
        if not len(stamps):
            return False
        times = np.asarray(stamps, np.float64) + self._ours + self._correction
        if self._foreign is None:
            late = self._now() - float(times[-1])
            self._foreign = late if abs(late) > _FOREIGN else 0.0
            if self._foreign:
                self.notes.append(
                    f"the stamps of {self.name} are not of the LSL clock ({late:.6g} s off): moved to their arrival"
                )
        values = self._convert(np.asarray(samples, np.float64)[:, self._index]).astype(np.float32)
        values[~np.isfinite(values)] = np.nan
        self._deliver(times + self._foreign, values)
        return True

    def close(self) -> None:
        self._inlet.close_stream()


def _channel(
    stream: str, info: Any, wanted: str | None, unit: Conversion | None
) -> tuple[int, str, Callable[[NDArray[np.float64]], NDArray[np.float64]]]:
    """(index, label, conversion to µS) of the EDA channel. Raises SourceError."""
    labels, units = [], []
    described = info.desc().child("channels").child("channel")
    for i in range(info.channel_count()):
        labels.append(described.child_value("label") or str(i + 1))
        units.append(described.child_value("unit"))
        described = described.next_sibling("channel")
    listed = ", ".join(labels)
    if wanted is not None:
        at = [i for i, label in enumerate(labels) if label.lower() == wanted.lower()]
        if not at and (number := column_number(wanted, len(labels))) is not None:
            at = [number]
    elif len(labels) == 1:
        at = [0]
    else:
        at = [i for i, label in enumerate(labels) if Signal(label, "", 0.0, lambda: (None, np.empty(0))).is_eda]
    if len(at) != 1:
        raise SourceError(
            f"the LSL stream {stream} has the channels {listed}; choose one by channel=NAME or its number"
        )
    (index,) = at
    if unit is not None:
        return index, labels[index], unit
    stated = written_unit(units[index])
    if stated and stated not in ("V", "mV", "adc"):
        return index, labels[index], Conversion(stated)
    what = f"is in '{units[index]}'" if units[index] else "has no unit"
    raise SourceError(
        f"channel '{labels[index]}' of the LSL stream {stream} {what}; say what it is by unit=uS, kohm, V or adc"
    )
