"""The microphone: PortAudio's callback into a queue, 44.1 kHz mono out.

The callback only copies and stamps. A separate thread takes the blocks, fits the device's sample counter to the host's
clock, resamples where the device cannot run at 44.1 kHz, and restarts PortAudio when the device is gone: PortAudio has
no hot plug, and the only sign of a dead device is that the callback is no longer called.

The clock is fitted to the arrival of the blocks, not to PortAudio's `inputBufferAdcTime`: through PulseAudio that was
seen to step by 0.25 s one second after the start while the samples continued without a gap. The constant part of the
latency, which arrival times cannot show, is reported as `driver_latency`; `--audio-delay` subtracts a known one.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from typing import Any

import numpy as np

from ..errors import SourceError
from ..faults import one_item
from ..media.chunk import Chunk
from ..media.sound import F32, Antiphase, down_mix
from ..preprocessing.resample import StreamResampler
from ..tasks import AUDIO_RATE
from .base import Status
from .clock import ClockFit
from .queue import SampleQueue
from .reconnect import DeviceLost, Link, Supervisor
from .spec import number, split_query

RING_SECONDS = 20.0
_INVALID_RATE, _INVALID_CHANNELS = -9997, -9998  # PortAudio's error codes
_PORTAUDIO = threading.Lock()  # initialisation is global to the process


def import_sounddevice() -> Any:
    """The module sounddevice. Raises SourceError where PortAudio's library is missing."""
    try:
        import sounddevice
    except OSError:
        raise SourceError(
            "the PortAudio library is not installed, so no microphone can be read; run `apt install libportaudio2`"
        ) from None
    return sounddevice


def restart_portaudio() -> None:
    """Make PortAudio look for devices again."""
    sd = import_sounddevice()
    with _PORTAUDIO:
        sd._terminate()
        sd._initialize()


def find_microphone(spec: str) -> dict[str, Any]:
    """PortAudio's description of the input device given by its index, a part of its name, or `default`.

    Raises SourceError, listing the devices, where there is no such device.
    """
    sd = import_sounddevice()
    devices = [d for d in sd.query_devices() if d["max_input_channels"] > 0]
    names = ", ".join(f"{d['index']} {d['name']}" for d in devices) or "none"
    if spec == "default":
        default = sd.default.device[0]
        found = [d for d in devices if d["index"] == default] or [d for d in devices if d["name"] == "default"]
        found = found or devices[:1]
    elif spec.isdecimal() and len(spec) < 10:
        found = [d for d in devices if d["index"] == int(spec)]
    else:
        exact = [d for d in devices if d["name"].lower() == spec.lower()]
        found = exact or [d for d in devices if spec.lower() in d["name"].lower()]
    if not found:
        raise SourceError(f"there is no microphone '{spec}' (found: {names}); plug it in or name another")
    return dict(found[0])


class _Stream:
    """An open PortAudio stream; each `pump` delivers the blocks that arrived since the last."""

    def __init__(self, microphone: Microphone, device: dict[str, Any], rate: float) -> None:
        sd = import_sounddevice()
        self.symptom = "the microphone's callback is silent"
        self.latency = 0.0  # s, age of a block's first sample as the driver reports it
        self._deliver = microphone._deliver
        self._blocks: deque[tuple[float, F32, bool]] = deque(maxlen=2000)
        self._arrived = threading.Event()
        channels = microphone.channels or min(2, int(device["max_input_channels"]))
        self.antiphase = Antiphase()
        self._rate = rate
        try:
            self._stream = sd.InputStream(
                device=device["index"], channels=channels, samplerate=rate, dtype="float32", callback=self._callback
            )
            self._stream.start()
        except sd.PortAudioError as error:
            raise SourceError(_refusal(error, device, rate, channels)) from None

    def _callback(self, indata: F32, frames: int, info: Any, flags: Any) -> None:
        now = time.monotonic()
        with one_item("microphone's callback"):  # an exception would make PortAudio end the stream
            self.latency = info.currentTime - info.inputBufferAdcTime
            mono = down_mix(indata).copy()  # PortAudio reuses `indata`
            self.antiphase.add(indata, self._rate)
            self._blocks.append((now, mono, bool(flags.input_overflow)))
            self._arrived.set()

    def pump(self) -> bool:
        self._arrived.wait(0.1)
        self._arrived.clear()
        any_came = False
        while self._blocks:
            self._deliver(*self._blocks.popleft())
            any_came = True
        if not any_came and not self._stream.active:
            raise DeviceLost("the microphone was stopped by its driver")
        return any_came

    def close(self) -> None:
        # a vanished device makes PortAudio complain about every further call
        self._stream.abort(ignore_errors=True)
        self._stream.close(ignore_errors=True)


def _refusal(error: Exception, device: dict[str, Any], rate: float, channels: int) -> str:
    """Why PortAudio did not open the device, with what the user can do about it."""
    reason = str(error.args[0] if error.args else error)
    code = error.args[1] if len(error.args) > 1 else None
    name = f"microphone '{device['name']}'"
    if code == _INVALID_RATE:
        own = device["default_samplerate"]
        return f"{name} refuses a rate of {rate:g} Hz ({reason}); its own is {own:g} Hz: give ?rate={own:g}"
    if code == _INVALID_CHANNELS:
        return f"{name} refuses {channels} channels ({reason}); give ?channels={3 - channels}"
    return f"{name} does not start ({reason}); close the program that uses it, or choose another device"


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
        self._stream: _Stream | None = None
        self._detail: dict[str, Any] = {}

    def open(self, origin: float) -> None:
        self._origin = origin
        self._supervisor.start(self._connect())

    def _connect(self) -> _Stream:
        if self._stream is not None:
            restart_portaudio()
        device = find_microphone(self._which)
        self._rate = self._forced or self._usable_rate(device)
        self._resample = StreamResampler(self._rate)
        self._fit = ClockFit()
        self._in = self._out = 0  # samples from the device, samples at 44.1 kHz
        self._last = -np.inf
        self._stream = stream = _Stream(self, device, self._rate)
        self._detail = {"device": device["name"], "index": device["index"], "device_rate": self._rate}
        return stream

    @staticmethod
    def _usable_rate(device: dict[str, Any]) -> float:
        sd = import_sounddevice()
        try:
            sd.check_input_settings(device=device["index"], channels=1, samplerate=AUDIO_RATE, dtype="float32")
        except (sd.PortAudioError, ValueError):
            return float(device["default_samplerate"])
        return float(AUDIO_RATE)

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
        if not self._supervisor.stop():
            # sounddevice terminates PortAudio when the process ends, which would wait for the hanging driver for ever
            atexit.unregister(import_sounddevice()._exit_handler)
