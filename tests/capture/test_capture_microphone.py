"""The microphone through a real-time PulseAudio null sink: rate, content, clock, the server dying and coming back."""

from __future__ import annotations

import ctypes.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.io import wavfile

from jmt_edge import doctor
from jmt_edge.capture import microphone, portaudio
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
        # without norewinds its first block takes up to 2 s, which no microphone does
        sink = f"module-null-sink sink_name=mic rate={rate} channels=1 norewinds=1"
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


# ---- a sound server, or the process, that does not answer


@pytest.fixture
def heard(server: SoundServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[microphone.Microphone]:
    """The default microphone of `server`, open and streaming."""
    for name in ("HOME", "XDG_RUNTIME_DIR", "PULSE_SERVER"):
        monkeypatch.setenv(name, server.env[name])
    source = microphone.Microphone("default")
    try:
        source.open(time.monotonic())
        back(source)
        yield source
    finally:
        source.close()


def back(source: microphone.Microphone, seconds: float = 10.0) -> float:
    """Waits until sound comes; s."""
    began = time.monotonic()
    while source.status().state is not State.STREAMING:
        assert time.monotonic() - began < seconds, source.status()
        time.sleep(0.01)
    return time.monotonic() - began


def gone(source: microphone.Microphone) -> None:
    """Waits until the state says that no sound comes."""
    until = time.monotonic() + 5
    while source.status().state is State.STREAMING:
        assert time.monotonic() < until
        time.sleep(0.01)


def pid_of(source: microphone.Microphone) -> int:
    assert source._stream is not None
    return source._stream._process._child.pid


def children(pid: int) -> list[int]:
    try:
        return [int(n) for task in Path(f"/proc/{pid}/task").iterdir() for n in (task / "children").read_text().split()]
    except OSError:
        return []


class Mute:
    """Takes the place of the sound server: its socket takes connections, and nothing answers."""

    def __init__(self, server: SoundServer) -> None:
        self._path = server.home / "pulse/native"
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self._path))
        self._socket.listen(64)

    def close(self) -> None:
        self._path.unlink()
        self._socket.close()


RECOVERY = 2.0  # s from the end of a fault


def test_a_server_that_takes_connections_and_never_answers_delays_nothing(
    server: SoundServer, heard: microphone.Microphone
) -> None:
    """PulseAudio's client waits 30 s for the answer, in a call of PortAudio that cannot be cut off."""
    server.stop()
    mute = Mute(server)
    gone(heard)
    time.sleep(4.0)
    assert heard.status().state is not State.STREAMING
    mute.close()
    server.start()
    assert back(heard) < RECOVERY
    assert heard.status().reconnects == 1 and len(children(os.getpid())) == 2  # the server, and one process


def test_a_microphone_whose_server_never_answers_closes_at_once(
    server: SoundServer, heard: microphone.Microphone
) -> None:
    server.stop()
    mute = Mute(server)
    gone(heard)
    time.sleep(1.5)
    began = time.monotonic()
    heard.close()
    assert time.monotonic() - began < 3.0 and not heard._supervisor._thread.is_alive()
    assert not children(os.getpid())
    mute.close()


def test_a_server_that_dies_ten_times_is_found_ten_times(server: SoundServer, heard: microphone.Microphone) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    took = []
    for number in range(10):
        server.stop()
        gone(heard)
        time.sleep(0.17 * number)
        server.start()
        took.append(back(heard))
    assert max(took) < RECOVERY, took
    assert heard.status().reconnects == 10
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert len(children(os.getpid())) == 2  # no zombie, nothing that was left to hang


def test_a_stopped_server_that_continues_is_heard_again(server: SoundServer, heard: microphone.Microphone) -> None:
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    gone(heard)
    time.sleep(4.0)
    server.process.send_signal(signal.SIGCONT)
    assert back(heard) < RECOVERY


def test_a_process_that_dies_is_replaced(heard: microphone.Microphone) -> None:
    os.kill(pid_of(heard), signal.SIGKILL)
    gone(heard)
    assert "ended with code -9" in heard.status().reason
    assert back(heard) < RECOVERY
    assert len(children(os.getpid())) == 2


def test_a_process_that_hangs_shows_as_a_stall_and_is_replaced(heard: microphone.Microphone) -> None:
    hanging = pid_of(heard)
    os.kill(hanging, signal.SIGSTOP)
    gone(heard)
    assert heard.status().state is State.STALLED
    assert back(heard) < 2.5 + RECOVERY  # it counts as lost after 2.5 s
    assert pid_of(heard) != hanging and not Path(f"/proc/{hanging}").exists()


def test_the_terminal_s_signals_do_not_reach_the_process(heard: microphone.Microphone) -> None:
    assert os.getsid(pid_of(heard)) == pid_of(heard) != os.getsid(0)


