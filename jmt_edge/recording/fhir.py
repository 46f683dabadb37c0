"""A recording as FHIR R4: Observations of estimates and of the person's own ratings, in one Bundle.

The estimates have codes of a code system of their own, which the Bundle defines: they are not what any code of LOINC or
SNOMED CT means. LOINC 72514-3 is a number that the person says, so ratings alone have it. A window without a number has
`dataAbsentReason`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from .. import __version__
from ..engine.bundle import INTENDED_USE
from ..errors import ConfigError
from ..observer import Mark
from ..summary import notice
from .ratings import final
from .reader import Recording

BASE = "https://github.com/jmt-edge/jmt-edge/fhir"
SYSTEM = f"{BASE}/CodeSystem/estimates"
ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
UCUM, LOINC = "http://unitsofmeasure.org", "http://loinc.org"
RATING = "72514-3"  # pain severity, 0-10 verbal numeric rating, reported: the person's own word
CODES = {
    "pain-probability": ("Estimated pain probability", "A network's estimate, 0 to 1, that the person is in pain."),
    "valence": ("Estimated valence", "A network's estimate, -1 to 1, of how pleasant a person's expression is."),
    "arousal": ("Estimated arousal", "A network's estimate, -1 to 1, of how activated a person's expression is."),
    "usable": ("Modality usable", "Whether the modality took part in the estimate; the component's text names it."),
    "low": ("Lower end", "Lower end of the interval that holds the true value as often as `coverage` says."),
    "high": ("Upper end", "Upper end of that interval."),
    "jmt": ("Joint Multimodal Transformer", "Estimated by a Joint Multimodal Transformer from face, voice and EDA."),
}
CODE_OF = {"pain": "pain-probability"}


def export_fhir(recording: Recording, out: Path, *, subject: str = "") -> list[Path]:
    """Write one Bundle of type `collection`. subject: a reference such as `Patient/123`; empty: none is named.

    Observations carry times only where the run was live: what is read from files happened at another time.
    """
    if out.exists():
        raise ConfigError(f"{out} exists and is not overwritten; choose another --out")
    with out.open("w", encoding="utf-8") as file:
        file.write('{"resourceType": "Bundle", "type": "collection", "entry": [')
        for number, resource in enumerate(_resources(recording, subject)):
            entry = {"fullUrl": f"urn:uuid:{resource['id']}", "resource": resource}
            file.write((",\n" if number else "\n") + json.dumps(entry, ensure_ascii=False, allow_nan=False))
        file.write("\n]}\n")
    return [out]


def _resources(recording: Recording, subject: str) -> Iterator[dict[str, Any]]:
    manifest = recording.manifest
    said = notice(bool(manifest["bundle"]["demo"]), recording.subject)
    device, host = _id(recording, "device"), manifest.get("host")
    version = host.get("jmt_edge") if isinstance(host, dict) else None
    yield _code_system(recording)
    yield {
        "resourceType": "Device", "id": device, "status": "active",
        "deviceName": [{"name": f"jmt-edge {manifest['bundle']['id']}", "type": "model-name"}],
        **({"version": [{"value": version}]} if isinstance(version, str) and version.strip() else {}),
        "note": [{"text": f"{said}. {INTENDED_USE}"}],
    }  # fmt: skip
    origin = recording.origin
    common: dict[str, Any] = {"device": {"reference": f"urn:uuid:{device}"}}
    if subject:
        common["subject"] = {"reference": subject}
    for result in recording.each_result():
        for output in manifest["outputs"]:
            yield {
                "resourceType": "Observation", "id": _id(recording, f"{output} {result['t']!r}"),
                "status": "preliminary", "code": _code(CODE_OF.get(output, output)),
                **_when(origin, result["t"]), **common, **_value(result, output),
                "method": {**_code("jmt"), "text": f"bundle {manifest['bundle']['id']}"},
                "note": [{"text": said}],
                "component": _components(result, output),
            }  # fmt: skip
    for number, mark in enumerate(final(recording.marks())):
        if mark.rating is not None:
            yield _rating(_id(recording, f"rating {number}"), mark, origin, common)


def _value(result: dict[str, Any], output: str) -> dict[str, Any]:
    if result["outputs"] is None:
        why = {"system": ABSENT, "code": "not-performed", "display": "Not Performed"}
        return {"dataAbsentReason": {"coding": [why], "text": result["reason"] or "no estimate"}}
    return {"valueQuantity": _quantity(result["outputs"][output])}


def _quantity(value: float) -> dict[str, Any]:
    return {"value": value, "unit": "1", "system": UCUM, "code": "1"}


def _components(result: dict[str, Any], output: str) -> list[dict[str, Any]]:
    found = []
    for name, quality in result["quality"].items():
        text = name if quality["ok"] else f"{name}: {quality['reason']}"
        found.append({"code": {**_code("usable"), "text": text}, "valueBoolean": bool(quality["ok"])})
    interval = (result.get("uncertainty") or {}).get(output)
    if output != "pain" and result["outputs"] is not None and interval:
        ends = zip(("low", "high"), interval)
        found += [{"code": _code(end), "valueQuantity": _quantity(value)} for end, value in ends]
    return found


def _rating(id: str, mark: Mark, origin: datetime | None, common: dict[str, Any]) -> dict[str, Any]:
    what = "Pain severity - 0-10 verbal numeric rating [Score] - Reported"
    note = {"note": [{"text": mark.text}]} if mark.text.strip() else {}
    shared = {key: value for key, value in common.items() if key != "device"}  # a person said it
    return {
        "resourceType": "Observation", "id": id, "status": "final",
        "code": {"coding": [{"system": LOINC, "code": RATING, "display": what}]},
        **_when(origin, mark.t), **shared, "valueInteger": mark.rating, **note,
    }  # fmt: skip


def _code(code: str) -> dict[str, Any]:
    return {"coding": [{"system": SYSTEM, "version": __version__, "code": code, "display": CODES[code][0]}]}


def _code_system(recording: Recording) -> dict[str, Any]:
    concepts = [{"code": code, "display": name, "definition": what} for code, (name, what) in CODES.items()]
    return {
        "resourceType": "CodeSystem", "id": _id(recording, "codes"), "url": SYSTEM, "version": __version__,
        "name": "JmtEdgeEstimates", "title": "Estimates of jmt-edge", "status": "draft", "experimental": True,
        "caseSensitive": True, "content": "complete", "count": len(concepts), "concept": concepts,
    }  # fmt: skip


def _when(origin: datetime | None, t: float) -> dict[str, str]:
    if origin is None:
        return {}
    return {"effectiveDateTime": (origin + timedelta(seconds=t)).isoformat(timespec="milliseconds")}


def _id(recording: Recording, what: str) -> str:
    """The same for the same thing, however often it is exported."""
    manifest = recording.manifest
    bundle = manifest["bundle"].get("sha256") or manifest["bundle"]["id"]
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{BASE}/{manifest['created']}/{bundle}/{what}"))
