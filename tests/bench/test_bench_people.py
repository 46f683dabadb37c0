"""`bench --people`: it stops at the first dropped window, and its rows are what the runs said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jmt_edge.bench import people
from jmt_edge.cli.live import demo_bundle
from jmt_edge.engine.bundle import load_bundle
from jmt_edge.errors import ConfigError, UserError


def line(person: str, total: float, dropped: int = 0, outputs: dict[str, float] | None = None) -> str:
    return json.dumps(
        {"person": person, "latency_ms": {"total": total}, "dropped": dropped, "outputs": outputs}, sort_keys=True
    )


def test_a_row_is_over_all_people_and_names_the_slowest() -> None:
    results = [line("a", 10.0, 0, {"pain": 0.5}), line("b", 30.0), line("b", 50.0, 3), line("a", 20.0, 1)]
    row = people.row_of(results, 2, 0.5, 1000)
    assert (row["results"], row["with_outputs"], row["dropped"]) == (4, 1, 4)
    assert (row["p50"], row["worst_p95"], row["peak_rss_mb"]) == (25.0, 49.0, 1)
    with pytest.raises(UserError, match="1 of 3 people have no result"):
        people.row_of(results, 3, 0.5, 1000)


@pytest.mark.parametrize(("first_drop", "sustained", "rows"), [(3, 2, 3), (1, 0, 1), (99, 5, 5)])
def test_it_counts_up_to_the_first_dropped_window(
    first_drop: int, sustained: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(bundle: Any, n: int, *args: Any) -> tuple[dict[str, Any], str]:
        return people.row_of([line(f"p{i}", 1.0, int(n >= first_drop)) for i in range(n)], n, 1.0, 1), "engine"

    monkeypatch.setattr(people, "run_people", run)
    report = people.count_people(load_bundle(demo_bundle("pain")), 5)
    assert (report["sustained"], len(report["people"]), report["engine"]) == (sustained, rows, "engine")


def test_settings_out_of_range_are_one_sentence() -> None:
    bundle = load_bundle(demo_bundle("pain"))
    for settings in ({"seconds": 1.0}, {"hop": 0.0}):
        with pytest.raises(ConfigError, match="out of range; choose"):
            people.count_people(bundle, 2, **settings)


@pytest.mark.realtime
def test_one_person_on_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from click.testing import CliRunner

    from jmt_edge.cli.bench import command

    words = ["--people", "1", "--seconds", "8", "--threads", "1", "--json", str(tmp_path / "r.json")]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "r.json").read_text())
    (row,) = report["people"]
    assert row["people"] == 1 and row["results"] > row["with_outputs"] > 0
    assert report["engine"].startswith("pain-demo@") and "people" not in report["engine"]
    assert report["sustained"] == (0 if row["dropped"] else 1) and "sustained: " in done.output
