"""Ratings refit a few numbers per person: they help who needs it, hurt nobody, are refused where they say nothing, and
can be undone to the last byte."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_fixture import FakeEngine, hand_bundle

from jmt_edge.capture.base import State, Status
from jmt_edge.engine.bundle import Bundle, load_bundle, write_bundle
from jmt_edge.engine.personal import Personal, logit, probability
from jmt_edge.engine.uncertainty import Uncertainty
from jmt_edge.errors import BundleError, DataError, SourceError
from jmt_edge.live import Pipeline
from jmt_edge.media.chunk import Chunk
from jmt_edge.observer import Mark, RunInfo
from jmt_edge.plain_files import checksum
from jmt_edge.recording.fhir import export_fhir
from jmt_edge.recording.personalise import (
    PRIOR,
    Decided,
    Judged,
    Refit,
    _in_blocks,
    _interval,
    decide,
    fit,
    judge,
    refit,
    undo_personal,
    write_personal,
)
from jmt_edge.recording.ratings import LEAST, Rated, Read, rated_windows, read_ratings, split
from jmt_edge.recording.reader import Recording
from jmt_edge.recording.recorder import Recorder
from jmt_edge.recording.replay import replay
from jmt_edge.result import Quality, Result
from jmt_edge.summary import Summary, notice
from jmt_edge.tasks import get_task

CommandLine = Callable[..., tuple[int, str, str]]
NAMES = ("face", "eda")
HOP = 0.5
STEADY = {
    "people": 3,
    "windows": 120,
    "outputs": {"pain": {"limit": 0.03, "within": 1.0, "p95": 0.01, "largest": 0.02}},
}
PROMISE = Uncertainty(0.9, 20, 100, {frozenset(NAMES): {"pain": (0.2, 0.2)}}).to_manifest()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("bundle") / "hand.jmt"
    return hand_bundle(get_task("pain", "demo"), path, extra={"uncertainty": PROMISE, "sensitivity": STEADY})


class Someone:
    """The logits of face and skin of one person at a rating; a stoic face stays at its level, as does a dead skin."""

    def __init__(self, seed: int, kind: str = "usual") -> None:
        self._rng = np.random.default_rng(seed)
        self._kind = kind

    def now(self, pain: bool) -> tuple[float, float]:
        shown = 2.0 if pain else -2.0
        face, eda = (-2.0 if self._kind == still else shown for still in ("stoic", "non-responder"))
        return face + 1.3 * self._rng.normal(), eda + 1.3 * self._rng.normal()

    def ratings(self, count: int) -> list[Rated]:
        """One a minute."""
        rated = []
        for i in range(count):
            pain = bool(self._rng.random() < 0.5)
            face, eda = self.now(pain)
            rating = int(self._rng.integers(4, 11) if pain else self._rng.integers(0, 4))
            end = 60.0 * (i + 1)
            rated.append(Rated(end, rating, np.array([end]), np.array([face + eda]), np.array([[eda, face]])))
        return rated


def record(
    folder: Path,
    bundle: Bundle,
    person: Someone,
    ratings: int = 40,
    *,
    pain_first: bool = False,
    smooth: float = 0.0,
    at: int = 0,
) -> Path:
    """A recording with a rating a minute, of results that are made up here."""
    recorder = Recorder(folder, bundle)
    sources = {name: f"sim:{name}" for name in NAMES}
    recorder.on_start(RunInfo(bundle, "onnxruntime", {}, HOP, False, smooth, sources))
    rng = np.random.default_rng(5)
    for i in range(ratings):
        pain = i < ratings / 2 if pain_first else i % 2 == 1
        for step in range(20):
            index = round(at / HOP) + 120 * i + step + 1
            face, eda = person.now(pain)
            recorder.on_status({})
            outputs = {"pain": probability(face + eda)}
            without = {"face": {"pain": probability(eda)}, "eda": {"pain": probability(face)}}
            general = {"outputs": outputs, "without": without} if bundle.personal else None
            if bundle.personal:
                outputs, without = bundle.personal.apply(outputs, without)
            recorder.on_result(
                Result(
                    index, index * HOP, "pain", outputs, "", {name: Quality(True, "", 0.9) for name in NAMES},
                    dict.fromkeys(NAMES, 0.5), {"total": 1.0}, 0, bundle.id, without=without, general=general,
                )
            )  # fmt: skip
        recorder.on_mark(Mark(at + (120 * i + 20) * HOP, "", int(rng.integers(5, 10) if pain else rng.integers(0, 3))))
    recorder.close()
    return folder


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest as somebody would who knows the format."""
    text = json.dumps(manifest)
    (folder / "manifest.json").write_text(text)
    (folder / "manifest.sha256").write_bytes(checksum(text.encode(), "manifest.json"))


