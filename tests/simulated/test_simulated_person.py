"""The simulated person: one latent truth, three sources, the same however they are read."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jmt_edge.capture.base import State
from jmt_edge.capture.simulated import open_simulated, simulated_truth, window_label
from jmt_edge.capture.simulated.eda import Response, Skin
from jmt_edge.capture.simulated.expression import Expressions, pspi
from jmt_edge.capture.simulated.person import Person
from jmt_edge.capture.simulated.scenario import PLATEAU, Session
from jmt_edge.capture.simulated.voice import PHRASE, RATE, Speech
from jmt_edge.errors import SourceError


def _read_all(modality: str, spec: str, ends: list[float]) -> tuple[np.ndarray, np.ndarray]:
    source = open_simulated(modality, spec)
    source.open(0.0)
    chunks = [source.read(end) for end in ends]
    source.close()
    times = np.concatenate([c.times for c in chunks])
    if modality == "face":
        return times, np.array([frame for c in chunks for frame in c.values])
    return times, np.concatenate([c.values for c in chunks])


@pytest.mark.parametrize(("modality", "spec"), [("face", "sim:seed=5&fps=10&size=160x120"), ("voice", "sim:seed=5"),
                                                ("eda", "sim:seed=5&rate=64")])  # fmt: skip
@settings(max_examples=4, deadline=None)
@given(cuts=st.lists(st.floats(0, 5.0), max_size=6))
def test_samples_do_not_depend_on_how_they_are_read(modality: str, spec: str, cuts: list[float]) -> None:
    times, values = _read_all(modality, spec, [5.0])
    cut_times, cut_values = _read_all(modality, spec, [*sorted(cuts), 5.0])
    np.testing.assert_array_equal(cut_times, times)
    np.testing.assert_array_equal(cut_values, values)
    assert np.all(np.diff(times) > 0)
    assert times[-1] <= 5.0


def test_another_seed_is_another_person() -> None:
    one, two = (_read_all("eda", f"sim:seed={s}", [10.0])[1] for s in (1, 2))
    assert np.abs(one - two).max() > 0.05
    assert Person.live(1).traits != Person.live(2).traits


def test_live_people_and_cohort_subjects_never_share_a_key() -> None:
    live = {Person.live(seed).key for seed in range(50)}
    cohort = {Person.cohort_key(seed, subject) for seed in range(50) for subject in range(50)}
    assert not live & cohort
    assert len(cohort) == 2500
    key = Person.cohort_key(3, 0)
    assert Person(key, Session(key, 1)).traits != Person.live(3).traits


def test_face_and_voice_speak_together() -> None:
    person = Person.live(4)
    speech = Speech(person)
    sound = speech.samples(0, 20 * RATE)
    loud = np.sqrt((sound.reshape(-1, RATE // 50) ** 2).mean(axis=1))
    mouth = np.array([speech.opening((i + 0.5) / 50) for i in range(len(loud))])
    assert np.corrcoef(loud, mouth)[0, 1] > 0.5
    other = Speech(Person.live(5))
    stranger = np.array([other.opening((i + 0.5) / 50) for i in range(len(loud))])
    assert np.corrcoef(loud, stranger)[0, 1] < 0.3


def test_skin_and_face_react_to_the_same_pain() -> None:
    """Between a wave's onset and the next the person's own SCR and grimace appear; at rest neither does."""
    person = Person.live(7)
    skin, face = Skin(person), Expressions(person, Speech(person))
    evoked = [r for r in skin.responses(0, 600) if r.evoked]
    assert len(evoked) > 10
    for response in evoked:
        onsets = [s.onset for s in person.scenario.stimuli(response.onset - 3.0, response.onset - 1.0 + 1e-9)]
        assert onsets, "an evoked response starts 1 to 3 s after a stimulus"
    t = np.arange(0, 600, 0.5)
    pain = np.array([person.pain(x) for x in t])
    shown = np.array([pspi(face(x).aus) for x in t])
    assert shown[pain > 0.5].mean() > 5 * shown[pain == 0].mean()


def test_response_has_the_asked_shape() -> None:
    t = np.arange(0, 30, 0.001)
    for rise, decay in [(0.5, 2.0), (1.5, 2.0), (1.0, 5.0), (1.5, 5.0)]:
        wave = Response(2.0, 0.2, rise, decay, evoked=True)(t)
        assert wave.max() == pytest.approx(0.2, rel=1e-3)
        assert t[wave.argmax()] - 2.0 == pytest.approx(rise, abs=0.02)
        assert np.all(wave[t <= 2.0] == 0)
        late = wave[t > 20]  # far from the peak it falls with its time constant
        assert -np.log(late[1000] / late[0]) == pytest.approx(1 / decay, rel=0.05)


def test_reactions_are_realistic() -> None:
    reactions = [r for seed in range(40) for r in Person.live(seed).reactions(0, 600)]
    with_scr = [r for r in reactions if r.scr]
    assert 0.75 < len(with_scr) / len(reactions) < 0.95
    assert all(1.0 <= r.scr_delay <= 3.0 and 0.5 <= r.scr_rise <= 1.5 and 2.0 <= r.scr_decay <= 5.0 for r in with_scr)
    only_face = sum(1 for r in reactions if r.face and not r.scr)
    only_skin = sum(1 for r in reactions if r.scr and not r.face)
    assert only_face > 0.03 * len(reactions)
    assert only_skin > 0.1 * len(reactions)


def test_a_non_responder_shows_almost_no_response() -> None:
    reactions = [r for s in range(30) for r in Person.live(s, responder=False).reactions(0, 600)]
    assert sum(r.scr > 0 for r in reactions) < 0.12 * len(reactions)


def test_arousal_lifts_loudness_and_pitch() -> None:
    person = Person.live(11)
    speech = Speech(person)
    level, pitch, arousal = [], [], []
    for phrase in range(30):
        sound = speech.samples(int(phrase * PHRASE * RATE), int(PHRASE * RATE)).reshape(-1, 1764)
        power = (sound**2).mean(axis=1)
        for block in np.flatnonzero(power > 0.5 * power.max())[::6]:
            x = sound[block] - sound[block].mean()
            correlation = np.correlate(x, x, "full")[len(x) - 1 :]
            lags = slice(RATE // 500, RATE // 60)
            lag = RATE // 500 + int(correlation[lags].argmax())
            level.append(10 * np.log10(power[block]))
            pitch.append(np.log2(RATE / lag))
            arousal.append(person.affect(phrase * PHRASE + (block + 0.5) * 1764 / RATE)[1])
    assert np.corrcoef(level, arousal)[0, 1] > 0.7
    assert np.corrcoef(pitch, arousal)[0, 1] > 0.4


def test_truth_is_bounded_continuous_and_alternates() -> None:
    t = np.arange(0, 1200, 0.1)
    truth = [simulated_truth(0, x) for x in t]
    pain = np.array([x["pain"] for x in truth])
    assert pain.min() == 0
    assert 0.8 < pain.max() <= 1
    assert np.abs(np.diff(pain)).max() < 0.2
    assert 0.2 < (pain > 0.5).mean() < 0.6
    assert 6 <= ((pain[1:] > 0.5) & (pain[:-1] <= 0.5)).sum() <= 12, "an episode in every two minutes"
    for name in ("valence", "arousal"):
        values = np.array([x[name] for x in truth])
        assert np.abs(values).max() <= 1
        assert values.std() > 0.2


def test_window_label_says_what_the_window_shows() -> None:
    labels = {float(end): window_label(0, float(end)) for end in np.arange(10, 240, 1.0)}
    assert {0, 1, None} == set(labels.values())
    assert sum(v is None for v in labels.values()) < 0.25 * len(labels)
    for end, label in labels.items():
        pain = [simulated_truth(0, t)["pain"] for t in np.arange(end - 5.5, end, 0.25)]
        if label == 1:
            assert np.mean(np.array(pain) >= 0.5) > 0.5
        elif label == 0:
            assert max(pain) < 0.05


def test_session_follows_biovids_protocol() -> None:
    key = Person.cohort_key(1, 1)
    session = Session(key, 20)
    starts = np.array([start for _, _, start in session.windows])
    assert len(starts) == 100
    assert np.all(np.diff(starts) >= 13.5)
    assert np.all(np.diff(starts) <= 17.5)
    for name, _, start in session.windows:
        own = session.stimuli(start - 1.0, start + 0.5 + 1e-9)
        assert len(own) == (0 if name == "BL1" else 1)
        if own:
            assert session.pain(own[0].onset + 0.8 + PLATEAU / 2) == pytest.approx(own[0].pain)


def test_memory_stays_bounded_over_hours() -> None:
    source = open_simulated("eda", "sim:seed=1&rate=4")
    source.open(0.0)

    def hour(first: int) -> int:
        for end in range(first * 3600, (first + 1) * 3600, 20):
            source.read(float(end))
            simulated_truth(1, float(end))
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        one = hour(0)
        hour(1)
        three = hour(2)
    finally:
        tracemalloc.stop()
    assert three - one < 100_000


def test_any_moment_is_reached_directly() -> None:
    """Ten hours in, the same truth comes out as when the time before was lived through."""
    late = 36_000.0
    fresh = simulated_truth(21, late)
    person = Person.live(21)
    for t in np.linspace(0, late, 200):
        person.truth(float(t))
    assert person.truth(late) == fresh


@pytest.mark.parametrize("modality", ["face", "voice", "eda"])
def test_dropout_gives_no_samples_and_says_so(modality: str) -> None:
    extra = "&size=96x96&fps=10" if modality == "face" else ""
    source = open_simulated(modality, f"sim:seed=1&drop_at=1&drop_for=2{extra}")
    source.open(0.0)
    before = source.read(0.99)
    assert source.status().state is State.STREAMING
    inside = source.read(2.5)
    status = source.status()
    after = source.read(4.0)
    assert len(before) > 0
    assert len(inside) == 0 or inside.times.max() < 1.0
    assert inside.lost > 0
    assert status.state is State.STALLED
    assert "drop_at" in status.reason
    assert after.times.min() == pytest.approx(3.0, abs=0.11)
    assert source.status().state is State.STREAMING


def test_faults() -> None:
    dark = _read_all("face", "sim:size=96x96&fps=10&fault=dark", [0.5])[1]
    assert dark.mean() < 10
    silent = _read_all("voice", "sim:fault=silent&fault_at=1&fault_for=1", [3.0])
    inside = (silent[0] >= 1) & (silent[0] < 2)
    assert np.all(silent[1][inside] == 0)
    assert np.any(silent[1][~inside] != 0)
    loose = _read_all("eda", "sim:fault=open&fault_at=1", [3.0])
    assert np.isnan(loose[1][loose[0] >= 1]).all()
    assert np.isfinite(loose[1][loose[0] < 1]).all()


@pytest.mark.parametrize(
    ("modality", "spec", "word"),
    [
        ("face", "file.mp4", "sim:"),
        ("face", "sim:colour=red", "colour"),
        ("eda", "sim:fps=25", "fps"),
        ("voice", "sim:seed=x", "seed"),
        ("voice", "sim:seed=-1", "seed"),
        ("voice", "sim:seed=1.5", "whole"),
        ("voice", "sim:seed", "malformed"),
        ("face", "sim:fps=0", "fps"),
        ("face", "sim:size=10", "size"),
        ("face", "sim:fault=open", "dark"),
        ("eda", "sim:rate=nan", "rate"),
        ("smell", "sim:", "smell"),
    ],
)
def test_a_wrong_specification_is_one_sentence(modality: str, spec: str, word: str) -> None:
    with pytest.raises(SourceError, match=word) as caught:
        open_simulated(modality, spec)
    assert "\n" not in str(caught.value)
