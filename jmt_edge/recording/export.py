"""A recording as tables (CSV, Parquet), as one XDF file or as FHIR (see `fhir`).

XDF is written here because no maintained writer exists; it follows the specification, version 1.0 (sccn/xdf wiki).
"""

from __future__ import annotations

import csv
import math
import struct
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from ..engine.bundle import INTENDED_USE
from ..engine.uncertainty import CLASSES
from ..errors import ConfigError
from ..media.eda_times import spacing
from ..plain_files import visible
from ..result import STAGES
from .fhir import export_fhir
from .reader import Recording

_BREAK_SECONDS, _BREAK_SAMPLES = 1.0, 500  # a longer gap than both: pyxdf starts another segment there
# column -> field of an event
_ALARMS = {
    "event": "id", "alarm": "alarm", "kind": "kind", "priority": "priority", "condition": "text", "limit": "limit",
    "onset": "start", "end": "end", "peak": "peak", "label": "label", "acknowledged": "acknowledged",
    "acknowledged_by": "by",
}  # fmt: skip
Table = dict[str, list[Any]]  # column -> values, None where there is none
Rows = tuple[Sequence[str], Iterable[Sequence[Any]]]  # columns, and the values of one row after another
Get = Callable[[dict[str, Any]], Any]


def rows(recording: Recording) -> dict[str, Rows]:
    """`results` (one row per window), `eda`, `events` (marks), `alarms` (one row each time an alarm signalled) and
    `clocks` (one row per status and modality). Rows are read as they are taken: a day's do not fit into memory.

    The values of `eda` are `uS`, or `au` where the recording does not say that they are in µS.
    """
    get = _columns(recording.manifest)
    unit = "uS" if recording.eda_unit == "µS" else "au"
    columns = ("t", "modality", "state", "reason", "offset", "drift_ppm", "jitter", "lost", "reconnects")
    clocks = (
        {**s, **s["clock"], "t": t, "modality": name}
        for t, statuses in recording.statuses()
        for name, s in statuses.items()
    )
    return {
        "results": (list(get), ([one(r) for one in get.values()] for r in recording.each_result())),
        "eda": (("t", unit), ((t, None if math.isnan(v) else v) for t, v in recording.each_eda())),
        "events": (
            ("t", "text", "rating", "corrects"),
            ((mark.t, mark.text, mark.rating, mark.corrects) for mark in recording.marks()),
        ),
        "alarms": (
            list(_ALARMS),
            ([_given(getattr(e, name)) for name in _ALARMS.values()] for e in recording.alarms().events),
        ),
        "clocks": (columns, ([row[column] for column in columns] for row in clocks)),
    }


def _chosen(recording: Recording, only: Collection[str]) -> dict[str, Rows]:
    """`rows`, of the tables in `only`; without names all."""
    return {name: table for name, table in rows(recording).items() if not only or name in only}


def tables(recording: Recording, only: Collection[str] = ()) -> dict[str, Table]:
    """All of `rows`, by column; only: the tables that are wanted, where not all."""
    found: dict[str, Table] = {}
    for name, (columns, values) in _chosen(recording, only).items():
        table = found[name] = {column: [] for column in columns}
        for row in values:
            for column, value in zip(table.values(), row):
                column.append(value)
    return found


def _given(value: Any) -> Any:
    return None if value == "" else value


def _columns(manifest: dict[str, Any]) -> dict[str, Get]:
    """Column of `results` -> its value of a result."""
    names, outputs = manifest["modalities"], manifest["outputs"]
    get: dict[str, Get] = {"t": _at("t"), **{output: _at("outputs", output) for output in outputs}}
    for output in outputs:
        get |= _uncertainty(output)
    get |= {f"{output}_without_{name}": _at("without", name, output) for name in names for output in outputs}
    get["reason"] = _at("reason")
    for name in names:
        get[f"{name}_ok"] = _at("quality", name, "ok")
        get[f"{name}_reason"] = _at("quality", name, "reason")
        get[f"{name}_attention"] = _at("attention", name)
    if manifest.get("actions"):
        get |= _actions()
    return get | {f"{stage}_ms": _at("latency_ms", stage) for stage in STAGES} | {"dropped": _at("dropped")}


def _at(*keys: str) -> Get:
    return lambda result: _part(result, *keys)


def _uncertainty(output: str) -> dict[str, Get]:
    """Columns of the set (1 where a class belongs to it, else 0) or of the ends of the interval."""
    found = _at("uncertainty", output)

    def member(c: str) -> Get:
        return lambda result: None if (s := found(result)) is None else int(c in s)

    def end(i: int) -> Get:
        return lambda result: None if (s := found(result)) is None else s[i]

    if output == "pain":
        return {f"pain_may_be_{c}": member(c) for c in CLASSES}
    return {f"{output}_{name}": end(i) for i, name in enumerate(("low", "high"))}


