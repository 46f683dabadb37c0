"""Damaged recordings: one sentence, or everything readable and a count of what was not. See every reader's verdict."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jmt_edge.engine.bundle import Bundle
from jmt_edge.errors import SourceError, UserError
from jmt_edge.live.page.recordings import Recordings
from jmt_edge.media.chunk import Chunk
from jmt_edge.observer import Mark, RunInfo
from jmt_edge.plain_files import checksum
from jmt_edge.recording.alarm_events import AlarmEvent
from jmt_edge.recording.export import EXPORTERS, tables
from jmt_edge.recording.reader import Gap, Passed, RecordedSource, Recording, Window
from jmt_edge.recording.recorder import Recorder
from jmt_edge.result import Quality, Result

pytest.importorskip("pyarrow", reason="every exporter is tried, and one needs pyarrow")
NAMES = ("face", "voice", "eda")
WINDOWS = 8


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, trimodal: Bundle) -> Path:
    """Eight windows, ten EDA samples in each, a mark before each."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    recorder = Recorder(folder, trimodal)
    recorder.on_start(RunInfo(trimodal, "onnxruntime", {}, 0.5, False, 0.0, dict.fromkeys(NAMES, "x")))
    quality = {n: Quality(True, "", 0.5) for n in NAMES}
    for i in range(1, WINDOWS + 1):
        t = (i - 1) / 2 + np.arange(10) / 20
        recorder.on_chunk("eda", Chunk(t, (2 + t).astype(np.float32), 20.0))
        recorder.on_mark(Mark(i / 2, f"mark {i}", i % 10))
        event = AlarmEvent(f"pain-{i}", "pain", "physiological", "high", "pain", i / 2, i / 2)
        recorder.alarm(event.id, event.to_line(), lasts=False)
        recorder.on_result(
            Result(i, i / 2, "trimodal", {"pain": i / 10, "valence": 0.0, "arousal": 0.0}, "", quality,
                   dict.fromkeys(NAMES, 1 / 3), {"total": 1.0}, 0, "b")
        )  # fmt: skip
    recorder.close()
    return folder


def use_everywhere(folder: Path, out: Path) -> tuple[Recording, dict[str, Any]]:
    """Every reader of a recording. Raises SourceError as they do."""
    recording = Recording(folder)
    for name, export in EXPORTERS.items():
        export(recording, out / name)
    rows = tables(recording)
    for modality in recording.manifest["raw"]:
        source = RecordedSource(modality, folder)
        source.open(0.0)
        source.read(1e9)
        source.close()
    page = Recordings(folder.parent)
    assert folder.name in [entry["id"] for entry in page.listing()]
    view = json.loads(json.dumps(page.view(folder.name)))
    assert view["unread"] == {k: v for k, v in recording.unread.items() if k != "timeline.jsonl"}
    for name, n in view["unread"].items():
        assert bool(n) == any(said.startswith(f"{name}: {n} damaged line") for said in view["remarks"]), name
    page.export(folder.name).close()
    list(recording.events())
    return recording, rows


def damaged(whole: Path, tmp_path: Path, name: str, change: Callable[[list[bytes]], list[bytes]]) -> Path:
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run" / name
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    return tmp_path / "run"


BAD = [
    b"\xff\n",
    b"{\n",
    b"null\n",
    b"[]\n",
    b"{}\n",
    b"[" * 100_000 + b"\n",
    b"1" * 5000 + b"\n",
    b'{"t": NaN}\n',
    b"\n",
]


@pytest.mark.parametrize("line", BAD, ids=range(len(BAD)))
@pytest.mark.parametrize(
    "name", ["results.jsonl", "events.jsonl", "alarms.jsonl", "status.jsonl", "timeline.jsonl", "eda.csv"]
)
def test_one_bad_line_costs_that_line(name: str, line: bytes, whole: Path, tmp_path: Path) -> None:
    folder = damaged(whole, tmp_path, name, lambda lines: [*lines[:3], line, *lines[4:]])
    recording, rows = use_everywhere(folder, tmp_path)
    lines = (whole / name).read_bytes().count(b"\n")
    if lines > 3:
        assert recording.unread[name] == 1 and recording.damage == [f"{name}: 1 damaged line left out"]
    expected = {"results.jsonl": WINDOWS, "events.jsonl": WINDOWS, "eda.csv": 10 * WINDOWS}
    for file, table in (("results.jsonl", "results"), ("events.jsonl", "events"), ("eda.csv", "eda")):
        assert len(rows[table]["t"]) == expected[file] - (file == name), file
    assert len(rows["alarms"]["event"]) == WINDOWS - (name == "alarms.jsonl")
    events = list(recording.events())
    windows = [e.result.index for e in events if isinstance(e, Window)]
    assert windows == [i for i in range(1, WINDOWS + 1) if name != "results.jsonl" or i != 4]
    if name in ("results.jsonl", "timeline.jsonl", "eda.csv"):
        assert any(isinstance(e, Gap) for e in events)
    if name == "eda.csv":
        chunks = [e.chunk for e in events if isinstance(e, Passed) and e.chunk is not None]
        assert sum(len(c) for c in chunks) == 10 * WINDOWS - 1 and sum(c.lost for c in chunks) == 1


