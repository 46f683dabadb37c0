"""What is recorded is what was seen: replays repeat a run bit for bit, killed and full recordings stay readable."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from live_fixture import FakeEngine, jmt_edge, json_lines

from jmt_edge.capture import open_source
from jmt_edge.capture.base import Clock, State, Status
from jmt_edge.engine.backends import open_engine
from jmt_edge.engine.bundle import Bundle
from jmt_edge.errors import ConfigError, SourceError
from jmt_edge.live import Controls, Options, Pipeline, run
from jmt_edge.media.chunk import Chunk
from jmt_edge.media.sound import WavFile
from jmt_edge.observer import Mark, Observer, RunInfo
from jmt_edge.recording import recorder as module
from jmt_edge.recording.reader import Gap, Passed, RecordedSource, Recording, Skipped, Window
from jmt_edge.recording.recorder import Recorder, _Files, pack_times, unpack_times
from jmt_edge.recording.replay import replay
from jmt_edge.result import Quality, Result

ALL = ("face", "voice", "eda")
SMALL = {
    "face": "sim:seed=5&fps=12&size=192x144",
    "voice": "sim:seed=5",
    "eda": "sim:seed=5&rate=64&fault=open&fault_at=6.5",
}


class Watch(Observer):
    """Keeps every call."""

    def __init__(self) -> None:
        self.chunks: list[tuple[str, Chunk]] = []
        self.results: list[Result] = []
        self.marks: list[Mark] = []
        self.statuses: list[dict[str, Status]] = []

    def on_chunk(self, modality: str, chunk: Chunk) -> None:
        self.chunks.append((modality, chunk))

    def on_mark(self, mark: Mark) -> None:
        self.marks.append(mark)

    def on_status(self, statuses: Any) -> None:
        self.statuses.append(dict(statuses))

    def on_result(self, result: Result) -> None:
        self.results.append(result)


def simulated(**changed: str) -> dict[str, Any]:
    specs = {**SMALL, **changed}
    return {name: source for name, spec in specs.items() if (source := open_source(name, spec)) is not None}


def record(folder: Path, bundle: Bundle, raw: tuple[str, ...] = ALL, seconds: float = 8.0, **options: Any) -> Watch:
    watch = Watch()
    recorder = Recorder(folder, bundle, raw=raw)
    sources = options.pop("sources", None) or simulated()
    run(
        bundle,
        open_engine(bundle, "onnxruntime", 1),
        sources,
        Options(0.5, False, seconds, **options),
        [watch, recorder],
    )
    assert not recorder.active
    return watch


def without_hashes(folder: Path) -> None:
    """Make it a recording as earlier versions wrote them."""
    manifest = json.loads((folder / "manifest.json").read_text())
    closed = manifest["closed"] and {k: v for k, v in manifest["closed"].items() if k not in ("files", "chain")}
    (folder / "manifest.json").write_text(
        json.dumps({**{k: v for k, v in manifest.items() if k != "chain"}, "closed": closed})
    )
    for name in ("manifest.sha256", "chain.jsonl"):
        (folder / name).unlink(missing_ok=True)


def same_values(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b, equal_nan=True)
    return len(a) == len(b) and all(np.array_equal(x, y, equal_nan=x.dtype.kind == "f") for x, y in zip(a, b))


# ---- exactness


@given(
    st.lists(st.floats(-1e6, 1e6), max_size=40),
    st.sampled_from([0.0, 30.0, 44_100.0, 512.3]),
    st.booleans(),
)
def test_packed_times_come_back_bit_for_bit(times: list[float], rate: float, even: bool) -> None:
    t = np.array(times, np.float64)
    if even and len(t):
        t = t[0] + (np.arange(len(t)) + 7) / 44_100.0 - 0.3
    entry = json.loads(json.dumps({"n": len(t), "rate": rate, **pack_times(t, rate)}))
    back = unpack_times(entry)
    np.testing.assert_array_equal(back.view(np.int64), t.view(np.int64))


def test_packed_times_of_a_stream_are_small() -> None:
    t = (np.arange(1764) + 123_456) / 44_100.0
    assert len(json.dumps(pack_times(t, 44_100.0))) < 1000


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, trimodal: Bundle) -> tuple[Path, Watch]:
    pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("recorded") / "run"
    return folder, record(folder, trimodal, smooth=1.0)


def test_every_chunk_comes_back_bit_for_bit_in_order(recorded: tuple[Path, Watch]) -> None:
    folder, watch = recorded
    events = [e for e in Recording(folder).events() if isinstance(e, Passed)]
    assert [e.modality for e in events] == [name for name, _ in watch.chunks]
    for event, (name, chunk) in zip(events, watch.chunks):
        assert event.chunk is not None
        np.testing.assert_array_equal(event.chunk.times.view(np.int64), chunk.times.view(np.int64))
        assert same_values(event.chunk.values, chunk.values), name
        assert (event.chunk.rate, event.chunk.lost) == (chunk.rate, chunk.lost)


def test_replay_computes_the_same_results_bit_for_bit(recorded: tuple[Path, Watch], trimodal: Bundle) -> None:
    folder, live = recorded
    assert all(any(r.quality[name].ok for r in live.results) for name in ALL)
    assert not live.results[-1].quality["eda"].ok and live.results[-1].outputs
    for speed in (None, 40.0):
        again = Watch()
        engine = open_engine(trimodal, "onnxruntime", 1)
        outcome = replay(Recording(folder), trimodal, engine, Pipeline, speed=speed, observers=[again])
        assert (outcome.recomputed, outcome.equal, outcome.played) == (len(live.results), len(live.results), 0)
        assert [r.to_json() for r in again.results] == [r.to_json() for r in live.results]
        assert again.results == live.results
    assert "all equal" in outcome.line()


def test_replay_tells_when_results_differ(recorded: tuple[Path, Watch], trimodal: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(recorded[0], folder)
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    changed = next(line for line in lines if line["outputs"])
    changed["outputs"]["pain"] = float(np.nextafter(changed["outputs"]["pain"], 2.0))
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    without_hashes(folder)
    outcome = replay(Recording(folder), trimodal, open_engine(trimodal, "onnxruntime", 1), Pipeline)
    assert outcome.recomputed - outcome.equal == 1 and "1 NOT equal" in outcome.line()


def test_replay_at_a_speed_takes_its_time(recorded: tuple[Path, Watch], trimodal: Bundle) -> None:
    began = time.monotonic()
    replay(Recording(recorded[0]), trimodal, None, Pipeline, speed=8.0)
    assert time.monotonic() - began >= 8.0 / 8.0 - 0.1


def test_without_raw_video_results_are_shown_as_recorded(tmp_path: Path, trimodal: Bundle) -> None:
    live = record(tmp_path / "run", trimodal, raw=("voice",), seconds=6.0)
    recording = Recording(tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "alarms.jsonl", "chain.jsonl", "eda.csv", "events.jsonl", "manifest.json", "manifest.sha256", "results.jsonl",
        "status.jsonl", "timeline.jsonl", "voice.wav",
    ]  # fmt: skip
    assert "raw face was not recorded" in recording.replay_blocker
    again = Watch()
    outcome = replay(recording, trimodal, open_engine(trimodal, "onnxruntime", 1), Pipeline, observers=[again])
    assert (outcome.played, outcome.recomputed) == (len(live.results), 0) and "not computed" in outcome.line()
    assert again.results == live.results
    assert {name for name, _ in again.chunks} == {"voice", "eda"}


def test_by_default_no_sound_and_no_image_is_kept(tmp_path: Path, trimodal: Bundle) -> None:
    record(tmp_path / "run", trimodal, raw=(), seconds=3.0)
    names = {p.name for p in (tmp_path / "run").iterdir()}
    names -= {"chain.jsonl", "manifest.json", "manifest.sha256"}
    assert names == {"alarms.jsonl", "eda.csv", "events.jsonl", "results.jsonl", "status.jsonl", "timeline.jsonl"}
    for entry in json_lines((tmp_path / "run/timeline.jsonl").read_text()):
        if entry.get("chunk") in ("face", "voice"):
            assert set(entry) <= {"chunk", "n", "rate", "lost", "first", "last"}


def test_a_late_engine_in_real_time_is_replayed_with_its_dropped_windows(tmp_path: Path, trimodal: Bundle) -> None:
    """Frames that only dropped windows wanted are not searched for a face, neither live nor in the replay."""
    pytest.importorskip("av")
    slow = iter([0.0] * 4 + [1.2] + [0.0] * 4 + [1.6])
    live = Watch()
    recorder = Recorder(tmp_path / "run", trimodal, raw=ALL)
    engine = FakeEngine(trimodal.task, lambda: time.sleep(next(slow, 0.0)))
    run(trimodal, engine, simulated(), Options(0.25, True, 9.0), [live, recorder])
    assert live.results[-1].dropped >= 4
    recording, again = Recording(tmp_path / "run"), Watch()
    assert sum(isinstance(e, Skipped) for e in recording.events()) >= 2
    outcome = replay(recording, trimodal, FakeEngine(trimodal.task), Pipeline, observers=[again])
    assert outcome.equal == outcome.recomputed == len(live.results)
    assert again.results == live.results


def info(bundle: Bundle, realtime: bool = False) -> RunInfo:
    return RunInfo(bundle, "onnxruntime", {}, 0.5, realtime, 0.0, dict.fromkeys(ALL, "x"))


# ---- a run as it happens


def result(index: int, bundle: Bundle) -> Result:
    quality = {name: Quality(True, "", 0.25) for name in ALL}
    latency = {"preprocess": 1.0, "backbones": None, "fusion": 0.5, "total": 2.0}
    outputs = {"pain": 0.1, "valence": 0.2, "arousal": 0.3}
    return Result(
        index, index * 0.5, "trimodal", outputs, "", quality, dict.fromkeys(ALL, 1 / 3), latency, 0, bundle.id
    )


def test_marks_statuses_and_clocks(tmp_path: Path, trimodal: Bundle) -> None:
    recorder = Recorder(tmp_path / "run", trimodal)
    recorder.on_start(info(trimodal))
    status = Status(
        State.STREAMING, unit="µS", clock=Clock(0.25, 87.5, np.float64(0.004)), detail={"rate": np.float32(2)}
    )
    stalled = replace(status, state=State.STALLED, reason="no data for 1.2 s")
    for i, s in enumerate((status, status, stalled, status)):
        recorder.on_status({"eda": s})
        if i == 1:
            recorder.on_mark(Mark(0.7, "cold pack", 7))
        recorder.on_result(result(i + 1, trimodal))
    recorder.close()
    recording = Recording(tmp_path / "run")
    assert recording.marks() == [Mark(0.7, "cold pack", 7)]
    assert [(t, s["eda"]["state"]) for t, s in recording.statuses()] == [
        (0.5, "streaming"), (1.5, "stalled"), (2.0, "streaming"),
    ]  # fmt: skip
    assert next(recording.statuses())[1]["eda"]["clock"] == {"offset": 0.25, "drift_ppm": 87.5, "jitter": 0.004}
    events = list(recording.events())
    windows = [e for e in events if isinstance(e, Window)]
    assert [w.statuses["eda"].state for w in windows] == [
        State.STREAMING,
        State.STREAMING,
        State.STALLED,
        State.STREAMING,
    ]
    assert windows[2].statuses["eda"].reason == "no data for 1.2 s" and windows[0].statuses["eda"].unit == "µS"
    assert [w.result for w in windows] == [result(i, trimodal) for i in (1, 2, 3, 4)]
    assert isinstance(events[1], Mark)
    assert recording.complete


def test_recording_can_be_switched_and_each_time_is_a_folder(tmp_path: Path, trimodal: Bundle) -> None:
    recorder = Recorder(tmp_path / "run", trimodal)
    controls = Controls()
    controls.recording = recorder
    assert recorder.state == "off" and not controls.is_recording
    recorder.on_start(info(trimodal))
    assert controls.is_recording and str(tmp_path / "run") in recorder.state
    recorder.on_result(result(1, trimodal))
    recorder.stop()
    assert recorder.state == "off"
    recorder.on_chunk("eda", Chunk(np.array([0.5]), np.array([1.0], np.float32)))
    recorder.on_result(result(2, trimodal))
    recorder.start()
    recorder.start()
    recorder.on_result(result(3, trimodal))
    recorder.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "run-2"]
    first, second = Recording(tmp_path / "run"), Recording(tmp_path / "run-2")
    assert [r["t"] for r in first.results()] == [0.5] and [r["t"] for r in second.results()] == [1.5]
    assert first.manifest["whole"] and not second.manifest["whole"]
    assert second.replay_blocker


def test_a_camera_that_returns_with_another_size_starts_another_part(tmp_path: Path, trimodal: Bundle) -> None:
    pytest.importorskip("av")
    recorder = Recorder(tmp_path / "run", trimodal, raw=("face",))
    recorder.on_start(info(trimodal))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((48, 64), (48, 64), (36, 50), (48, 64))]
    recorder.on_chunk("face", Chunk(np.arange(4) / 30, images, 30.0))
    recorder.close()
    assert {"face.mkv", "face-2.mkv", "face-3.mkv"} <= {p.name for p in (tmp_path / "run").iterdir()}
    (event,) = Recording(tmp_path / "run").events()
    assert isinstance(event, Passed) and event.chunk is not None and same_values(event.chunk.values, images)


def test_the_parts_are_ordinary_files(recorded: tuple[Path, Watch]) -> None:
    import cv2
    from scipy.io import wavfile

    folder, watch = recorded
    rate, sound = wavfile.read(folder / "voice.wav")
    assert rate == 44_100 and sound.dtype == np.float32
    np.testing.assert_array_equal(sound, np.concatenate([c.values for n, c in watch.chunks if n == "voice"]))
    video = cv2.VideoCapture(str(folder / "face.mkv"))
    frames = [image for n, c in watch.chunks if n == "face" for image in c.values]
    for expected in frames:
        ok, image = video.read()
        assert ok and np.array_equal(image, expected)
    assert not video.read()[0]
    eda = open_source("eda", str(folder / "eda.csv"))
    assert eda is not None
    eda.open(0.0)
    chunk = eda.read(1e9)
    np.testing.assert_array_equal(chunk.values, np.concatenate([c.values for n, c in watch.chunks if n == "eda"]))


def test_a_recording_is_a_source(recorded: tuple[Path, Watch]) -> None:
    folder, watch = recorded
    for name in ALL:
        source = RecordedSource(name, folder)
        source.open(0.0)
        chunks, t = [], 0.0
        while source.status().state is not State.ENDED:
            t += 0.37
            chunk = source.read(t)
            assert not len(chunk) or chunk.times[-1] <= t
            chunks.append(chunk)
        source.close()
        wanted = [c for n, c in watch.chunks if n == name]
        np.testing.assert_array_equal(
            np.concatenate([c.times for c in chunks]), np.concatenate([c.times for c in wanted])
        )
        if name == "face":
            assert same_values([v for c in chunks for v in c.values], [v for c in wanted for v in c.values])
        else:
            assert same_values(np.concatenate([c.values for c in chunks]), np.concatenate([c.values for c in wanted]))


def test_a_recording_without_raw_is_no_source(tmp_path: Path, trimodal: Bundle) -> None:
    record(tmp_path / "run", trimodal, raw=(), seconds=2.0)
    with pytest.raises(SourceError, match="--record-raw face"):
        RecordedSource("face", tmp_path / "run")


# ---- what goes wrong


RUN_AND_RECORD = """
import sys, time
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from test_recording_replay import *
from jmt_edge.engine.bundle import load_bundle
bundle = load_bundle(sys.argv[2])

