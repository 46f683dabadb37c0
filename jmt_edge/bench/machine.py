"""The machine a number was measured on: processor, governor, load, and on a Jetson power, clocks and heat.

A number without these cannot be compared. Everything is read from files, below `root` so that a recorded tree
serves for tests.
"""

from __future__ import annotations

import os
import platform
import re
import threading
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from ..engine.device import l4t_release

_PACKAGES = ("jmt-edge", "numpy", "opencv-python-headless", "onnxruntime", "openvino", "torch", "triton", "tensorrt")


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def cpu_busy_seconds(root: Path = Path("/")) -> float | None:
    """CPU seconds that everybody has spent, since start-up, on the processors that this process may use."""
    mine = {f"cpu{i}" for i in os.sched_getaffinity(0)}
    total, found = 0, False
    for line in _read(root / "proc/stat").splitlines():
        name, *fields = line.split()
        if name in mine and len(fields) >= 8:
            # user nice system idle iowait irq softirq steal, in ticks (proc(5)); steal is another virtual machine's
            user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
            total, found = total + user + nice + system + irq + softirq + steal, True
    return total / os.sysconf("SC_CLK_TCK") if found else None


def describe(root: Path = Path("/")) -> dict[str, Any]:
    """Processor, cores, governor, load average, memory, L4T, versions."""
    info = _read(root / "proc/cpuinfo")
    model = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", info, re.M)
    board = _read(root / "proc/device-tree/model").rstrip("\0")
    governors = {_read(p) for p in root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")} - {""}
    load = _read(root / "proc/loadavg").split()
    memory = re.search(r"MemTotal:\s*(\d+) kB", _read(root / "proc/meminfo"))
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": model.group(1) if model else platform.processor() or "unknown",
        "board": board,
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "governor": ", ".join(sorted(governors)) or "not readable",
        "load": float(load[0]) if load else None,
        "memory_gb": round(int(memory.group(1)) / 1e6, 1) if memory else None,
        "l4t": l4t_release(root),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


@dataclass
class Rail:
    """One channel of an INA3221: its label, millivolts and milliamperes files."""

    label: str
    voltage: Path
    current: Path

    def watts(self) -> float | None:
        try:
            return int(self.voltage.read_text()) * int(self.current.read_text()) / 1e6
        except (OSError, ValueError):
            return None


def rails(root: Path = Path("/")) -> list[Rail]:
    """The board's power rails (INA3221 in hwmon). Empty on machines without one."""
    found = []
    for chip in sorted(root.glob("sys/class/hwmon/hwmon*")):
        if _read(chip / "name") != "ina3221":
            continue
        for label in sorted(chip.glob("in*_label")):
            number = label.name[2:].split("_")[0]
            voltage, current = chip / f"in{number}_input", chip / f"curr{number}_input"
            if voltage.is_file() and current.is_file():
                found.append(Rail(_read(label), voltage, current))
    return found


def temperatures(root: Path = Path("/")) -> dict[str, float]:
    """Degrees Celsius of each thermal zone that answers (a zone that is off does not)."""
    found = {}
    for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        value = _read(zone / "temp")
        if re.fullmatch(r"-?\d+", value):
            found[_read(zone / "type") or zone.name] = int(value) / 1000
    return found


def clocks(root: Path = Path("/")) -> dict[str, float]:
    """MHz of every processor core and devfreq device (a Jetson's GPU) that says so."""
    found = {}
    for file in sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")):
        if (value := _read(file)).isdigit():
            found[file.parent.parent.name] = int(value) / 1e3
    for device in sorted(root.glob("sys/class/devfreq/*")):
        if (value := _read(device / "cur_freq")).isdigit():
            found[device.name] = int(value) / 1e6
    return found


def throttling(root: Path = Path("/")) -> set[str]:
    """Cooling devices of the kind that alerts (`gpu-throttle-alert`, `hot-surface-alert`) that are active now."""
    active = set()
    for device in root.glob("sys/class/thermal/cooling_device*"):
        kind, state = _read(device / "type"), _read(device / "cur_state")
        if kind.endswith("-alert") and state.isdigit() and int(state) > 0:
            active.add(kind)
    return active


def throttle_events(root: Path = Path("/")) -> int:
    """Over-current events counted by the board since it started (`oc1_event_cnt` and so on)."""
    counters = root.glob("sys/class/hwmon/hwmon*/oc*_event_cnt")
    return sum(int(value) for value in map(_read, counters) if value.isdigit())


@dataclass
class Power:
    """Mean watts per rail and of the whole module over a span, and what the board did meanwhile.

    seconds: the span; temperature_max: degrees Celsius; clock_mean: MHz; over_current: events counted in the span;
    throttled: cooling alerts that were active at some moment of it.
    """

    seconds: float
    watts: dict[str, float]
    temperature_max: dict[str, float]
    clock_mean: dict[str, float]
    over_current: int
    throttled: list[str]
    total: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def joules_per(self, count: int) -> float | None:
        """Energy of one of `count` inferences made in the span; None where no rail could be read."""
        return None if self.total is None or not count else self.total * self.seconds / count


class PowerMeter:
    """Samples rails, temperatures and clocks in a thread while it is open: `with PowerMeter() as meter: ...`."""

    PERIOD = 0.05

    def __init__(self, root: Path = Path("/")) -> None:
        self._root, self._rails = root, rails(root)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="power-meter", daemon=True)
        self._watts: dict[str, list[float]] = {rail.label: [] for rail in self._rails}
        self._heat: dict[str, float] = {}
        self._clocks: dict[str, list[float]] = {}
        self._throttled: set[str] = set()

    def __enter__(self) -> PowerMeter:
        self._events = throttle_events(self._root)
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._seconds = time.monotonic() - self._began
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            for rail in self._rails:
                watts = rail.watts()
                if watts is not None:
                    self._watts[rail.label].append(watts)
            for name, value in temperatures(self._root).items():
                self._heat[name] = max(value, self._heat.get(name, value))
            for name, value in clocks(self._root).items():
                self._clocks.setdefault(name, []).append(value)
            self._throttled |= throttling(self._root)
            if self._stop.wait(self.PERIOD):
                return

    def result(self) -> Power:
        """What was seen between entry and exit."""
        watts = {label: sum(v) / len(v) for label, v in self._watts.items() if v}
        clock = {name: sum(v) / len(v) for name, v in self._clocks.items()}
        return Power(
            self._seconds, watts, dict(self._heat), clock, throttle_events(self._root) - self._events,
            sorted(self._throttled), module_watts(watts),
        )  # fmt: skip


def module_watts(watts: dict[str, float]) -> float | None:
    """Watts of the whole module out of its rails'; None without rails.

    VDD_IN (Orin Nano, Orin NX) feeds the whole module and the other rails are part of it. An AGX Orin has no such
    rail: its GPU, CPU and 5 V rails add up; VDDQ_VDD2_1V8AO is fed from the 5 V rail, so it is left out where that one
    is there.
    """
    if not watts:
        return None
    if "VDD_IN" in watts:
        return watts["VDD_IN"]
    inner = {"VDDQ_VDD2_1V8AO"} if "VIN_SYS_5V0" in watts else set()
    return sum(value for label, value in watts.items() if label not in inner | {"NC"})
