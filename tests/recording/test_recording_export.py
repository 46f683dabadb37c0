"""Exports carry every number, and nothing where there was no data."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmt_edge.capture.base import Clock, State, Status
from jmt_edge.engine.bundle import Bundle
from jmt_edge.errors import ConfigError
from jmt_edge.live.page.recordings import Recordings
from jmt_edge.media.chunk import Chunk
from jmt_edge.observer import Mark, RunInfo
from jmt_edge.recording.export import export_csv, export_parquet, export_xdf, tables
from jmt_edge.recording.reader import RecordedSource, Recording
from jmt_edge.recording.recorder import Recorder
from jmt_edge.result import Quality, Result

NAMES = ("face", "voice", "eda")
EDA_T = np.arange(6000) / 64 + 0.1
EDA_V = np.where(np.arange(6000) % 100 < 90, 2 + np.sin(EDA_T), np.nan).astype(np.float32)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory, trimodal: Bundle) -> Recording:
    folder = tmp_path_factory.mktemp("export") / "run <1> & co"
    recorder = Recorder(folder, trimodal)
    recorder.on_start(RunInfo(trimodal, "onnxruntime", {}, 0.5, False, 0.0, dict.fromkeys(NAMES, "x")))
    recorder.on_chunk("eda", Chunk(EDA_T, EDA_V, 64.0))
    for i in range(1, 6):
        outputs = None if i == 2 else {"pain": i / 7, "valence": -i / 9, "arousal": i / 11}
        quality = {
            n: Quality(outputs is not None or n != "eda", "" if outputs else 'open, "electrode"', 0.5) for n in NAMES
        }
        attention = dict.fromkeys(NAMES, None if outputs is None else 1 / 3)
        latency = {"preprocess": 1.0, "backbones": None, "fusion": 0.5, "total": 2.0}
        recorder.on_status(
            {"eda": Status(State.STREAMING, unit="µS", clock=Clock(0.5, 12.5, 0.01), lost=i, reconnects=i)}
        )
        if i == 3:
            recorder.on_mark(Mark(1.2, "cold <pack>", None))
            recorder.on_mark(Mark(1.3, "x" * 400, 7))
        recorder.on_result(
            Result(
                i, i / 2, "trimodal", outputs, "" if outputs else "nothing usable", quality, attention, latency, 0, "b"
            )
        )
    recorder.close()
    return Recording(folder)


def test_csv(recording: Recording, tmp_path: Path) -> None:
    export_csv(recording, tmp_path / "out")
    read = {p.stem: list(csv.DictReader(p.open())) for p in (tmp_path / "out").iterdir()}
    assert set(read) == {"results", "eda", "events", "alarms", "clocks"}
    assert [row["pain"] for row in read["results"]] == [repr(1 / 7), "", *(repr(i / 7) for i in (3, 4, 5))]
    assert read["results"][1]["eda_reason"] == 'open, "electrode"' and read["results"][1]["reason"] == "nothing usable"
    values = np.array([float(row["uS"] or "nan") for row in read["eda"]], np.float32)
    np.testing.assert_array_equal(values, EDA_V)
    np.testing.assert_array_equal([float(row["t"]) for row in read["eda"]], EDA_T)
    assert [(row["text"][:4], row["rating"]) for row in read["events"]] == [("cold", ""), ("xxxx", "7")]
    assert read["clocks"][0]["drift_ppm"] == "12.5"


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+2", "'=1+2"), ("+44", "'+44"), ("-x", "'-x"), ("@SUM(A1)", "'@SUM(A1)"), ("a=b", "a=b"),
        ("cuff\u202egnp", "cuff\ufffdgnp"), ("\x1b[2J", "\ufffd[2J"), ("\t=1", "\ufffd=1"),
    ],
)  # fmt: skip
def test_a_text_is_neither_a_formula_nor_invisible_in_a_cell(
    text: str, cell: str, trimodal: Bundle, tmp_path: Path
) -> None:
    recorder = Recorder(tmp_path / "r", trimodal)
    recorder.on_start(RunInfo(trimodal, "onnxruntime", {}, 0.5, False, 0.0, dict.fromkeys(NAMES, "x")))
    recorder.on_mark(Mark(1.0, text, None))
    recorder.close()
    export_csv(Recording(tmp_path / "r"), tmp_path / "out")
    (row,) = csv.DictReader((tmp_path / "out" / "events.csv").open(encoding="utf-8", newline=""))
    assert row["text"] == cell and float(row["t"]) == 1.0


def test_parquet(recording: Recording, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    export_parquet(recording, tmp_path / "out")
    results = parquet.read_table(tmp_path / "out/results.parquet")
    assert results["pain"].to_pylist() == [1 / 7, None, 3 / 7, 4 / 7, 5 / 7]
    assert results["eda_ok"].to_pylist() == [True, False, True, True, True]
    assert b"not for clinical use" in results.schema.metadata[b"intended_use"]
    eda = parquet.read_table(tmp_path / "out/eda.parquet")
    assert eda["uS"].null_count == int(np.isnan(EDA_V).sum())
    assert parquet.read_table(tmp_path / "out/events.parquet")["rating"].to_pylist() == [None, 7]


def test_xdf(recording: Recording, tmp_path: Path) -> None:
    pyxdf = pytest.importorskip("pyxdf")
    export_xdf(recording, tmp_path / "out.xdf")
    streams, header = pyxdf.load_xdf(str(tmp_path / "out.xdf"))
    by_name = {s["info"]["name"][0]: s for s in streams}
    assert header["info"]["version"] == ["1.0"]
    outputs = by_name["jmt-edge outputs"]
    channels = outputs["info"]["desc"][0]["channels"][0]["channel"]
    assert [c["label"][0] for c in channels] == ["pain", "valence", "arousal"]
    np.testing.assert_array_equal(outputs["time_series"][0], [1 / 7, -1 / 9, 1 / 11])
    assert np.isnan(outputs["time_series"][1]).all()
    np.testing.assert_allclose(outputs["time_stamps"], [0.5, 1.0, 1.5, 2.0, 2.5], atol=1e-9)
    eda = by_name["EDA"]
    np.testing.assert_array_equal(eda["time_series"][:, 0].astype(np.float32), EDA_V)
    np.testing.assert_allclose(eda["time_stamps"], EDA_T, atol=1e-9)  # pyxdf's own line through them
    assert float(eda["info"]["nominal_srate"][0]) == pytest.approx(64) and eda["info"]["effective_srate"] == (
        pytest.approx(64)
    )
    assert float(outputs["info"]["nominal_srate"][0]) == 2.0
    marks = by_name["marks"]
    assert marks["time_series"] == [["cold <pack>"], ["rating 7: " + "x" * 400]]
    np.testing.assert_array_equal(marks["time_stamps"], [1.2, 1.3])
    assert by_name["jmt-edge quality"]["time_series"][1].tolist() == [1.0, 1.0, 0.0]
    assert math.isnan(by_name["jmt-edge attention"]["time_series"][1][0])


def test_xdf_keeps_the_place_of_what_is_missing(tmp_path: Path, trimodal: Bundle) -> None:
    """A lost second, a pause of ten minutes and a dropped window: pyxdf fits a line through an even stream's stamps."""
    pyxdf = pytest.importorskip("pyxdf")
    t = np.arange(0.0, 30.0, 1 / 64)
    t = np.delete(t, np.s_[640:704])
    t[1200:] += 600.0
    recorder = Recorder(tmp_path / "run", trimodal)
    recorder.on_start(RunInfo(trimodal, "onnxruntime", {}, 0.5, False, 0.0, dict.fromkeys(NAMES, "x")))
    recorder.on_chunk("eda", Chunk(t, t.astype(np.float32), 64.0))
    quality = {n: Quality(True, "", 0.5) for n in NAMES}
    for i in (1, 2, 5, 6):
        outputs = {"pain": i / 2, "valence": 0.0, "arousal": 0.0}
        recorder.on_result(
            Result(i, i / 2, "trimodal", outputs, "", quality, dict.fromkeys(NAMES, 1 / 3), {"total": 1.0}, 0, "b")
        )
    recorder.close()
    export_xdf(Recording(tmp_path / "run"), tmp_path / "out.xdf")
    streams, header = pyxdf.load_xdf(str(tmp_path / "out.xdf"))
    assert header["info"]["datetime"][0].startswith("20")
    for name, rows in (("EDA", len(t) + 64), ("jmt-edge outputs", 6)):
        stream = next(s for s in streams if s["info"]["name"][0] == name)
        stamps, values = stream["time_stamps"], stream["time_series"][:, 0]
        assert len(stamps) == rows
        there = np.isfinite(values)
        np.testing.assert_allclose(stamps[there], values[there], atol=1e-3)
    eda = next(s for s in streams if s["info"]["name"][0] == "EDA")
    assert eda.get("clock_times", [0.0]) == [0.0]  # pyxdf hands them out from 1.16.7 on