class Tell(Observer):
    def on_result(self, result): print(time.monotonic(), result.t, flush=True)

run(bundle, open_engine(bundle, "onnxruntime", 1), simulated(), Options(0.25, True, 60.0),
    [Recorder(Path(sys.argv[1]), bundle, raw=ALL), Tell()])
"""


@pytest.mark.parametrize("after", [1, 9, 14])
def test_a_killed_recording_is_readable_to_its_last_second(tmp_path: Path, trimodal: Bundle, after: int) -> None:
    pytest.importorskip("av")
    folder = tmp_path / "run"
    here = Path(__file__)
    path = os.pathsep.join([str(here.parent), str(here.parents[1] / "live")])
    process = subprocess.Popen(
        [sys.executable, "-c", RUN_AND_RECORD, str(folder), str(trimodal.path), str(here.parent)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    told = []
    for line in process.stdout:
        told.append([float(x) for x in line.split()])
        if len(told) == after:
            break
    process.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    told += [[float(x) for x in line.split()] for line in process.stdout]
    process.wait()
    safe = [t for when, t in told if when < killed - 1.0]
    recording = Recording(folder)
    assert not recording.complete
    events = list(recording.events())
    windows = [e.result.t for e in events if isinstance(e, Window)]
    assert windows[: len(safe)] == safe
    for name in ALL:
        times = [t for e in events if isinstance(e, Passed) and e.modality == name and e.chunk for t in e.chunk.times]
        if safe:
            assert max(times) >= safe[-1] - 0.2, name
    if (folder / "voice.wav").stat().st_size > 44:
        WavFile(folder / "voice.wav")
    if windows:
        outcome = replay(recording, trimodal, open_engine(trimodal, "onnxruntime", 1), Pipeline)
        assert outcome.recomputed == outcome.equal > 0


@pytest.mark.parametrize(
    "name", ["timeline.jsonl", "results.jsonl", "status.jsonl", "eda.csv", "voice.wav", "face.mkv"]
)
def test_a_recording_cut_anywhere_is_read_to_there(
    recorded: tuple[Path, Watch], trimodal: Bundle, tmp_path: Path, name: str
) -> None:
    folder, live = recorded
    whole = (folder / name).read_bytes()
    rng = np.random.default_rng(len(name))
    for cut in (0, len(whole) // 2, len(whole) - 1, int(rng.integers(len(whole)))):
        copy = tmp_path / f"cut-{cut}"
        shutil.copytree(folder, copy)
        (copy / name).write_bytes(whole[:cut])
        events = list(Recording(copy).events())
        windows = [e.result for e in events if isinstance(e, Window)]
        assert windows == live.results[: len(windows)]
        if cut == 0:
            assert not windows
        if name != "timeline.jsonl":
            assert isinstance(events[-1], Gap)
        passed = [e for e in events if isinstance(e, Passed)]
        for event, (_, chunk) in zip(passed, live.chunks):
            assert event.chunk is not None and same_values(event.chunk.values, chunk.values)


def test_a_full_disk_ends_the_recording_and_not_the_run(
    tmp_path: Path, trimodal: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free = namedtuple("free", "total used free")
    folder = tmp_path / "run"

    def usage(path: Path) -> Any:
        lines = (folder / "results.jsonl").read_bytes().count(b"\n")
        return free(1 << 40, 0, 1 << 40 if lines < 4 else 1000)

    monkeypatch.setattr(module.shutil, "disk_usage", usage)
    monkeypatch.setattr(module, "FLUSH", 0.01)
    recorder, watch = Recorder(folder, trimodal), Watch()
    problems = []

    class Slow(Observer):
        def on_result(self, result: Result) -> None:
            time.sleep(0.03)
            problems.append(recorder.problem or recorder.state)

    engine = open_engine(trimodal, "onnxruntime", 1)
    run(trimodal, engine, simulated(face="none"), Options(0.5, False, 10.0), [watch, recorder, Slow()])
    assert len(watch.results) == 20
    assert "the disk is full" in recorder.problem and "the disk is full" in problems[-1]
    assert "the disk is full" in caplog.text
    recording = Recording(folder)
    assert 4 <= len(recording.results()) < 20 and not recording.complete
    assert recording.manifest["closed"]["problem"] == "the disk is full"
    assert [r["t"] for r in recording.results()] == [r.t for r in watch.results][: len(recording.results())]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_is_really_full(tmp_path: Path, trimodal: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        monkeypatch.setattr(module, "RESERVE_BYTES", 0)
        watch = record(disk / "run", trimodal, seconds=20.0)
        assert len(watch.results) == 40
        recording = Recording(disk / "run")
        assert not recording.complete
        list(recording.events())
    finally:
        # fails where a file of the recording is still open
        unmounted = subprocess.run(["umount", str(disk)], capture_output=True).returncode == 0
        if not unmounted:
            subprocess.run(["umount", "-l", str(disk)], capture_output=True)
    assert unmounted


def test_a_slow_disk_costs_samples_and_never_the_loop(
    tmp_path: Path, trimodal: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "QUEUE_BYTES", 20_000)
    write = module._Files.chunk

    def slow(self: Any, modality: str, chunk: Chunk, kept: bool) -> None:
        time.sleep(0.05)
        write(self, modality, chunk, kept)

    monkeypatch.setattr(module._Files, "chunk", slow)
    recorder = Recorder(tmp_path / "run", trimodal, raw=("voice",))
    recorder.on_start(info(trimodal, realtime=True))
    began = time.monotonic()
    for i in range(60):
        recorder.on_chunk("voice", Chunk(i / 50 + np.arange(882) / 44_100, np.full(882, i, np.float32), 44_100.0))
        recorder.on_result(result(i + 1, trimodal))
    assert time.monotonic() - began < 60 * 0.05
    recorder.close()
    recording = Recording(tmp_path / "run")
    assert len(recording.results()) == 60
    missed = recording.manifest["closed"]["missed_chunks"]
    events = list(recording.events())
    kept = [e for e in events if isinstance(e, Passed)]
    assert 0 < missed == 60 - len(kept)
    assert sum(isinstance(e, Gap) for e in events) == 1 and not recording.complete
    assert "too slow" in caplog.text


def test_a_run_faster_than_real_time_waits_for_the_disk(
    tmp_path: Path, trimodal: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE_BYTES", 20_000)
    watch = record(tmp_path / "run", trimodal, raw=("voice",), seconds=4.0, sources=simulated(face="none"))
    recording = Recording(tmp_path / "run")
    assert recording.complete
    assert len([e for e in recording.events() if isinstance(e, Passed)]) == len(watch.chunks)


def test_folders_that_cannot_be_recorded_to(tmp_path: Path, trimodal: Bundle) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used/file").write_text("x")
    (tmp_path / "plain").write_text("x")
    for folder, why in (("used", "not empty"), ("plain", "cannot record"), ("plain/sub", "cannot record")):
        with pytest.raises(ConfigError, match=why):
            Recorder(tmp_path / folder, trimodal)
    with pytest.raises(ConfigError, match="choose from face, voice, eda"):
        Recorder(tmp_path / "new", trimodal, raw=("smell",))


def test_raw_video_without_pyav_names_the_remedy(
    tmp_path: Path, trimodal: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"jmt-edge\[record\]"):
        Recorder(tmp_path / "run", trimodal, raw=("face",))


def test_an_unknown_modality_is_refused(tmp_path: Path, trimodal: Bundle) -> None:
    chunk = Chunk(np.array([0.5]), np.array([1.0], np.float32), 1.0)
    with pytest.raises(ValueError, match="unknown modality 'gesture'"):
        _Files(tmp_path, {}, ()).chunk("gesture", chunk, kept=True)
    manifest = Recorder(tmp_path / "run", trimodal)._manifest(info(trimodal))
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "raw": ["gesture"]}))
    entry = {"chunk": "gesture", "n": 1, "rate": 1.0, "lost": 0}
    (tmp_path / "timeline.jsonl").write_text(json.dumps(entry) + "\n")
    with pytest.raises(SourceError, match="unknown modality 'gesture'"):
        list(Recording(tmp_path).events())


def test_what_is_no_recording(tmp_path: Path, trimodal: Bundle) -> None:
    with pytest.raises(SourceError, match="not a recording"):
        Recording(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(SourceError, match="cannot be read"):
        Recording(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"format": "jmt-edge recording", "version": 99}))
    with pytest.raises(SourceError, match="version 99"):
        Recording(tmp_path)


# ---- the command line


def test_live_record_then_replay_gives_the_same_lines(tmp_path: Path, trimodal: Bundle, command_line: Any) -> None:
    pytest.importorskip("av")
    sources = ["--camera", SMALL["face"], "--microphone", SMALL["voice"], "--eda", SMALL["eda"]]
    live = jmt_edge(
        "live", "--bundle", str(trimodal.path), *sources, "--speed", "max", "--duration", "7", "--output", "jsonl",
        "--record", str(tmp_path / "run"), "--record-raw", "face,voice",
    )  # fmt: skip
    assert live.returncode == 0, live.stderr
    code, out, err = command_line("replay", tmp_path / "run", "--check", "--bundle", trimodal.path)
    assert code == 0, err
    assert out == live.stdout and len(json_lines(out)) == 14
    assert "14 results computed again, all equal to the recorded ones bit for bit" in err
    code, out, err = command_line("replay", tmp_path / "run", "--as-recorded", "--bundle", trimodal.path)
    assert (code, out) == (0, live.stdout) and "shown as recorded" in err


def test_replay_refuses_what_it_cannot_do(
    tmp_path: Path, trimodal: Bundle, recorded: tuple[Path, Watch], command_line: Any
) -> None:
    code, _, err = command_line("replay", tmp_path)
    assert code == 2 and "is not a recording" in err
    code, _, err = command_line("replay", recorded[0], "--speed", "fast")
    assert code == 2 and "--speed fast" in err
    code, _, err = command_line("replay", recorded[0], "--check", "--as-recorded")
    assert code == 2 and "--check" in err
    moved = tmp_path / "moved"
    shutil.copytree(recorded[0], moved)
    manifest = json.loads((moved / "manifest.json").read_text())
    code, _, err = command_line("replay", moved)
    assert code == 2 and manifest["bundle"]["id"] in err and "--bundle" in err
    changed = (moved / "results.jsonl").read_text().replace('"attention": {"face": 0.5', '"attention": {"face": 0.6')
    (moved / "results.jsonl").write_text(changed)
    without_hashes(moved)
    code, _, err = command_line("replay", moved, "--bundle", trimodal.path, "--check", "--output", "none")
    assert code == 1 and "NOT equal" in err
