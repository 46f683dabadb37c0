"""The session report: every number is one that was recorded, and what is not known is said with its reason."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from jmt_edge.cli import cli
from jmt_edge.engine.bundle import INTENDED_USE, Bundle
from jmt_edge.errors import ConfigError, SourceError
from jmt_edge.media.chunk import Chunk
from jmt_edge.observer import Mark, RunInfo
from jmt_edge.recording.alarm_events import AlarmEvent, label_line, settings_line
from jmt_edge.recording.chart import Chart
from jmt_edge.recording.export import export_csv, export_parquet, export_xdf
from jmt_edge.recording.gaps import bands
from jmt_edge.recording.reader import Recording
from jmt_edge.recording.recorder import Recorder
from jmt_edge.recording.report import report, write_report
from jmt_edge.result import Quality, Result

NAMES = ("face", "voice", "eda")
SETTINGS = {"limit": 0.7, "hysteresis": 0.1, "delay": 3.0, "enabled": True}
HOSTILE = "<script>alert(1)</script>\u202egnp.exe&amp;\"'"
VOID = {"meta", "br", "img", "hr", "link", "input"}


class Seen(HTMLParser):
    """A page as a browser reads it: text, tags, ids, tables by heading; fails where elements do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.rows: dict[str, list[list[str]]] = {}
        self.text: dict[str, str] = {}
        self._open: list[str] = []
        self._heading = ""
        self.feed(text)
        self.close()
        assert self._open == [], f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        if tag not in VOID:
            self._open.append(tag)
        if tag in ("h1", "h2"):
            self._heading = ""
        if tag == "tr":
            self.rows.setdefault(self._heading, []).append([])
        if tag in ("td", "th"):
            self.rows[self._heading][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1] == tag, f"</{tag}> closes {self._open}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if not self._open:
            return
        if self._open[-1] in ("h1", "h2"):
            self._heading += data
        elif self._open[-1] in ("td", "th"):
            self.rows[self._heading][-1][-1] += data
        elif self._open[-1] in ("p", "li", "figcaption"):
            self.text[self._heading] = self.text.get(self._heading, "") + data

    def table(self, heading: str) -> list[list[str]]:
        """Its rows, without those that are empty or hold the names."""
        return self.rows.get(heading, [[]])[1:]


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


Make = Callable[..., Recorder]


@pytest.fixture
def make(tmp_path: Path, trimodal: Bundle) -> Make:
    """A recorder whose run has begun."""

    def begin(name: str = "run", **info: object) -> Recorder:
        recorder = Recorder(tmp_path / name, trimodal)
        sources = {"face": "sim:", "voice": "", "eda": "board"}
        whole = RunInfo(trimodal, "onnxruntime", {"fusion": "fp32"}, 0.5, True, 0.0, sources)
        recorder.on_start(replace(whole, **info))
        return recorder

    return begin


def window(
    recorder: Recorder, index: int, pain: float | None, *, eda: str = "", reason: str = "nothing usable"
) -> None:
    """One result; eda: why EDA was not usable."""
    outputs = None if pain is None else {"pain": pain, "valence": -0.5, "arousal": 0.25}
    quality = {
        "face": Quality(pain is not None, "" if outputs else "no face for 2.5 s", 0.9),
        "voice": Quality(False, "no source", 0.0),
        "eda": Quality(not eda and pain is not None, eda, 0.9),
    }
    share, latency = dict.fromkeys(NAMES, None), {"preprocess": None, "total": float(index)}
    reason = "" if outputs else "nothing usable"
    recorder.on_result(Result(index, index / 2, "trimodal", outputs, reason, quality, share, latency, 0, "b"))


def event(**more: object) -> AlarmEvent:
    whole = AlarmEvent(
        "pain-1",
        "pain",
        "physiological",
        "high",
        "Pain probability ≥ 70%",
        12.0,
        15.0,
        0.7,
        30.0,
        0.95,
        31.0,
        "10.0.0.7",
    )
    return replace(whole, **more)


