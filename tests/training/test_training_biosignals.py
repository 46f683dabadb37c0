"""`train --check` reads every EDA file: what it says of rates, ranges, quality, duplicates and files it cannot use."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import training_tools as tools
from click.testing import CliRunner

from jmt_edge.cli import cli
from jmt_edge.errors import DataError
from jmt_edge.training.biosignals import check_biosignals
from jmt_edge.training.clips import build_clips
from jmt_edge.training.data import cut_windows
from jmt_edge.training.readers import default_task, open_cohort


@pytest.fixture
def biovid(tmp_path: Path) -> Path:
    return tools.write_biovid(tmp_path / "d", 2, 2, video=False)


def files(biovid: Path) -> list[Path]:
    return sorted((biovid / "PartA" / "biosignals_raw").glob("*/*.csv"))


def rewrite(
    path: Path, change: float = 1.0, *, gsr: float | None = None, seconds: bool = False, every: int = 1
) -> None:
    head, *rows = path.read_text().splitlines()
    cells = [row.split("\t") for row in rows[::every]]
    for row in cells:
        row[0] = f"{float(row[0]) * 1e-6:.6f}" if seconds else row[0]
        row[1] = f"{float(row[1]) * change:.5f}" if gsr is None else f"{gsr}"
    path.write_text("\n".join([head, *("\t".join(row) for row in cells)]) + "\n")


def test_rates_ranges_quality_and_duplicates(biovid: Path, tmp_path: Path) -> None:
    first, second, third, fourth, fifth, *_ = files(biovid)
    rewrite(first, every=2)  # half the rate
    rewrite(second, 100.0)  # out of range
    fourth.write_bytes(third.read_bytes())
    lines = check_biosignals(open_cohort(biovid), cache=tmp_path / "cache")
    text = "\n".join(lines)
    assert lines[0].startswith("biosignals  8 of 8 EDA signals read: 512 Hz, 5.50 to 5.50 s")
    assert f"1 differ from 512 Hz: {first}" in text
    assert f"1 not used: EDA outside 0.05-60 µS: {second}" in text
    assert f"2 signals hold the same values: {third}, {fourth}" in text
    # the same rule decides what training uses
    cohort = open_cohort(biovid)
    task = default_task(cohort)
    stores = build_clips(cut_windows(cohort, task), tmp_path / "cache", cohort.problems)
    used = dict(zip([r.files["eda"] for r in cohort.trials], stores["eda"].present))
    assert not used[second] and used[first] and used[fifth]


def test_files_that_have_not_changed_are_not_read_again(
    biovid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = check_biosignals(open_cohort(biovid), cache=tmp_path)
    read: list[Path] = []
    from jmt_edge.training import biosignals

    original = biosignals._read
    monkeypatch.setattr(biosignals, "_read", lambda path: (read.append(path), original(path))[1])
    assert check_biosignals(open_cohort(biovid), cache=tmp_path) == lines and not read
    rewrite(files(biovid)[0], 1.1)
    assert check_biosignals(open_cohort(biovid), cache=tmp_path) != lines and read == files(biovid)[:1]
    (tmp_path / "biosignals.json").write_text("no JSON")
    assert len(check_biosignals(open_cohort(biovid), cache=tmp_path)) == len(lines)


def test_many_files_are_read_by_processes(tmp_path: Path) -> None:
    root = tools.write_biovid(tmp_path / "d", 2, 9, video=False)
    assert len(files(root)) == 36
    assert check_biosignals(open_cohort(root), workers=2) == check_biosignals(open_cohort(root))


def test_time_in_seconds_is_refused_by_name_in_check_and_training(biovid: Path, tmp_path: Path) -> None:
    for path in files(biovid):
        rewrite(path, seconds=True)
    cohort = open_cohort(biovid)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"_bio\.csv: the times in 'time', read as us, .*time=s"):
        check_biosignals(cohort)
    with pytest.raises(DataError, match="read as us"):
        build_clips(cut_windows(cohort, default_task(cohort)), tmp_path / "cache", cohort.problems)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_check_as_a_command(biovid: Path, tmp_path: Path) -> None:
    rewrite(files(biovid)[0], gsr=float("nan"))
    arguments = ["train", "--check", str(biovid), "--cache", str(tmp_path), "--workers", "1"]
    done = CliRunner().invoke(cli, arguments)
    assert isinstance(done.exception, DataError) and "not a number" in str(done.exception)
    done = CliRunner().invoke(cli, [*arguments, "--skip-bad"])
    assert done.exit_code == 0 and "biosignals  7 of 8 EDA signals read" in done.output
    assert "1 bad samples skipped:" in done.output
    assert json.loads((tmp_path / "biosignals.json").read_text())


def test_painmonit_windows_are_checked_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    x = 5 + rng.normal(0, 0.01, (6, 1000, 6))
    x[2] = x[1]
    np.save(tmp_path / "X.npy", x)
    np.save(tmp_path / "y_heater.npy", np.arange(6) % 2)
    np.save(tmp_path / "subjects.npy", np.arange(6) // 2)
    text = "\n".join(check_biosignals(open_cohort(tmp_path, rate=250)))
    assert "6 of 6 EDA signals read: 250 Hz, 4.00 to 4.00 s" in text
    assert "2 signals hold the same values: X.npy row 1, X.npy row 2" in text
