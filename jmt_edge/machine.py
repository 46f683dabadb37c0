"""The machine behind a measurement: processor, governor, load, and on a Jetson power, clocks and temperatures.

A measurement without these cannot be compared. Everything is read from files below `root`, so tests can use a recorded
tree. Layouts: the kernel's Documentation/hwmon/ina3221.rst and ina238.rst, NVIDIA's Jetson Linux developer guide
("Platform Power and Performance"), and what owners of Orin and Thor boards have published.
"""

from __future__ import annotations

import os
import platform
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from .engine.device import l4t_release
from .faults import Steady

_PACKAGES = ("jmt-edge", "numpy", "opencv-python-headless", "onnxruntime", "openvino", "torch", "triton", "tensorrt")


_UNLIMITED = 1 << 60  # bytes; cgroup v1 writes a number of this size for "no limit"


def read_text(path: Path) -> str:
    """Text of a small file, without blanks and zero bytes at its ends; empty where it cannot be read.

    Python's file objects are avoided: a sensor that is switched off answers EAGAIN (`cv0-thermal` of an Orin,
    `gpu-thermal` of an idle Thor), which they turn into None and then into a TypeError.
    """
    parts = []
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            while part := os.read(handle, 1 << 16):
                parts.append(part)
        finally:
            os.close(handle)
    except OSError:
        return ""
    return b"".join(parts).decode(errors="replace").strip("\0 \t\r\n")


def _number(path: Path) -> int | None:
    value = read_text(path)
    return int(value) if re.fullmatch(r"-?\d+", value) else None


def _numbers(root: Path, pattern: str) -> Iterator[tuple[Path, int]]:
    """The files that match and hold a number, in order."""
    for file in sorted(root.glob(pattern)):
        if (value := _number(file)) is not None:
            yield file, value


def cpu_busy_seconds(root: Path = Path("/")) -> float | None:
    """CPU seconds spent by all processes, since boot, on the processors that this process may use."""
    mine = {f"cpu{i}" for i in os.sched_getaffinity(0)}
    total, found = 0, False
    for line in read_text(root / "proc/stat").splitlines():
        name, *fields = line.split()
        if name in mine and len(fields) >= 8:
            # user nice system idle iowait irq softirq steal, in ticks (proc(5)); steal: other virtual machines
            user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
            total, found = total + user + nice + system + irq + softirq + steal, True
    return total / os.sysconf("SC_CLK_TCK") if found else None


