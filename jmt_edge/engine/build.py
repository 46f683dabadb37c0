"""A bundle to a bundle with device engines: convert, check against float32, build, keep the report beside it.

The order matters: a conversion is compared with float32 before anything is built from it, so a plan that
changes the scores beyond the limit is never written without the report saying so.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from ..calibration.windows import Windows
from ..errors import BackendError, BundleError
from ..tasks import Task
from .backends import unavailable
from .backends.onnxruntime import cpu_threads
from .bundle import Bundle, write_bundle
from .device import current_device, l4t_release
from .fidelity import Fidelity, compare, run_networks, session
from .plan import build_plan
from .plan_cache import PlanCache, PlanKey
from .precision import static_shapes, to_fp16
from .report import build_report
from .tensorrt_api import Library, open_library
from .torch_tensorrt import compile_engine, open_torch_tensorrt

Precision = Literal["fp32", "fp16", "int8"]
Builder = Literal["tensorrt", "tensorrt-rtx", "torch-tensorrt", "onnxruntime"]
OPSET = 20
_WORTH = 0.95  # INT8 must save more than a timing's own scatter, so that `auto` is never slower


@dataclass(frozen=True)
class Built:
    """The new bundle, the fidelity of what it holds, and the report as written into it."""

    bundle: Bundle
    fidelity: Fidelity
    report: dict[str, Any]


@dataclass(frozen=True)
class Network:
    """One network converted to a precision. `kept` are the nodes left wider than asked, `why` the rule."""

    name: str
    model: bytes
    precision: str
    kept: tuple[str, ...] = ()
    note: str = ""


def choose_builder(name: str, target: str) -> tuple[Builder, str]:
    """The builder and why. `auto`: TensorRT where it and a GPU are at hand, TensorRT-RTX for another target it
    can compile for, else onnxruntime. Raises BackendError where an explicit choice cannot work here.
    """
    if name in ("tensorrt", "tensorrt-rtx", "torch-tensorrt"):
        if target == "current" or name == "torch-tensorrt":
            _need_device(name, target)
        if name == "torch-tensorrt":
            open_torch_tensorrt()
        else:
            open_library(name)  # type: ignore[arg-type]
        return name, "as asked"  # type: ignore[return-value]
    if name == "onnxruntime":
        return name, "as asked"  # type: ignore[return-value]
    if target != "current":
        open_library("tensorrt-rtx")
        return "tensorrt-rtx", f"only TensorRT-RTX compiles for a device that is not here ({target})"
    try:
        device = current_device()
        open_library("tensorrt")
        return "tensorrt", f"{device.name} and TensorRT are at hand"
    except BackendError as reason:
        return "onnxruntime", f"no TensorRT device: {reason}"


def _need_device(builder: str, target: str) -> None:
    """Raises BackendError where `builder` would have no device to build on."""
    if target != "current":
        raise BackendError(f"{builder} builds on the device itself, not for {target}; use --builder tensorrt-rtx")
    try:
        current_device()
    except BackendError as reason:
        other = "--builder onnxruntime" if builder != "tensorrt-rtx" else "--target sm_86 or another"
        raise BackendError(f"--builder {builder} has no device to build on: {reason}, or give {other}") from None


def load_graphs(bundle: Bundle) -> dict[str, onnx.ModelProto]:
    """Every network's float32 ONNX graph. Raises BundleError for a graph that is not readable ONNX."""
    graphs = {}
    for name, entry in bundle.networks.items():
        path = bundle.file(entry["onnx"])
        try:
            model = onnx.load(str(path))
            onnx.checker.check_model(model)
        except Exception as error:  # protobuf and checker errors share no base class
            reason = " ".join(str(error).split())[:200]
            raise BundleError(f"{path} is not a readable ONNX graph ({reason}); export the bundle again") from None
        opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
        if opset > OPSET:
            raise BundleError(f"{path} uses ONNX opset {opset}, engines are built from {OPSET}; export it again")
        graphs[name] = model
    return graphs


