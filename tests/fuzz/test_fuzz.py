"""The fuzzer's short run, the cases it found before, and whether it can find anything at all."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_readers import READERS, Reader
from fuzz_run import Fault, Given, Shots, Tally, minimised, outcome

from jmt_edge.errors import DataError

CASES = sorted(path for path in (Path(__file__).parent / "cases").rglob("*@*") if path.is_file())
SECONDS = 1.5  # of damaged inputs for each reader


@cache
def reader_of(name: str) -> Reader:
    """One whose good inputs are made once."""
    return READERS[name]()


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_damaged_inputs_are_taken_or_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    tally = Tally()
    shots = Shots(reader_of(name), 18, tmp_path)
    first = 0
    for _ in range(2):
        first = shots.run(first, SECONDS / 2, tally)
    assert not tally.faults, "\n".join(
        f"{f.name}: {f.kind}\n{f.detail}\n{f.data[:300]!r}" for f in tally.faults.values()
    )
    assert tally.inputs == first and tally.taken + tally.refused == first > 0


@pytest.mark.parametrize("name", sorted({path.parent.name for path in CASES}))
def test_what_was_a_fault_once_is_none_now(name: str, tmp_path: Path) -> None:
    cases = [(p.name.rpartition("@")[0], p.read_bytes()) for p in CASES if p.parent.name == name]
    tally = Given(reader_of(name.replace("-", " ")), cases, tmp_path).run_all()
    assert not tally.faults and tally.taken + tally.refused == len(cases), tally.faults.values()


@pytest.mark.parametrize("name", READERS)
def test_the_good_inputs_are_good(name: str, tmp_path: Path) -> None:
    """Else only the first check of each reader would be tried."""
    reader = reader_of(name)
    tally = Given(reader, [*reader.seeds.items()], tmp_path).run_all()
    allowed = {"settings": 4, "npz": 1}.get(name, 0)  # files that do not exist; windows without a face
    assert not tally.faults and tally.refused <= allowed and tally.taken, tally


class Broken(Reader):
    """Fails where byte 3 is an `x`, in the way that the kind of input says."""

    name = "broken"
    warms = False

    def make(self, folder: Path) -> dict[str, bytes]:
        return dict.fromkeys(("raise", "lines", "kill", "hang", "memory", "thread", "good", "refuse"), b"aaaxaaaaaa")

    def read(self, name: str, data: bytes) -> None:
        if name == "refuse":
            raise DataError("the file is not one; give another")
        if name == "good" or b"x" not in data:
            return
        if name == "raise":
            raise IndexError("out of range")
        if name == "lines":
            raise DataError("")
        if name == "kill":
            os.abort()
        if name == "memory":
            self.kept = bytearray(os.urandom(1 << 20) * 700)
        if name == "thread":
            from threading import Thread

            thread = Thread(target=int, args=("x",))
            thread.start()
            thread.join()
        while name == "hang":
            pass


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("raise", "IndexError"), ("lines", "not one sentence"), ("kill", "killed by SIGABRT"),
        ("hang", "more than 5 s"), ("memory", "memory, at once"), ("thread", "ValueError"),
    ],
)  # fmt: skip
def test_each_kind_of_fault_is_found(kind: str, expected: str, tmp_path: Path) -> None:
    """In a fresh process: where tests before it have loaded OpenVINO, a forked child dies of SIGSEGV at a signal."""
    code = f"from test_fuzz import one_fault; print(one_fault({kind!r}, {str(tmp_path)!r}))"
    folder = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith(expected), done.stdout + done.stderr
    if kind in ("raise", "kill"):
        assert done.stdout.endswith("shortened to b'x'\n")


def one_fault(kind: str, folder: str) -> str:
    """What is found of one kind, and to what its input is shortened."""
    reader = Broken()
    found = outcome(reader, kind, reader.seeds[kind], Path(folder))
    assert isinstance(found, Fault), found
    found.data = reader.seeds[kind]
    shorter = minimised(reader, found, Path(folder)) if kind in ("raise", "kill") else b""
    return f"{found.kind} shortened to {shorter!r}"


def test_what_is_well_is_no_fault(tmp_path: Path) -> None:
    reader = Broken()
    assert outcome(reader, "good", b"aaax", tmp_path) is True
    assert outcome(reader, "refuse", b"aaax", tmp_path) is False


def test_making_videos_leaves_the_process_as_it_was() -> None:
    before = os.sched_getscheduler(0)
    assert READERS["video"]().seeds["av1.mp4"] and os.sched_getscheduler(0) == before


def test_a_seed_gives_the_same_inputs(tmp_path: Path) -> None:
    a, b = (Shots(READERS["eda text"](), 7, tmp_path) for _ in range(2))
    assert [a.input(i) for i in range(50)] == [b.input(i) for i in range(50)]
    assert [a.input(i) for i in range(50)] != [a.input(i) for i in range(50, 100)]