def _actions() -> dict[str, Get]:
    """Columns of the facial actions, named and in the units of `jmt-edge actions`."""
    # here, because it loads the networks' run-time, which other exports do not need
    from ..preprocessing.actions import ACTIONS, INDEX, MEASURES

    def radians(angle: str) -> Get:
        return lambda r: None if (a := _part(r, "actions", "pose", angle)) is None else round(math.radians(a), 4)

    get: dict[str, Get] = {"actions_reason": _at("actions", "reason")}
    get |= {f"pose_{axis}": radians(angle) for axis, angle in (("Rx", "pitch"), ("Ry", "yaw"), ("Rz", "roll"))}
    get |= {f"{name}_r": _at("actions", "strengths", name) for name in ACTIONS}
    get[INDEX] = _at("actions", INDEX)
    return get | {name: _at("actions", "measures", name) for name in MEASURES}


def _part(value: Any, *keys: str) -> Any:
    """`value[key][...]`, None where any part is missing."""
    for key in keys:
        value = value.get(key) if value is not None else None
    return value


def export_csv(recording: Recording, out: Path, only: Collection[str] = ()) -> list[Path]:
    """Write each table (`only`: those named) as CSV into the new folder `out`; an empty cell means no data.

    A text that a spreadsheet would run as a formula begins with an apostrophe, and invisible characters become U+FFFD.
    """
    folder = _new_folder(out)
    written = []
    for name, (columns, values) in _chosen(recording, only).items():
        path = folder / f"{name}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows([_cell(value) for value in row] for row in values)
        written.append(path)
    return written


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    shown = visible(value)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown


def export_parquet(recording: Recording, out: Path, only: Collection[str] = ()) -> list[Path]:
    """Write each table (`only`: those named) as Parquet into the new folder `out`, with the bundle and the intended use
    as metadata."""
    import pyarrow as pa
    from pyarrow import parquet

    texts = [
        "reason", "text", "modality", "state", "event", "alarm", "kind", "priority", "condition", "label",
        "acknowledged_by",
    ]  # fmt: skip
    kinds: dict[str, Any] = dict.fromkeys(texts, pa.string())
    kinds.update(dict.fromkeys(("rating", "dropped", "lost", "reconnects"), pa.int64()))
    metadata = {
        "bundle": recording.manifest["bundle"]["id"],
        "intended_use": INTENDED_USE,
        "created": recording.manifest["created"],
    }
    folder = _new_folder(out)
    written = []
    for name, table in tables(recording, only).items():
        arrays = {}
        for column, values in table.items():
            kind = kinds.get(column) or (pa.bool_() if column.endswith("_ok") else pa.float64())
            arrays[column] = pa.array(values, pa.string() if column.endswith("_reason") else kind)
        path = folder / f"{name}.parquet"
        parquet.write_table(pa.table(arrays).replace_schema_metadata(metadata), path)
        written.append(path)
    return written


def export_xdf(recording: Recording, out: Path) -> list[Path]:
    """Write one XDF file: outputs, quality, attention, uncertainty and facial actions by window, EDA, and the marks as
    strings.

    Time stamps are stream time in seconds, on one clock (the clock offsets are 0); NaN means no data. Streams of an
    even rate say so, and have a NaN where a sample or a window is missing: readers such as pyxdf put the samples of
    such a stream on a line through their stamps, across gaps of up to 500 samples.
    """
    if out.exists():
        raise ConfigError(f"{out} exists and is not overwritten; choose another --out")
    names, outputs = recording.manifest["modalities"], recording.manifest["outputs"]
    table = tables(recording)
    results, clock = table["results"], np.array(table["results"]["t"], np.float64)
    bundle = recording.manifest["bundle"]["id"]
    eda_times, eda = table["eda"].values()
    acts = [c for c in _actions() if c != "actions_reason"] if recording.manifest.get("actions") else []
    sure = [column for column in results if column.startswith(tuple(outputs)) and column not in outputs]
    eda_unit = "microsiemens" if "uS" in table["eda"] else "a.u."
    with out.open("wb") as file:
        file.write(b"XDF:")
        about = f"<version>1.0</version><datetime>{escape(recording.manifest['created'])}</datetime>"
        _chunk(file, 1, f'<?xml version="1.0"?><info>{about}</info>'.encode())
        streams = [
            ("jmt-edge outputs", "Estimates", outputs, "", [results[o] for o in outputs], clock),
            ("jmt-edge quality", "Quality", [f"{n}_ok" for n in names], "", [results[f"{n}_ok"] for n in names], clock),
            (
                "jmt-edge attention", "Attention", [f"{n}_attention" for n in names], "",
                [results[f"{n}_attention"] for n in names], clock,
            ),
            ("jmt-edge uncertainty", "Uncertainty", sure, "", [results[c] for c in sure], clock),
            *([("jmt-edge actions", "Actions", acts, "", [results[c] for c in acts], clock)] if acts else []),
            ("EDA", "EDA", ["EDA"], eda_unit, [eda], np.array(eda_times)),
        ]  # fmt: skip
        for number, (name, kind, channels, unit, columns, times) in enumerate(streams, 1):
            values = np.array([[np.nan if v is None else float(v) for v in c] for c in columns]).T
            period = recording.manifest["hop"] if times is clock else spacing(times).period
            rate, times, values = _even(times, values, period)
            _header(file, number, name, kind, "double64", channels, unit, bundle, recording.manifest, rate)
            _samples(file, number, times, [row.astype("<f8").tobytes() for row in values])
            _clock_and_footer(file, number, times)
        number = len(streams) + 1
        _header(file, number, "marks", "Markers", "string", ["mark"], "", bundle, recording.manifest, 0.0)
        marks = recording.marks()
        when = np.array([m.t for m in marks], np.float64)
        _samples(file, number, when, [_sized(mark.label.encode()) for mark in marks])
        _clock_and_footer(file, number, when)
    return [out]


