"""EDA in binary files: XDF, OpenSignals HDF5, Empatica's zip and Avro, EDF and BDF, BIOPAC's AcqKnowledge.

Each needs a library of the extra `formats`, which is imported when such a file is opened.
"""

from __future__ import annotations

import importlib
import io
import json
import logging
import os
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from ..errors import SourceError, first_line
from .eda_delimited import delimited
from .eda_rows import F64, Asked, Body, EdaRecording
from .eda_signals import Signal, chosen, need, recording
from .opensignals import EDA_SENSORS, sequence_steps
from .tables import decoded_lines
from .units import opensignals_us

_STREAM_HEADER = 2  # tag of an XDF chunk
Reader = Callable[[Body, Asked], EdaRecording]


def binary_reader(body: Body) -> Reader | None:
    """What reads the file, by its first bytes; None for text. Raises SourceError for a file that nothing reads."""
    with body.path.open("rb") as file:
        start = file.read(8)
    for magic, reader in _READERS.items():
        if start.startswith(magic):
            return reader
    if body.path.suffix.lower() == ".acq":
        return biopac
    for magic, what in _REFUSED.items():
        if start.startswith(magic):
            raise SourceError(f"EDA file {body.path} is {what}")
    return None


def _damaged(body: Body, what: str, error: BaseException) -> SourceError:
    return SourceError(
        f"EDA file {body.path} cannot be read as {what} ({first_line(error)}); export it again, or as CSV"
    )


# ---- XDF (LabRecorder)


class _Errors(logging.Handler):
    """Keeps the errors that a library logs while it reads on."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def xdf(body: Body, asked: Asked) -> EdaRecording:
    """Time stamps are those of the samples, on the recorder's clock: pyxdf's line through them would bridge gaps."""
    pyxdf = need("pyxdf", body.path, "an XDF file")
    heard, log = _Errors(), logging.getLogger("pyxdf.pyxdf")
    log.addHandler(heard)
    propagate, log.propagate = log.propagate, False
    try:
        headers, end = _xdf_headers(body.path)
        whole = body.path.stat().st_size
        file: Any = str(body.path)
        if end < whole:  # pyxdf fails on a file that ends within a chunk
            body.notes.append(
                f"the file ends within a chunk, {whole - end} bytes after the last whole one: it was cut off"
            )
            file = io.BytesIO(body.path.read_bytes()[:end])
        signal = chosen(body, _xdf_signals(pyxdf, file, headers), asked)
        found = recording(body, signal, asked, "xdf")
        body.notes += [f"pyxdf: {text}" for text in heard.texts[:3]]
        return found
    except SourceError:
        raise
    except Exception as error:  # pyxdf has no exception of its own
        raise _damaged(body, "XDF", error) from None
    finally:
        log.removeHandler(heard)
        log.propagate = propagate


def _xdf_headers(path: Path) -> tuple[dict[int, ElementTree.Element], int]:
    """({stream: its header}, the offset at which the last whole chunk ends); chunks of samples are skipped."""
    found: dict[int, ElementTree.Element] = {}
    size = path.stat().st_size
    with path.open("rb") as file:
        end = file.seek(4)
        while width := file.read(1):
            length = int.from_bytes(file.read(width[0] if width[0] in (1, 4, 8) else 0), "little")
            start = file.tell()
            if length < 2 or start + length > size:
                break
            tag = int.from_bytes(file.read(2), "little")
            if tag == _STREAM_HEADER:
                number = int.from_bytes(file.read(4), "little")
                found[number] = ElementTree.fromstring(file.read(length - 6).decode("utf-8", "replace"))
            end = file.seek(start + length)
    return found, end


def _xdf_signals(pyxdf: Any, file: Any, headers: dict[int, ElementTree.Element]) -> Iterator[Signal]:
    """The channels of the numeric streams; the stream of one is loaded when it is asked for."""
    for number, info in headers.items():
        if info.findtext("channel_format") == "string":
            continue
        stream, count = info.findtext("name") or "", int(info.findtext("channel_count") or 0)
        described = info.findall("desc/channels/channel")
        for index in range(count):
            about = described[index] if index < len(described) else ElementTree.Element("channel")
            label, unit, kind = (about.findtext(key) or "" for key in ("label", "unit", "type"))

            def load(number: int = number, at: int = index) -> tuple[F64, Any]:
                if hasattr(file, "seek"):
                    file.seek(0)
                (whole,), _ = pyxdf.load_xdf(file, select_streams=[number], dejitter_timestamps=False)
                return np.asarray(whole["time_stamps"], np.float64), np.asarray(whole["time_series"])[:, at]

            name = label or (stream if count == 1 else f"{stream} {index + 1}")
            whose = f"{info.findtext('type')} {stream}" if count == 1 else kind
            yield Signal(name, unit, float(info.findtext("nominal_srate") or 0), load, f"{whose} {kind}")


# ---- OpenSignals HDF5 (PLUX)


_TOUCH = """
import resource, sys, h5py
def touch(name, item):
    dict(item.attrs)
    if hasattr(item, "nbytes") and item.nbytes < 1 << 30:
        item[...]
