"""`calibrate` as a whole: reproducible, what its report compares, recordings as data, falling back layer by layer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_recording_replay import without_hashes

from jmt_edge.calibration import run as module
from jmt_edge.calibration.run import quantise_bundle
from jmt_edge.calibration.scales import RANGE
from jmt_edge.calibration.sources import evenly, load_windows, recorded_windows, simulated_people
from jmt_edge.capture import open_source
from jmt_edge.cli.live import demo_bundle
from jmt_edge.clips.window_set import random_windows
from jmt_edge.compiler.export import random_bundle
from jmt_edge.compiler.fidelity import Comparison
from jmt_edge.engine.backends.base import TwoCalls
from jmt_edge.engine.bundle import Bundle, load_bundle
from jmt_edge.errors import DataError
from jmt_edge.live import Options, run
from jmt_edge.live.pipeline import Pipeline
from jmt_edge.recording.reader import Passed, Recording, Skipped, Window
from jmt_edge.recording.recorder import Recorder
from jmt_edge.tasks import get_task

METHODS = {"minmax", "percentile", "entropy", "mse"}


@pytest.fixture(scope="module")
def pain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Random weights; a face of 32 pixels and few channels, EDA, one step."""
    task = get_task("pain", "demo")
    face = replace(task.modalities[0], width=4, shape=(3, 10, 32, 32))
    task = replace(task, modalities=(face, replace(task.modalities[1], width=4)), dim=32)
    return random_bundle(task, tmp_path_factory.mktemp("calibration") / "pain.jmt")


@pytest.fixture(scope="module")
def trimodal() -> Bundle:
    """Three modalities, four steps; no networks, which cutting windows does not ask for."""
    task = get_task("trimodal", "demo")
    face = replace(task.modalities[0], shape=(3, 8, 32, 32))
    return Bundle(
        Path("trimodal.jmt"), {"name": "trimodal"}, replace(task, modalities=(face, *task.modalities[1:])), "t"
    )


def _table(bundle: Bundle) -> bytes:
    return bundle.read(bundle.manifest["int8"]["table"])


def test_the_same_seed_gives_the_same_bytes(pain: Bundle, tmp_path: Path) -> None:
    windows = random_windows(pain.task, 6)
    one = quantise_bundle(pain, tmp_path / "one.jmt", windows, seed=3).bundle
    two = quantise_bundle(pain, tmp_path / "two.jmt", windows, seed=3).bundle
    assert one.manifest["files"] == two.manifest["files"]  # table, graphs, reports, plot
    assert _table(one) == _table(two)
    other = quantise_bundle(pain, tmp_path / "three.jmt", windows, seed=4, method="minmax").bundle
    assert _table(other) != _table(one)


def test_the_report_compares_methods_and_layers(pain: Bundle, tmp_path: Path) -> None:
    done = quantise_bundle(pain, tmp_path / "out.jmt", random_windows(pain.task, 4))
    report = json.loads(done.bundle.read("reports/calibration/calibration.json"))
    face = report["networks"]["face"]
    assert set(face["sqnr_by_method"]) == METHODS
    assert face["sqnr_by_method"][face["method"]] == max(face["sqnr_by_method"].values())
    layers = {layer["name"] for layer in face["int8"]}
    assert set(face["sensitivity"]) == layers | set(face["given_back"]) and len(layers) > 5
    assert all(np.isfinite(value) for value in face["sensitivity"].values())
    # the table names what was measured and what the graph's scales are made of; inside a block they are all the same
    table = json.loads(_table(done.bundle))["face"]
    assert set(table["measured"]) == set(table["amax"]) and table["measured"] != table["amax"]
    assert sum(value == RANGE for value in table["amax"].values()) > 5 > len(set(table["measured"].values()) & {RANGE})
    # one layer alone loses less than all together
    assert min(face["sensitivity"].values()) > face["sqnr_by_method"][face["method"]] - 3
    assert report["windows"] == {"ranges": 2, "scores": 2, "origin": "random noise, seed 0"}
    text = done.bundle.read("reports/calibration/calibration.md").decode()
    assert all(f"| {method} |" in text for method in METHODS)


