"""A recording as FHIR R4: valid by another project's models, complete, and never in the name of a person's own word."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmt_edge.capture.base import State, Status
from jmt_edge.engine.bundle import Bundle
from jmt_edge.live import Mark, Quality, Result, RunInfo
from jmt_edge.media.chunk import Chunk
from jmt_edge.recording.fhir import RATING, SYSTEM, export_fhir
from jmt_edge.recording.reader import Recording
from jmt_edge.recording.recorder import Recorder
from jmt_edge.summary import Summary

CommandLine = Callable[..., tuple[int, str, str]]
MARKS = (Mark(1.2, "cuff inflated"), Mark(1.6, "after the cold pack", 7), Mark(1.6, "", 0))


def recorded(folder: Path, bundle: Bundle, *, realtime: bool = True) -> Recording:
    """Six windows, the third without a number; a note and two ratings. Stream time 0 was ten seconds ago."""
    recorder = Recorder(folder, bundle)
    names = bundle.task.names
    sources = dict.fromkeys(names, "by hand")
    origin = time.monotonic() - 10.0
    recorder.on_start(RunInfo(bundle, "hand", {}, 0.5, realtime, 0.0, sources, origin=origin, uncertainty="90%"))
    for index in range(1, 7):
        t, none = index / 2, index == 3
        recorder.on_chunk("eda", Chunk(t - 0.5 + np.arange(16) / 32, np.full(16, 2.0, np.float32), 32))
        recorder.on_status({name: Status(State.STREAMING, unit="µS") for name in names})
        quality = {name: Quality(not none, "electrode open" if none else "", 0.9) for name in names}
        outputs = None if none else {"pain": 0.1 * index, "valence": -0.25, "arousal": 0.5}
        sure = None if none else {"coverage": 0.9, "pain": ["no"], "valence": [-0.6, 0.1], "arousal": [0.1, 0.9]}
        share = dict.fromkeys(names, None if none else 1 / 3)
        reason = "no modality can be used" if none else ""
        recorder.on_result(
            Result(index, t, bundle.task.name, outputs, reason, quality, share, {}, 0, bundle.id, True, sure)
        )
        for mark in MARKS if index == 3 else ():
            recorder.on_mark(mark)
    recorder.on_end(Summary(bundle.id, True, realtime))
    return Recording(folder)


def exported(recording: Recording, out: Path, **options: Any) -> list[dict[str, Any]]:
    """The resources, each valid by the models of fhir.resources (R4B, whose Observation is R4's)."""
    models = pytest.importorskip("fhir.resources.R4B.bundle", reason="fhir.resources is not installed")
    export_fhir(recording, out, **options)
    models.Bundle.model_validate_json(out.read_text())
    entries = json.loads(out.read_text())["entry"]
    assert len({entry["fullUrl"] for entry in entries}) == len(entries)
    assert all(entry["fullUrl"] == f"urn:uuid:{entry['resource']['id']}" for entry in entries)
    return [entry["resource"] for entry in entries]


def codes(resource: dict[str, Any]) -> list[tuple[str, str]]:
    """Every coding in it, however deep."""
    if isinstance(resource, dict):
        here = [(resource["system"], resource["code"])] if {"system", "code"} <= set(resource) else []
        return here + [pair for value in resource.values() for pair in codes(value)]
    return [pair for value in resource for pair in codes(value)] if isinstance(resource, list) else []


def test_every_window_and_every_rating_is_there_and_valid(trimodal: Bundle, tmp_path: Path) -> None:
    before = datetime.now(timezone.utc)
    found = exported(recorded(tmp_path / "r", trimodal), tmp_path / "r.json", subject="Patient/17")
    kinds = [resource["resourceType"] for resource in found]
    assert kinds == ["CodeSystem", "Device", *["Observation"] * (6 * 3 + 2)]
    estimates, ratings = found[2:20], found[20:]
    pain = [one for one in estimates if one["code"]["coding"][0]["code"] == "pain-probability"]
    values = [one.get("valueQuantity", {}).get("value") for one in pain]
    assert values == pytest.approx([0.1, 0.2, None, 0.4, 0.5, 0.6])
    absent = pain[2]["dataAbsentReason"]
    assert absent["text"] == "no modality can be used" and absent["coding"][0]["code"] == "not-performed"
    assert all(("valueQuantity" in one) != ("dataAbsentReason" in one) for one in estimates)
    assert "eda: electrode open" in [c["code"]["text"] for c in pain[2]["component"]]
    valence = next(one for one in estimates if one["code"]["coding"][0]["code"] == "valence")
    ends = {
        c["code"]["coding"][0]["code"]: c["valueQuantity"]["value"]
        for c in valence["component"]
        if "valueQuantity" in c
    }
    assert ends == {"low": -0.6, "high": 0.1}
    for one in estimates:
        assert one["device"]["reference"] == f"urn:uuid:{found[1]['id']}" and one["status"] == "preliminary"
        assert trimodal.id in one["method"]["text"] and "not for clinical use" in one["note"][0]["text"]
    assert [(one["valueInteger"], one["status"]) for one in ratings] == [(7, "final"), (0, "final")]
    assert ratings[0]["note"][0]["text"] == "after the cold pack" and "device" not in ratings[0]
    assert {one["subject"]["reference"] for one in found[2:]} == {"Patient/17"}
    when = datetime.fromisoformat(pain[0]["effectiveDateTime"])
    assert abs(when - (before - timedelta(seconds=9.5))) < timedelta(seconds=5)
    assert datetime.fromisoformat(pain[3]["effectiveDateTime"]) - when == timedelta(seconds=1.5)


def test_an_estimate_never_has_the_code_of_a_persons_own_word(trimodal: Bundle, tmp_path: Path) -> None:
    found = exported(recorded(tmp_path / "r", trimodal), tmp_path / "r.json")
    defined = {concept["code"] for concept in found[0]["concept"]}
    for one in found[2:]:
        used = codes(one)
        rated = "valueInteger" in one
        assert (("http://loinc.org", RATING) in used) == rated
        assert {system for system, _ in used} <= (
            {"http://loinc.org"} if rated
            else {SYSTEM, "http://unitsofmeasure.org", "http://terminology.hl7.org/CodeSystem/data-absent-reason"}
        )  # fmt: skip
        assert {code for system, code in used if system == SYSTEM} <= defined


def test_what_was_read_from_files_has_no_time_and_an_export_repeats(trimodal: Bundle, tmp_path: Path) -> None:
    recording = recorded(tmp_path / "r", trimodal, realtime=False)
    first = exported(recording, tmp_path / "1.json")
    assert not any("effectiveDateTime" in one or "subject" in one for one in first)
    assert exported(recording, tmp_path / "2.json") == first


def test_the_command(trimodal: Bundle, tmp_path: Path, command_line: CommandLine) -> None:
    recorded(tmp_path / "r", trimodal)
    code, out, _ = command_line("export", tmp_path / "r", "--to", "fhir", "--subject", "Patient/17")
    assert code == 0 and out.strip() == str(tmp_path / "r-fhir.json")
    assert json.loads((tmp_path / "r-fhir.json").read_text())["resourceType"] == "Bundle"
    code, _, err = command_line("export", tmp_path / "r", "--to", "fhir")
    assert code == 2 and "not overwritten" in err
    code, _, err = command_line("export", tmp_path / "r", "--to", "fhir", "--out", tmp_path / "x", "--subject", "Anna")
    assert code == 2 and "not a FHIR reference" in err