# ---- what is fitted


def decided(kind: str, people: int) -> list[tuple[Decided, Judged]]:
    """What the first 20 of 40 ratings decide, and how the last 20 judge that."""
    found = []
    for seed in range(people):
        support, test = split(Someone(seed, kind).ratings(40), 5.5)
        one = decide(support, NAMES, 5.5)
        found.append((one, judge(test, NAMES, one.personal, Personal())))
    return found


@pytest.mark.parametrize("kind", ["stoic", "non-responder"])
def test_the_error_on_later_ratings_falls_for_people_who_need_it(kind: str) -> None:
    """Of 40 people with 40 ratings each."""
    found = decided(kind, 40)
    gains = np.array([j.gain for _, j in found])
    assert gains.mean() > 0.04 and (gains > 0).mean() > 0.8 and gains.min() > -0.01
    assert sum(d.worth for d, _ in found) > 32


def test_nobody_is_hurt_who_needs_nothing() -> None:
    """Most of 60 people keep the general parameters, the mean over all is not below 0 by more than its own uncertainty,
    and no one's loss is certain.
    """
    found = decided("usual", 60)
    gains = np.array([j.gain for _, j in found])
    assert gains.mean() > -1.96 * gains.std() / math.sqrt(len(gains))
    assert not any(j.interval[1] < 0 for _, j in found)
    assert gains.min() > -0.02
    assert all(d.personal == Personal() for d, _ in found if not d.worth)


def test_ratings_by_chance_seldom_make_a_change() -> None:
    """Of 200 people whose ratings are as probable as the network says: one interval of 80 % in ten lies above 0."""
    rng = np.random.default_rng(7)
    worth = 0
    for _ in range(200):
        z = rng.normal(0, 2, (20, 2))
        pain = rng.random(20) < 1 / (1 + np.exp(-z.sum(1)))
        rated = [
            Rated(60.0 * i, 9 * int(p), np.array([60.0 * i]), zi.sum(keepdims=True), zi[None, ::-1])
            for i, (p, zi) in enumerate(zip(pain, z))
        ]
        worth += decide(rated, NAMES, 5.5).worth
    assert worth <= 30  # 20 expected, SD 4.2


def test_gains_that_resemble_their_neighbours_count_for_fewer() -> None:
    rng = np.random.default_rng(0)
    alone = rng.normal(0.1, 1, 400)
    alike = np.repeat(alone[:40], 10)
    width = {len(set(x)): np.diff(_interval(x))[0] for x in (alone, alike)}
    assert width[400] == pytest.approx(2 * 1.28 / 20, rel=0.1)  # of 400 independent ones
    assert width[40] > 2 * width[400]


def test_a_block_is_judged_by_what_shares_no_signal_with_it() -> None:
    t = np.arange(1, 401) * 0.5
    rated = rated_windows(
        [Mark(12.0 * (i + 1), "", 9 * (i % 2)) for i in range(16)], t, np.zeros(400), np.zeros((400, 2))
    )
    blocks = list(_in_blocks(rated[::-1], 5.5))
    assert [r.t for block, _ in blocks for r in block] == [r.t for r in rated] and len(blocks) == 5
    for block, others in blocks:
        ends = np.concatenate([r.ends for r in others])
        first, last = block[0].ends[0], block[-1].ends[-1]
        assert len(ends) > 100 and ((ends <= first - 5.5) | (ends - 5.5 >= last)).all()


def test_no_ratings_are_no_change() -> None:
    """The prior alone: contradictory ratings of the same windows leave the parameters near where they were."""
    same = [Rated(float(i), 8 * (i % 2), np.array([float(i)]), np.zeros(1), np.zeros((1, 2))) for i in range(40)]
    new = fit(same, NAMES)
    assert new.scale == pytest.approx(1) and new.bias == pytest.approx(0, abs=1e-4)
    assert new.weights == pytest.approx({"face": 0, "eda": 0})


