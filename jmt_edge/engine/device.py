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


def l4t_release(root: Path = Path("/")) -> str:
    """Jetson's L4T release such as `36.4.3`, or an empty string on other machines."""
    file = root / "etc/nv_tegra_release"
    if not file.is_file():
        return ""
    found = re.search(r"R(\d+).*?REVISION: ([\d.]+)", file.read_text(errors="replace"))
    return f"{found.group(1)}.{found.group(2)}" if found else "unreadable"


def board_model(root: Path = Path("/")) -> str:
    """The board as its device tree names it, `NVIDIA Jetson Orin Nano Developer Kit`; empty on other machines."""
    file = root / "proc/device-tree/model"
    return file.read_text(errors="replace").strip("\0 \t\r\n") if file.is_file() else ""


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
