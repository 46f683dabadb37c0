"""EDA in binary files, each written by a library of its own (or by hand) and read back: the same signal, or why not."""

from __future__ import annotations

import json
import logging
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmt_edge.capture import open_source
from jmt_edge.capture.files import EdaFile
from jmt_edge.errors import SourceError
from jmt_edge.media import eda_formats
from jmt_edge.media.eda_files import Asked, EdaRecording, read_eda_file

RATE, N = 50.0, 1500
T = np.arange(N) / RATE
S = 5 + 0.5 * np.sin(T / 3) + 0.002 * np.sin(977 * T)


def read(spec: object) -> EdaRecording:
    source = open_source("eda", str(spec))
    assert isinstance(source, EdaFile)
    source.open(0.0)
    found = source._recording
    assert found is not None
    return found


# ---- writers


def chunk(tag: int, content: bytes) -> bytes:
    return b"\x08" + struct.pack("<Q", len(content) + 2) + struct.pack("<H", tag) + content


def xdf(path: Path, streams: list[tuple[str, str, list[str], str, float, np.ndarray, np.ndarray]]) -> None:
    """streams: (name, type, labels, unit, nominal rate, times, values (n, channels))."""
    out = b"XDF:" + chunk(1, b'<?xml version="1.0"?><info><version>1.0</version></info>')
    for number, (name, kind, labels, unit, rate, _, values) in enumerate(streams, 1):
        channels = "".join(f"<channel><label>{x}</label><unit>{unit}</unit></channel>" for x in labels)
        described = f"<desc><channels>{channels}</channels></desc>" if labels else "<desc/>"
        out += chunk(2, struct.pack("<I", number) + (
            f'<?xml version="1.0"?><info><name>{name}</name><type>{kind}</type><channel_count>{values.shape[1]}'
            f"</channel_count><nominal_srate>{rate}</nominal_srate><channel_format>double64</channel_format>"
            f"<created_at>0</created_at>{described}</info>"
        ).encode())  # fmt: skip
    for number, (*_, times, values) in enumerate(streams, 1):
        for i in range(0, len(times), 100):
            rows = b"".join(
                b"\x08" + struct.pack("<d", t) + row.astype("<f8").tobytes()
                for t, row in zip(times[i : i + 100], values[i : i + 100])
            )
            out += chunk(3, struct.pack("<I", number) + b"\x04" + struct.pack("<I", len(times[i : i + 100])) + rows)
            out += chunk(4, struct.pack("<Idd", number, times[i], 3.0))
    path.write_bytes(out)


def plain_xdf(path: Path) -> None:
    eeg = np.zeros((100, 3))
    xdf(path, [("amp", "EEG", ["Fz", "Cz", "Oz"], "uV", 100.0, np.arange(100) / 100, eeg),
               ("skin", "EDA", ["EDA"], "microsiemens", RATE, 1000 + T, S[:, None])])  # fmt: skip


def opensignals_h5(path: Path, sensor: str = "EDABITREV", bits: int = 10, drop: tuple[int, ...] = ()) -> None:
    h5py = pytest.importorskip("h5py")
    keep = np.delete(np.arange(N), drop)
    with h5py.File(path, "w") as file:
        device = file.create_group("20:16:07:18:13:61")
        device.attrs["sampling rate"] = int(RATE)
        device.attrs["resolution"] = np.array([bits, bits])
        device.attrs["channels"] = np.array([1, 3])
        raw = device.create_group("raw")
        raw["nSeq"] = (keep % 16)[:, None]
        raw["channel_1"] = np.full((len(keep), 1), 500)
        raw["channel_3"] = np.round(S / 25 * 2**bits)[keep, None].astype(np.int64)
        raw["channel_1"].attrs["sensor"] = "ECGBIT"
        if sensor:
            raw["channel_3"].attrs["sensor"] = np.bytes_(sensor)


