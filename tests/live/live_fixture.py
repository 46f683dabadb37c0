"""A bundle whose networks are small enough to reckon by hand, and sources that play what a test gives them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmt_edge.capture.base import State, Status
from jmt_edge.clips import face
from jmt_edge.controls import Controls
from jmt_edge.engine.backends.base import TwoCalls
from jmt_edge.engine.bundle import Bundle, write_bundle
from jmt_edge.live.judge import Judge, Watch
from jmt_edge.media.chunk import Chunk, empty_chunk
from jmt_edge.preprocessing.face import Face
from jmt_edge.tasks import Task


def holding(task: Task) -> Task:
    """The task of a network that was trained to hold what was heard before a pause in speech."""
    modalities = tuple(replace(m, pause="hold") if m.name == "voice" else m for m in task.modalities)
    return replace(task, modalities=modalities)


def hand_bundle(task: Task, path: Path, *, demo: bool = True, extra: dict[str, Any] | None = None) -> Bundle:
    """Networks by hand: a clip's feature is its mean in every dimension; pain's logits are (0, the sum over present
    modalities of that step's feature), valence that sum, arousal its negative; attention is equal among the present.

    The fusion's graph gives all steps, as graphs of earlier versions do: engines give the last.
    """
    from onnx import TensorProto, helper, numpy_helper

    def initial(name: str, value: Any, dtype: Any = np.float32) -> Any:
        return numpy_helper.from_array(np.asarray(value, dtype), name)

    def tensor(name: str, shape: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    def save(nodes: list[Any], inputs: list[Any], outputs: list[Any], initials: list[Any]) -> bytes:
        graph = helper.make_graph(nodes, "g", inputs, outputs, initials)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return bytes(model.SerializeToString())

    files: dict[str, bytes | Path] = {}
    for m in task.modalities:
        axes = list(range(1, len(m.shape) + 1))
        nodes = [
            helper.make_node("ReduceMean", ["clip"], ["mean"], axes=axes, keepdims=0),
            helper.make_node("Unsqueeze", ["mean", "one"], ["column"]),
            helper.make_node("Mul", ["column", "ones"], ["features"]),
        ]
        initials = [initial("one", [1], np.int64), initial("ones", np.ones((1, task.dim)))]
        files[f"{m.name}.onnx"] = save(
            nodes, [tensor("clip", ["N", *m.shape])], [tensor("features", ["N", task.dim])], initials
        )
    nodes, M = [], len(task.names)
    for i, name in enumerate(task.names):
        nodes += [
            helper.make_node("ReduceMean", [name], [f"{name}_mean"], axes=[2], keepdims=0),
            helper.make_node("Gather", ["present", f"at{i}"], [f"{name}_here"], axis=2),
            helper.make_node("Mul", [f"{name}_mean", f"{name}_here"], [f"{name}_part"]),
        ]
    nodes += [
        helper.make_node("Sum", [f"{name}_part" for name in task.names], ["sum"]),
        helper.make_node("ReduceSum", ["present", "last"], ["count"], keepdims=1),
        helper.make_node("Max", ["count", "tiny"], ["some"]),
        helper.make_node("Div", ["present", "some"], ["attention"]),
    ]
    outputs = [tensor("attention", ["B", "S", M])]
    for name in task.outputs:
        if name == "pain":
            nodes += [
                helper.make_node("Unsqueeze", ["sum", "last"], ["yes"]),
                helper.make_node("Mul", ["yes", "zero"], ["no"]),
                helper.make_node("Concat", ["no", "yes"], ["pain"], axis=2),
            ]
            outputs.append(tensor("pain", ["B", "S", 2]))
        else:
            nodes.append(helper.make_node("Identity" if name == "valence" else "Neg", ["sum"], [name]))
            outputs.append(tensor(name, ["B", "S"]))
    initials = [
        *(initial(f"at{i}", i, np.int64) for i in range(M)),
        initial("last", [2], np.int64), initial("tiny", [1e-9]), initial("zero", [0.0]),
    ]  # fmt: skip
    inputs = [*(tensor(n, ["B", "S", task.dim]) for n in task.names), tensor("present", ["B", "S", M])]
    files["fusion.onnx"] = save(nodes, inputs, outputs, initials)
    networks = {name: {"onnx": f"{name}.onnx", "precision": "fp32"} for name in (*task.names, "fusion")}
    manifest = {"name": path.stem, "task": task.to_dict(), "networks": networks, "demo": demo, **(extra or {})}
    return write_bundle(path, manifest, files)


class FakeEngine(TwoCalls):
    """Counts its work; features are the clip's mean, outputs as in `hand_bundle`."""

    name = "fake"

    def __init__(self, task: Task, delay: Callable[[], None] = lambda: None) -> None:
        self.task, self._delay = task, delay
        self.precision = dict.fromkeys((*task.names, "fusion"), "fp32")
        self.clips = dict.fromkeys(task.names, 0)
        self.seen: list[tuple[dict[str, np.ndarray], np.ndarray]] = []
        self.left_out: list[tuple[dict[str, np.ndarray], np.ndarray]] = []  # of batches: what-ifs
        self.closed = False

    def backbones(self, clips: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        out = {}
        for name, clip in clips.items():
            assert clip.shape[1:] == self.task.modality(name).shape and clip.dtype == np.float32
            self.clips[name] += len(clip)
            mean = clip.reshape(len(clip), -1).mean(1, keepdims=True)
            out[name] = np.repeat(mean, self.task.dim, 1)
        return out

    def fusion(self, features: Mapping[str, np.ndarray], present: np.ndarray) -> dict[str, np.ndarray]:
        if len(present) == 1:
            self._delay()
        seen = self.seen if len(present) == 1 else self.left_out
        seen.append(({n: f.copy() for n, f in features.items()}, present.copy()))
        here = present.astype(np.float32)
        total = sum(features[n].mean(2) * here[..., i] for i, n in enumerate(self.task.names))
        out = {"attention": here / np.maximum(here.sum(2, keepdims=True), 1e-9)}
        for name in self.task.outputs:
            out[name] = np.stack([0 * total, total], 2) if name == "pain" else total
        return {name: value[:, -1:] for name, value in out.items()}

    def close(self) -> None:
        self.closed = True


class ListSource:
    """Plays arrays: a source that ends after its last sample."""

    realtime = False

    def __init__(self, modality: str, times: np.ndarray, values: Any, rate: float = 0.0, unit: str = "") -> None:
        self.modality, self.name = modality, f"list of {modality}"
        self._times, self._values, self._rate, self._at = np.asarray(times, float), values, rate, 0
        self._unit = unit
        self.state = State.STREAMING
        self.opened = self.closed = 0

    def open(self, origin: float) -> None:
        self.opened += 1

    def read(self, until: float) -> Chunk:
        stop = int(np.searchsorted(self._times, until + 1e-9, "right"))
        first, self._at = self._at, max(self._at, stop)
        if self._at == len(self._times):
            self.state = State.ENDED
        if self._at == first:
            return empty_chunk(self.modality, self._rate)
        return Chunk(self._times[first : self._at], self._values[first : self._at], self._rate)

    def status(self) -> Status:
        return Status(self.state, unit=self._unit)

    def close(self) -> None:
        self.closed += 1


def jmt_edge(*args: str, timeout: float = 120, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "jmt_edge", *args],
        capture_output=True, text=True, timeout=timeout, env=environment, **options,
    )  # fmt: skip


def invoke(capfd: pytest.CaptureFixture[str], *args: str) -> subprocess.CompletedProcess[str]:
    """The same inside this process, which has everything imported already."""
    from jmt_edge.cli import main

    capfd.readouterr()
    before, sys.argv = sys.argv, ["jmt-edge", *args]
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = before
    captured = capfd.readouterr()
    return subprocess.CompletedProcess(args, code, captured.out, captured.err)


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


class Tracker:
    """Stands for FaceTracker: a face at a fixed place in every frame. Counts, and insists on time order."""

    why = "no face"

    def __init__(self, detector: object, **options: object) -> None:
        self.times: list[float] = []

    def update(self, image: np.ndarray, t: float) -> Face:
        assert not self.times or t > self.times[-1]
        self.times.append(t)
        landmarks = np.array([[30, 30], [70, 30], [50, 50], [34, 70], [66, 70]], np.float32)
        return Face((5.0, 5.0, 95.0, 95.0), 0.9, landmarks)


class Watched:
    """An observer behind the judge that it is made with, in the order of `jmt-edge live`."""

    def __init__(self, controls: Controls, make: Callable[[Judge], Any]) -> None:
        self.watch = Watch(controls)
        self.shown = make(self.watch.judge)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("on_"):
            return getattr(self.shown, name)

        def both(*args: Any) -> None:
            getattr(self.watch, name)(*args)
            getattr(self.shown, name)(*args)

        return both


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every frame shows a face at the same place; nothing is searched for."""
    monkeypatch.setattr(face, "FaceDetector", lambda: None)
    monkeypatch.setattr(face, "FaceTracker", Tracker)
    monkeypatch.setattr(face, "FaceSight", lambda: None)
