"""A BrainFlow board with EDA as a source: `brainflow:emotibit?ip_address=192.168.1.255&unit=uS`.

BrainFlow stamps each package with the host's clock when it arrives. Its EDA channels have no stated unit, so the
specification gives it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import SourceError, first_line
from ..media.units import Conversion, conversion
from .base import Status
from .queue import QueuedEda
from .reconnect import DeviceLost, Timing
from .spec import number, parse_settings

PARAMETERS = ("serial_port", "mac_address", "ip_address", "serial_number", "other_info")
SETTINGS = (*PARAMETERS, "ip_port", "timeout", "channel", "unit", "bits", "vcc", "gain", "cal")
_BUFFER = 45_000  # packages that BrainFlow keeps
_FIRST = 10.0  # s that a board may take to its first package (a radio that is paired)


def load_brainflow() -> Any:
    """The module of boards. Raises SourceError, with the remedy, where BrainFlow is missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it uses pkg_resources
            from brainflow import board_shim

            board_shim.BoardShim.disable_board_logger()
    except ImportError as error:
        raise SourceError(
            f"BrainFlow boards need brainflow ({first_line(error)}); run `pip install 'jmt-edge[brainflow]'`"
        ) from None
    except OSError as error:  # its wheel has libraries for x86-64 alone
        raise SourceError(
            f"BrainFlow's library does not load on this machine ({first_line(error)}); build BrainFlow from source, or "
            "send the board's EDA as an LSL stream"
        ) from None
    return board_shim


def open_brainflow(spec: str) -> BrainFlowEda:
    """The unopened source for `brainflow:BOARD?key=value&...`. Raises SourceError for a malformed specification."""
    name, _, query = spec.removeprefix("brainflow:").partition("?")
    given = parse_settings(spec, query, SETTINGS)
    number(spec, given, "ip_port", 0, 65535, whole=True)
    number(spec, given, "timeout", 0, 60, whole=True)
    channel = number(spec, given, "channel", 1, 64, whole=True)
    unit = conversion(given, spec)
    if not name or unit is None:
        raise SourceError(
            f"'{spec}' needs a board and the unit of its EDA; write brainflow:emotibit?unit=uS, for example"
        )
    return BrainFlowEda(spec, name, given, int(channel or 1), unit)


class BrainFlowEda(QueuedEda):
    """EDA channel number `channel`, from 1, of a board."""

    def __init__(self, spec: str, board: str, given: Mapping[str, str], channel: int, unit: Conversion) -> None:
        super().__init__(spec, self._connect, Timing(first=_FIRST))
        self._board, self._given, self._channel, self._unit = board, dict(given), channel, unit
        self._connection: _Session | None = None

    def open(self, origin: float) -> None:
        """Raises SourceError where the board is unknown, has no EDA, or does not answer."""
        self._origin = origin
        self._supervisor.start(self._connect())

    def _connect(self) -> _Session:
        self._connection, self._rate = None, 0.0
        self._connection = session = _Session(load_brainflow(), self._board, self._given, self._channel, self._deliver)
        self._rate = session.rate
        return session

    def _deliver(self, stamps: Any, values: Any, rate: float) -> None:
        times = stamps + (self._now() - time.time()) - self._origin
        values = self._unit(values).astype(np.float32)
        values[~np.isfinite(values)] = np.nan
        self._queue.put_advancing(times, values, 1.0 / rate if rate else 0.0, self.KEPT * max(rate, 100.0))

    def status(self) -> Status:
        status = super().status()
        status.detail["board"] = self._board
        if (session := self._connection) is not None:
            status.detail |= {"nominal_rate": session.rate, "channel": session.channel}
        return status


class _Session:
    """An open board. Raises SourceError where it cannot be opened."""

    def __init__(
        self, shim: Any, name: str, given: Mapping[str, str], channel: int, deliver: Callable[[Any, Any, float], None]
    ) -> None:
        self._deliver, self._error = deliver, shim.BrainFlowError
        self.symptom = f"the board {name} sends nothing"
        board = _board_id(shim, name)
        self._preset, about = _preset(shim, board, name)
        listed = about["eda_channels"]
        if channel > len(listed):
            raise SourceError(f"the board {name} has {len(listed)} EDA channels; give channel=1 to {len(listed)}")
        self.channel = channel
        self._row, self._stamps = listed[channel - 1], about["timestamp_channel"]
        self.rate = float(about["sampling_rate"])
        parameters = shim.BrainFlowInputParams()
        for key, value in given.items():
            if key in PARAMETERS:
                setattr(parameters, key, value)
            elif key in ("ip_port", "timeout"):
                setattr(parameters, key, int(float(value)))
        self._shim = shim.BoardShim(board, parameters)
        try:
            self._shim.prepare_session()
            self._shim.start_stream(_BUFFER)
        except self._error as error:
            self._release()
            raise SourceError(
                f"the board {name} does not open ({first_line(error)}); switch it on, and check its port or address"
            ) from None

    def pump(self) -> bool:
        time.sleep(0.02)
        try:
            data = self._shim.get_board_data(preset=self._preset)
        except self._error as error:
            raise DeviceLost(f"the board has failed ({first_line(error)})") from None
        if not data.size:
            return False
        self._deliver(data[self._stamps], data[self._row], self.rate)
        return True

    def close(self) -> None:
        self._release()

    def _release(self) -> None:
        for step in (self._shim.stop_stream, self._shim.release_session):
            try:
                step()
            except self._error:
                continue  # it was not open


def _board_id(shim: Any, name: str) -> int:
    """The number of a board by its name, with or without `_BOARD`."""
    names = {board.name.lower(): int(board.value) for board in shim.BoardIds}
    for wanted in (name.lower(), f"{name.lower()}_board"):
        if wanted in names:
            return names[wanted]
    known = ", ".join(sorted(n.removesuffix("_board") for n in names if _has_eda(shim, names[n])))
    raise SourceError(f"BrainFlow has no board '{name}'; those with EDA are {known}")


def _has_eda(shim: Any, board: int) -> bool:
    try:
        _preset(shim, board, "")
    except SourceError:
        return False
    return True


def _preset(shim: Any, board: int, name: str) -> tuple[int, dict[str, Any]]:
    """The first of a board's streams that has EDA, and its description. Raises SourceError where none has."""
    for preset in shim.BrainFlowPresets:
        try:
            about: dict[str, Any] = shim.BoardShim.get_board_descr(board, preset.value)
        except shim.BrainFlowError:
            continue
        if about.get("eda_channels"):
            return int(preset.value), about
    raise SourceError(f"the board {name} has no EDA channel; choose another, or convert one of its channels elsewhere")