def test_the_fit_is_the_minimum() -> None:
    """Against a grid over scale and bias, of ratings without what-ifs."""
    rated = [replace(r, without=np.full((1, 2), np.nan)) for r in Someone(3, "stoic").ratings(30)]
    z, y = np.array([r.logits[0] for r in rated]), np.array([r.rating >= 4 for r in rated])
    scale, bias = np.meshgrid(np.linspace(0.1, 2, 191), np.linspace(-1, 4, 501))
    u = scale[..., None] * z + bias[..., None]
    loss = (np.logaddexp(0, u) - y * u).sum(-1)
    loss += 0.5 * ((scale - 1) / PRIOR["scale"]) ** 2 + 0.5 * (bias / PRIOR["bias"]) ** 2
    at = np.unravel_index(loss.argmin(), loss.shape)
    new = fit(rated, NAMES, what_ifs=False)
    assert new.weights == {} and new.scale == pytest.approx(scale[at], abs=0.01)
    assert new.bias == pytest.approx(bias[at], abs=0.01)


def test_ratings_that_all_share_signal_decide_nothing() -> None:
    ratings = [replace(r, t=3.5 * i, ends=np.array([3.5 * i])) for i, r in enumerate(Someone(1, "stoic").ratings(20))]
    assert decide(ratings, NAMES, 5.5).gain > 0
    assert not decide(ratings, NAMES, 100.0).worth


# ---- which windows a rating is about


@pytest.mark.parametrize("kept", [True, False], ids=["with origin", "of an earlier edition"])
def test_parts_of_a_run_are_read_on_the_runs_clock(kept: bool, bundle: Bundle, tmp_path: Path) -> None:
    """A second part begins with the stream time of the run, which was added to the time when it was begun, so that its
    ratings seemed to come after those of the next session.
    """
    began = datetime(2026, 11, 27, 9, 0, tzinfo=timezone.utc)
    parts = {"a": (0, 0), "a-2": (3600, 3600), "b": (4000, 0)}  # begun after (s), first stream time (s)
    found = {}
    for name, (after, t) in parts.items():
        folder = record(tmp_path / name, bundle, Someone(1), 3, at=t)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["created"] = (began + timedelta(seconds=after)).isoformat()
        manifest["origin"] = (began + timedelta(seconds=after - t)).isoformat() if kept else None
        seal(folder, manifest)
        found[name] = [r.t - began.timestamp() for r in read_ratings(Recording(folder), bundle).rated]
    assert found["a"] == pytest.approx([10, 70, 130], abs=1)
    assert found["a-2"] == pytest.approx([3610, 3670, 3730], abs=1)
    assert found["b"] == pytest.approx([4010, 4070, 4130], abs=1)


def test_a_rating_is_about_the_ten_seconds_before_it_and_slips_do_not_count() -> None:
    t = np.arange(1, 200) * 0.5
    marks = [Mark(20.2, "", 7), Mark(24.0, "", 3), Mark(25.5, "", 8), Mark(40.0, "moved"), Mark(90.0, "", 0)]
    found = rated_windows(marks, t, np.zeros(199), np.zeros((199, 2)), began=1000.0)
    assert [r.rating for r in found] == [7, 8, 0]  # 3 was a slip
    assert [(r.ends[0] - 1000, r.ends[-1] - 1000) for r in found] == [(10.5, 20.0), (20.5, 25.5), (80.5, 90.0)]
    assert [r.t - 1000 for r in found] == pytest.approx([20.2, 25.5, 90.0])


def test_the_halves_share_no_signal() -> None:
    t = np.arange(1, 4001) * 0.5
    marks = [Mark(12.0 * (i + 1), "", 9 * (i % 2)) for i in range(100)]
    rated = rated_windows(marks, t, np.zeros(4000), np.zeros((4000, 2)))
    support, test = split(rated, 5.5)
    last = max(r.ends[-1] for r in support)
    assert len(support) == 50 and min(r.ends[0] for r in test) - 5.5 >= last
    support, test = split([*rated[50:], *rated[:50]], 5.5)  # in any order
    assert max(r.t for r in support) < min(r.t for r in test)


def test_too_few_or_one_sided_ratings_are_refused_with_the_numbers() -> None:
    some = Someone(0).ratings(60)
    for part in ([], some[: 2 * LEAST], [r for r in some if r.rating >= 4], sorted(some, key=lambda r: r.rating)):
        rated = [replace(r, t=60.0 * i, ends=np.array([60.0 * i])) for i, r in enumerate(part)]
        with pytest.raises(DataError, match=r"the first half has \d+ below 4 and \d+ from 4 on.*it takes 5 of each"):
            split(rated, 5.5)


