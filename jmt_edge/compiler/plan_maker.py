"""Plans of a bundle's networks for one device: from the cache if the whole key matches, else built."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import onnx

from ..engine.bundle import Bundle
from ..engine.device import Device, board_model, current_device, l4t_release
from ..engine.tensorrt_api import Library
from .fp16 import pad_channels, static_shapes
from .plan import build_plan
from .plan_cache import PlanCache, PlanKey
from .torch_tensorrt import compile_engine

OPSET = 20


@dataclass(frozen=True)
class Network:
    """One network converted to a precision. `kept`: the nodes left in a wider type; `note`: the rule."""

    name: str
    model: bytes
    precision: str
    kept: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class BuiltPlan:
    """A network's plan; `summary` counts its layers; `cached`: it was built before."""

    data: bytes
    precision: str
    summary: dict[str, Any]
    key: PlanKey
    cached: bool


class PlanMaker:
    """Builds plans with one library for one device, each network and precision once.

    `target` is `current` or `sm_NN`. The builder starts from the bundle's timing cache for the same library version and
    device, and the updated cache goes into the new bundle.
    """

    def __init__(
        self,
        bundle: Bundle,
        library: Library,
        target: str,
        batch: tuple[int, int, int] | None,
        cache: PlanCache,
        on_step: Callable[[str, float], None],
    ) -> None:
        self._bundle, self.library, self._batch, self._cache, self._on_step = bundle, library, batch, cache, on_step
        self.device = None if target != "current" else current_device()
        self.sm = self.device.sm if self.device else target
        self._cuda, self._l4t = (self.device.cuda, l4t_release()) if self.device else ("", "")
        self._workspace = workspace_limit(self.device)
        self._timing = stored_timing_cache(bundle, library, self.sm, self.device)
        self._made: dict[tuple[str, str], BuiltPlan] = {}
        self._modules = _modules(bundle, library)

    def make(self, network: Network) -> BuiltPlan:
        """Raises BackendError, in the library's words, where it does not build the network."""
        at = (network.name, network.precision)
        if at not in self._made:
            self._made[at] = self._make(network)
        return self._made[at]

    def entry(self, networks: Mapping[str, Network]) -> tuple[dict[str, bytes], dict[str, Any]]:
        """The bundle's files and the manifest's entry of these networks' plans."""
        folder = f"plans/{self.library.name}-{self.sm}"
        files: dict[str, bytes] = {}
        entries: dict[str, Any] = {}
        for name, network in networks.items():
            made = self.make(network)
            files[f"{folder}/{name}.plan"] = made.data
            files[f"{folder}/{name}.layers.json"] = json.dumps(made.summary.get("detail", []), indent=1).encode()
            entries[name] = {
                "plan": f"{folder}/{name}.plan",
                "precision": network.precision,
                "bytes": len(made.data),
                "cached": made.cached,
                "key": asdict(made.key),
                "layers": {k: v for k, v in made.summary.items() if k != "detail"},
            }
        if self._timing:
            files[_timing_file(self.library, self.sm)] = self._timing
        return files, {
            "library_version": self.library.version,
            "target": self.sm,
            "device": self.device.name if self.device else "",
            "sms": self.device.sms if self.device else 0,
            "board": board_model() if self.device and self.device.integrated else "",
            "workspace": self._workspace,
            "cuda": self._cuda,
            "l4t": self._l4t,
            "batch": list(self._batch) if self._batch else [1, 1, 1],
            "networks": entries,
        }

    def _make(self, network: Network) -> BuiltPlan:
        name = network.name
        if network.precision == "int8":
            self.library.require("explicit_qdq")
        sizes = {"S": self._bundle.task.steps} | ({} if self._batch else {"N": 1, "B": 1})
        graph = static_shapes(onnx.load_from_string(network.model), sizes)
        if self.library.name == "tensorrt-rtx":  # how TensorRT itself pads cannot be inspected without a GPU
            graph = pad_channels(graph)
        model = graph.SerializeToString()
        key = self._key(network, model)
        hit = self._cache.get(key)
        if hit is not None:
            return BuiltPlan(hit[0], network.precision, hit[1], key, True)

        def progress(fraction: float) -> bool:
            self._on_step(f"{self.library.name}: {name} in {network.precision}", fraction)
            return True

        started = time.perf_counter()
        progress(0.0)
        if name in self._modules:
            data, summary = compile_engine(self._modules[name], self._bundle.task, name), {}
        else:
            plan = build_plan(
                self.library,
                model,
                target=None if self.device else self.sm,
                batch=self._batch,
                workspace=self._workspace,
                timing_cache=self._timing,
                on_progress=progress,
            )
            self._timing = plan.timing_cache or self._timing
            data, summary = plan.data, plan.summary()
        summary |= {"seconds": time.perf_counter() - started}
        self._cache.put(key, data, summary)
        return BuiltPlan(data, network.precision, summary, key, False)

    def _key(self, network: Network, model: bytes) -> PlanKey:
        bundle = self._bundle
        table = bundle.manifest.get("int8", {}).get("table")
        calibration = bundle.manifest["files"][table] if table else ""
        inputs = json.dumps(bundle.networks[network.name].get("inputs", {}), sort_keys=True)
        return PlanKey(
            graph=hashlib.sha256(model).hexdigest(),
            shapes=f"{inputs} batch={self._batch or 1}",
            precision=network.precision,
            calibration=calibration if network.precision == "int8" else "",
            library=self.library.name,
            library_version=self.library.version,
            cuda=self._cuda,
            target=self.sm,
            l4t=self._l4t,
            settings=_settings(bundle, self.library, network.name, self.device, self._workspace),
        )


def stored_timing_cache(bundle: Bundle, library: Library, sm: str, device: Device | None) -> bytes:
    """The bundle's timing cache if the same library version wrote it on the same kind of device, else nothing."""
    entry = bundle.manifest.get("engines", {}).get(f"{library.name}-{sm}", {})
    file = _timing_file(library, sm)
    kind = (device.name, device.sms) if device else ("", 0)
    same = (entry.get("library_version"), entry.get("device"), entry.get("sms")) == (library.version, *kind)
    return bundle.read(file) if same and file in bundle.manifest["files"] else b""


def _timing_file(library: Library, sm: str) -> str:
    return f"plans/{library.name}-{sm}/timing.cache"


def _modules(bundle: Bundle, library: Library) -> dict[str, Any]:
    """The modules that torch-tensorrt builds from; empty for the builders that read ONNX."""
    if library.name != "torch-tensorrt":
        return {}
    from ..models.from_bundle import load_modules

    return dict(load_modules(bundle))


def workspace_limit(device: Device | None) -> int:
    """Bytes that a layer may use for scratch, 0 for TensorRT's own limit, which is the whole memory of the GPU.

    A Jetson's memory is also the system's and every other program's: a quarter of it.
    """
    return device.memory // 4 if device and device.integrated else 0


def _settings(bundle: Bundle, library: Library, network: str, device: Device | None, workspace: int) -> str:
    settings: dict[str, Any] = {"strongly_typed": True, "opset": OPSET}
    if device:
        settings |= {"device": [device.name, device.sms], "workspace": workspace}
    if library.name == "torch-tensorrt":
        settings["weights"] = bundle.manifest["files"].get(bundle.networks[network].get("weights", ""), "")
    return json.dumps(settings, sort_keys=True)
