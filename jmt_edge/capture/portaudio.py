"""PortAudio in a process of its own. `microphone.py` runs this file, which needs nothing else of the package.

PortAudio's calls cannot be cut off. While a sound server takes connections but does not answer, each call waits for a
time-out of its client: `Pa_Initialize` 30 s, the end of a stream 60 s, and every other stream of the process with it. A
process can be ended at any time, whatever its driver does.

The request, as JSON in the first argument, is `{"list": true}` or `{"which": str, "rate": Hz or null, "channels": 0, 1
or 2}`. The answer on standard output is a sequence of messages: a kind (one byte), a length (u32), and so many bytes of

| kind | |
|---|---|
| `LISTED` | JSON: `version`, `devices` (those with inputs, as PortAudio describes them) |
| `OPENED` | JSON: `device`, `index`, `rate` (Hz), `channels` |
| `REFUSED` | why it cannot be opened, one sentence in UTF-8; nothing follows |
| `ABSENT` | the same, where the next SIGUSR1 makes the process look again, which takes a third of a new one's work |
| `SOUND` | `STAMP`, then float32 samples, the channels interleaved |
| `STOPPED` | the driver has stopped the stream; nothing follows |

The process is killed by the kernel when the other end of its standard input is closed, which nothing is written to:
neither a hanging call nor SIGSTOP lets it outlive the one that reads it.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import struct
import sys
import threading
import time
from collections import deque
from typing import Any, BinaryIO

RATE = 44_100  # Hz, `tasks.AUDIO_RATE`
LISTED, OPENED, REFUSED, ABSENT, SOUND, STOPPED = b"L", b"O", b"R", b"A", b"S", b"X"
AGAIN = signal.SIGUSR1
HEADER = struct.Struct("<cI")
STAMP = struct.Struct("<dd?")  # arrival (s, CLOCK_MONOTONIC), latency (s), whether samples before the block are lost
WAITING = 2000  # blocks that wait for the reader: about 20 s
_INVALID_RATE, _INVALID_CHANNELS = -9997, -9998  # PortAudio's error codes


class Refusal(Exception):
    """Why there is no sound: one sentence for the user."""


def import_sounddevice() -> Any:
    """The module sounddevice. Raises Refusal where PortAudio's library is missing."""
    try:
        import sounddevice
    except OSError:
        raise Refusal(
            "the PortAudio library is not installed, so no microphone can be read; run `apt install libportaudio2`"
        ) from None
    return sounddevice


def inputs(sd: Any) -> list[dict[str, Any]]:
    """PortAudio's descriptions of the devices with inputs."""
    return [dict(d) for d in sd.query_devices() if d["max_input_channels"] > 0]


def find_microphone(sd: Any, which: str) -> dict[str, Any]:
    """The input device given by its index, a part of its name, or `default`.

    Raises Refusal, listing the devices, where there is no such device.
    """
    devices = inputs(sd)
    names = ", ".join(f"{d['index']} {d['name']}" for d in devices) or "none"
    if which == "default":
        default = sd.default.device[0]
        found = [d for d in devices if d["index"] == default] or [d for d in devices if d["name"] == "default"]
        found = found or devices[:1]
    elif which.isdecimal() and len(which) < 10:
        found = [d for d in devices if d["index"] == int(which)]
    else:
        exact = [d for d in devices if d["name"].lower() == which.lower()]
        found = exact or [d for d in devices if which.lower() in d["name"].lower()]
    if not found:
        raise Refusal(f"there is no microphone '{which}' (found: {names}); plug it in or name another")
    return found[0]


def usable_rate(sd: Any, device: dict[str, Any]) -> float:
    """44.1 kHz where the device can, else its own rate."""
    try:
        sd.check_input_settings(device=device["index"], channels=1, samplerate=RATE, dtype="float32")
    except (sd.PortAudioError, ValueError):
        return float(device["default_samplerate"])
    return float(RATE)


class Listener:
    """An open stream; its blocks wait in `blocks` as (stamp, samples). Raises Refusal where it does not open."""

    def __init__(self, sd: Any, device: dict[str, Any], rate: float, channels: int) -> None:
        self.blocks: deque[tuple[bytes, bytes]] = deque()
        self.arrived = threading.Event()
        self._skipped = False
        try:
            self._stream = sd.RawInputStream(
                device=device["index"], channels=channels, samplerate=rate, dtype="float32", callback=self._callback
            )
            self._stream.start()
        except sd.PortAudioError as error:
            raise Refusal(_refusal(error, device, rate, channels)) from None

    @property
    def active(self) -> bool:
        return bool(self._stream.active)

    def _callback(self, indata: Any, frames: int, info: Any, flags: Any) -> None:
        now = time.monotonic()
        if len(self.blocks) >= WAITING:
            self._skipped = True
            return
        lost = bool(flags.input_overflow) or self._skipped
        # PortAudio reuses `indata`
        self.blocks.append((STAMP.pack(now, info.currentTime - info.inputBufferAdcTime, lost), bytes(indata)))
        self._skipped = False
        self.arrived.set()


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


def end_with(fd: int) -> None:
    """Let the kernel kill this process when the other end of the pipe `fd` is closed."""
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_ASYNC)
    if select.select([fd], [], [], 0)[0]:  # it was closed before
        os._exit(1)


def listen(sd: Any, request: dict[str, Any]) -> tuple[Listener, dict[str, Any]]:
    """The open device, and what `OPENED` says of it. Raises Refusal."""
    device = find_microphone(sd, request["which"])
    rate = request["rate"] or usable_rate(sd, device)
    channels = request["channels"] or min(2, int(device["max_input_channels"]))
    opened = {"device": device["name"], "index": device["index"], "rate": rate, "channels": channels}
    return Listener(sd, device, rate, channels), opened


def answer(request: dict[str, Any], out: BinaryIO) -> None:
    """Write the messages that answer `request` to `out`: until the process is killed, where the device opens."""

    def say(kind: bytes, *parts: bytes) -> None:
        out.write(HEADER.pack(kind, sum(map(len, parts))) + b"".join(parts))

    try:
        sd = import_sounddevice()
        if "list" in request:
            say(LISTED, json.dumps({"version": sd.get_portaudio_version()[1], "devices": inputs(sd)}).encode())
            return
        while True:
            try:
                stream, opened = listen(sd, request)
                break
            except Refusal as refusal:
                say(ABSENT, str(refusal).encode())
            signal.sigwait([AGAIN])
            sd._terminate()  # PortAudio has no hot plug: it lists the devices when it begins
            sd._initialize()
    except Refusal as refusal:
        say(REFUSED, str(refusal).encode())
        return
    except Exception as error:  # PortAudioError, of a module that may not import
        why = f"the sound system does not work ({error}); restart the sound server, or log in again"
        say(REFUSED, why.encode("utf-8", "replace"))
        return
    say(OPENED, json.dumps(opened).encode())
    while True:
        stream.arrived.wait(0.1)
        stream.arrived.clear()
        if not stream.blocks and not stream.active:
            say(STOPPED)
            return
        while stream.blocks:
            say(SOUND, *stream.blocks.popleft())


def main() -> None:
    code = 1
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, [AGAIN])  # one that comes early waits
        end_with(0)
        out = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)  # what a driver prints is not a message
        answer(json.loads(sys.argv[1]), out)
        code = 0
    finally:
        os._exit(code)  # sounddevice would end PortAudio, which may wait for a driver that hangs


if __name__ == "__main__":
    main()
