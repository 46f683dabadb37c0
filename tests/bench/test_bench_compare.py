"""`compare`: no regression out of noise, none missed that is there, and refusals in one sentence."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from jmt_edge.bench.compare import compare, load_report
from jmt_edge.cli.bench import command
from jmt_edge.errors import DataError

ROUNDS = 20
MS = {"face": 5.0, "backbone face": 20.0, "fusion": 0.2}
CORES = {"face": "one core", "backbone face": "all cores", "fusion": "one core"}


def synthetic(
    seed: int, *, noise: float = 0.04, slow: dict[str, float] | None = None, load: dict[str, float] | None = None
) -> dict[str, Any]:
    """A report of a machine with independent noise in every round. slow: the program's own factor by stage; load: the
    machine's factor on everything that runs on one core, or on all."""
    rng = np.random.default_rng(seed)
    slow, load = slow or {}, load or {}

    def rounds(ms: float, cores: str, count: int = ROUNDS) -> list[float]:
        # now and then another program holds a core for a whole round
        hit = np.where(rng.random(count) < 0.1, rng.uniform(1, 1.6, count), 1.0)
        return (ms * load.get(cores, 1.0) * hit * np.exp(rng.normal(0, noise, count))).tolist()

    return {
        "schema": 2, "date": "2026-01-01", "task": "pain", "variant": "demo", "batch": 1, "hop": 0.5, "bundle": "b@1",
        "backend": "onnxruntime", "precision": {}, "threads": 2, "machine": {"processor": "x"},
        "stages": {k: {"rounds": rounds(ms * slow.get(k, 1.0), CORES[k])} for k, ms in MS.items()},
        "references": {"one core": rounds(1.0, "one core"), "all cores": rounds(1.5, "all cores")},
        "end_to_end": {
            "n": 24, "rounds": rounds(60 * slow.get("end to end", 1.0), "one core", 6),
            "references": {"one core": rounds(1.0, "one core", 1)[0], "all cores": rounds(1.5, "all cores", 1)[0]},
        },
    }  # fmt: skip


@pytest.mark.parametrize("load", [{}, {"one core": 1.3, "all cores": 1.3}, {"all cores": 1.8}])
def test_equal_builds_agree_whatever_the_machine_does(load: dict[str, float]) -> None:
    false = [
        (seed, row)
        for seed in range(60)
        for row in compare(synthetic(2 * seed), synthetic(2 * seed + 1, load=load))
        if row.regressed(0.10)
    ]
    assert not false


def test_a_slower_stage_is_found_and_only_that() -> None:
    found = missed = other = 0
    for seed in range(40):
        rows = compare(synthetic(2 * seed), synthetic(2 * seed + 1, slow={"backbone face": 1.25}))
        names = [row.stage for row in rows if row.regressed(0.10)]
        found += "backbone face" in names
        missed += "backbone face" not in names
        other += len(set(names) - {"backbone face"})
    assert found >= 36 and not other, (found, missed, other)


def test_a_slow_program_is_no_slow_machine() -> None:
    """Everything of ours is slower, the references are not."""
    slow = dict.fromkeys([*MS, "end to end"], 1.5)
    rows = compare(synthetic(0), synthetic(1, slow=slow))
    assert [row.stage for row in rows if row.regressed(0.10)] == [*MS, "end to end"]


def test_ratio_and_interval_without_noise() -> None:
    rows = {r.stage: r for r in compare(_plain(), _plain({"fusion": 1.2}))}
    assert (rows["fusion"].low, rows["fusion"].ratio, rows["fusion"].high) == pytest.approx((1.2, 1.2, 1.2))
    assert rows["face"].ratio == pytest.approx(1.0)
    assert rows["fusion"].regressed(0.10) and not rows["fusion"].regressed(0.20 + 1e-9)
    # the machine was 10 % slower on one core: the stage lost 9 %, or nothing of its own
    slower = _plain({"face": 1.1}, {"one core": 1.1})
    face = next(r for r in compare(_plain(), slower) if r.stage == "face")
    assert face.ratio == pytest.approx(1.0) and (face.low, face.high) == pytest.approx((1.0, 1.1))