def note(recorder: Recorder, *events: AlarmEvent, off: str = "") -> None:
    recorder.alarm("settings", settings_line(SETTINGS, off, 0.0), lasts=True)
    for one in events:
        recorder.alarm(one.id, one.to_line(), lasts=False)
        if one.label:
            recorder.alarm("label", label_line(one.id, one.label, 40.0, "10.0.0.7"), lasts=False)


def whole_session(make: Make) -> Recording:
    """A minute, of which the seconds 20 to 45 are missing and 50 to 52 have no number; events, ratings, a label."""
    recorder = make()
    rating = {10.0: 2, 15.0: 9, 20.0: 8, 50.0: 1, 60.0: 7}
    note(recorder, event(label="true"), event(id="sensor-eda-2", alarm="sensor-eda", kind="technical", limit=None,
         text="EDA sensor lost", start=47.0, end=None, peak=None, acknowledged=None, by=""))  # fmt: skip
    for index in [*range(1, 41), *range(91, 121)]:
        t = index / 2
        window(
            recorder, index, None if 50 < t <= 52 else 0.9 if 12 <= t <= 30 else 0.2, eda="" if t > 5 else "open: 3 s"
        )
        if t in rating:
            recorder.on_mark(Mark(t, "", rating[t]))
    recorder.on_mark(Mark(60.2, HOSTILE, None))
    recorder.close()
    return Recording(recorder.folder)


def test_everything_that_was_recorded(make: Make) -> None:
    recording = whole_session(make)
    seen = Seen(report(recording))
    about = dict(seen.rows["Session report: run"])
    assert about["Results"] == "70, 66 of them with a number" and about["Span of the results"] == "0:00 to 1:00, 1:00"
    assert seen.table("Without a number")[0] == ["0:20", "0:45", "0:25", "no results were recorded"]
    assert seen.table("Without a number")[1][2:] == ["0:02", "nothing usable"]
    events = seen.table("Events")
    assert events[0] == [
        "1", "Pain probability ≥ 70%", "0:12", "0:30 (0:18)", "95%", "70%", "0:31 (10.0.0.7)", "true"
    ]  # fmt: skip
    assert events[1] == ["2", "EDA sensor lost", "0:47", "on at the end", "—", "—", "—", "—"]
    assert "Labels: 1 true, of 2." in seen.text["Events"]
    said = seen.text["Ratings and notes"]
    assert "5 of 5 ratings with an estimate" in said and "2 of 3 ratings ≥ 7 seen (estimate ≥ 70%)" in said
    # ratings 2 9 8 1 7, estimates .2 .69 .9 .2 .2: ranks 2 5 4 1 3 and 2 4 5 2 2, 7 / sqrt(10 x 8)
    assert "Spearman 0.78 (n = 5; 95 % interval" in said
    rows = seen.table("Ratings and notes")
    assert rows[0][:3] == ["0:10", "2", "20% (highest 20%)"]
    assert rows[1][:3] == ["0:15", "9", "69% (highest 90%)"]  # of the 5 s since the rating before, as the agreement
    assert rows[-1][3] == HOSTILE.replace("\u202e", "\ufffd")
    face, voice, eda = seen.table("Time in quality")
    assert face[1:] == ["sim:", "0:33 (55%)", "0:02 (3%)", "0:25 (42%)", "no face for … s 0:02"]
    assert voice[1:3] == ["—", "no source"]
    assert eda[2:4] == ["0:28 (47%)", "0:07 (12%)"] and eda[5].startswith("open 0:05")
    (total,) = seen.table("Latency")
    indices = [*range(1, 41), *range(91, 121)]
    assert total == ["total", *(f"{np.percentile(indices, p):.1f}" for p in (50, 95, 99)), "70"]
    made = dict(seen.rows["Made with"])
    bundle = recording.manifest["bundle"]
    assert made["Bundle"] == bundle["id"] and made["Bundle's sha256"] == bundle["sha256"]
    assert made["Pain alarm"] == "threshold 70%, hysteresis 10%, delay 3 s"