@pytest.mark.parametrize("state", ["streaming", "stopped", "hanging"])
def test_the_process_does_not_outlive_a_program_that_is_killed(server: SoundServer, state: str) -> None:
    mute = None
    if state == "hanging":
        server.stop()
        mute = Mute(server)
    process = listen(server, "default", 30.0)
    assert process.stdout is not None
    if state == "hanging":
        while not children(process.pid):
            time.sleep(0.01)
        time.sleep(1.0)
    else:
        for line in process.stdout:
            if json.loads(line)[1] == "streaming":
                break
    (child,) = children(process.pid)
    if state == "stopped":
        os.kill(child, signal.SIGSTOP)
    process.kill()
    process.wait()
    until = time.monotonic() + 5
    while (stat := Path(f"/proc/{child}/stat")).exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < until, stat.read_text()
        time.sleep(0.01)
    if mute is not None:
        mute.close()


# ---- what the process answers


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Another `sounddevice` for the process."""
    (folder / "sounddevice.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(str(folder))


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("raise OSError('PortAudio library not found')", "the PortAudio library is not .* `apt install libportaudio2`"),
        ("raise RuntimeError('no host API')", r"does not work \(no host API\); restart the sound server"),
        ("import os; os._exit(7)", "ended with code 7; try again"),
        ("import os; os.kill(os.getpid(), 11)", "ended with code -11; try again"),
        ("import time; time.sleep(60)", "the sound server did not answer for 1 s; restart it"),
    ],
)
def test_portaudio_that_does_not_work_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, sentence: str
) -> None:
    install(tmp_path, monkeypatch, code)
    monkeypatch.setattr(microphone, "PATIENCE", 1.0)
    with pytest.raises(SourceError, match=sentence):
        microphone.list_microphones()
    with pytest.raises(SourceError, match=sentence):
        microphone.Microphone("default").open(0.0)
    rows = list(doctor._microphones(Path("/"), True))
    assert [row[:2] for row in rows] == [("PortAudio", doctor.WARNING)]
    assert re.search(sentence, f"{rows[0][2]}; {rows[0][3]}")
    assert not children(os.getpid())


def test_a_machine_without_room_for_a_process_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(SourceError, match=r"does not start \(Resource temporarily unavailable\)"):
        microphone.Microphone("default").open(0.0)


SPEAKING = """
    import threading, time
    from types import SimpleNamespace as Thing

    class PortAudioError(Exception): pass

    default = Thing(device=(0, 0))
    def query_devices():
        return [{"index": 0, "name": "fake", "max_input_channels": 2, "default_samplerate": 44100.0}]
    def get_portaudio_version():
        return 0, "fake"
    def check_input_settings(**_): pass

    class RawInputStream:
        active = True
        def __init__(self, callback, channels, **_):
            self.callback, self.block = callback, bytes(4 * 441 * channels)
        def start(self):
            threading.Thread(target=self.run, daemon=True).start()
        def run(self):
            print("this goes to standard output", flush=True)
            for number in range(LENGTH):
                flags = Thing(input_overflow=number == 20)
                self.callback(self.block, 441, Thing(currentTime=1.0, inputBufferAdcTime=0.75), flags)
                time.sleep(0.01)
            self.active = False
"""


def test_blocks_overflows_and_latency_come_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "LENGTH = 10**6\n" + textwrap.dedent(SPEAKING))
    assert microphone.list_microphones()[0] == "fake"
    source = microphone.Microphone("default")
    origin = time.monotonic()
    source.open(origin)
    back(source)
    time.sleep(1.0)
    status, chunk = source.status(), source.read(np.inf)
    source.close()
    assert status.detail["device"] == "fake" and status.detail["xruns"] == 1
    assert status.detail["driver_latency"] == 0.25
    assert len(chunk) > 20_000 and np.all(np.diff(chunk.times) > 0)


def test_a_stream_that_its_driver_ends_says_so_and_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "LENGTH = 50\n" + textwrap.dedent(SPEAKING))
    source = microphone.Microphone("default")
    source.open(time.monotonic())
    back(source)
    gone(source)
    assert source.status().reason == "the microphone was stopped by its driver"
    assert back(source) < RECOVERY
    source.close()


@pytest.mark.parametrize("looks", [3, 50])
def test_an_absent_device_is_looked_for_by_one_process_and_found(
    looks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To start a process for each attempt took 7 % of a core; each looks a limited number of times."""
    there = tmp_path / "plugged"
    there.touch()
    gone = f"    if not os.path.exists({str(there)!r}): return []\n"
    code = textwrap.dedent(SPEAKING).replace("    return [{", f"{gone}    return [{{")
    code += textwrap.dedent(f"""
        import os
        def _terminate(): pass
        def _initialize(): open({str(tmp_path / "looks")!r}, "a").write("x")
    """)
    install(tmp_path, monkeypatch, "LENGTH = 50\nimport os\n" + code)
    monkeypatch.setattr(microphone, "LOOKS", looks)
    started = []
    real = microphone._Process
    monkeypatch.setattr(microphone, "_Process", lambda **request: started.append(1) or real(**request))
    source = microphone.Microphone("fake")
    source.open(time.monotonic())
    back(source)
    there.unlink()
    until = time.monotonic() + 60
    while (tmp_path / "looks").exists() is False or len((tmp_path / "looks").read_text()) < 6:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert "there is no microphone 'fake'" in source.status().reason
    assert (len(started) <= 3) if looks == 50 else (len(started) >= 4)
    there.touch()
    assert back(source) < RECOVERY
    source.close()
    assert not children(os.getpid())


