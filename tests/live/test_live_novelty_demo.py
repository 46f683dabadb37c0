"""The packaged demo bundles in front of real people: the gate refuses what the weights have never seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jmt_edge.capture import open_source
from jmt_edge.cli.live import demo_bundle
from jmt_edge.engine.backends import open_engine
from jmt_edge.engine.bundle import Bundle, load_bundle
from jmt_edge.live import Options, run
from jmt_edge.media.chunk import Chunk
from jmt_edge.observer import Observer
from jmt_edge.result import Result
from jmt_edge.tasks import TASK_NAMES

Image = Callable[[np.ndarray], np.ndarray]
ALTERED: dict[str, Image] = {
    "as it is": lambda frame: frame,
    "flipped": lambda frame: frame[:, ::-1],
    "dimmed": lambda frame: (frame * 0.6).astype(np.uint8),
    "cropped": lambda frame: frame[frame.shape[0] // 16 :, frame.shape[1] // 10 : -frame.shape[1] // 10],
}
LIVE = (3, 11)  # people of no training and of no limit


class Altered:
    """A source whose pictures are altered."""

    def __init__(self, source: object, alter: Image) -> None:
        self._source, self._alter = source, alter

    def __getattr__(self, name: str) -> object:
        return getattr(self._source, name)

    def read(self, until: float) -> Chunk:
        chunk: Chunk = self._source.read(until)  # type: ignore[attr-defined]
        return replace(chunk, values=[np.ascontiguousarray(self._alter(frame)) for frame in chunk.values])


class Collect(Observer):
    def __init__(self) -> None:
        self.results: list[Result] = []

    def on_result(self, result: Result) -> None:
        self.results.append(result)


def play(bundle: Bundle, sources: dict[str, str], seconds: float, alter: Image | None = None) -> list[Result]:
    seen = Collect()
    opened = {name: open_source(name, spec) for name, spec in sources.items()}
    if alter:
        opened["face"] = Altered(opened["face"], alter)  # type: ignore[assignment]
    run(bundle, open_engine(bundle, "onnxruntime", 1), opened, Options(0.5, False, seconds, novelty="gate"), [seen])  # type: ignore[arg-type]
    return seen.results


def scores(results: list[Result], name: str) -> np.ndarray:
    """Novelty of each clip of a modality whose signal was good."""
    return np.array([q.novelty for r in results if (q := r.quality[name]).novelty is not None])


@pytest.fixture(scope="module", params=TASK_NAMES)
def demo(request: pytest.FixtureRequest) -> Bundle:
    return load_bundle(demo_bundle(request.param))


def test_every_modality_has_a_density(demo: Bundle) -> None:
    assert set(demo.novelty()) == set(demo.task.names)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_simulated_people_are_familiar(demo: Bundle) -> None:
    """People of no training: at least 98 % of the clips with a good signal pass, whatever camera and board they use."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in demo.task.names}
    for seed in LIVE:
        results = play(demo, dict.fromkeys(demo.task.names, f"sim:seed={seed}"), 40)
        for name in demo.task.names:
            found[name].append(scores(results, name))
    for name, parts in found.items():
        every = np.concatenate(parts)
        assert len(every) > 100 and (every <= 1).mean() >= 0.98, name


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ALTERED)
def test_real_faces_are_novel(how: str, demo: Bundle, shared_data: Path) -> None:
    """No number from a real face alone, and all real faces lie further out than every drawn one."""
    clips = [*sorted((shared_data / "av" / "grid").glob("*.mpg"))[:2], shared_data / "av" / "WolfgangLanger_Pexels.mp4"]
    results = [r for clip in clips for r in play(demo, {"face": str(clip)}, 16, ALTERED[how])]
    assert len(scores(results, "face")) >= 8
    assert (scores(results, "face") > 1).mean() >= 0.95
    refused = [r for r in results if (r.quality["face"].novelty or 0) > 1]
    assert all(r.outputs is None and r.quality["face"].reason.startswith("unlike the faces") for r in refused)


@pytest.mark.slow
def test_real_voices_are_novel(shared_data: Path) -> None:
    bundle = load_bundle(demo_bundle("affect"))
    results = [
        r for clip in sorted((shared_data / "av" / "grid").glob("*.mpg")) for r in play(bundle, {"voice": str(clip)}, 3)
    ]
    assert len(scores(results, "voice")) >= 15
    assert (scores(results, "voice") > 1).mean() >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bitalino_eda_hot_surface.txt", "empatica_e4_EDA.csv"])
def test_eda_of_other_sensors_is_novel(name: str, shared_data: Path) -> None:
    """A BITalino on a hot surface (the network used to call most of it painful), and a wrist at 0.1 uS."""
    results = play(load_bundle(demo_bundle("pain")), {"eda": str(shared_data / "eda" / name)}, 40)
    assert len(scores(results, "eda")) > 40
    assert (scores(results, "eda") > 1).mean() >= 0.95
