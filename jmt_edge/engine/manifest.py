"""The schema of a bundle's `manifest.json`, checked once, when the bundle is opened.

Code that reads a manifest after that can rely on the types given here. Unknown keys are kept and ignored, so that
later versions can add some.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from ..shapes import (
    Check,
    any_table,
    count,
    flag,
    label,
    line,
    list_of,
    not_negative,
    pair_of,
    parsed,
    positive,
    record,
    sha256,
    share,
    share_or_null,
    shown,
    table_of,
    text,
    that,
    wrong,
)
from ..signing import SIGNATURE
from ..tasks import MODALITIES
from .personal import PERSONAL_ENTRY

SCHEMA = 1
MANIFEST = "manifest.json"
CHECKSUM = "manifest.sha256"  # as sha256sum writes it, for the one file that cannot list itself
CPU_RUNTIMES = ("onnxruntime", "openvino")  # their entries among the engines are graphs, all others plans

# of the data that a bundle or a run was trained on
DATA = record({}, {
    "layout": line, "root": line, "recordings": count, "subjects": count,
    "rates": table_of(positive), "units": table_of(label), "classes": list_of(label), "share": share_or_null,
    "rule": line,
})  # fmt: skip

_limits = table_of(record({}, {"pain": pair_of(share), "valence": not_negative, "arousal": not_negative}))
_changes = record({"limit": positive, "within": share, "p95": not_negative, "largest": not_negative}, {})
SENSITIVITY_ENTRY = record({"people": count, "windows": count, "outputs": table_of(_changes)}, {})
BASELINE_ENTRY = record(
    {"mode": that(lambda v: v == "rest", "rest"), "seconds": positive, "modalities": list_of(that(
        lambda v: v in MODALITIES, " or ".join(MODALITIES)))},
    {},
)  # fmt: skip
UNCERTAINTY_ENTRY = record({"coverage": share, "people": count, "windows": count, "limits": _limits}, {})


def read_manifest(raw: bytes) -> dict[str, Any]:
    """`manifest.json`, parsed. Raises ValueError, a clause that says what is wrong and where."""
    manifest = parsed(raw)
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else None
        named = found if isinstance(found, (int, str, type(None))) else type(found).__name__
        raise ValueError(f"it has bundle schema {named!r}, this version reads {SCHEMA}")
    check_manifest(manifest)
    return manifest


def check_manifest(manifest: Mapping[str, Any]) -> None:
    """Raises ValueError where an entry is missing, of the wrong type, or a file that is not listed."""
    table_of(sha256, _file_name)(manifest.get("files"), "files")
    files = manifest["files"]

    def listed(value: Any, where: str) -> None:
        text(value, where)
        if value not in files:
            raise ValueError(f"{where} names {shown(value)}, which is not among its files")

    graphs = table_of(record({"onnx": listed}, {"kept": list_of(text), "note": text}))
    network = record({}, {
        "onnx": listed, "weights": listed, "precision": text, "parameters": count, "options": any_table,
        "inputs": table_of(list_of(_dimension)), "outputs": table_of(list_of(_dimension)), "folded": flag,
        "attention": flag, "not_folded_because": text,
    })  # fmt: skip

    def engine(file: str) -> Check:
        part = {"bytes": count, "cached": flag, "key": any_table, "layers": any_table}
        return record(
            {"library_version": text, "networks": table_of(record({file: listed, "precision": text}, part))},
            {
                "report": listed, "timings": any_table, "batch": list_of(count), "target": text, "device": text,
                "sms": count, "board": line, "workspace": count, "cuda": _cuda_version, "l4t": text,
                "builder": text, "why": text, "precision": text, "fusion": text, "no_cubin": text,
                "left_out": list_of(text),
            },
        )  # fmt: skip

    def engines(value: Any, where: str) -> None:
        table_of(any_table)(value, where)
        for name, one in value.items():
            engine("onnx" if name in CPU_RUNTIMES else "plan")(one, f"{where}.{ascii(name)[1:-1]}")

    subjects = record({}, {"test_subjects": list_of(text), "train_subjects": list_of(text)})
    recipe = record({}, {"name": text, "layout": text, "classes": list_of(label)})
    provenance = record({}, {"split": subjects, "recipe": recipe, "data": DATA, "scores": any_table})
    int8 = record({"networks": graphs}, {"table": listed, "report": listed})
    cubins = record({"targets": list_of(text)}, {"index": listed, "precision": text, "steps": count, "batch": count})
    record(
        {
            "schema": count, "name": _bundle_name, "task": any_table, "networks": table_of(network),
            "files": any_table, "provenance": provenance, "intended_use": text,
        },
        {
            "demo": flag, "calibration": record({}, {"temperature": positive}), "labels": table_of(list_of(text)),
            "untrained_networks": list_of(text), "engines": engines, "int8": int8, "cubins": cubins,
            "novelty": record({"file": listed}, {}), "uncertainty": UNCERTAINTY_ENTRY, "sensitivity": SENSITIVITY_ENTRY,
            "personal": PERSONAL_ENTRY, "baseline": BASELINE_ENTRY, "built_from": text, "calibrated_from": text,
        },
    )(manifest, "")  # fmt: skip


def graph_files(manifest: Mapping[str, Any]) -> set[str]:
    """Names of the ONNX graphs in a checked manifest."""
    groups = [manifest["networks"], manifest.get("int8", {}).get("networks", {})]
    groups += [engine.get("networks", {}) for engine in manifest.get("engines", {}).values()]
    return {entry["onnx"] for group in groups for entry in group.values() if "onnx" in entry}


_cuda_version = that(
    lambda v: type(v) is str and re.fullmatch(r"([0-9]{1,3}\.[0-9]{1,3})?", v) is not None, "a version as 12.6"
)


def _bundle_name(value: Any, where: str) -> None:
    label(value, where)
    if "/" in value:  # `build` names its output after it
        raise wrong(value, where, "a name without /")


def _dimension(value: Any, where: str) -> None:
    (text if isinstance(value, str) else count)(value, where)


def _file_name(value: Any, where: str) -> None:
    label(value, where)
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"it names {shown(value)}, which lies outside the bundle")
    if str(path) != value or value in (".", MANIFEST, CHECKSUM, SIGNATURE):
        raise ValueError(f"it names {shown(value)}, which is not a file's name as `build` writes it")