def test_the_page_is_whole_runs_nothing_and_loads_nothing(make: Make) -> None:
    text = report(whole_session(make))
    seen = Seen(text)
    assert not {"script", "iframe", "link", "object", "img", "form"} & set(seen.tags)
    assert seen.links == [] and "@import" not in text and set(re.findall(r"url\((.)", text)) == {"#"}
    assert len(seen.ids) == len(set(seen.ids)) == 3  # a pattern for each chart
    assert seen.tags.count("svg") == 3 and seen.tags.count("style") == 1
    assert "\u202e" not in text and "http" not in text
    assert "not for clinical use" in text and "color-scheme: light" in text


def test_the_line_breaks_at_the_gap(make: Make) -> None:
    """Two lines to the left and right of the hatched 25 s, and none across."""
    text = report(whole_session(make))
    svg = text[text.index("<svg") : text.index("</svg>")]
    lines = [
        [float(point.split(",")[0]) for point in points.split()]
        for points in re.findall(r'<polyline points="([^"]+)"', svg)
    ]
    hatched = [
        (float(x), float(x) + float(w)) for x, w in re.findall(r'<rect x="([\d.]+)" y="12" width="([\d.]+)"', svg)
    ]
    assert len(lines) == 3 and len(hatched) == 2
    for left, right in hatched:
        assert right - left > 10 and not any(min(xs) < left + 1 and max(xs) > right - 1 for xs in lines)
    assert hatched[0][1] - hatched[0][0] == pytest.approx(25 / 60 * 856, abs=1)


def test_times_are_of_the_clock_where_it_is_known(make: Make, berlin: None) -> None:
    recorder = make(origin=time.monotonic() - 30.0)
    window(recorder, 1, 0.2)
    recorder.close()
    recording = Recording(recorder.folder)
    recording.manifest["origin"] = "2026-03-01T23:59:50.000+00:00"
    window_text = Seen(report(recording))
    about = dict(window_text.rows["Session report: run"])
    assert about["Stream time 0"].startswith("2026-03-02 00:59:50. Times are local, CET (UTC+0100).")
    assert about["Span of the results"].startswith("00:59:50 to 00:59:5")


def test_an_empty_recording(make: Make) -> None:
    recorder = make()
    recorder.close()
    text = report(Recording(recorder.folder))
    seen = Seen(text)
    assert "svg" not in seen.tags and "the recording has no results" in seen.text["Trend"]
    assert seen.text["Events"].startswith("Not known: nothing judged alarms") and "None were" in text
    assert seen.text["Latency"] == "Not recorded." and "Not known" in seen.text["Time in quality"]
    assert not re.search(r"\d+%", text[text.index("<body>") :])


def test_results_without_a_number(make: Make) -> None:
    recorder = make()
    note(recorder, off="demo weights")
    for index in range(1, 9):
        window(recorder, index, None)
    recorder.close()
    seen = Seen(report(Recording(recorder.folder)))
    assert seen.text["Trend"] == "No trend: no result has a number."
    assert seen.text["Events"] == "No alarms about the person in this run: demo weights.No alarm signalled."
    assert seen.table("Without a number") == [["0:00", "0:04", "0:04", "nothing usable"]]


