"""A recording's hashes: any change is found and named, nothing that was changed is read, a killed one says so."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_live_bundles import sentence
from test_recording_replay import ALL, info, record, result

from jmt_edge.cli._signed import check_recording
from jmt_edge.engine.bundle import Bundle
from jmt_edge.errors import SourceError
from jmt_edge.media.chunk import Chunk
from jmt_edge.observer import Mark
from jmt_edge.plain_files import checksum
from jmt_edge.recording.chain import align, code, differences, last_head
from jmt_edge.recording.export import tables
from jmt_edge.recording.reader import RecordedSource, Recording, Window
from jmt_edge.recording.recorder import Recorder

LINES = ("results.jsonl", "events.jsonl", "alarms.jsonl", "status.jsonl", "timeline.jsonl", "eda.csv")


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory, trimodal: Bundle) -> Path:
    """A closed recording with all raw data and marks."""
    pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("sealed") / "run"
    record(folder, trimodal, seconds=4.0)
    assert not (folder / "events.jsonl").read_bytes()
    return folder


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory, trimodal: Bundle) -> Path:
    """Eight windows with ten EDA samples and a mark each."""
    folder = tmp_path_factory.mktemp("lines") / "run"
    recorder = Recorder(folder, trimodal)
    recorder.on_start(info(trimodal))
    for i in range(1, 9):
        t = (i - 1) / 2 + np.arange(10) / 20
        recorder.on_chunk("eda", Chunk(t, (2 + t).astype(np.float32), 20.0))
        recorder.on_mark(Mark(i / 2, f"mark {i}", i))
        recorder.on_result(replace(result(i, trimodal), t=i / 2))
    recorder.close()
    return folder


def check(folder: Path) -> str:
    """What `verify --unsigned` says of a recording, empty where it accepts it."""
    said = sentence(lambda: check_recording(Recording(folder)), SourceError)
    assert "\n" not in said and (not said or ";" in said)
    return said


def test_a_closed_recording_is_what_was_written(sealed: Path, lines: Path) -> None:
    for folder in (sealed, lines):
        assert check(folder) == "" and Recording(folder).remarks == []
        listed = json.loads((folder / "manifest.json").read_text())["closed"]["files"]
        for name in listed:
            whole = (folder / name).read_bytes()
            data = whole[44:] if name == "voice.wav" else whole
            assert listed[name]["sha256"] == hashlib.sha256(data).hexdigest(), name
            assert listed[name]["bytes"] == len(data)
    assert {"face.mkv", "voice.wav"} < set(json.loads((sealed / "manifest.json").read_text())["closed"]["files"])


def test_any_change_of_any_file_is_refused_by_name(sealed: Path, lines: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tried = 0
    for source in (sealed, lines):
        folder = tmp_path / f"{source.parent.name}"
        shutil.copytree(source, folder)
        for file in sorted(folder.iterdir()):
            good = file.read_bytes()
            changed = [good + b"x", good + b"\n"]
            if good:
                changed += [good[:-1], b"", good[: len(good) // 2]]
                for place in {0, len(good) - 1, *rng.integers(0, len(good), 10).tolist()}:
                    bad = bytearray(good)
                    bad[place] ^= int(rng.integers(1, 256))
                    changed.append(bytes(bad))
            for bad in changed:
                file.write_bytes(bad)
                assert file.name.replace(".sha256", "") in check(folder).replace(".sha256", ""), (file.name, len(bad))
                tried += 1
            file.unlink()
            assert file.name in check(folder) or file.name == "manifest.json", f"{file.name} removed"
            (tmp_path / "elsewhere").write_bytes(good)
            file.symlink_to(tmp_path / "elsewhere")
            said = check(folder)
            assert file.name in said and "link" in said
            file.unlink()
            file.write_bytes(good)
        for name in ("new.txt", "face-2.mkv", ".hidden", "face/x"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"")
            assert name in check(folder)
            (folder / name).unlink()
        (folder / "face").rmdir()
        assert check(folder) == ""
    assert tried > 200


CHANGES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "changed": (lambda x: [*x[:3], x[3].replace(b"2", b"7"), *x[4:]], "line 4 was changed"),
    "two changed": (lambda x: [x[0], x[1] + b"\n", *x[2:6], b"{}\n", *x[7:]], ""),
    "removed": (lambda x: [*x[:3], *x[4:]], "line 4 of N is missing"),
    "last removed": (lambda x: x[:-1], "line N of N is missing"),
    "added": (lambda x: [*x[:3], b"{}\n", *x[3:]], "line 4 was added"),
    "appended": (lambda x: [*x, x[0]], "was added"),
    "moved": (lambda x: [*x[:3], x[4], x[3], *x[5:]], "was moved"),
    "cut within a line": (lambda x: [*x[:-1], x[-1][:-3]], "line N was changed"),
}


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("name", ["results.jsonl", "events.jsonl", "eda.csv"])
def test_the_line_is_named_and_only_true_lines_are_read(name: str, kind: str, lines: Path, tmp_path: Path) -> None:
    change, what = CHANGES[kind]
    folder = tmp_path / "run"
    shutil.copytree(lines, folder)
    whole = (folder / name).read_bytes().splitlines(keepends=True)
    (folder / name).write_bytes(b"".join(change(whole)))
    said = check(folder)
    assert f"{name}: " in said and what.replace("N", str(len(whole))) in said
    before, recording = tables(Recording(lines)), Recording(folder)
    after = tables(recording)
    assert recording.unread[name] >= 1 and recording.damage
    for table in before:
        rows, found = (list(map(str, zip(*t[table].values()))) for t in (before, after))
        assert (set(found) <= set(rows) and len(found) == len(set(found))) or table == "clocks"
        assert len(found) >= len(rows) - 2
    events = list(recording.events())
    assert {str(e) for e in events if isinstance(e, (Window, Mark))} <= {str(e) for e in Recording(lines).events()}


def test_a_changed_digit_is_never_exported(lines: Path, tmp_path: Path) -> None:
    """A valid line with another number: no reader's check can find it, the chain does."""
    folder = tmp_path / "run"
    shutil.copytree(lines, folder)
    text = (folder / "eda.csv").read_text()
    assert "\n1.5,3.5\n" in text
    (folder / "eda.csv").write_text(text.replace("\n1.5,3.5\n", "\n1.5,9.5\n"))
    recording = Recording(folder)
    times, values = recording.eda()
    assert len(times) == 79 and 1.5 not in times and 9.5 not in values
    assert recording.damage == ["eda.csv: 1 damaged line left out"]


