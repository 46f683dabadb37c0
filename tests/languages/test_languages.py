"""Every sentence that a person reads is in German, with the same values in it, and nothing else is in the catalogue."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from sentences import of_html, of_python, of_script, texts
from test_live_advice import Reader, reasons

from jmt_edge import controls
from jmt_edge.beds import page as station_page
from jmt_edge.capture.base import State
from jmt_edge.engine.bundle import INTENDED_USE
from jmt_edge.engine.uncertainty import CLASSES
from jmt_edge.errors import ConfigError
from jmt_edge.languages import LANGUAGES, Language, catalogue_of, language, of_environment
from jmt_edge.live import actions, advice, alarms, events, judge, pipeline, ratings, rest, tui, typed_ratings
from jmt_edge.live.page import api, model
from jmt_edge.live.page import recordings as page_recordings
from jmt_edge.observer import Mark
from jmt_edge.recording import agreement
from jmt_edge.recording.course import OTHER, Reasons
from jmt_edge.summary import notice
from jmt_edge.wall_clock import in_words

OTHERS = LANGUAGES[1:]
PLACE = re.compile(r"\{(\w+)\}")
REFUSALS = {"Refused", "ConfigError", "UnknownRecording", "SourceError"}
# what an English sentence of the API contains that no page asks for: programs read it, and it stays English
FOR_PROGRAMS = (
    "send JSON", "the request", "there is no property", "the property", "'7' must", "'7' is longer", "'seconds' must",
    "'t' must", "'face' must", "there is no event '7'", "there is no alarm '7'; choose", "'since'",
)  # fmt: skip


def catalogue(code: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(catalogue_of(code))
    return found


def refusals(module: ModuleType) -> Iterator[str]:
    """What a person may read where the program refuses something."""
    reader = Reader(module)
    for outer in reader.tree.body:
        for node in ast.walk(outer):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in REFUSALS and node.args:
                yield from reader.texts(node.args[-1], outer)
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("_demand_live"):
                what = node.args[-1]
                assert isinstance(what, ast.Constant)
                yield f"this run is not live (night-3), so {what.value}"


def alarm_texts() -> Iterator[str]:
    """Texts and details of every alarm that the judge feeds."""
    reader = Reader(judge)
    outer = next(n for n in reader.tree.body if isinstance(n, ast.ClassDef) and n.name == "Judge")
    for node in ast.walk(outer):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "feed":
            given = [*node.args[2:3], *(k.value for k in node.keywords if k.arg in ("past", "detail"))]
            for one in given:
                if not re.search("LABEL|SIGNAL", ast.unparse(one)):
                    yield from reader.texts(one, outer)
    yield from ("Pain probability ≥ 70%", "Pain probability was ≥ 70%", "not below 60% yet")
    lost = [state.value for state in (State.STALLED, State.LOST, State.BACKOFF, State.ENDED)]
    yield from (f"{label} {state}" for label in judge.LABEL.values() for state in [*lost, "silent"])
    yield from (f"{signal} cannot be used" for signal in judge.SIGNAL.values())


def of_rest() -> Iterator[str]:
    """A rest and what came of it, as `rest.in_words` and `actions.in_words` say it."""
    difference = {"eda": {"uS": 1.3, "spreads": 2.1}, "voice": {"dB": -3.2, "spreads": 0.4}, "face": {"spreads": 1.1}}
    few = {"eda": {"uS": 1.3}, "voice": {"dB": -3.2}, "face": None}
    none = {"eda": None, "voice": None, "face": None}
    why = ["usable in 40% of the rest: vocal, not speech", "more than one person was followed", "too few windows"]
    yield "rest refused: EDA usable in 0% of the rest: no samples"
    refused = dict(zip(("face", "voice", "eda"), why, strict=True))
    for found in (
        {"left": 80.0}, *({"difference": d, "refused": {}} for d in (difference, few, none)),
        {"difference": {}, "refused": refused},
        *({"difference": {"eda": None}, "refused": {name: reason}} for name, reason in refused.items()),
        {"calibrated": []}, {"calibrated": [], "left": 3.0}, {"calibrated": ["eda", "voice"], "left": 3.0},
    ):  # fmt: skip
        yield rest.in_words(found)
    strengths = dict.fromkeys(actions.ACTIONS, 1.25)
    yield from actions.in_words({"strengths": strengths, actions.INDEX: 3.2})
    yield actions.in_words({"strengths": None, "reason": ""})[0]
    yield from (actions.NO_REST, actions.OTHER, "the person rests: 80 s left", f"rest refused: {why[0]}")
    yield "no frame was measured in the last second"


def of_agreement() -> Iterator[str]:
    """Every line that an agreement can say."""
    times = np.arange(0.0, 600.0)

    def lines(given: list[int], pain: Iterable[float], limits: Iterable[float] | None) -> Iterator[str]:
        marks = [Mark(60.0 * (i + 1), "", rating) for i, rating in enumerate(given)]
        at = None if limits is None else np.asarray(list(limits))
        found = agreement.agreement(marks, times, np.asarray(list(pain)), at)
        yield from (*found.lines(), found.reason)

    rising, flat = times / 600, np.full(600, 0.5)
    wild = (times * 7 % 600) / 600
    steady, changed = np.full(600, 0.7), np.where(times < 300, 0.6, 0.7)
    for given in ([], [3], [8], [3, 4], [1, 2, 3, 4, 5, 8, 9], [8, 8, 8, 8, 8], [1, 8, 2, 9, 4, 3]):
        for pain in (rising, flat, wild):
            for limits in (None, steady, changed):
                yield from lines(given, pain, limits)
    late = [Mark(2000.0 + 60 * i, "", 9) for i in range(2)]
    for marks in (late, late[:1]):
        yield from agreement.agreement(marks, times, rising, steady).lines()


def of_devices() -> Iterator[str]:
    """What devices say while they deliver nothing; the operating system's own words in it are not ours."""
    yield from ("no camera frame for 1.2 s", "opening the device", "the connection was closed", "no data for 1.2 s")
    for symptom in ("no data arrives", "the microphone is silent: no blocks come", "the board OpenBCI sends nothing",
                    "the LSL stream EDA sends nothing"):  # fmt: skip
        yield from (f"{symptom} for 2.5 s", f"{symptom} (2.5 s after connecting)")
    from jmt_edge.capture import brainflow, camera, lsl, microphone
    from jmt_edge.capture.eda import bitalino, port, shimmer3

    for module in (camera, microphone, lsl, brainflow, bitalino, shimmer3, port):
        reader = Reader(module)
        for outer in reader.tree.body:
            for node in ast.walk(outer):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "DeviceLost":
                    yield from reader.texts(node.args[0], outer)
    yield "the simulated sensor dropped out, as set by drop_at"


