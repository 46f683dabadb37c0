"""Power, clocks, heat and throttling against the files of a Jetson; load against the kernel's own counters."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from bench_tree import ORIN_NANO, write_tree

from jmt_edge.bench import machine
from jmt_edge.bench.machine import PowerMeter

WATTS = {"VDD_IN": 5.080 * 1.968, "VDD_CPU_GPU_CV": 5.072 * 0.712, "VDD_SOC": 5.072 * 0.296}


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    return write_tree(tmp_path)


def test_rails_are_the_labelled_channels_with_a_current(orin: Path) -> None:
    found = {rail.label: rail.watts() for rail in machine.rails(orin)}
    assert found == pytest.approx(WATTS)  # not the sum of shunt voltages: it has a label, but no current


def test_a_zone_that_is_off_is_left_out(orin: Path) -> None:
    assert machine.temperatures(orin) == {
        "cpu-thermal": 52.781, "gpu-thermal": 50.156, "soc0-thermal": 49.875, "tj-thermal": 52.781
    }  # fmt: skip


def test_clocks_of_cores_and_gpu(orin: Path) -> None:
    assert machine.clocks(orin) == {"cpu0": 1728.0, "cpu4": 729.6, "17000000.gpu": 1020.0}


def test_the_board_is_described(orin: Path) -> None:
    seen = machine.describe(orin)
    assert seen["board"].startswith("NVIDIA Jetson Orin Nano") and seen["l4t"] == "36.4.3"
    assert seen["governor"] == "schedutil" and seen["load"] == 0.31 and seen["memory_gb"] == 7.8


def test_the_meter_averages_and_counts_what_happened_meanwhile(orin: Path) -> None:
    hwmon, thermal = orin / "sys/class/hwmon", orin / "sys/class/thermal"
    with PowerMeter(orin) as meter:
        time.sleep(0.2)
        (hwmon / "hwmon1/curr1_input").write_text("3936\n")  # twice the current
        (hwmon / "hwmon0/oc1_event_cnt").write_text("5\n")
        (thermal / "thermal_zone1/temp").write_text("81000\n")
        (thermal / "cooling_device1/cur_state").write_text("1\n")
        time.sleep(0.2)
        (thermal / "thermal_zone1/temp").write_text("60000\n")
        (thermal / "cooling_device1/cur_state").write_text("0\n")
        time.sleep(0.15)
    power = meter.result()
    assert WATTS["VDD_IN"] < power.watts["VDD_IN"] < 2 * WATTS["VDD_IN"]
    assert power.watts["VDD_SOC"] == pytest.approx(WATTS["VDD_SOC"])
    assert power.total == power.watts["VDD_IN"]
    assert power.temperature_max["gpu-thermal"] == 81.0
    assert power.over_current == 2 and power.throttled == ["gpu-throttle-alert"]
    assert power.clock_mean["17000000.gpu"] == 1020.0


def test_an_agx_orin_has_no_rail_for_all(tmp_path: Path) -> None:
    listing = ORIN_NANO.replace("VDD_IN", "VDD_GPU_SOC").replace("VDD_CPU_GPU_CV", "VDD_CPU_CV")
    listing = listing.replace("VDD_SOC", "VIN_SYS_5V0").replace("VDD_GPU_SOC", "VDD_GPU_SOC")
    with PowerMeter(write_tree(tmp_path, listing)) as meter:
        pass
    assert meter.result().total == pytest.approx(sum(WATTS.values()))
    assert machine.module_watts({"VDD_GPU_SOC": 4.0, "VIN_SYS_5V0": 3.0, "VDDQ_VDD2_1V8AO": 1.0}) == 7.0


def test_nothing_is_made_up_without_sensors(tmp_path: Path) -> None:
    with PowerMeter(tmp_path) as meter:
        pass
    power = meter.result()
    assert power.total is None and power.joules_per(10) is None
    assert not power.watts and not power.clock_mean and not power.temperature_max and power.over_current == 0
    assert machine.cpu_busy_seconds(tmp_path) is None


def test_load_counts_only_processors_this_process_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {1})
    (tmp_path / "proc").mkdir()
    # proc(5): user nice system idle iowait irq softirq steal guest guest_nice
    lines = ["cpu  900 900 900 900 900 900 900 900 0 0", "cpu0 800 0 0 0 0 0 0 0 0 0", "cpu1 100 20 30 999 5 1 2 7 0 0"]
    (tmp_path / "proc/stat").write_text("\n".join([*lines, "intr 1 2 3"]))
    import os

    assert machine.cpu_busy_seconds(tmp_path) == pytest.approx(160 / os.sysconf("SC_CLK_TCK"))


def test_the_report_holds_the_boards_state_and_the_energy(report: dict[str, Any]) -> None:
    energy, board = report["energy"], report["board"]
    power = energy["power"]
    assert power["watts"] == pytest.approx(WATTS)
    # a constant power: energy is watts times the time that one inference took
    seconds = power["seconds"] / energy["inferences"]
    assert energy["joules_per_inference"] == pytest.approx(WATTS["VDD_IN"] * seconds)
    assert energy["above_rest"] == pytest.approx(0, abs=1e-9) and energy["rest_watts"] == pytest.approx(WATTS["VDD_IN"])
    quickest = min(report["stages"]["networks"]["rounds"])
    assert seconds * 1e3 > 0.5 * quickest
    assert board["clock_mean"]["17000000.gpu"] == 1020.0 and board["temperature_max"]["tj-thermal"] == 52.781
    assert board["over_current"] == 0 and board["throttled"] == []
    assert report["machine"]["l4t"] == "36.4.3" and report["other_cores_busy"] is None
    assert any("schedutil" in reason for reason in report["noise"]["noisy"])
