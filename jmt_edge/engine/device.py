"""The properties of a device that plans and cubins depend on: compute capability, CUDA, L4T. Read without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import BackendError


@dataclass(frozen=True)
class Device:
    """One NVIDIA GPU: `sm` as `sm_87`, `sms` multiprocessors, memory in bytes, CUDA driver version `12.6`.

    integrated: its memory is the machine's, shared with everything else (every Jetson).
    """

    name: str
    sm: str
    sms: int
    memory: int
    cuda: str
    integrated: bool = False


def is_jetson(root: Path = Path("/")) -> bool:
    """A Tegra board, by any of what its firmware, its kernel and NVIDIA's packages say of it.

    None of them is always there: a container hides the device tree, a Yocto image has neither NVIDIA's release file nor
    "tegra" in its kernel's name, and an image built on another machine sees that machine's kernel.
    """
    return (
        (root / "etc/nv_tegra_release").is_file()
        or "nvidia,tegra" in _text(root / "proc/device-tree/compatible")
        or "jetson" in board_model(root).lower()
        or _text(root / "sys/devices/soc0/family").lower() == "tegra"
        or re.search(r"[-_]tegra\b|-l4t-r\d", _text(root / "proc/sys/kernel/osrelease")) is not None
    )


def l4t_release(root: Path = Path("/")) -> str:
    """Jetson's L4T release such as `36.4.3`, or an empty string where it is unknown or on other machines.

    From NVIDIA's release file, else from the package that carries it, else from the kernel's name in a Yocto image.
    """
    if found := re.search(r"R(\d+).*?REVISION: ([\d.]+)", _text(root / "etc/nv_tegra_release")):
        return f"{found[1]}.{found[2]}"
    packages = _text(root / "var/lib/dpkg/status")
    if found := re.search(r"^Package: nvidia-l4t-core\n(?:.+\n)*?Version: ([\d.]+)", packages, re.M):
        return found[1]
    if found := re.search(r"-l4t-r([\d.]+)", _text(root / "proc/sys/kernel/osrelease")):
        return found[1]
    return ""


def board_model(root: Path = Path("/")) -> str:
    """The board as its device tree or firmware names it, `NVIDIA Jetson Orin Nano Developer Kit`; empty where neither
    does."""
    return _text(root / "proc/device-tree/model") or _text(root / "sys/class/dmi/id/product_name")


def _text(file: Path) -> str:
    """A small text file, with blanks for the zero bytes of a device tree; empty where it cannot be read."""
    try:
        return file.read_bytes().decode(errors="replace").replace("\0", " ").strip()
    except OSError:
        return ""


def no_device() -> str | None:
    """None where this machine has a GPU, else the reason."""
    try:
        current_device()
    except BackendError as error:
        return str(error)
    return None


def current_device() -> Device:
    """This machine's GPU, by the CUDA driver API. Raises BackendError with the reason where there is none."""
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise BackendError(f"cuda-bindings is missing ({error}); run `pip install 'jmt-edge[gpu]'`") from None
    try:
        (status,) = driver.cuInit(0)
    except RuntimeError as error:
        raise BackendError(f"no NVIDIA driver here ({error}); run on a machine with an NVIDIA GPU") from None
    if status != driver.CUresult.CUDA_SUCCESS:
        raise BackendError(f"the NVIDIA driver does not start ({status.name}); check nvidia-smi or the Jetson's logs")

    def call(result: tuple[object, ...]) -> object:
        if result[0] != driver.CUresult.CUDA_SUCCESS:
            raise BackendError(f"the CUDA driver refused a query ({result[0]}); check that GPU 0 exists")
        return result[1]

    gpu = call(driver.cuDeviceGet(0))
    attribute = driver.CUdevice_attribute

    def get(what: object) -> int:
        return int(str(call(driver.cuDeviceGetAttribute(what, gpu))))

    major = get(attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)
    minor = get(attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)
    version = int(str(call(driver.cuDriverGetVersion())))
    raw = call(driver.cuDeviceGetName(128, gpu))
    name = raw.split(b"\0")[0].decode() if isinstance(raw, bytes) else str(raw)
    return Device(
        name,
        f"sm_{major}{minor}",
        get(attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
        int(str(call(driver.cuDeviceTotalMem(gpu)))),
        f"{version // 1000}.{version % 1000 // 10}",
        bool(get(attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED)),
    )