def versions(*packages: str) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def describe(root: Path = Path("/")) -> dict[str, Any]:
    """Processor, cores, governor, load average, memory, L4T and a Jetson's power mode, versions."""
    info = read_text(root / "proc/cpuinfo")
    model = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", info, re.M)
    board = read_text(root / "proc/device-tree/model")
    governors = {read_text(p) for p in root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")} - {""}
    load = read_text(root / "proc/loadavg").split()
    memory = re.search(r"MemTotal:\s*(\d+) kB", read_text(root / "proc/meminfo"))
    return {
        "processor": model.group(1) if model else platform.processor() or "unknown",
        "board": board,
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "governor": ", ".join(sorted(governors)) or "not readable",
        "load": float(load[0]) if load else None,
        "memory_gb": round(int(memory.group(1)) / 1e6, 1) if memory else None,
        "l4t": l4t_release(root),
        "power_mode": power_mode(root),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(*_PACKAGES),
    }


def memory_available(root: Path = Path("/")) -> tuple[int, str] | None:
    """Bytes that this process can still take without swapping, and what sets this limit: the machine, or a cgroup (a
    container, a batch system, systemd) with less left. Memory that the kernel frees on demand counts as available.
    None where it cannot be read.

    Sources: proc_meminfo(5); the kernel's admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
    """
    free = re.search(r"^MemAvailable:\s*(\d+) kB", read_text(root / "proc/meminfo"), re.M)
    found = [(int(free[1]) << 10, "on this machine")] if free else []
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            mount, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in kinds.split(","):
            mount = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # a limit of any group above holds too; inside a container the path may be the host's, and the mount our own
        group = mount / path.lstrip("/")
        for folder in (group, *(p for p in group.parents if p.is_relative_to(mount))):
            most, used = (_number(folder / name) for name in names[:2])
            freed = re.search(rf"^{names[2]} (\d+)$", read_text(folder / "memory.stat"), re.M)
            if most is not None and used is not None and most < _UNLIMITED:
                left = max(most - used + (int(freed[1]) if freed else 0), 0)
                found.append((left, f"under the limit of {most / 1e9:.1f} GB of cgroup {folder.name}"))
    return min(found, default=None)


def power_modes(root: Path = Path("/")) -> tuple[int | None, dict[int, str]]:
    """(a Jetson's power mode now, the names of all its modes from nvpmodel.conf); None on other machines."""
    number = re.search(r"pmode:(\d+)", read_text(root / "var/lib/nvpmodel/status"))
    table = re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=([^\s>]+)", read_text(root / "etc/nvpmodel.conf"))
    return int(number[1]) if number else None, {int(key): name for key, name in table}


def power_mode(root: Path = Path("/")) -> str | None:
    """A Jetson's power mode, `2 MAXN_SUPER`; None without one. A number without a name is not in nvpmodel.conf."""
    now, names = power_modes(root)
    return None if now is None else f"{now} {names.get(now, '')}".rstrip()


@dataclass(frozen=True)
class Rail:
    """One measured supply: by its chip (`power`, microwatts), or as millivolts times milliamperes."""

    label: str
    voltage: Path
    current: Path
    power: Path | None = None

    def watts(self) -> float | None:
        """None while the channel is switched off: reading it then fails."""
        if self.power is not None:
            microwatts = _number(self.power)
            return None if microwatts is None else microwatts / 1e6
        millivolts, milliamperes = _number(self.voltage), _number(self.current)
        return None if millivolts is None or milliamperes is None else millivolts * milliamperes / 1e6


BOARD_INPUT = "VIN"  # a Thor's INA238: the module and its carrier board together


def rails(root: Path = Path("/")) -> list[Rail]:
    """The board's supplies (INA3221 and INA238 in hwmon). Empty on machines without them.

    Only labelled channels with a current are supplies: channels 4 to 7 of an INA3221 are shunt voltages and their sum,
    `NC` is a channel that is not connected. hwmon numbers change from boot to boot, so chips are known by name.
    """
    found = []
    for chip in sorted(root.glob("sys/class/hwmon/hwmon*")):
        name = read_text(chip / "name")
        if name == "ina238":
            label = read_text(chip / "in1_label") or read_text(chip / "label") or BOARD_INPUT
            found.append(Rail(label, chip / "in1_input", chip / "curr1_input", chip / "power1_input"))
        elif name == "ina3221":
            for file in sorted(chip.glob("in*_label")):
                number, label = file.name[2:].split("_")[0], read_text(file)
                voltage, current = chip / f"in{number}_input", chip / f"curr{number}_input"
                if label not in ("", "NC") and voltage.exists() and current.exists():
                    found.append(Rail(label, voltage, current))
    return found


def temperatures(root: Path = Path("/")) -> dict[str, float]:
    """Degrees Celsius of each thermal zone that answers (one that is off does not, or reports -256)."""
    return {
        read_text(file.with_name("type")) or file.parent.name: value / 1000
        for file, value in _numbers(root, "sys/class/thermal/thermal_zone*/temp")
        if value > -256_000
    }


def clocks(root: Path = Path("/")) -> dict[str, float]:
    """MHz of every core and devfreq device that reports it (`17000000.gpu` on an Orin, `gpu-gpc-0` on a Thor).

    They are what the governor asked for: an over-current event of a few milliseconds does not show.
    """
    cores = _numbers(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
    devices = _numbers(root, "sys/class/devfreq/*/cur_freq")
    return {f.parent.parent.name: v / 1e3 for f, v in cores} | {f.parent.name: v / 1e6 for f, v in devices}


def throttling(root: Path = Path("/")) -> set[str]:
    """Active cooling devices of the alert kind (`gpu-throttle-alert`, `hot-surface-alert`)."""
    states = _numbers(root, "sys/class/thermal/cooling_device*/cur_state")
    return {kind for file, state in states if state and (kind := read_text(file.with_name("type"))).endswith("-alert")}


def throttle_events(root: Path = Path("/")) -> dict[str, int]:
    """Over-current events counted by the board since it started, by kind.

    On an Orin `oc1` is under-voltage, `oc2` average and `oc3` instantaneous over-current; each halves the clocks for
    about a millisecond.
    """
    return {file.name.split("_")[0]: value for file, value in _numbers(root, "sys/class/hwmon/hwmon*/oc*_event_cnt")}


@dataclass
class Power:
    """Mean watts per rail and of the whole module over a span, and what the board did meanwhile.

    seconds: the span; temperature_max: degrees Celsius; clock_mean: MHz; over_current: events counted in the span, by
    kind, where there were any; throttled: cooling alerts that were active at some moment of it.
    """

    seconds: float
    watts: dict[str, float]
    temperature_max: dict[str, float]
    clock_mean: dict[str, float]
    over_current: dict[str, int]
    throttled: list[str]
    total: float | None

    def joules_per(self, count: int) -> float | None:
        """Energy per inference, of `count` in the span; None where no rail could be read."""
        return None if self.total is None or not count else self.total * self.seconds / count


class PowerMeter:
    """Samples rails, temperatures and clocks in a thread while it is open: `with PowerMeter() as meter: ...`."""

    PERIOD = 0.05

    def __init__(self, root: Path = Path("/")) -> None:
        self._root, self._rails = root, rails(root)
        self._stop = threading.Event()
        self._thread = Steady(self._sample, "power-meter", self._stop)
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
        """The measurement between entry and exit."""
        watts = {label: sum(v) / len(v) for label, v in self._watts.items() if v}
        clock = {name: sum(v) / len(v) for name, v in self._clocks.items()}
        counted = {k: n - self._events.get(k, n) for k, n in throttle_events(self._root).items()}
        events = {kind: count for kind, count in counted.items() if count}
        return Power(
            self._seconds, watts, dict(self._heat), clock, events, sorted(self._throttled), module_watts(watts)
        )


def module_watts(watts: dict[str, float]) -> float | None:
    """Watts of the whole module, from those of its rails; None without rails.

    VDD_IN (Orin Nano, Orin NX) feeds the whole module and the other rails are part of it. An AGX Orin and a Thor have
    no such rail: their GPU, CPU and 5 V rails add up. VDDQ_VDD2_1V8AO is fed from the 5 V rail, so it is left out where
    that rail is measured; a Thor's VIN includes the carrier board.
    """
    if "VDD_IN" in watts:
        return watts["VDD_IN"]
    inner = {"VDDQ_VDD2_1V8AO"} if "VIN_SYS_5V0" in watts else set()
    parts = [value for label, value in watts.items() if label not in inner | {BOARD_INPUT}]
    return sum(parts) if parts else None
