"""A run with simulated sensors and an engine whose outputs the test sets, and small HTTP and WebSocket clients."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jmt_edge.capture import open_source
from jmt_edge.capture.base import Chunk, State, Status
from jmt_edge.cli.live import demo_bundle
from jmt_edge.engine.backends import open_engine
from jmt_edge.engine.backends.base import TwoCalls
from jmt_edge.engine.bundle import Bundle, load_bundle, write_bundle
from jmt_edge.live import Controls, Mark, Options, Quality, Result, RunInfo, run
from jmt_edge.live.page import PageObserver, start_page
from jmt_edge.recording.recorder import Recorder
from jmt_edge.summary import Summary
from jmt_edge.tasks import Task, get_task

# What a browser logs when a run ends below it: its socket closes, and a request that was under way is reset or refused.
CUT_OFF = ("WebSocket connection", "ERR_CONNECTION_", "ERR_EMPTY_RESPONSE")


def empty_bundle(task: Task, path: Path) -> Bundle:
    """A bundle without networks, for an engine that needs none."""
    networks = {name: {"onnx": "none", "precision": "fp32"} for name in (*task.names, "fusion")}
    manifest = {"name": path.stem, "task": task.to_dict(), "networks": networks, "demo": True}
    return write_bundle(path, manifest, {"none": b""})


def recorded(
    folder: Path, name: str = "gappy", task_name: str = "pain", *, unit: str = "µS", scale: float = 1.0,
    marks: Mapping[float, str] = {},
) -> tuple[Bundle, Path]:  # fmt: skip
    """A minute of a run in `folder`/runs/`name`, of which the seconds 20 to 45 are missing. marks: {s: text}."""
    task = get_task(task_name, "demo")
    bundle = empty_bundle(task, folder / f"{name}-recorded.jmt")
    recorder = Recorder(folder / "runs" / name, bundle)
    recorder.on_start(RunInfo(bundle, "hand", {"fusion": "fp32"}, 0.5, True, 0.0, dict.fromkeys(task.names, "by hand")))
    quality = {name: Quality(True, "", 0.9) for name in task.names}
    if unit != "µS":
        quality["eda"] = Quality(False, "the unit of the EDA is unknown; give the sensor's calibration", None)
    here = {name: 1 / len(task.names) if q.ok else None for name, q in quality.items()}
    for index in [*range(1, 41), *range(91, 121)]:
        t = index / 2
        times = t - 0.5 + np.arange(32) / 64
        recorder.on_chunk("eda", Chunk(times, scale * (3 + np.sin(times / 3)).astype(np.float32), 64))
        recorder.on_status({name: Status(State.STREAMING, unit=unit if name == "eda" else "") for name in task.names})
        values = {
            "pain": 0.5 + 0.3 * np.sin(t / 4),
            "valence": -0.4 + 0.2 * np.sin(t / 9),
            "arousal": 0.6 * np.cos(t / 5),
        }
        outputs = {name: float(values[name]) for name in task.outputs}
        recorder.on_result(Result(index, t, task.name, outputs, "", quality, here, {"total": 3.0}, 0, bundle.id))
        if t in marks:
            recorder.on_mark(Mark(t, marks[t], None))
    recorder.on_end(Summary(bundle.id, True, True))
    return bundle, recorder.folder


class Dial(TwoCalls):
    """An engine that says what the test wants: `pain` 0..1, `affect` (valence, arousal); `gate` cleared: it hangs."""

    name = "dial"

    def __init__(self, task: Task) -> None:
        self.task = task
        self.precision = dict.fromkeys((*task.names, "fusion"), "fp32")
        self.pain = 0.2
        self.affect = (0.3, -0.2)
        self.wobble = False
        self.gate = threading.Event()
        self.gate.set()
        self._count = 0

    def backbones(self, clips: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: np.zeros((len(clip), self.task.dim), np.float32) for name, clip in clips.items()}

    def fusion(self, features: Mapping[str, np.ndarray], present: np.ndarray) -> dict[str, np.ndarray]:
        self.gate.wait(60)
        self._count += 1
        shift = 0.1 * np.sin(self._count) if self.wobble else 0.0
        shape = present.shape[:2]
        here = present.astype(np.float32)
        out = {"attention": here / np.maximum(here.sum(2, keepdims=True), 1e-9)}
        p = min(max(self.pain + shift, 1e-6), 1 - 1e-6)
        values = {"valence": self.affect[0] + shift, "arousal": self.affect[1] - shift}
        for name in self.task.outputs:
            if name == "pain":
                out[name] = np.zeros((*shape, 2), np.float32)
                out[name][..., 1] = np.log(p / (1 - p))
            else:
                out[name] = np.full(shape, values[name], np.float32)
        return out

    def close(self) -> None:
        self.gate.set()


SOURCES = {"face": "sim:seed=3&fps=8&size=320x240", "voice": "sim:seed=3", "eda": "sim:seed=3&rate=64"}


class Stage:
    """A live run with a page, in threads of this process. `demo`: with the packaged demo bundle instead of a dial."""

    def __init__(
        self, folder: Path, task: str = "trimodal", *, address: str = "127.0.0.1:0", record: bool = True,
        raw: tuple[str, ...] = (), sources: Mapping[str, str] = {}, demo: bool = False, hop: float = 0.25,
        session: bool = False, demo_alarms: bool = False, **page: Any,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.task = get_task(task, "demo")
        self.engine = Dial(self.task)
        self.controls = Controls()
        bundle = load_bundle(demo_bundle(task)) if demo else empty_bundle(self.task, folder / f"{task}-dial.jmt")
        engine = open_engine(bundle, threads=1) if demo else self.engine
        specs = {**SOURCES, **sources}
        opened = {m: open_source(m, specs[m]) for m in self.task.names}
        self.runs = folder / "runs"
        self.recording = self.runs / "first"
        observers: list[Any] = []
        if record:
            recorder = Recorder(self.recording, bundle, raw, waits=session)
            self.controls.recording = recorder
            observers.append(recorder)
        self.page: PageObserver = start_page(address, self.controls, recordings=self.runs, asks=session, **page)
        observers.append(self.page)
        live = {m: s for m, s in opened.items() if s is not None}
        options = Options(hop=hop, demo_alarms=demo_alarms)
        self._thread = threading.Thread(
            target=lambda: run(bundle, engine, live, options, observers, self.controls), daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        return self.page.url

    @property
    def client(self) -> Http:
        return Http(self.page)

    def close(self) -> None:
        self.engine.gate.set()
        self.controls.stop()
        self._thread.join(20)
        self.page.close()
        assert not self._thread.is_alive()


class Http:
    """Requests as a program makes them."""

    def __init__(self, page: PageObserver) -> None:
        host, _, port = page.url.partition("://")[2].strip("/").rpartition(":")
        self.host, self.port, self.token = host.strip("[]"), int(port), page.token

    def __call__(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] = {}, token: bool = True
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        sent = dict(headers)
        if token and self.token:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        data = body
        if body is not None and not isinstance(body, (bytes, str)):
            data = json.dumps(body)
            sent.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        status, _, data = self(method, path, body, **options)
        return status, json.loads(data)

    def metric(self, name: str) -> float | None:
        for line in self("GET", "/metrics")[2].decode().splitlines():
            if line.startswith(f"jmt_edge_{name} "):
                return float(line.rpartition(" ")[2])
        return None


def wait_for(condition: Callable[[], Any], timeout: float = 40.0, what: str = "") -> Any:
    """Poll until `condition` holds; a machine shared with others may take its time."""
    end = time.monotonic() + timeout
    while True:
        began = time.monotonic()
        if value := condition():
            break
        now = time.monotonic()
        assert now < end, f"waited in vain for {what or condition}"
        time.sleep(max(0.05, 2 * (now - began)))  # to look must not keep what is waited for from its work
    return value
