"""What face and skin have in common beyond pain: planted as asked, invisible in either alone, absent by default."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from scipy.stats import multivariate_normal, norm

from jmt_edge.capture.simulated.eda import Skin
from jmt_edge.capture.simulated.expression import Expressions, pspi
from jmt_edge.capture.simulated.person import FACE_SHOWS, SKIN_RESPONDS, Coupling, Person
from jmt_edge.capture.simulated.scenario import Session, Stimulus
from jmt_edge.capture.simulated.voice import Speech
from jmt_edge.cli import cli

COUNT = 4000


def reactions(correlation: float) -> tuple[Person, NDArray[np.float64]]:
    """A person and (n, 2): the strength of the face and the height of the skin response to n strong stimuli."""
    key = Person.cohort_key(3, 12)
    person = Person(key, Session(key, 1), coupling=Coupling(correlation))
    found = [person.reaction(Stimulus(0.0, 1.0, i)) for i in range(COUNT)]
    return person, np.array([[r.face, r.scr] for r in found])


def test_by_default_everybody_is_who_they_were() -> None:
    """Values of the generator before it could couple face and skin: the demo bundles were trained on them."""
    person, found = reactions(0.0)
    assert found[:3] == pytest.approx(np.array([[0, 0.088911], [0.843783, 0.138696], [0.546392, 0.09467]]), abs=1e-6)
    assert Skin(person).samples(5000, 3, 100) == pytest.approx([7.34838, 7.350748, 7.347229], abs=1e-6)
    assert person.movements(0, 3600) == []


@pytest.mark.parametrize("rho", [0.4, 0.8])
def test_the_correlation_is_the_one_asked_for_and_each_alone_stays(rho: float) -> None:
    person, apart = reactions(0.0)
    _, together = reactions(rho)
    p_face, p_skin = person.traits.expressiveness * FACE_SHOWS[-1], SKIN_RESPONDS[-1]
    error = 4 * 0.5 / np.sqrt(COUNT)
    for found in (apart, together):
        assert (found > 0).mean(0) == pytest.approx([p_face, p_skin], abs=error)
    for column in (0, 1):  # how strong, of those that react
        shown = [x[x[:, column] > 0, column] for x in (apart, together)]
        spread = shown[0].std() / np.sqrt(len(shown[0]))
        assert shown[1].mean() == pytest.approx(shown[0].mean(), abs=5 * spread)
        assert shown[1].std() == pytest.approx(shown[0].std(), rel=0.1)
    # both react as often as two normal variables of that correlation are below their thresholds
    expected = multivariate_normal([0, 0], [[1, rho], [rho, 1]]).cdf([norm.ppf(p_face), norm.ppf(p_skin)])
    assert ((together > 0).all(1)).mean() == pytest.approx(expected, abs=error)
    assert ((apart > 0).all(1)).mean() == pytest.approx(p_face * p_skin, abs=error)
    both = together[(together > 0).all(1)]
    u = (both[:, 0] - both[:, 0].min()) / np.ptp(both[:, 0])
    z = norm.ppf(np.clip(u, 1e-3, 1 - 1e-3))
    assert np.corrcoef(z, np.log(both[:, 1]))[0, 1] == pytest.approx(rho, abs=0.1)


def test_a_movement_shows_in_face_and_skin_at_the_same_time() -> None:
    key = Person.cohort_key(3, 12)
    still = Person(key, Session(key, 1))
    moving = Person(key, Session(key, 1), coupling=Coupling(movement=2.0))
    found = moving.movements(0.0, 3600.0)
    assert len(found) == pytest.approx(120, abs=4 * np.sqrt(120))
    assert found == [m for start in range(0, 3600, 60) for m in moving.movements(start, start + 60.0)]
    strong = max((m for m in found if m.time > 10), key=lambda m: m.effort)
    assert not still.pain(strong.time)
    faces = [Expressions(p, Speech(p)) for p in (still, moving)]
    calm, effort = (pspi(face(strong.time).aus) for face in faces)
    assert effort > calm + 1
    at = round(strong.time * 100)
    rise = Skin(moving).samples(at, 1, 100) - Skin(still).samples(at, 1, 100)
    assert rise[0] >= 0.9 * strong.height
    far = max(np.arange(20.0, 300, 0.5), key=lambda t: min(abs(t - m.time) for m in found))
    assert faces[0](far).aus == pytest.approx(faces[1](far).aus, abs=0.05)


def test_a_cohort_says_what_was_planted(tmp_path: Path) -> None:
    who = ["--subjects", "2", "--classes", "BL1,PA4", "--seed", "1"]
    out = tmp_path / "c"
    planted = ["--trials", "2", "--correlation", "0.8", "--movement", "6", "--out", str(out), "--jobs", "1", "--quiet"]
    done = CliRunner().invoke(cli, ["synth", "painmonit", *who, *planted])
    assert done.exit_code == 0, done.output
    kept = json.loads((out / "synth.json").read_text())
    assert (kept["correlation"], kept["movement"]) == (0.8, 6.0)
    with (out / "truth.csv").open() as file:
        times = [float(t) for row in csv.DictReader(file) for t in row["movements"].split()]
    assert times and all(0 <= t < 5.5 for t in times)
    tables = {}
    for name, more in {"apart": [], "together": ["--correlation", "0.8"]}.items():
        done = CliRunner().invoke(cli, ["synth", "biovid", *who, "--trials", "40", *more, "--effects"])
        assert done.exit_code == 0, done.output
        tables[name] = float(done.output.splitlines()[-1].split("|")[-2])
    assert tables["together"] > tables["apart"] + 0.2