def _plain(slow: dict[str, float] | None = None, drift: dict[str, float] | None = None) -> dict[str, Any]:
    report = synthetic(0)
    for name, ms in MS.items():
        report["stages"][name]["rounds"] = [ms * (slow or {}).get(name, 1.0)] * ROUNDS
    for name in report["references"]:
        report["references"][name] = [(drift or {}).get(name, 1.0)] * ROUNDS
    return report


def test_an_interval_covers_the_spread_of_the_rounds() -> None:
    """With rounds that differ twofold the interval is wide, and nothing is called a regression."""
    old, new = _plain(), _plain()
    old["stages"]["face"]["rounds"] = [5.0, 10.0] * (ROUNDS // 2)
    new["stages"]["face"]["rounds"] = [6.5, 13.0] * (ROUNDS // 2)
    face = next(r for r in compare(old, new) if r.stage == "face")
    assert face.ratio == pytest.approx(1.3) and face.low < 1 < 2 < face.high


@pytest.mark.parametrize(("key", "value"), [("task", "affect"), ("variant", "full"), ("batch", 8), ("hop", 1.0)])
def test_other_settings_are_refused(key: str, value: object) -> None:
    other = synthetic(1) | {key: value}
    with pytest.raises(DataError, match=f"differ in {key}"):
        compare(synthetic(0), other)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schema": 1, "stages": {}}', '{"schema": 2}', '{"schema": 2, "stages": {}}']
)
def test_a_file_that_is_no_report_is_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(DataError, match=r"jmt-edge bench --json|measure again") as error:
        load_report(tmp_path / "r.json")
    assert "\n" not in str(error.value) and "r.json" in str(error.value)
    with pytest.raises(DataError):
        load_report(tmp_path / "absent.json")


@pytest.mark.parametrize(("factor", "limit", "code"), [(1.0, "10%", 0), (1.25, "10%", 1), (1.25, "30%", 0)])
def test_exit_codes(
    report: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float, limit: str, code: int
) -> None:
    """A real report against itself with one stage slower."""
    new = copy.deepcopy(report)
    new["stages"]["fusion"]["rounds"] = [ms * factor for ms in new["stages"]["fusion"]["rounds"]]
    for side in (report, new):  # rounds of a two-second run scatter; here the arithmetic is tested
        side["stages"]["fusion"]["rounds"] = [float(np.median(side["stages"]["fusion"]["rounds"]))] * ROUNDS
        side["references"] = {k: [float(np.median(v))] * ROUNDS for k, v in side["references"].items()}
    (tmp_path / "old.json").write_text(json.dumps(report))
    monkeypatch.setattr("jmt_edge.bench.measure.bench", lambda *a, **k: new)
    arguments = ["--task", "trimodal", "--compare", str(tmp_path / "old.json"), "--fail-over", limit]
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    # outside standalone mode click hands the code of an Exit back
    assert (result.return_value or 0) == code, result.output
    assert "mJ an inference" in result.output and "17000000.gpu 1020 MHz" in result.output
    row = next(line for line in result.output.splitlines() if line.startswith("  fusion") and "->" in line)
    assert ("REGRESSION" in row) == bool(code) and f" {factor:.2f} (" in row


@pytest.mark.parametrize("text", ["ten", "0%", "-5%"])
def test_a_limit_that_is_no_percentage(text: str) -> None:
    result = CliRunner().invoke(command, ["--fail-over", text])
    assert "--fail-over 10%" in str(result.exception)


def test_a_folder_that_is_not_there_is_refused_before_measuring(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["--json", str(tmp_path / "no" / "r.json")])
    assert "there is no folder" in str(result.exception)
