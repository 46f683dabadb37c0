"""Power, clocks, heat and throttling against the files of a Jetson; load against the kernel's own counters."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from bench_tree import AGX_ORIN, INA3221, THOR, write_tree

from jmt_edge import machine
from jmt_edge.machine import PowerMeter

WATTS = {"VDD_IN": 5.016 * 1.616, "VDD_CPU_GPU_CV": 5.016 * 0.448, "VDD_SOC": 5.016 * 0.488}


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    return write_tree(tmp_path)


def read(path: Path) -> dict[str, float | None]:
    return {rail.label: rail.watts() for rail in machine.rails(path)}


def total(path: Path) -> float | None:
    """Watts of the module by a short measurement."""
    with PowerMeter(path) as meter:
        pass
    return meter.result().total


def test_rails_are_the_labelled_channels_with_a_current(orin: Path) -> None:
    assert read(orin) == pytest.approx(WATTS)  # not the sum of shunt voltages: it has a label, but no current
    assert total(orin) == pytest.approx(WATTS["VDD_IN"])  # the others are part of it


def test_an_agx_orin_has_two_chips_and_no_rail_for_all(tmp_path: Path) -> None:
    """The unconnected channels of the second chip are left out; its memory rail hangs on the 5 V rail."""
    write_tree(tmp_path, AGX_ORIN)
    watts = {"VDD_GPU_SOC": 18.792 * 0.14, "VDD_CPU_CV": 18.784 * 0.02, "VIN_SYS_5V0": 4.968 * 0.98}
    assert read(tmp_path) == pytest.approx({**watts, "VDDQ_VDD2_1V8AO": 4.968 * 0.08})
    assert total(tmp_path) == pytest.approx(sum(watts.values()))


def test_a_channel_that_is_switched_off_is_left_out(tmp_path: Path) -> None:
    """Its label stays, reading it fails: the power of the module is then that of the others."""
    write_tree(tmp_path, AGX_ORIN)
    (tmp_path / INA3221 / "curr3_input").unlink()
    (tmp_path / INA3221 / "curr3_input").mkdir()
    assert read(tmp_path)["VIN_SYS_5V0"] is None
    expected = 18.792 * 0.14 + 18.784 * 0.02 + 4.968 * 0.08
    assert total(tmp_path) == pytest.approx(expected)


def test_a_thors_input_counts_the_carrier_board_too(tmp_path: Path) -> None:
    """The INA238 gives microwatts; NVIDIA (forums.developer.nvidia.com, topic 366461): it measures Jetson + carrier."""
    write_tree(tmp_path, THOR)
    watts = {"VDD_GPU": 12.04 * 0.64, "VDD_CPU_SOC_MSS": 12.04 * 0.96, "VIN_SYS_5V0": 5.088 * 1.74}
    assert read(tmp_path) == pytest.approx({"VIN": 23.0, **watts})
    assert total(tmp_path) == pytest.approx(sum(watts.values()))


def test_a_zone_that_is_off_is_left_out(orin: Path) -> None:
    assert machine.temperatures(orin) == {
        "cpu-thermal": 49.687, "gpu-thermal": 50.531, "soc0-thermal": 50.0, "soc1-thermal": 50.781,
        "soc2-thermal": 49.062, "tj-thermal": 50.781,
    }  # fmt: skip
    zone = orin / "sys/class/thermal/thermal_zone2/temp"
    with open(os.open(zone, os.O_RDONLY | os.O_NONBLOCK)) as file, pytest.raises((OSError, TypeError)):
        file.read()  # what the usual way makes of it


def test_zones_of_an_agx_orin_and_a_thor(tmp_path: Path) -> None:
    zones = machine.temperatures(write_tree(tmp_path / "agx", AGX_ORIN))
    assert zones == {"cpu-thermal": 52.968, "tboard-thermal": 42.0, "tdiode-thermal": 44.25}
    zones = machine.temperatures(write_tree(tmp_path / "thor", THOR))
    assert set(zones) == {"cpu-thermal", "soc012-thermal", "soc345-thermal", "tj-thermal"}


def test_clocks_of_cores_and_gpu(orin: Path, tmp_path: Path) -> None:
    assert machine.clocks(orin) == {"cpu0": 1728.0, "cpu4": 1728.0, "17000000.gpu": 1020.0}
    thor = machine.clocks(write_tree(tmp_path / "thor", THOR))
    assert thor == {"cpu0": 2601.0, "gpu-gpc-0": 1575.0, "gpu-nvd-0": 1692.0, "bwmgr": 4266.0}


def test_only_alerts_are_throttling(orin: Path, tmp_path: Path) -> None:
    """A fan that turns and a frequency cap are no alerts."""
    assert machine.throttling(orin) == set()
    assert machine.throttling(write_tree(tmp_path / "thor", THOR)) == {"gpu-throttle-alert"}


def test_the_board_is_described(orin: Path, tmp_path: Path) -> None:
    seen = machine.describe(orin)
    assert seen["board"].startswith("NVIDIA Jetson Orin Nano") and seen["l4t"] == "36.4.4"
    assert seen["governor"] == "schedutil" and seen["load"] == 0.31 and seen["memory_gb"] == 7.8
    assert seen["power_mode"] == "2 MAXN_SUPER"
    assert machine.power_mode(write_tree(tmp_path / "thor", THOR)) == "1 120W"
    assert machine.power_mode(write_tree(tmp_path / "agx", AGX_ORIN)) == "0"  # its table is not there
    assert machine.power_mode(tmp_path / "none") is None


def test_the_meter_averages_and_counts_what_happened_meanwhile(orin: Path) -> None:
    thermal = orin / "sys/class/thermal"
    with PowerMeter(orin) as meter:
        time.sleep(0.2)
        (orin / INA3221 / "curr1_input").write_text("3232\n")  # twice the current
        (orin / "sys/class/hwmon/hwmon3/oc3_event_cnt").write_text("27392\n")
        (thermal / "thermal_zone1/temp").write_text("81000\n")
        (thermal / "cooling_device2/cur_state").write_text("1\n")
        time.sleep(0.2)
        (thermal / "thermal_zone1/temp").write_text("60000\n")
        (thermal / "cooling_device2/cur_state").write_text("0\n")
        time.sleep(0.15)
    power = meter.result()
    assert WATTS["VDD_IN"] < power.watts["VDD_IN"] < 2 * WATTS["VDD_IN"]
    assert power.watts["VDD_SOC"] == pytest.approx(WATTS["VDD_SOC"])
    assert power.total == power.watts["VDD_IN"]
    assert power.temperature_max["gpu-thermal"] == 81.0
    assert power.over_current == {"oc3": 2} and power.throttled == ["gpu-throttle-alert"]
    assert power.clock_mean["17000000.gpu"] == 1020.0


def test_nothing_is_made_up_without_sensors(tmp_path: Path) -> None:
    with PowerMeter(tmp_path) as meter:
        pass
    power = meter.result()
    assert power.total is None and power.joules_per(10) is None
    assert not power.watts and not power.clock_mean and not power.temperature_max and not power.over_current
    assert machine.cpu_busy_seconds(tmp_path) is None


def test_load_counts_only_processors_this_process_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {1})
    (tmp_path / "proc").mkdir()
    # proc(5): user nice system idle iowait irq softirq steal guest guest_nice
    lines = ["cpu  900 900 900 900 900 900 900 900 0 0", "cpu0 800 0 0 0 0 0 0 0 0 0", "cpu1 100 20 30 999 5 1 2 7 0 0"]
    (tmp_path / "proc/stat").write_text("\n".join([*lines, "intr 1 2 3"]))
    assert machine.cpu_busy_seconds(tmp_path) == pytest.approx(160 / os.sysconf("SC_CLK_TCK"))


def test_the_report_holds_the_boards_state_and_the_energy(report: dict[str, Any]) -> None:
    energy, board = report["energy"], report["board"]
    power = energy["power"]
    assert power["watts"] == pytest.approx(WATTS)
    # a constant power: energy is watts times the time that one inference took
    seconds = power["seconds"] / energy["inferences"]
    assert energy["joules_per_inference"] == pytest.approx(WATTS["VDD_IN"] * seconds)
    assert energy["above_rest"] == pytest.approx(0, abs=1e-9) and energy["rest_watts"] == pytest.approx(WATTS["VDD_IN"])
    quickest = min(report["stages"]["networks"]["processes"])
    assert seconds * 1e3 > 0.5 * quickest / report["batch"]
    assert board["clock_mean"]["17000000.gpu"] == 1020.0 and board["temperature_max"]["tj-thermal"] == 50.781
    assert board["over_current"] == {} and board["throttled"] == []
    assert report["machine"]["l4t"] == "36.4.4" and report["other_cores_busy"] is None
    assert any("schedutil" in reason for reason in report["noise"]["noisy"])
