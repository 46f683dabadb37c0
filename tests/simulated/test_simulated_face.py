"""The drawn face: found by the product's detector, moved by action units."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from jmt_edge.capture.simulated.expression import ACTION_UNITS, Expression, Expressions, pspi
from jmt_edge.capture.simulated.face import FaceRenderer
from jmt_edge.capture.simulated.person import Person
from jmt_edge.capture.simulated.voice import Speech

CALM = Expression(dict.fromkeys(ACTION_UNITS, 0.0), 0.0, 0.0, (0.0, 0.0), 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)


def _with(**aus: float) -> Expression:
    return replace(CALM, aus={**CALM.aus, **aus})


@pytest.mark.parametrize(("size", "people"), [((320, 240), 12), ((480, 360), 4)])
def test_the_detector_finds_the_face(size: tuple[int, int], people: int) -> None:
    face = pytest.importorskip("jmt_edge.preprocessing.face")
    if not face.WEIGHTS.is_file():
        pytest.skip("the face detector's weights are not installed")
    detector = face.FaceDetector()
    found = total = 0
    for seed in range(300, 300 + people):
        person = Person.live(seed)
        expressions, renderer = Expressions(person, Speech(person)), FaceRenderer(person, *size)
        times = np.arange(0, 120, 1.0)
        strength = [pspi(expressions(t).aus) for t in times]
        # the strongest grimaces and ordinary moments alike
        for t in [*times[np.argsort(strength)[-4:]], *np.arange(5, 85, 12.0)]:
            total += 1
            found += bool(detector.detect(renderer.frame(t, expressions(t))))
        assert not detector.detect(renderer.without_face(1.0, dark=False))
        assert not detector.detect(renderer.without_face(1.0, dark=True))
    assert found >= 0.99 * total, f"{found} of {total}"


def _difference(renderer: FaceRenderer, expression: Expression) -> np.ndarray:
    """Mean change of each image row against the calm face at the same moment (same camera noise)."""
    calm, moved = renderer.frame(3.0, CALM), renderer.frame(3.0, expression)
    return np.abs(calm.astype(int) - moved.astype(int)).mean(axis=(1, 2))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_action_unit_moves_its_own_part(seed: int) -> None:
    renderer = FaceRenderer(Person.live(seed), 320, 240)
    lids, mouth = _difference(renderer, replace(CALM, lids=1.0)), _difference(renderer, _with(AU12=5.0))
    brow, jaw = _difference(renderer, _with(AU4=5.0)), _difference(renderer, _with(AU26=5.0))
    rows = np.arange(240)

    def place(change: np.ndarray) -> float:
        return float((rows * change).sum() / change.sum())

    assert all(d.max() > 1.0 for d in (lids, mouth, brow, jaw))
    assert place(brow) < place(lids) + 6 < place(mouth) - 20
    assert place(mouth) < place(jaw)
    for name in ACTION_UNITS:
        if name not in ("AU7", "AU43"):  # both act through the lids
            assert _difference(renderer, _with(**{name: 5.0})).max() > 0.4, name


def test_closed_eyes_hide_the_white() -> None:
    renderer = FaceRenderer(Person.live(9), 320, 240)
    open_, shut = renderer.frame(1.0, CALM), renderer.frame(1.0, replace(CALM, lids=1.0))
    changed = np.abs(open_.astype(int) - shut.astype(int)).max(axis=2) > 40
    assert changed.sum() > 50


def test_pspi_is_the_published_formula() -> None:
    aus = {**dict.fromkeys(ACTION_UNITS, 0.0), "AU4": 3, "AU6": 2, "AU7": 4, "AU9": 1, "AU10": 2, "AU43": 1}
    assert pspi(aus) == 3 + 4 + 2 + 1
    assert pspi({**aus, "AU43": 0.2}) == 9
    assert pspi(dict.fromkeys(ACTION_UNITS, 5.0)) == 16


def test_frames_of_one_moment_are_identical() -> None:
    frames = []
    for _ in range(2):
        person = Person.live(6)
        frames.append(FaceRenderer(person, 160, 120).frame(12.34, Expressions(person, Speech(person))(12.34)))
    np.testing.assert_array_equal(*frames)