# ---- the command


def test_the_command_writes_a_bundle_that_says_whose_it_is(
    bundle: Bundle, tmp_path: Path, command_line: CommandLine
) -> None:
    day = record(tmp_path / "day1", bundle, Someone(1, "stoic"))
    out = tmp_path / "p07.jmt"
    code, said, err = command_line("personalise", day, "--bundle", bundle.path, "--subject", "P07", "--out", out)
    assert code == 0, err
    assert "40 ratings in 1 recording" in said and "gain +" in said and "--undo" in said
    new = load_bundle(out)
    assert new.subject == "P07" and new.id.startswith("hand-for-P07@") and new.personal is not None
    assert "P07" in notice(True, new.subject) and new.uncertainty is None
    assert "sensitivity" not in new.manifest and new.manifest["personal"]["set_aside"]["sensitivity"] == STEADY
    entry = new.manifest["personal"]
    assert entry["recordings"][0]["sha256"] == Recording(day).seal.identity
    assert entry["before"] == [{"bundle": bundle.id, "sha256": bundle.sha256, "parameters": Personal().to_manifest()}]
    assert entry["held_out"]["brier"]["after"] < entry["held_out"]["brier"]["before"]
    assert new.personal.weights["face"] > 0.1 > abs(new.personal.weights["eda"]) - 0.5
    assert {n: f.sha256 for n, f in new.files.items()} == {n: f.sha256 for n, f in bundle.files.items()}

    back = tmp_path / "back.jmt"
    code, said, _ = command_line("personalise", "--undo", "--bundle", out, "--out", back)
    assert code == 0 and "the very bundle" in said
    assert (back / "manifest.json").read_bytes() == (bundle.path / "manifest.json").read_bytes()


def test_where_no_change_is_worth_making_the_command_says_so_and_writes_nothing(
    bundle: Bundle, tmp_path: Path, command_line: CommandLine
) -> None:
    class Right(Someone):
        """The network is sure, and right; so are all ratings."""

        def now(self, pain: bool) -> tuple[float, float]:
            return (6.0, 6.0) if pain else (-6.0, -6.0)

    day = record(tmp_path / "day", bundle, Right(1))
    out = tmp_path / "p07.jmt"
    code, said, err = command_line("personalise", day, "--bundle", bundle.path, "--subject", "P07", "--out", out)
    assert code == 1 and not out.exists()
    assert "no change is worth making" in said and "held-out" not in said
    assert err.strip().endswith(f"nothing written: no change is worth making; {bundle.id} stays as it is")


def test_recordings_of_the_general_bundle_still_count_for_the_personal_one(
    bundle: Bundle, tmp_path: Path, command_line: CommandLine
) -> None:
    first, out, x = record(tmp_path / "day1", bundle, Someone(1, "stoic")), tmp_path / "p07.jmt", tmp_path / "x.jmt"
    whose = ("--subject", "P07")
    assert command_line("personalise", first, "--bundle", bundle.path, *whose, "--out", out)[0] == 0
    # on the same ratings, the personal bundle has nothing to gain
    code, said, err = command_line("personalise", first, "--bundle", out, *whose, "--out", x)
    assert code == 1 and "nothing written" in err and "gain +0.000" in said and not x.exists()
    code, _, err = command_line("personalise", first, first, "--bundle", out, *whose, "--out", x)
    assert code == 2 and "given twice" in err
    write_bundle(tmp_path / "other.jmt", {**bundle.manifest, "name": "other"}, bundle.files)
    code, _, err = command_line("personalise", first, "--bundle", tmp_path / "other.jmt", *whose, "--out", x)
    assert code == 2 and f"was made with {bundle.id}" in err