used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_CPU, (int(used + float(sys.argv[2])) + 1,) * 2)
with h5py.File(sys.argv[1], "r") as file:
    file.visititems(touch)
"""
TOUCH_SECONDS = 2.0  # of processor time for a small file
TOUCH_BYTES = 20e6  # more of the file for each second more


def _require_an_end(path: Path) -> None:
    """HDF5's library reads some damaged files for ever, and nothing can interrupt it: a process of its own reads first.

    Its faults are left to the reader, which has a sentence for them. Raises SourceError where it does not end.
    """
    seconds = TOUCH_SECONDS + path.stat().st_size / TOUCH_BYTES
    command = [sys.executable, "-c", _TOUCH, str(path), str(seconds)]
    own = {**os.environ, "PYTHONSAFEPATH": "1"}  # no module of the current folder
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, env=own, timeout=60 + 10 * seconds
        )
        ended = done.returncode >= 0
    except subprocess.TimeoutExpired:
        ended = False
    if not ended:
        raise SourceError(
            f"EDA file {path} cannot be read as OpenSignals HDF5 (it is damaged, and its library would hang or crash); "
            "export it again, or as CSV"
        )


def opensignals_h5(body: Body, asked: Asked) -> EdaRecording:
    h5py = need("h5py", body.path, "an HDF5 file")
    _require_an_end(body.path)
    try:
        with closing(h5py.File(body.path, "r")) as file:
            signals = list(_h5_signals(file, body.notes))
            if not signals:
                raise SourceError(f"EDA file {body.path} is not an OpenSignals HDF5 file; export its EDA as CSV")
            signal = chosen(body, signals, asked)
            found = recording(body, signal, asked, "opensignals")
            lost = round(float(found.times[-1]) * signal.rate) + 1 - len(found.times) if asked.rate is None else 0
            if lost > 0:
                body.counts["missing in the sequence"] += lost
            return replace(found, rate=asked.rate or signal.rate, lost=max(lost, 0))
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise _damaged(body, "OpenSignals HDF5", error) from None


def _h5_signals(file: Any, notes: list[str]) -> Iterator[Signal]:
    """DEVICE/raw/channel_N with the device's rate; converted where the sensor is known and no unit was asked for."""
    devices = [device for device in file.values() if hasattr(device, "keys") and "raw" in device]
    for device in devices:
        rate = float(np.ravel(device.attrs.get("sampling rate", 0.0))[0])
        bits = [int(b) for b in np.ravel(device.attrs.get("resolution", []))]
        raw = device["raw"]
        for position, key in enumerate(k for k in raw if k.startswith("channel_")):
            sensor = _text(raw[key].attrs.get("sensor", "")) or _listed(device.attrs.get("sensor"), position)
            label = _text(raw[key].attrs.get("label", "")) or key
            own = bits[position] if position < len(bits) else bits[-1] if bits else 0
            name = f"{device.name.strip('/')}:{label}" if len(devices) > 1 else label
            known = sensor in EDA_SENSORS and 4 <= own <= 24
            load = partial(_h5_channel, raw, key, rate, own if known else 0, sensor, notes)
            yield Signal(name, "uS" if known else "", rate, load, sensor)


