"""Checks whether this machine is ready for a live run, with a remedy for every problem.

`examine` reads the machine's files below a root, so a recorded tree (a Jetson's `/etc`, `/sys`, `/dev`) can be
examined anywhere. What only the running machine can answer (PortAudio, a camera's modes, a board's name) is queried
only for `/`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .engine.device import board_model, is_jetson, l4t_release
from .errors import UserError, first_line
from .machine import memory_available, power_modes, read_text, versions

OK, NOTE, WARNING, PROBLEM = "ok", "note", "warning", "problem"
# L4T -> JetPack: NVIDIA's JetPack archive
JETPACK = {
    (32,): "4", (34,): "5.0", (35, 1): "5.0.2", (35, 2): "5.1", (35, 3): "5.1.1", (35, 4): "5.1.2", (35, 5): "5.1.3",
    (35, 6): "5.1.4", (35, 6, 1): "5.1.5", (36, 2): "6.0 (developer preview)", (36, 3): "6.0", (36, 4): "6.1",
    (36, 4, 3): "6.2", (36, 4, 4): "6.2.1", (38, 2): "7.0", (38, 4): "7.1", (39, 2): "7.2",
}  # fmt: skip
OLDEST_JETPACK = (36, 4)  # 6.1: Python 3.10, TensorRT 10.3
_MIN_DISK, _MIN_MEMORY = 1 << 30, 500 << 20
_IN_USE = "in use by another program"


@dataclass(frozen=True)
class Finding:
    """One check. A `problem` keeps `jmt-edge live` from running; a `warning` costs a sensor, speed or a feature."""

    section: str
    what: str
    level: str
    detail: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Report:
    findings: list[Finding]

    @property
    def can_run(self) -> bool:
        return not any(f.level == PROBLEM for f in self.findings)

    def to_dict(self) -> dict[str, Any]:
        return {"can_run": self.can_run, "findings": [asdict(f) for f in self.findings]}


Row = tuple[str, ...]  # the fields of a finding after its section


def examine(root: Path = Path("/"), *, identify: bool = False) -> Report:
    """Check everything. identify: open each serial port and ask which board it is (this resets an Arduino)."""
    here = root == Path("/")
    sections = {
        "system": _system(root),
        "power": _power(root),
        "cameras": _cameras(root, here),
        "microphones": _microphones(root, here),
        "serial ports": _serial(root, here, identify),
        "packages": _packages(root),
        "engines": _engines(root),
        "GPU": _gpu(root),
        "bundles": _bundles(),
        "disk": _disk(root),
    }
    return Report([Finding(section, *row) for section, rows in sections.items() for row in rows])


# ---- the machine


def jetpack(l4t: str) -> str:
    """JetPack's version for an L4T release: `6.2` for `36.4.3`, `6.2.1 or newer` for `36.5.0`; empty if older than all.

    A patch level that is not listed (`36.4.1`) belongs to the release before it.
    """
    release = tuple(int(part) for part in l4t.split(".") if part)
    known = max((one for one in JETPACK if one <= release), default=None)
    if known is None:
        return ""
    return JETPACK[known] + ("" if release[: min(2, len(known))] == known[:2] else " or newer")


def _jetpack(root: Path) -> Row:
    l4t = l4t_release(root)
    update = "JetPack 6.1 or newer is needed: sudo apt-cache show nvidia-jetpack, or flash the board again"
    if not l4t:
        return "JetPack", WARNING, "cannot be told: no /etc/nv_tegra_release", "check `dpkg -l nvidia-l4t-core`"
    detail = f"{jetpack(l4t) or 'older than 4'} (L4T {l4t})"
    if tuple(int(part) for part in l4t.split(".") if part) < OLDEST_JETPACK:
        return "JetPack", WARNING, f"{detail}: too old for onnxruntime's wheels and the plans of `build`", update
    return "JetPack", OK, detail


def _system(root: Path) -> Iterator[Row]:
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', read_text(root / "etc/os-release"), re.MULTILINE))
    machine = board_model(root) or platform.machine()
    system = release.get("PRETTY_NAME", platform.system())
    yield "machine", OK, f"{machine}, {system}, Python {platform.python_version()}"
    if is_jetson(root):
        yield _jetpack(root)
    if available := memory_available(root):
        free, limit = available
        remedy = f"close other programs: a live run needs {_MIN_MEMORY >> 20} MB"
        yield "memory", *_enough(free, _MIN_MEMORY, f"{free >> 20} MB free {limit}", remedy)


def _enough(free: int, least: int, detail: str, remedy: str) -> Row:
    return (OK, detail) if free >= least else (WARNING, detail, remedy)


def _power(root: Path) -> Iterator[Row]:
    mode, names = power_modes(root)
    if mode is not None:
        now = names.get(mode) or f"number {mode}"
        best = next((name for name in ("MAXN_SUPER", "MAXN") if name in names.values()), "")
        if best and now != best:
            number = next(i for i, name in names.items() if name == best)
            yield "mode", NOTE, now, f"for full speed: sudo nvpmodel -m {number} ({best})"
        else:
            yield "mode", OK, now
    governor = read_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor == "powersave" and not (root / "sys/devices/system/cpu/intel_pstate").exists():
        remedy = "echo schedutil | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        yield "CPU governor", WARNING, "powersave keeps the CPU at its lowest clock", remedy
    elif governor:
        yield "CPU governor", OK, governor


# ---- sensors


def _cameras(root: Path, here: bool) -> Iterator[Row]:
    nodes = sorted((root / "dev").glob("video[0-9]*"), key=lambda p: int(re.sub(r"\D", "", p.name)))
    found = [row for node in nodes for row in _camera(root, node, here)]
    yield from found
    if not found:
        yield "cameras", WARNING, "none", "plug one in (check with lsusb), or use --camera sim: or none"
    try:
        from .capture.camera import has_gstreamer
    except UserError:
        return  # OpenCV does not load, which is reported under packages
    if has_gstreamer():
        yield "GStreamer in OpenCV", OK, "yes"
    elif is_jetson(root):
        remedy = "use JetPack's OpenCV: pip uninstall opencv-python opencv-python-headless, venv --system-site-packages"
        yield "GStreamer in OpenCV", WARNING, "no, so CSI cameras cannot be read", remedy
    else:
        yield "GStreamer in OpenCV", NOTE, "no; needed only for csi: cameras and custom pipelines"


def _camera(root: Path, node: Path, here: bool) -> Iterator[Row]:
    from .capture.v4l2 import query_camera

    name, what = read_text(root / "sys/class/video4linux" / node.name / "name"), f"/dev/{node.name}"
    if not here:
        yield what, OK, name
        return
    try:
        found = query_camera(node)
    except PermissionError:
        yield what, WARNING, f"{name}: permission denied", "sudo usermod -aG video $USER, then log in again"
        return
    except OSError as error:
        yield what, WARNING, f"{name}: {error.strerror}", "unplug it and plug it in again"
        return
    if found is None:
        return  # the metadata node of a camera that has another
    card, modes = found
    best = sorted(modes, key=lambda m: (m.pixels == "MJPG", m.width * m.height), reverse=True)[:4]
    shown = "; ".join(f"{m.pixels} {m.width}x{m.height} at {', '.join(f'{r:g}' for r in m.rates)}" for m in best)
    if _in_use(node):
        yield what, WARNING, f"{card}: {_IN_USE}", f"close it: fuser -v {what}"
    elif not modes:
        yield what, WARNING, f"{card}: lists no format", "use its GStreamer pipeline, or csi:N"
    else:
        yield what, OK, f"{card}: {shown}"


def _in_use(node: Path) -> bool:
    """Whether another process, of those whose files are visible, has the device open."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.parts[2] != str(os.getpid()) and link.readlink() == node:
                return True
        except OSError:
            continue
    return False