def test_of_a_personal_bundles_recording_the_networks_own_results_are_read(bundle: Bundle, tmp_path: Path) -> None:
    """So a refit does not depend on the bundle that recorded; the parameters before it stay in the list."""
    new = personalised(bundle, tmp_path / "p.jmt", Personal(0.5, 1.0, {"face": 0.3, "eda": 0.1}))
    plain = record(tmp_path / "plain", bundle, Someone(2, "stoic"))
    changed = record(tmp_path / "changed", new, Someone(2, "stoic"))
    first, second = (read_ratings(Recording(folder), new) for folder in (plain, changed))
    for a, b in zip(first.rated, second.rated, strict=True):
        assert a.rating == b.rating and (a.logits == b.logits).all() and (a.without == b.without).all()
    newer = write_personal(new, refit(new, [second], "P07"), [second], tmp_path / "newer.jmt")
    assert [e["sha256"] for e in newer.manifest["personal"]["before"]] == [bundle.sha256, new.sha256]
    assert newer.manifest["personal"]["before"][1]["parameters"]["bias"] == 1.0
    assert undo_personal(newer, tmp_path / "back.jmt").sha256 == bundle.sha256


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"ratings": 12}, "it takes 5 of each"),
        ({"pain_first": True}, "one-sided"),
        ({"smooth": 10.0}, "record without --smooth"),
    ],
)
def test_recordings_that_say_nothing_are_refused(
    change: dict[str, float], part: str, bundle: Bundle, tmp_path: Path, command_line: CommandLine
) -> None:
    day = record(tmp_path / "day", bundle, Someone(1), **change)  # type: ignore[arg-type]
    code, _, err = command_line(
        "personalise", day, "--bundle", bundle.path, "--subject", "P", "--out", tmp_path / "x.jmt"
    )
    assert code == 2 and part in err and err.count("\n") == 1 and not (tmp_path / "x.jmt").exists()


def test_a_recording_of_somebody_else_is_refused(bundle: Bundle, tmp_path: Path, command_line: Any) -> None:
    day = record(tmp_path / "day", bundle, Someone(1), 40)
    arguments = ("personalise", day, "--bundle", bundle.path, "--out", tmp_path / "x.jmt", "--subject")
    manifest = json.loads((day / "manifest.json").read_text())
    assert manifest["subject"] == ""
    seal(day, {**manifest, "subject": "P08"})
    code, _, err = command_line(*arguments, "P07")
    assert code == 2 and "is of P08, not of P07" in err and not (tmp_path / "x.jmt").exists()
    assert "is of P08" not in command_line(*arguments, "P08")[2]


def test_an_altered_recording_and_a_missing_code_are_refused(
    bundle: Bundle, tmp_path: Path, command_line: CommandLine
) -> None:
    day = record(tmp_path / "day", bundle, Someone(1))
    arguments = ("--bundle", bundle.path, "--out", tmp_path / "x.jmt")
    for subject in ((), ("--subject", "Jane Doe"), ("--subject", "../x")):
        code, _, err = command_line("personalise", day, *subject, *arguments)
        assert code == 2 and "--subject CODE" in err
    assert command_line("personalise", "--undo", *arguments)[2].startswith(f"jmt-edge: {bundle.path} is not personal")
    marks = (day / "events.jsonl").read_text()
    (day / "events.jsonl").write_text(marks.replace('"rating": 9', '"rating": 0', 1))
    code, _, err = command_line("personalise", day, "--subject", "P", *arguments)
    assert code == 2 and "was altered: events.jsonl" in err


def test_the_manifest_entry_is_checked(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="personal"):
        write_bundle(tmp_path / "x.jmt", {**bundle.manifest, "personal": {"subject": "P"}}, bundle.files)


# ---- a run


def personalised(bundle: Bundle, path: Path, personal: Personal) -> Bundle:
    rated = Someone(1, "stoic").ratings(40)
    _, test = split(rated, 5.5)
    decided = Decided(personal, 0.1, (0.05, 0.15))
    found = Refit("P07", decided, judge(test, NAMES, personal, Personal()), 20, 20, 4, True)
    return write_personal(bundle, found, [Read("0" * 64, "", rated, True)], path)


def steps(windows: int = 30) -> Iterator[tuple[int, Chunk, dict[str, Status]]]:
    """(window, its new samples, the statuses) of a run on EDA alone."""
    times = np.arange(0, 0.5 * windows, 1 / 16)
    values = (5 + 0.3 * np.sin(times)).astype(np.float32)
    for i in range(1, windows + 1):
        new = (times > (i - 1) * 0.5) & (times <= i * 0.5) if i > 1 else times <= 0.5
        yield i, Chunk(times[new], values[new], 16.0), {"eda": Status(State.STREAMING, unit="µS")}


