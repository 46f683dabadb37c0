"""Three simulated devices whose every sample is known: a board on a pseudo-terminal, a camera, a microphone."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import threading
import time
import wave
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from chaos_live import HEIGHT, SIZE, WIDTH

from jmt_edge.capture import open_source
from jmt_edge.capture.boards import FIRMWARE, SimulatedBoard
from jmt_edge.capture.boards.signal import Signal

FPS, BITS, CELL = 12.0, 24, 8
RATE = 128.0  # of the board


class Skin:
    """µS at a host time (time.monotonic): the simulated person, known for `seconds`."""

    def __init__(self, seed: int, seconds: float) -> None:
        source = open_source("eda", f"sim:seed={seed}")
        assert source is not None
        source.open(0.0)
        chunk = source.read(seconds)
        self._t, self._v = chunk.times, chunk.values
        self._start = time.monotonic()

    def at(self, host: Any) -> Any:
        return np.interp(np.asarray(host) - self._start, self._t, self._v)


class Board(SimulatedBoard):
    """mode: "", unplug, stall, garbage, saturated, jump. A jump moves the board's clock by an hour, once."""

    modes = ("unplug", "stall", "garbage", "saturated", "jump")

    def __init__(self, skin: Skin, link: Path, seed: int) -> None:
        self.mode, self._offset, self._noise = "", 0.0, np.random.default_rng(seed)
        firmware = FIRMWARE["shimmer3"](rate=RATE)
        own = firmware.sample
        firmware.sample = lambda n, t, us: own(n, t + self._offset, us)  # type: ignore[method-assign]
        super().__init__(firmware, Signal(lambda t: self._skin(skin, t)), seed=seed, link=link)

    def _skin(self, skin: Skin, t: Any) -> Any:
        return np.full(len(t), 1e6) if self.mode == "saturated" else skin.at(self._start + self._began + t)

    def fault(self, mode: str) -> None:
        if mode == "jump":
            self._offset += 3600.0
        self.mode = mode

    def _step(self, now: float) -> None:
        if self.mode == "unplug":
            self.unplug()
            return
        super()._step(now)

    def _write(self, data: bytes) -> None:
        if self.mode == "garbage" and data:
            data = self._noise.bytes(len(data))
        if self.mode != "stall":
            super()._write(data)


def barcode(image: Any, number: int) -> None:
    """`number` in the lowest rows of a picture."""
    for bit in range(BITS):
        image[-CELL:, bit * CELL : (bit + 1) * CELL] = 255 if number >> bit & 1 else 0


def number_of(image: Any) -> int:
    row = image[-CELL:, : BITS * CELL].reshape(CELL, BITS, CELL, 3).mean((0, 2, 3))
    return int(sum(1 << bit for bit in range(BITS) if row[bit] > 127))


class Camera:
    """Numbered pictures of a face. mode: "", unplug, stall, garbage (noise), saturated (white)."""

    modes = ("unplug", "stall", "garbage", "saturated")

    def __init__(self, path: Path, seed: int) -> None:
        source = open_source("face", f"sim:seed={seed}&fps={FPS:g}&size={WIDTH}x{HEIGHT}")
        assert source is not None
        source.open(0.0)
        self._pictures = [np.array(image) for image in source.read(3.0).values]
        self._noise = np.random.default_rng(seed)
        self.path, self.mode = path, ""
        self.sent: list[float] = []  # number -> host time
        self.bad: set[int] = set()  # numbers of pictures without a face
        self._stop = threading.Event()
        self._client: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._listen()
        self._thread = threading.Thread(target=self._run, name="chaos camera", daemon=True)
        self._thread.start()

    def fault(self, mode: str) -> None:
        self.mode = mode

    def _listen(self) -> None:
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(1)
        self._listener.setblocking(False)

    def _close(self) -> None:
        for one in (self._client, self._listener):
            if one is not None:
                one.close()
        self._client = self._listener = None

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            due = max(due + 1 / FPS, time.monotonic() - 1 / FPS)
            self._stop.wait(max(0.0, due - time.monotonic()))
            if self.mode == "unplug":
                self._close()
                self.path.unlink(missing_ok=True)
                continue
            if self._listener is None:
                self._listen()
            with suppress(BlockingIOError):
                client, _ = self._listener.accept()  # type: ignore[union-attr]
                if self._client is not None:
                    self._client.close()
                self._client = client
                client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SIZE)
                client.settimeout(2.0)
            if self._client is not None and self.mode != "stall":
                self._send()

    def _send(self) -> None:
        number = len(self.sent)
        image = self._pictures[number % len(self._pictures)].copy()
        if self.mode == "garbage":
            image[:] = self._noise.integers(0, 256, image.shape, np.uint8)
        elif self.mode == "saturated":
            image[:] = 255
        barcode(image, number)
        if self.mode:
            self.bad.add(number)
        self.sent.append(time.monotonic())
        try:
            assert self._client is not None
            self._client.sendall(struct.pack("<d", self.sent[number]) + image.tobytes())
        except OSError:
            self._client.close()  # type: ignore[union-attr]
            self._client = None

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5.0)
        self._close()


class Microphone:
    """A PulseAudio of its own that plays speech into its null sink. mode: "", unplug (killed), stall (SIGSTOP),
    saturated (the sink at full scale is not possible here, so it is muted: a dead capsule)."""

    modes = ("unplug", "stall", "mute")

    def __init__(self, home: Path, seed: int) -> None:
        from test_capture_microphone import SoundServer

        self.server = SoundServer(home)
        self.mode = ""
        self._wav = home / "speech.wav"
        source = open_source("voice", f"sim:seed={seed}")
        assert source is not None
        source.open(0.0)
        speech = source.read(60.0)
        with wave.open(str(self._wav), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(44_100)
            out.writeframes((np.clip(speech.values, -1, 1) * 32_000).astype("<i2").tobytes() * 60)
        self._player: subprocess.Popen[bytes] | None = None
        self._start()

    @property
    def env(self) -> dict[str, str]:
        return {k: self.server.env[k] for k in ("HOME", "XDG_RUNTIME_DIR", "PULSE_SERVER")}

    def _start(self) -> None:
        self.server.start()
        self._player = subprocess.Popen(
            ["paplay", str(self._wav)], env=self.server.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.server.wait_for_playback()

    def fault(self, mode: str) -> None:
        """Returns when the fault, or its end, has taken effect."""
        before, self.mode = self.mode, mode
        process = self.server.process
        if before == "unplug" and not mode:
            self._start()
        elif before == "stall" and not mode and process is not None:
            os.kill(process.pid, signal.SIGCONT)
        elif before == "mute" and not mode:
            self._mute(False)
        if mode == "unplug":
            self._end()
        elif mode == "stall" and process is not None:
            os.kill(process.pid, signal.SIGSTOP)
        elif mode == "mute":
            self._mute(True)

    def _mute(self, on: bool) -> None:
        subprocess.run(["pactl", "set-sink-mute", "mic", str(int(on))], env=self.server.env, capture_output=True)

    def _end(self) -> None:
        self.server.stop()
        if self._player is not None:
            self._player.kill()
            self._player.wait()
            self._player = None

    def close(self) -> None:
        if self.mode == "stall":
            self.fault("")
        self._end()