def test_every_byte_of_a_result_may_be_wrong(whole: Path, tmp_path: Path) -> None:
    """One bad byte in the middle must not end an export in silence."""
    rng = np.random.default_rng(1)
    data = bytearray((whole / "results.jsonl").read_bytes())
    for i in range(60):
        folder = tmp_path / f"{i}"
        shutil.copytree(whole, folder)
        copy = data.copy()
        at = int(rng.integers(len(copy)))
        copy[at] = int(rng.integers(256))
        (folder / "results.jsonl").write_bytes(copy)
        recording = Recording(folder)
        rows = tables(recording)
        kept, left = len(rows["results"]["t"]), recording.unread["results.jsonl"]
        assert kept >= WINDOWS - 2 and kept + left >= WINDOWS - 1, (at, copy[at])
        assert len([e for e in recording.events() if isinstance(e, Window)]) >= WINDOWS - 2


@pytest.mark.parametrize("t", ["1e9", "-3.0", "3.5", "0.0"])
def test_a_wrong_time_of_one_result_costs_that_window(t: str, whole: Path, tmp_path: Path) -> None:
    def change(lines: list[bytes]) -> list[bytes]:
        lines[2] = lines[2].replace(b'"t": 1.5', f'"t": {t}'.encode())
        return lines

    recording = Recording(damaged(whole, tmp_path, "results.jsonl", change))
    windows = [e.result.index for e in recording.events() if isinstance(e, Window)]
    assert windows == [1, 2, 4, 5, 6, 7, 8]


def seal(folder: Path, manifest: str) -> None:
    """Write a manifest as somebody would who knows the format."""
    (folder / "manifest.json").write_text(manifest)
    (folder / "manifest.sha256").write_bytes(checksum(manifest.encode(), "manifest.json"))


WRONG = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_manifest_of_any_shape_is_read_or_refused_in_a_sentence(
    data: st.DataObject, whole: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any entry, at any depth, replaced by anything, renamed or removed; then every reader."""
    tmp_path = tmp_path_factory.mktemp("shape")
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    manifest = json.loads((whole / "manifest.json").read_text())
    for _ in range(data.draw(st.integers(1, 2))):
        place = manifest
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if isinstance(place[key], (dict, list)) and place[key] and data.draw(st.booleans()):
                place = place[key]
                continue
            if data.draw(st.integers(0, 4)) == 0:
                del place[key]
            else:
                place[key] = data.draw(WRONG)
            break
    seal(folder, json.dumps(manifest))
    try:
        use_everywhere(folder, tmp_path / "out")
        said = "; "
    except UserError as error:
        said = str(error)
    assert ";" in said and said.isprintable(), said


@pytest.mark.parametrize("value", [None, -1, "x\x1b[31m", [], {}, [1], {"id": 3}, "nan"])
def test_a_damaged_manifest_is_one_sentence(value: Any, whole: Path, tmp_path: Path) -> None:
    manifest = json.loads((whole / "manifest.json").read_text())
    for name in manifest:
        folder = tmp_path / name
        shutil.copytree(whole, folder)
        seal(folder, json.dumps({**manifest, name: value}))
        said = "; "
        try:
            use_everywhere(folder, tmp_path / f"{name}-out")
        except SourceError as error:
            said = str(error)
        assert "\n" not in said and ";" in said and "\x1b" not in said
    for text in ("[" * 100_000, "[]", "3"):
        (tmp_path / "format" / "manifest.json").write_text(text)
        with pytest.raises(SourceError, match=r"manifest\.json"):
            Recording(tmp_path / "format")


def test_the_command_says_what_was_left_out(whole: Path, tmp_path: Path, command_line: Any) -> None:
    folder = damaged(
        whole, tmp_path, "results.jsonl", lambda lines: [*lines[:3], b"\xff\n", *lines[4:-1], lines[-1][:9]]
    )
    code, out, err = command_line("export", folder, "--to", "csv")
    assert (code, err) == (0, "jmt-edge: results.jsonl: 2 damaged lines left out\n") and out.count("\n") == 5
    source = RecordedSource("eda", folder)
    source.open(0.0)
    source.read(1e9)
    assert source.status().detail["notes"] == ["the result of window 4 is damaged", "the recording ends abruptly here"]


# ---- the recordings of the cases, where they are there

CASES = {
    "csv-eda.csv-ValueError": "eda.csv", "csv-events.jsonl-KeyError": "events.jsonl",
    "csv-manifest.json-TypeError": "'outputs' is not a list", "csv-results.jsonl-TypeError": "results.jsonl",
    "csv-status.jsonl-KeyError": "status.jsonl", "csv-timeline.jsonl-TypeError": "timeline.jsonl",
    "events-eda.csv-UnicodeDecodeError": "eda.csv", "listing-manifest.json-KeyError": "no 'bundle'",
    "listing-manifest.json-TypeError": "'closed' is not", "view-events.jsonl-KeyError": "events.jsonl",
    "xdf-events.jsonl-error": "events.jsonl", "xdf-manifest.json-AttributeError": "'created' is not",
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, tmp_path: Path) -> None:
    base = Path(__file__).resolve().parents[3] / "shared/cases"
    root = Path(os.environ.get("JMT_EDGE_TEST_CASES", base / "eda")).parent / "recordings"
    if not root.is_dir():
        pytest.skip(f"no recordings at {root} (set JMT_EDGE_TEST_CASES)")
    if " " in CASES[name]:
        with pytest.raises(SourceError, match=CASES[name]):
            use_everywhere(root / name, tmp_path)
        return
    recording, rows = use_everywhere(root / name, tmp_path)
    assert recording.unread[CASES[name]] >= 1
    assert len(rows["results"]["t"]) == 12 - (CASES[name] == "results.jsonl") or len(rows["results"]["t"]) > 8
