"""What to do about a signal that cannot be used: one instruction for every reason of the gate.

The reasons are those of `preprocessing.quality`, `clips.presence` and `live.gate`, and the states of a device. The
first entry whose text is in the reason counts.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..capture.base import State
from ..clips.presence import WARMING_UP
from ..preprocessing.face import LYING, NO_FACE, OTHER
from ..preprocessing.quality import EdaQuality, FaceQuality, VoiceQuality
from ..tasks import OPTIONS
from .gate import NO_SOURCE

Rules = Sequence[tuple[str, str]]  # (what the reason contains, what to do)

_DEVICE = {
    "face": "Check the camera's cable, and that no other program uses it",
    "voice": "Check the microphone's cable, and that no other program uses it",
    "eda": "Check the board's cable or Bluetooth, and that it is switched on",
}
_STATES = (State.CONNECTING, State.STALLED, State.LOST, State.BACKOFF)

_ANY: Rules = (
    (WARMING_UP, "Wait: the first clip is not full yet"),
    ("has ended", "The recording is over: begin another run"),
    ("ended", "The recording is over: begin another run"),
)
_FREE = "Free the face: a hand, a mask, glasses or the blanket cover it"
_OF: dict[str, Rules] = {
    "face": (
        (NO_FACE, "Point the camera at the face: nobody is seen"),
        ("several people", "Let only one person be in the picture"),
        (OTHER, "Bring back the first person, or begin the run again: it follows nobody else"),
        (FaceQuality.OTHER, "Keep everybody else out of the picture for a few seconds"),
        (LYING[90], "Let the head rest for a second, or turn the camera upright"),
        (LYING[180], "Let the head rest for a second, or turn the camera upright"),
        ("covered", _FREE),
        ("partly hidden", _FREE),
        ("too far away", "Come closer: the face is too small"),
        ("too dark", "Turn the lamp to the face: it is too dark, or lit from behind"),
        ("too bright", "Turn the lamp away, or draw the curtain: the face is too bright"),
        ("blurred", "Focus the camera and keep it still: the face is blurred"),
        ("turned away", "Move the camera in front of the face: it is turned away"),
        ("of the clip shows a face", "Keep the face in the picture: it is seen only at times"),
        ("unlike the", "Check light and distance: these weights do not know such a face"),
    ),
    "voice": (
        ("dead or muted", "Switch the microphone on: nothing is heard"),
        ("too quiet", "Move the microphone nearer, 30 to 50 cm from the mouth: too quiet"),
        ("clipped", "Move the microphone away, or turn its level down: too loud"),
        (VoiceQuality.PAUSE, "Let the person speak on: this is a pause"),
        (VoiceQuality.VOCAL, "Let the person say a sentence: a voice is heard, but no speech"),
        (VoiceQuality.NO_SPEECH, "Let the person say a sentence: no speech is heard"),
        (VoiceQuality.NARROW, "Choose another microphone: this one sounds like a telephone"),
        (VoiceQuality.NOT_NUMBERS, "Unplug the microphone and plug it in again: its values are not numbers"),
        ("cancel each other out", "Give the microphone as ?channels=1, or fix its wiring: its channels cancel out"),
        ("sound is missing", "Plug the microphone into the computer itself: half of the sound is lost on the way"),
        ("of the clip has samples", "Plug the microphone into the computer itself: sound is lost on the way"),
        ("unlike the", "Move the microphone nearer, away from other noise: these weights do not know such a voice"),
    ),
    "eda": (
        ("a.u.", "Give the sensor's unit with --eda ...?unit=: its readings are not in µS"),
        (EdaQuality.OPEN, "Press the electrodes on: no contact"),
        (EdaQuality.OUT_OF_RANGE, "Press the electrodes on, and dry the skin between them: no skin has such a value"),
        (EdaQuality.TOO_FAST, "Fix the leads to the wrist and rest the hand: it moves"),
        (EdaQuality.STUCK, "Switch the board off and on: it repeats one value"),
        ("sensor silent", _DEVICE["eda"]),
        ("samples missing", "Move the board nearer: samples are lost on the way"),
        ("of the clip has samples", "Move the board nearer: samples are lost on the way"),
        ("unlike the", "Press the electrodes on at the palm: these weights do not know such a signal"),
    ),
}  # fmt: skip
_SILENT = ("no samples", "no sound", "no camera frame", "no EDA samples", "silent")


def advice(modality: str, reason: str) -> str:
    """What to do about a signal that is not usable for `reason`, a verdict's or a lost sensor's.

    Empty where nothing is known of the reason, or where there is none.
    """
    if reason == NO_SOURCE:
        return f"This run has none: begin it with --{OPTIONS[modality]}"
    text = reason.removeprefix("sensor ")
    if any(text.startswith(state.value) for state in _STATES):
        return _DEVICE[modality]
    found = (what for part, what in (*_OF[modality], *_ANY) if part in reason)
    silent = _DEVICE[modality] if any(part in reason for part in _SILENT) else ""
    return next(found, silent)