def test_a_recording_of_an_earlier_version(make: Make) -> None:
    recorder = make()
    window(recorder, 1, 0.4)
    recorder.close()
    folder = recorder.folder
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("chain", "host", "precision", "origin", "realtime"):
        del manifest[name]
    for name in ("files", "chain"):
        del manifest["closed"][name]
    del manifest["bundle"]["sha256"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for name in ("alarms.jsonl", "chain.jsonl", "manifest.sha256"):
        (folder / name).unlink()
    recording = Recording(folder)
    assert recording.alarms().events == () and not recording.alarms().judged
    seen = Seen(report(recording))
    assert "made by a version that did not record events" in seen.text["Events"]
    assert "without hashes" in seen.text["What is missing"]
    assert dict(seen.rows["Made with"])["Bundle's sha256"] == "not recorded"


def test_damage_costs_a_line_and_is_said(make: Make) -> None:
    folder = whole_session(make).folder
    for name, old, new in (("alarms.jsonl", b'"peak": 0.95', b'"peak": 0.15'), ("results.jsonl", b"0.9", b"0.1")):
        content = (folder / name).read_bytes()
        assert old in content
        (folder / name).write_bytes(content.replace(old, new, 1))
    with (folder / "alarms.jsonl").open("ab") as file:
        file.write(b'{"event": "x", "label": "maybe", "t": 0, "by": ""}\n')
    recording = Recording(folder)
    seen = Seen(report(recording))
    assert "alarms.jsonl: 2 damaged lines left out" in seen.text["What is missing"]
    assert "results.jsonl: 1 damaged line left out" in seen.text["What is missing"]
    assert len(seen.table("Events")) == 1 and "15%" not in str(seen.table("Events"))
    assert any(fault.startswith("alarms.jsonl") for fault in recording.seal.faults())


@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff\n", b"[]\n", b'{"settings": {"limit": "high"}, "off": ""}\n', b"{" * 9999]
)
def test_a_record_of_alarms_that_makes_no_sense(make: Make, content: bytes) -> None:
    folder = whole_session(make).folder
    (folder / "alarms.jsonl").write_bytes(content)
    seen = Seen(report(Recording(folder)))
    assert seen.text["Events"] == "Not known: the record of the alarms is damaged."


@pytest.mark.parametrize(
    ("file", "heading"),
    [("alarms", "Events"), ("events", "Ratings and notes"), ("results", "Trend"), ("results", "Time in quality"),
     ("results", "Latency")],
)  # fmt: skip
def test_what_was_damaged_was_not_absent(make: Make, file: str, heading: str) -> None:
    """Where every line that could say something is damaged, nothing says that there was nothing."""
    recorder = make()
    note(recorder, event())
    window(recorder, 1, 0.4)
    recorder.on_mark(Mark(0.4, "", 8))
    recorder.close()
    path = recorder.folder / f"{file}.jsonl"
    *first, last = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*first, last[:9] + b"\xff" + last[10:]]) + b"\n")
    said = Seen(report(Recording(recorder.folder))).text[heading]
    assert f"1 damaged line of {file}.jsonl left out, and there are no others" in said


def test_a_rating_beyond_ten_is_damage(make: Make) -> None:
    """No severe rating that the person could not have given."""
    recorder = make()
    window(recorder, 1, 0.4)
    recorder.on_mark(Mark(0.6, "", 50))
    recorder.on_mark(Mark(9.6, "", 10))
    recorder.close()
    recording = Recording(recorder.folder)
    seen = Seen(report(recording))
    assert [row[1] for row in seen.table("Ratings and notes")] == ["10"] and recording.unread["events.jsonl"] == 1


