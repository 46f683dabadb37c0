"""The doctor: a recorded Jetson, a camera that answers ioctls, ports, remedies, exit codes."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
from pathlib import Path

import pytest
from click.testing import CliRunner
from live_fixture import jmt_edge

from jmt_edge import doctor
from jmt_edge.capture import v4l2
from jmt_edge.cli.doctor import command
from jmt_edge.doctor import NOTE, OK, PROBLEM, WARNING, Finding, Report, examine
from jmt_edge.engine.device import is_jetson, l4t_release


def put(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


JETSON = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "proc/meminfo": "MemTotal:        7802116 kB\nMemAvailable:     210000 kB\n",
    "var/lib/nvpmodel/status": "pmode:0001 fmode:quiet\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=1 NAME=25W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "proc/asound/cards": " 1 [Device         ]: USB-Audio - USB PnP Sound Device\n                      C-Media\n",
    "dev/video0": "", "dev/video10": "",
    "sys/class/video4linux/video0/name": "HD Pro Webcam C920\n",
    "sys/class/video4linux/video10/name": "vi-output, imx219 9-0010\n",
    "dev/ttyUSB0": "", "dev/ttyACM1": "",
    "sys/class/tty/ttyUSB0/device/idVendor": "1a86\n",
    "sys/class/tty/ttyUSB0/device/idProduct": "7523\n",
    "sys/class/tty/ttyUSB0/device/product": "USB Serial\n",
    "usr/bin/brltty": "",
}  # fmt: skip


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    put(tmp_path, JETSON)
    links = tmp_path / "dev/serial/by-id"
    links.mkdir(parents=True)
    (links / "usb-1a86_USB_Serial-if00-port0").symlink_to("../../ttyUSB0")
    return tmp_path


def by_what(report: Report) -> dict[tuple[str, str], Finding]:
    return {(f.section, f.what): f for f in report.findings}


def test_a_recorded_jetson(jetson: Path) -> None:
    found = by_what(examine(jetson))
    machine = found["system", "machine"].detail
    assert "Orin Nano" in machine and "Ubuntu 22.04.5" in machine
    assert found["system", "JetPack"] == Finding("system", "JetPack", OK, "6.2 (L4T 36.4.3)")
    assert found["system", "memory"].level == WARNING and found["system", "memory"].remedy
    power = found["power", "mode"]
    assert (power.level, power.detail) == (NOTE, "25W") and "nvpmodel -m 2 (MAXN_SUPER)" in power.remedy
    assert found["power", "CPU governor"].level == OK
    assert found["cameras", "/dev/video0"].detail == "HD Pro Webcam C920"
    assert [k for k in found if k[0] == "cameras"][:2] == [("cameras", "/dev/video0"), ("cameras", "/dev/video10")]
    assert found["microphones", "card 1"].detail == "USB-Audio - USB PnP Sound Device"
    port = found["serial ports", "/dev/serial/by-id/usb-1a86_USB_Serial-if00-port0"]
    assert port.detail == "/dev/ttyUSB0, USB Serial (1a86:7523)"
    assert ("serial ports", "/dev/ttyACM1") in found
    assert ("GPU", "the Jetson's integrated GPU") in found
    if importlib.util.find_spec("tensorrt") is None:
        assert "--system-site-packages" in found["GPU", "TensorRT"].remedy


def test_a_pip_opencv_on_a_jetson_is_a_warning(jetson: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda *names: "opencv-python 4.11")
    found = by_what(examine(jetson))
    assert found["packages", "OpenCV"].level == WARNING
    assert found["packages", "OpenCV"].remedy == "pip uninstall opencv-python"


# NVIDIA's JetPack archive (developer.nvidia.com/embedded/jetpack-archive); the last column: supported
@pytest.mark.parametrize(
    ("release", "jetpack", "level"),
    [
        ("R39 (release), REVISION: 2.0", "7.2", OK), ("R38 (release), REVISION: 4.0", "7.1", OK),
        ("R38 (release), REVISION: 2.1", "7.0", OK), ("R36 (release), REVISION: 4.7", "6.2.1", OK),
        ("R36 (release), REVISION: 4.4", "6.2.1", OK), ("R36 (release), REVISION: 4.3", "6.2", OK),
        ("R36 (release), REVISION: 4.0", "6.1", OK), ("R36 (release), REVISION: 5.0", "6.2.1 or newer", OK),
        ("R36 (release), REVISION: 3.0", "6.0", WARNING), ("R36 (release), REVISION: 2.0", "6.0 (dev", WARNING),
        ("R35 (release), REVISION: 6.0", "5.1.4", WARNING), ("R35 (release), REVISION: 4.1", "5.1.2", WARNING),
        ("R32 (release), REVISION: 7.1", "4", WARNING), ("R40 (release), REVISION: 1.0", "7.2 or newer", OK),
        ("R28 (release), REVISION: 2.1", "older than 4", WARNING), ("R36", "cannot be told", WARNING),
    ],
)  # fmt: skip
def test_jetpack_by_release(tmp_path: Path, release: str, jetpack: str, level: str) -> None:
    put(tmp_path, {"etc/nv_tegra_release": f"# {release}, GCID: 1\n"})
    finding = by_what(examine(tmp_path))["system", "JetPack"]
    assert (finding.level, finding.detail.startswith(jetpack)) == (level, True), finding
    assert bool(finding.remedy) == (level == WARNING)


YOCTO = {"proc/sys/kernel/osrelease": "5.15.148-l4t-r36.4.4-1012.12+gb8e8a1d5f1c3\n"}
DPKG = "Package: nvidia-l4t-core\nStatus: install ok installed\nVersion: 36.4.3-20250107174145\n"


@pytest.mark.parametrize(
    ("files", "l4t"),
    [
        ({"proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0"}, ""),
        ({"proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0"}, ""),
        ({"sys/class/dmi/id/product_name": "NVIDIA Jetson AGX Thor Developer Kit\n"}, ""),
        ({"sys/devices/soc0/family": "Tegra\n"}, ""),
        ({"proc/sys/kernel/osrelease": "5.15.148-tegra\n"}, ""),
        (YOCTO, "36.4.4"),
        ({"etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1\n"}, "36.4.3"),
        ({"sys/devices/soc0/family": "Tegra\n", "var/lib/dpkg/status": f"Package: a\nVersion: 5\n\n{DPKG}"}, "36.4.3"),
    ],
)  # fmt: skip
def test_a_jetson_is_known_by_any_of_its_marks(tmp_path: Path, files: dict[str, str], l4t: str) -> None:
    put(tmp_path, files)
    assert is_jetson(tmp_path) and l4t_release(tmp_path) == l4t
    assert ("GPU", "the Jetson's integrated GPU") in by_what(examine(tmp_path))


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/sys/kernel/osrelease": "6.8.0-1014-raspi\n", "proc/device-tree/model": "Raspberry Pi 5 Model B\0",
         "proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0"},
        {"sys/devices/soc0/family": "Freescale i.MX\n", "proc/sys/kernel/osrelease": "6.1.0-integrated-graphics\n"},
        {"sys/class/dmi/id/product_name": "Standard PC\n", "proc/sys/kernel/osrelease": "6.1.0-13-amd64\n"},
    ],
)  # fmt: skip
def test_other_machines_are_not_jetsons(tmp_path: Path, files: dict[str, str]) -> None:
    put(tmp_path, files)
    assert not is_jetson(tmp_path) and l4t_release(tmp_path) == ""
    assert ("system", "JetPack") not in by_what(examine(tmp_path))


def test_two_onnxruntimes_are_a_warning_and_cuda_has_a_remedy(
    jetson: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {"onnxruntime": "1.20.1"}
    monkeypatch.setattr(doctor, "versions", lambda *names: {n: here[n] for n in names if n in here})
    rows = [f for f in examine(jetson).findings if f.section == "engines" and f.what == "onnxruntime"]
    assert [f.level for f in rows] == [OK, NOTE]
    assert "onnxruntime-gpu --index-url https://pypi.jetson-ai-lab.io/jp6/cu126" in rows[1].remedy
    here["onnxruntime-gpu"] = "1.20.0"
    rows = [f for f in examine(jetson).findings if f.section == "engines" and f.what == "onnxruntime"]
    assert rows[-1].level == WARNING and "overwrite each other's files" in rows[-1].detail
    bare = tmp_path / "bare"
    bare.mkdir()
    del here["onnxruntime-gpu"]
    assert not [f for f in examine(bare).findings if f.what == "onnxruntime" and f.level == NOTE]


@pytest.mark.parametrize(
    ("terminal", "variables", "coloured"),
    [(True, {}, True), (False, {}, False), (True, {"NO_COLOR": "1"}, False), (True, {"NO_COLOR": ""}, True),
     (True, {"TERM": "dumb"}, False)],
)  # fmt: skip
def test_colour_is_for_terminals_that_want_it(
    terminal: bool, variables: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    report = Report([Finding("system", "machine", OK, "x")])
    assert any("\x1b[" in line for line in doctor.lines(report)) == coloured


def test_a_machine_with_nothing_has_a_remedy_for_everything(tmp_path: Path) -> None:
    report = examine(tmp_path)
    warnings = {f.section for f in report.findings if f.level == WARNING}
    assert {"cameras", "serial ports"} <= warnings
    assert all(f.remedy for f in report.findings if f.level in (WARNING, PROBLEM))
    assert ("GPU", "NVIDIA GPU") in by_what(report)


def test_the_best_power_mode_needs_no_remedy(tmp_path: Path) -> None:
    conf = "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=15W >\n"
    put(tmp_path, {"var/lib/nvpmodel/status": "pmode:0000", "etc/nvpmodel.conf": conf})
    assert by_what(examine(tmp_path))["power", "mode"] == Finding("power", "mode", OK, "MAXN")


def test_gpus_by_the_drivers_own_files(tmp_path: Path) -> None:
    put(tmp_path, {
        "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\n",
        "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA RTX A2000\nIRQ: 1\n",
    })  # fmt: skip
    assert by_what(examine(tmp_path))["GPU", "NVIDIA RTX A2000"].detail == "driver 550.54.15"


class FakeCamera:
    """Answers as the kernel's uvcvideo does: two formats, a list of sizes, a stepwise range."""

    FORMATS = (("MJPG", ((1280, 720, (30, 60)), (640, 480, (30,)))), ("YUYV", ((640, 480, (30, 15)),)))

    def __init__(self, caps: int = 0x1, stepwise: bool = False) -> None:
        self.caps, self.stepwise = caps, stepwise

    def __call__(self, fd: int, request: int, buffer: bytearray) -> None:
        if request == v4l2.QUERYCAP:
            buffer[16 : 16 + 11] = b"Fake Webcam"
            struct.pack_into("<II", buffer, 84, 0x80000000 | 0x1, self.caps)
            return
        (index,) = struct.unpack_from("<I", buffer, 0)
        try:
            if request == v4l2.ENUM_FMT:
                assert struct.unpack_from("<I", buffer, 4) == (1,)
                buffer[44:48] = self.FORMATS[index][0].encode()
                return
            sizes = dict(self.FORMATS)[bytes(buffer[4:8]).decode()]
            if request == v4l2.ENUM_FRAMESIZES:
                if self.stepwise:
                    struct.pack_into("<7I", buffer, 8, 3, 16, 1920, 8, 16, 1080, 8)
                else:
                    struct.pack_into("<3I", buffer, 8, 1, *sizes[index][:2])
                return
            assert request == v4l2.ENUM_FRAMEINTERVALS
            where = struct.unpack_from("<2I", buffer, 8)
            rates = next((s[2] for s in sizes if s[:2] == where), (25,))
            struct.pack_into("<3I", buffer, 16, 1, 1, rates[index])
        except IndexError:
            raise OSError(22, "Invalid argument") from None


