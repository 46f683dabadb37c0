"""The schema of a bundle's `manifest.json`, checked once, when the bundle is opened.

Code that reads a manifest after that can rely on the types given here. Unknown keys are kept and ignored, so that
later versions can add some.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from ..signing import SIGNATURE

SCHEMA = 1
MANIFEST = "manifest.json"
CHECKSUM = "manifest.sha256"  # as sha256sum writes it, for the one file that cannot list itself
CPU_RUNTIMES = ("onnxruntime", "openvino")  # their entries among the engines are graphs, all others plans

Check = Callable[[Any, str], None]  # (value, its place); raises ValueError, a clause without a full stop


def read_manifest(raw: bytes) -> dict[str, Any]:
    """`manifest.json`, parsed. Raises ValueError, a clause that says what is wrong and where."""
    try:
        manifest = json.loads(raw)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"it is not readable JSON ({error})") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else None
        shown = found if isinstance(found, (int, str, type(None))) else type(found).__name__
        raise ValueError(f"it has bundle schema {shown!r}, this version reads {SCHEMA}")
    check_manifest(manifest)
    return manifest


def check_manifest(manifest: Mapping[str, Any]) -> None:
    """Raises ValueError where an entry is missing, of the wrong type, or a file that is not listed."""
    _table(_digest, _file_name)(manifest.get("files"), "files")
    files = manifest["files"]

    def listed(value: Any, where: str) -> None:
        _text(value, where)
        if value not in files:
            raise ValueError(f"{where} names {_shown(value)}, which is not among its files")

    graphs = _table(_record({"onnx": listed}, {"kept": _list(_text), "note": _text}))
    network = _record({}, {
        "onnx": listed, "weights": listed, "precision": _text, "parameters": _count, "options": _any_table,
        "inputs": _table(_list(_dimension)), "outputs": _table(_list(_dimension)), "folded": _flag, "attention": _flag,
        "not_folded_because": _text,
    })  # fmt: skip

    def engine(file: str) -> Check:
        part = {"bytes": _count, "cached": _flag, "key": _any_table, "layers": _any_table}
        return _record(
            {"library_version": _text, "networks": _table(_record({file: listed, "precision": _text}, part))},
            {
                "report": listed, "timings": _any_table, "batch": _list(_count), "target": _text, "device": _text,
                "sms": _count, "board": _words_on_a_line, "workspace": _count, "cuda": _cuda_version, "l4t": _text,
                "builder": _text, "why": _text, "precision": _text, "fusion": _text, "no_cubin": _text,
                "left_out": _list(_text),
            },
        )  # fmt: skip

    def engines(value: Any, where: str) -> None:
        _table(_any_table)(value, where)
        for name, one in value.items():
            engine("onnx" if name in CPU_RUNTIMES else "plan")(one, f"{where}.{ascii(name)[1:-1]}")

    subjects = _record({}, {"test_subjects": _list(_text), "train_subjects": _list(_text)})
    recipe = _record({}, {"name": _text, "layout": _text, "classes": _list(_label)})
    data = _record({}, {
        "layout": _words_on_a_line, "root": _words_on_a_line, "recordings": _count, "subjects": _count,
        "rates": _table(_positive), "units": _table(_label), "classes": _list(_label), "share": _share_or_null,
        "rule": _words_on_a_line,
    })  # fmt: skip
    provenance = _record({}, {"split": subjects, "recipe": recipe, "data": data, "scores": _any_table})
    int8 = _record({"networks": graphs}, {"table": listed, "report": listed})
    cubins = _record({"targets": _list(_text)}, {"index": listed, "precision": _text, "steps": _count, "batch": _count})
    limits = _table(_record({}, {"pain": _pair(_share), "valence": _not_negative, "arousal": _not_negative}))
    uncertainty = _record({"coverage": _share, "people": _count, "windows": _count, "limits": limits}, {})
    _record(
        {
            "schema": _count, "name": _bundle_name, "task": _any_table, "networks": _table(network),
            "files": _any_table, "provenance": provenance, "intended_use": _text,
        },
        {
            "demo": _flag, "calibration": _record({}, {"temperature": _positive}), "labels": _table(_list(_text)),
            "untrained_networks": _list(_text), "engines": engines, "int8": int8, "cubins": cubins,
            "novelty": _record({"file": listed}, {}), "uncertainty": uncertainty, "built_from": _text,
            "calibrated_from": _text,
        },
    )(manifest, "")  # fmt: skip


def graph_files(manifest: Mapping[str, Any]) -> set[str]:
    """Names of the ONNX graphs in a checked manifest."""
    groups = [manifest["networks"], manifest.get("int8", {}).get("networks", {})]
    groups += [engine.get("networks", {}) for engine in manifest.get("engines", {}).values()]
    return {entry["onnx"] for group in groups for entry in group.values() if "onnx" in entry}


def _shown(value: Any) -> str:
    """A value as shown in a message: short, and without terminal control characters."""
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "a list"
    text = json.dumps(value) if value is None or isinstance(value, bool) else ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _wrong(value: Any, where: str, wanted: str) -> ValueError:
    return ValueError(f"{where or 'it'} is {_shown(value)}, not {wanted}")


def _that(holds: Callable[[Any], bool], wanted: str) -> Check:
    def check(value: Any, where: str) -> None:
        if not holds(value):
            raise _wrong(value, where, wanted)

    return check


_flag = _that(lambda v: type(v) is bool, "true or false")
_any_table = _that(lambda v: type(v) is dict, "a table")
_any_list = _that(lambda v: type(v) is list, "a list")
_words = _that(lambda v: type(v) is str, "a text")
_count = _that(lambda v: type(v) is int and 0 <= v < 1 << 63, "a whole number of at least 0")
_positive = _that(lambda v: type(v) in (int, float) and 0 < v < 1e12, "a number above 0")
_not_negative = _that(lambda v: type(v) in (int, float) and 0 <= v < 1e12, "a number of at least 0")
_digest = _that(lambda v: type(v) is str and re.fullmatch("[0-9a-f]{64}", v) is not None, "a sha256 in hexadecimal")


_cuda_version = _that(
    lambda v: type(v) is str and re.fullmatch(r"([0-9]{1,3}\.[0-9]{1,3})?", v) is not None, "a version as 12.6"
)


def _text(value: Any, where: str) -> None:
    _words(value, where)
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise _wrong(value, where, "a text that can be encoded")


def _label(value: Any, where: str) -> None:
    """A text that is safe to print."""
    _text(value, where)
    if not 0 < len(value) <= 200 or not value.isprintable():
        raise _wrong(value, where, "a printable name of at most 200 characters")


def _words_on_a_line(value: Any, where: str) -> None:
    """As a label, but it may be empty."""
    if value != "":
        _label(value, where)


def _share(value: Any, where: str) -> None:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise _wrong(value, where, "a share from 0 to 1")


def _share_or_null(value: Any, where: str) -> None:
    if value is not None and (type(value) not in (int, float) or not 0 <= value <= 1):
        raise _wrong(value, where, "a share from 0 to 1, or null")


def _bundle_name(value: Any, where: str) -> None:
    _label(value, where)
    if "/" in value:  # `build` names its output after it
        raise _wrong(value, where, "a name without /")


def _dimension(value: Any, where: str) -> None:
    (_text if isinstance(value, str) else _count)(value, where)


def _file_name(value: Any, where: str) -> None:
    _label(value, where)
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"it names {_shown(value)}, which lies outside the bundle")
    if str(path) != value or value in (".", MANIFEST, CHECKSUM, SIGNATURE):
        raise ValueError(f"it names {_shown(value)}, which is not a file's name as `build` writes it")


def _list(item: Check) -> Check:
    def check(value: Any, where: str) -> None:
        _any_list(value, where)
        for i, one in enumerate(value):
            item(one, f"{where}[{i}]")

    return check


def _pair(item: Check) -> Check:
    def check(value: Any, where: str) -> None:
        _list(item)(value, where)
        if len(value) != 2:
            raise _wrong(value, where, "a list of two")

    return check


def _table(item: Check, key: Check = _label) -> Check:
    def check(value: Any, where: str) -> None:
        _any_table(value, where)
        for name, one in value.items():
            key(name, f"a key of {where}")
            item(one, f"{where}.{ascii(name)[1:-1]}")

    return check


def _record(required: Mapping[str, Check], optional: Mapping[str, Check]) -> Check:
    def check(value: Any, where: str) -> None:
        _any_table(value, where)
        missing = [name for name in required if name not in value]
        if missing:
            raise ValueError(f"{where or 'it'} lacks {', '.join(missing)}")
        for name, item in {**required, **optional}.items():
            if name in value:
                item(value[name], f"{where}.{name}".lstrip("."))

    return check