@pytest.mark.filterwarnings("ignore:.*(non-numeric|deviates)")
def test_neurokit_reads_the_xdf(recording: Recording, tmp_path: Path) -> None:
    neurokit = pytest.importorskip("neurokit2")
    export_xdf(recording, tmp_path / "out.xdf")
    table, about = neurokit.read_xdf(str(tmp_path / "out.xdf"), verbose=False, fill_method=None)
    assert about["sampling_rate"] == 128 and about["datetime"].startswith("20")
    first = float(EDA_T[0])  # the earliest stamp: NeuroKit's zero
    at = table.index.to_numpy() + first
    good = table["EDA"].notna().to_numpy() & (at < EDA_T[-1])
    np.testing.assert_allclose(table["EDA"].to_numpy()[good], np.interp(at[good], EDA_T, 2 + np.sin(EDA_T)), atol=2e-3)
    assert good.sum() > 0.7 * len(at)


def test_an_empty_recording_exports_empty_tables(tmp_path: Path, trimodal: Bundle) -> None:
    recorder = Recorder(tmp_path / "run", trimodal)
    recorder.on_start(RunInfo(trimodal, "onnxruntime", {}, 0.5, False, 0.0, dict.fromkeys(NAMES, "x")))
    recorder.close()
    recording = Recording(tmp_path / "run")
    for export in (export_csv, export_parquet):
        assert len(export(recording, tmp_path / export.__name__)) == 5
    export_xdf(recording, tmp_path / "out.xdf")
    pyxdf = pytest.importorskip("pyxdf")
    streams, _ = pyxdf.load_xdf(str(tmp_path / "out.xdf"))
    assert all(len(s["time_stamps"]) == 0 for s in streams)