@lru_cache
def said() -> frozenset[str]:
    """English sentences of the program that a page or a terminal shows, with values in them."""
    gate = {reason for _, reason in reasons()}
    found = {reason.replace("its reason", "no samples yet").replace("talk.mp4 has", "talk.mp4 has") for reason in gate}
    found |= {
        f"no usable modality: face: {one}; voice: no speech; eda: no source" for one in ("no face", "face too bright")
    }
    grouped = Reasons()  # of the report: without what changes from window to window
    for reason in sorted(found):
        grouped.number(reason)
    found |= {*grouped.names, "no reason given"}
    tables = [*advice._OF.values(), advice._ANY]
    found |= {what for table in tables for _, what in table} | set(advice._DEVICE.values())
    found |= {advice.advice(modality, advice.NO_SOURCE) for modality in ("face", "voice", "eda")}
    found |= {*alarm_texts(), *of_rest(), *of_agreement(), *of_devices()}
    for module in (api, controls, alarms, events, page_recordings, station_page, tui, typed_ratings):
        found |= set(refusals(module))
    found |= {text for node in ast.walk(Reader(ratings).tree) if isinstance(node, ast.Return) and node.value is not None
              for text in Reader(ratings).texts(node.value, node)}  # fmt: skip
    found.add("these weights are personalised to P07, for nobody else; begin the run with the general bundle")
    found.discard("these weights are personalised to , for nobody else; begin the run with the general bundle")
    found.add("this request failed inside the program; its log says why")
    found |= {"no samples since the start 7 s ago", "the recording has ended", "talk.mp4 has ended"}
    found |= {text for node in ast.walk(Reader(model).tree) if isinstance(node, (ast.Assign, ast.Return)) and node.value
              for text in Reader(model).texts(node.value, node)}  # fmt: skip
    found |= {"no EDA in this task", "no voice in this task", INTENDED_USE, *CLASSES, "not known", "demo weights"}
    found |= {text for node in ast.walk(Reader(pipeline).tree) if isinstance(node, ast.Return) and node.value
              for text in Reader(pipeline).texts(node.value, node) if text.startswith("not known")}  # fmt: skip
    found |= {Mark(4.0, text, rating, corrects).label for text in ("", "after the cold pack") for rating in (7, None)
              for corrects in (None, 2.0) if rating is not None or corrects is not None}  # fmt: skip
    waits = [f"{what} in 5 s{lost}; u undoes it" for what in ("withdrawn", "rating 7 noted", "changed to 7")
             for lost in ("", ", not saved: recording is off")]  # fmt: skip
    found |= {*waits, "rating 7 undone", "undone: the rating stays as it was", "the rating stays as it was",
              "instead of 7 at 12.0 s: 0-9, t; w withdraws it, u keeps it"}  # fmt: skip
    found |= {OTHER, *(in_words(step) for step in (2.5, -2.5, 4000.0, -4000.0))}
    found |= {notice(demo, subject) for demo in (True, False) for subject in ("", "P07")}
    found |= {
        "recording to /data/night-3", "recording to /data/night-3 (raw face, voice)", "off",
        "recording to /data/night-3 stopped: the disk is full; what was written so far is kept",
        "recording did not start: the disk is full", "this run is not live (files at full speed), so it has no alarms",
        "the recording is not complete: samples were dropped because the disk was slow",
    }  # fmt: skip
    found |= {
        "No connection to the broker: no bed is shown", "There was no connection to the broker", "bed-7 is lost",
        "Two units send as bed-7", "rename one", "not for clinical use",
        "the run broke off (no face)", "its connection was lost",
        "no result for 7 s", "its run has not begun", "it does not answer", "not live, but files at full speed",
        "its page refuses the token; check --bed-token-file", "its page refuses the station (HTTP 403)",
        "what answers there is not a page of jmt-edge (HTTP 404)",
    }  # fmt: skip
    return frozenset(
        text for text in found
        if re.search(r"[^\W\d_]{2}", text) and text not in ("eda", "samples") and not text.startswith(FOR_PROGRAMS)
    )  # fmt: skip