@pytest.mark.parametrize("perfect", [True, False])
def test_nothing_is_said_of_an_interval_that_is_not_there(make: Make, perfect: bool) -> None:
    recorder = make()
    for index in range(1, 121):
        window(recorder, index, 0.9 if index > 100 and not perfect else index / 200)
        if not index % 20:
            recorder.on_mark(Mark(index / 2, "", index // 20 if perfect else (index // 20) * 7 % 11))
    recorder.close()
    said = Seen(report(Recording(recorder.folder))).text["Ratings and notes"]
    assert ("no interval: the order is perfect" in said) == perfect
    assert ("independent" in said) != perfect


def test_whom_the_bundle_is_personalised_to(make: Make) -> None:
    recorder = make()
    window(recorder, 1, 0.4)
    recorder.close()
    recording = Recording(recorder.folder)
    recording.manifest["bundle"]["subject"] = "P<7>"
    assert "Personalised to P<7>, for nobody else" in Seen(report(recording)).text["Session report: run"]


@pytest.mark.parametrize(
    ("settings", "off", "said"),
    [({**SETTINGS, "enabled": False}, "", "threshold 70%, hysteresis 10%, delay 3 s; switched off"),
     (SETTINGS, "demo weights", "off: demo weights")],
)  # fmt: skip
def test_no_threshold_is_drawn_where_there_was_no_pain_alarm(
    make: Make, settings: dict[str, object], off: str, said: str
) -> None:
    recorder = make()
    recorder.alarm("settings", settings_line(settings, off, 0.0), lasts=True)
    for index in range(1, 9):
        window(recorder, index, 0.4)
    recorder.close()
    seen = Seen(text := report(Recording(recorder.folder)))
    assert "stroke-dasharray" not in text and "threshold" not in seen.text["Pain probability"]
    assert dict(seen.rows["Made with"])["Pain alarm"] == said


def test_a_task_without_pain_has_no_pain_alarm(make: Make) -> None:
    recorder = make()
    note(recorder)
    recorder.close()
    recording = Recording(recorder.folder)
    recording.manifest["outputs"] = ["valence", "arousal"]
    seen = Seen(report(recording))
    assert dict(seen.rows["Made with"])["Pain alarm"] == "none: the task estimates no pain"


def test_hostile_names_and_values(make: Make, tmp_path: Path) -> None:
    """A recording may come from anybody: nothing of it is markup, and no number stops the report."""
    folder = whole_session(make).folder
    for name in ("chain.jsonl", "manifest.sha256"):
        (folder / name).unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["chain"], manifest["closed"]["files"], manifest["closed"]["chain"]
    manifest.update(origin="9999-12-31T23:59:59+00:00", host=["x"], backend=HOSTILE, intended_use=HOSTILE,
                    precision=3, novelty=HOSTILE, sources={"face": HOSTILE, "eda": "x"})  # fmt: skip
    manifest["continues"] = {"recording": HOSTILE, "gap": float("nan")}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    lines = (folder / "results.jsonl").read_text().splitlines()
    far = {**json.loads(lines[-1]), "t": 1e299, "reason": HOSTILE}
    (folder / "results.jsonl").write_text("\n".join([*lines, json.dumps(far)]) + "\n")
    (folder / "alarms.jsonl").write_text(json.dumps(event(text=HOSTILE, by=HOSTILE, end=-1e299).to_line()) + "\n")
    strange = folder.rename(tmp_path / "<b>&run")
    text = report(Recording(strange))
    Seen(text)
    assert "<script" not in text and "<b>&run" not in text and "\u202e" not in text


def test_the_command(make: Make, tmp_path: Path, cli_run: Callable[..., tuple[int, str]]) -> None:
    folder = whole_session(make).folder
    code, said = cli_run("report", str(folder))
    out = tmp_path / "run-report.html"
    assert code == 0 and said.strip() == str(out) and out.read_text() == report(Recording(folder))
    code, said = cli_run("report", str(folder))
    assert code == 2 and "exists and is not overwritten; choose another --out" in said
    code, said = cli_run("report", str(folder), "--out", str(tmp_path / "none" / "x.html"))
    assert code in (0, 2) and "Traceback" not in said
    code, said = cli_run("report", str(tmp_path))
    assert code == 2 and "is not a recording" in said
    with pytest.raises(ConfigError, match="cannot write to"):
        write_report(Recording(folder), tmp_path / "none" / "x.html")
    with pytest.raises(SourceError):
        write_report(Recording(tmp_path / "nothing"), tmp_path / "y.html")
    assert not (tmp_path / "y.html").exists()


@pytest.fixture
def cli_run() -> Callable[..., tuple[int, str]]:
    """Run the command line as `main` does; (exit code, everything said)."""

    from jmt_edge.errors import UserError

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli, list(words), standalone_mode=False)
        if isinstance(done.exception, UserError):
            return done.exception.exit_code, str(done.exception)
        assert done.exception is None, done.exception
        return 0, done.stdout

    return run


def test_tables_of_the_events(make: Make, tmp_path: Path) -> None:
    recorder = make()
    hostile = event(id="x-2", text="=1+2\u202e", by="@SUM(A1)", start=50.0, end=None, peak=None, limit=None)
    note(recorder, event(label="unsure"), hostile)
    recorder.close()
    recording = Recording(recorder.folder)
    export_csv(recording, tmp_path / "out")
    with (tmp_path / "out" / "alarms.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first == {
        "event": "pain-1", "alarm": "pain", "kind": "physiological", "priority": "high",
        "condition": "Pain probability ≥ 70%", "limit": "0.7", "onset": "12.0", "end": "30.0", "peak": "0.95",
        "label": "unsure", "acknowledged": "31.0", "acknowledged_by": "10.0.0.7",
    }  # fmt: skip
    assert second["condition"] == "'=1+2\ufffd" and second["acknowledged_by"] == "'@SUM(A1)"
    assert second["end"] == second["peak"] == second["label"] == second["limit"] == ""
    parquet = pytest.importorskip("pyarrow.parquet")
    export_parquet(recording, tmp_path / "parquet")
    table = parquet.read_table(tmp_path / "parquet" / "alarms.parquet").to_pydict()
    assert table["peak"] == [0.95, None] and table["label"] == ["unsure", None]


def test_export_of_the_events_alone(make: Make, tmp_path: Path, cli_run: Callable[..., tuple[int, str]]) -> None:
    """The same table as among all, byte for byte, and nothing else."""
    recorder = make()
    note(recorder, event(label="true"), event(id="pain-2", start=50.0, end=60.0, label="false"))
    recorder.close()
    folder = str(recorder.folder)
    alone = Path(f"{folder}-events") / "alarms.csv"
    assert cli_run("export", folder, "--events") == (0, f"{alone}\n")
    assert cli_run("export", folder, "--to", "csv")[0] == 0
    assert list(alone.parent.iterdir()) == [alone]
    assert alone.read_bytes() == (Path(f"{folder}-csv") / "alarms.csv").read_bytes()
    with alone.open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["true", "false"]
    assert cli_run("export", folder, "--events", "--to", "csv", "--out", str(tmp_path / "x"))[0] == 0
    assert cli_run("export", folder, "--events")[0] == 2  # nothing is overwritten
    if importlib.util.find_spec("pyarrow"):
        words = ("export", folder, "--events", "--to", "parquet", "--out", str(tmp_path / "y"))
        assert cli_run(*words) == (0, f"{tmp_path / 'y' / 'alarms.parquet'}\n")
    for words, why in (
        (("--events", "--to", "xdf"), "--events writes a table, which xdf is not"),
        (("--events", "--to", "fhir"), "--events writes a table, which fhir is not"),
        ((), "nothing says what to write; give --to csv"),
    ):
        code, said = cli_run("export", folder, *words)
        assert code == 2 and why in said, said


def test_a_replay_does_not_need_the_events(make: Make) -> None:
    recorder = make()
    recorder.on_chunk("eda", Chunk(np.arange(4) / 8, np.ones(4, np.float32), 8.0))
    note(recorder, event())
    window(recorder, 1, 0.3)
    recorder.close()
    recording = Recording(recorder.folder)
    assert [type(one).__name__ for one in recording.events()] == ["Passed", "Window"]
    assert list(recording.seal.faults()) == [] and recording.seal.note == ""


def test_bands_lose_no_peak() -> None:
    t = np.arange(100_000) / 10
    v = np.zeros_like(t)
    v[54_321], v[77_777] = 1.0, -1.0
    at, low, mean, high = bands(t, v, 30.0)
    assert len(at) == 334 and high.max() == 1.0 and low.min() == -1.0 and abs(mean).max() == pytest.approx(1 / 300)
    assert np.all(np.diff(at) > 0)
    assert [len(part) for part in bands(t[:0], v[:0], 1.0)] == [0] * 4


@pytest.mark.parametrize("span", [0.5, 61.0, 3600.0, 8 * 3600.0, 30 * 86400.0, 1e12])
def test_an_axis_has_few_labels_on_round_times(span: float) -> None:
    times = np.array([0.0, span])
    chart = Chart("x", "x", 0.0, span, times, times * 0, 0, 1, {}, 1.0, lambda t: f"{t:.0f}")
    labels = [float(text) for text in re.findall(r'text-anchor="middle">(\d+)<', chart.svg())]
    assert 1 <= len(labels) <= 9
    if span >= 3600 and len(labels) > 1:
        assert all(t % 60 == 0 for t in labels)


# ---- a threshold that changed, foreign texts, a record that was removed, a day


def set_at(recorder: Recorder, t: float | None, **changed: object) -> None:
    line = settings_line({**SETTINGS, **changed}, "", t or 0.0)
    if t is None:
        del line["t"]  # as earlier versions wrote it
    recorder.alarm("settings", line, lasts=True)


def test_each_rating_is_held_against_the_threshold_of_its_time(make: Make) -> None:
    """70 % until 30 s, then 50 %: an estimate of 60 % is below the first and above the second."""
    recorder = make()
    set_at(recorder, 0.1)
    for index in range(1, 121):
        window(recorder, index, 0.6)
        if index == 60:
            set_at(recorder, 30.0, limit=0.5)
    recorder.on_mark(Mark(20.0, "", 8))
    recorder.on_mark(Mark(50.0, "", 9))
    recorder.close()
    text = report(Recording(recorder.folder))
    seen = Seen(text)
    assert "1 of 2 ratings ≥ 7 seen (estimate ≥ the threshold of then, 50% to 70%)" in text
    assert "the alarm's threshold, 70%, 50% from 0:30" in seen.text["Pain probability"]
    path = re.search(r'd="M([\d.]+) ([\d.]+)H([\d.]+)M([\d.]+) ([\d.]+)H([\d.]+)" stroke="#b3261e"', text)
    assert path is not None
    x0, y0, x1, x2, y2, x3 = map(float, path.groups())
    assert x0 < x1 == x2 < x3 and abs(x1 - (x0 + x3) / 2) < 2 and y0 < y2, "a step down in the middle"
    made = {row[0]: row[1] for row in seen.rows["Made with"]}
    assert made["Pain alarm"] == (
        "threshold 70%, hysteresis 10%, delay 3 s. from 0:30: threshold 50%, hysteresis 10%, delay 3 s"
    )


def test_a_change_without_its_time_leaves_the_threshold_unknown(make: Make) -> None:
    recorder = make()
    set_at(recorder, None)
    set_at(recorder, None, limit=0.5)
    for index in range(1, 121):
        window(recorder, index, 0.6)
    recorder.on_mark(Mark(50.0, "", 9))
    recorder.close()
    text = report(Recording(recorder.folder))
    assert (
        "the alarm's threshold was not recorded" in Seen(text).text["Ratings and notes"]
        and "stroke-dasharray" not in text
    )
    assert "delay 3 s. later: threshold 50%" in text


def test_a_single_threshold_of_an_earlier_version_is_known(make: Make) -> None:
    recorder = make()
    set_at(recorder, None)
    for index in range(1, 121):
        window(recorder, index, 0.8)
    recorder.on_mark(Mark(50.0, "", 9))
    recorder.close()
    assert "1 of 1 rating ≥ 7 seen (estimate ≥ 70%)" in report(Recording(recorder.folder))


def test_the_intended_use_is_this_programs_and_not_the_recordings(make: Make, tmp_path: Path) -> None:
    recorder = make()
    window(recorder, 1, 0.5)
    folder = recorder.folder
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["intended_use"] = "cleared for every diagnosis"
    (folder / "manifest.json").write_text(json.dumps(manifest))  # as a killed recording, which has no checksum
    recorder._worker._files._write_manifest = lambda: None  # type: ignore[union-attr,method-assign]
    recorder.close()
    recording = Recording(folder)
    assert recording.manifest["intended_use"] == "cleared for every diagnosis"
    text = report(recording)
    assert "cleared for" not in text and INTENDED_USE[:40] in text
    assert b"cleared for" not in export_xdf(recording, tmp_path / "x.xdf")[0].read_bytes()


@pytest.mark.parametrize("lines", [0, 2])
@pytest.mark.parametrize("closed", [True, False])
def test_a_removed_record_of_the_alarms_is_no_earlier_version(make: Make, lines: int, closed: bool) -> None:
    recorder = make()
    for _ in range(lines):
        set_at(recorder, 0.1)
    window(recorder, 1, 0.5)
    recorder.close()
    folder = recorder.folder
    if not closed:
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, "closed": None}))
        (folder / "manifest.sha256").unlink()
    (folder / "alarms.jsonl").unlink()
    text = report(Recording(folder))
    assert "removed" in text and "version that did not record events" not in text
    assert ("alarms.jsonl: 2 damaged lines left out" in text) is (lines == 2)


