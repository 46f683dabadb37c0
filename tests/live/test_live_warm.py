"""`warm.jmt_edge` does what `python -m jmt_edge` does: the same words and numbers, and limits that hold."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import live_fixture
import pytest
import warm


def test_a_warm_command_gives_what_a_fresh_one_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "\n".join(f"{n / 50:.2f},{5 + n % 7 / 100:.2f}" for n in range(500))
    Path("e.csv").write_text(f"time_s,eda_uS\n{rows}\n")
    live = ("live", "--speed", "max", "--output", "jsonl", "--task", "pain", "--camera", "none", "--eda", "e.csv")
    lines = []
    for jmt_edge in (live_fixture.jmt_edge, warm.jmt_edge):
        done = jmt_edge(*live)
        assert done.returncode == 0
        lines.append([json.loads(line) | {"latency_ms": 0} for line in done.stdout.splitlines()])
    assert lines[0] == lines[1] and len(lines[0]) == 20
    for args in (("inspect", "e.csv", "gone.csv"), ("live", "--hop")):
        fresh, other = live_fixture.jmt_edge(*args), warm.jmt_edge(*args)
        assert fresh.returncode == 2
        assert (other.returncode, other.stdout, other.stderr) == (2, fresh.stdout, fresh.stderr)


def test_time_and_memory_are_limited_and_nothing_stays_open() -> None:
    live = ("live", "--task", "pain", "--camera", "none", "--eda", "sim:", "--output", "none")
    assert warm.jmt_edge(*live, seconds=2).returncode == -signal.SIGALRM
    short = (*live, "--speed", "max", "--duration", "3")
    assert warm.jmt_edge(*short, memory=1 << 20).returncode not in (0, 2)
    done = warm.jmt_edge(*short)
    assert done.returncode == 0 and 50 < done.peak < 700
    before = len(os.listdir(f"/proc/{warm._server().pid}/fd"))
    assert "Usage" in warm.jmt_edge("--help").stdout
    assert len(os.listdir(f"/proc/{warm._server().pid}/fd")) == before