def left_english(german: Language, sentence: str) -> list[str]:
    """The parts of a sentence that no entry translates, but for names, paths and numbers."""
    if sentence in german._said:
        return []
    for template in german._templates:
        if match := template.pattern.fullmatch(sentence):
            parts: list[str] = []
            for name, text in match.groupdict().items():
                if name == "each":
                    parts += text.split("; ")
                elif name == "list":
                    parts += re.split(r", (?![^(]*\))", text)
                elif name != "text":
                    parts.append(text)
            return [left for part in parts for left in left_english(german, part) if " " in part or part == sentence]
    return [sentence]


@pytest.mark.parametrize("code", OTHERS)
def test_every_text_is_translated_and_no_entry_is_unused(code: str) -> None:
    found, known = texts(), catalogue(code)["text"]
    assert len(found) > 250
    assert {text: where for text, where in found.items() if text not in known} == {}
    assert sorted(set(known) - set(found)) == []


@pytest.mark.parametrize("code", OTHERS)
def test_every_sentence_of_the_program_is_translated(code: str) -> None:
    german, found = Language(code), said()
    assert len(found) > 200
    assert {text: left for text in sorted(found) if (left := left_english(german, text))} == {}


@pytest.mark.parametrize("code", OTHERS)
def test_no_entry_for_sentences_of_the_program_is_unused(code: str) -> None:
    german = Language(code)
    used: Counter[str] = Counter()
    patterns = {template.pattern: key for template in german._templates
                for key in german._said if german._said[key] == template.other and "{" in key
                and template.weight == len(PLACE.sub("", key))}  # fmt: skip

    def use(sentence: str) -> None:
        if sentence in german._said:
            used[sentence] += 1
            return
        for template in german._templates:
            if match := template.pattern.fullmatch(sentence):
                used[patterns[template.pattern]] += 1
                for name, text in match.groupdict().items():
                    split = {"each": "; ", "list": r", (?![^(]*\))"}.get(name)
                    for part in re.split(split, text) if split else [text]:
                        use(part)
                return

    for sentence in said():
        use(sentence)
    assert sorted(set(german._said) - set(used)) == []


