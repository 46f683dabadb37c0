"""`compare`: no regression out of noise, none missed that is there, and refusals in one sentence."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from jmt_edge.bench.compare import compare, load_report
from jmt_edge.bench.measure import SCHEMA
from jmt_edge.cli.bench import command
from jmt_edge.errors import DataError

PROCESSES = 5
# stage: milliseconds, cores, what it depends on
STAGES = {
    "eda": (0.4, 1.0, "interpreter"),
    "face": (5.0, 1.0, "arithmetic"),
    "backbone face": (20.0, 1.8, "all cores"),
    "fusion": (0.2, 1.1, "interpreter"),
    "end to end": (30.0, 1.1, "arithmetic"),
}
REFERENCES = ("interpreter", "arithmetic", "memory", "all cores")


def synthetic(
    seed: int, *, noise: float = 0.03, slow: dict[str, float] | None = None, load: dict[str, float] | None = None
) -> dict[str, Any]:
    """A report of a machine on which every process has its luck: with each stage, and with all at once (its clock).

    noise: relative; slow: the program's own factor by stage; load: the machine's factor by what a stage depends on.
    """
    rng = np.random.default_rng(seed)
    slow, load = slow or {}, load or {}
    clock = np.exp(rng.normal(0, noise, PROCESSES))

    def processes(ms: float, kind: str) -> list[float]:
        return (ms * load.get(kind, 1.0) * clock * np.exp(rng.normal(0, noise, PROCESSES))).tolist()

    rows = {
        name: {"cores": cores, "processes": processes(ms * slow.get(name, 1.0), kind)}
        for name, (ms, cores, kind) in STAGES.items()
    }
    return {
        "schema": SCHEMA, "date": "2026-01-01", "task": "pain", "variant": "demo", "batch": 1, "hop": 0.5,
        "bundle": "b@1", "backend": "onnxruntime", "precision": {}, "threads": 2, "machine": {"processor": "x"},
        "end_to_end": rows.pop("end to end"), "stages": rows,
        "references": {kind: processes(1.0, kind) for kind in REFERENCES},
    }  # fmt: skip


@pytest.mark.parametrize("noise", [0.01, 0.03, 0.15])
@pytest.mark.parametrize(
    "load", [{}, dict.fromkeys(REFERENCES, 1.3), {"all cores": 1.8}, {"interpreter": 1.9, "arithmetic": 1.4}]
)
def test_equal_builds_agree_whatever_the_machine_does(load: dict[str, float], noise: float) -> None:
    false = [
        (seed, row)
        for seed in range(200)
        for row in compare(synthetic(2 * seed, noise=noise), synthetic(2 * seed + 1, noise=noise, load=load))
        if row.regressed(0.10)
    ]
    # of 1000 comparisons; where processes scatter by 15 % the interval alone would leave 25
    assert len(false) <= (2 if noise > 0.1 else 0), false


@pytest.mark.parametrize("stage", ["eda", "backbone face", "fusion", "end to end"])
def test_a_slower_stage_is_found_and_only_that(stage: str) -> None:
    found = other = 0
    for seed in range(100):
        rows = compare(synthetic(2 * seed), synthetic(2 * seed + 1, slow={stage: 1.25}))
        names = [row.stage for row in rows if row.regressed(0.10)]
        found += stage in names
        other += len(set(names) - {stage})
    assert found >= 90 and not other, (found, other)


def test_a_slow_program_is_no_slow_machine() -> None:
    """Everything of ours is slower, the references are not."""
    rows = compare(synthetic(0), synthetic(1, slow=dict.fromkeys(STAGES, 1.5)))
    assert [row.stage for row in rows if row.regressed(0.10)] == list(STAGES)


def test_only_what_computes_on_several_cores_feels_all_of_them() -> None:
    """Twice as slow on all cores says nothing about a stage on one core."""
    slower = _plain({"fusion": 1.25, "backbone face": 1.25}, {"all cores": 2.0})
    rows = {r.stage: r for r in compare(_plain(), slower)}
    assert rows["fusion"].regressed(0.10) and not rows["backbone face"].regressed(0.10)
    assert rows["backbone face"].low == pytest.approx(1.25 / 2.0)


def test_ratio_and_interval_without_noise() -> None:
    rows = {r.stage: r for r in compare(_plain(), _plain({"fusion": 1.2}))}
    assert (rows["fusion"].low, rows["fusion"].ratio, rows["fusion"].high) == pytest.approx((1.2, 1.2, 1.2))
    assert rows["face"].ratio == pytest.approx(1.0)
    assert rows["fusion"].regressed(0.10) and not rows["fusion"].regressed(0.20 + 1e-9)
    # the machine was 10 % slower at arithmetic: the stage lost 9 %, or nothing of its own
    slower = _plain({"face": 1.1}, {"arithmetic": 1.1})
    face = next(r for r in compare(_plain(), slower) if r.stage == "face")
    assert face.ratio == pytest.approx(1.0) and (face.low, face.high) == pytest.approx((1.0, 1.1))


def _plain(slow: dict[str, float] | None = None, drift: dict[str, float] | None = None) -> dict[str, Any]:
    return synthetic(0, noise=0.0, slow=slow, load=drift) | {
        "stages": synthetic(0, noise=0.0, slow=slow)["stages"],
        "end_to_end": synthetic(0, noise=0.0, slow=slow)["end_to_end"],
    }


def test_the_interval_is_welchs() -> None:
    """Against scipy.stats, on the logarithms, where no reference moved."""
    old, new = _plain(), _plain()
    old["stages"]["face"]["processes"], new["stages"]["face"]["processes"] = [4.9, 5.3, 5.0, 6.1], [6.3, 6.1, 7.0]
    for side, count in ((old, 4), (new, 3)):
        side["references"] = {kind: [1.0] * count for kind in REFERENCES}
    face = next(r for r in compare(old, new) if r.stage == "face")
    a, b = (np.log(side["stages"]["face"]["processes"]) for side in (old, new))
    interval = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert (face.low, face.high) == pytest.approx(tuple(np.exp(interval)))
    assert face.ratio == pytest.approx(stats.gmean([6.3, 6.1, 7.0]) / stats.gmean([4.9, 5.3, 5.0, 6.1]))


def test_one_process_proves_nothing() -> None:
    old, new = _plain(), _plain(dict.fromkeys(STAGES, 9.0))
    for side in (old, new):
        for row in (*side["stages"].values(), side["end_to_end"]):
            row["processes"] = row["processes"][:1]
    assert all(row.high == float("inf") and not row.regressed(0.10) for row in compare(old, new))


@pytest.mark.parametrize(("key", "value"), [("task", "affect"), ("variant", "full"), ("batch", 8), ("hop", 1.0)])
def test_other_settings_are_refused(key: str, value: object) -> None:
    other = synthetic(1) | {key: value}
    with pytest.raises(DataError, match=f"differ in {key}"):
        compare(synthetic(0), other)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"stages": {}}', f'{{"schema": {SCHEMA}}}', f'{{"schema": {SCHEMA}, "stages": {{}}}}']
)
def test_a_file_that_is_no_report_is_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(DataError, match="jmt-edge bench --json") as error:
        load_report(tmp_path / "r.json")
    assert "\n" not in str(error.value) and "r.json" in str(error.value)
    with pytest.raises(DataError):
        load_report(tmp_path / "absent.json")


@pytest.mark.parametrize("schema", [SCHEMA - 1, SCHEMA + 1])
def test_a_report_of_another_version_is_refused_by_name(tmp_path: Path, schema: int) -> None:
    (tmp_path / "r.json").write_text(json.dumps(synthetic(0) | {"schema": schema}))
    with pytest.raises(DataError, match=f"another version.*schema {schema}, this is {SCHEMA}.*measure both"):
        load_report(tmp_path / "r.json")


@pytest.mark.parametrize(("factor", "limit", "code"), [(1.0, "10%", 0), (1.25, "10%", 1), (1.25, "30%", 0)])
def test_exit_codes(
    report: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float, limit: str, code: int
) -> None:
    """A real report against itself with one stage slower; its processes scatter, here the arithmetic is tested."""
    old = copy.deepcopy(report)
    for row in (*old["stages"].values(), old["end_to_end"]):
        row["processes"] = [row["p50"]] * PROCESSES
    old["references"] = {kind: [1.0] * PROCESSES for kind in old["references"]}
    new = copy.deepcopy(old)
    new["stages"]["fusion"]["processes"] = [ms * factor for ms in new["stages"]["fusion"]["processes"]]
    (tmp_path / "old.json").write_text(json.dumps(old))
    monkeypatch.setattr("jmt_edge.bench.measure.bench", lambda *a, **k: new)
    arguments = ["--task", "trimodal", "--compare", str(tmp_path / "old.json"), "--fail-over", limit]
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    # outside standalone mode click hands the code of an Exit back
    assert (result.return_value or 0) == code, result.output
    assert "mJ per inference" in result.output and "17000000.gpu 1020 MHz" in result.output
    row = next(line for line in result.output.splitlines() if line.startswith("  fusion") and "->" in line)
    assert ("REGRESSION" in row) == bool(code) and f" {factor:.2f} (" in row


@pytest.mark.parametrize("text", ["ten", "0%", "-5%"])
def test_a_limit_that_is_no_percentage(text: str) -> None:
    result = CliRunner().invoke(command, ["--fail-over", text])
    assert "--fail-over 10%" in str(result.exception)


def test_a_folder_that_is_not_there_is_refused_before_measuring(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["--json", str(tmp_path / "no" / "r.json")])
    assert "does not exist; create it first" in str(result.exception)