def _microphones(root: Path, here: bool) -> Iterator[Row]:
    cards = re.findall(r"^\s*(\d+) \[.*?\]: (.*)$", read_text(root / "proc/asound/cards"), re.MULTILINE)
    if not here:
        for number, name in cards:
            yield f"card {number}", OK, name
        return
    from .capture.microphone import list_microphones

    try:
        version, devices = list_microphones()
    except UserError as error:
        what, _, remedy = str(error).rpartition("; ")
        yield "PortAudio", WARNING, what, remedy
        return
    yield "PortAudio", OK, version
    for d in devices:
        yield f"{d['index']} {d['name']}", OK, f"{d['max_input_channels']} channels, {d['default_samplerate']:g} Hz"
    if not devices:
        known = f", but the kernel lists {', '.join(n for _, n in cards)}" if cards else ""
        remedy = "add the user to the group audio" if cards else "plug one in, or use --microphone sim: or none"
        yield "microphones", WARNING, f"none{known}", remedy


def _serial(root: Path, here: bool, identify: bool) -> Iterator[Row]:
    dev = root / "dev"
    ports = sorted(p for pattern in ("ttyUSB*", "ttyACM*", "rfcomm*") for p in dev.glob(pattern))
    links = sorted((dev / "serial/by-id").glob("*"))
    by_id = {link.resolve().name: f"/dev/serial/by-id/{link.name}" for link in links}
    for port in ports:
        what = by_id.get(port.name, f"/dev/{port.name}")
        usb = _usb(root / "sys/class/tty" / port.name / "device")
        detail = ", ".join(filter(None, [f"/dev/{port.name}" if port.name in by_id else "", usb]))
        if here and not os.access(port, os.R_OK | os.W_OK):
            yield what, WARNING, f"{detail}: permission denied", "sudo usermod -aG dialout $USER, then log in again"
        elif here and _in_use(port):
            yield what, WARNING, f"{detail}: {_IN_USE}", f"close it: fuser -v /dev/{port.name}"
        elif here and identify:
            yield _board(what, detail)
        else:
            yield what, OK, detail
    if not ports:
        yield "serial ports", WARNING, "none", "plug the board in, pair it (rfcomm bind), or use --eda sim: or none"
    if (root / "usr/bin/brltty").exists() and not any("ch341" in f or "1a86" in f for f in by_id.values()):
        detail = "is installed; it claims boards with a CH340 chip as braille displays"
        yield "brltty", NOTE, detail, "if a board's port vanishes at once: sudo apt remove brltty"