def test_altered_raw_media_are_not_used(sealed: Path, tmp_path: Path, command_line: Any, trimodal: Bundle) -> None:
    for name, modality in (("face.mkv", "face"), ("voice.wav", "voice")):
        folder = tmp_path / modality
        shutil.copytree(sealed, folder)
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)
        with pytest.raises(SourceError, match=name):
            RecordedSource(modality, folder)
        RecordedSource("eda", folder)
        code, _, err = command_line("replay", folder, "--bundle", trimodal.path, "--output", "none", "--check")
        assert code == 1 and f"shown as recorded, not computed: {name} is not what was recorded" in err


def test_a_recording_that_was_not_closed_says_so(lines: Path, tmp_path: Path, command_line: Any) -> None:
    """As kill -9 leaves it: no closing words, and a tail that the chain does not cover."""
    folder = tmp_path / "run"
    shutil.copytree(lines, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "closed": None}))
    (folder / "manifest.sha256").unlink()
    links = (folder / "chain.jsonl").read_bytes()
    with (folder / "eda.csv").open("ab") as file:
        file.write(b"4.0,6.0\n4.05,")
    (folder / "chain.jsonl").write_bytes(links + links[:50])
    assert "unsealed: not closed: 1 s may be missing" in check(folder)
    code, _, err = command_line("export", folder, "--to", "csv")
    assert code == 0 and "not closed: 1 s may be missing" in err
    assert len(Recording(folder).eda()[0]) == 81
    text = (folder / "eda.csv").read_text()
    (folder / "eda.csv").write_text(text.replace("\n1.5,3.5\n", "\n1.5,9.5\n"))
    assert "eda.csv: line 32 was changed" in check(folder)
    assert 9.5 not in Recording(folder).eda()[1] and len(Recording(folder).eda()[0]) == 80