def convert(
    bundle: Bundle, graphs: Mapping[str, onnx.ModelProto], precision: Precision, half: bool = True
) -> dict[str, Network]:
    """Each network at `precision`; for INT8, what `calibrate` quantised, and the rest in FP16 if `half`.

    Raises BackendError for INT8 without a calibrated bundle.
    """
    if precision == "int8" and "int8" not in bundle.manifest:
        raise BackendError(f"{bundle.path} holds no INT8 calibration; run `jmt-edge calibrate {bundle.path}` first")
    quantised: dict[str, Any] = bundle.manifest.get("int8", {}).get("networks", {}) if precision == "int8" else {}
    out = {}
    for name, graph in graphs.items():
        if precision == "fp32" or (precision == "int8" and name not in quantised and not half):
            out[name] = Network(name, graph.SerializeToString(), "fp32")
            continue
        source, kept, label = graph, (), "fp16"
        if name in quantised:
            source = onnx.load(str(bundle.file(quantised[name]["onnx"])))
            kept, label = tuple(quantised[name].get("kept", ())), "int8"
            if not half:
                out[name] = Network(name, source.SerializeToString(), "int8", kept, "calibrated Q/DQ")
                continue
        result = to_fp16(source)
        note = "calibrated Q/DQ, the rest FP16" if label == "int8" else f"{len(result.kept)} nodes in FP32 by rule"
        out[name] = Network(name, result.model.SerializeToString(), label, (*kept, *result.kept), note)
    return out


def build(
    bundle: Bundle,
    out: Path,
    *,
    precision: Literal["fp32", "fp16", "int8", "auto"],
    builder: Builder,
    why: str,
    target: str,
    windows: Windows,
    batch: tuple[int, int, int] | None = None,
    extra_files: Mapping[str, bytes] | None = None,
    extra_manifest: Mapping[str, Any] | None = None,
    cache: PlanCache | None = None,
    on_step: Callable[[str, float], None] = lambda what, fraction: None,
) -> Built:
    """Build engines for every network and write the new bundle at `out` (which must not exist).

    `batch` is (min, opt, max) for engines with a dynamic first axis; None gives static batch 1, as live runs.
    `on_step(what, fraction)` follows the work.

    Raises BackendError or BundleError in one sentence; nothing is left at `out` then.
    """
    if out.exists():
        raise BundleError(f"{out} exists; choose another --out, or remove it first")
    graphs = load_graphs(bundle)
    temperature = float(bundle.manifest.get("calibration", {}).get("temperature", 1.0))
    exact_models = {name: graph.SerializeToString() for name, graph in graphs.items()}
    on_step("float32 reference", 0.0)
    reference = run_networks(bundle.task, exact_models, windows)

    def check(networks: Mapping[str, Network], label: str) -> Fidelity:
        on_step(f"fidelity of {label}", 0.0)
        models = {name: network.model for name, network in networks.items()}
        return compare(
            bundle.task, exact_models, models, windows, label, temperature=temperature, reference_run=reference
        )

    timings: dict[str, Any] = {}
    others: dict[str, dict[str, Any]] = {}
    files: dict[str, bytes] = {}
    if builder == "onnxruntime":
        choices, timings = _for_cpu(bundle, graphs, precision, on_step)
        networks = choices["onnxruntime"]
        checked = {}
        for chosen in choices.values():
            small = tuple(name for name, n in chosen.items() if n.precision == "int8")
            if small not in checked:
                checked[small] = check(chosen, "int8" if small else "fp32")
        fidelity = next((f for f in checked.values() if not f.holds), next(iter(checked.values())))
        others = {runtime: _cpu_entry(bundle, chosen, runtime) for runtime, chosen in choices.items()}
        engine = others.pop("onnxruntime")
    else:
        if precision == "auto":
            raise BackendError(
                "--precision auto times engines on the device at hand, and TensorRT plans cannot run here; "
                "give --precision fp16 or int8"
            )
        if builder == "torch-tensorrt" and (precision != "fp32" or batch):
            raise BackendError(
                "--builder torch-tensorrt builds the modules as they are, in float32 and at batch 1; give --precision "
                "fp32 without --batch, or use --builder tensorrt"
            )
        networks = convert(bundle, graphs, precision)
        fidelity = check(networks, precision)
        library = open_torch_tensorrt() if builder == "torch-tensorrt" else open_library(builder)
        files, engine = _plans(bundle, networks, library, target, batch, cache or PlanCache(), on_step)
    engine |= {"builder": builder, "why": why, "precision": precision, "timings": timings}
    report = {
        "bundle": bundle.id,
        "task": bundle.task.name,
        "engine": engine,
        "fidelity": fidelity.to_dict(),
        "networks": {
            n.name: {"precision": n.precision, "kept": list(n.kept), "note": n.note} for n in networks.values()
        },
    }
    key = builder if builder == "onnxruntime" else f"{builder}-{engine['target']}"
    folder = f"reports/{key}-{precision}"
    files |= {f"{folder}/{name}": content for name, content in build_report(report).items()}
    files |= dict(extra_files or {})
    engine["report"] = f"{folder}/build.json"
    manifest = {k: v for k, v in bundle.manifest.items() if k not in ("files", "schema")} | dict(extra_manifest or {})
    manifest["name"] = out.name.removesuffix(".jmt")
    before = dict(bundle.manifest.get("engines", {}))
    if builder == "onnxruntime":
        before.pop("openvino", None)  # an earlier choice, which this one replaces
    manifest["engines"] = {**before, key: engine, **others}
    manifest["built_from"] = bundle.id
    existing = {name: bundle.file(name) for name in bundle.manifest["files"]}
    on_step("writing the bundle", 0.0)
    return Built(write_bundle(out, manifest, {**existing, **files}), fidelity, report)