def _usb(device: Path) -> str:
    """Manufacturer, product and ids of the USB device that a tty belongs to."""
    place = device.resolve() if device.exists() else device
    for folder in (place, *list(place.parents)[:5]):
        vendor = read_text(folder / "idVendor")
        if vendor:
            names = " ".join(filter(None, [read_text(folder / "manufacturer"), read_text(folder / "product")]))
            return f"{names or 'USB'} ({vendor}:{read_text(folder / 'idProduct')})"
    return ""


def _board(port: str, detail: str) -> Row:
    from .capture.eda.identify import identify
    from .capture.eda.port import Port
    from .capture.reconnect import DeviceLost

    try:
        opened = Port(port, 115200)
        try:
            _, name = identify(opened)
        finally:
            opened.close()
    except (UserError, DeviceLost) as error:
        return port, WARNING, f"{detail}: {error}", "check the board's power and its sketch"
    return port, OK, f"{detail}: {name}"


# ---- software


def _version(*names: str) -> str:
    """The first of these distributions that is installed, with its version; empty where none is."""
    return next((f"{name} {version}" for name, version in versions(*names).items()), "")


def _does_not_load(module: str) -> str:
    """Why importing it fails, for example because it was built for another NumPy; empty where it loads."""
    try:
        importlib.import_module(module)
    except UserError as error:
        return str(error)
    except Exception as error:  # an extension module may raise anything
        return f"does not load ({first_line(error)})"
    return ""


def _packages(root: Path) -> Iterator[Row]:
    opencv = ("opencv-python", "opencv-python-headless", "opencv-contrib-python")
    for module, name, remedy in (
        ("numpy", "numpy", "pip install numpy"),
        ("scipy", "scipy", "pip install scipy"),
        ("cv2", "opencv-python-headless", "pip install opencv-python-headless, or JetPack's OpenCV on a Jetson"),
        ("serial", "pyserial", "pip install pyserial"),
    ):
        if importlib.util.find_spec(module) is None:
            yield module, PROBLEM, "missing", remedy
            continue
        broken = _does_not_load("jmt_edge.opencv" if module == "cv2" else module)
        if broken:
            detail, _, own = broken.partition("; ")
            yield module, PROBLEM, detail, own or f"pip install --force-reinstall {name}"
        else:
            yield module, OK, _version(name, *opencv) if module == "cv2" else _version(name)
    wheel = _version(*opencv)
    if is_jetson(root) and wheel:
        detail = f"the wheel {wheel} shadows JetPack's OpenCV and its GStreamer"
        yield "OpenCV", WARNING, detail, f"pip uninstall {wheel.split()[0]}"
    if importlib.util.find_spec("av") is not None:
        yield "PyAV", OK, _version("av")
    else:
        yield "PyAV", NOTE, "missing: no raw video recording, no compressed sound", "pip install 'jmt-edge[record]'"


def _onnxruntime(root: Path) -> Iterator[Row]:
    """Which of its distributions is installed: they share one folder, and only one of them can use a GPU."""
    found = versions("onnxruntime", "onnxruntime-gpu")
    if len(found) > 1:
        detail = f"{' and '.join(f'{name} {version}' for name, version in found.items())} overwrite each other's files"
        remedy = "pip uninstall onnxruntime onnxruntime-gpu, then install the one that you want"
        yield "onnxruntime", WARNING, detail, remedy
    elif "onnxruntime" in found and _gpu_names(root):
        yield "onnxruntime", NOTE, "this build runs on the CPU only; plans and cubins do not need it", _with_cuda(root)