@pytest.mark.parametrize("name", ["results.jsonl", "events.jsonl", "eda.csv", "timeline.jsonl"])
def test_a_file_that_was_removed_from_a_closed_recording_is_damage(make: Make, name: str) -> None:
    recording = whole_session(make)
    before = sum(1 for _ in (recording.folder / name).open("rb"))
    (recording.folder / name).unlink()
    recording = Recording(recording.folder)
    list(recording.each_result()), recording.marks(), recording.eda(), list(recording.statuses())
    assert before > 0 and recording.unread[name] == before


def test_a_day_is_reported_in_little_memory(make: Make) -> None:
    """Of 172 800 results no more than numbers may be kept; a line of one takes 4.5 kB as Python values."""
    recorder = make()
    windows = 6000
    for index in range(1, windows + 1):
        window(recorder, index, None if index % 9 == 0 else 0.5, eda="" if index % 5 else f"moved by {index} µS")
    recorder.close()
    report(Recording(recorder.folder))  # what the first one loads stays
    tracemalloc.start()
    text = report(Recording(recorder.folder))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert f"{windows}, {windows - windows // 9} of them with a number" in text
    assert peak / windows < 1000


def test_a_report_in_german(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers as in English, with German sentences, decimals and dates; by the flag, or by the locale."""
    recorder = make()
    for index in range(1, 101):
        reason = "no valid EDA value for 5.5 s or more: sensor silent" if index > 60 else ""
        window(recorder, index, None if 20 < index <= 30 else 0.5 if index < 60 else 0.876, eda=reason)
    recorder.on_mark(Mark(40.0, "turned to the left side", 8))
    recorder.alarm("settings", settings_line(SETTINGS, "", 0.0), lasts=True)
    recorder.alarm("pain-1", event(end=20.0, peak=0.876, limit=0.7).to_line(), lasts=False)
    recorder.close()
    english, german = (Seen(report(Recording(recorder.folder), code)) for code in ("en", "de"))

    def numbers(seen: Seen) -> list[str]:
        rows = [cell for table in seen.rows.values() for row in table for cell in row]
        return re.findall(r"\d+", " ".join(rows).replace("2026-", ""))

    assert len(numbers(english)) == len(numbers(german)) > 100
    assert list(german.rows) == [
        "Sitzungsbericht: run", "Ohne Zahl", "Alarme", "Schmerzangaben und Notizen", "Signalqualität", "Latenz",
        "Erstellt mit",
    ]  # fmt: skip
    whole = " ".join([*german.text.values(), *(cell for t in german.rows.values() for row in t for cell in row)])
    for words in (
        "nicht für den klinischen Einsatz", "Schmerzwahrscheinlichkeit ≥\u00a070\u00a0%", "88\u00a0%",
        "seit mindestens … s kein gültiger EDA-Wert", "turned to the left side",
        "Grenze 70\u00a0%, Hysterese 10\u00a0%, Verzögerung 3 s", "Schrittweite, Glättung", "0,5 s", "Zeitpunkt 0",
    ):  # fmt: skip
        assert words in whole, words
    page = tmp_path / "by-flag.html"
    runner = CliRunner()
    assert runner.invoke(cli, ["report", str(recorder.folder), "--out", str(page), "--language", "de"]).exit_code == 0
    assert '<html lang="de">' in page.read_text()
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert runner.invoke(cli, ["report", str(recorder.folder)]).exit_code == 0
    assert '<html lang="de">' in (tmp_path / "run-report.html").read_text()
    with pytest.raises(ConfigError, match="there is no language 'fr'"):
        report(Recording(recorder.folder), "fr")