def test_a_part_is_tied_to_the_one_before_it(lines: Path, tmp_path: Path, trimodal: Bundle) -> None:
    """By the hash at the end of that one's chain, whether it was closed or killed."""
    shutil.copytree(lines, tmp_path / "night")
    for name in ("night-2", "night-3"):
        recorder = Recorder(tmp_path / "night", trimodal, resume=True)
        assert recorder.folder.name == name
        recorder.on_start(info(trimodal))
        recorder.on_chunk("eda", Chunk(np.arange(10) / 20, np.full(10, 3, np.float32), 20.0))
        recorder.close()
        assert check(tmp_path / name) == ""
    chain = tmp_path / "night" / "chain.jsonl"
    assert last_head(tmp_path / "night") == json.loads(chain.read_text().splitlines()[-1])["chain"]
    whole = chain.read_bytes()
    chain.write_bytes(whole + whole[:30])  # a line that a kill cut off
    assert check(tmp_path / "night-2") == ""
    chain.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    assert "'night' beside it does not end as the part that it continues" in check(tmp_path / "night-2")
    assert check(tmp_path / "night-3") == ""
    shutil.rmtree(tmp_path / "night")
    assert check(tmp_path / "night-2") == ""  # a part may be given away alone
    manifest = tmp_path / "night-2" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"recording": "night"', '"recording": "../night"'))
    (tmp_path / "night-2" / "manifest.sha256").write_bytes(checksum(manifest.read_bytes(), "manifest.json"))
    assert "names no folder beside it" in check(tmp_path / "night-2")
    (tmp_path / "night-3" / "chain.jsonl").write_text('{"chain": 1\n')
    assert last_head(tmp_path / "night-3") == ""


def test_a_session_has_a_recording_of_its_own_with_its_code(tmp_path: Path, trimodal: Bundle) -> None:
    recorder = Recorder(tmp_path / "night", trimodal, waits=True)
    recorder.on_start(info(trimodal))
    recorder.on_chunk("eda", Chunk(np.arange(10) / 20, np.full(10, 3, np.float32), 20.0))
    assert not recorder.active and not recorder.used and not list((tmp_path / "night").iterdir())
    recorder.begin_session("P07", record=True)
    assert recorder.active and recorder.used
    recorder.begin_session("P08", record=True)
    recorder.begin_session("P09", record=False)
    assert not recorder.active
    recorder.start()  # later, by the button
    recorder.close()
    found = [Recording(tmp_path / name) for name in ("night", "night-2", "night-3")]
    assert [r.recorded_subject for r in found] == ["P07", "P08", "P09"]
    assert all(r.manifest["continues"] is None and r.replay_blocker for r in found)
    assert all(check(r.folder) == "" for r in found)
    # after a restart the session continues at once, and it is still P09's
    again = Recorder(tmp_path / "night", trimodal, resume=True, waits=True)
    again.on_start(info(trimodal))
    assert again.active and again.subject == "P09"
    again.close()
    assert Recording(tmp_path / "night-4").recorded_subject == "P09"


def test_a_recording_without_hashes_opens_and_says_so(lines: Path, tmp_path: Path, command_line: Any) -> None:
    from test_recording_replay import without_hashes

    folder = tmp_path / "run"
    shutil.copytree(lines, folder)
    without_hashes(folder)
    assert "unsealed: made by an earlier version, without hashes" in check(folder)
    code, _, err = command_line("export", folder, "--to", "csv")
    assert code == 0 and "without hashes: a changed value cannot be found" in err
    assert len(Recording(folder).results()) == 8