def _h5_channel(raw: Any, key: str, rate: float, bits: int, sensor: str, notes: list[str]) -> tuple[F64 | None, Any]:
    """A channel's times and values: in µS, or as they are where `bits` is 0."""
    counts = np.ravel(raw[key][...])
    return _h5_times(raw, rate, notes), opensignals_us(counts.astype(np.float64), bits, sensor) if bits else counts


def _h5_times(raw: Any, rate: float, notes: list[str]) -> F64 | None:
    """By the sequence number, whose gaps are lost samples; None where there is none."""
    if "nSeq" not in raw or rate <= 0:
        return None
    sequence = np.ravel(raw["nSeq"][...]).astype(np.float64)
    if len(sequence) < 2 or not np.any(np.diff(sequence)) or not np.any(sequence >= 0):
        return None
    return np.concatenate([[0.0], np.cumsum(sequence_steps(sequence, notes))]) / rate


def _text(value: Any) -> str:
    value = np.ravel(value)[0] if np.size(value) else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _listed(value: Any, at: int) -> str:
    """Entry `at` of an attribute that is a list, or JSON of one."""
    if value is None:
        return ""
    items = np.ravel(value)
    if items.size == 1 and _text(items).startswith("["):
        items = np.ravel(json.loads(_text(items)))
    return _text(items[at]) if at < items.size else ""


# ---- Empatica


def empatica_zip(body: Body, asked: Asked) -> EdaRecording:
    """The EDA.csv of a session that Empatica's portal zipped."""
    try:
        with zipfile.ZipFile(body.path) as archive:
            names = [n for n in archive.namelist() if not n.startswith("__MACOSX")]
            inside = [n for n in names if n.rpartition("/")[2].lower() == "eda.csv"]
            if len(inside) != 1:
                what = "a spreadsheet; save it as CSV" if "[Content_Types].xml" in names else (
                    f"a ZIP archive with {len(inside)} EDA.csv; unpack it, and give the file"
                )  # fmt: skip
                raise SourceError(f"EDA file {body.path} is {what}")
            with archive.open(inside[0]) as file:
                lines = decoded_lines(file, file.read(4096))
                head = list(islice(lines, 64))
                text = replace(body, head=head, lines=chain(head, lines))
                found = delimited(text, asked)
            body.counts, body.notes, body.last = text.counts, text.notes, text.last
            return found
    # zipfile raises the two in the middle for encrypted members and for compressions that it does not know
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        raise _damaged(body, "a ZIP archive", error) from None


def embrace_plus(body: Body, asked: Asked) -> EdaRecording:
    """An Avro file of an Empatica EmbracePlus: rawData.eda, whose times are in µs since 1970."""
    fastavro = need("fastavro", body.path, "an Avro file")
    times, values, rate = [np.empty(0)], [np.empty(0)], 0.0
    try:
        with body.path.open("rb") as file:
            for record in fastavro.reader(file):
                eda = record["rawData"]["eda"]
                part = np.asarray(eda["values"], np.float64)
                rate = float(eda["samplingFrequency"]) or rate
                if len(part):
                    times.append(float(eda["timestampStart"]) * 1e-6 + np.arange(len(part)) / rate)
                    values.append(part)
    except (KeyError, TypeError, ZeroDivisionError):
        raise SourceError(
            f"EDA file {body.path} is an Avro file without rawData.eda, so not one of an EmbracePlus; export it as CSV"
        ) from None
    except Exception as error:  # fastavro raises whatever its decoders meet
        if len(values) == 1:
            raise _damaged(body, "Avro", error) from None
        body.notes.append(f"the file ends within a record ({first_line(error)}): it was cut off")
    joined = np.concatenate(times), np.concatenate(values)
    return recording(body, Signal("eda", "uS", rate, lambda: joined), asked, "embraceplus")


# ---- EDF, BDF