def _plans(
    bundle: Bundle,
    networks: Mapping[str, Network],
    library: Library,
    target: str,
    batch: tuple[int, int, int] | None,
    cache: PlanCache,
    on_step: Callable[[str, float], None],
) -> tuple[dict[str, bytes], dict[str, Any]]:
    device = None if target != "current" else current_device()
    sm = device.sm if device else target
    cuda, l4t = (device.cuda, l4t_release()) if device else ("", "")
    table = bundle.manifest.get("int8", {}).get("table")
    calibration = bundle.manifest["files"][table] if table else ""
    files: dict[str, bytes] = {}
    entries: dict[str, Any] = {}
    timing = b""
    modules = _modules(bundle, library)
    for name, network in networks.items():
        if network.precision == "int8":
            library.require("explicit_qdq")
        sizes = {"S": bundle.task.steps} | ({} if batch else {"N": 1, "B": 1})
        model = static_shapes(onnx.load_from_string(network.model), sizes).SerializeToString()
        key = PlanKey(
            graph=hashlib.sha256(model).hexdigest(),
            shapes=json.dumps(bundle.networks[name].get("inputs", {}), sort_keys=True) + f" batch={batch or 1}",
            precision=network.precision,
            calibration=calibration if network.precision == "int8" else "",
            library=library.name,
            library_version=library.version,
            cuda=cuda,
            target=sm,
            l4t=l4t,
            settings=_settings(bundle, library, name),
        )
        hit = cache.get(key)
        if hit is None:
            started = time.perf_counter()

            def progress(fraction: float, name: str = name) -> bool:
                on_step(f"{library.name}: {name}", fraction)
                return True

            if name in modules:
                progress(0.0)
                data, summary = compile_engine(modules[name], bundle.task, name), {}
            else:
                plan = build_plan(
                    library,
                    model,
                    target=None if device else sm,
                    batch=batch,
                    timing_cache=timing,
                    on_progress=progress,
                )
                timing = plan.timing_cache or timing
                data, summary = plan.data, plan.summary()
            summary |= {"seconds": time.perf_counter() - started}
            cache.put(key, data, summary)
        else:
            data, summary = hit
        file = f"plans/{library.name}-{sm}/{name}.plan"
        files[file] = data
        entries[name] = {
            "plan": file,
            "precision": network.precision,
            "bytes": len(data),
            "cached": hit is not None,
            "key": asdict(key),
            "layers": {k: v for k, v in summary.items() if k != "detail"},
        }
        files[f"plans/{library.name}-{sm}/{name}.layers.json"] = json.dumps(
            summary.get("detail", []), indent=1
        ).encode()
    if timing:
        files[f"plans/{library.name}-{sm}/timing.cache"] = timing
    return files, {
        "library_version": library.version,
        "target": sm,
        "device": device.name if device else "",
        "cuda": cuda,
        "l4t": l4t,
        "batch": list(batch) if batch else [1, 1, 1],
        "networks": entries,
    }


def _modules(bundle: Bundle, library: Library) -> dict[str, Any]:
    """What torch-tensorrt builds from; nothing for the builders that read ONNX."""
    if library.name != "torch-tensorrt":
        return {}
    from .torch_modules import load_modules

    return dict(load_modules(bundle))


def _settings(bundle: Bundle, library: Library, network: str) -> str:
    settings: dict[str, Any] = {"strongly_typed": True, "opset": OPSET}
    if library.name == "torch-tensorrt":
        settings["weights"] = bundle.manifest["files"].get(bundle.networks[network].get("weights", ""), "")
    return json.dumps(settings, sort_keys=True)


