"""A rating that was corrected later: what each reader of a recording then holds, worked out by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from jmt_edge.engine.bundle import Bundle
from jmt_edge.live import Quality, Result, RunInfo
from jmt_edge.observer import Mark
from jmt_edge.recording.agreement import agreement
from jmt_edge.recording.export import export_csv
from jmt_edge.recording.fhir import export_fhir
from jmt_edge.recording.ratings import final, rated_windows, uncorrected
from jmt_edge.recording.reader import Recording
from jmt_edge.recording.recorder import Recorder
from jmt_edge.recording.report import report


def test_the_last_correction_counts_and_keeps_the_time_of_the_rating() -> None:
    marks = [Mark(10.0, "cuff", 7), Mark(60.0, "", 2), Mark(75.0, "", 4, 10.0), Mark(90.0, "", 5, 10.0)]
    assert final(marks) == [Mark(10.0, "cuff", 5), Mark(60.0, "", 2)]
    assert final(list(reversed(marks))) == final(marks)


def test_a_withdrawn_rating_is_gone_and_its_note_stays() -> None:
    marks = [Mark(10.0, "", 7), Mark(20.0, "cuff", 7), Mark(30.0, "", None, 10.0), Mark(31.0, "", None, 20.0)]
    assert final(marks) == [Mark(20.0, "cuff", None)] and uncorrected(marks) == []


def test_a_withdrawn_rating_may_be_given_again() -> None:
    marks = [Mark(10.0, "", 7), Mark(30.0, "", None, 10.0), Mark(40.0, "", 6, 10.0)]
    assert final(marks) == [Mark(10.0, "", 6)]


def test_a_correction_whose_rating_was_lost_is_that_rating() -> None:
    assert final([Mark(30.0, "", 4, 10.0), Mark(50.0, "", None, 20.0)]) == [Mark(10.0, "", 4)]


def test_a_slip_that_was_withdrawn_hides_no_other_rating() -> None:
    """Of 7 and 4 within 3 s only the 4 counts; once it is withdrawn, the 7 was no slip."""
    marks = [Mark(10.0, "", 7), Mark(12.0, "", 4)]
    assert [m.rating for m in uncorrected(marks)] == [4]
    assert [m.rating for m in uncorrected([*marks, Mark(30.0, "", None, 12.0)])] == [7]


def test_the_agreement_and_the_rated_windows_are_of_the_corrected_rating() -> None:
    times = np.arange(1, 400) / 2
    pain = np.where(times < 100, 0.2, 0.9)
    right = [Mark(20.0 * (i + 1), "", rating) for i, rating in enumerate((1, 2, 3, 2, 8, 8, 9, 8))]
    wrong = [m if m.t != 100.0 else Mark(m.t, "", 0) for m in right]
    corrected = [*wrong, Mark(150.0, "", 8, 100.0)]
    limits = np.full(len(times), 0.7)
    assert agreement(corrected, times, pain, limits) == agreement(right, times, pain, limits)
    assert agreement(wrong, times, pain, limits) != agreement(right, times, pain, limits)
    nothing = np.empty((len(times), 0))
    ends = [(one.rating, one.ends.tolist()) for one in rated_windows(corrected, times, pain, nothing)]
    assert ends == [(one.rating, one.ends.tolist()) for one in rated_windows(right, times, pain, nothing)]


@pytest.fixture
def recording(tmp_path: Path, trimodal: Bundle) -> Recording:
    task = trimodal.task
    recorder = Recorder(tmp_path / "night", trimodal)
    sources = dict.fromkeys(task.names, "by hand")
    recorder.on_start(RunInfo(trimodal, "hand", {}, 0.5, True, 0.0, sources, origin=1.0))
    quality = {name: Quality(True, "", 0.9) for name in task.names}
    for index in range(1, 121):
        values = dict.fromkeys(task.outputs, 0.5)
        recorder.on_result(
            Result(index, index / 2, task.name, values, "", quality, dict.fromkeys(task.names, 0.3), {"total": 3.0}, 0,
                   trimodal.id)
        )  # fmt: skip
    for mark in (Mark(20.0, "", 7), Mark(40.0, "", 3), Mark(41.5, "", 5, 20.0), Mark(50.0, "", None, 40.0)):
        recorder.on_mark(mark)
    recorder.close()
    return Recording(recorder.folder)


def without_hashes(folder: Path) -> None:
    """As recordings of the first edition are, so that only a line itself can say that it is damaged."""
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["chain"], manifest["closed"]["files"], manifest["closed"]["chain"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for name in ("manifest.sha256", "chain.jsonl"):
        (folder / name).unlink()


def test_the_recording_holds_what_was_given_and_what_came_of_it(recording: Recording, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (recording.folder / "events.jsonl").read_text().splitlines()]
    assert [(one["t"], one["rating"], one["corrects"]) for one in lines] == [
        (20.0, 7, None), (40.0, 3, None), (41.5, 5, 20.0), (50.0, None, 40.0),
    ]  # fmt: skip
    assert [m.corrects for m in recording.marks()] == [None, None, 20.0, 40.0]
    assert [(m.t, m.rating) for m in final(recording.marks())] == [(20.0, 5)]
    assert [m for m in recording.events() if isinstance(m, Mark)] == recording.marks()
    export_csv(recording, tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "events.csv").open(encoding="utf-8", newline="")))
    assert [(row["rating"], row["corrects"]) for row in rows] == [("7", ""), ("3", ""), ("5", "20.0"), ("", "40.0")]


def test_fhir_has_the_corrected_value_only(recording: Recording, tmp_path: Path) -> None:
    (path,) = export_fhir(recording, tmp_path / "night.json")
    resources = [entry["resource"] for entry in json.loads(path.read_text())["entry"]]
    assert [one["valueInteger"] for one in resources if "valueInteger" in one] == [5]


def test_the_report_says_what_it_was_and_what_it_is(recording: Recording) -> None:
    page = report(recording)
    assert "7, later 5" in page and "3, later withdrawn" in page and "for the rating of" in page
    assert "1 of 1 rating with an estimate" in page


def test_a_recording_of_an_earlier_version_has_no_corrections(recording: Recording) -> None:
    path = recording.folder / "events.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()[:2]]
    for line in lines:
        del line["corrects"]
    without_hashes(recording.folder)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert Recording(recording.folder).marks() == [Mark(20.0, "", 7), Mark(40.0, "", 3)]


def test_a_correction_of_what_is_no_time_is_damage(recording: Recording) -> None:
    """The others are read, and the count says so."""
    path = recording.folder / "events.jsonl"
    without_hashes(recording.folder)
    path.write_text(path.read_text().replace("20.0}", '"early"}'))
    again = Recording(recording.folder)
    assert [m.corrects for m in again.marks()] == [None, None, 40.0] and again.unread["events.jsonl"] == 1