def test_a_cameras_modes(tmp_path: Path) -> None:
    node = tmp_path / "video0"
    node.write_text("")
    assert v4l2.query_camera(node, FakeCamera()) == (
        "Fake Webcam",
        [
            v4l2.Mode("MJPG", 1280, 720, (60.0, 30.0)),
            v4l2.Mode("MJPG", 640, 480, (30.0,)),
            v4l2.Mode("YUYV", 640, 480, (30.0, 15.0)),
        ],
    )
    _, modes = v4l2.query_camera(node, FakeCamera(stepwise=True)) or ("", [])
    assert {(m.width, m.height) for m in modes} == {(1920, 1080)}
    assert v4l2.query_camera(node, FakeCamera(caps=0x00A00000)) is None
    with pytest.raises(OSError, match="No such file"):
        v4l2.query_camera(tmp_path / "video9", FakeCamera())


def test_a_node_that_is_no_camera_is_refused_by_the_kernel() -> None:
    with pytest.raises(OSError, match="ioctl"):
        v4l2.query_camera(Path("/dev/null"))


def test_who_holds_a_device(tmp_path: Path) -> None:
    node = tmp_path / "video0"
    node.write_text("")
    assert not doctor._in_use(node)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        held = os.open(node, os.O_RDONLY)
        os.write(write, b"x")
        os.read(os.open("/dev/zero", os.O_RDONLY), 1)
        import time

        time.sleep(30)
        os._exit(held)
    os.read(read, 1)
    assert doctor._in_use(node)
    os.kill(child, 9)
    os.waitpid(child, 0)
    os.close(read)
    os.close(write)


def test_exit_codes_and_json(monkeypatch: pytest.MonkeyPatch) -> None:
    good = Report([Finding("cameras", "cameras", WARNING, "none", "plug one in")])
    bad = Report([*good.findings, Finding("engines", "engines", PROBLEM, "none can run", "pip install onnxruntime")])
    for report, code in ((good, 0), (bad, 1)):
        monkeypatch.setattr(doctor, "examine", lambda report=report, **_: report)
        result = CliRunner().invoke(command, ["--json"])
        assert result.exit_code == code
        assert json.loads(result.output) == report.to_dict()
        shown = CliRunner().invoke(command, [])
        assert shown.exit_code == code and "→ plug one in" in shown.output
    assert "cannot run here" in shown.output


def test_this_machine() -> None:
    done = jmt_edge("doctor", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["can_run"] else 1), done.stderr
    sections = {f["section"] for f in report["findings"]}
    assert {
        "system",
        "cameras",
        "microphones",
        "serial ports",
        "packages",
        "engines",
        "GPU",
        "bundles",
        "disk",
    } <= sections
    assert all(f["remedy"] for f in report["findings"] if f["level"] in ("warning", "problem"))
    assert "onnxruntime" in {f["what"] for f in report["findings"] if f["level"] == "ok"}