def test_the_recording_does_not_choose_the_bundle(lines: Path, tmp_path: Path, trimodal: Bundle, command_line: Any,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """An engine plan is code: a recording from somebody else must not bring one, nor say which back-end runs it."""
    manifest = json.loads((lines / "manifest.json").read_text())
    about = {"id": trimodal.id, "sha256": trimodal.sha256, "demo": trimodal.demo, "subject": ""}
    assert manifest["bundle"] == about
    assert str(trimodal.path.parent) not in (lines / "manifest.json").read_text()
    folder = tmp_path / "run"
    shutil.copytree(lines, folder)
    manifest["bundle"]["path"] = str(trimodal.path)
    manifest["backend"] = "torch"
    del manifest["chain"], manifest["closed"]["files"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for name in ("manifest.sha256", "chain.jsonl"):
        (folder / name).unlink()
    monkeypatch.setenv("JMT_EDGE_BUNDLES", str(tmp_path / "store"))
    code, _, err = command_line("replay", folder, "--as-recorded", "--output", "none")
    assert code == 2 and "neither a packaged bundle nor in" in err and "--bundle" in err
    (tmp_path / "store").mkdir()
    shutil.copytree(trimodal.path, tmp_path / "store" / "x.jmt")
    code, _, err = command_line("replay", folder, "--as-recorded", "--output", "none")
    assert code == 0, err
    opened: list[str] = []
    from jmt_edge.engine import backends

    def opens(bundle: Bundle, name: str, threads: int | None) -> Any:
        opened.append(name)
        raise SystemExit(3)

    monkeypatch.setattr(backends, "open_engine", opens)
    monkeypatch.setattr(Recording, "replay_blocker", "")
    assert command_line("replay", folder, "--output", "none")[0] == 3
    assert opened == ["auto"]


# ---- pairing lines


@given(st.lists(st.integers(0, 6), max_size=30), st.lists(st.integers(0, 6), max_size=30))
def test_pairs_are_equal_lines_in_order(old: list[int], new: list[int]) -> None:
    written, found = np.array(old, np.uint32), np.array(new, np.uint32)
    pairing = align(written, found)
    assert found[pairing.kept].tolist() == written[pairing.places].tolist()
    assert sorted([*pairing.places, *pairing.missing]) == list(range(len(old)))
    assert (np.diff(pairing.places) > 0).all()
    if old == new:
        assert pairing.kept.all()


@given(st.lists(st.integers(0, 1 << 31), min_size=2, max_size=60, unique=True), st.data())
def test_one_edit_costs_one_line(old: list[int], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(old) - 1))
    new = {
        "change": [*old[:place], 1 << 31 | 5, *old[place + 1 :]],
        "remove": [*old[:place], *old[place + 1 :]],
        "add": [*old[:place], 1 << 31 | 5, *old[place:]],
    }[data.draw(st.sampled_from(["change", "remove", "add"]))]
    pairing = align(np.array(old, np.uint32), np.array(new, np.uint32))
    assert len(pairing.missing) <= 1 and (~pairing.kept).sum() <= 1


def test_what_is_said_of_lines(tmp_path: Path) -> None:
    text = [f"{i}\n".encode() for i in range(9)]
    written = np.array([code(line) for line in text], np.uint32)
    (tmp_path / "x").write_bytes(b"".join(text))
    assert differences(tmp_path / "x", written) == ""
    (tmp_path / "x").write_bytes(b"".join([*text[:2], b"a\n", b"b\n", *text[4:7], b"c\n", b"d\n"]))
    assert differences(tmp_path / "x", written) == "lines 3, 4, 8, ... (4 in all) were changed"


def test_a_chain_is_cheap_in_lines_and_bytes(lines: Path) -> None:
    assert os.path.getsize(lines / "chain.jsonl") < 4 * sum(os.path.getsize(lines / n) for n in LINES)
    assert ALL == ("face", "voice", "eda")