def test_nothing_is_overwritten(recording: Recording, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for export in (export_csv, export_parquet, export_xdf):
        with pytest.raises(ConfigError, match="not overwritten"):
            export(recording, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_command_line(recording: Recording, tmp_path: Path, command_line: Any) -> None:
    assert command_line("export", recording.folder, "--to", "xdf", "--out", tmp_path / "x.xdf") == (
        0, f"{tmp_path / 'x.xdf'}\n", "",
    )  # fmt: skip
    code, _, err = command_line("export", tmp_path, "--to", "csv")
    assert code == 2 and "not a recording" in err


@pytest.mark.parametrize("said", ["a.u.", ""])
def test_readings_that_are_not_said_to_be_microsiemens_are_nowhere_called_so(
    said: str, tmp_path: Path, trimodal: Bundle
) -> None:
    """An uncalibrated sensor's, and those of a recording whose lines that say the unit are lost."""
    folder = tmp_path / "runs" / "run"
    recorder = Recorder(folder, trimodal)
    recorder.on_start(RunInfo(trimodal, "onnxruntime", {}, 0.5, False, 0.0, dict.fromkeys(NAMES, "x")))
    recorder.on_chunk("eda", Chunk(EDA_T[:64], np.full(64, 512, np.float32), 64.0))
    if said:
        recorder.on_status({"eda": Status(State.STREAMING, unit=said)})
    recorder.close()
    recording = Recording(folder)
    assert recording.eda_unit == "a.u."
    assert tables(recording)["eda"]["au"] == [512.0] * 64 and "uS" not in tables(recording)["eda"]
    export_xdf(recording, tmp_path / "a.xdf")
    assert b"<unit>a.u.</unit>" in (tmp_path / "a.xdf").read_bytes()
    assert RecordedSource("eda", folder).status().unit == "a.u."
    assert Recordings(folder.parent).view("run")["eda"]["unit"] == "a.u."


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("ImportError('pyarrow requires NumPy 2.0 or newer')", "pyarrow cannot be loaded (pyarrow requires NumPy 2.0"),
        ("ModuleNotFoundError('no', name='pyarrow')", "needs pyarrow, which is not installed"),
    ],
)
def test_a_package_that_does_not_load_is_one_sentence(
    recording: Recording, tmp_path: Path, error: str, says: str
) -> None:
    """pyarrow 26 beside NumPy 1 is found and cannot be imported."""
    folder = tmp_path / "broken" / "pyarrow"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(f"raise {error}\n")
    code = f"import sys; sys.path.insert(0, {str(folder.parent)!r}); from jmt_edge.cli import main; main()"
    words = ["export", str(recording.folder), "--to", "parquet", "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
