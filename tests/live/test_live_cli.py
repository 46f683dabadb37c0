"""`jmt-edge live` as a user runs it."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from live_fixture import invoke, jmt_edge, json_lines

from jmt_edge.engine.bundle import Bundle

Bundles = Callable[[str], Bundle]
Capture = pytest.CaptureFixture[str]
KEYS = ["t", "task", "outputs", "reason", "quality", "attention", "latency_ms", "dropped", "bundle", "demo",
        "uncertainty", "without", "rest", "actions", "used"]  # fmt: skip
UNKNOWN = ("novelty not checked", "uncertainty not known")  # what a bundle made by hand does not say


def check(line: dict, bundle: Bundle) -> None:
    """A line as the issue words it."""
    task = bundle.task
    assert list(line) == KEYS and line["task"] == task.name and line["bundle"] == bundle.id
    assert list(line["quality"]) == list(line["attention"]) == list(task.names)
    for name, quality in line["quality"].items():
        assert set(quality) - {"lost", "altered", "track", "turn"} == {"ok", "reason", "novelty"} and isinstance(
            quality["ok"], bool
        )
        assert bool(quality["reason"]) != quality["ok"]
        assert (line["attention"][name] is not None) == (quality["ok"] and line["outputs"] is not None)
    assert set(line["latency_ms"]) == {"preprocess", "backbones", "fusion", "networks", "total"}
    if line["outputs"] is None:
        assert line["reason"]
        return
    assert set(line["outputs"]) == set(task.outputs)
    for name, value in line["outputs"].items():
        assert math.isfinite(value) and (0 if name == "pain" else -1) <= value <= 1
    assert sum(w for w in line["attention"].values() if w) == pytest.approx(1, abs=1e-5)
    assert all(ms > 0 for ms in line["latency_ms"].values())


@pytest.mark.parametrize("name", ["pain", "affect", "trimodal"])
def test_simulated_sources_by_default(name: str, bundles: Bundles, capfd: Capture) -> None:
    bundle = bundles(name)
    done = invoke(capfd, "live", "--bundle", str(bundle.path), "--speed", "max", "--duration", "7", "--output", "jsonl")
    assert done.returncode == 0, done.stderr
    lines = json_lines(done.stdout)
    assert [line["t"] for line in lines] == [0.5 * i for i in range(1, 15)]
    for line in lines:
        check(line, bundle)
    assert lines[-1]["outputs"] is not None and lines[-1]["quality"]["face"]["ok"]
    for piece in ("14 results", "0 windows dropped", "p50", "p95", "p99", "x real time", "peak memory", "demo weights"):
        assert piece in done.stderr


@pytest.mark.parametrize("name", ["pain", "affect", "trimodal"])
def test_real_recordings(name: str, bundles: Bundles, shared_data: Path, capfd: Capture) -> None:
    bundle = bundles(name)
    for video in sorted((shared_data / "av" / "grid").glob("*.mpg"))[: 5 if name == "affect" else 1]:
        args = ["--camera", str(video)]
        if "voice" in bundle.task.names:
            args += ["--microphone", str(video)]
        if "eda" in bundle.task.names:
            args += ["--eda", str(shared_data / "eda" / "bitalino_eda_hot_surface.txt"), "--duration", "6"]
        done = invoke(capfd, "live", "--bundle", str(bundle.path), "--speed", "max", "--output", "jsonl", *args)
        assert done.returncode == 0, done.stderr
        lines = json_lines(done.stdout)
        assert [line["t"] for line in lines] == [0.5 * i for i in range(1, len(lines) + 1)]
        assert len(lines) == (6 if name == "affect" else 12)
        for line in lines:
            check(line, bundle)
        assert any(line["quality"]["face"]["ok"] for line in lines)
        if name == "affect":
            assert any(line["quality"]["voice"]["ok"] for line in lines)
        else:
            assert lines[-1]["quality"]["eda"]["ok"] and not lines[-1]["quality"]["face"]["ok"]
            assert "end" in lines[-1]["quality"]["face"]["reason"]


def test_a_video_whose_face_goes_away(bundles: Bundles, tmp_path: Path, shared_data: Path, capfd: Capture) -> None:
    cv2 = pytest.importorskip("cv2")
    video = cv2.VideoCapture(str(next((shared_data / "av" / "grid").glob("*.mpg"))))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1])
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (width, height))
    wall = cv2.GaussianBlur(frames[0], (0, 0), 60)
    for frame in [*frames, *[wall] * 75]:
        writer.write(frame)
    writer.release()
    done = invoke(capfd, "live", "--bundle", str(bundles("affect").path), "--camera", str(tmp_path / "v.avi"),
                    "--speed", "max", "--output", "jsonl")  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = json_lines(done.stdout)
    assert all(line["quality"]["face"]["ok"] for line in lines if 1.0 <= line["t"] <= 3.0)
    gone = [line for line in lines if line["t"] >= 4.5]
    assert gone and all(not line["quality"]["face"]["ok"] and line["outputs"] is None for line in gone)
    assert "no face" in gone[0]["quality"]["face"]["reason"]


@pytest.mark.parametrize(("seconds", "says"), [(3.0, "the first window takes 5.5 s"), (8.0, "")])
def test_a_recording_shorter_than_a_window_is_named(
    seconds: float, says: str, bundles: Bundles, tmp_path: Path, capfd: Capture
) -> None:
    """A window is never filled up or stretched: no number, and the reason."""
    t = np.arange(0, seconds, 0.01)
    rows = "\n".join(f"{a:.3f},{5 + 0.1 * math.sin(3 * a) + 0.001 * (i % 7):.4f}" for i, a in enumerate(t))
    (tmp_path / "short.csv").write_text(f"time_s,eda_uS\n{rows}\n")
    done = invoke(capfd, "live", "--bundle", str(bundles("pain").path), "--eda", str(tmp_path / "short.csv"),
                  "--speed", "max", "--output", "jsonl", "--novelty", "off")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert any(line["outputs"] for line in json_lines(done.stdout)) == (not says)
    assert (f"{says}; give a longer recording" in done.stderr) == bool(says)
    assert ("no result" in done.stderr) == bool(says)


@pytest.fixture
def wrong(tmp_path: Path, bundles: Bundles) -> Path:
    """A folder of everything that can be wrong with an input."""
    (tmp_path / "empty.mp4").write_bytes(b"\x00\x00\x00\x08ftyp")
    (tmp_path / "text.csv").write_text("once upon a time\nthere was a sensor\n")
    with wave.open(str(tmp_path / "empty.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(44100)
    shutil.copytree(bundles("pain").path, tmp_path / "altered.jmt")
    network = tmp_path / "altered.jmt" / "face.onnx"
    raw = bytearray(network.read_bytes())
    raw[len(raw) // 2] ^= 1
    network.write_bytes(bytes(raw))
    (tmp_path / "folder.jmt").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("task", "args", "names"),
    [
        ("pain", ["--camera", "{dir}/gone.mp4"], "gone.mp4"),
        ("pain", ["--camera", "{dir}/empty.mp4"], "empty.mp4"),
        ("affect", ["--microphone", "{dir}/empty.wav"], "empty.wav"),
        ("pain", ["--eda", "{dir}/text.csv"], "text.csv"),
        ("pain", ["--eda", "/dev/ttyUSB77"], "/dev/ttyUSB77"),
        ("pain", ["--eda", "sim:colour=red"], "colour"),
        ("pain", ["--microphone", "sim:"], "no voice"),
        ("pain", ["--camera", "none", "--eda", "none"], "none"),
        ("pain", ["--bundle", "{dir}/altered.jmt"], "altered"),
        ("pain", ["--bundle", "{dir}/folder.jmt"], "manifest.json"),
        ("pain", ["--bundle", "{dir}/nowhere.jmt"], "nowhere.jmt"),
        ("pain", ["--task", "joy"], "joy"),
        ("pain", ["--task", "affect"], "'pain'"),
        ("pain", ["--hop", "0"], "hop"),
        ("pain", ["--duration", "-3"], "duration"),
        ("pain", ["--backend", "abacus"], "abacus"),
        ("pain", ["--record-raw", "face"], "--record"),
        ("pain", ["--speed", "fast"], "fast"),
        ("pain", ["--session", "--page", "127.0.0.1:0"], "--session is for a person who is there"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    task: str, args: list[str], names: str, wrong: Path, bundles: Bundles, capfd: Capture
) -> None:
    args = [a.format(dir=wrong) for a in args]
    if "--bundle" not in args:
        args += ["--bundle", str(bundles(task).path)]
    done = invoke(capfd, "live", "--speed", "max", "--duration", "3", "--output", "jsonl", *args)
    said = [line for line in done.stderr.splitlines() if not line.startswith(("Usage:", "Try "))]
    said = [line for line in said if line and not line.startswith((bundles(task).id, *UNKNOWN))]
    assert done.returncode == 2, done.stderr
    assert len(said) == 1 and names in said[0], done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_a_port_in_use_is_one_sentence(bundles: Bundles) -> None:
    serial = pytest.importorskip("serial")
    master, slave = os.openpty()
    with serial.Serial(os.ttyname(slave), exclusive=True):
        done = jmt_edge("live", "--bundle", str(bundles("pain").path), "--output", "jsonl", "--duration", "3",
                        "--eda", f"csv:{os.ttyname(slave)}")  # fmt: skip
    os.close(master)
    os.close(slave)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1].startswith("jmt-edge: ")


def start(*args: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "jmt_edge", "live", *args],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,  # type: ignore[call-overload]
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_run_cleanly_with_its_summary(number: signal.Signals, bundles: Bundles) -> None:
    process = start(
        "--bundle", str(bundles("pain").path), "--eda", "sim:", "--output", "jsonl", "--hop", "0.2",
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # the tests themselves may run under nohup
    )  # fmt: skip
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    for line in (first + out).splitlines():
        json.loads(line)
    assert "p95" in err and "peak memory" in err and "Traceback" not in err


def test_nohup_keeps_a_run_when_the_terminal_closes(bundles: Bundles) -> None:
    process = start(
        "--bundle", str(bundles("pain").path), "--eda", "sim:", "--output", "jsonl", "--hop", "0.2",
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    assert [json.loads(process.stdout.readline())["t"] for _ in range(3)]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_reader_that_goes_away_ends_the_run(bundles: Bundles) -> None:
    process = start("--bundle", str(bundles("pain").path), "--eda", "sim:", "--output", "jsonl", "--hop", "0.1")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=30) == 0
    err = process.stderr.read()
    process.stderr.close()
    assert "peak memory" in err and "Traceback" not in err and "BrokenPipe" not in err


def test_output_that_cannot_be_written_is_one_sentence_with_a_summary_and_a_closed_recording(
    bundles: Bundles, tmp_path: Path
) -> None:
    args = ["--bundle", str(bundles("pain").path), "--eda", "sim:", "--output", "jsonl", "--duration", "60"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "jmt_edge", "live", *args, "--record", str(tmp_path / "r")],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("jmt-edge: cannot write results to standard output (No space left")
    assert "peak memory" in done.stderr and "Traceback" not in done.stderr
    assert json.loads((tmp_path / "r" / "manifest.json").read_text())["closed"]


def test_marks_come_in_as_lines_and_nonsense_is_answered(bundles: Bundles, tmp_path: Path) -> None:
    """What is not UTF-8, and a number of 5000 digits, cost a mark and nothing else."""
    process = start(
        "--bundle", str(bundles("pain").path), "--eda", "sim:", "--output", "jsonl", "--hop", "0.2", "--mark",
        "--record", str(tmp_path / "r"), stdin=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stdin is not None
    process.stdout.readline()
    process.stdin.buffer.write(b"mark cuff\xff inflated\n" + b"7" * 5000 + b"\n7\nrate 3\nhello\n12\n")
    process.stdin.buffer.flush()
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "'hello' is not a mark" in err and "'12' is not a mark" in err and "cuff" not in err
    assert "'777" in err and "Traceback" not in err
    marks = [json.loads(line) for line in (tmp_path / "r" / "events.jsonl").read_text().splitlines()]
    assert [(m["text"], m["rating"]) for m in marks] == [("cuff\ufffd inflated", None), ("", 7), ("", 3)]


def test_importing_live_loads_no_torch() -> None:
    modules = "jmt_edge.live, jmt_edge.live.tui, jmt_edge.cli.live, jmt_edge.engine.backends.onnxruntime"
    code = f"import sys, {modules}; print([m for m in sys.modules if 'torch' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_running_live_loads_no_torch(bundles: Bundles) -> None:
    code = (
        "import sys; from jmt_edge.cli import cli\n"
        f"cli(['live', '--bundle', {str(bundles('trimodal').path)!r}, '--speed', 'max', '--duration', '2',"
        " '--output', 'none'], standalone_mode=False)\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'triton', 'lightning', 'onnx', 'librosa')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_memory_stays_flat(bundles: Bundles) -> None:
    """Ten times the signal, the same memory: rings, caches and queues are bounded."""

    def peak(seconds: int) -> float:
        code = (
            "from jmt_edge.cli import cli; from jmt_edge.summary import peak_memory_mb\n"
            f"cli(['live', '--bundle', {str(bundles('pain').path)!r}, '--camera', 'sim:fps=5&size=160x120',"
            f" '--eda', 'sim:', '--speed', 'max', '--duration', '{seconds}', '--output', 'none'],"
            " standalone_mode=False)\n"
            "print(peak_memory_mb())"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return float(done.stdout)

    short, long = peak(10), peak(100)
    assert long < short + 25 and long < 450


def test_help_is_fast_and_says_what_this_is() -> None:
    done = jmt_edge("live", "--help")
    assert done.returncode == 0 and "not for clinical use" in done.stdout
    flags = "task bundle camera microphone eda hop duration speed output smooth backend threads record record-raw mark"
    for option in (*flags.split(), "eda-delay", "audio-delay", "page"):
        assert f"--{option} " in done.stdout


def test_samples_are_the_same_numbers_again(bundles: Bundles, capfd: Capture) -> None:
    """Same input, same bits."""
    runs = []
    for _ in range(2):
        done = invoke(capfd, "live", "--bundle", str(bundles("trimodal").path), "--speed", "max", "--duration", "4",
                        "--output", "jsonl")  # fmt: skip
        lines = json_lines(done.stdout)
        runs.append([{k: v for k, v in line.items() if k != "latency_ms"} for line in lines])
    assert runs[0] == runs[1] and np.isfinite([line["t"] for line in runs[0]]).all()


def test_a_simulated_sensor_that_drops_out_does_not_hold_up_a_fast_run(capfd: Capture) -> None:
    """Only a file whose disk does not answer is waited for."""
    done = invoke(
        capfd,
        "live",
        "--eda",
        "sim:seed=1&drop_at=7&drop_for=2",
        "--speed",
        "max",
        "--duration",
        "12",
        "--output",
        "jsonl",
    )
    assert done.returncode == 0, done.stderr
    lines = json_lines(done.stdout)
    assert len(lines) == 24 and any("drop_at" in line["quality"]["eda"]["reason"] for line in lines)


@pytest.mark.parametrize("command", [("--help",), ("doctor",), ("inspect", "EDA")])
def test_any_command_whose_output_cannot_be_written_is_one_sentence(command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "eda.csv").write_text("t,uS\n" + "".join(f"{i / 10},{5 + i % 7 / 10}\n" for i in range(200)))
    args = [str(tmp_path / "eda.csv") if part == "EDA" else part for part in command]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "jmt_edge", *args],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("jmt-edge: the output cannot be written (No space left on device)")
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