def test_a_damaged_hdf5_file_does_not_hang(tmp_path: Path) -> None:
    """One byte, the length of a string in a heap, sends HDF5's library into a loop that no signal ends."""
    opensignals_h5(tmp_path / "a.h5")
    whole = bytearray((tmp_path / "a.h5").read_bytes())
    length = whole.index(b"ECGBIT") - 8
    assert whole[length] == 6
    whole[length] = 136
    (tmp_path / "b.h5").write_bytes(whole)
    command = [sys.executable, "-m", "jmt_edge", "inspect", str(tmp_path / "b.h5")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "would hang or crash" in done.stdout + done.stderr


@pytest.mark.parametrize("damaged", [99_999, 2**62, -5])
def test_one_damaged_sequence_number_moves_no_sample(damaged: int, tmp_path: Path) -> None:
    """It said how long the counter is: 16 samples became 100 000."""
    h5py = pytest.importorskip("h5py")
    opensignals_h5(tmp_path / "a.h5", drop=(500, 501))
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        sequence = file["20:16:07:18:13:61/raw/nSeq"]
        sequence[700] = damaged
        numbers = sequence[:, 0].tolist()
    header = {"x": {"sensor": ["EDABITREV"], "label": ["A3"], "column": ["nSeq", "A3"], "resolution": [10],
                    "sampling rate": RATE, "device": "bitalino_rev"}}  # fmt: skip
    kept = np.delete(np.round(S / 25 * 1024), (500, 501))
    rows = "".join(f"{n}\t{v:.0f}\n" for n, v in zip(numbers, kept))
    (tmp_path / "a.txt").write_text(f"# OpenSignals Text File Format\n# {json.dumps(header)}\n# EndOfHeader\n{rows}")
    for name in ("a.h5", "a.txt"):
        found = read(tmp_path / name)
        assert (found.lost, found.altered) == (2, 0), name
        assert any("1 sequence numbers cannot be right" in note for note in found.notes), name
        np.testing.assert_allclose(found.times, np.delete(T, (500, 501)), atol=1e-9)


def e4_zip(path: Path, folder: str = "") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{folder}EDA.csv", "1700000000.00\n50.0\n" + "".join(f"{v:.9f}\n" for v in S))
        archive.writestr(f"{folder}TEMP.csv", "1700000000.00\n4.0\n" + "30.1\n" * 60)
        archive.writestr(f"__MACOSX/{folder}EDA.csv", "\0\0")


def embrace(path: Path, parts: int = 2) -> None:
    fastavro = pytest.importorskip("fastavro")
    eda = {"type": "record", "name": "Eda", "fields": [
        {"name": "timestampStart", "type": "long"}, {"name": "samplingFrequency", "type": "float"},
        {"name": "values", "type": {"type": "array", "items": "float"}},
    ]}  # fmt: skip
    raw = {"type": "record", "name": "RawData", "fields": [{"name": "eda", "type": eda}]}
    schema = {"type": "record", "name": "Session", "fields": [{"name": "rawData", "type": raw}]}
    size = N // parts
    records = [
        {"rawData": {"eda": {"timestampStart": 1_700_000_000_000_000 + int(i * size / RATE * 1e6),
                             "samplingFrequency": RATE, "values": S[i * size : (i + 1) * size].tolist()}}}
        for i in range(parts)
    ]  # fmt: skip
    with path.open("wb") as file:
        fastavro.writer(file, schema, records, codec="deflate", sync_interval=100)


def edf(path: Path, unit: str = "uS", label: str = "GSR", scale: float = 1.0) -> None:
    edfio = pytest.importorskip("edfio")
    kind = edfio.EdfSignal if path.suffix == ".edf" else edfio.BdfSignal
    whole = edfio.Edf if path.suffix == ".edf" else edfio.Bdf
    eeg = kind(np.zeros(30 * 200), 200, label="Fz", physical_dimension="uV", physical_range=(-100, 100))
    skin = kind(S * scale, RATE, label=label, physical_dimension=unit, physical_range=(0, 10 * scale))
    whole([eeg, skin]).write(path)


def acq(path: Path, name: str = "EDA - EDA100C", unit: str = "microsiemens") -> None:
    """AcqKnowledge 3.7: two channels of int16 at 100 and 50 Hz, whose samples alternate."""
    headers = pytest.importorskip("bioread.headers")
    if not hasattr(headers.GraphHeader, "for_revision"):
        pytest.skip("bioread before 3.1 reads these files, but its headers cannot write one")

    def packed(kind: Any, **values: Any) -> bytes:
        header = kind.for_revision(38, "<", encoding="latin1")
        fields = header._struct_class()
        for key, value in values.items():
            setattr(fields, key, value)
        return bytes(fields)

    def size(kind: Any) -> int:
        return kind.for_revision(38, "<", encoding="latin1").struct_length

    ecg = np.zeros(2 * N, "<i2")
    skin = np.round(S / 0.001).astype("<i2")
    out = packed(headers.GraphHeader, lVersion=38, lExtItemHeaderLen=size(headers.GraphHeader), nChannels=2,
                 dSampleTime=10.0)  # fmt: skip
    for number, (label, units, n, divider) in enumerate(
        ((b"ECG", b"mV", 2 * N, 1), (name.encode(), unit.encode(), N, 2))
    ):
        out += packed(
            headers.ChannelHeader, lChanHeaderLen=size(headers.ChannelHeader), nNum=number + 1, szCommentText=label,
            szUnitsText=units, lBufLength=n, dAmplScale=0.001, nChanOrder=number, nVarSampleDivider=divider,
        )  # fmt: skip
    out += packed(headers.ForeignHeader, nLength=4)
    out += packed(headers.ChannelDTypeHeader, nSize=2, nType=2) * 2
    mixed = np.stack([ecg[0::2], skin, ecg[1::2]], axis=1)  # ECG, EDA, ECG
    path.write_bytes(out + mixed.astype("<i2").tobytes() + struct.pack("<ii", 0, 0))


# format: (file, writer, library, tolerance in µS); who asked for it, or met it
FORMATS: dict[str, tuple[str, Callable[[Path], None], str, float]] = {
    "XDF": ("a.xdf", plain_xdf, "pyxdf", 1e-9),
    "OpenSignals h5": ("a.h5", opensignals_h5, "h5py", 0.02),
    "Empatica E4 zip": ("a.zip", e4_zip, "", 1e-8),
    "Empatica EmbracePlus": ("1-1-001_1700000000.avro", embrace, "fastavro", 1e-6),  # physiopy/phys2bids#490
    "EDF": ("a.edf", edf, "edfio", 2e-4),
    "BDF": ("a.bdf", edf, "edfio", 1e-6),
    "BIOPAC": ("a.acq", acq, "bioread", 1e-3),
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_signal_and_its_times(name: str, tmp_path: Path) -> None:
    file, write, module, tolerance = FORMATS[name]
    if module:
        pytest.importorskip(module)
    write(tmp_path / file)
    found = read(tmp_path / file)
    np.testing.assert_allclose(found.values, S, atol=tolerance)
    np.testing.assert_allclose(found.times, T, atol=1e-6)
    assert (found.unit, found.lost, found.altered) == ("µS", 0, 0) and not found.notes
    again = read(f"{tmp_path / file}?rate=25")  # the file's own times are then not used
    np.testing.assert_allclose(again.times, np.arange(N) / 25)


@pytest.mark.parametrize("name", [name for name in FORMATS if FORMATS[name][2]])
def test_without_its_library_the_remedy_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, write, module, _ = FORMATS[name]
    pytest.importorskip(module)
    write(tmp_path / file)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SourceError, match=rf"{module}.*jmt-edge\[formats\]"):
        read(tmp_path / file)


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_one_sentence_or_says_that_it_was_cut_off(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, write, module, tolerance = FORMATS[name]
    if module:
        pytest.importorskip(module)
    write(tmp_path / file)
    data = (tmp_path / file).read_bytes()
    rng = np.random.default_rng(0)
    used = 0
    variants = [data[:n] for n in (9, 40, len(data) // 3, len(data) // 2, len(data) - 700, len(data) - 3)]
    for _ in range(6):
        broken = bytearray(data)
        broken[int(rng.integers(len(data) // 3))] ^= 0xFF
        variants.append(bytes(broken))
    for i, content in enumerate(variants):
        (tmp_path / file).write_bytes(content)
        try:
            found = read(tmp_path / file)
        except SourceError as error:
            said = str(error)
            assert "\n" not in said and ";" in said and file in said, said
            continue
        used += 1
        if i < 6 and len(found.values) < N:
            n = len(found.values)
            assert "cut off" in " ".join(found.notes), (i, n)
            np.testing.assert_allclose(found.values, S[:n], atol=tolerance)
    assert used or name in ("OpenSignals h5", "Empatica E4 zip"), "nothing of any damaged file was used"
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING and r.name.startswith("jmt_edge")]


def test_one_of_several_signals_is_chosen_by_name_or_number(tmp_path: Path) -> None:
    pytest.importorskip("pyxdf")
    left, right = S[:, None], 2 * S[:, None]
    xdf(tmp_path / "a.xdf", [
        ("left", "EDA", ["EDA left"], "uS", RATE, T, left), ("right", "EDA", ["EDA right"], "uS", RATE, T, right),
    ])  # fmt: skip
    with pytest.raises(SourceError, match=r"2 EDA signals \('EDA left', 'EDA right'\).*column="):
        read(tmp_path / "a.xdf")
    for column in ("eda right", "2"):
        np.testing.assert_allclose(read(f"{tmp_path / 'a.xdf'}?column={column}").values, 2 * S)
    with pytest.raises(SourceError, match="no signal 'x'; choose one of 'EDA left'"):
        read(f"{tmp_path / 'a.xdf'}?column=x")
    with pytest.raises(SourceError, match="sep= is for text"):
        read(f"{tmp_path / 'a.xdf'}?column=1&sep=tab")
    edf_file = tmp_path / "a.edf"
    pytest.importorskip("edfio")
    edf(edf_file, label="Resp")
    with pytest.raises(SourceError, match="no EDA signal; choose one of 'Fz', 'Resp'"):
        read(edf_file)


def test_units_are_those_of_the_file_or_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("edfio")
    edf(tmp_path / "siemens.edf", unit="S", scale=1e-6)
    np.testing.assert_allclose(read(tmp_path / "siemens.edf").values, S, atol=2e-4)
    edf(tmp_path / "kohm.edf", unit="kOhm", scale=20.0)
    np.testing.assert_allclose(read(tmp_path / "kohm.edf").values, 1000 / (20 * S), rtol=1e-3)
    edf(tmp_path / "none.edf", unit="", scale=20.0)
    with pytest.raises(SourceError, match="unit="):
        read(tmp_path / "none.edf")
    np.testing.assert_allclose(read(f"{tmp_path / 'none.edf'}?unit=kohm").values, 1000 / (20 * S), rtol=1e-3)
    opensignals_h5(tmp_path / "unknown.h5", sensor="")
    with pytest.raises(SourceError, match=r"no EDA signal; choose one of 'channel_1', 'channel_3'"):
        read(tmp_path / "unknown.h5")
    with pytest.raises(SourceError, match=r"whole numbers.*unit="):
        read(f"{tmp_path / 'unknown.h5'}?column=channel_3")
    found = read(f"{tmp_path / 'unknown.h5'}?column=channel_3&unit=adc&bits=10")
    np.testing.assert_allclose(found.values, S, atol=0.02)


def test_lost_samples_keep_their_place(tmp_path: Path) -> None:
    """A line through the stamps of an XDF stream moves them: xdf-modules/pyxdf#34, sccn/xdf#31."""
    pytest.importorskip("pyxdf")
    keep = np.delete(np.arange(N), np.s_[700:720])
    xdf(tmp_path / "a.xdf", [("skin", "GSR", [], "", RATE, T[keep], S[keep, None])])
    found = read(tmp_path / "a.xdf")
    np.testing.assert_allclose(found.times, T[keep], atol=1e-6)
    opensignals_h5(tmp_path / "a.h5", drop=(500, 501, 502))
    found = read(tmp_path / "a.h5")
    np.testing.assert_allclose(found.times, np.delete(T, [500, 501, 502]), atol=1e-9)
    assert found.lost == 3


def test_zips_and_avros_of_other_things_are_named(tmp_path: Path) -> None:
    e4_zip(tmp_path / "nested.zip", "A01/1700000000/")
    np.testing.assert_allclose(read(tmp_path / "nested.zip").values, S, atol=1e-8)
    with zipfile.ZipFile(tmp_path / "book.xlsx", "w") as archive:
        archive.writestr("[Content_Types].xml", "<x/>")
    with pytest.raises(SourceError, match="a spreadsheet; save it as CSV"):
        read(tmp_path / "book.xlsx")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        for folder in ("a", "b"):
            archive.writestr(f"{folder}/EDA.csv", "1700000000\n4\n5\n")
    with pytest.raises(SourceError, match=r"2 EDA\.csv; unpack it"):
        read(tmp_path / "two.zip")
    fastavro = pytest.importorskip("fastavro")
    with (tmp_path / "x.avro").open("wb") as file:
        schema = {"type": "record", "name": "X", "fields": [{"name": "a", "type": "int"}]}
        fastavro.writer(file, schema, [{"a": 1}])
    with pytest.raises(SourceError, match="not one of an EmbracePlus"):
        read(tmp_path / "x.avro")
    (tmp_path / "x.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(500))
    with pytest.raises(SourceError, match="a MATLAB file"):
        read(tmp_path / "x.mat")


@pytest.mark.parametrize("unit", ["µS", "a.u."])
def test_our_own_export_comes_back(unit: str, tmp_path: Path) -> None:
    """The EDA of an exported recording, with a gap of a second; refused where its unit is not known."""
    pytest.importorskip("pyxdf")
    from jmt_edge.recording.export import export_xdf
    from jmt_edge.recording.reader import Recording

    keep = np.delete(np.arange(N), np.s_[700:750])
    folder = tmp_path / "run"
    folder.mkdir()
    manifest = {
        "format": "jmt-edge recording", "version": 1, "created": "2026-01-01", "intended_use": "", "task": "pain",
        "bundle": {"id": "b", "path": "b", "demo": True}, "outputs": ["pain"], "modalities": ["face", "eda"],
        "backend": "x", "threads": 1, "hop": 0.5, "first": 1, "smooth": 0.0, "sources": {}, "raw": ["eda"],
        "whole": True, "closed": None,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "eda.csv").write_text("t,uS\n" + "".join(f"{T[i]:.6f},{S[i]:.7f}\n" for i in keep))
    status = {
        "state": "streaming", "reason": "", "clock": {"offset": None, "drift_ppm": None, "jitter": None}, "lost": 0,
        "reconnects": 0, "unit": unit, "detail": {},
    }  # fmt: skip
    (folder / "status.jsonl").write_text(json.dumps({"eda": status}) + "\n")
    export_xdf(Recording(folder), tmp_path / "out.xdf")
    if unit == "a.u.":
        with pytest.raises(SourceError, match=r"'EDA'.*'a\.u\.', which is not a unit"):
            read(tmp_path / "out.xdf")
        return
    found = read(tmp_path / "out.xdf")
    there = np.isfinite(found.values)
    np.testing.assert_allclose(found.values[there], S[keep], atol=1e-6)
    np.testing.assert_allclose(found.times[there], T[keep], atol=1e-9)
    assert found.column == "EDA"


def test_a_damaged_acqknowledge_header_is_not_searched_byte_by_byte(tmp_path: Path) -> None:
    """A sample size of no channel, after which bioread tries 4097 places for the headers of all channels."""
    pytest.importorskip("bioread")
    reads = 0

    class Counted(eda_formats._Forward):
        def read(self, size: int | None = -1, /) -> bytes:
            nonlocal reads
            reads += 1
            return super().read(size)

    acq(tmp_path / "a.acq")
    whole = (tmp_path / "a.acq").read_bytes()
    (tmp_path / "b.acq").write_bytes(whole[:2404] + b"\xff\xff\xff\x7f" + whole[2408:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eda_formats, "_Forward", Counted)
        with pytest.raises(SourceError, match="its header does not end where it says"):
            read(tmp_path / "b.acq")
    assert reads < 2000


def test_a_real_acqknowledge_recording(shared_data: Path) -> None:
    """BIOPAC's own file with four channels: the raw EDA by name or number, not the filtered and differentiated one."""
    pytest.importorskip("bioread")
    path = shared_data / "eda" / "biopac_physio-5.0.1.acq"
    with pytest.raises(SourceError, match=r"2 EDA signals .*column="):
        read_eda_file(path)
    for column in ("4", "EDA - GSR100C"):
        read = read_eda_file(path, Asked(column=column))
        assert len(read.times) == 123787 and np.diff(read.times) == pytest.approx(1 / 2000)
        assert np.nanmin(read.values) > 3.38 and np.nanmedian(read.values) == pytest.approx(3.706, abs=0.001)