def test_a_device_that_suddenly_opens_slowly_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = f"""
        import os
        def check_input_settings(**_):
            if os.path.exists({str(tmp_path / "slow")!r}):
                time.sleep(4.0)
    """
    install(tmp_path, monkeypatch, "LENGTH = 10**6\n" + textwrap.dedent(SPEAKING) + textwrap.dedent(slow))
    source = microphone.Microphone("default")
    source.open(time.monotonic())
    back(source)
    assert source._apart * microphone.AT_ONCE < 4.0
    (tmp_path / "slow").touch()
    os.kill(pid_of(source), signal.SIGKILL)
    gone(source)
    assert 4.0 < back(source) < 4.0 + RECOVERY
    assert len(children(os.getpid())) == 1  # the other attempts have ended
    source.close()


def test_blocks_that_wait_too_long_are_a_loss_not_a_pause() -> None:
    class Stream:
        active = True

        def __init__(self, **settings: object) -> None: ...

        def start(self) -> None: ...

    sd = type("sd", (), {"RawInputStream": Stream, "PortAudioError": OSError})
    listener = portaudio.Listener(sd, DEVICE, 44_100, 1)
    info, flags = SimpleNamespace(currentTime=0.0, inputBufferAdcTime=0.0), SimpleNamespace(input_overflow=False)
    for _ in range(portaudio.WAITING + 5):
        listener._callback(b"1234", 1, info, flags)
    listener.blocks.popleft()
    listener._callback(b"5678", 1, info, flags)
    lost = [portaudio.STAMP.unpack(stamp)[2] for stamp, _ in listener.blocks]
    assert len(lost) == portaudio.WAITING and lost[-1] and not any(lost[:-1])


class Refusing:
    """PortAudio as far as opening goes, of a device that refuses."""

    def __init__(self, code: int, text: str) -> None:
        self._error = (f"Error opening RawInputStream: {text}", code)

    class PortAudioError(Exception):
        pass

    def RawInputStream(self, **settings: object) -> None:
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
def test_a_device_that_refuses_says_what(code: int, text: str, sentence: str) -> None:
    """Uberi/speech_recognition#94, spatialaudio/python-sounddevice#244."""
    with pytest.raises(portaudio.Refusal, match=sentence):
        portaudio.Listener(Refusing(code, text), DEVICE, 44_100, 2)


def test_channels_of_a_device_that_cancel_each_other_show_in_its_status() -> None:
    source = microphone.Microphone("0")
    source._rate, source._resample, source._fit = 44_100, microphone.StreamResampler(44_100), microphone.ClockFit()
    source._in = source._out = 0
    source._last = -np.inf
    source._link.data()
    source._stream = stream = microphone._Stream(source, None, {"rate": 44_100, "channels": 2})  # type: ignore[arg-type]
    left = 0.1 * np.random.default_rng(0).standard_normal(44_100).astype(np.float32)
    assert stream.antiphase.found is None
    for right, reason in ((-left, "antiphase"), (left, "")):
        for second in range(2):
            stream.take(portaudio.STAMP.pack(float(second), 0.1, False) + np.stack([left, right], 1).tobytes())
        assert bool(stream.antiphase.found) == bool(reason)
        assert reason in source.status().reason
    with pytest.raises(SourceError, match="channels is '3'"):
        microphone.Microphone("0?channels=3")


@pytest.mark.parametrize(("asked", "opened"), [(0, 2), (1, 1)])
def test_a_device_is_opened_with_the_channels_that_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int, opened: int
) -> None:
    install(tmp_path, monkeypatch, "LENGTH = 10**6\n" + textwrap.dedent(SPEAKING))
    source = microphone.Microphone(f"0?channels={asked}" if asked else "0")
    source.open(time.monotonic())
    assert source._stream is not None and source._stream._channels == opened
    back(source)
    source.close()
