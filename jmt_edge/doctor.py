"""What this machine has for a live run, and for every problem its remedy.

`examine` reads the machine's files below a root, so that a recorded tree (a Jetson's `/etc`, `/sys`, `/dev`) can be
examined anywhere; what only the running machine can answer (PortAudio, a camera's modes, a board's name) is asked
only below `/`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .errors import UserError

OK, NOTE, WARNING, PROBLEM = "ok", "note", "warning", "problem"
JETPACK = (("39.2", "7.2"), ("38", "7.0 or 7.1"), ("36.4", "6.1 or 6.2"), ("36", "6.0"), ("35", "5"))  # L4T -> JetPack
_MIN_DISK, _MIN_MEMORY = 1 << 30, 500 << 20
_HOG = "another program has it open"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. A `problem` keeps `jmt-edge live` from running at all; a `warning` costs a sensor,
    speed or a feature."""

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


def examine(root: Path = Path("/"), *, identify: bool = False) -> Report:
    """Look at everything. identify: open each serial port and ask what board is there (this resets an Arduino)."""
    here = root == Path("/")
    sections: list[Callable[[], Iterator[Finding]]] = [
        lambda: _system(root),
        lambda: _power(root),
        lambda: _cameras(root, here),
        lambda: _microphones(root, here),
        lambda: _serial(root, here, identify),
        lambda: _packages(root),
        _engines,
        lambda: _gpu(root),
        _bundles,
        lambda: _disk(root),
    ]
    return Report([finding for section in sections for finding in section()])


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0 \n")
    except OSError:
        return ""


# ---- the machine


def is_jetson(root: Path = Path("/")) -> bool:
    return (root / "etc/nv_tegra_release").is_file()