def run_pain(bundle: Bundle, *, smooth: float = 0.0) -> list[Result]:
    """The results once the window is full."""
    pipeline = Pipeline(bundle, FakeEngine(bundle.task), 0.5, ["eda"], smooth=smooth)
    results = []
    for i, chunk, statuses in steps():
        pipeline.push("eda", chunk)
        results.append(pipeline.infer(i, statuses))
    return results[20:]


def test_a_run_applies_it_and_shows_both(bundle: Bundle, tmp_path: Path) -> None:
    personal = Personal(0.5, 1.0, {"face": 0.5, "eda": 0.2})
    new = personalised(bundle, tmp_path / "p.jmt", personal)
    before, after = run_pain(bundle), run_pain(new)
    assert before[0].outputs is not None and "general" not in before[0].to_dict()
    for old, result in zip(before, after):
        assert old.outputs and result.outputs and result.general is not None
        assert result.general["outputs"] == old.outputs  # the networks' own number stays beside it
        assert logit(result.outputs["pain"]) == pytest.approx(0.5 * logit(old.outputs["pain"]) + 1)
        assert json.loads(result.to_json())["general"] == result.general
    assert run_pain(new, smooth=2.0)[-1].general is None
    assert Pipeline(new, FakeEngine(new.task), 0.5, ["eda"]).uncertainty == "not known for one person"


def test_a_recording_its_export_and_the_summary_say_whose_it_is(bundle: Bundle, tmp_path: Path) -> None:
    """Of a general bundle and of an earlier edition they say nothing; what is not a code is damage."""
    new = personalised(bundle, tmp_path / "p.jmt", Personal(0.5, 1.0, {}))
    folders = {
        "P07": record(tmp_path / "mine", new, Someone(2), 1),
        "": record(tmp_path / "plain", bundle, Someone(2), 1),
    }
    old = record(tmp_path / "old", new, Someone(2), 1)
    manifest = json.loads((old / "manifest.json").read_text())
    del manifest["bundle"]["subject"]
    seal(old, manifest)
    assert Recording(old).subject == ""
    for subject, folder in folders.items():
        assert Recording(folder).subject == subject
        export_fhir(Recording(folder), out := tmp_path / f"{folder.name}.json")
        entries = [entry["resource"] for entry in json.loads(out.read_text())["entry"]]
        notes = [one["note"][0]["text"] for one in entries if one["resourceType"] == "Device" or "component" in one]
        assert len(notes) == 21 and all(("personalised to P07" in note) == bool(subject) for note in notes)
        said = Summary(new.id, False, False, subject=subject).lines()[-1]
        assert ("personalised to P07" in said) == bool(subject)
    manifest["bundle"]["subject"] = "P07\x1b[31m"
    seal(old, manifest)
    with pytest.raises(SourceError, match="'bundle' is not"):
        Recording(old)


def test_what_a_modality_adds_is_taken_away() -> None:
    personal = Personal(1.0, 0.0, {"face": 1.0, "eda": 0.0})
    outputs, what_ifs = personal.apply(
        {"pain": probability(-1.0), "valence": 0.3},
        {"face": {"pain": probability(2.0), "valence": 0.1}, "eda": {"pain": probability(-3.0), "valence": 0.2}},
    )
    assert outputs == {"pain": pytest.approx(probability(2.0)), "valence": 0.3}  # the face no longer counts
    assert what_ifs["face"] == {"pain": pytest.approx(probability(2.0)), "valence": 0.1}
    assert logit(probability(40.0)) == 36.0 and logit(0.0) == -36.0 and math.isfinite(logit(1.0))


def test_a_replay_gives_the_personal_results_again(bundle: Bundle, tmp_path: Path) -> None:
    new = personalised(bundle, tmp_path / "p.jmt", Personal(0.5, 1.0, {"eda": 0.2}))
    folder = tmp_path / "run"
    recorder = Recorder(folder, new)
    recorder.on_start(RunInfo(new, "fake", {}, 0.5, False, 0.0, {"face": "", "eda": "x"}))
    pipeline = Pipeline(new, FakeEngine(new.task), 0.5, ["eda"])
    results = []
    for i, chunk, statuses in steps():
        pipeline.push("eda", chunk)
        results.append(pipeline.infer(i, statuses))
        recorder.on_chunk("eda", chunk)
        recorder.on_status(statuses)
        recorder.on_result(results[-1])
    recorder.close()
    outcome = replay(Recording(folder), new, FakeEngine(new.task), Pipeline)
    assert results[-1].general is not None and outcome.recomputed == outcome.equal == len(results)