@pytest.mark.parametrize("code", OTHERS)
@pytest.mark.parametrize("table", ["text", "said"])
def test_a_translation_has_the_values_of_its_sentence(code: str, table: str) -> None:
    def places(text: str) -> Counter[str]:
        return Counter(PLACE.findall(text))

    entries: Mapping[str, str] = catalogue(code)[table]
    assert {s: other for s, other in entries.items() if places(s) != places(other) or not other.strip()} == {}


@pytest.mark.parametrize("code", OTHERS)
def test_a_long_reason_is_known_by_its_beginning(code: str) -> None:
    """The page shortens it, see `brief` in values.js."""
    german = language(code)
    whole = german.translated("no usable modality: face: no face; voice: no speech")
    assert whole.startswith(catalogue(code)["text"]["no usable modality"])


@pytest.mark.parametrize(
    ("english", "german"),
    [
        ("face too bright in 5 of 9 frames", "Gesicht zu hell in 5 von 9 Bildern"),
        ("no camera frame for 1.2 s", "seit 1,2 s kein Kamerabild"),
        ("EDA samples missing: 70% of the window lost", "EDA-Daten fehlen: 70\u00a0% des Fensters verloren"),
        ("sensor lost: /dev/video0 is gone", "Sensor fehlt: /dev/video0 is gone"),
        ("no usable modality: face: no face; eda: no source",
         "kein Signal verwendbar: Gesicht: kein Gesicht; EDA: keine Quelle"),
        ("from rest: EDA +1.30 µS (2.1 SD), voice has no rest (vocal, not speech)",
         "zur Ruhe: EDA +1,30 µS (2,1 SD), Stimme ohne Ruhewert (Laute, aber keine Sprache)"),
        ("Pain probability was ≥ 70%", "Schmerzwahrscheinlichkeit war ≥\u00a070\u00a0%"),
        ("rest: 1:20 left", "Ruhephase: noch 1:20"),
        ("rating 7: no face", "Angabe 7: no face"),  # what a person wrote
        ("something that nobody has translated", "something that nobody has translated"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_sentence_is_translated_with_its_values(english: str, german: str) -> None:
    assert language("de").translated(english) == german
    assert language("en").translated(english) == english


def test_sentences_and_plurals() -> None:
    german = language("de")
    assert german.tr("{n} of {all} beds live", n=2, all=3) == "2 von 3 Betten live"
    assert german.tr("{what} at {time}", what="{time}", time="13:02") == "{time} um 13:02"  # a value is not a template
    one, other = "{seen} of {n} rating ≥ {limit} seen", "{seen} of {n} ratings ≥ {limit} seen"
    assert german.trn(one, other, 1, seen=0, limit=7) == "0 von 1 Angabe ≥ 7 erkannt"
    assert german.trn(one, other, 2, seen=1, limit=7) == "1 von 2 Angaben ≥ 7 erkannt"
    assert language("en").trn(one, other, 2, seen=1, limit=7) == "1 of 2 ratings ≥ 7 seen"


def test_the_language_of_the_locale() -> None:
    for told, code in (
        ("de_DE.UTF-8", "de"),
        ("de", "de"),
        ("de_AT", "de"),
        ("C.UTF-8", "en"),
        ("den", "en"),
        ("", "en"),
    ):
        assert of_environment({"LANG": told}) == code, told
    assert of_environment({"LC_ALL": "C", "LANG": "de_DE.UTF-8"}) == "en"
    with pytest.raises(ConfigError, match="there is no language 'fr'; choose en or de"):
        language("fr")


def test_a_call_without_a_literal_is_found() -> None:
    assert list(
        of_script('say(node, tr("a {n}", { n }) + trn("b", "c", 2)); // tr(x)\n// tr(y)'.replace(" // tr(x)", ""))
    ) == ["a {n}", "b", "c"]
    for wrong in ("tr(words)", "tr(`a ${n}`)", 'trn("one", many, 2)', 'tr(on ? "a" : "b")'):
        with pytest.raises(AssertionError):
            list(of_script(wrong))
    with pytest.raises(AssertionError):
        list(of_python("language.tr(words)"))
    assert of_html('<body><p title="a">b <b translate="no">c</b></p><i>—</i></body>') == ["a", "b"]