def edf(body: Body, asked: Asked) -> EdaRecording:
    """EDF, EDF+C, BDF and BDF+C; a signal's own rate."""
    edfio = need("edfio", body.path, "an EDF or BDF file")
    try:
        with body.path.open("rb") as file:
            read = edfio.read_edf if file.read(1) == b"0" else edfio.read_bdf
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            found = read(body.path)
        signals = [
            Signal(s.label, s.physical_dimension, float(s.sampling_frequency), lambda s=s: (None, s.data))  # type: ignore[misc]
            for s in found.signals
        ]
        if cut := [str(w.message) for w in heard if "record" in str(w.message)]:
            body.notes.append(f"the file was cut off ({cut[-1]})")
        return recording(body, chosen(body, signals, asked), asked, "edf")
    except SourceError:
        raise
    except Exception as error:  # a damaged header fails anywhere in it
        raise _damaged(body, "EDF or BDF", error) from None


# ---- BIOPAC


class _Forward(io.FileIO):
    """A file for bioread, which looks for a damaged header's end byte by byte: a few thousand times, on all channels.

    Raises SourceError, which it does not catch, where it has read over the same bytes `AGAIN` times; 3 are usual.
    """

    AGAIN = 50

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._end = self._again = 0

    def read(self, size: int | None = -1, /) -> bytes:
        at = self.tell()
        self._again += at < self._end
        if self._again > self.AGAIN:
            raise SourceError(
                f"EDA file {self.name} cannot be read as AcqKnowledge (its header does not end where it says); export "
                "it again, or as CSV"
            )
        data = super().read(-1 if size is None else size) or b""
        self._end = at + len(data)
        return data


def biopac(body: Body, asked: Asked) -> EdaRecording:
    """AcqKnowledge; a channel's own rate."""
    bioread = need("bioread", body.path, "a BIOPAC AcqKnowledge file")
    log = logging.getLogger("bioread")
    before, log.disabled = log.disabled, True  # its errors are raised again, or told below
    try:
        with _Forward(body.path) as file:
            reader = importlib.import_module("bioread.reader").Reader.read_headers(file)
        share = 1.0
        if not reader.is_compressed:  # samples of all channels alternate up to the end
            present = body.path.stat().st_size - reader.data_start_offset
            share = min(1.0, present / max(reader.data_length, 1))

        def load(index: int) -> tuple[None, Any]:
            with _Forward(body.path) as file:
                data = bioread.read(file, channel_indexes=[index]).channels[index].data
            return None, data[: int(len(data) * share)]

        signals = [
            Signal(c.name, c.units, float(c.samples_per_second), lambda i=i: load(i))  # type: ignore[misc]
            for i, c in enumerate(reader.datafile.channels)
        ]
        found = recording(body, chosen(body, signals, asked), asked, "biopac")
        if share < 1.0:
            body.notes.append(f"the file holds {share:.1%} of the samples that its header announces: it was cut off")
        return found
    except SourceError:
        raise
    except Exception as error:  # bioread has no exception of its own
        raise _damaged(body, "AcqKnowledge", error) from None
    finally:
        log.disabled = before


_READERS: dict[bytes, Reader] = {
    b"XDF:": xdf,
    b"\x89HDF": opensignals_h5,
    b"PK\x03\x04": empatica_zip,
    b"Obj\x01": embrace_plus,
    b"0       ": edf,
    b"\xffBIOSEMI": edf,
}
_REFUSED = {
    b"MATLAB": "a MATLAB file; export its EDA as CSV",
    b"%PDF": "a PDF; give the recording itself",
    b"\xd0\xcf\x11\xe0": "a spreadsheet of an old Excel; save it as CSV",
    b"PAR1": "a Parquet file; export its EDA as CSV",
    b"\x93NUMPY": "a NumPy file; export its EDA as CSV",
    b"SQLite ": "a database; export its EDA as CSV",
    b"\xfd7zXZ": "compressed by xz; unpack it",
    b"BZh": "compressed by bzip2; unpack it",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard; unpack it",
    b"7z\xbc\xaf": "a 7-Zip archive; unpack it",
    b"Rar!": "a RAR archive; unpack it",
    b"\x89PNG": "a picture; give the recording itself",
    b"\xff\xd8\xff": "a picture; give the recording itself",
}
