"""Every reason for which the gate refuses a signal has an instruction, found in the code that gives the reasons."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from jmt_edge.capture.base import State
from jmt_edge.clips import presence
from jmt_edge.live import gate
from jmt_edge.live.advice import advice
from jmt_edge.preprocessing import face, quality, sight

REFUSALS = {"Verdict", "Quality", "_refused", "_because"}
MODALITIES = ("face", "voice", "eda")


class Reader:
    """The texts that an expression of a module can have; what is known only at run time is "7"."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.tree = ast.parse(Path(str(module.__file__)).read_text())

    def refusals(self) -> Iterator[tuple[str, str]]:
        """(class or function, reason) of each call that refuses."""
        for outer in self.tree.body:
            if isinstance(outer, (ast.ClassDef, ast.FunctionDef)):
                for node in ast.walk(outer):
                    if isinstance(node, ast.Call) and getattr(node.func, "id", "") in REFUSALS | {"replace"}:
                        given = [*node.args, *(k.value for k in node.keywords if k.arg == "reason")]
                        for one in given:
                            yield from ((outer.name, text) for text in self.texts(one, outer))

    def texts(self, node: ast.expr, outer: ast.AST) -> list[str]:
        if isinstance(node, ast.Constant):
            return [node.value] if isinstance(node.value, str) else []
        if isinstance(node, ast.IfExp):
            return [*self.texts(node.body, outer), *self.texts(node.orelse, outer)]
        if isinstance(node, ast.JoinedStr):
            parts = [
                self.texts(p, outer) if isinstance(p, ast.Constant) else self.texts(p.value, outer) or ["7"]
                for p in node.values
                if isinstance(p, (ast.Constant, ast.FormattedValue))
            ]
            return ["".join(chosen) for chosen in itertools.product(*parts)]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = getattr(outer, "name", "") if node.value.id in ("self", "cls") else node.value.id
            found: Any = getattr(getattr(self.module, owner, None), node.attr, None)
            return [found] if isinstance(found, str) else []
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            table = vars(self.module).get(ast.unparse(node.value), {})
            return [table[node.slice.value]] if isinstance(table.get(node.slice.value), str) else []
        if isinstance(node, ast.Name):
            if isinstance(found := getattr(self.module, node.id, None), str):
                return [found]
            values = [a.value for a in ast.walk(outer) if isinstance(a, ast.Assign)
                      and any(isinstance(t, ast.Name) and t.id == node.id for t in a.targets)]  # fmt: skip
            return [text for value in values if value is not node for text in self.texts(value, outer)]
        return []


def words(text: str) -> bool:
    return " " in text.strip() and not text.startswith("7 in ")


def of_faces() -> Iterator[str]:
    """What makes a frame unusable: by its scores, by the tracker, by what covers the face."""
    reader = Reader(quality)
    scores = next(n for n in reader.tree.body if isinstance(n, ast.FunctionDef) and n.name == "_face_scores")
    for node in ast.walk(scores):
        if isinstance(node, ast.Tuple) and len(node.elts) == 2:
            yield from reader.texts(node.elts[1], scores)
    yield from face.LYING.values()
    yield from (face.NO_FACE, face.OTHER, quality.FaceQuality.OTHER)
    for node in ast.walk(Reader(face).tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "SEVERAL.format":
            yield face.SEVERAL.format(*(ast.literal_eval(a) for a in node.args if isinstance(a, ast.Constant)))
    for covered in itertools.product([False, True], repeat=len(sight.REGIONS)):
        yield sight.covering(dict(zip(sight.REGIONS, covered, strict=True)))


def reasons() -> set[tuple[str, str]]:
    """(modality, reason)."""
    found = {("face", text) for text in of_faces() if words(text)}
    found |= {("face", f"{text} in 7 of 9 frames") for _, text in found}
    owner = {"FaceQuality": ["face"], "VoiceQuality": ["voice"], "EdaQuality": ["eda"]}
    for module in (quality, presence, gate):
        for where, text in Reader(module).refusals():
            if words(text):
                found |= {(modality, text) for modality in owner.get(where, MODALITIES)}
    for text in vars(quality.EdaQuality).values():
        if isinstance(text, str) and "\n" not in text and " " in text:
            found.add(("eda", f"EDA {text}: 70% of the window lost"))
    for modality, likes in gate.UNLIKE.items():
        found.add((modality, f"unlike the {likes} these weights were trained on"))
        found |= {(modality, f"sensor {state.value}: its reason") for state in State if state is not State.STREAMING}
        found |= {(modality, f"{state.value}, its reason") for state in State if state is not State.STREAMING}
        found |= {
            (modality, why) for why in (gate.NO_SOURCE, "silent, no samples for 1.2 s", "ended, talk.mp4 has ended")
        }
    # a verdict that only passes another one on, and what other modalities say of a clip
    passed = {"unlike the 7 these weights were trained on", "sensor 7: 7", "EDA 7: 7 of the window lost"}
    passed.add("no valid EDA value for 7 s or more: EDA 7")  # `why` has two meanings there
    return {
        (modality, text)
        for modality, text in found
        if text not in passed
        and not ("a.u." in text and modality != "eda")
        and not ("shows a face" in text and modality != "face")
        and not ("has samples" in text and modality == "face")
    }


def test_the_reasons_of_the_gate_are_found() -> None:
    found = reasons()
    for known in (
        ("face", "face too dark or without contrast in 7 of 9 frames"), ("face", "no camera frame for 7 s"),
        ("face", "half of the face covered"), ("face", "several people: which one is meant is not clear; use --follow"),
        ("face", "only 7 of the clip shows a face"), ("voice", "microphone dead or muted"), ("voice", "no speech"),
        ("voice", "7 of the sound is not a number (NaN)"), ("voice", "narrow-band sound, nothing above 7 kHz"),
        ("eda", "no valid EDA value for 7 s or more: electrode open or saturated"), ("eda", "no samples yet"),
        ("eda", "no valid EDA value for 7 s or more: sensor silent"), ("eda", "warming up: 7 of 7 s"),
        ("eda", "the readings are uncalibrated (a.u.), not µS"), ("eda", "EDA samples missing: 7 of the window lost"),
    ):  # fmt: skip
        assert known in found, sorted(found)
    assert len(found) > 90


def test_every_reason_of_the_gate_has_an_instruction() -> None:
    assert sorted(one for one in reasons() if not advice(*one)) == []


@pytest.mark.parametrize(
    ("modality", "reason", "does"),
    [
        ("face", "face too dark or without contrast in 5 of 9 frames", "Turn the lamp"),
        ("face", "face too far away (too small) in 9 of 9 frames", "Come closer"),
        ("eda", "no valid EDA value for 5.5 s or more: electrode open or saturated", "Press the electrodes on"),
        ("eda", "no valid EDA value for 2.0 s or more: sensor silent", "Check the board"),
        ("voice", "microphone dead or muted", "Switch the microphone on: nothing is heard"),
        ("voice", "no sound for 1.2 s", "Check the microphone's cable"),
        ("face", "sensor lost: no picture from /dev/video0", "Check the camera's cable"),
        ("voice", "no source", "This run has none: begin it with --microphone"),
        ("eda", "warming up: 1.5 of 5.5 s", "Wait"),
        ("eda", "", ""),
        ("eda", "something new", ""),
    ],
)
def test_the_instruction_fits_the_reason(modality: str, reason: str, does: str) -> None:
    assert advice(modality, reason).startswith(does) and bool(advice(modality, reason)) == bool(does)
