"""The microphone through a real-time PulseAudio null sink: rate, content, clock, the server dying and coming back."""

from __future__ import annotations

import ctypes.util
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from jmt_edge.capture import microphone
from jmt_edge.capture.base import State
from jmt_edge.errors import SourceError


class SoundServer:
    """A PulseAudio of its own, with one null sink whose monitor is the default microphone."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / ".asoundrc").write_text("pcm.!default { type pulse }\nctl.!default { type pulse }\n")
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(home),
            "PULSE_SERVER": f"unix:{home}/pulse/native",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "OMP_NUM_THREADS": "1",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, rate: int = 44_100) -> None:
        socket = f"module-native-protocol-unix auth-anonymous=1 socket={self.home}/pulse/native"
        sink = f"module-null-sink sink_name=mic rate={rate} channels=1"
        (self.home / "pulse").mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "-L", socket,
             "-L", sink],
            env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for _ in range(100):
            if (
                subprocess.run(
                    ["pactl", "set-default-source", "mic.monitor"], env=self.env, capture_output=True
                ).returncode
                == 0
            ):
                return
            time.sleep(0.1)
        raise RuntimeError("PulseAudio did not start")

    def wait_for_playback(self) -> None:
        for _ in range(100):
            if subprocess.run(["pactl", "list", "short", "sink-inputs"], env=self.env, capture_output=True).stdout:
                return
            time.sleep(0.1)
        raise RuntimeError("paplay did not start")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SoundServer]:
    for program in ("pulseaudio", "pactl", "paplay"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}: install pulseaudio and pulseaudio-utils")
    if ctypes.util.find_library("portaudio") is None:
        pytest.skip("no PortAudio: install libportaudio2")
    if not list(Path("/usr/lib").rglob("libasound_module_pcm_pulse.so")):
        pytest.skip("ALSA has no pulse plugin: install libasound2-plugins")
    sound = SoundServer(tmp_path)
    try:
        sound.start()
        yield sound
    finally:
        sound.stop()


LISTEN = textwrap.dedent(
    """
    import json, sys, time
    import numpy as np
    from jmt_edge.capture import open_source
    source = open_source("voice", sys.argv[1])
    origin = time.monotonic()
    source.open(origin)
    times, values, states = [], [], []
    end = float(sys.argv[2])
    while (now := time.monotonic() - origin) < end:
        chunk = source.read(now)
        times.append(chunk.times); values.append(chunk.values)
        status = source.status()
        if not states or states[-1][1] != status.state.value:
            states.append((round(now, 3), status.state.value, status.reason))
            print(json.dumps(states[-1]), flush=True)
        time.sleep(0.05)
    status = source.status()
    source.close()
    np.savez(sys.argv[3], t=np.concatenate(times), x=np.concatenate(values))
    detail = {**status.detail, "reconnects": status.reconnects, "lost": status.lost,
              "jitter": status.clock.jitter}
    print(json.dumps({"detail": detail}), flush=True)
    """
)


def listen(server: SoundServer, spec: str, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", LISTEN, spec, str(seconds), str(server.home / "heard.npz")]
    return subprocess.Popen(command, env=server.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], server: SoundServer) -> tuple[list, dict, np.ndarray, np.ndarray]:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    heard = np.load(server.home / "heard.npz")
    return [line for line in lines if isinstance(line, list)], lines[-1]["detail"], heard["t"], heard["x"]


@pytest.mark.parametrize("spec", ["default", "default?rate=48000"])
def test_a_tone_is_heard_in_real_time(server: SoundServer, spec: str) -> None:
    tone = 0.4 * np.sin(2 * np.pi * 500 * np.arange(40 * 44_100) / 44_100)  # the listener may start late
    wavfile.write(server.home / "tone.wav", 44_100, (tone * 32767).astype(np.int16))
    play = subprocess.Popen(["paplay", str(server.home / "tone.wav")], env=server.env)
    server.wait_for_playback()
    states, detail, t, x = finish(listen(server, spec, 5.0), server)
    play.kill()
    play.wait()
    assert [s[1] for s in states][-1] == State.STREAMING.value
    assert np.all(np.diff(t) > 0) and x.dtype == np.float32
    # sound is timed by its own server: a second of it takes a second
    middle = (t > 2.0) & (t < 4.0)
    assert 44_100 * 2 * 0.985 < middle.sum() < 44_100 * 2 * 1.015
    heard = x[middle]
    peak = np.argmax(np.abs(np.fft.rfft(heard * np.hanning(len(heard))))) / len(heard) * 44_100
    assert abs(peak - 500) < 2
    assert 0.2 < heard.std() * np.sqrt(2) < 0.6
    assert detail["device_rate"] == (48_000 if "48000" in spec else 44_100)
    assert detail["reconnects"] == 0


def test_a_sound_server_that_dies_is_noticed_and_found_again(server: SoundServer) -> None:
    process = listen(server, "default", 12.0)
    assert process.stdout is not None
    for line in process.stdout:
        if State.STREAMING.value in line:
            break
    time.sleep(1.0)
    server.stop()
    died = time.monotonic()
    for line in process.stdout:
        state = json.loads(line)[1]
        if state != State.STREAMING.value:
            break
    assert time.monotonic() - died < 4.0
    time.sleep(1.5)
    server.start()
    _, detail, t, _ = finish(process, server)
    assert detail["reconnects"] == 1
    assert t[-1] > 11.0 and np.diff(t).max() > 1.0 and np.all(np.diff(t) > 0)


@pytest.mark.timeout(120)
def test_a_driver_that_never_answers_does_not_keep_the_process(server: SoundServer) -> None:
    """A stopped sound server: closing the stream blocks in the driver, and so would PortAudio's end at exit."""
    process = listen(server, "default", 8.0)
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)[1] == "streaming":
            break
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        process.communicate(timeout=60)  # 8 s and the wait for the thread; for ever before
    finally:
        server.process.send_signal(signal.SIGCONT)
        process.kill()
    assert process.returncode == 0