def _with_cuda(root: Path) -> str:
    """How to get an onnxruntime with CUDA. pip then says that jmt-edge misses onnxruntime, which does no harm."""
    swap = "pip uninstall onnxruntime && pip install --no-deps onnxruntime-gpu"
    if not is_jetson(root):
        return f"for CUDA: {swap}"
    if l4t_release(root).startswith("36."):
        return f"for CUDA: {swap} --index-url https://pypi.jetson-ai-lab.io/jp6/cu126 (a community index of NVIDIA's)"
    return f"for CUDA: {swap} (JetPack 7 runs the aarch64 wheels of PyPI; not tried)"


def _engines(root: Path) -> Iterator[Row]:
    from .engine.backends import AUTO, unavailable

    reasons = {name: unavailable(name) for name in AUTO}
    for name, reason in reasons.items():
        yield name, *((OK, _engine_detail(name)) if reason is None else (NOTE, reason))
    yield from _onnxruntime(root)
    if None not in reasons.values():
        yield "engines", PROBLEM, "none can run", "pip install onnxruntime"
    if platform.machine() in ("x86_64", "AMD64"):
        if importlib.util.find_spec("openvino") is None:
            remedy = "pip install 'jmt-edge[openvino]', then --backend openvino (R(2+1)D-18: 90 ms instead of 230)"
            yield "openvino", NOTE, "missing; it has faster 3-D convolutions on this CPU", remedy
        else:
            yield "openvino", OK, f"{_version('openvino')}: faster 3-D convolutions, --backend openvino"


def _engine_detail(name: str) -> str:
    if name != "onnxruntime":
        return _version("cuda-bindings" if name == "cubin" else name)
    import onnxruntime

    providers = ", ".join(p.removesuffix("ExecutionProvider") for p in onnxruntime.get_available_providers())
    return f"{onnxruntime.__version__} with {providers}"


def _gpu_names(root: Path) -> list[str]:
    """The NVIDIA GPUs that the driver lists."""
    names = [
        m[1].strip()
        for file in sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
        if (m := re.search(r"^Model:\s*(.*)$", read_text(file), re.MULTILINE))
    ]
    return names or (["the Jetson's integrated GPU"] if is_jetson(root) else [])


def _gpu(root: Path) -> Iterator[Row]:
    driver = re.search(r"Kernel Module(?: for \S+)?\s+([\d.]+)", read_text(root / "proc/driver/nvidia/version"))
    names = _gpu_names(root)
    if not names:
        yield "NVIDIA GPU", NOTE, "none; the networks run on the CPU"
        return
    for name in names:
        yield name, OK, f"driver {driver[1]}" if driver else ""
    if importlib.util.find_spec("tensorrt") is None:
        remedy = "pip install 'jmt-edge[tensorrt]'"
        if is_jetson(root):
            remedy = "make the venv with --system-site-packages, so that it finds JetPack's tensorrt"
        yield "TensorRT", NOTE, "not found by this Python, so the networks run on the CPU", remedy
    else:
        yield "TensorRT", OK, _version("tensorrt") or "found"


def _bundles() -> Iterator[Row]:
    from .engine.bundle import load_bundle

    folder = Path(__file__).parent / "engine" / "bundles"
    paths = sorted(folder.glob("*.jmt"))
    for path in paths:
        try:
            yield path.stem, OK, load_bundle(path).id
        except UserError as error:
            yield path.stem, PROBLEM, str(error), "reinstall jmt-edge"
    if not paths:
        yield "demo bundles", PROBLEM, f"none in {folder}", "reinstall jmt-edge, or give --bundle"


def _disk(root: Path) -> Iterator[Row]:
    place = Path.cwd() if root == Path("/") else root
    free = shutil.disk_usage(place).free
    detail = f"{free / 1e9:.1f} GB free at {place}"
    yield "space", *_enough(free, _MIN_DISK, detail, "free some space before recording raw video")


# ---- for people

_SIGNS = {OK: ("✓", "green"), NOTE: ("·", "cyan"), WARNING: ("!", "yellow"), PROBLEM: ("✗", "red")}


def wants_colour() -> bool:
    """Standard output is a terminal that shows colours, and the user has not declined them (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def lines(report: Report, *, colour: bool | None = None) -> Iterator[str]:
    """The report as text. colour: whether signs are coloured; None asks `wants_colour`."""
    import click

    colour = wants_colour() if colour is None else colour
    section = ""
    for finding in report.findings:
        if finding.section != section:
            section = finding.section
            yield section
        sign, shade = _SIGNS[finding.level]
        mark = click.style(sign, fg=shade) if colour else sign
        yield f"  {mark} {finding.what}" + (f": {finding.detail}" if finding.detail else "")
        if finding.remedy:
            yield f"      → {finding.remedy}"
    yield "`jmt-edge live` can run here" if report.can_run else "`jmt-edge live` cannot run here; see ✗ above"
