"""`benchmarks/fusion_gpu.py` and `gpu_day.py` as far as a CPU goes: checks in the interpreter, table, JSON.

Only the meter is replaced, which measures on a GPU.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fusion_gpu
import gpu_day
import pytest
import torch
from fusion_gpu import OURS, PUBLISHED, Inputs, Row, Variant

import jmt_edge.kernels.ops
from jmt_edge.kernels.schedule import Tiles

FACTS = {"name": "NVIDIA X-1 (test)", "multiprocessors": 8, "cuda": "13.0", "bandwidth": 1e12}


class Stopwatch:
    """Invents times: 10 us times the variant's place, twice that cold; every call really runs once."""

    def __init__(self) -> None:
        self.timed: list[str] = []

    def facts(self) -> dict[str, Any]:
        return FACTS

    def microseconds(self, variant: Variant, sets: Sequence[Inputs]) -> tuple[float, float]:
        self.timed.append(variant.name)
        return 10.0 * len(self.timed), 20.0 * len(self.timed)

    def launches(self, variant: Variant, inputs: Inputs) -> int:
        return 1 if variant.name == OURS else 99


@pytest.fixture(autouse=True)
def _little_work(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One input set with a mask and one without, one repetition, wide tiles: the interpreter's time is per tile."""
    monkeypatch.setattr(jmt_edge.kernels.ops, "choose_tiles", lambda *_: Tiles(32, 64))
    monkeypatch.setattr(fusion_gpu, "SETS", 2)
    monkeypatch.setattr(fusion_gpu, "REPEATS", 1)
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def measured(meter: Stopwatch, device: str, dtype: str = "float16", **options: Any) -> list[Row]:
    arguments = {"bandwidth": 1e12, "sizes": [(2, 2)], "dim": 32, "deadline": time.monotonic() + 1e6}
    return fusion_gpu.measure(meter, dtype=dtype, device=device, **{"compiling": False, **arguments, **options})  # type: ignore[arg-type]


def test_one_call_gives_every_row_its_numbers_and_the_day_its_table(
    tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    meter = Stopwatch()
    rows = measured(meter, device)
    names = [row.variant for row in rows]
    assert len(set(names)) == len(names) == 11
    assert {PUBLISHED, "published, eager, graph", "folded, eager, graph", "ours, staged, graph", OURS} <= set(names)
    assert sum("torch.compile" in name for name in names) == 3
    weights = fusion_gpu.make_case(2, 2, 32, "float16", device, kernels=False).weights.matrix_elements
    for place, row in enumerate((r for r in rows if not r.not_measured), 1):
        assert row.error is not None and 0 < row.error < 0.01
        assert row.warm_us == 10 * place and row.cold_us == 20 * place
        assert row.warm_to_floor == pytest.approx(10 * place / (weights * 2 / 1e12 * 1e6))
    monkeypatch.setenv("OUT", str(tmp_path / "day"))
    gpu_day.facts(meter)  # type: ignore[arg-type]
    for row in rows:
        gpu_day.contender("float16")(row)
    assert gpu_day.collect(tmp_path, tmp_path) == 0
    (path,) = tmp_path.glob("*.json")
    report = json.loads(path.read_text())
    assert path.name == f"{report['date'][:10]}-gpu-day-nvidia-x-1-test.json"
    assert report["machine"]["versions"]["torch"] == torch.__version__.split("+")[0]
    assert [r["variant"] for r in report["rows"]] == names[:-3]  # compilers that were left out are no rows
    printed = capsys.readouterr().out
    assert all(f"| 2 | 2 | float16 | {name} |" in printed for name in names[:-3])


@pytest.mark.parametrize("wrong", ["off", "unsteady"])
def test_a_kernel_with_wrong_numbers_is_not_timed_and_the_others_are(
    wrong: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, calls = fusion_gpu.FusedFusion.raw, iter(range(10**6))

    def raw(self: Any, features: Any, present: Any) -> Any:
        logits, attention = right(self, features, present)
        return logits * (1.05 if wrong == "off" else 1 + 1e-3 * next(calls)), attention

    monkeypatch.setattr(fusion_gpu.FusedFusion, "raw", raw)
    monkeypatch.setattr(fusion_gpu, "SETS", 1)
    meter = Stopwatch()
    rows = measured(meter, device, sizes=[(2, 1)])
    assert not any(name.startswith("ours") for name in meter.timed) and PUBLISHED in meter.timed
    ours = [row for row in rows if row.variant.startswith("ours")]
    assert len(ours) == 4 and all(row.not_measured.startswith("wrong: ") and row.warm_us is None for row in ours)


def test_time_of_phases_and_of_barriers(device: str) -> None:
    """Each launch that is timed runs; times are differences."""
    case = fusion_gpu.make_case(2, 3, 32, "float16", device)
    kernel = case.kernels[OURS]
    want = kernel.raw(*fusion_gpu.random_inputs(case, masked=True))[0].shape
    rows = fusion_gpu.phase_rows(Stopwatch(), case)
    count = len(kernel.schedule.phases)
    assert [row.phase for row in rows] == [*range(count), -1]
    assert [row.us for row in rows[:-1]] == [10.0] * count and rows[-1].us == pytest.approx(10 / (count - 1))
    assert kernel.raw(*fusion_gpu.random_inputs(case, masked=True))[0].shape == want  # its own plan is back


def test_int8_of_three_modalities_with_no_time_left_for_compilers(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """INT8 is judged against the quantised matrices; what cannot end in time does not begin."""
    monkeypatch.setattr(fusion_gpu, "SETS", 1)
    rows = measured(Stopwatch(), device, "int8", sizes=[(3, 1)], compiling=True, deadline=time.monotonic())
    assert all(row.error is not None and row.error < 0.01 for row in rows if row.variant.startswith("ours"))
    late = [row for row in rows if row.not_measured]
    assert [row.not_measured for row in late] == ["no time left"] * 3
    assert all("torch.compile" in row.variant for row in late)