def build_from_modules(
    bundle: Bundle, library: Library, cache: PlanCache | None = None
) -> dict[str, tuple[bytes, str]]:
    """Engines of every network by torch-tensorrt, for the device at hand: network -> (plan, precision)."""
    networks = convert(bundle, load_graphs(bundle), "fp32")
    files, engine = _plans(
        bundle, networks, library, "current", None, cache or PlanCache(), lambda what, fraction: None
    )
    return {name: (files[entry["plan"]], str(entry["precision"])) for name, entry in engine["networks"].items()}


def _for_cpu(
    bundle: Bundle,
    graphs: Mapping[str, onnx.ModelProto],
    precision: Literal["fp32", "fp16", "int8", "auto"],
    on_step: Callable[[str, float], None],
) -> tuple[dict[str, dict[str, Network]], dict[str, Any]]:
    """Runtime -> the networks it runs, and the timings of `auto`. OpenVINO unnamed runs what onnxruntime does."""
    if precision == "fp16":
        raise BackendError(
            "onnxruntime's CPU kernels gain nothing from FP16 (they widen it again); give --precision int8 or auto, "
            "or build for a GPU with --builder tensorrt-rtx --target sm_86"
        )
    exact = convert(bundle, graphs, "fp32")
    if precision == "fp32":
        return {"onnxruntime": exact}, {}
    small = convert(bundle, graphs, "int8", half=False)
    if precision == "int8":
        return {"onnxruntime": small}, {}
    runtimes = _runtimes()
    choices = {runtime: dict(exact) for runtime in runtimes}
    timings: dict[str, Any] = {}
    for name, network in small.items():
        if network.precision != "int8":
            continue
        on_step(f"timing {name}", 0.0)
        feeds = _random_feeds(bundle.task, name)
        timings[name] = {}
        for runtime, open_graph in runtimes.items():
            wide, narrow = time_pair(open_graph(exact[name].model), open_graph(network.model), feeds)
            faster = narrow < wide * _WORTH
            timings[name][runtime] = {"fp32_ms": wide, "int8_ms": narrow, "chosen": "int8" if faster else "fp32"}
            if faster:
                choices[runtime][name] = network
    return choices, timings


def _random_feeds(task: Task, network: str) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    if network != "fusion":
        return {"clip": rng.standard_normal((1, *task.modality(network).shape), dtype=np.float32)}
    feeds = {name: rng.standard_normal((1, task.steps, task.dim), dtype=np.float32) for name in task.names}
    return feeds | {"present": np.ones((1, task.steps, len(task.names)), np.float32)}


Runner = Callable[[Mapping[str, Any]], Any]


def _runtimes() -> dict[str, Callable[[bytes], Runner]]:
    """What may run a bundle's CPU graphs here: onnxruntime, and OpenVINO where it is installed."""

    def with_onnxruntime(model: bytes) -> Runner:
        opened = session(model)
        return lambda feeds: opened.run(None, dict(feeds))

    def with_openvino(model: bytes) -> Runner:
        from .backends.openvino import compile_graph

        compiled = compile_graph(model, cpu_threads())
        return lambda feeds: compiled(dict(feeds))

    found: dict[str, Callable[[bytes], Runner]] = {"onnxruntime": with_onnxruntime}
    return found | ({"openvino": with_openvino} if unavailable("openvino") is None else {})


def time_pair(first: Runner, second: Runner, feeds: Mapping[str, Any], runs: int = 15) -> tuple[float, float]:
    """Median milliseconds of two graphs at batch 1, run in turns so that the machine's drift hits both alike."""
    for run in (first, second):
        for _ in range(3):
            run(feeds)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for run, spent in zip((first, second), times):
            started = time.perf_counter()
            run(feeds)
            spent.append((time.perf_counter() - started) * 1e3)
    return float(np.median(times[0])), float(np.median(times[1]))


def _cpu_entry(bundle: Bundle, networks: Mapping[str, Network], runtime: str) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for name, network in networks.items():
        file = bundle.networks[name]["onnx"]
        if network.precision == "int8":
            file = bundle.manifest["int8"]["networks"][name]["onnx"]
        entries[name] = {"onnx": file, "precision": network.precision}
    return {"library_version": str(import_module(runtime).__version__), "target": "cpu", "networks": entries}