def _system(root: Path) -> Iterator[Finding]:
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', _text(root / "etc/os-release"), re.MULTILINE))
    machine = _text(root / "proc/device-tree/model") or platform.machine()
    system = release.get("PRETTY_NAME", platform.system())
    yield Finding("system", "machine", OK, f"{machine}, {system}, Python {platform.python_version()}")
    if is_jetson(root):
        from .engine.device import l4t_release

        l4t = l4t_release(root)
        jetpack = next((name for prefix, name in JETPACK if l4t.startswith(prefix)), "")
        if jetpack:
            yield Finding("system", "JetPack", OK, f"{jetpack} (L4T {l4t})")
        else:
            yield Finding("system", "JetPack", WARNING, f"L4T {l4t} is not known", "use JetPack 6.1 or newer")
    available = re.search(r"^MemAvailable:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    if available:
        free = int(available[1]) << 10
        if free < _MIN_MEMORY:
            yield Finding(
                "system", "memory", WARNING, f"{free >> 20} MB free",
                f"close other programs: a live run wants {_MIN_MEMORY >> 20} MB",
            )  # fmt: skip
        else:
            yield Finding("system", "memory", OK, f"{free >> 20} MB free")


def _power(root: Path) -> Iterator[Finding]:
    status = re.search(r"pmode:(\d+)", _text(root / "var/lib/nvpmodel/status"))
    if status:
        conf = _text(root / "etc/nvpmodel.conf")
        modes: dict[int, str] = {
            int(i): name for i, name in re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", conf)
        }
        now = modes.get(int(status[1])) or f"number {status[1]}"
        best = next((name for name in ("MAXN_SUPER", "MAXN") if name in modes.values()), "")
        if best and now != best:
            number = next(i for i, name in modes.items() if name == best)
            yield Finding("power", "mode", NOTE, now, f"for full speed: sudo nvpmodel -m {number} ({best})")
        else:
            yield Finding("power", "mode", OK, now)
    governor = _text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor == "powersave" and not (root / "sys/devices/system/cpu/intel_pstate").exists():
        remedy = "echo schedutil | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        yield Finding("power", "CPU governor", WARNING, "powersave holds the CPU at its lowest clock", remedy)
    elif governor:
        yield Finding("power", "CPU governor", OK, governor)


# ---- sensors


def _cameras(root: Path, here: bool) -> Iterator[Finding]:
    from .capture.v4l2 import query_camera

    nodes = sorted((root / "dev").glob("video[0-9]*"), key=lambda p: int(re.sub(r"\D", "", p.name)))
    seen = 0
    for node in nodes:
        name = _text(root / "sys/class/video4linux" / node.name / "name")
        what = f"/dev/{node.name}"
        if not here:
            seen += 1
            yield Finding("cameras", what, OK, name)
            continue
        try:
            found = query_camera(node)
        except PermissionError:
            seen += 1
            yield Finding(
                "cameras", what, WARNING, f"{name}: no permission", "sudo usermod -aG video $USER, then log in again"
            )
            continue
        except OSError as error:
            seen += 1
            yield Finding("cameras", what, WARNING, f"{name}: {error.strerror}", "unplug it and plug it in again")
            continue
        if found is None:
            continue  # a metadata node of a camera that has another
        seen += 1
        card, modes = found
        best = sorted(modes, key=lambda m: (m.pixels == "MJPG", m.width * m.height), reverse=True)[:4]
        shown = "; ".join(f"{m.pixels} {m.width}x{m.height} at {', '.join(f'{r:g}' for r in m.rates)}" for m in best)
        if _in_use(node):
            yield Finding("cameras", what, WARNING, f"{card}: {_HOG}", f"close it: fuser -v {what}")
        elif not modes:
            yield Finding("cameras", what, WARNING, f"{card}: lists no format", "use its GStreamer pipeline, or csi:N")
        else:
            yield Finding("cameras", what, OK, f"{card}: {shown}")
    if not seen:
        yield Finding(
            "cameras", "cameras", WARNING, "none",
            "plug one in (lsusb shows whether USB sees it), or use --camera sim: or none",
        )  # fmt: skip
    try:
        from .capture.camera import has_gstreamer
    except UserError:
        return  # OpenCV does not load, which stands under the packages
    if has_gstreamer():
        yield Finding("cameras", "GStreamer in OpenCV", OK, "yes")
    elif is_jetson(root):
        remedy = "use JetPack's OpenCV: pip uninstall opencv-python opencv-python-headless, venv --system-site-packages"
        yield Finding("cameras", "GStreamer in OpenCV", WARNING, "no, so CSI cameras cannot be read", remedy)
    else:
        yield Finding("cameras", "GStreamer in OpenCV", NOTE, "no; needed for csi: cameras and own pipelines only")


def _in_use(node: Path) -> bool:
    """Whether another process that we may look at has the device open."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.parts[2] != str(os.getpid()) and link.readlink() == node:
                return True
        except OSError:
            continue
    return False


def _microphones(root: Path, here: bool) -> Iterator[Finding]:
    cards = re.findall(r"^\s*(\d+) \[.*?\]: (.*)$", _text(root / "proc/asound/cards"), re.MULTILINE)
    if not here:
        for number, name in cards:
            yield Finding("microphones", f"card {number}", OK, name)
        return
    from .capture.microphone import import_sounddevice

    try:
        sd = import_sounddevice()
        devices = [d for d in sd.query_devices() if d["max_input_channels"] > 0]
        version = str(sd.get_portaudio_version()[1])
    except UserError as error:
        yield Finding("microphones", "PortAudio", WARNING, "missing", f"apt install libportaudio2 ({error})")
        return
    except Exception as error:  # PortAudioError, of a module that may not import
        yield Finding("microphones", "PortAudio", WARNING, str(error), "restart the sound server, or log in again")
        return
    yield Finding("microphones", "PortAudio", OK, version)
    for d in devices:
        detail = f"{d['max_input_channels']} channels, {d['default_samplerate']:g} Hz"
        yield Finding("microphones", f"{d['index']} {d['name']}", OK, detail)
    if not devices:
        known = f" though the kernel has {', '.join(n for _, n in cards)}" if cards else ""
        remedy = "add the user to the group audio" if cards else "plug one in, or use --microphone sim: or none"
        yield Finding("microphones", "microphones", WARNING, f"none{known}", remedy)


def _serial(root: Path, here: bool, identify: bool) -> Iterator[Finding]:
    dev = root / "dev"
    ports = sorted(p for pattern in ("ttyUSB*", "ttyACM*", "rfcomm*") for p in dev.glob(pattern))
    by_id = {}
    for link in sorted((dev / "serial/by-id").glob("*")):
        by_id[link.resolve().name] = f"/dev/serial/by-id/{link.name}"
    for port in ports:
        what = by_id.get(port.name, f"/dev/{port.name}")
        usb = _usb(root / "sys/class/tty" / port.name / "device")
        detail = ", ".join(filter(None, [f"/dev/{port.name}" if what in by_id.values() else "", usb]))
        if here and not os.access(port, os.R_OK | os.W_OK):
            remedy = "sudo usermod -aG dialout $USER, then log in again"
            yield Finding("serial ports", what, WARNING, f"{detail}: no permission", remedy)
        elif here and _in_use(port):
            yield Finding("serial ports", what, WARNING, f"{detail}: {_HOG}", f"close it: fuser -v /dev/{port.name}")
        elif here and identify:
            yield _board(what, detail)
        else:
            yield Finding("serial ports", what, OK, detail)
    if not ports:
        remedy = "plug the board in, pair it (rfcomm bind), or use --eda sim: or none"
        yield Finding("serial ports", "serial ports", WARNING, "none", remedy)
    if (root / "usr/bin/brltty").exists() and not any("ch341" in f or "1a86" in f for f in by_id.values()):
        yield Finding(
            "serial ports", "brltty", NOTE, "is installed, and it takes boards with a CH340 chip for braille displays",
            "if a board's port vanishes at once: sudo apt remove brltty",
        )  # fmt: skip


def _usb(device: Path) -> str:
    """Manufacturer, product and ids of the USB device that a tty belongs to."""
    place = device.resolve() if device.exists() else device
    for folder in (place, *list(place.parents)[:5]):
        vendor = _text(folder / "idVendor")
        if vendor:
            names = " ".join(filter(None, [_text(folder / "manufacturer"), _text(folder / "product")]))
            return f"{names or 'USB'} ({vendor}:{_text(folder / 'idProduct')})"
    return ""


def _board(port: str, detail: str) -> Finding:
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
        return Finding("serial ports", port, WARNING, f"{detail}: {error}", "check the board's power and its sketch")
    return Finding("serial ports", port, OK, f"{detail}: {name}")


# ---- software


def _version(*names: str) -> str:
    """Version of the first of these distributions that is installed; empty where none is."""
    for name in names:
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def _does_not_load(module: str) -> str:
    """Why importing it fails, for example built against another NumPy; empty where it loads."""
    try:
        importlib.import_module(module)
    except UserError as error:
        return str(error)
    except Exception as error:  # an extension module may raise anything
        return f"does not load ({(str(error).splitlines() or [type(error).__name__])[0]})"
    return ""


def _packages(root: Path) -> Iterator[Finding]:
    for module, name, remedy in (
        ("numpy", "numpy", "pip install numpy"),
        ("scipy", "scipy", "pip install scipy"),
        ("cv2", "opencv-python-headless", "pip install opencv-python-headless, or JetPack's OpenCV on a Jetson"),
        ("serial", "pyserial", "pip install pyserial"),
    ):
        if importlib.util.find_spec(module) is None:
            yield Finding("packages", module, PROBLEM, "missing", remedy)
            continue
        broken = _does_not_load("jmt_edge.opencv" if module == "cv2" else module)
        if broken:
            detail, _, own = broken.partition("; ")
            yield Finding("packages", module, PROBLEM, detail, own or f"pip install --force-reinstall {name}")
            continue
        detail = _version(name, "opencv-python", "opencv-contrib-python") if module == "cv2" else _version(name)
        yield Finding("packages", module, OK, detail)
    wheel = _version("opencv-python", "opencv-python-headless", "opencv-contrib-python")
    if is_jetson(root) and wheel:
        yield Finding(
            "packages", "OpenCV", WARNING, f"the wheel {wheel} shadows JetPack's OpenCV and its GStreamer",
            f"pip uninstall {wheel.split()[0]}",
        )  # fmt: skip
    if importlib.util.find_spec("av") is not None:
        yield Finding("packages", "PyAV", OK, _version("av"))
    else:
        remedy = "pip install 'jmt-edge[record]'"
        yield Finding("packages", "PyAV", NOTE, "missing: no raw video recording, no compressed sound", remedy)


def _engines() -> Iterator[Finding]:
    from .engine.backends import AUTO, unavailable

    usable = []
    for name in AUTO:
        reason = unavailable(name)
        if reason is None:
            usable.append(name)
        yield Finding(
            "engines", name, OK if reason is None else NOTE, _engine_detail(name) if reason is None else reason
        )
    if not usable:
        yield Finding("engines", "engines", PROBLEM, "none can run", "pip install onnxruntime")
    if platform.machine() in ("x86_64", "AMD64"):
        if importlib.util.find_spec("openvino") is None:
            remedy = (
                "pip install 'jmt-edge[openvino]', then --backend openvino (R(2+1)D-18: 90 ms for onnxruntime's 230)"
            )
            yield Finding("engines", "openvino", NOTE, "missing; it has faster 3-D convolutions on this CPU", remedy)
        else:
            yield Finding(
                "engines", "openvino", OK, f"{_version('openvino')}: faster 3-D convolutions, --backend openvino"
            )


def _engine_detail(name: str) -> str:
    if name != "onnxruntime":
        return _version({"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt-rtx"}.get(name, "cuda-bindings"))
    import onnxruntime

    providers = ", ".join(p.removesuffix("ExecutionProvider") for p in onnxruntime.get_available_providers())
    return f"{onnxruntime.__version__} with {providers}"


def _gpu(root: Path) -> Iterator[Finding]:
    driver = re.search(r"Kernel Module(?: for \S+)?\s+([\d.]+)", _text(root / "proc/driver/nvidia/version"))
    names = [
        m[1].strip()
        for file in sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
        if (m := re.search(r"^Model:\s*(.*)$", _text(file), re.MULTILINE))
    ]
    if is_jetson(root):
        names = names or ["the Jetson's integrated GPU"]
    if not names:
        yield Finding("GPU", "NVIDIA GPU", NOTE, "none; the networks run on the CPU")
        return
    for name in names:
        yield Finding("GPU", name, OK, f"driver {driver[1]}" if driver else "")
    if importlib.util.find_spec("tensorrt") is None:
        remedy = (
            "venv --system-site-packages, so that JetPack's tensorrt is seen"
            if is_jetson(root)
            else "pip install 'jmt-edge[tensorrt]'"
        )
        yield Finding("GPU", "TensorRT", NOTE, "this Python does not see it, so networks run on the CPU", remedy)
    else:
        yield Finding("GPU", "TensorRT", OK, _version("tensorrt") or "found")


def _bundles() -> Iterator[Finding]:
    from .engine.bundle import load_bundle

    folder = Path(__file__).parent / "engine" / "bundles"
    paths = sorted(folder.glob("*.jmt"))
    for path in paths:
        try:
            yield Finding("bundles", path.stem, OK, load_bundle(path).id)
        except UserError as error:
            yield Finding("bundles", path.stem, PROBLEM, str(error), "reinstall jmt-edge")
    if not paths:
        yield Finding("bundles", "demo bundles", PROBLEM, f"none in {folder}", "reinstall jmt-edge, or give --bundle")


def _disk(root: Path) -> Iterator[Finding]:
    place = Path.cwd() if root == Path("/") else root
    free = shutil.disk_usage(place).free
    detail = f"{free / 1e9:.1f} GB free at {place}"
    if free < _MIN_DISK:
        yield Finding("disk", "space", WARNING, detail, "free some before recording raw video")
    else:
        yield Finding("disk", "space", OK, detail)


# ---- for people

_SIGNS = {OK: ("✓", "green"), NOTE: ("·", "cyan"), WARNING: ("!", "yellow"), PROBLEM: ("✗", "red")}


def lines(report: Report, *, colour: bool = sys.stdout.isatty()) -> Iterator[str]:
    """The report as a person reads it."""
    import click

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