def test_a_microphone_that_is_not_there_is_one_sentence(server: SoundServer) -> None:
    process = listen(server, "Nonesuch 3000", 1.0)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "SourceError: there is no microphone 'Nonesuch 3000' (found: " in err


def test_without_portaudio_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)

    class NoLibrary:
        def find_spec(self, name: str, *args: object) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.setattr(sys, "meta_path", [NoLibrary(), *sys.meta_path])
    with pytest.raises(SourceError, match="libportaudio2"):
        microphone.find_microphone("default")


class Refusing:
    """PortAudio as far as opening goes, of a device that refuses."""

    def __init__(self, code: int, text: str) -> None:
        self._error = (f"Error opening InputStream: {text}", code)

    class PortAudioError(Exception):
        pass

    def InputStream(self, **settings: object) -> None:
        raise self.PortAudioError(*self._error)


DEVICE = {"name": "USB mic", "index": 3, "max_input_channels": 2, "default_samplerate": 48_000.0}


@pytest.mark.parametrize(
    ("code", "text", "sentence"),
    [
        (-9997, "Invalid sample rate", r"refuses a rate of 44100 Hz .*its own is 48000 Hz: give \?rate=48000"),
        (-9998, "Invalid number of channels", r"refuses 2 channels .*give \?channels=1"),
        (-9985, "Device unavailable", "close the program that uses it"),
    ],
)
def test_a_device_that_refuses_says_what(monkeypatch: pytest.MonkeyPatch, code: int, text: str, sentence: str) -> None:
    """Uberi/speech_recognition#94, spatialaudio/python-sounddevice#244."""
    monkeypatch.setattr(microphone, "import_sounddevice", lambda: Refusing(code, text))
    with pytest.raises(SourceError, match=sentence):
        microphone._Stream(microphone.Microphone("0"), DEVICE, 44_100)


def test_channels_of_a_device_that_cancel_each_other_show_in_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = {}

    class Stream:
        active = True

        def __init__(self, **settings: object) -> None:
            opened.update(settings)

        def start(self) -> None: ...

    class Info:
        currentTime = inputBufferAdcTime = 0.0

    class Flags:
        input_overflow = False

    monkeypatch.setattr(
        microphone, "import_sounddevice", lambda: type("sd", (), {"InputStream": Stream, "PortAudioError": OSError})
    )
    source = microphone.Microphone("0")
    source._link.data()
    source._stream = stream = microphone._Stream(source, DEVICE, 44_100)
    left = 0.1 * np.random.default_rng(0).standard_normal(44_100).astype(np.float32)
    assert opened["channels"] == 2 and source._stream.antiphase.found is None
    for right, reason in ((-left, "antiphase"), (left, "")):
        for _ in range(2):
            stream._callback(np.stack([left, right], 1), len(left), Info(), Flags())
        assert bool(stream.antiphase.found) == bool(reason)
        assert reason in stream_reason(source)
    alone = microphone.Microphone("0?channels=1")
    microphone._Stream(alone, DEVICE, 44_100)
    assert opened["channels"] == 1
    with pytest.raises(SourceError, match="channels is '3'"):
        microphone.Microphone("0?channels=3")


def stream_reason(source: microphone.Microphone) -> str:
    source._fit = microphone.ClockFit()
    return source.status().reason