def test_layers_are_given_back_until_the_scores_hold(
    pain: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a limit that INT8 breaks, the most sensitive layers return to FP16 first, and no more than it takes."""

    class Strict(Comparison):
        def __call__(self, *args: Any) -> Any:
            found = super().__call__(*args)
            face = next(row for row in found.networks if row.network == "face")
            scores = tuple(replace(s, change=face.relative_error, limit=limit) for s in found.scores[:1])
            return replace(found, scores=scores)

    limit = 1.0
    windows = random_windows(pain.task, 4)
    monkeypatch.setattr(module, "Comparison", Strict)
    free = quantise_bundle(pain, tmp_path / "free.jmt", windows, method="minmax").report
    error = free["fidelity"]["scores"][0]["change"]
    assert not free["networks"]["face"]["given_back"] and 0 < error < 1
    limit = 0.7 * error
    done = quantise_bundle(pain, tmp_path / "strict.jmt", windows, method="minmax")
    assert done.fidelity.holds and done.report["fidelity"]["scores"][0]["change"] <= limit
    report = done.report["networks"]
    returned = [(name, layer) for name, network in report.items() for layer in network["given_back"]]
    every = {
        (name, layer): np.inf if v is None else v
        for name, network in report.items()
        for layer, v in network["sensitivity"].items()
    }
    assert returned and report["face"]["int8"]
    assert max(every[r] for r in returned) <= min(v for k, v in every.items() if k not in returned)
    assert done.bundle.manifest["int8"]["networks"]["face"]["kept"] == report["face"]["fp16"]


def test_pools_are_spread_over_the_run() -> None:
    assert evenly(100, 5).tolist() == [0, 25, 50, 74, 99]
    assert evenly(3, 10).tolist() == [0, 1, 2]
    assert evenly(0, 5).tolist() == []


SOURCES = {"face": "sim:seed=5&fps=12&size=192x144", "voice": "sim:seed=5", "eda": "sim:seed=5&rate=64"}


class _Flat(TwoCalls):
    """An engine whose numbers do not matter to what is recorded."""

    name = "flat"

    def __init__(self, bundle: Bundle) -> None:
        self.task = bundle.task
        self.precision = dict.fromkeys((*bundle.task.names, "fusion"), "fp32")

    def backbones(self, clips: Mapping[str, Any]) -> dict[str, Any]:
        return {name: np.zeros((len(clip), self.task.dim), np.float32) for name, clip in clips.items()}

    def fusion(self, features: Mapping[str, Any], present: Any) -> dict[str, Any]:
        shape = present.shape[:2]
        out = {o: np.zeros((*shape, 2) if o == "pain" else shape, np.float32) for o in self.task.outputs}
        return {"attention": np.zeros(present.shape, np.float32), **out}

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def recorded(trimodal: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """9 s of a simulated person with everything kept."""
    pytest.importorskip("av", reason="PyAV is not installed")
    folder = tmp_path_factory.mktemp("recording") / "run"
    sources = {name: source for name, spec in SOURCES.items() if (source := open_source(name, spec)) is not None}
    recorder = Recorder(folder, trimodal, SOURCES)
    run(trimodal, _Flat(trimodal), sources, Options(hop=0.5, realtime=False, duration=9.0), [recorder])
    return folder


class _Spy(_Flat):
    """Keeps the clips of each call, under their number as the feature."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.clips: list[np.ndarray] = []
        self.inputs: list[tuple[dict[str, Any], Any]] = []

    def backbones(self, clips: Mapping[str, Any]) -> dict[str, Any]:
        out = {}
        for name, batch in clips.items():
            first = len(self.clips)
            self.clips += list(batch)
            out[name] = np.repeat(np.arange(first, len(self.clips), dtype=np.float32)[:, None], self.task.dim, 1)
        return out

    def fusion(self, features: Mapping[str, Any], present: Any) -> dict[str, Any]:
        if len(present) == 1:  # the window itself, not what it would be without each modality
            self.inputs.append(({n: f[0, :, 0].astype(int) for n, f in features.items()}, present[0].copy()))
        return super().fusion(features, present)


def test_a_recordings_windows_are_those_of_the_live_pipeline(trimodal: Bundle, recorded: Path) -> None:
    """Clip for clip what the pipeline itself cut when fed the recording, the two roads being different code."""
    found = recorded_windows(trimodal.task, recorded, 1, 1000)
    recording, spy = Recording(recorded), _Spy(trimodal)
    pipeline = Pipeline(trimodal, spy, 0.5, trimodal.task.names, first=recording.manifest["first"])
    for event in recording.events():
        if isinstance(event, Passed) and event.chunk is not None:
            pipeline.push(event.modality, event.chunk)
        elif isinstance(event, Skipped):
            pipeline.skip_to(event.index)
        elif isinstance(event, Window):
            pipeline.infer(event.result.index, event.statuses)
    assert len(found) == len(spy.inputs) >= 10
    found.check(trimodal.task)
    assert found.present[-1].any(0).all() and not found.present[0].all()
    for i, (numbers, present) in enumerate(spy.inputs):
        np.testing.assert_array_equal(found.present[i], present)
        for j, m in enumerate(trimodal.task.modalities):
            steps = range(trimodal.task.steps) if m.stride else [trimodal.task.steps - 1]
            for k, s in enumerate(steps):
                expected = spy.clips[numbers[m.name][s]] if present[s, j] else np.zeros(m.shape, np.float32)
                np.testing.assert_array_equal(found.clips[m.name][i, k], expected)


@pytest.mark.parametrize("hashes", [False, True], ids=["as written", "changed later, so not believed"])
def test_uncalibrated_eda_of_a_recording_is_absent(
    trimodal: Bundle, recorded: Path, tmp_path: Path, hashes: bool
) -> None:
    folder = tmp_path / "uncalibrated"
    shutil.copytree(recorded, folder)
    lines = [json.loads(line) for line in (recorded / "status.jsonl").read_text().splitlines()]
    for line in lines:
        line["eda"]["unit"] = "a.u."
    (folder / "status.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if not hashes:
        without_hashes(folder)
    found = recorded_windows(trimodal.task, folder, 1, 1000)
    eda = trimodal.task.names.index("eda")
    assert found.present.any() and not found.present[:, :, eda].any() and (found.clips["eda"].rows == -1).all()


def test_calibrate_from_a_recording(pain: Bundle, recorded: Path, tmp_path: Path) -> None:
    """A trimodal run serves a bundle of two of its modalities."""
    windows = load_windows(pain, recorded, 6, seed=1)
    assert len(windows) == 6 and windows.origin == f"recording {recorded}"
    done = quantise_bundle(pain, tmp_path / "out.jmt", windows, method="minmax")
    assert done.report["windows"]["origin"] == f"recording {recorded}"
    assert load_bundle(done.bundle.path).manifest["int8"]["networks"]


def test_a_recording_without_raw_samples_is_refused(trimodal: Bundle, recorded: Path, tmp_path: Path) -> None:
    folder = tmp_path / "poor"
    shutil.copytree(recorded, folder)
    manifest = json.loads((recorded / "manifest.json").read_text()) | {"raw": ["eda", "voice"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    without_hashes(folder)
    with pytest.raises(DataError, match=r"raw face was not recorded .*--record-raw face,voice,eda from its start"):
        load_windows(trimodal, folder, 4)


def test_random_weights_get_noise(pain: Bundle) -> None:
    assert load_windows(pain, None, 2).origin.startswith("random noise")


def test_simulated_windows_show_nobody_whom_a_demo_was_trained_on() -> None:
    trained = set()
    for name in ("pain", "affect", "trimodal"):
        split = load_bundle(demo_bundle(name)).manifest["provenance"]["split"]
        trained |= {int(person.removeprefix("sim")) for person in (*split["train_subjects"], *split["test_subjects"])}
    shown = {int(person) for seed in (0, 1) for person in simulated_people(seed, 8)}
    assert len(shown) == 16 and trained and not shown & trained


def test_noise_is_reported_but_judges_nothing(pain: Bundle) -> None:
    """The same windows with people's signals in them are held to the limits."""
    models = {name: pain.graph(entry["onnx"]) for name, entry in pain.networks.items()}
    windows = random_windows(pain.task, 3)
    assert windows.take(np.array([1])).noise
    (score,) = Comparison(pain, windows, models)(models, "int8").scores
    assert score.limit is None and score.score == "CCC with float32 (no labels)" and score.converted == 1
    (score,) = Comparison(pain, replace(windows, noise=False), models)(models, "int8").scores
    assert score.limit == 0.01
