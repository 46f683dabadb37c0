"""`jmt-edge sim-board` as a user runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from jmt_edge.capture.eda.bitalino import BitalinoDecoder
from jmt_edge.capture.eda.port import Port
from jmt_edge.cli.sim_board import command
from jmt_edge.errors import ConfigError, SourceError


def test_prints_the_path_streams_and_stops_on_ctrl_c(tmp_path: Path) -> None:
    link = tmp_path / "bitalino"
    run = [sys.executable, "-m", "jmt_edge.cli", "sim-board", "bitalino", "--link", str(link), "--signal", "sim"]
    board = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert board.stdout is not None
    path = board.stdout.readline().strip()
    assert path == str(link)
    port = Port(path, 115200)
    port.write(b"\x07")
    assert port.collect(b"\n", 5.0) == b"BITalino_v5.2\n"
    port.write(b"\x83\x11")  # 100 Hz, A3
    decoder = BitalinoDecoder(rate=100)
    values = []
    while len(values) < 50:
        values += decoder.feed(port.read(5.0)).values.tolist()
    assert all(0.05 < v < 25 for v in values)
    port.close()
    board.send_signal(signal.SIGINT)
    _, errors = board.communicate(timeout=120)
    assert "samples sent" in errors
    assert "Traceback" not in errors
    assert not os.path.lexists(link)


def test_duration_ends_it(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["csv", "--duration", "0.2", "--link", str(tmp_path / "x"), "--drop", "0.5"])
    assert result.exit_code == 0
    assert result.output == f"{tmp_path / 'x'}\n"
    assert not os.path.lexists(tmp_path / "x")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bitalino", "--rate", "250"], "1, 10, 100 or 1000"),
        (["csv", "--unplug", "1:2"], "needs --link"),
        (["csv", "--signal", "nothing.csv"], "no 'nothing.csv'"),
    ],
)
def test_mistakes_are_one_sentence(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(command, arguments)
    assert isinstance(result.exception, (ConfigError, SourceError))
    assert words in str(result.exception)


def test_mistyped_options_are_usage_errors() -> None:
    assert CliRunner().invoke(command, ["csv", "--stall", "soon"]).exit_code == 2
    assert CliRunner().invoke(command, ["eeg"]).exit_code == 2