def _even(
    times: NDArray[np.float64], values: NDArray[np.float64], period: float
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """(rate in Hz, times, values) with NaN rows in the gaps that a reader would bridge; rate 0 and all as it is where
    the stamps are not even.

    times: (n,) s; values: (n, channels).
    """
    steps = np.diff(times)
    if len(times) < 2 or period <= 0 or not np.all(steps > 0):
        return 0.0, times, values
    pause = steps > max(_BREAK_SECONDS, _BREAK_SAMPLES * period)
    missing = np.where(pause, 0, np.rint(steps / period).clip(1, _BREAK_SAMPLES) - 1).astype(np.int64)
    uneven = np.abs(steps / (missing + 1) / period - 1) > 0.5
    if missing.sum() > len(times) or np.any(uneven & ~pause):
        return 0.0, times, values
    at = np.concatenate([[0], np.cumsum(missing + 1)])
    full = np.full((at[-1] + 1, values.shape[1]), np.nan)
    full[at] = values
    stamps = np.interp(np.arange(len(full)), at, times)
    return 1.0 / period, stamps, full


EXPORTERS = {"csv": export_csv, "parquet": export_parquet, "xdf": export_xdf, "fhir": export_fhir}


def _new_folder(out: Path) -> Path:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists and is not overwritten; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    return out


def _sized(content: bytes) -> bytes:
    """XDF's variable-length prefix: how many bytes the length takes (1, 4 or 8), the length, the content."""
    if len(content) < 1 << 8:
        return b"\x01" + struct.pack("<B", len(content)) + content
    return b"\x04" + struct.pack("<I", len(content)) + content


def _chunk(file: Any, tag: int, content: bytes) -> None:
    file.write(_sized(struct.pack("<H", tag) + content))


def _header(
    file: Any, number: int, name: str, kind: str, form: str, channels: list[str], unit: str, bundle: str,
    manifest: dict[str, Any], rate: float,
) -> None:  # fmt: skip
    labels = "".join(
        f"<channel><label>{escape(c)}</label><unit>{unit}</unit><type>{kind}</type></channel>" for c in channels
    )
    xml = (
        f'<?xml version="1.0"?><info><name>{escape(name)}</name><type>{kind}</type>'
        f"<channel_count>{len(channels)}</channel_count><nominal_srate>{rate!r}</nominal_srate>"
        f"<channel_format>{form}</channel_format><source_id>{escape(bundle)}</source_id>"
        f"<created_at>0</created_at><desc><channels>{labels}</channels><bundle>{escape(bundle)}</bundle>"
        f"<recorded>{escape(manifest['created'])}</recorded>"
        f"<intended_use>{escape(INTENDED_USE)}</intended_use></desc></info>"
    )
    _chunk(file, 2, struct.pack("<I", number) + xml.encode())


def _samples(file: Any, number: int, times: NDArray[np.float64], values: list[bytes], block: int = 4096) -> None:
    for i in range(0, len(values), block):
        part = values[i : i + block]
        body = b"".join(b"\x08" + struct.pack("<d", t) + v for t, v in zip(times[i : i + block].tolist(), part))
        _chunk(file, 3, struct.pack("<I", number) + b"\x04" + struct.pack("<I", len(part)) + body)


def _clock_and_footer(file: Any, number: int, times: NDArray[np.float64]) -> None:
    first, last = (float(times[0]), float(times[-1])) if len(times) else (0.0, 0.0)
    _chunk(file, 4, struct.pack("<Idd", number, first, 0.0))  # the offset to the clock of the file: none
    xml = (
        f'<?xml version="1.0"?><info><first_timestamp>{first!r}</first_timestamp>'
        f"<last_timestamp>{last!r}</last_timestamp><sample_count>{len(times)}</sample_count></info>"
    )
    _chunk(file, 6, struct.pack("<I", number) + xml.encode())
